/*
 * Everything of the machine that C code needs, for x86-64. Another architecture supplies a folder with the same
 * functions; no other file knows registers, instructions or system call conventions.
 */
#ifndef WARP_ARCH_H
#define WARP_ARCH_H

#include <asm/sigcontext.h>
#include <asm/signal.h>
#include <asm/siginfo.h>
#include <asm/ucontext.h>
#include <asm/unistd.h>
#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARCH_ELF_MACHINE EM_X86_64
#define ARCH_PAGE_SIZE 4096ul

/* Makes one system call; returns what the kernel returns: a value, or a negated errno. */
static inline long arch_syscall(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long ret;
  __asm__ volatile("syscall" : "=a"(ret) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return ret;
}

static inline void arch_copy(void *to, const void *from, size_t size) {
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

static inline void arch_fill(void *to, int value, size_t size) {
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
}

/* The kernel's struct sigaction (not libc's); SA_RESTORER is required on x86-64. */
struct arch_sigaction {
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  uint64_t mask;
};
#define ARCH_SA_RESTORER 0x04000000ul

/* The code that a signal handler returns to: calls rt_sigreturn(2). */
void arch_signal_return(void);

/* Why a thread's interrupted system call is to go on, found out from its signal frame. */
struct arch_blocked_call {
  long number; /* -1: not in a system call */
  uint64_t argument[6];
  uint64_t stack;
  uint64_t instruction; /* behind the system call instruction */
};

/* Copies memory of the program that may not be there; false when not all of it could be read. */
typedef bool (*arch_reader)(uint64_t address, void *to, size_t size);

/*
 * True when `context` shows a system call that has just returned -EINTR at the place that `seen` (from
 * /proc/PID/task/TID/syscall, read before the signal) describes. When `seen` was not in a call, the number is found out from
 * the code that has led to it, and `*number` is set; false when neither tells.
 */
bool arch_interrupted_call(const struct ucontext *context, const struct arch_blocked_call *seen, arch_reader read, long *number);

/* Sets `context` so that rt_sigreturn makes the system call `number` again with unchanged arguments. */
void arch_repeat_call(struct ucontext *context, long number);

/*
 * True when the kernel itself has set `context` to repeat a call that it interrupted (ERESTARTSYS with SA_RESTART): the
 * instruction pointer is at a system call instruction. `*number` is the call.
 */
bool arch_kernel_repeats_call(const struct ucontext *context, long *number);

/* Storage that arch_repeat_call_changed keeps for one thread while the changed call runs. */
struct arch_changed_call {
  uint64_t argument[6]; /* as the call gets them: rdi rsi rdx r10 r8 r9 */
  uint64_t original[6]; /* as the program left them, put back afterwards */
  uint64_t return_address;
  uint64_t number;
  uint64_t in_use; /* set to 0 when the program's registers are back */
};

/* As arch_repeat_call, with `changed->argument` in place of the program's; the program's registers come back afterwards. */
void arch_repeat_call_changed(struct ucontext *context, struct arch_changed_call *changed, long number);

/* Inside the repeating code of arch_repeat_call_changed: the storage in use, else NULL. */
struct arch_changed_call *arch_changed_call_in_progress(const struct ucontext *context);

/*
 * Of a thread inside that code at a capture: true, and the call set to be made from the start with `argument` as it is then,
 * when it was interrupted (or not yet made); false when it has its result.
 */
bool arch_changed_call_restart(struct ucontext *context);

uint64_t arch_context_argument(const struct ucontext *context, int index);
/* The general registers in a signal frame, but for stack pointer and instruction pointer. */
/* The system call that Syscall User Dispatch has kept from being made: its number, and where it comes back to. */
long arch_context_call(const struct ucontext *context);
uint64_t arch_context_instruction(const struct ucontext *context);
/* Sets the result, as if the call had been made. */
void arch_context_set_result(struct ucontext *context, long result);
/* Has the program make the call by itself when it goes on. */
void arch_context_make_call_again(struct ucontext *context);
/* The frame that rt_sigreturn(2), called in `context`, would load. */
struct ucontext *arch_context_returned_frame(const struct ucontext *context);
/* Where the handler that was entered with the kernel's frame `context` returns to: code that calls rt_sigreturn(2). */
void arch_frame_set_return(struct ucontext *context, uint64_t restorer);

/*
 * Calls that are made in the engine's code on behalf of the program, so that Syscall User Dispatch lets them pass: the
 * program's registers and stack are its own meanwhile. Each place of the program that makes calls gets a stub for good, one
 * for each system call that it makes; false when there are no more, or when it starts threads and those are used up. A thread that begins in such a stub
 * calls dispatch_thread_started first.
 */
bool arch_make_call_in_stub(struct ucontext *context, bool starts_thread);
/* As arch_interrupted_call, for a call that was made in a stub, which knows its number. */
bool arch_interrupted_call_in_stub(const struct ucontext *context, long *number);
/* A thread that stands in a stub goes on in the program's own code instead. */
void arch_leave_stub(struct ucontext *context);
/* Signal handlers that call engine_dispatched_call, engine_fault and engine_signal (dispatch.c), and go on in the handler that it returns, if any. */
void arch_dispatch_entry(void);
void arch_fault_entry(void);
void arch_signal_entry(void);

uint64_t *arch_context_registers(struct ucontext *context, size_t *count);
uint64_t arch_context_stack(const struct ucontext *context);

/* Sets thread pointers; for the calling thread. */
uint64_t arch_get_thread_pointer(void);
uint64_t arch_get_second_thread_pointer(void);
void arch_set_thread_pointer(uint64_t value);
void arch_set_second_thread_pointer(uint64_t value);

/* NT_PRSTATUS register set (user_regs_struct, 27 words) from a signal frame. */
#define ARCH_REGISTER_COUNT 27
#define ARCH_PRSTATUS_SIZE 336
#define ARCH_PRSTATUS_REGISTERS 112
void arch_registers(const struct ucontext *context, long interrupted_call, uint64_t fs_base, uint64_t gs_base, uint64_t ret[ARCH_REGISTER_COUNT]);

/* NT_FPREGSET (512 bytes). */
#define ARCH_FPREGSET_SIZE 512
void arch_fpregset(const struct ucontext *context, uint8_t ret[ARCH_FPREGSET_SIZE]);

/* Bytes of NT_X86_XSTATE in the frame, 0 when there is none; `*features` gets its XSAVE feature bits. */
uint32_t arch_xstate_size(const struct ucontext *context, uint64_t *features);
/* Bytes of extended state in the signal frame itself: what a host must be able to load. */
uint32_t arch_frame_xstate_size(const struct ucontext *context);
void arch_xstate(const struct ucontext *context, uint8_t *ret);

/* What this processor can do: the eight words that the image format names, the model name, XCR0 and its XSAVE size. */
struct arch_cpu {
  uint32_t features[8];
  char model[49];
  uint64_t xstate_features;
  uint32_t xstate_size;
};
void arch_read_cpu(struct arch_cpu *ret);
/* Leaves what x86-64-v2 has (x86-64 psABI, table "Micro-Architecture Levels"), and XSAVE. */
void arch_limit_cpu(struct arch_cpu *cpu);
/* XSAVE features that these are enough for: x87 and SSE. */
#define ARCH_GENERIC_XSTATE 3ul

/*
 * AES-256-GCM with the processor's instructions; which of them are used `gcm->implementation` says (base/aes_gcm.h). Vector registers are used: not for
 * code that runs in place of a system call.
 */
struct aes_gcm;
/* The best enum aes_implementation that this processor has. */
int arch_aes_best(void);
/* Sets up `powers` when the rest is there. */
void arch_aes_gcm_begin(struct aes_gcm *gcm);
void arch_aes_encrypt_block(const struct aes_gcm *gcm, uint8_t block[16]);
/* Adds `count` blocks to the hash `state`. */
void arch_aes_gcm_hash(const struct aes_gcm *gcm, uint8_t state[16], const uint8_t *blocks, size_t count);
/*
 * Encrypts or decrypts as many of `count` blocks as it does at once, and adds the ciphertext to the hash `state`; `counter` is the first block's. Returns
 * how many it did: the first ones. `from` and `to` may be the same place.
 */
size_t arch_aes_gcm_crypt(const struct aes_gcm *gcm, bool encrypt, const uint8_t counter[16], uint8_t state[16], const uint8_t *from, uint8_t *to, size_t count);

/* Runs `function(argument)` on another stack, whose highest address is `stack_top`; returns its result. */
long arch_call_on_stack(long (*function)(void *), void *argument, void *stack_top);

/* Leaves for `function(argument)` on another stack; never returns. */
_Noreturn void arch_jump_on_stack(uint64_t function, uint64_t argument, uint64_t stack_top);

/*
 * clone(2) for a thread that starts in `function(argument)` on `stack_top` and must not return. Returns the new thread's
 * id, or a negated errno.
 */
long arch_clone(uint64_t flags, void *stack_top, void *parent_tid, void *child_tid, uint64_t thread_pointer, void (*function)(void *), void *argument);

/* clone3(2) likewise; `arguments` is a struct clone_args of `size` bytes with a stack. */
long arch_clone3(const void *arguments, size_t size, void (*function)(void *), void *argument);

/*
 * Saves what a function must preserve on the stack, stores the stack pointer in *resume_stack, and calls
 * `wait(argument)`. Returns 0 after it; or 1 in a thread that has been started at arch_resume_entry (first argument 0;
 * else it is a counter: the thread adds one and ends) with that stack pointer.
 */
int arch_park(uint64_t *resume_stack, void (*wait)(void *), void *argument);
void arch_resume_entry(void);

/* An x86-64 jump to `target`, in at most ARCH_JUMP_SIZE bytes. */
#define ARCH_JUMP_SIZE 14
void arch_write_jump(uint8_t *code, uint64_t target);

/*
 * Redirecting system calls that code makes by itself. A call whose number may be madvise or mremap is redirectable when the
 * instructions right before it can stand elsewhere and nothing jumps behind them: a jump then takes their place.
 */
struct arch_call_site {
  uint64_t call;         /* address of the system call instruction */
  long number;           /* -1: not known */
  uint32_t length;       /* of the instructions before it that are replaced */
  uint8_t original[32];  /* these */
};
enum arch_call_kind {
  ARCH_NO_CALL,           /* bytes that only look like a system call instruction */
  ARCH_OTHER_CALL,        /* makes another call than those that matter */
  ARCH_REDIRECTABLE_CALL,
  ARCH_FIXED_CALL,        /* may make one that matters, and cannot be redirected */
};
/* Length of the instruction at `code`, 0 when there is none. */
size_t arch_instruction_length(const uint8_t *code, size_t available);
/* Index of the next bytes that look like a system call instruction, from `from` on; `size` when there are none. */
size_t arch_next_call(const uint8_t *code, size_t size, size_t from);
/* Judges the one at index `at`; for a redirectable one fills *ret but for `call`. `code` should reach ARCH_CODE_AROUND bytes to both sides. */
#define ARCH_CODE_AROUND 4352u
enum arch_call_kind arch_examine_call(const uint8_t *code, size_t size, size_t at, struct arch_call_site *ret);
/* Whether the one at index `at` makes a call that matters whatever stands around it: its number is loaded right before, with nothing between that could branch. */
bool arch_is_plain_call(const uint8_t *code, size_t size, size_t at);
/*
 * Makes the place call engine_redirected_call for madvise and mremap, by way of `entry` (ARCH_ENTRY_SIZE bytes that are going to be executable, within
 * ARCH_ENTRY_REACH of it); both are writable. False, and nothing of the place is changed, where that cannot be reached.
 */
#define ARCH_ENTRY_SIZE 96u
#define ARCH_ENTRY_REACH 0x7ff00000ul
bool arch_redirect_call(const struct arch_call_site *site, uint8_t *entry);
/* A thread that stands among the replaced instructions goes on in their copy. */
void arch_leave_redirected(struct ucontext *context, const struct arch_call_site *site, const uint8_t *entry);

#endif
