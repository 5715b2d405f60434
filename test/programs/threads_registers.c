/*
 * Integer, flags, x87, SSE, AVX and AVX-512 registers of many threads, each with its own values, held across the capture: in a spin
 * loop, and inside a system call (futex).
 */
#include "check.h"

/* from <asm/prctl.h>, which musl-gcc does not find */
#define ARCH_SET_GS 0x1001
#define ARCH_GET_GS 0x1004

int hold = 1; /* threads keep their registers while it is 1 */

/* Each function loads registers from rdi, waits until hold is 0, and stores the registers at rsi. */
asm(R"(
.macro wait_spin
91: pause
  cmpl $0, hold(%rip)
  jne 91b
.endm
.macro wait_call
92: mov $202, %eax
  lea hold(%rip), %rdi
  xor %esi, %esi
  mov $1, %edx
  xor %r10d, %r10d
  syscall
  cmpl $0, hold(%rip)
  jne 92b
.endm
.text

.globl hold_integers
hold_integers:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  push %rsi
  mov %rdi, %rax
  mov 0(%rax), %rbx
  mov 8(%rax), %rcx
  mov 16(%rax), %rdx
  mov 24(%rax), %rsi
  mov 32(%rax), %rdi
  mov 40(%rax), %rbp
  mov 48(%rax), %r8
  mov 56(%rax), %r9
  mov 64(%rax), %r10
  mov 72(%rax), %r11
  mov 80(%rax), %r12
  mov 88(%rax), %r13
  mov 96(%rax), %r14
  mov 104(%rax), %r15
  mov 112(%rax), %rax
  std
  wait_spin
  xchg %rax, (%rsp)
  mov %rbx, 0(%rax)
  mov %rcx, 8(%rax)
  mov %rdx, 16(%rax)
  mov %rsi, 24(%rax)
  mov %rdi, 32(%rax)
  mov %rbp, 40(%rax)
  mov %r8, 48(%rax)
  mov %r9, 56(%rax)
  mov %r10, 64(%rax)
  mov %r11, 72(%rax)
  mov %r12, 80(%rax)
  mov %r13, 88(%rax)
  mov %r14, 96(%rax)
  mov %r15, 104(%rax)
  pop %rbx
  mov %rbx, 112(%rax)
  pushfq
  pop %rbx
  cld
  mov %rbx, 120(%rax)
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret

.macro define_holders wait suffix
.globl hold_x87_\suffix
hold_x87_\suffix:
  push %rsi
  .irp i, 7, 6, 5, 4, 3, 2, 1, 0
  fldt 16*\i(%rdi)
  .endr
  \wait
  pop %rsi
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7
  fstpt 16*\i(%rsi)
  .endr
  ret

.globl hold_sse_\suffix
hold_sse_\suffix:
  push %rsi
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  movups 16*\i(%rdi), %xmm\i
  .endr
  \wait
  pop %rsi
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  movups %xmm\i, 16*\i(%rsi)
  .endr
  ret

.globl hold_avx_\suffix
hold_avx_\suffix:
  push %rsi
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  vmovups 32*\i(%rdi), %ymm\i
  .endr
  \wait
  pop %rsi
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  vmovups %ymm\i, 32*\i(%rsi)
  .endr
  vzeroupper
  ret

.globl hold_avx512_\suffix
hold_avx512_\suffix:
  push %rsi
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
  vmovups 64*\i(%rdi), %zmm\i
  .endr
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7
  kmovw 2048+8*\i(%rdi), %k\i
  .endr
  \wait
  pop %rsi
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7
  kmovw %k\i, 2048+8*\i(%rsi)
  .endr
  .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
  vmovups %zmm\i, 64*\i(%rsi)
  .endr
  vzeroupper
  ret
.endm
define_holders wait_spin spin
define_holders wait_call call
)");

typedef void holder(const void *in, void *out);
holder hold_integers, hold_x87_spin, hold_x87_call, hold_sse_spin, hold_sse_call, hold_avx_spin, hold_avx_call, hold_avx512_spin,
    hold_avx512_call;

struct bank {
  const char *name;
  holder *hold;
  unsigned size; /* bytes of registers */
  unsigned gs_base;
  bool absent; /* the CPU has no such registers */
};

