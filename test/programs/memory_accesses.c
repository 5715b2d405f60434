/* Memory of which a restored program needs little, in an order of its own; it prints where that is, and makes the file `done` when it has it. */
#include "check.h"

#define BLOCK (64 * 1024ul)
#define BLOCKS 256

static const size_t order[] = {200, 3, 97, 254, 31, 160, 4, 77};
static unsigned char *region;

static void set_up(void) {
  region = map_memory(BLOCKS * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(region, BLOCKS * BLOCK, 5);
  for (size_t i = 0; i < COUNT(order); i++) print_line("needs %p", (void *)(region + order[i] * BLOCK));
}

static void verify(void) {}

static void after_restore(void) {
  char path[PATH_MAX];
  for (size_t i = 0; i < COUNT(order); i++) {
    const uint64_t *words = (const uint64_t *)(region + order[i] * BLOCK);
    CHECK(words[1] == pattern(5, order[i] * BLOCK / 8 + 1), "block %zu", order[i]);
  }
  snprintf(path, sizeof path, "%s/done", scratch);
  SYS(close(SYS(open(path, O_CREAT | O_WRONLY, 0600))));
}
