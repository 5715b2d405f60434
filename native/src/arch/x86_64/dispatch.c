#include "../../base/base.h"

#define STUB_COUNT 2048u
#define STUB_SIZE 8u
#define THREAD_STUB_COUNT 16u
#define THREAD_STUB_SIZE 32u
#define CALL_SIZE 2u /* syscall */
#define MOST_CALLS 0x7fff

extern HIDDEN const char arch_stubs[];
extern HIDDEN uint64_t arch_stub_returns[STUB_COUNT];
extern HIDDEN const char arch_thread_stubs[];
extern HIDDEN uint64_t arch_thread_stub_returns[THREAD_STUB_COUNT];

long arch_context_call(const struct ucontext *context) { return (long)context->uc_mcontext.rax; }
uint64_t arch_context_instruction(const struct ucontext *context) { return context->uc_mcontext.rip; }
void arch_context_set_result(struct ucontext *context, long result) { context->uc_mcontext.rax = (uint64_t)result; }
void arch_context_make_call_again(struct ucontext *context) { context->uc_mcontext.rip -= CALL_SIZE; }
struct ucontext *arch_context_returned_frame(const struct ucontext *context) { return (struct ucontext *)context->uc_mcontext.rsp; }

/* struct rt_sigframe (arch/x86/include/asm/sigframe.h): the return address, then the context. */
void arch_frame_set_return(struct ucontext *context, uint64_t restorer) { ((uint64_t *)context)[-1] = restorer; }

/* Of each stub: what it returns to (47 bits), and the system call that it is for; 0 while it is free. */
static uint64_t stub_keys[STUB_COUNT], thread_stub_keys[THREAD_STUB_COUNT];

#define KEY(target, number) ((target) | (uint64_t)(number) << 48)
#define KEY_NUMBER(key) ((long)((key) >> 48))

/* The stub for a system call that returns to `target`: the one it has, or a free one; `count` when there is none. */
static uint32_t claim(uint64_t *keys, uint64_t *returns, uint32_t count, uint64_t target, long number) {
  const uint64_t key = KEY(target, number);
  uint32_t first = (uint32_t)((key * 0x9e3779b97f4a7c15ul) >> 40) % count;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t index = (first + i) % count;
    uint64_t seen = 0;
    if (!__atomic_compare_exchange_n(&keys[index], &seen, key, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) && seen != key) continue;
    __atomic_store_n(&returns[index], target, __ATOMIC_RELEASE);
    return index;
  }
  return count;
}

bool arch_make_call_in_stub(struct ucontext *context, bool starts_thread) {
  const uint64_t target = context->uc_mcontext.rip;
  const long number = arch_context_call(context);
  if (number < 0 || number > MOST_CALLS) return false;
  uint32_t index = starts_thread ? claim(thread_stub_keys, arch_thread_stub_returns, THREAD_STUB_COUNT, target, number) : claim(stub_keys, arch_stub_returns, STUB_COUNT, target, number);
  if (index == (starts_thread ? THREAD_STUB_COUNT : STUB_COUNT)) return false;
  context->uc_mcontext.rip = starts_thread ? (uint64_t)arch_thread_stubs + index * THREAD_STUB_SIZE : (uint64_t)arch_stubs + index * STUB_SIZE;
  return true;
}

bool arch_interrupted_call_in_stub(const struct ucontext *context, long *number) {
  const uint64_t at = context->uc_mcontext.rip - (uint64_t)arch_stubs;
  if (context->uc_mcontext.rax != (uint64_t)-EINTR || at >= STUB_COUNT * STUB_SIZE || at % STUB_SIZE != CALL_SIZE) return false;
  *number = KEY_NUMBER(stub_keys[at / STUB_SIZE]);
  return true;
}

static uint64_t program_place(uint64_t instruction) {
  uint64_t at = instruction - (uint64_t)arch_stubs;
  if (at < STUB_COUNT * STUB_SIZE) return arch_stub_returns[at / STUB_SIZE] - (at % STUB_SIZE == 0 ? CALL_SIZE : 0);
  at = instruction - (uint64_t)arch_thread_stubs;
  /* Behind the call it has work to do there. */
  if (at < THREAD_STUB_COUNT * THREAD_STUB_SIZE && at % THREAD_STUB_SIZE == 0) return arch_thread_stub_returns[at / THREAD_STUB_SIZE] - CALL_SIZE;
  return instruction;
}

void arch_leave_stub(struct ucontext *context) {
  struct arch_changed_call *changed = arch_changed_call_in_progress(context);
  if (changed != NULL) {
    changed->return_address = program_place(changed->return_address);
  } else {
    context->uc_mcontext.rip = program_place(context->uc_mcontext.rip);
  }
}
