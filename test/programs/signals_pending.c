/*
 * Signal masks per thread, and pending signals: sent to the process and to one thread, standard ones and queued real-time ones with
 * their values, order and count.
 */
#include "check.h"

#define PROCESS_VALUES 5
#define THREAD_VALUES 4
#define FIRST (SIGRTMIN + 3)
#define SECOND (SIGRTMIN + 4)

static pid_t worker_tid;
static sem_t request, reply;
static bool drain;
static uint64_t worker_mask, main_mask, worker_pending, process_pending;

static siginfo_t take(int number) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, number);
  int got = sigtimedwait(&set, &info, &(struct timespec){0, 0});
  CHECK(got == number, "signal %d is not pending (sigtimedwait gave %d, errno %d)", number, got, errno);
  return info;
}

static void take_none(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  CHECK(sigtimedwait(&set, NULL, &(struct timespec){0, 0}) == -1 && errno == EAGAIN, "signal %d is pending once too often", number);
}

static void send_to_thread(pid_t tid, int number, int value) {
  siginfo_t info = {.si_signo = number, .si_code = SI_QUEUE};
  info.si_pid = 4321;
  info.si_uid = getuid();
  info.si_value.sival_int = value;
  SYS(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, number, &info));
}

static void arm(void) {
  SYS(kill(getpid(), SIGUSR1));
  for (int i = 0; i < PROCESS_VALUES; i++) SYS(sigqueue(getpid(), FIRST, (union sigval){.sival_int = 50 + i}));
  SYS(syscall(SYS_tgkill, getpid(), worker_tid, SIGUSR2));
  for (int i = 0; i < THREAD_VALUES; i++) send_to_thread(worker_tid, SECOND, 70 + i);
}

static void *worker(void *unused) {
  (void)unused;
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, SIGTERM); /* other threads have it blocked: masks differ */
  PTHREAD(pthread_sigmask(SIG_SETMASK, &set, NULL));
  worker_tid = gettid();
  worker_mask = status_field("SigBlk:", 16);
  sem_post(&reply);
  for (;;) {
    wait_semaphore(&request);
    worker_tid = gettid();
    if (!drain) {
      CHECK(status_field("SigBlk:", 16) == worker_mask, "0x%lx, should be 0x%lx", status_field("SigBlk:", 16), worker_mask);
      CHECK(status_field("SigPnd:", 16) == worker_pending, "0x%lx, should be 0x%lx", status_field("SigPnd:", 16), worker_pending);
      sem_post(&reply);
      continue;
    }
    siginfo_t info = take(SIGUSR2);
    CHECK(info.si_code == SI_TKILL || info.si_code == SI_USER /* what glibc makes of it */, "si_code %d", info.si_code);
    take_none(SIGUSR2);
    for (int i = 0; i < THREAD_VALUES; i++) {
      info = take(SECOND);
      CHECK(info.si_code == SI_QUEUE && info.si_pid == 4321 && info.si_value.sival_int == 70 + i, "value %d in place %d, code %d, pid %d",
            info.si_value.sival_int, i, info.si_code, info.si_pid);
    }
    take_none(SECOND);
    sem_post(&reply);
  }
  return NULL;
}

static void set_up(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, FIRST);
  sigaddset(&set, SECOND);
  SYS(sigprocmask(SIG_SETMASK, &set, NULL));
  sem_init(&request, 0, 0);
  sem_init(&reply, 0, 0);
  start_thread(worker, NULL);
  wait_semaphore(&reply);
  arm();
  main_mask = status_field("SigBlk:", 16);
  process_pending = 1ull << (SIGUSR1 - 1) | 1ull << (FIRST - 1);
  worker_pending = 1ull << (SIGUSR2 - 1) | 1ull << (SECOND - 1);
}

static void ask_worker(bool to_drain) {
  drain = to_drain;
  sem_post(&request);
  wait_semaphore(&reply);
}

static void verify(void) {
  CHECK(status_field("SigBlk:", 16) == main_mask, "0x%lx, should be 0x%lx", status_field("SigBlk:", 16), main_mask);
  CHECK(status_field("ShdPnd:", 16) == process_pending, "0x%lx, should be 0x%lx", status_field("ShdPnd:", 16), process_pending);
  ask_worker(false);
}

static void after_restore(void) {
  siginfo_t info = take(SIGUSR1);
  CHECK(info.si_code == SI_USER, "si_code %d", info.si_code);
  take_none(SIGUSR1);
  for (int i = 0; i < PROCESS_VALUES; i++) {
    info = take(FIRST);
    CHECK(info.si_code == SI_QUEUE && info.si_value.sival_int == 50 + i, "value %d in place %d, code %d", info.si_value.sival_int, i,
          info.si_code);
  }
  take_none(FIRST);
  ask_worker(true);
  arm();
}
