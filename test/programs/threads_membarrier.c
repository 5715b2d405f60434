/* membarrier: the process's registrations hold after a restore (JVMs, .NET and liburcu register once at their start). */
#include "check.h"

#define PRIVATE_EXPEDITED 8
#define REGISTER_PRIVATE_EXPEDITED 16
#define PRIVATE_EXPEDITED_SYNC_CORE 32
#define REGISTER_PRIVATE_EXPEDITED_SYNC_CORE 64

static long supported;

static void *spin(void *unused) {
  (void)unused;
  for (;;) sleep_ms(1);
  return NULL;
}

static void set_up(void) {
  supported = SYS(syscall(SYS_membarrier, 0, 0, 0));
  if (supported & REGISTER_PRIVATE_EXPEDITED) SYS(syscall(SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0));
  if (supported & REGISTER_PRIVATE_EXPEDITED_SYNC_CORE) SYS(syscall(SYS_membarrier, REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
  start_thread(spin, NULL);
}

static void verify(void) {
  if (supported & PRIVATE_EXPEDITED) SYS(syscall(SYS_membarrier, PRIVATE_EXPEDITED, 0, 0));
  if (supported & PRIVATE_EXPEDITED_SYNC_CORE) SYS(syscall(SYS_membarrier, PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
}

static void after_restore(void) { verify(); }
