/* Threads that wait on a condition variable (with and without deadline), a barrier, a semaphore and a read-write lock. */
#include "check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition, other;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t semaphore, readers_go;
static unsigned long round_number;
static atomic_ulong awake, timeouts, past_barrier, past_semaphore, past_rwlock;

static void *wait_condition(void *with_deadline) {
  for (;;) {
    PTHREAD(pthread_mutex_lock(&mutex));
    unsigned long seen = round_number;
    while (round_number == seen) {
      if (with_deadline) {
        struct timespec deadline;
        clock_gettime(CLOCK_MONOTONIC, &deadline);
        deadline.tv_sec += 36000;
        PTHREAD(pthread_cond_timedwait(&condition, &mutex, &deadline));
      } else {
        PTHREAD(pthread_cond_wait(&condition, &mutex));
      }
    }
    PTHREAD(pthread_mutex_unlock(&mutex));
    awake++;
  }
  return NULL;
}

/* Nobody signals this one: each wait must end by its deadline, not before it. */
static void *wait_deadline(void *unused) {
  (void)unused;
  for (;;) {
    struct timespec deadline;
    PTHREAD(pthread_mutex_lock(&mutex));
    int64_t end = now_ns(CLOCK_MONOTONIC) + 15000000;
    deadline.tv_sec = end / 1000000000;
    deadline.tv_nsec = end % 1000000000;
    int error;
    do error = pthread_cond_timedwait(&other, &mutex, &deadline);
    while (error == 0);
    CHECK(error == ETIMEDOUT, "pthread_cond_timedwait: %d", error);
    CHECK(now_ns(CLOCK_MONOTONIC) >= end, "pthread_cond_timedwait ended early");
    PTHREAD(pthread_mutex_unlock(&mutex));
    timeouts++;
  }
  return NULL;
}

static void *wait_barrier(void *unused) {
  (void)unused;
  for (;;) {
    int result = pthread_barrier_wait(&barrier);
    CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
    past_barrier++;
  }
  return NULL;
}

static void *wait_on_semaphore(void *unused) {
  (void)unused;
  for (;;) {
    wait_semaphore(&semaphore);
    past_semaphore++;
  }
  return NULL;
}

static void *wait_rwlock(void *unused) {
  (void)unused;
  for (;;) {
    PTHREAD(pthread_rwlock_rdlock(&rwlock));
    PTHREAD(pthread_rwlock_unlock(&rwlock));
    past_rwlock++;
    wait_semaphore(&readers_go);
  }
  return NULL;
}

static unsigned long expected;

static void set_up(void) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&condition, &attributes);
  pthread_cond_init(&other, &attributes);
  pthread_barrier_init(&barrier, NULL, 3);
  sem_init(&semaphore, 0, 0);
  sem_init(&readers_go, 0, 0);
  PTHREAD(pthread_rwlock_wrlock(&rwlock));
  for (int i = 0; i < 2; i++) {
    start_thread(wait_condition, NULL);
    start_thread(wait_condition, &condition);
    start_thread(wait_barrier, NULL);
    start_thread(wait_on_semaphore, NULL);
    start_thread(wait_rwlock, NULL);
  }
  start_thread(wait_deadline, NULL);
  sleep_ms(50);
}

static void verify(void) {
  CHECK(awake == expected * 4, "%lu wake-ups without a signal", awake - expected * 4);
  CHECK(past_barrier == expected * 2, "the barrier let %lu pass", past_barrier - expected * 2);
  CHECK(past_semaphore == expected * 2);
  CHECK(past_rwlock == expected * 2);
}

static void after_restore(void) {
  unsigned long timeouts_before = timeouts;
  expected++;
  PTHREAD(pthread_mutex_lock(&mutex));
  round_number++;
  PTHREAD(pthread_cond_broadcast(&condition));
  PTHREAD(pthread_mutex_unlock(&mutex));
  int result = pthread_barrier_wait(&barrier);
  CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
  sem_post(&semaphore);
  sem_post(&semaphore);
  PTHREAD(pthread_rwlock_unlock(&rwlock));
  WAIT_UNTIL(awake == expected * 4 && past_barrier == expected * 2 && past_semaphore == expected * 2 && past_rwlock == expected * 2);
  PTHREAD(pthread_rwlock_wrlock(&rwlock));
  sem_post(&readers_go);
  sem_post(&readers_go);
  WAIT_UNTIL(timeouts > timeouts_before);
  sleep_ms(20);
}
