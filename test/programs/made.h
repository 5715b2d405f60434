/* Code that a program makes while it runs. */
#ifndef MADE_H
#define MADE_H

#include "check.h"

/* The code, in an executable page among bytes of all kinds, as a just-in-time compiler leaves them. */
static inline void *make_code(const void *code, size_t size) {
  unsigned char *page = map_memory(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(page, PAGE, 5);
  memcpy(page + PAGE / 2, code, size);
  CHECK(mprotect(page, PAGE, PROT_READ | PROT_EXEC) == 0);
  return page + PAGE / 2;
}

#endif
