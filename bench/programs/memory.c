/*
 * memory BYTES: fills that much memory, then answers each byte on standard input with "answer NUMBER ok", having compared a page, another
 * each time, with what was written there. What it holds and how often it answered is its state.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "noise.h"

int main(int argc, char **argv) {
  const uint64_t size = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, pages = size / PAGE;
  if (pages == 0) return 2;
  uint64_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  for (uint64_t page = 0; page < pages; page++) fill_page(memory + page * WORDS, page);
  dprintf(1, "ready\n");
  char request;
  for (uint64_t answers = 1; read(0, &request, 1) == 1; answers++) {
    uint64_t expected[WORDS], page = answers * 7919 % pages;
    fill_page(expected, page);
    dprintf(1, "answer %lu %s\n", answers, memcmp(expected, memory + page * WORDS, PAGE) == 0 ? "ok" : "wrong");
  }
}
