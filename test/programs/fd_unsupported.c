/* Holds a descriptor that no checkpoint can keep (io_uring, or else userfaultfd): the checkpoint is refused and the program goes on. */
#include "check.h"

static int fd;

static void set_up(void) {
  unsigned char parameters[256] = {0};
  fd = syscall(SYS_io_uring_setup, 4, parameters);
  if (fd < 0) fd = syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
  CHECK(fd >= 0, "neither io_uring nor userfaultfd: errno %d", errno);
  print_line("descriptor %d", fd);
}

static void verify(void) { SYS(fcntl(fd, F_GETFD)); }

static void after_restore(void) {}
