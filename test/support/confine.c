/*
 * confine FILTER PROGRAM [ARGUMENT…]: runs the program as in a container without privilege: no_new_privs, and the seccomp filter of the
 * file FILTER (struct sock_filter, as the kernel takes it).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct sock_filter filter[8192];

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int fd = open(argv[1], O_RDONLY);
  ssize_t size = read(fd, filter, sizeof filter);
  close(fd);
  if (size <= 0) return 3;
  const struct sock_fprog program = {(unsigned short)((size_t)size / sizeof filter[0]), filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
    fprintf(stderr, "confine: %s\n", strerror(errno));
    return 4;
  }
  execv(argv[2], argv + 2);
  fprintf(stderr, "confine: %s: %s\n", argv[2], strerror(errno));
  return 127;
}
