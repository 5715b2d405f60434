/* Memory that compresses well, not at all, and by being the same again and again. */
#include "check.h"

#define SIZE (4ul << 20)

static unsigned char *text, *noise, *repeated;

static uint64_t next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  return *state ^= *state << 17;
}

/* Words in an order that a generator gives: no two chunks are the same, and all of them shrink. */
static void write_text(unsigned char *to) {
  static const char words[][9] = {"threads ", "memory; ", "signals ", "restore,", " images ", "chunking"};
  uint64_t state = 12345;
  for (size_t at = 0; at < SIZE; at += 8) memcpy(to + at, words[next(&state) % (sizeof words / sizeof words[0])], 8);
}

static bool is_noise(unsigned char *memory, bool write) {
  uint64_t state = 54321;
  for (size_t at = 0; at < SIZE; at += 8) {
    const uint64_t value = next(&state);
    if (write) memcpy(memory + at, &value, 8);
    if (memcmp(memory + at, &value, 8)) return false;
  }
  return true;
}

static void set_up(void) {
  text = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  noise = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  repeated = map_memory(2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  write_text(text);
  is_noise(noise, true);
  for (size_t at = 0; at < 2 * SIZE; at += PAGE) fill(repeated + at, PAGE, 8);
  SYS(mprotect(text, SIZE, PROT_READ));
}

static void verify(void) {
  static unsigned char expected[SIZE];
  if (expected[0] == 0) write_text(expected);
  CHECK(!memcmp(text, expected, SIZE));
  CHECK(is_noise(noise, false));
  for (size_t at = 0; at < 2 * SIZE; at += 64 * PAGE) CHECK(is_filled(repeated + at, PAGE, 8), "page at %zu", at);
}

static void after_restore(void) {
  for (size_t at = 0; at < 2 * SIZE; at += PAGE) CHECK(is_filled(repeated + at, PAGE, 8), "page at %zu", at);
  verify();
}
