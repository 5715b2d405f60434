/*
 * Open files: offset, O_APPEND, FD_CLOEXEC, one description shared by dup, sparse numbers, unlinked files with content, directories and
 * devices.
 */
#include "check.h"
#include <dirent.h>
#include <sys/sysmacros.h>

static int plain, same, append, unlinked, temporary, directory, null_fd, urandom, zero, path_only, write_only, high;
static unsigned long lines;
static bool inherited[400];

static int flags_of(int fd) { return SYS(fcntl(fd, F_GETFL)) & ~O_LARGEFILE & ~0100000; }

static off_t offset_of(int fd) { return SYS(lseek(fd, 0, SEEK_CUR)); }

static void set_up(void) {
  unsigned char content[4096];
  for (int fd = 3; fd < 400; fd++) inherited[fd] = fcntl(fd, F_GETFD) != -1;
  fill(content, sizeof content, 1);
  plain = SYS(open(scratch_path("plain"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
  CHECK(write(plain, content, sizeof content) == sizeof content);
  SYS(lseek(plain, 1000, SEEK_SET));
  same = SYS(dup(plain)); /* without FD_CLOEXEC */
  high = SYS(fcntl(plain, F_DUPFD_CLOEXEC, 300));
  append = SYS(open(scratch_path("append"), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600));
  write_only = SYS(open(scratch_path("write-only"), O_WRONLY | O_CREAT | O_TRUNC | O_SYNC, 0600));
  CHECK(write(write_only, "12345", 5) == 5);

  unlinked = SYS(open(scratch_path("unlinked"), O_RDWR | O_CREAT | O_TRUNC, 0600));
  CHECK(write(unlinked, content, sizeof content) == sizeof content);
  unlink(scratch_path("unlinked"));
  SYS(lseek(unlinked, 77, SEEK_SET));
  temporary = SYS(open(scratch, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  CHECK(write(temporary, "temporary", 9) == 9);

  SYS(mkdir(scratch_path("entries"), 0700) && errno != EEXIST ? -1 : 0);
  close(SYS(open(scratch_path("entries/inside"), O_WRONLY | O_CREAT, 0600)));
  directory = SYS(open(scratch_path("entries"), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  null_fd = SYS(open("/dev/null", O_RDWR));
  urandom = SYS(open("/dev/urandom", O_RDONLY | O_CLOEXEC));
  zero = SYS(open("/dev/zero", O_RDONLY));
  path_only = SYS(open(scratch_path("plain"), O_PATH | O_CLOEXEC));
}

static void verify(void) {
  CHECK(offset_of(plain) == 1000 && offset_of(same) == 1000 && offset_of(high) == 1000, "offsets %ld %ld", (long)offset_of(plain),
        (long)offset_of(same));
  CHECK(flags_of(plain) == O_RDWR, "flags 0%o", flags_of(plain));
  CHECK(flags_of(append) == (O_WRONLY | O_APPEND), "flags 0%o", flags_of(append));
  CHECK((flags_of(write_only) & (O_ACCMODE | O_SYNC)) == (O_WRONLY | O_SYNC), "flags 0%o", flags_of(write_only));
  CHECK(SYS(fcntl(plain, F_GETFD)) == FD_CLOEXEC && SYS(fcntl(same, F_GETFD)) == 0, "FD_CLOEXEC");
  CHECK(SYS(fcntl(high, F_GETFD)) == FD_CLOEXEC && SYS(fcntl(append, F_GETFD)) == 0 && SYS(fcntl(directory, F_GETFD)) == FD_CLOEXEC);
  CHECK(offset_of(unlinked) == 77 && offset_of(write_only) == 5);
}

static void after_restore(void) {
  unsigned char content[4096], expected[4096];
  verify();
  fill(expected, sizeof expected, 1);
  CHECK(read(same, content, 24) == 24 && !memcmp(content, expected + 1000, 24));
  CHECK(offset_of(plain) == 1024 && offset_of(high) == 1024, "dup'ed descriptors do not share their offset");
  SYS(lseek(high, 1000, SEEK_SET));
  CHECK(offset_of(plain) == 1000);

  char line[64];
  int length = snprintf(line, sizeof line, "line %lu\n", lines++);
  struct stat st;
  SYS(fstat(append, &st));
  CHECK(write(append, line, length) == length);
  CHECK(offset_of(append) == st.st_size + length, "O_APPEND wrote at %ld of %ld", (long)offset_of(append) - length, (long)st.st_size);

  SYS(fstat(unlinked, &st));
  CHECK(st.st_nlink == 0 && st.st_size == 4096, "links %lu, size %ld", (unsigned long)st.st_nlink, (long)st.st_size);
  CHECK(pread(unlinked, content, 4096, 0) == 4096 && !memcmp(content, expected, 4096), "content of the unlinked file");
  CHECK(access(scratch_path("unlinked"), F_OK) == -1 && errno == ENOENT);
  SYS(fstat(temporary, &st));
  CHECK(st.st_nlink == 0 && pread(temporary, content, 100, 0) == 9 && !memcmp(content, "temporary", 9));
  CHECK(pwrite(unlinked, expected, 10, 0) == 10);

  int inside = SYS(openat(directory, "inside", O_RDONLY | O_CLOEXEC));
  close(inside);
  DIR *list = fdopendir(dup(directory));
  CHECK(list);
  rewinddir(list);
  int entries = 0;
  while (readdir(list)) entries++;
  CHECK(entries == 3, "%d entries", entries);
  closedir(list);

  CHECK(write(null_fd, "x", 1) == 1 && read(null_fd, content, 1) == 0);
  CHECK(read(urandom, content, 64) == 64 && !is_zero(content, 64));
  memset(content, 1, 64);
  CHECK(read(zero, content, 64) == 64 && is_zero(content, 64));
  SYS(fstat(null_fd, &st));
  CHECK(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
  SYS(fstat(path_only, &st));
  CHECK(S_ISREG(st.st_mode) && read(path_only, content, 1) == -1 && errno == EBADF, "O_PATH lost");
  for (int fd = 3; fd < 400; fd++)
    if (fcntl(fd, F_GETFD) != -1 && !inherited[fd])
      CHECK(fd == plain || fd == same || fd == append || fd == unlinked || fd == temporary || fd == directory || fd == null_fd ||
                fd == urandom || fd == zero || fd == path_only || fd == write_only || fd == high,
            "descriptor %d is open and not the program's", fd);
}
