#include "../../base/base.h"

#define CALL_SIZE 7 /* mov $imm32, %eax; syscall */
#define ENTRY_SIZE 64

extern HIDDEN const char arch_patch_entries[];
extern HIDDEN uint64_t arch_patch_returns[ARCH_PATCH_SITES];
extern HIDDEN uint64_t arch_patch_numbers[ARCH_PATCH_SITES];

uint64_t arch_find_call(uint64_t start, uint64_t end, long number) {
  uint8_t wanted[CALL_SIZE] = {0xb8, 0, 0, 0, 0, 0x0f, 0x05};
  const uint32_t value = (uint32_t)number;
  copy_bytes(wanted + 1, &value, sizeof value);
  for (const uint8_t *at = (const uint8_t *)start; (uint64_t)at + CALL_SIZE <= end; at++)
    if (at[0] == 0xb8 && compare_bytes(at, wanted, CALL_SIZE) == 0) return (uint64_t)at;
  return 0;
}

bool arch_in_call(const struct ucontext *context, uint64_t site) { return context->uc_mcontext.rip > site && context->uc_mcontext.rip < site + CALL_SIZE; }

bool arch_patch_call(uint64_t site, size_t index, long number) {
  uint64_t entry = (uint64_t)arch_patch_entries + index * ENTRY_SIZE;
  int64_t distance = (int64_t)(entry - (site + 5));
  if (distance != (int32_t)distance) return false;
  int32_t jump = (int32_t)distance;
  uint8_t code[CALL_SIZE] = {0xe9, 0, 0, 0, 0, 0x66, 0x90};
  copy_bytes(code + 1, &jump, sizeof jump);
  arch_patch_numbers[index] = (uint64_t)number;
  arch_patch_returns[index] = site + CALL_SIZE;
  copy_bytes((void *)site, code, sizeof code);
  return true;
}
