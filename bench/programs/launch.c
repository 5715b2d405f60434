/*
 * launch PRELOAD PROGRAM [ARGUMENT...]: starts the program, with the library preloaded (none when empty) and no descriptors but the three
 * standard ones. Prints "exec PID NANOSECONDS" (CLOCK_MONOTONIC) just before, which is the program's own start, free of what fork and
 * Node.js cost; and "cpu NANOSECONDS" and "memory BYTES" (the greatest that was resident) when the program and its children have ended. Ends as the
 * program did.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  if (syscall(SYS_close_range, 3, ~0u, 0)) /* a kernel before 5.9 */
    for (int fd = 3; fd < 4096; fd++) close(fd);
  pid_t child = fork();
  if (child == 0) {
    if (*argv[1]) setenv("LD_PRELOAD", argv[1], 1);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (dprintf(1, "exec %d %lld\n", getpid(), now.tv_sec * 1000000000ll + now.tv_nsec) < 0) return 2;
    execv(argv[2], argv + 2);
    fprintf(stderr, "launch: %s: %s\n", argv[2], strerror(errno));
    return 127;
  }
  close(0); /* the program's alone */
  int status;
  struct rusage used;
  if (child < 0 || wait4(child, &status, 0, &used) != child) return 2;
  const struct timeval user = used.ru_utime, system = used.ru_stime;
  dprintf(1, "cpu %ld\nmemory %ld\n", ((user.tv_sec + system.tv_sec) * 1000000l + user.tv_usec + system.tv_usec) * 1000, used.ru_maxrss * 1024);
  if (WIFSIGNALED(status)) {
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
  }
  return WEXITSTATUS(status);
}
