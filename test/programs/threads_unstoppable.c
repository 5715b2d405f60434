/*
 * After a restore one thread blocks every signal behind the C library's back until one waits for it, and for longer than the engine waits, when the
 * memory is loaded and dispatching ends: that has to be given up, and tried again, while the signals of the first try are still on their way.
 */
#include "check.h"

#define THREADS 24
#define LONGER_MS 1500
#define REGION (4ul << 20)

static unsigned char *region;
static atomic_ulong rounds[THREADS];
static atomic_int wanted, blocking;

static void *unstoppable(void *unused) {
  (void)unused;
  for (int done = 0;; done++) {
    while (atomic_load(&wanted) == done) sleep_ms(1);
    uint64_t all = ~0ull, before, waiting = 0;
    SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, 8));
    atomic_store(&blocking, done + 1);
    for (; waiting == 0 && !self_test; sleep_ms(1)) SYS(syscall(SYS_rt_sigpending, &waiting, 8));
    for (int64_t end = now_ns(CLOCK_MONOTONIC) + LONGER_MS * 1000000ll; now_ns(CLOCK_MONOTONIC) < end;) continue;
    SYS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8));
  }
}

static void *other(void *count) {
  for (;;) {
    sleep_ms(1);
    atomic_fetch_add((atomic_ulong *)count, 1);
  }
  return NULL;
}

static void set_up(void) {
  region = map_memory(REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(region, REGION, 3);
  start_thread(unstoppable, NULL);
  for (int i = 0; i < THREADS; i++) start_thread(other, &rounds[i]);
}

static void verify(void) {}

static void after_restore(void) {
  const int next = atomic_fetch_add(&wanted, 1) + 1;
  WAIT_UNTIL(atomic_load(&blocking) == next);
  /* A call that the engine does not know waits until all is loaded. */
  unsigned char present;
  SYS(mincore(region, PAGE, &present));
  CHECK(is_filled(region, REGION, 3));
  for (int i = 0; i < THREADS; i++) {
    const unsigned long before = atomic_load(&rounds[i]);
    WAIT_UNTIL(atomic_load(&rounds[i]) > before + 1);
  }
}
