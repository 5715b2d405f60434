/* As much memory as WARP_TEST_MEBIBYTES says (64 by default), all of it with content: captures of it take their time. */
#include "check.h"

static unsigned char *memory;
static size_t size;

static void set_up(void) {
  const char *mebibytes = getenv("WARP_TEST_MEBIBYTES");
  size = (mebibytes ? strtoul(mebibytes, NULL, 10) : 64) << 20;
  memory = map_memory(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(memory, size, 1);
}

static void verify(void) {}

static void after_restore(void) { CHECK(is_filled(memory, size, 1)); }
