/* Every signal is blocked in every thread, through the C library. */
#include "check.h"

static sem_t request, reply;

static void check_mask(void) {
  sigset_t set;
  SYS(pthread_sigmask(SIG_SETMASK, NULL, &set));
  for (int i = 1; i <= SIGRTMAX; i++)
    if (i != SIGKILL && i != SIGSTOP && (i < 32 || i >= SIGRTMIN)) CHECK(sigismember(&set, i) == 1, "signal %d is not blocked", i);
}

static void block_all(void) {
  sigset_t set;
  sigfillset(&set);
  PTHREAD(pthread_sigmask(SIG_SETMASK, &set, NULL));
}

static void *thread(void *unused) {
  (void)unused;
  block_all();
  for (;;) {
    wait_semaphore(&request);
    check_mask();
    sem_post(&reply);
  }
  return NULL;
}

static void set_up(void) {
  block_all();
  sem_init(&request, 0, 0);
  sem_init(&reply, 0, 0);
  for (int i = 0; i < 3; i++) start_thread(thread, NULL);
}

static void verify(void) {
  check_mask();
  for (int i = 0; i < 3; i++) sem_post(&request);
  for (int i = 0; i < 3; i++) wait_semaphore(&reply);
}

static void after_restore(void) {
  sigset_t pending;
  SYS(kill(getpid(), SIGTERM)); /* stays pending */
  SYS(sigpending(&pending));
  CHECK(sigismember(&pending, SIGTERM) == 1);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  int number;
  CHECK(sigwait(&set, &number) == 0 && number == SIGTERM);
}
