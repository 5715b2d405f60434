/*
 * calls: reads lines "WORK ITERATIONS" and answers each with "done WALL CPU", nanoseconds for all iterations. What an engine in the process
 * could slow down: system calls, allocation, and the release of memory, which the engine stands before.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { AREA = 8 << 20, RELEASED = 64 << 10 };

static char *area;

static long now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000l + time.tv_nsec;
}

static void system_calls(long iterations) {
  for (long i = 0; i < iterations; i++) syscall(SYS_getppid);
}

/* Sizes around 1 KiB, a thousand kept alive: served from the heap. */
static void small_allocations(long iterations) {
  static void *kept[1000];
  for (long i = 0; i < iterations; i++) {
    void **slot = &kept[i * 7919 % 1000];
    free(*slot);
    *slot = malloc(256 + (size_t)(i * 31 % 1536));
    if (*slot == NULL) abort();
    *(volatile char *)*slot = 1;
  }
}

/* Above the mmap threshold: a mapping each. */
static void large_allocations(long iterations) {
  for (long i = 0; i < iterations; i++) {
    volatile char *block = malloc(64 << 20);
    if (block == NULL) abort();
    block[i % 4096] = 1;
    free((void *)block);
  }
}

/* What jemalloc, V8 and Go do with memory that they keep: released, and used again. */
static void releases(long iterations) {
  for (long i = 0; i < iterations; i++) {
    char *at = area + i * RELEASED % AREA;
    memset(at, 1, RELEASED);
    if (madvise(at, RELEASED, MADV_DONTNEED)) abort();
    if (at[i % RELEASED] != 0) abort();
  }
}

int main(void) {
  static const struct {
    const char *name;
    void (*work)(long);
  } works[] = {{"system-calls", system_calls}, {"small-allocations", small_allocations}, {"large-allocations", large_allocations}, {"releases", releases}};
  /* Never released, so that it is in the image: what is around it stays mapped from there after a restore. */
  area = mmap(NULL, 3l * AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) return 1;
  memset(area, 1, 3l * AREA);
  area += AREA;
  char name[32];
  long iterations;
  dprintf(1, "ready\n");
  while (scanf("%31s %ld", name, &iterations) == 2)
    for (size_t i = 0; i < sizeof works / sizeof works[0]; i++) {
      if (strcmp(works[i].name, name) != 0) continue;
      long wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
      works[i].work(iterations);
      dprintf(1, "done %ld %ld\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
}
