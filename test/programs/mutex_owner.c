/*
 * Mutexes that know their owner (recursive, error-checking) and others, held across the capture by main and by another thread, locked in every
 * way that there is: more than once, tried, with a time, as C11 has it.
 */
#include "check.h"

#include <threads.h>

enum { NORMAL, RECURSIVE, ERRORCHECK, KINDS };

static pthread_mutex_t of_main[KINDS], of_thread[KINDS];
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t request, reply;

/* By the owner: everything that shows whether the mutex still knows its owner; the mutex is held afterwards, as before. */
static void exercise(pthread_mutex_t *mutexes) {
  int error = pthread_mutex_lock(&mutexes[RECURSIVE]);
  CHECK(error == 0, "owner cannot lock its recursive mutex again: %d", error);
  PTHREAD(pthread_mutex_unlock(&mutexes[RECURSIVE]));
  error = pthread_mutex_trylock(&mutexes[RECURSIVE]);
  CHECK(error == 0, "owner cannot trylock its recursive mutex again: %d", error);
  PTHREAD(pthread_mutex_unlock(&mutexes[RECURSIVE]));
  error = pthread_mutex_lock(&mutexes[ERRORCHECK]);
  CHECK(error == EDEADLK, "lock of an owned error-checking mutex: %d", error);
  for (int i = 0; i < KINDS; i++) {
    error = pthread_mutex_unlock(&mutexes[i]);
    CHECK(error == 0, "owner cannot unlock, kind %d: %d", i, error);
  }
  for (int i = 0; i < KINDS; i++) PTHREAD(pthread_mutex_lock(&mutexes[i]));
}

/* Ways to lock, of which the first two give no time. */
enum { LOCK, TRY, TIMED, C11, C11_TRY, C11_TIMED, WAYS };
#define DEPTH 3

/* A recursive mutex of each thread for each way. */
static pthread_mutex_t of_way[2][WAYS];
static mtx_t standard[2][WAYS];
static pthread_rwlock_t written[2] = {PTHREAD_RWLOCK_INITIALIZER, PTHREAD_RWLOCK_INITIALIZER};

static int lock_by(int which, int way) {
  struct timespec later;
  clock_gettime(CLOCK_REALTIME, &later);
  later.tv_sec += 1000;
  switch (way) {
    case LOCK: return pthread_mutex_lock(&of_way[which][way]);
    case TRY: return pthread_mutex_trylock(&of_way[which][way]);
    case TIMED: return pthread_mutex_timedlock(&of_way[which][way], &later);
    case C11: return mtx_lock(&standard[which][way]) != thrd_success;
    case C11_TRY: return mtx_trylock(&standard[which][way]) != thrd_success;
    default: return mtx_timedlock(&standard[which][way], &later) != thrd_success;
  }
}

static int unlock_by(int which, int way) { return way < C11 ? pthread_mutex_unlock(&of_way[which][way]) : mtx_unlock(&standard[which][way]) != thrd_success; }

static void lock_all_ways(int which) {
  struct timespec later;
  clock_gettime(CLOCK_REALTIME, &later);
  later.tv_sec += 1000;
  for (int way = 0; way < WAYS; way++)
    for (int depth = 0; depth < DEPTH; depth++) CHECK(lock_by(which, way) == 0, "way %d, depth %d", way, depth);
  PTHREAD(which == 0 ? pthread_rwlock_trywrlock(&written[which]) : pthread_rwlock_timedwrlock(&written[which], &later));
}

static void exercise_all_ways(int which) {
  for (int way = 0; way < WAYS; way++) {
    for (int depth = 0; depth < DEPTH; depth++) CHECK(unlock_by(which, way) == 0, "owner cannot unlock, way %d, depth %d", way, depth);
    CHECK(unlock_by(which, way) != 0, "unlocked once more than locked, way %d", way);
  }
  PTHREAD(pthread_rwlock_unlock(&written[which]));
  PTHREAD(pthread_rwlock_rdlock(&written[which]));
  PTHREAD(pthread_rwlock_unlock(&written[which]));
  lock_all_ways(which);
}

static void *thread(void *unused) {
  (void)unused;
  for (int i = 0; i < KINDS; i++) PTHREAD(pthread_mutex_lock(&of_thread[i]));
  lock_all_ways(1);
  for (;;) {
    sem_post(&reply);
    wait_semaphore(&request);
    exercise(of_thread);
    exercise_all_ways(1);
    for (int i = 0; i < KINDS; i++) CHECK(pthread_mutex_trylock(&of_main[i]) == EBUSY);
    CHECK(pthread_mutex_unlock(&of_main[ERRORCHECK]) == EPERM);
  }
  return NULL;
}

static void set_up(void) {
  int types[KINDS] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK};
  for (int i = 0; i < KINDS; i++) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, types[i]);
    PTHREAD(pthread_mutex_init(&of_main[i], &attributes));
    PTHREAD(pthread_mutex_init(&of_thread[i], &attributes));
    PTHREAD(pthread_mutex_lock(&of_main[i]));
  }
  pthread_mutexattr_t recursive;
  pthread_mutexattr_init(&recursive);
  pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
  for (int which = 0; which < 2; which++)
    for (int way = 0; way < WAYS; way++) {
      PTHREAD(pthread_mutex_init(&of_way[which][way], &recursive));
      CHECK(mtx_init(&standard[which][way], mtx_recursive | mtx_timed) == thrd_success);
    }
  lock_all_ways(0);
  PTHREAD(pthread_rwlock_wrlock(&rwlock));
  sem_init(&request, 0, 0);
  sem_init(&reply, 0, 0);
  start_thread(thread, NULL);
  wait_semaphore(&reply);
}

static void verify(void) {
  for (int i = 0; i < KINDS; i++) CHECK(pthread_mutex_trylock(&of_thread[i]) == EBUSY);
}

static void after_restore(void) {
  exercise_all_ways(0);
  CHECK(pthread_mutex_unlock(&of_thread[ERRORCHECK]) == EPERM);
  exercise(of_main);
  sem_post(&request);
  wait_semaphore(&reply);
  CHECK(pthread_rwlock_trywrlock(&rwlock) != 0);
  PTHREAD(pthread_rwlock_unlock(&rwlock));
  PTHREAD(pthread_rwlock_wrlock(&rwlock));
}
