/* Calls that name another thread by its pthread_t, made after the restore on threads from before it. */
#include "check.h"

static pthread_t joined, cancelled, killed, detached;
static sem_t finish, ready, end_detached;
static atomic_int killed_times;
static volatile bool cleaned;

static void handler(int number) {
  (void)number;
  killed_times++;
}

static void *finish_with_value(void *value) {
  sem_post(&ready);
  wait_semaphore(&finish);
  return value;
}

static void clean(void *unused) {
  (void)unused;
  cleaned = true;
}

static void *to_be_cancelled(void *unused) {
  (void)unused;
  pthread_cleanup_push(clean, NULL);
  sem_post(&ready);
  for (;;) sleep_ms(3600000);
  pthread_cleanup_pop(0);
  return NULL;
}

static void *to_be_killed(void *unused) {
  (void)unused;
  pthread_setname_np(pthread_self(), "killed thread");
  sem_post(&ready);
  for (;;) pause();
  return NULL;
}

static void *to_be_detached(void *unused) {
  (void)unused;
  sem_post(&ready);
  wait_semaphore(&end_detached);
  return NULL;
}

static pthread_t start(void *(*function)(void *), void *argument) {
  pthread_t thread = start_thread(function, argument);
  wait_semaphore(&ready);
  return thread;
}

static void set_up(void) {
  struct sigaction action = {.sa_handler = handler};
  SYS(sigaction(SIGUSR1, &action, NULL));
  sem_init(&finish, 0, 0);
  sem_init(&ready, 0, 0);
  sem_init(&end_detached, 0, 0);
  joined = start(finish_with_value, (void *)12345);
  cancelled = start(to_be_cancelled, NULL);
  killed = start(to_be_killed, NULL);
  detached = start(to_be_detached, NULL);
}

static void verify(void) {
  CHECK(pthread_tryjoin_np(joined, NULL) == EBUSY);
  CHECK(pthread_kill(killed, 0) == 0);
}

static void after_restore(void) {
  char name[16];
  PTHREAD(pthread_getname_np(killed, name, sizeof name));
  CHECK(!strcmp(name, "killed thread"), "thread name is %s", name);
  PTHREAD(pthread_setname_np(joined, "new name"));
  PTHREAD(pthread_getname_np(joined, name, sizeof name));
  CHECK(!strcmp(name, "new name"), "thread name is %s", name);

  clockid_t clock;
  PTHREAD(pthread_getcpuclockid(joined, &clock));
  CHECK(now_ns(clock) >= 0);
  struct timespec t;
  SYS(clock_gettime(clock, &t));

  cpu_set_t set;
  PTHREAD(pthread_getaffinity_np(joined, sizeof set, &set));
  PTHREAD(pthread_setaffinity_np(joined, sizeof set, &set));
  int policy;
  struct sched_param parameters;
  PTHREAD(pthread_getschedparam(killed, &policy, &parameters));

  int before = killed_times;
  PTHREAD(pthread_kill(killed, SIGUSR1));
  WAIT_UNTIL(killed_times == before + 1);

  PTHREAD(pthread_cancel(cancelled));
  void *result;
  PTHREAD(pthread_join(cancelled, &result));
  CHECK(result == PTHREAD_CANCELED && cleaned);
  cleaned = false;

  sem_post(&finish);
  PTHREAD(pthread_join(joined, &result));
  CHECK(result == (void *)12345);

  PTHREAD(pthread_detach(detached));
  sem_post(&end_detached);

  joined = start(finish_with_value, (void *)12345);
  cancelled = start(to_be_cancelled, NULL);
  detached = start(to_be_detached, NULL);
}
