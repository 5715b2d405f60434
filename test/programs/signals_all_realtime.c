/* The program uses every real-time signal that the C library offers: the engine must not take one away from it. */
#include "check.h"

static volatile sig_atomic_t delivered[65], value[65];

static void handler(int number, siginfo_t *info, void *context) {
  (void)context;
  delivered[number]++;
  value[number] = info->si_value.sival_int;
}

static void set_up(void) {
  for (int i = SIGRTMIN; i <= SIGRTMAX; i++) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART}, seen;
    sigemptyset(&action.sa_mask);
    SYS(sigaction(i, &action, NULL));
    SYS(sigaction(i, NULL, &seen));
    CHECK(seen.sa_sigaction == handler && seen.sa_flags & SA_SIGINFO, "signal %d", i);
  }
}

static void verify(void) {
  for (int i = SIGRTMIN; i <= SIGRTMAX; i++) {
    struct sigaction seen;
    SYS(sigaction(i, NULL, &seen));
    CHECK(seen.sa_sigaction == handler, "signal %d: handler %p", i, (void *)seen.sa_sigaction);
    sig_atomic_t before = delivered[i];
    SYS(sigqueue(getpid(), i, (union sigval){.sival_int = i * 7}));
    WAIT_UNTIL(delivered[i] != before);
    CHECK(delivered[i] == before + 1 && value[i] == i * 7, "signal %d: %d deliveries, value %d", i, (int)(delivered[i] - before),
          (int)value[i]);
  }
}

static void after_restore(void) { verify(); }
