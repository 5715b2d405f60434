/* Every signal is blocked with a raw rt_sigprocmask, behind the C library's back: captured, or refused with a clear line. */
#include "check.h"

static void set_up(void) {
  uint64_t all = ~0ull;
  SYS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8));
}

static void verify(void) {
  uint64_t mask = 0;
  SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8));
  CHECK((mask & 0x7fffffff) == (0x7fffffffull & ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1))), "0x%lx", mask);
}

static void after_restore(void) { verify(); }
