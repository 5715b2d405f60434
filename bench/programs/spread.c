/*
 * spread BYTES STRETCH EVERY: reserves BYTES of memory and fills the first STRETCH bytes of each EVERY bytes, with content of which LZ4 leaves
 * about half. Prints "ready ADDRESS" and sleeps.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "noise.h"

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const uint64_t size = strtoull(argv[1], NULL, 10), stretch = strtoull(argv[2], NULL, 10), every = strtoull(argv[3], NULL, 10);
  if (every == 0 || stretch > every || stretch % PAGE != 0 || size % every != 0) return 2;
  char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  madvise(memory, size, MADV_NOHUGEPAGE); /* a huge page would fill what is to stay empty */
  for (uint64_t start = 0; start < size; start += every)
    for (uint64_t at = start; at < start + stretch; at += PAGE) {
      uint64_t *page = (uint64_t *)(memory + at);
      fill_page(page, at / PAGE);
      for (size_t i = 0; i < WORDS / 2; i++) page[i] = at;
    }
  dprintf(1, "ready %p\n", (void *)memory);
  pause();
}
