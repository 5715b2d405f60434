/*
 * Data that looks like a locked mutex of a live thread and is none: {1, 0, id, 1, 2, ...}, as every Java object with a mark word of 1, a
 * class number that happens to equal a thread id, and two small fields; and the very bytes of mutexes that are locked, elsewhere. A restore
 * that corrects ids in mutexes must leave it alone.
 */
#include "check.h"

#define OBJECTS 60
#define THREADS 4

struct object {
  uint32_t mark[2], class, fields[3], more[4];
};

/* The same for musl, whose mutex begins with its kind and the owner: an entry of a program's own table of threads. */
struct entry {
  uint32_t state, id, data[8];
};

/* Locked by main, and what they look like. */
union lock {
  pthread_mutex_t mutex;
  pthread_rwlock_t rwlock;
};
enum { RECURSIVE, ERRORCHECK, INHERITS, ROBUST, WRITTEN, KINDS };
static union lock locked[KINDS], *copies[2];
static unsigned char expected[sizeof locked];

static struct object *objects[2];
static struct entry *entries;
static uint32_t disguise[THREADS + 1]; /* the ids, so that no copy of them is the very thing that is looked for */
static pid_t ids[THREADS];
static sem_t started;

static void *thread(void *index) {
  ids[(long)index] = gettid();
  sem_post(&started);
  for (;;) pause();
  return NULL;
}

static uint32_t id_of(unsigned i) { return ~disguise[i % (THREADS + 1)]; }

static struct object object(unsigned i) {
  /* kinds of mutex: 2 error-checking, 1 recursive, 0x42 with a flag */
  static const uint32_t second[] = {2, 1, 0x42};
  return (struct object){{1, i & 1}, id_of(i), {1, second[i % 3], 0}, {1, 0, id_of(i), i}}; /* the next object begins where a mutex has its list */
}

static struct entry entry(unsigned i) { return (struct entry){1 + i % 2, id_of(i), {0, 0, 0, i % 4, 0, 0, 0, 0}}; }

/* As `disguise`: every byte the other way round. */
static void invert(void *to, const void *from, size_t size) {
  for (size_t i = 0; i < size; i++) ((unsigned char *)to)[i] = (unsigned char)~((const unsigned char *)from)[i];
}

static void lock_all(void) {
  for (int i = 0; i < WRITTEN; i++) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, i == RECURSIVE ? PTHREAD_MUTEX_RECURSIVE : i == ERRORCHECK ? PTHREAD_MUTEX_ERRORCHECK : PTHREAD_MUTEX_NORMAL);
    if (i == INHERITS) PTHREAD(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT));
    if (i == ROBUST) PTHREAD(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
    PTHREAD(pthread_mutex_init(&locked[i].mutex, &attributes));
    PTHREAD(pthread_mutex_lock(&locked[i].mutex));
  }
  PTHREAD(pthread_rwlock_init(&locked[WRITTEN].rwlock, NULL));
  PTHREAD(pthread_rwlock_wrlock(&locked[WRITTEN].rwlock));
}

static void copy_locks(void) {
  for (int k = 0; k < 2; k++) memcpy(copies[k], locked, sizeof locked);
  invert(expected, locked, sizeof locked);
}

static void arm(void) {
  copy_locks();
  for (unsigned i = 0; i < OBJECTS; i++) entries[i] = entry(i);
  for (unsigned k = 0; k < 2; k++)
    for (unsigned i = 0; i < OBJECTS; i++) objects[k][i] = object(i);
}

static void set_up(void) {
  sem_init(&started, 0, 0);
  for (long i = 0; i < THREADS; i++) {
    start_thread(thread, (void *)i);
    wait_semaphore(&started);
    disguise[i] = ~(uint32_t)ids[i];
  }
  disguise[THREADS] = ~(uint32_t)getpid();
  objects[0] = map_memory(OBJECTS * sizeof(struct object), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  entries = map_memory(OBJECTS * sizeof(struct entry), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  objects[1] = malloc(OBJECTS * sizeof(struct object));
  lock_all();
  copies[0] = map_memory(sizeof locked, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  copies[1] = malloc(sizeof locked);
  arm();
}

static void verify(void) {
  unsigned char should_be[sizeof locked];
  invert(should_be, expected, sizeof should_be);
  for (int k = 0; k < 2; k++) CHECK(!memcmp(copies[k], should_be, sizeof should_be), "a copy of locked mutexes has changed (%d)", k);
  for (unsigned i = 0; i < OBJECTS; i++) {
    struct entry should = entry(i);
    CHECK(!memcmp(&entries[i], &should, sizeof should), "the id in entry %u is %u, should be %u", i, entries[i].id, should.id);
  }
  for (unsigned k = 0; k < 2; k++)
    for (unsigned i = 0; i < OBJECTS; i++) {
      struct object should = object(i);
      CHECK(!memcmp(&objects[k][i], &should, sizeof should), "the class of object %u is %u, should be %u", i, objects[k][i].class, should.class);
    }
}

static void after_restore(void) {
  verify();
  for (int i = 0; i < WRITTEN; i++) {
    PTHREAD(pthread_mutex_unlock(&locked[i].mutex));
    PTHREAD(pthread_mutex_lock(&locked[i].mutex));
  }
  PTHREAD(pthread_rwlock_unlock(&locked[WRITTEN].rwlock));
  PTHREAD(pthread_rwlock_wrlock(&locked[WRITTEN].rwlock));
  arm();
}
