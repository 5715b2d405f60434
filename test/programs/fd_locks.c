/* File locks of all three kinds are held again: another process finds the files locked. */
#include "check.h"
#include <sys/file.h>

static int flocked, posix, description;

static void set_up(void) {
  flocked = SYS(open(scratch_path("flock"), O_RDWR | O_CREAT, 0600));
  posix = SYS(open(scratch_path("posix"), O_RDWR | O_CREAT, 0600));
  description = SYS(open(scratch_path("description"), O_RDWR | O_CREAT, 0600));
  SYS(flock(flocked, LOCK_EX | LOCK_NB));
  SYS(fcntl(posix, F_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 20}));
  SYS(fcntl(posix, F_SETLK, &(struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 0}));
  SYS(fcntl(description, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 5}));
}

static void verify(void) {}

static short type_of_conflict(int fd, int command, short type, off_t start) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
  if (fcntl(fd, command, &lock)) return -1;
  return lock.l_type;
}

static void after_restore(void) {
  IN_CHILD({
    int fd = open(scratch_path("flock"), O_RDWR);
    CHECK(flock(fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK, "flock is not held");
    fd = open(scratch_path("posix"), O_RDWR);
    CHECK(type_of_conflict(fd, F_GETLK, F_RDLCK, 10) == F_WRLCK && type_of_conflict(fd, F_GETLK, F_RDLCK, 29) == F_WRLCK,
          "the POSIX write lock is not held");
    CHECK(type_of_conflict(fd, F_GETLK, F_WRLCK, 30) == F_UNLCK && type_of_conflict(fd, F_GETLK, F_WRLCK, 9) == F_UNLCK,
          "the POSIX write lock is too large");
    CHECK(type_of_conflict(fd, F_GETLK, F_WRLCK, 123456) == F_RDLCK && type_of_conflict(fd, F_GETLK, F_RDLCK, 123456) == F_UNLCK,
          "the POSIX read lock is not held");
    fd = open(scratch_path("description"), O_RDWR);
    CHECK(type_of_conflict(fd, F_OFD_GETLK, F_RDLCK, 5) == F_WRLCK && type_of_conflict(fd, F_OFD_GETLK, F_RDLCK, 10) == F_UNLCK,
          "the open file description lock is not held");
  });
  /* the owner can still change its locks */
  SYS(fcntl(posix, F_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 20}));
  SYS(flock(flocked, LOCK_EX | LOCK_NB));
}
