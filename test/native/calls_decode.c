/* What the engine makes of a signal frame alone, for calls_check.c: apart, because a C library's headers have structures of the same names. */
#include "../../native/src/base/base.h"

/* Stands in for the engine's: nothing is redirected here. */
const char arch_redirected_entry[1];

static bool read_own(uint64_t address, void *to, size_t size) {
  const struct io_vector local = {to, size}, remote = {(void *)address, size};
  return sys(process_vm_readv, sys(getpid), &local, 1, &remote, 1, 0) == (long)size;
}

/* True when the frame shows an interrupted call; *number is then what was found out about it, or -1. */
bool decode_interrupted(void *context, long *number) {
  const struct arch_blocked_call unseen = {.number = -1};
  const struct sigcontext *m = &((const struct ucontext *)context)->uc_mcontext;
  *number = -1;
  return arch_interrupted_call(context, &unseen, read_own, number) || m->rax == (uint64_t)-EINTR;
}

void repeat_interrupted(void *context, long number) { arch_repeat_call(context, number); }
