/* stdin, stdout and stderr are the restoring caller's; other descriptors that shared them follow. */
#include "check.h"

static int out_copy, error_copy;

static bool same_file(int a, int b) {
  struct stat x, y;
  SYS(fstat(a, &x));
  SYS(fstat(b, &y));
  return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void set_up(void) {
  out_copy = SYS(fcntl(1, F_DUPFD_CLOEXEC, 40));
  error_copy = SYS(dup(2));
}

static void verify(void) {
  CHECK(fcntl(0, F_GETFD) == 0 && fcntl(1, F_GETFD) == 0 && fcntl(2, F_GETFD) == 0);
}

static void after_restore(void) {
  CHECK(same_file(1, out_copy), "the copy of stdout is another file");
  CHECK(same_file(2, error_copy), "the copy of stderr is another file");
  CHECK(SYS(fcntl(out_copy, F_GETFD)) == FD_CLOEXEC && SYS(fcntl(error_copy, F_GETFD)) == 0);
  char line[64] = "";
  ssize_t n = read(0, line, sizeof line - 1);
  if (self_test) return;
  CHECK(n > 0, "nothing on stdin: %zd, errno %d", n, errno);
  line[strcspn(line, "\n")] = 0;
  print_line("stdin says %s", line);
  CHECK(write(error_copy, "this is stderr\n", 15) == 15);
  CHECK(write(out_copy, "through the copy\n", 17) == 17);
}
