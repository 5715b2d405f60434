/* A reservation of 64 GiB with a few pages in it: what was not touched stays absent, what held zeros takes no room in the image. */
#include "check.h"

#define SIZE (64ul << 30)
#define PAGES 200
#define ZEROS (64ul << 20)

static unsigned char *reservation, *zeros, *read_zeros;

static unsigned char *page(int i) { return reservation + (SIZE / PAGES * i & ~(PAGE - 1)); }

/* Pages of the range that are in memory, by /proc/self/pagemap. */
static size_t present(void *start, size_t size) {
  int fd = SYS(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  size_t count = 0;
  uint64_t entries[512];
  for (uintptr_t page = (uintptr_t)start / PAGE, end = page + size / PAGE; page < end; page += 512) {
    size_t n = end - page < 512 ? end - page : 512;
    CHECK(pread(fd, entries, n * 8, page * 8) == (ssize_t)(n * 8));
    for (size_t i = 0; i < n; i++) count += (entries[i] >> 62) != 0;
  }
  close(fd);
  return count;
}

static void set_up(void) {
  reservation = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  SYS(madvise(reservation, SIZE, MADV_NOHUGEPAGE));
  for (int i = 0; i < PAGES; i++) fill(page(i), PAGE, i);
  zeros = map_memory(ZEROS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  SYS(madvise(zeros, ZEROS, MADV_NOHUGEPAGE));
  memset(zeros, 0, ZEROS); /* written, but zero */
  read_zeros = map_memory(ZEROS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  SYS(madvise(read_zeros, ZEROS, MADV_NOHUGEPAGE));
}

static void verify(void) {
  for (int i = 0; i < PAGES; i++) CHECK(is_filled(page(i), PAGE, i), "page %d", i);
}

static void after_restore(void) {
  verify();
  for (int i = 1; i < PAGES; i++) CHECK(present(page(i) - (1 << 20), 1 << 20) == 0, "pages before page %d came into being", i);
  CHECK(present(read_zeros, ZEROS) == 0);
  if (!self_test) CHECK(present(zeros, ZEROS) < 1000, "%zu zero pages came back as memory", present(zeros, ZEROS));
  CHECK(is_zero(page(7) + PAGE, PAGE) && is_zero(zeros, 100 * PAGE));
  page(7)[PAGE] = 1;
  CHECK(page(7)[PAGE] == 1);
  SYS(madvise(page(7) + PAGE, PAGE, MADV_DONTNEED));
}
