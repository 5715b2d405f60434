/*
 * fresh_copy BYTES THREADS: copies that many bytes with memcpy into pages that nobody has touched, and prints "wall NS cpu NS". This is the least
 * that filling a program's memory can cost.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "noise.h"

enum { STEP = 1 << 20, MOST_THREADS = 64 };

static char *from, *to;
static size_t size, next;

static int64_t now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static void *copy(void *argument) {
  for (size_t at; (at = __atomic_fetch_add(&next, STEP, __ATOMIC_RELAXED)) < size;) memcpy(to + at, from + at, size - at < STEP ? size - at : STEP);
  return argument;
}

int main(int argc, char **argv) {
  const size_t threads = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
  size = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
  if (size == 0 || threads == 0 || threads > MOST_THREADS) return 2;
  from = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (from == MAP_FAILED || to == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  for (size_t page = 0; page < size / PAGE; page++) fill_page((uint64_t *)from + page * WORDS, page);
  const int64_t begin = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
  pthread_t others[MOST_THREADS];
  for (size_t i = 1; i < threads; i++)
    if (pthread_create(&others[i], NULL, copy, NULL) != 0) return 1;
  copy(NULL);
  for (size_t i = 1; i < threads; i++) pthread_join(others[i], NULL);
  printf("wall %ld cpu %ld\n", now(CLOCK_MONOTONIC) - begin, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
}
