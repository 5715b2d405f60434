/*
 * memory BYTES [records [NEEDED]]: fills that much memory with bytes that do not compress, or with records as programs keep them, which LZ4 makes
 * about half as large; then answers each byte on standard input, and its end, with "answer NUMBER ok", having compared a page, or blocks of
 * NEEDED bytes in all, others each time, with what was written there. What it holds and how often it answered is its state.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "noise.h"

/* What an object of a program holds: its type, a key, pointers to others, small numbers, and words. */
struct record {
  uint64_t type, key, next, owner;
  uint32_t length, flags;
  char text[24];
};

static void fill_records(uint64_t *page, uint64_t number) {
  static const char words[16][8] = {"order   ", "customer", "address ", "invoice ", "berlin  ", "pending ", "shipped ", "standard",
                                    "express ", "monthly ", "account ", "premium ", "street  ", "contact ", "default ", "delivery"};
  uint64_t noise[WORDS];
  struct record *record = (struct record *)page;
  fill_page(noise, number);
  for (size_t i = 0; i < PAGE / sizeof *record; i++, record++) {
    const uint64_t a = noise[2 * i], b = noise[2 * i + 1];
    const uint64_t base = 0x7f3a00000000u;
    *record = (struct record){base + (a & 7) * 0x1a40, a >> 32, base + (b >> 20 & 0xffffff0), base + (number & 0xff000) + (b & 0xff0), b >> 8 & 63, 1u << (a & 3), ""};
    for (int word = 0; word < 3; word++) memcpy(record->text + 8 * word, words[b >> (50 + 4 * word) & 15], 8);
  }
}

enum { BLOCK = 64 }; /* pages */

int main(int argc, char **argv) {
  const uint64_t size = argc >= 2 ? strtoull(argv[1], NULL, 10) : 0, pages = size / PAGE;
  const uint64_t needed = argc == 4 ? strtoull(argv[3], NULL, 10) / PAGE / BLOCK : 0;
  void (*const fill)(uint64_t *, uint64_t) = argc >= 3 && strcmp(argv[2], "records") == 0 ? fill_records : fill_page;
  if (pages == 0 || argc > 4 || needed * BLOCK > pages) return 2;
  uint64_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  for (uint64_t page = 0; page < pages; page++) fill(memory + page * WORDS, page);
  dprintf(1, "ready\n");
  char request;
  bool more = true;
  for (uint64_t answers = 1; more; answers++) {
    more = read(0, &request, 1) == 1;
    bool same = true;
    for (uint64_t i = 0; i < (needed == 0 ? 1 : needed * BLOCK); i++) {
      uint64_t expected[WORDS], page = (answers * 7919 + (needed == 0 ? 0 : i / BLOCK * (pages / needed) + i % BLOCK)) % pages;
      fill(expected, page);
      same &= memcmp(expected, memory + page * WORDS, PAGE) == 0;
    }
    dprintf(1, "answer %lu %s\n", answers, same ? "ok" : "wrong");
  }
}
