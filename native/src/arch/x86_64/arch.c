#include "arch.h"

#include <cpuid.h>

#include "../../base/base.h"

#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004
#define FP_XSTATE_MAGIC1_ 0x46505853u
#define SW_RESERVED_OFFSET 464u

extern HIDDEN const char arch_changed_call_start[];
extern HIDDEN const char arch_changed_call_syscall_end[];
extern HIDDEN const char arch_changed_call_end[];

static const uint8_t syscall_instruction[2] = {0x0f, 0x05};

void arch_repeat_call(struct ucontext *context, long number) {
  context->uc_mcontext.rax = (uint64_t)number;
  context->uc_mcontext.rip -= 2;
}

bool arch_kernel_repeats_call(const struct ucontext *context, long *number) {
  const struct sigcontext *m = &context->uc_mcontext;
  if (compare_bytes((const void *)m->rip, syscall_instruction, 2) != 0 || m->rax > 600) return false;
  *number = (long)m->rax;
  return true;
}

void arch_repeat_call_changed(struct ucontext *context, struct arch_changed_call *changed, long number) {
  struct sigcontext *m = &context->uc_mcontext;
  const uint64_t original[6] = {m->rdi, m->rsi, m->rdx, m->r10, m->r8, m->r9};
  copy_bytes(changed->original, original, sizeof original);
  changed->return_address = m->rip;
  changed->number = (uint64_t)number;
  m->r11 = (uint64_t)changed;
  m->rip = (uint64_t)arch_changed_call_start;
}

struct arch_changed_call *arch_changed_call_in_progress(const struct ucontext *context) {
  const struct sigcontext *m = &context->uc_mcontext;
  if (m->rip < (uint64_t)arch_changed_call_start || m->rip >= (uint64_t)arch_changed_call_end) return NULL;
  /* The system call instruction overwrites r11: while it is due, waits or has just returned, the stack has the pointer. */
  bool at_call = m->rip == (uint64_t)arch_changed_call_syscall_end || m->rip + 2 == (uint64_t)arch_changed_call_syscall_end;
  return at_call ? *(struct arch_changed_call **)m->rsp : (struct arch_changed_call *)m->r11;
}

bool arch_changed_call_restart(struct ucontext *context) {
  struct sigcontext *m = &context->uc_mcontext;
  struct arch_changed_call *changed = arch_changed_call_in_progress(context);
  bool interrupted = m->rip == (uint64_t)arch_changed_call_syscall_end && m->rax == (uint64_t)-EINTR;
  bool kernel_repeats = m->rip + 2 == (uint64_t)arch_changed_call_syscall_end;
  if (!interrupted && !kernel_repeats) return m->rip < (uint64_t)arch_changed_call_syscall_end;
  m->rsp += 256;
  m->r11 = (uint64_t)changed;
  m->rip = (uint64_t)arch_changed_call_start;
  return true;
}

uint64_t arch_context_argument(const struct ucontext *context, int index) {
  const struct sigcontext *m = &context->uc_mcontext;
  const uint64_t argument[6] = {m->rdi, m->rsi, m->rdx, m->r10, m->r8, m->r9};
  return argument[index];
}

uint64_t *arch_context_registers(struct ucontext *context, size_t *count) {
  *count = 15; /* r8 to rcx stand in one row before rsp: struct sigcontext */
  return (uint64_t *)&context->uc_mcontext.r8;
}

uint64_t arch_context_stack(const struct ucontext *context) { return context->uc_mcontext.rsp; }

uint64_t arch_get_thread_pointer(void) {
  uint64_t value = 0;
  sys(arch_prctl, ARCH_GET_FS, &value);
  return value;
}

uint64_t arch_get_second_thread_pointer(void) {
  uint64_t value = 0;
  sys(arch_prctl, ARCH_GET_GS, &value);
  return value;
}

void arch_set_thread_pointer(uint64_t value) { sys(arch_prctl, ARCH_SET_FS, value); }

void arch_set_second_thread_pointer(uint64_t value) { sys(arch_prctl, ARCH_SET_GS, value); }

void arch_registers(const struct ucontext *context, long interrupted_call, uint64_t fs_base, uint64_t gs_base, uint64_t ret[ARCH_REGISTER_COUNT]) {
  const struct sigcontext *m = &context->uc_mcontext;
  const struct arch_changed_call *changed = arch_changed_call_in_progress(context);
  uint64_t rip = m->rip, rsp = m->rsp, rdi = m->rdi, rsi = m->rsi, rdx = m->rdx, r10 = m->r10, r8 = m->r8, r9 = m->r9;
  if (changed != NULL) {
    rip = changed->return_address;
    if (m->rip != (uint64_t)arch_changed_call_start) rsp += 256;
    rdi = changed->original[0], rsi = changed->original[1], rdx = changed->original[2];
    r10 = changed->original[3], r8 = changed->original[4], r9 = changed->original[5];
  } else if (interrupted_call >= 0) {
    rip += 2;
  }
  bool in_call = interrupted_call >= 0;
  const uint64_t registers[ARCH_REGISTER_COUNT] = {
      m->r15,  m->r14,  m->r13, m->r12, m->rbp, m->rbx, m->r11, r10,     r9,      r8, in_call ? (uint64_t)-512 : m->rax, m->rcx, rdx, rsi, rdi, in_call ? (uint64_t)interrupted_call : (uint64_t)-1, rip, m->cs,
      m->eflags, rsp, m->ss,  fs_base, gs_base, 0,       0,      0,       0,
  };
  copy_bytes(ret, registers, sizeof registers);
}

