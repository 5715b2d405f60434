/* starts PRELOAD COUNT PROGRAM: runs the program that often, one after the other, and prints "done WALL CPU", nanoseconds for all. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const int count = atoi(argv[2]);
  char *arguments[] = {argv[3], NULL};
  if (*argv[1]) setenv("LD_PRELOAD", argv[1], 1);
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < count; i++) {
    pid_t pid;
    int status;
    if (posix_spawn(&pid, argv[3], NULL, NULL, arguments, environ) != 0 || waitpid(pid, &status, 0) != pid || status != 0) {
      fprintf(stderr, "starts: %s did not run\n", argv[3]);
      return 1;
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  struct rusage used;
  getrusage(RUSAGE_CHILDREN, &used);
  const struct timeval user = used.ru_utime, system = used.ru_stime;
  printf("done %ld %ld\n", (end.tv_sec - begin.tv_sec) * 1000000000l + end.tv_nsec - begin.tv_nsec,
         ((user.tv_sec + system.tv_sec) * 1000000l + user.tv_usec + system.tv_usec) * 1000);
}
