/* Restored anonymous memory that is given back with MADV_DONTNEED or MADV_FREE reads as zeros, never as the image's content. */
#include "check.h"

#define SIZE (64 * PAGE)

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static unsigned char *dont_need, *left, *freed, *inner, *shared, *file;

static void arm(void) {
  fill(dont_need, SIZE, 1);
  fill(freed, SIZE, 2);
  fill(inner, SIZE, 3);
  fill(shared, SIZE, 4);
  fill(left, SIZE, 6);
}

static void set_up(void) {
  dont_need = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  freed = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  left = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  inner = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  shared = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  int fd = SYS(open(scratch_path("release"), O_RDWR | O_CREAT | O_TRUNC, 0600));
  unsigned char content[SIZE];
  fill(content, SIZE, 5);
  CHECK(write(fd, content, SIZE) == SIZE);
  file = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  CHECK(file != MAP_FAILED);
  close(fd);
  memset(file, 1, SIZE);
  arm();
}

static void verify(void) {
  CHECK(is_filled(dont_need, SIZE, 1) && is_filled(freed, SIZE, 2) && is_filled(inner, SIZE, 3) && is_filled(shared, SIZE, 4) && is_filled(left, SIZE, 6));
  CHECK(file[0] == 1 && file[SIZE - 1] == 1);
}

static void after_restore(void) {
  verify();
  SYS(madvise(dont_need, SIZE, MADV_DONTNEED));
  CHECK(is_zero(dont_need, SIZE), "MADV_DONTNEED brought content back");
  fill(dont_need, SIZE, 9);
  SYS(madvise(dont_need, SIZE, MADV_DONTNEED));
  CHECK(is_zero(dont_need, SIZE), "MADV_DONTNEED on rewritten memory brought content back");
  for (int round = 0; round < 2; round++) { /* untouched since the restore, then again after writing */
    SYS(madvise(inner + 3 * PAGE, 5 * PAGE, MADV_DONTNEED));
    CHECK(is_zero(inner + 3 * PAGE, 5 * PAGE));
    CHECK(is_filled(inner, 3 * PAGE, 3) && ((uint64_t *)inner)[8 * PAGE / 8] == pattern(3, 8 * PAGE / 8));
    memset(inner + 3 * PAGE, 7, 5 * PAGE);
  }
  SYS(madvise(freed, SIZE, MADV_FREE));
  for (size_t i = 0; i < SIZE / PAGE; i++) {
    uint64_t word = ((volatile uint64_t *)freed)[i * PAGE / 8];
    CHECK(word == 0 || word == pattern(2, i * PAGE / 8), "MADV_FREE: page %zu has strange content", i);
  }
  CHECK(madvise(inner, SIZE, MADV_REMOVE) == -1 && errno == EINVAL, "MADV_REMOVE is for shared memory");
  unsigned char *moved = mremap(left, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
  if (moved != MAP_FAILED) { /* Linux 5.7 */
    CHECK(is_filled(moved, SIZE, 6) && is_zero(left, SIZE), "what MREMAP_DONTUNMAP leaves is not zero");
    SYS(munmap(moved, SIZE));
  }
  SYS(madvise(shared, SIZE, MADV_DONTNEED));
  CHECK(is_filled(shared, SIZE, 4), "MADV_DONTNEED on shared memory lost its content");
  SYS(madvise(shared, SIZE, MADV_REMOVE));
  CHECK(is_zero(shared, SIZE), "MADV_REMOVE on shared memory");
  SYS(madvise(file, SIZE, MADV_DONTNEED));
  CHECK(is_filled(file, SIZE, 5), "MADV_DONTNEED on a private file mapping must give the file's content");
  memset(file, 1, SIZE);
  arm();
}
