/* Threads are created and joined all the time: the capture finds threads that are being born and that are ending. */
#include "check.h"

static atomic_ulong born, rounds[4];

static void *short_life(void *value) {
  born++;
  return (char *)value + 1;
}

static void *detached_life(void *unused) {
  (void)unused;
  pthread_detach(pthread_self());
  born++;
  return NULL;
}

static void *parent(void *argument) {
  long id = (long)argument;
  for (;;) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) threads[i] = start_thread(short_life, (void *)i);
    start_thread(detached_life, NULL);
    for (long i = 0; i < 4; i++) {
      void *result;
      PTHREAD(pthread_join(threads[i], &result));
      CHECK(result == (void *)(i + 1));
    }
    rounds[id]++;
    if (rounds[id] % 16 == 0) sleep_ms(1);
  }
  return NULL;
}

static void set_up(void) {
  for (long i = 0; i < 4; i++) start_thread(parent, (void *)i);
}

static void verify(void) {}

static void after_restore(void) {
  for (int i = 0; i < 4; i++) {
    unsigned long before = rounds[i];
    WAIT_UNTIL(rounds[i] > before + 10);
  }
}
