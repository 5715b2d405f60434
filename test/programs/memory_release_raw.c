/*
 * Memory that is given back, or grown, by system calls that do not go through the C library's functions reads as zeros too: instructions of
 * the program's own in the forms that compilers give them, and syscall(3).
 */
#include "check.h"

#define SIZE (64 * PAGE)

static void *volatile place; /* loaded relative to the instruction pointer */

static __attribute__((noinline)) long next_to_each_other(void *address) {
  long result;
  __asm__ volatile("mov $28, %%eax; syscall" : "=a"(result) : "D"(address), "S"(SIZE), "d"(MADV_DONTNEED) : "rcx", "r11", "memory");
  return result;
}

static __attribute__((noinline)) long apart(void *address) {
  long result;
  __asm__ volatile("mov $28, %%rax; mov %1, %%rdi; lea (%2), %%rsi; mov %3, %%edx; syscall"
                   : "=&a"(result)
                   : "r"(address), "r"(SIZE), "r"(MADV_DONTNEED)
                   : "rdi", "rsi", "rdx", "rcx", "r11", "memory");
  return result;
}

static __attribute__((noinline)) long of_any_number(long number, long a, long b, long c, long d, long e) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return result;
}

static __attribute__((noinline)) long from_a_variable(void *address) {
  long result;
  place = address;
  __asm__ volatile("mov $28, %%eax; mov $4, %%edx; mov $0x40000, %%rsi; mov %1, %%rdi; syscall" : "=a"(result) : "m"(place) : "rdi", "rsi", "rdx", "rcx", "r11", "memory");
  return result;
}
_Static_assert(SIZE == 0x40000 && MADV_DONTNEED == 4, "in the instructions above");

/* Like the kernel, what stands in for it changes rax, rcx and r11 only: not the other registers, the flags, or what lies below the stack pointer. */
static __attribute__((noinline)) long with_all_kept(void *address) {
  long result, unchanged = 0;
  __asm__ volatile(
      "movabs $0x1122334455667788, %%r8; mov %%r8, -8(%%rsp); mov %%r8, -128(%%rsp); lea 1(%%r8), %%r9; lea 2(%%r8), %%r10; lea 3(%%r8), %%rbx; lea 4(%%r8), %%r12;"
      "xor %%eax, %%eax; cmp $1, %%eax;" /* sets the carry flag */
      "mov $28, %%eax; syscall;"
      "jnc 1f; cmp %%r8, -8(%%rsp); jne 1f; cmp %%r8, -128(%%rsp); jne 1f; lea 1(%%r8), %%rcx; cmp %%rcx, %%r9; jne 1f; inc %%rcx; cmp %%rcx, %%r10; jne 1f;"
      "inc %%rcx; cmp %%rcx, %%rbx; jne 1f; inc %%rcx; cmp %%rcx, %%r12; jne 1f; mov $1, %1; 1:"
      : "=&a"(result), "+&r"(unchanged)
      : "D"(address), "S"(SIZE), "d"(MADV_DONTNEED)
      : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "cc", "memory");
  CHECK(unchanged == 1, "a register, a flag or the red zone has changed");
  return result;
}

static long by_number(void *address) { return of_any_number(SYS_madvise, (long)address, SIZE, MADV_DONTNEED, 0, 0); }
static long by_library(void *address) { return syscall(SYS_madvise, address, SIZE, MADV_DONTNEED); }

static long (*const ways[])(void *) = {next_to_each_other, apart, by_number, from_a_variable, with_all_kept, by_library};
static unsigned char *area[COUNT(ways)], *grown;
static size_t grown_size = SIZE;
static _Atomic int bell;
static _Atomic long rung;

static void arm(void) {
  for (size_t i = 0; i < COUNT(ways); i++) fill(area[i], SIZE, i);
  fill(grown, grown_size, 99);
}

/* Waits in syscall(3), whose code is changed while it does. */
static void *wait_for_bell(void *unused) {
  for (int heard = 0;;) {
    while (bell == heard) syscall(SYS_futex, &bell, 0, heard, NULL);
    heard = bell;
    rung++;
  }
  return unused;
}

static void set_up(void) {
  for (size_t i = 0; i < COUNT(ways); i++) area[i] = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  grown = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  start_thread(wait_for_bell, NULL);
  arm();
}

static void verify(void) {
  for (size_t i = 0; i < COUNT(ways); i++) CHECK(is_filled(area[i], SIZE, i));
  CHECK(is_filled(grown, grown_size, 99));
  const long before = rung;
  bell++;
  CHECK(of_any_number(SYS_futex, (long)&bell, 1, 1, 0, 0) >= 0);
  WAIT_UNTIL(rung > before);
}

static void after_restore(void) {
  verify();
  for (size_t i = 0; i < COUNT(ways); i++)
    for (int round = 0; round < 2; round++) {
      CHECK(ways[i](area[i]) == 0, "way %zu", i);
      CHECK(is_zero(area[i], SIZE), "way %zu brought content back", i);
      memset(area[i], 7, SIZE);
    }
  CHECK(of_any_number(SYS_madvise, 1, SIZE, MADV_DONTNEED, 0, 0) == -EINVAL);
  unsigned char *larger = (unsigned char *)of_any_number(SYS_mremap, (long)grown, (long)grown_size, (long)grown_size + SIZE, MREMAP_MAYMOVE, 0);
  CHECK((long)larger > 0 && is_filled(larger, grown_size, 99));
  CHECK(is_zero(larger + grown_size, SIZE), "what mremap added is not zero");
  grown = larger;
  grown_size += SIZE;
  arm();
}
