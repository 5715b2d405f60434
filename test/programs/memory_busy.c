/* Eight threads allocate, check and free memory all the time: the capture finds them inside malloc, with its locks held. */
#include "check.h"

#define THREADS 8
#define BLOCKS 300

static atomic_ulong rounds[THREADS];

static void *thread(void *argument) {
  long id = (long)argument;
  uint64_t random = id * 7919 + 1;
  struct {
    unsigned char *memory;
    size_t size;
  } blocks[BLOCKS] = {0};
  for (;;) {
    for (int i = 0; i < 2000; i++) {
      random = random * 6364136223846793005ull + 1442695040888963407ull;
      unsigned at = (random >> 33) % BLOCKS;
      if (blocks[at].memory) {
        for (size_t j = 0; j < blocks[at].size; j += 64) CHECK(blocks[at].memory[j] == (unsigned char)(at + id));
        free(blocks[at].memory);
        blocks[at].memory = NULL;
        continue;
      }
      blocks[at].size = (random >> 40) % 100 == 0 ? 300000 : 1 + (random >> 50) % 3000;
      bool zeroed = random >> 63;
      blocks[at].memory = zeroed ? calloc(1, blocks[at].size) : malloc(blocks[at].size);
      CHECK(blocks[at].memory);
      if (zeroed) CHECK(is_zero(blocks[at].memory, blocks[at].size), "calloc gave memory with content");
      memset(blocks[at].memory, (int)(at + id), blocks[at].size);
    }
    rounds[id]++;
    sleep_ms(1);
  }
  return NULL;
}

static void set_up(void) {
  for (long i = 0; i < THREADS; i++) start_thread(thread, (void *)i);
}

static void verify(void) {}

static void after_restore(void) {
  unsigned long before[THREADS];
  for (int i = 0; i < THREADS; i++) before[i] = rounds[i];
  for (int i = 0; i < THREADS; i++) WAIT_UNTIL(rounds[i] > before[i] + 1);
}
