/*
 * A system call instruction that is jumped to from elsewhere cannot be redirected: memory of such a program is not mapped from the image, and what
 * it gives back reads as zeros.
 */
#include "check.h"

#define SIZE (1024 * PAGE)

static unsigned char *area;

static __attribute__((noinline)) long release(void *address) {
  long result;
  __asm__ volatile("mov $28, %%eax; test %%rdi, %%rdi; jnz 1f; mov $39, %%eax; nop; 1: syscall" : "=a"(result) : "D"(address), "S"(SIZE), "d"(MADV_DONTNEED) : "rcx", "r11", "memory");
  return result;
}

static void set_up(void) {
  area = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(area, SIZE, 1);
}

static void verify(void) { CHECK(is_filled(area, SIZE, 1)); }

static void after_restore(void) {
  verify();
  CHECK(release(area) == 0);
  CHECK(is_zero(area, SIZE), "content came back");
  fill(area, SIZE, 1);
}
