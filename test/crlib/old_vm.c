/*
 * Stands in for a VM of the older interface: runs an executable engine on itself, and waits for its signal.
 *   old_vm ENGINE DIR
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  sigset_t set;
  siginfo_t info;
  if (argc != 3) return 2;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 2);
  sigprocmask(SIG_BLOCK, &set, NULL);
  printf("pid %d\n", getpid());
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    execl(argv[1], argv[1], "checkpoint", argv[2], (char *)NULL);
    _exit(127);
  }
  int status;
  waitpid(child, &status, 0);
  if (sigwaitinfo(&set, &info) < 0) return 1;
  printf("signal with value %d\n", info.si_value.sival_int);
  fflush(stdout);
  for (;;) pause();
}
