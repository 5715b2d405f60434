/*
 * Long runs of changed pages in private file mappings, which a restore may map from the image: what the program gives back reads as the file does again,
 * not as zeros, and not as the image.
 */
#include "check.h"

#define PAGES 128ul
#define SIZE (PAGES * PAGE)
#define FIRST 16ul
#define BEHIND 112ul

static struct {
  const char *name;
  unsigned char *memory;
  unsigned long first, behind; /* the pages that are changed */
} maps[] = {{"plain", NULL, FIRST, BEHIND}, {"read-only", NULL, FIRST, BEHIND}, {"to-the-end", NULL, FIRST, PAGES}};
enum { PLAIN, READ_ONLY, TO_THE_END };

static void fill_pages(unsigned char *memory, unsigned long first, unsigned long behind, uint64_t seed) {
  for (unsigned long page = first; page < behind; page++) fill(memory + page * PAGE, PAGE, 1000 * seed + page);
}

static void map_file(size_t which, unsigned char *place) {
  static unsigned char content[SIZE];
  const int fd = SYS(open(scratch_path(maps[which].name), O_RDWR | O_CREAT | O_TRUNC, 0600));
  fill_pages(content, 0, PAGES, which);
  CHECK(write(fd, content, SIZE - 8) == SIZE - 8); /* what the last page has beyond that is zeros */
  maps[which].memory = mmap(place, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | (place != NULL ? MAP_FIXED : 0), fd, 0);
  CHECK(maps[which].memory != MAP_FAILED, "errno %d", errno);
  close(fd);
}

/* Pages from `first` up to `behind` are changed, all others are the file's. */
static void expect(size_t which, unsigned long first, unsigned long behind) {
  static unsigned char expected[SIZE];
  fill_pages(expected, 0, PAGES, which);
  memset(expected + SIZE - 8, 0, 8);
  fill_pages(expected, first, behind, 10 + which);
  for (unsigned long page = 0; page < PAGES; page++) CHECK(!memcmp(maps[which].memory + page * PAGE, expected + page * PAGE, PAGE), "%s, page %lu", maps[which].name, page);
}

static void arm(void) {
  CHECK(mprotect(maps[READ_ONLY].memory, SIZE, PROT_READ | PROT_WRITE) == 0);
  for (size_t i = 0; i < COUNT(maps); i++) fill_pages(maps[i].memory, maps[i].first, maps[i].behind, 10 + i);
  CHECK(mprotect(maps[READ_ONLY].memory, SIZE, PROT_READ) == 0);
  /* Anonymous memory right behind it: its content follows in the image, too. */
  fill(maps[TO_THE_END].memory + SIZE, SIZE, 99);
}

static void set_up(void) {
  map_file(PLAIN, NULL);
  map_file(READ_ONLY, NULL);
  map_file(TO_THE_END, map_memory(2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS));
  arm();
}

static void verify(void) {
  for (size_t i = 0; i < COUNT(maps); i++) expect(i, maps[i].first, maps[i].behind);
  CHECK(is_filled(maps[TO_THE_END].memory + SIZE, SIZE, 99));
}

static void after_restore(void) {
  verify();
  IN_CHILD({
    CHECK(madvise(maps[PLAIN].memory, SIZE, MADV_DONTNEED) == 0);
    expect(PLAIN, 0, 0);
  });
  verify();
  CHECK(madvise(maps[PLAIN].memory + FIRST * PAGE, PAGE, MADV_FREE) == -1 && errno == EINVAL, "that is for anonymous memory only");
  /* Parts that begin and end in the middle of what was changed, then all. */
  CHECK(madvise(maps[PLAIN].memory, 64 * PAGE, MADV_DONTNEED) == 0);
  expect(PLAIN, 64, BEHIND);
  CHECK(syscall(SYS_madvise, maps[PLAIN].memory + 100 * PAGE, 28 * PAGE, MADV_DONTNEED) == 0);
  expect(PLAIN, 64, 100);
  memset(maps[PLAIN].memory, 1, SIZE);
  CHECK(madvise(maps[PLAIN].memory, SIZE, MADV_DONTNEED) == 0);
  expect(PLAIN, 0, 0);
  /* Across the border to anonymous memory. What is read-only stays as the restore has mapped it, for the next checkpoint. */
  CHECK(madvise(maps[TO_THE_END].memory, 2 * SIZE, MADV_DONTNEED) == 0);
  expect(TO_THE_END, 0, 0);
  CHECK(is_zero(maps[TO_THE_END].memory + SIZE, SIZE));
  arm();
}
