/*
 * File mappings: private with modified and unmodified pages, shared (writes reach the file), read-only shared, of an unlinked file, and
 * with a tail behind the file's end.
 */
#include "check.h"

#define SIZE (8 * PAGE)

static unsigned char *private_map, *shared_map, *shared_read, *unlinked_private, *unlinked_shared, *tail;
static uint64_t counter;

static int make_file(const char *name, size_t size, uint64_t seed) {
  int fd = SYS(open(scratch_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600));
  unsigned char content[SIZE];
  fill(content, SIZE, seed);
  CHECK(write(fd, content, size) == (ssize_t)size);
  return fd;
}

static void *map_file(int fd, int protection, int flags) {
  void *memory = mmap(NULL, SIZE, protection, flags, fd, 0);
  CHECK(memory != MAP_FAILED, "errno %d", errno);
  return memory;
}

static void set_up(void) {
  int fd = make_file("private", SIZE, 1);
  private_map = map_file(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  close(fd);
  memset(private_map + 2 * PAGE, 7, PAGE);
  memset(private_map + 5 * PAGE, 0, PAGE); /* a modified page of zeros must not become the file's content again */

  fd = make_file("shared", SIZE, 2);
  shared_map = map_file(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
  shared_read = map_file(fd, PROT_READ, MAP_SHARED);
  close(fd);
  counter = *(uint64_t *)shared_map;

  fd = make_file("unlinked-private", SIZE, 3);
  unlinked_private = map_file(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  close(fd);
  unlink(scratch_path("unlinked-private"));
  memset(unlinked_private, 8, PAGE);

  fd = make_file("unlinked-shared", SIZE, 4);
  unlinked_shared = map_file(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
  close(fd);
  unlink(scratch_path("unlinked-shared"));

  fd = make_file("tail", PAGE + 100, 5);
  tail = map_file(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  close(fd);
  tail[50] = 99;
}

static void verify(void) {
  unsigned char expected[SIZE];
  fill(expected, SIZE, 1);
  memset(expected + 2 * PAGE, 7, PAGE);
  memset(expected + 5 * PAGE, 0, PAGE);
  for (unsigned i = 0; i < SIZE; i++) CHECK(private_map[i] == expected[i], "private mapping, byte 0x%x is 0x%x", i, private_map[i]);
  fill(expected, SIZE, 3);
  memset(expected, 8, PAGE);
  CHECK(!memcmp(unlinked_private, expected, SIZE), "private mapping of an unlinked file");
  CHECK(is_filled(unlinked_shared, SIZE, 4), "shared mapping of an unlinked file");
  fill(expected, SIZE, 5);
  CHECK(tail[50] == 99 && !memcmp(tail + 56, expected + 56, PAGE + 100 - 56) && is_zero(tail + PAGE + 100, PAGE - 100));
  fill(expected, SIZE, 2);
  CHECK(!memcmp(shared_map + 8, expected + 8, SIZE - 8) && !memcmp(shared_read + 8, expected + 8, SIZE - 8));
}

static void after_restore(void) {
  verify();
  *(uint64_t *)shared_map = ++counter;
  CHECK(*(uint64_t *)shared_read == counter);
  int fd = SYS(open(scratch_path("shared"), O_RDONLY));
  uint64_t in_file;
  CHECK(pread(fd, &in_file, 8, 0) == 8 && in_file == counter, "a write to the shared mapping does not reach the file");
  close(fd);
  fd = SYS(open(scratch_path("private"), O_RDONLY));
  unsigned char content[SIZE];
  CHECK(pread(fd, content, SIZE, 0) == SIZE && is_filled(content, SIZE, 1), "a private mapping changed the file");
  close(fd);
  uint64_t before = *(uint64_t *)unlinked_shared;
  IN_CHILD(*(uint64_t *)unlinked_shared = 1);
  CHECK(*(uint64_t *)unlinked_shared == 1, "the mapping of the unlinked file is not shared any more");
  *(uint64_t *)unlinked_shared = before;
  CHECK(SYS(mprotect(private_map, SIZE, PROT_READ)) == 0 && SYS(mprotect(private_map, SIZE, PROT_READ | PROT_WRITE)) == 0);
}
