/* The heap's end: grows and shrinks after the restore, keeps its content, through brk itself and through malloc. */
#include "check.h"

static unsigned char *base;
static size_t size = 64 * PAGE;
static void *blocks[100];

static unsigned char *set_break(void *to) { return (unsigned char *)syscall(SYS_brk, to); }

static void set_up(void) {
  for (int i = 0; i < 100; i++) {
    blocks[i] = malloc(1000);
    fill(blocks[i], 1000, i);
  }
  base = set_break(NULL);
  base = (unsigned char *)(((uintptr_t)base + PAGE - 1) & ~(PAGE - 1));
  CHECK(set_break(base + size) == base + size);
  fill(base, size, 1);
}

static void verify(void) {
  CHECK(set_break(NULL) == base + size, "break %p, should be %p", (void *)set_break(NULL), (void *)(base + size));
  CHECK(is_filled(base, size, 1));
  for (int i = 0; i < 100; i++) CHECK(is_filled(blocks[i], 1000, i));
}

static void after_restore(void) {
  verify();
  CHECK(set_break(base + 2 * size) == base + 2 * size, "brk cannot grow");
  CHECK(is_zero(base + size, size));
  memset(base + size, 1, size);
  CHECK(set_break(base + size / 2) == base + size / 2, "brk cannot shrink");
  CHECK(set_break(base + size) == base + size);
  CHECK(is_zero(base + size / 2, size / 2), "memory that brk gave back came again with content");
  fill(base, size, 1);
  char text[65536];
  read_file("/proc/self/maps", text, sizeof text);
  CHECK(strstr(text, "[heap]"), "no [heap] in /proc/self/maps");
  for (int i = 0; i < 100; i++) free(blocks[i]);
  for (int i = 0; i < 100; i++) {
    blocks[i] = malloc(1000);
    fill(blocks[i], 1000, i);
  }
}
