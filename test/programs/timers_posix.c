/* POSIX timers: ids, signals and values, intervals, time left, SIGEV_THREAD_ID and SIGEV_THREAD, clocks. */
#include "check.h"
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static timer_t periodic, to_thread, one_shot, silent, by_thread;
static atomic_int periodic_times, thread_times, notified_times;
static atomic_int wrong;
static sem_t thread_ready;
static pid_t worker_tid;
static _Thread_local bool is_worker;
static int periodic_value = 31, thread_value = 32;

static void handler(int number, siginfo_t *info, void *context) {
  (void)context;
  if (info->si_code != SI_TIMER) wrong = 1;
  if (number == SIGRTMIN + 1) {
    if (info->si_value.sival_ptr != &periodic_value) wrong = 2;
    periodic_times++;
  } else {
    if (info->si_value.sival_ptr != &thread_value) wrong = 3;
    if (!is_worker) wrong = 4;
    thread_times++;
  }
}

static void notified(union sigval value) {
  if (value.sival_int != 33) wrong = 5;
  notified_times++;
}

static void *worker(void *unused) {
  (void)unused;
  is_worker = true;
  worker_tid = gettid();
  sem_post(&thread_ready);
  for (;;) pause();
  return NULL;
}

static void set_up(void) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
  SYS(sigaction(SIGRTMIN + 1, &action, NULL));
  SYS(sigaction(SIGRTMIN + 2, &action, NULL));
  sem_init(&thread_ready, 0, 0);
  start_thread(worker, NULL);
  wait_semaphore(&thread_ready);

  timer_t gap;
  struct sigevent event = {.sigev_notify = SIGEV_NONE};
  SYS(timer_create(CLOCK_REALTIME, &event, &gap)); /* its deletion leaves a gap in the ids */
  SYS(timer_create(CLOCK_REALTIME, &event, &silent));
  event = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_ptr = &periodic_value};
  SYS(timer_create(CLOCK_MONOTONIC, &event, &periodic));
  event = (struct sigevent){.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_ptr = &thread_value};
  event.sigev_notify_thread_id = worker_tid;
  SYS(timer_create(CLOCK_MONOTONIC, &event, &to_thread));
  event = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
  SYS(timer_create(CLOCK_BOOTTIME, &event, &one_shot));
  event = (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notified, .sigev_value.sival_int = 33};
  SYS(timer_create(CLOCK_MONOTONIC, &event, &by_thread));
  SYS(timer_delete(gap));
  SYS(timer_settime(silent, 0, &(struct itimerspec){{10, 0}, {5000, 0}}, NULL));
  SYS(timer_settime(periodic, 0, &(struct itimerspec){{0, 12000000}, {0, 12000000}}, NULL));
  SYS(timer_settime(to_thread, 0, &(struct itimerspec){{0, 17000000}, {0, 17000000}}, NULL));
  SYS(timer_settime(one_shot, 0, &(struct itimerspec){{0, 0}, {4000, 0}}, NULL));
  SYS(timer_settime(by_thread, 0, &(struct itimerspec){{0, 25000000}, {0, 25000000}}, NULL));
}

static void verify(void) {
  CHECK(!wrong, "a timer's signal was wrong (case %d)", wrong);
  struct itimerspec now;
  SYS(timer_gettime(periodic, &now));
  CHECK(now.it_interval.tv_nsec == 12000000 && now.it_interval.tv_sec == 0);
  SYS(timer_gettime(one_shot, &now));
  CHECK(now.it_value.tv_sec > 3900 && now.it_value.tv_sec <= 4000 && now.it_interval.tv_sec == 0, "%ld s left", now.it_value.tv_sec);
  SYS(timer_gettime(silent, &now));
  CHECK(now.it_value.tv_sec > 4900 && now.it_value.tv_sec <= 5000 && now.it_interval.tv_sec == 10, "%ld s left", now.it_value.tv_sec);
}

static void after_restore(void) {
  int a = periodic_times, b = thread_times, c = notified_times;
  WAIT_UNTIL(periodic_times > a + 2 && thread_times > b + 2 && notified_times > c + 1);
  timer_t new;
  struct sigevent event = {.sigev_notify = SIGEV_NONE};
  SYS(timer_create(CLOCK_MONOTONIC, &event, &new));
  SYS(timer_delete(new));
  SYS(timer_settime(one_shot, 0, &(struct itimerspec){{0, 0}, {4000, 0}}, NULL));
  SYS(timer_getoverrun(periodic));
}
