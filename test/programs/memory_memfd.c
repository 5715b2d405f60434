/* Memory files: mapped shared (twice), mapped private, not mapped, sealed, with an offset; as ZGC keeps its heap. */
#include "check.h"

#define SIZE (8 * PAGE)

static int mapped_fd, plain_fd, sealed_fd, closed_fd;
static unsigned char *first, *second, *private_map, *orphan;

static int make(const char *name, unsigned flags, uint64_t seed) {
  int fd = SYS(memfd_create(name, flags));
  SYS(ftruncate(fd, SIZE));
  unsigned char content[SIZE];
  fill(content, SIZE, seed);
  CHECK(pwrite(fd, content, SIZE, 0) == SIZE);
  return fd;
}

static void *map_file(int fd, int flags, off_t offset, size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, offset);
  CHECK(memory != MAP_FAILED, "errno %d", errno);
  return memory;
}

static void set_up(void) {
  mapped_fd = make("mapped", MFD_CLOEXEC, 1);
  first = map_file(mapped_fd, MAP_SHARED, 0, SIZE);
  second = map_file(mapped_fd, MAP_SHARED, 2 * PAGE, SIZE - 2 * PAGE);
  private_map = map_file(mapped_fd, MAP_PRIVATE, 0, SIZE);
  private_map[100] = 200;

  plain_fd = make("plain", 0, 2);
  SYS(ftruncate(plain_fd, 1 << 30)); /* sparse */
  SYS(lseek(plain_fd, 1234, SEEK_SET));

  sealed_fd = make("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC, 3);
  SYS(fcntl(sealed_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));

  closed_fd = make("closed", MFD_CLOEXEC, 4);
  orphan = map_file(closed_fd, MAP_SHARED, 0, SIZE);
  close(closed_fd);
}

static void check_name(int fd, const char *name) {
  char path[64], target[PATH_MAX], expected[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t length = SYS(readlink(path, target, sizeof target - 1));
  target[length] = 0;
  snprintf(expected, sizeof expected, "/memfd:%s (deleted)", name);
  CHECK(!strcmp(target, expected), "%s, should be %s", target, expected);
}

static void verify(void) {
  unsigned char content[SIZE];
  CHECK(is_filled(first, 7 * PAGE, 1));
  uint64_t *counter = (uint64_t *)(first + 7 * PAGE), *same = (uint64_t *)(second + 5 * PAGE), seen;
  ++*counter;
  CHECK(*same == *counter, "two mappings of one memory file are not the same memory");
  CHECK(pread(mapped_fd, &seen, 8, 7 * PAGE) == 8 && seen == *counter, "the descriptor and the mapping are not the same memory");
  CHECK(private_map[100] == 200 && !memcmp(private_map + 104, first + 104, PAGE - 104));
  CHECK(pread(plain_fd, content, SIZE, 0) == SIZE && is_filled(content, SIZE, 2));
  struct stat st;
  CHECK(SYS(fstat(plain_fd, &st)) == 0 && st.st_size == 1 << 30 && st.st_blocks * 512 < 1 << 20, "size %ld, blocks %ld", (long)st.st_size,
        (long)st.st_blocks);
  CHECK(SYS(lseek(plain_fd, 0, SEEK_CUR)) == 1234);
  CHECK(pread(sealed_fd, content, SIZE, 0) == SIZE && is_filled(content, SIZE, 3));
  CHECK(SYS(fcntl(sealed_fd, F_GET_SEALS)) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
  CHECK(write(sealed_fd, "x", 1) == -1 && errno == EPERM);
  CHECK(SYS(fcntl(mapped_fd, F_GETFD)) == FD_CLOEXEC && SYS(fcntl(plain_fd, F_GETFD)) == 0);
  CHECK(is_filled(orphan, SIZE, 4));
  check_name(mapped_fd, "mapped");
  check_name(sealed_fd, "sealed");
}

static void after_restore(void) {
  verify();
  SYS(ftruncate(mapped_fd, 2 * SIZE));
  CHECK(pwrite(mapped_fd, "end", 3, 2 * SIZE - 3) == 3);
  SYS(fallocate(mapped_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE)); /* as ZGC releases memory */
  CHECK(is_zero(first + PAGE, PAGE));
  fill(first, 7 * PAGE, 1);
  SYS(ftruncate(mapped_fd, SIZE));
  uint64_t before = *(uint64_t *)orphan;
  IN_CHILD(*(uint64_t *)orphan = 5);
  CHECK(*(uint64_t *)orphan == 5, "not shared with a child");
  *(uint64_t *)orphan = before;
}
