/* Bytes that no page shares with another and no compressor shortens, computed from the page's number. */
#include <stddef.h>
#include <stdint.h>

enum { PAGE = 4096, WORDS = PAGE / sizeof(uint64_t) };

static inline void fill_page(uint64_t *page, uint64_t number) {
  uint64_t value = (number + 1) * 0x9e3779b97f4a7c15u;
  for (size_t i = 0; i < WORDS; i++) {
    value ^= value << 13;
    value ^= value >> 7;
    value ^= value << 17;
    page[i] = value;
  }
}
