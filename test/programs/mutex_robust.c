/* Robust mutexes: owners that die after the restore leave EOWNERDEAD to waiters, within the process and in shared memory. */
#include "check.h"

struct cell {
  pthread_mutex_t *mutex;
  pthread_t owner, waiter;
  sem_t locked, die, got;
  int waiter_result;
};

static pthread_mutex_t private_mutex;
static struct cell cells[2];

static void *owner(void *argument) {
  struct cell *cell = argument;
  PTHREAD(pthread_mutex_lock(cell->mutex));
  sem_post(&cell->locked);
  wait_semaphore(&cell->die);
  return NULL; /* with the mutex held */
}

static void *waiter(void *argument) {
  struct cell *cell = argument;
  cell->waiter_result = pthread_mutex_lock(cell->mutex);
  sem_post(&cell->got);
  if (cell->waiter_result == EOWNERDEAD) PTHREAD(pthread_mutex_consistent(cell->mutex));
  PTHREAD(pthread_mutex_unlock(cell->mutex));
  return NULL;
}

static void arm(struct cell *cell) {
  cell->owner = start_thread(owner, cell);
  wait_semaphore(&cell->locked);
  cell->waiter = start_thread(waiter, cell);
}

static void set_up(void) {
  for (int shared = 0; shared < 2; shared++) {
    struct cell *cell = &cells[shared];
    cell->mutex = shared ? map_memory(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS) : &private_mutex;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (shared) pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    PTHREAD(pthread_mutex_init(cell->mutex, &attributes));
    sem_init(&cell->locked, 0, 0);
    sem_init(&cell->die, 0, 0);
    sem_init(&cell->got, 0, 0);
    arm(cell);
  }
}

static void verify(void) {
  for (int i = 0; i < 2; i++) CHECK(pthread_mutex_trylock(cells[i].mutex) == EBUSY, "cell %d", i);
}

static void after_restore(void) {
  for (int i = 0; i < 2; i++) {
    struct cell *cell = &cells[i];
    sem_post(&cell->die);
    PTHREAD(pthread_join(cell->owner, NULL));
    wait_semaphore(&cell->got);
    CHECK(cell->waiter_result == EOWNERDEAD, "the waiter got %d instead of EOWNERDEAD, %s mutex", cell->waiter_result,
          i ? "shared" : "private");
    PTHREAD(pthread_join(cell->waiter, NULL));
    arm(cell);
  }
}