void arch_fpregset(const struct ucontext *context, uint8_t ret[ARCH_FPREGSET_SIZE]) {
  const uint8_t *state = (const uint8_t *)context->uc_mcontext.fpstate;
  fill_bytes(ret, 0, ARCH_FPREGSET_SIZE);
  if (state != NULL) copy_bytes(ret, state, SW_RESERVED_OFFSET);
}

/*
 * Where NT_X86_XSTATE has each component: Intel's layout, whatever the processor's own is (AMD leaves out the gap of MPX).
 * GDB up to 13 knows no other, later ones recognise it by its size, and gcore writes it.
 */
static const struct component {
  uint32_t feature;
  uint32_t offset;
  uint32_t size;
} components[] = {{2, 576, 256}, {5, 1088, 64}, {6, 1152, 512}, {7, 1664, 1024}, {9, 2688, 8}, {17, 2752, 64}, {18, 2816, 8192}};

#define XSAVE_HEADER_END 576u

static const struct _fpx_sw_bytes *frame_xstate(const struct ucontext *context) {
  const struct _fpx_sw_bytes *sw = (const void *)((const uint8_t *)context->uc_mcontext.fpstate + SW_RESERVED_OFFSET);
  bool present = context->uc_mcontext.fpstate != NULL && (context->uc_flags & UC_FP_XSTATE) != 0 && sw->magic1 == FP_XSTATE_MAGIC1_;
  return present ? sw : NULL;
}

uint32_t arch_xstate_size(const struct ucontext *context, uint64_t *features) {
  const struct _fpx_sw_bytes *sw = frame_xstate(context);
  *features = 0;
  if (sw == NULL) return 0;
  uint32_t size = XSAVE_HEADER_END;
  *features = sw->xfeatures;
  for (size_t i = 0; i < sizeof components / sizeof components[0]; i++)
    if ((sw->xfeatures >> components[i].feature & 1) != 0) size = components[i].offset + components[i].size;
  return size;
}

uint32_t arch_frame_xstate_size(const struct ucontext *context) {
  const struct _fpx_sw_bytes *sw = frame_xstate(context);
  return sw == NULL ? 0 : sw->xstate_size;
}

void arch_xstate(const struct ucontext *context, uint8_t *ret) {
  uint64_t features;
  uint32_t size = arch_xstate_size(context, &features);
  const uint8_t *state = (const uint8_t *)context->uc_mcontext.fpstate;
  fill_bytes(ret, 0, size);
  copy_bytes(ret, state, SW_RESERVED_OFFSET);
  /* Where a signal frame has its sizes, NT_X86_XSTATE has XCR0 and zeros (arch/x86/kernel/fpu/xstate.h). */
  copy_bytes(ret + SW_RESERVED_OFFSET, &features, sizeof features);
  copy_bytes(ret + ARCH_FPREGSET_SIZE, state + ARCH_FPREGSET_SIZE, XSAVE_HEADER_END - ARCH_FPREGSET_SIZE);
  for (size_t i = 0; i < sizeof components / sizeof components[0]; i++) {
    uint32_t length, offset, c, d;
    if ((features >> components[i].feature & 1) == 0 || !__get_cpuid_count(0xd, components[i].feature, &length, &offset, &c, &d)) continue;
    copy_bytes(ret + components[i].offset, state + offset, length < components[i].size ? length : components[i].size);
  }
}

void arch_read_cpu(struct arch_cpu *ret) {
  uint32_t a, b, c, d;
  fill_bytes(ret, 0, sizeof *ret);
  if (__get_cpuid(1, &a, &b, &c, &d)) {
    ret->features[0] = c, ret->features[1] = d;
    if ((c & bit_OSXSAVE) != 0) {
      uint32_t low, high;
      __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
      ret->xstate_features = low | (uint64_t)high << 32;
      if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d)) ret->xstate_size = b;
    }
  }
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) ret->features[2] = b, ret->features[3] = c, ret->features[4] = d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) ret->features[5] = a;
  if (__get_cpuid(0x80000001u, &a, &b, &c, &d)) ret->features[6] = c, ret->features[7] = d;
  for (uint32_t part = 0; part < 3; part++) {
    uint32_t words[4];
    if (!__get_cpuid(0x80000002u + part, &words[0], &words[1], &words[2], &words[3])) break;
    copy_bytes(ret->model + part * 16, words, 16);
  }
}

void arch_limit_cpu(struct arch_cpu *cpu) {
  static const uint32_t generic[8] = {
      bit_SSE3 | bit_SSSE3 | bit_CMPXCHG16B | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_XSAVE,
      1u << 0 /* FPU */ | 1u << 4 /* TSC */ | bit_CMPXCHG8B | bit_CMOV | 1u << 19 /* CLFLUSH */ | bit_MMX | bit_FXSAVE | bit_SSE | bit_SSE2,
      [6] = bit_LAHF_LM,
      [7] = 1u << 11 /* SYSCALL */ | 1u << 20 /* NX */ | bit_LM,
  };
  for (size_t i = 0; i < 8; i++) cpu->features[i] &= generic[i];
}

void arch_write_jump(uint8_t *code, uint64_t target) {
  static const uint8_t jump_indirect[6] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip) */
  copy_bytes(code, jump_indirect, sizeof jump_indirect);
  copy_bytes(code + sizeof jump_indirect, &target, sizeof target);
}
