/* signalfd: its mask, and signals that are pending for it. */
#include "check.h"
#include <sys/signalfd.h>

static int fd;

static void arm(void) {
  SYS(kill(getpid(), SIGUSR1));
  SYS(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = 42}));
}

static void set_up(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGRTMIN + 5);
  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
  fd = SYS(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  arm();
}

static void verify(void) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  read_file(path, text, sizeof text);
  char *mask = strstr(text, "sigmask:");
  uint64_t expected = 1ull << (SIGUSR1 - 1) | 1ull << (SIGRTMIN + 5 - 1);
  CHECK(mask && strtoull(mask + 8, NULL, 16) == expected, "%s", text);
}

static void after_restore(void) {
  struct signalfd_siginfo info;
  verify();
  CHECK(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);
  CHECK(read(fd, &info, sizeof info) == sizeof info && (int)info.ssi_signo == SIGRTMIN + 5 && info.ssi_int == 42, "value %d", info.ssi_int);
  CHECK(read(fd, &info, sizeof info) == -1 && errno == EAGAIN);
  CHECK(SYS(fcntl(fd, F_GETFD)) == FD_CLOEXEC);
  arm();
}
