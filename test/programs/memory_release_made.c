/*
 * A system call instruction in code that the program has made by itself, in memory that is no file's: what it gives back reads as zeros. Such code is not
 * changed, so memory of this program is not mapped from the image.
 */
#include "made.h"

#define SIZE (1024 * PAGE)

static unsigned char *area;
static long (*release)(void *address, size_t size, long advice);

static void set_up(void) {
  static const unsigned char code[] = {0xb8, 28, 0, 0, 0, /* mov $28, %eax */ 0x0f, 0x05, /* syscall */ 0xc3};
  release = (long (*)(void *, size_t, long))make_code(code, sizeof code);
  area = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(area, SIZE, 1);
}

static void verify(void) { CHECK(is_filled(area, SIZE, 1)); }

static void after_restore(void) {
  verify();
  CHECK(release(area, SIZE, MADV_DONTNEED) == 0);
  CHECK(is_zero(area, SIZE), "content came back");
  fill(area, SIZE, 1);
}
