/* Priority-inheritance mutexes: one held and contended, one held and not contended, at the capture. */
#include "check.h"

static pthread_mutex_t contended, quiet;
static pthread_t waiter_thread;
static sem_t got, release_owner, owner_done, owner_has;
static volatile bool waiter_has;

static void *waiter(void *unused) {
  (void)unused;
  PTHREAD(pthread_mutex_lock(&contended));
  waiter_has = true;
  sem_post(&got);
  PTHREAD(pthread_mutex_unlock(&contended));
  return NULL;
}

static void *owner(void *unused) {
  (void)unused;
  for (;;) {
    PTHREAD(pthread_mutex_lock(&contended));
    PTHREAD(pthread_mutex_lock(&quiet));
    sem_post(&owner_has);
    wait_semaphore(&release_owner);
    PTHREAD(pthread_mutex_unlock(&quiet));
    PTHREAD(pthread_mutex_unlock(&contended));
    sem_post(&owner_done);
    wait_semaphore(&release_owner);
  }
  return NULL;
}

static void set_up(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  PTHREAD(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT));
  PTHREAD(pthread_mutex_init(&contended, &attributes));
  PTHREAD(pthread_mutex_init(&quiet, &attributes));
  sem_init(&got, 0, 0);
  sem_init(&release_owner, 0, 0);
  sem_init(&owner_done, 0, 0);
  sem_init(&owner_has, 0, 0);
  start_thread(owner, NULL);
  wait_semaphore(&owner_has);
  waiter_thread = start_thread(waiter, NULL);
  sleep_ms(50); /* until the waiter is in the kernel; the check holds without it too */
}

static void verify(void) {
  CHECK(!waiter_has, "the waiter got a mutex that another thread holds");
  CHECK(pthread_mutex_trylock(&quiet) == EBUSY);
}

static void after_restore(void) {
  sem_post(&release_owner);
  wait_semaphore(&owner_done);
  wait_semaphore(&got);
  PTHREAD(pthread_join(waiter_thread, NULL));
  waiter_has = false;
  sem_post(&release_owner);
  wait_semaphore(&owner_has);
  waiter_thread = start_thread(waiter, NULL);
}
