/* Mutexes that know their owner (recursive, error-checking) and others, held across the capture by main and by another thread. */
#include "check.h"

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

static void *thread(void *unused) {
  (void)unused;
  for (int i = 0; i < KINDS; i++) PTHREAD(pthread_mutex_lock(&of_thread[i]));
  for (;;) {
    sem_post(&reply);
    wait_semaphore(&request);
    exercise(of_thread);
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
  CHECK(pthread_mutex_unlock(&of_thread[ERRORCHECK]) == EPERM);
  exercise(of_main);
  sem_post(&request);
  wait_semaphore(&reply);
  CHECK(pthread_rwlock_trywrlock(&rwlock) != 0);
  PTHREAD(pthread_rwlock_unlock(&rwlock));
  PTHREAD(pthread_rwlock_wrlock(&rwlock));
}
