/*
 * Memory for which the program wants huge pages, with a locked mutex in its middle, which names its owner and must be there as soon as the program
 * goes on: a huge page for that must not make the memory around it look present.
 */
#include "check.h"

#define HUGE_PAGE (2ul << 20)
#define SIZE (4 * HUGE_PAGE)
#define MUTEX_OFFSET (3 * HUGE_PAGE / 2 + 5 * PAGE)

static unsigned char *area;
static pthread_mutex_t *mutex;

static void set_up(void) {
  unsigned char *room = map_memory(SIZE + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  area = (unsigned char *)(((uintptr_t)room + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
  madvise(area, SIZE, MADV_HUGEPAGE); /* a kernel may know none */
  fill(area, SIZE, 1);
  mutex = (pthread_mutex_t *)(area + MUTEX_OFFSET);
  pthread_mutexattr_t attributes;
  PTHREAD(pthread_mutexattr_init(&attributes));
  PTHREAD(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK));
  PTHREAD(pthread_mutex_init(mutex, &attributes));
  PTHREAD(pthread_mutex_lock(mutex));
}

static void verify(void) {
  CHECK(pthread_mutex_lock(mutex) == EDEADLK, "the mutex has forgotten its owner");
  for (size_t i = 0; i < SIZE / 8; i += 61)
    if (i * 8 < MUTEX_OFFSET || i * 8 >= MUTEX_OFFSET + sizeof *mutex) CHECK(((volatile uint64_t *)area)[i] == pattern(1, i), "word %zu", i);
}

static void after_restore(void) { verify(); }
