/* A thread stands in vfork until its child ends: it takes no signals, so a capture has to give up after its time-out. */
#include "check.h"

static void *thread(void *unused) {
  (void)unused;
  for (;;) {
    pid_t child = vfork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (int fd = 0; fd < 3; fd++) close(fd);
      pause();
      _exit(0);
    }
    CHECK(child > 0);
    waitpid(child, NULL, 0);
  }
  return NULL;
}

static void set_up(void) {
  start_thread(thread, NULL);
  sleep_ms(100);
}

static void verify(void) {}

static void after_restore(void) {}
