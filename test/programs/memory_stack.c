/* Stacks that grow down by themselves: the leader's, and a MAP_GROWSDOWN area, grow further after the restore. */
#include "check.h"

static unsigned char *area; /* the first byte behind a MAP_GROWSDOWN area */
static int depth = 20;
static size_t grown = 2 * PAGE;

static __attribute__((noinline)) unsigned long recurse(int levels, unsigned seed) {
  volatile unsigned char frame[10000];
  for (unsigned i = 0; i < sizeof frame; i++) frame[i] = (unsigned char)(i + seed);
  unsigned long sum = levels > 0 ? recurse(levels - 1, seed + 1) : 0;
  for (unsigned i = 0; i < sizeof frame; i++) {
    CHECK(frame[i] == (unsigned char)(i + seed));
    sum += frame[i];
  }
  return sum;
}

static void set_up(void) {
  unsigned char *room = map_memory(64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  SYS(munmap(room, 64 << 20));
  area = room + (60 << 20);
  void *at = mmap(area - PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
  CHECK(at == area - PAGE);
  for (size_t at = 1; at <= grown; at++) area[-(ptrdiff_t)at] = (unsigned char)at;
}

static void verify(void) {
  for (size_t at = 1; at <= grown; at++) CHECK(area[-(ptrdiff_t)at] == (unsigned char)at);
  recurse(depth / 2, 1);
}

static void after_restore(void) {
  recurse(depth, 3); /* deeper than ever before: to 6 MiB in 15 rounds, at most the default limit of 8 MiB */
  if (depth < 600) depth += 40;
  if (grown < 1 << 20) {
    size_t more = grown + 10 * PAGE;
    for (size_t at = grown + 1; at <= more; at++) area[-(ptrdiff_t)at] = (unsigned char)at;
    grown = more;
  }
}
