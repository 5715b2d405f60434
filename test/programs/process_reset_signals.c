/* Every signal disposition is set to the default, as Node.js does at its start: through the C library and by raw system calls. */
#include "check.h"

static void set_up(void) {
  for (int i = 1; i <= 64; i++) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(i, &action, NULL);
    unsigned long raw[4] = {0};
    syscall(SYS_rt_sigaction, i, raw, NULL, 8);
  }
}

static void verify(void) {
  for (int i = SIGRTMIN; i <= SIGRTMAX; i++) {
    struct sigaction action;
    if (sigaction(i, NULL, &action) == 0) CHECK(action.sa_handler == SIG_DFL, "signal %d has a handler", i);
  }
}

static void *end(void *value) { return value; }

static void after_restore(void) { PTHREAD(pthread_join(start_thread(end, NULL), NULL)); }
