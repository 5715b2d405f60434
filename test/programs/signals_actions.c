/* Signal dispositions with their flags and masks, as the kernel has them, and delivery to the program's own handlers. */
#include "check.h"

struct kernel_action {
  void *handler;
  unsigned long flags;
  void *restorer;
  uint64_t mask;
};

static struct kernel_action recorded[65];
static volatile sig_atomic_t delivered[65];
static volatile uint64_t mask_in_handler[65];

static int read_action(int number, struct kernel_action *action) {
  memset(action, 0, sizeof *action);
  return syscall(SYS_rt_sigaction, number, NULL, action, 8);
}

static void handler(int number, siginfo_t *info, void *context) {
  (void)context;
  int saved = errno;
  sigset_t set;
  pthread_sigmask(SIG_BLOCK, NULL, &set);
  uint64_t mask = 0;
  for (int i = 1; i < 32; i++)
    if (sigismember(&set, i) == 1) mask |= 1ull << (i - 1);
  mask_in_handler[number] = mask;
  if (info->si_signo == number) delivered[number]++;
  errno = saved;
}

static void plain_handler(int number) { delivered[number]++; }

static void act(int number, int flags, int blocked) {
  struct sigaction action = {.sa_flags = flags};
  sigemptyset(&action.sa_mask);
  if (blocked == -1)
    sigfillset(&action.sa_mask);
  else if (blocked)
    sigaddset(&action.sa_mask, blocked);
  if (flags & SA_SIGINFO)
    action.sa_sigaction = handler;
  else
    action.sa_handler = plain_handler;
  SYS(sigaction(number, &action, NULL));
}

static void set_up(void) {
  act(SIGUSR1, SA_SIGINFO | SA_RESTART, SIGTERM);
  act(SIGUSR2, SA_SIGINFO | SA_NODEFER | SA_RESETHAND, 0);
  act(SIGTERM, SA_SIGINFO, -1);
  act(SIGHUP, 0, 0);
  act(SIGINT, SA_RESTART, SIGQUIT);
  act(SIGALRM, SA_SIGINFO | SA_ONSTACK, SIGUSR1);
  act(SIGRTMIN, SA_SIGINFO | SA_RESTART, 0);
  act(SIGRTMIN + 7, SA_SIGINFO, SIGRTMIN);
  act(SIGSEGV, SA_SIGINFO, 0);
  act(SIGCHLD, SA_SIGINFO | SA_NOCLDSTOP | SA_NOCLDWAIT, 0);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGQUIT, SIG_IGN);
  for (int i = 1; i <= 64; i++)
    if (i != SIGKILL && i != SIGSTOP) CHECK(read_action(i, &recorded[i]) == 0);
}

static void verify(void) {
  for (int i = 1; i <= 64; i++) {
    if (i == SIGKILL || i == SIGSTOP) continue;
    if (i == 33) continue; /* the C library's own: the engine takes its place while it stops the threads */
    struct kernel_action now;
    CHECK(read_action(i, &now) == 0);
    CHECK(now.handler == recorded[i].handler, "signal %d: handler %p, should be %p", i, now.handler, recorded[i].handler);
    CHECK(now.flags == recorded[i].flags, "signal %d: flags 0x%lx, should be 0x%lx", i, now.flags, recorded[i].flags);
    CHECK(now.mask == recorded[i].mask, "signal %d: mask 0x%lx, should be 0x%lx", i, now.mask, recorded[i].mask);
    CHECK(now.restorer == recorded[i].restorer, "signal %d: restorer %p", i, now.restorer);
  }
}

static void deliver(int number) {
  sig_atomic_t before = delivered[number];
  SYS(raise(number));
  CHECK(delivered[number] == before + 1, "signal %d was delivered %d times", number, (int)(delivered[number] - before));
}

static void after_restore(void) {
  int handled[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGHUP, SIGINT, SIGALRM, SIGRTMIN, SIGRTMIN + 7};
  for (unsigned i = 0; i < COUNT(handled); i++) deliver(handled[i]);
  CHECK(mask_in_handler[SIGUSR1] == (1ull << (SIGUSR1 - 1) | 1ull << (SIGTERM - 1)), "0x%lx", mask_in_handler[SIGUSR1]);
  CHECK(mask_in_handler[SIGUSR2] == 0, "0x%lx", mask_in_handler[SIGUSR2]);
  CHECK(mask_in_handler[SIGTERM] == (0x7fffffffull & ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1))), "0x%lx",
        mask_in_handler[SIGTERM]);
  struct kernel_action now;
  CHECK(read_action(SIGUSR2, &now) == 0 && now.handler == SIG_DFL, "SA_RESETHAND did not reset");
  act(SIGUSR2, SA_SIGINFO | SA_NODEFER | SA_RESETHAND, 0);
  SYS(raise(SIGPIPE));
  SYS(raise(SIGQUIT));
  SYS(raise(SIGCHLD));
}
