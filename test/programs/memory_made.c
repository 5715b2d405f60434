/*
 * Code that the program has made by itself, with what only looks like a call of madvise or mremap, and a call of another kind: neither changed, nor a reason
 * not to map memory of this program from the image.
 */
#include "made.h"

#define SIZE (1024 * PAGE)

static unsigned char *area;
static const unsigned char code[] = {
    0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3,                   /* mov $39 (getpid), %eax; syscall; ret */
    0xb8, 28, 0, 0, 0, 0xc3, 0x0f, 0x05, 0xc3,             /* what lies between returns */
    0xb8, 28, 0, 0, 0, 0x31, 0xc0, 0x0f, 0x05, 0xc3,       /* xor %eax, %eax: another number */
    0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3,                    /* mov %rdi, %rax: any number */
    0xb8, 28, 0, 0, 0, 0x0f, 0x1f, 0x0f, 0x05, 0, 0, 0xc3, /* the last of these are in another instruction */
};
static unsigned char *made;

static void set_up(void) {
  made = make_code(code, sizeof code);
  area = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(area, SIZE, 1);
}

static void verify(void) {
  CHECK(is_filled(area, SIZE, 1));
  CHECK(!memcmp(made, code, sizeof code), "the code was changed");
  CHECK(((long (*)(void))made)() == getpid());
}

static void after_restore(void) { verify(); }
