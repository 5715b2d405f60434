/*
 * Private anonymous memory: content, protection (PROT_NONE with content, read-only, executable), and what mremap, munmap and mprotect
 * do to restored areas.
 */
#include "check.h"
#include <setjmp.h>

#define SIZE (16 * PAGE)

static unsigned char *writable, *none, *read_only, *code, *moving, *holes;
static sigjmp_buf escape;

static void on_fault(int number) {
  (void)number;
  siglongjmp(escape, 1);
}

static bool faults(unsigned char *at, bool write) {
  if (sigsetjmp(escape, 1)) return true;
  if (write)
    *(volatile unsigned char *)at = 1;
  else
    (void)*(volatile unsigned char *)at;
  return false;
}

static void set_up(void) {
  struct sigaction action = {.sa_handler = on_fault};
  SYS(sigaction(SIGSEGV, &action, NULL));
  writable = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  none = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  read_only = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  code = map_memory(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  moving = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  holes = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(writable, SIZE, 1);
  fill(none, SIZE, 2);
  fill(read_only, SIZE, 3);
  fill(moving, SIZE, 4);
  fill(holes, SIZE, 5);
  memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov $42, %eax; ret */
  SYS(mprotect(none, SIZE, PROT_NONE));
  SYS(mprotect(read_only, SIZE, PROT_READ));
  SYS(mprotect(code, PAGE, PROT_READ | PROT_EXEC));
  SYS(munmap(holes + 3 * PAGE, PAGE));
  SYS(mprotect(holes + 7 * PAGE, PAGE, PROT_READ));
}

static void verify(void) {
  CHECK(is_filled(writable, SIZE, 1));
  CHECK(faults(none, false) && faults(none + SIZE - 1, false));
  CHECK(is_filled(read_only, SIZE, 3) && faults(read_only + PAGE, true));
  CHECK(((int (*)(void))code)() == 42 && faults(code, true));
  CHECK(is_filled(moving, SIZE, 4));
  CHECK(is_filled(holes, 3 * PAGE, 5) && faults(holes + 3 * PAGE, false) && faults(holes + 7 * PAGE, true));
  CHECK(((uint64_t *)holes)[4 * PAGE / 8] == pattern(5, 4 * PAGE / 8));
}

static void after_restore(void) {
  verify();
  SYS(mprotect(none, SIZE, PROT_READ | PROT_WRITE));
  CHECK(is_filled(none, SIZE, 2), "content behind PROT_NONE");
  fill(none, SIZE, 2);
  SYS(mprotect(none, SIZE, PROT_NONE));

  unsigned char *moved = mremap(moving, SIZE, 4 * SIZE, MREMAP_MAYMOVE);
  CHECK(moved != MAP_FAILED && is_filled(moved, SIZE, 4) && is_zero(moved + SIZE, 3 * SIZE), "mremap, errno %d", errno);
  memset(moved + 3 * SIZE, 1, SIZE);
  moving = mremap(moved, 4 * SIZE, SIZE, 0);
  CHECK(moving == moved && is_filled(moving, SIZE, 4));

  unsigned char *again = mmap(holes, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  CHECK(again == holes && is_zero(holes, SIZE), "new mapping over a restored area");
  fill(holes, SIZE, 5);
  SYS(munmap(holes + 3 * PAGE, PAGE));
  SYS(mprotect(holes + 7 * PAGE, PAGE, PROT_READ));

  SYS(mprotect(read_only, SIZE, PROT_READ | PROT_WRITE));
  memset(read_only, 0, SIZE);
  fill(read_only, SIZE, 3);
  SYS(mprotect(read_only, SIZE, PROT_READ));
}