static struct bank banks[] = {
    {"integer", hold_integers, 120, 0x10000, false},
    {"x87, spinning", hold_x87_spin, 128, 0x20000, false},
    {"x87, in a system call", hold_x87_call, 128, 0x30000, false},
    {"SSE, spinning", hold_sse_spin, 256, 0x40000, false},
    {"SSE, in a system call", hold_sse_call, 256, 0x50000, false},
    {"AVX, spinning", hold_avx_spin, 512, 0x60000, false},
    {"AVX, in a system call", hold_avx_call, 512, 0x70000, false},
    {"AVX-512, spinning", hold_avx512_spin, 2112, 0x80000, false},
    {"AVX-512, in a system call", hold_avx512_call, 2112, 0x90000, false},
};

static sem_t held, go;

static void *holder_thread(void *argument) {
  struct bank *bank = argument;
  unsigned index = bank - banks;
  static _Thread_local _Alignas(64) unsigned char in[2112], out[2112];
  uint16_t control = 0x037f & ~(index % 4 << 10); /* each thread has its own rounding mode and x87 exception masks */
  control |= index % 4 << 10;
  uint32_t mxcsr = 0x1f80 | (index % 4) << 13;
  SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)bank->gs_base));
  for (uint64_t round = 0;; round++) {
    for (unsigned i = 0; i < sizeof in / 8; i++) ((uint64_t *)in)[i] = pattern(index + round * 100, i);
    if (bank->size == 128) {
      /* x87 registers hold numbers: an 80-bit value with the explicit integer bit set and a normal exponent */
      for (int i = 0; i < 8; i++) {
        uint64_t mantissa = pattern(index, i) | 1ull << 63;
        uint16_t exponent = 0x3f00 + i * 3 + index;
        memset(in + 16 * i, 0, 16);
        memcpy(in + 16 * i, &mantissa, 8);
        memcpy(in + 16 * i + 8, &exponent, 2);
      }
    }
    if (bank->size == 2112)
      for (int i = 0; i < 8; i++) ((uint64_t *)in)[256 + i] &= 0xffff;
    memset(out, 0, sizeof out);
    asm volatile("fldcw %0\n\tldmxcsr %1" : : "m"(control), "m"(mxcsr));
    bank->hold(in, out);
    uint16_t control_after;
    uint32_t mxcsr_after;
    asm volatile("fnstcw %0\n\tstmxcsr %1" : "=m"(control_after), "=m"(mxcsr_after));
    unsigned long gs_base = 0;
    SYS(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs_base));
    for (unsigned i = 0; i < bank->size; i++)
      if (in[i] != out[i] && !(bank->size == 128 && i % 16 > 9))
        FAIL("%s: byte %u of the registers is 0x%02x, should be 0x%02x", bank->name, i, out[i], in[i]);
    if (bank->hold == hold_integers) CHECK(((uint64_t *)out)[15] & 0x400, "direction flag lost");
    CHECK(control_after == control, "%s: x87 control word 0x%x, should be 0x%x", bank->name, control_after, control);
    CHECK((mxcsr_after & ~0x3fu) == mxcsr, "%s: MXCSR 0x%x, should be 0x%x", bank->name, mxcsr_after, mxcsr);
    CHECK(gs_base == bank->gs_base, "%s: GS base 0x%lx, should be 0x%x", bank->name, gs_base, bank->gs_base);
    sem_post(&held);
    wait_semaphore(&go);
  }
  return NULL;
}

static unsigned threads;

static void set_up(void) {
  sem_init(&held, 0, 0);
  sem_init(&go, 0, 0);
  bool avx = __builtin_cpu_supports("avx"), avx512 = __builtin_cpu_supports("avx512f");
  for (unsigned i = 0; i < COUNT(banks); i++) {
    banks[i].absent = (banks[i].size == 512 && !avx) || (banks[i].size == 2112 && !avx512);
    if (banks[i].absent) continue;
    start_thread(holder_thread, &banks[i]);
    threads++;
  }
}

static void verify(void) {
  __atomic_store_n(&hold, 0, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, &hold, 1 /* FUTEX_WAKE */, INT_MAX, NULL, NULL, 0);
  for (unsigned i = 0; i < threads; i++) wait_semaphore(&held);
  __atomic_store_n(&hold, 1, __ATOMIC_SEQ_CST);
  for (unsigned i = 0; i < threads; i++) sem_post(&go);
}

static void after_restore(void) {
  sleep_ms(5);
  verify();
}
