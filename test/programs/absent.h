/*
 * Pages that nobody has touched since the capture: while memory is loaded on demand, whatever uses one of them meets absent memory. A program
 * defines PAGES before it includes this; the upper half is left for its own purposes.
 */
#ifndef ABSENT_H
#define ABSENT_H
#include "check.h"

static unsigned char *region;
static size_t next_page;

/* New pages, each with a content of its own. */
static inline void take_pages(void) {
  if (region) SYS(munmap(region, PAGES * PAGE));
  region = map_memory(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(region, PAGES * PAGE, 7);
  next_page = 0;
}

static inline unsigned char *page_at(size_t i) { return region + i * PAGE; }
static inline void *fresh(size_t pages) {
  void *page = page_at(next_page);
  next_page += pages;
  CHECK(next_page < PAGES / 2, "the program needs more pages");
  return page;
}

/* After a page's use the pattern is at this page still, from byte `from` on. */
static inline void check_rest(const void *page, size_t from) {
  size_t index = (size_t)((const unsigned char *)page - region) / PAGE;
  for (size_t i = (from + 7) / 8; i < PAGE / 8; i++) CHECK(((const uint64_t *)page)[i] == pattern(7, index * PAGE / 8 + i), "page %zu, word %zu", index, i);
}

#endif
