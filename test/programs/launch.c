/*
 * launch PRELOAD PROGRAM [ARGUMENT...]: runs the program with the library preloaded (none when empty) and with no descriptors but the three
 * standard ones. Node.js hands on whatever its own caller leaked to it, and a pipe to somebody else would rightly be refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  if (syscall(SYS_close_range, 3, ~0u, 0)) /* a kernel before 5.9 */
    for (int fd = 3; fd < 4096; fd++) close(fd);
  if (*argv[1]) setenv("LD_PRELOAD", argv[1], 1);
  execv(argv[2], argv + 2);
  fprintf(stderr, "launch: %s: %s\n", argv[2], strerror(errno));
  return 127;
}
