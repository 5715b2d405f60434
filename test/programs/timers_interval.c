/* setitimer: the real, the virtual and the profiling timer keep their interval and go on firing; a one-shot keeps its time left. */
#include "check.h"
#include <sys/time.h>

static volatile sig_atomic_t real, virtual, profiling;

static void handler(int number) {
  if (number == SIGALRM) real++;
  if (number == SIGVTALRM) virtual++;
  if (number == SIGPROF) profiling++;
}

static void set_up(void) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  SYS(sigaction(SIGALRM, &action, NULL));
  SYS(sigaction(SIGVTALRM, &action, NULL));
  SYS(sigaction(SIGPROF, &action, NULL));
  SYS(setitimer(ITIMER_REAL, &(struct itimerval){{0, 15000}, {0, 15000}}, NULL));
  SYS(setitimer(ITIMER_VIRTUAL, &(struct itimerval){{0, 10000}, {0, 10000}}, NULL));
  SYS(setitimer(ITIMER_PROF, &(struct itimerval){{7200, 5}, {3600, 0}}, NULL));
}

static void verify(void) {
  struct itimerval now;
  SYS(getitimer(ITIMER_REAL, &now));
  CHECK(now.it_interval.tv_sec == 0 && now.it_interval.tv_usec >= 15000 && now.it_interval.tv_usec <= 19000, "interval %ld us",
        (long)now.it_interval.tv_usec);
  SYS(getitimer(ITIMER_PROF, &now));
  CHECK(now.it_interval.tv_sec >= 7199 && now.it_interval.tv_sec <= 7200, "interval %ld s", (long)now.it_interval.tv_sec);
  CHECK(now.it_value.tv_sec >= 3500 && now.it_value.tv_sec <= 3600, "%ld s left", (long)now.it_value.tv_sec);
}

static void after_restore(void) {
  sig_atomic_t before = real;
  WAIT_UNTIL(real > before + 3);
  before = virtual;
  WAIT_UNTIL(({
    for (volatile int i = 0; i < 3000000; i++) {
    }
    virtual > before + 1;
  }));
}
