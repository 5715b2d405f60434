/* Shared anonymous memory: mapped twice, shared with a forked child after the restore, never private. */
#include "check.h"

#define SIZE (8 * PAGE)

static uint64_t *first, *second;

static void set_up(void) {
  first = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  fill(first, SIZE, 1);
  second = mremap(first, 0, SIZE, MREMAP_MAYMOVE); /* of shared memory this makes a second mapping */
  CHECK(second != MAP_FAILED && second != first);
  SYS(mprotect(second, PAGE, PROT_READ));
}

static void verify(void) {
  CHECK(is_filled((char *)first + PAGE, PAGE, 1) == false);
  for (size_t i = PAGE / 8; i < SIZE / 8 - 1; i++) CHECK(first[i] == pattern(1, i) && second[i] == first[i], "word %zu", i);
  size_t last = SIZE / 8 - 1;
  first[last]++;
  CHECK(second[last] == first[last], "a write to one mapping does not show in the other");
  second[last] += 5;
  CHECK(second[last] == first[last], "a write to one mapping does not show in the other");
  first[0]++;
  CHECK(second[0] == first[0]);
}

static void after_restore(void) {
  verify();
  uint64_t before = first[0];
  IN_CHILD(first[0] += 1000; _exit(second[0] == before + 1000 ? 0 : 1));
  CHECK(first[0] == before + 1000, "shared anonymous memory is not shared with a child");
}
