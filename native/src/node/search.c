#define _GNU_SOURCE
#include "search.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define STEP (64u * 1024)
#define PAGE 4096u

int read_all(int fd, uint8_t *bytes, size_t size, uint64_t offset) {
  while (size > 0) {
    ssize_t n = pread(fd, bytes, size, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : ENODATA;
    bytes += n, size -= (size_t)n, offset += (uint64_t)n;
  }
  return 0;
}

static int add(struct found *found, uint32_t value) {
  if (found->count == found->capacity) {
    const size_t capacity = found->capacity == 0 ? 64 : 2 * found->capacity;
    uint32_t *values = realloc(found->values, capacity * sizeof *values);
    if (values == NULL) return ENOMEM;
    found->values = values, found->capacity = capacity;
  }
  found->values[found->count++] = value;
  return 0;
}

/* ---- bytes ---- */

struct pattern {
  const uint8_t *bytes;
  size_t length;
  size_t rare[2]; /* places in it of the bytes that are compared first, ascending */
};

/* How common a byte is in the memory of programs, roughly. */
static int commonness(uint8_t byte) {
  if (byte == 0) return 5;
  if (byte == 0xff || byte == ' ') return 4;
  if (byte == 'e' || byte == 't' || byte == 'a' || byte == 'o' || byte == 'n' || byte == 'i' || byte == 'r' || byte == 's') return 3;
  if (byte >= 'a' && byte <= 'z') return 2;
  return byte < 0x80 ? 1 : 0;
}

static struct pattern pattern_of(const uint8_t *bytes, size_t length) {
  struct pattern pattern = {bytes, length, {0, length - 1}};
  int least[2] = {commonness(bytes[0]), commonness(bytes[length - 1])};
  for (size_t i = 1; i + 1 < length; i++) {
    const int worse = least[0] > least[1] ? 0 : 1, rank = commonness(bytes[i]);
    if (rank < least[worse] && bytes[i] != bytes[pattern.rare[1 - worse]]) least[worse] = rank, pattern.rare[worse] = i;
  }
  if (pattern.rare[0] > pattern.rare[1]) {
    const size_t first = pattern.rare[1];
    pattern.rare[1] = pattern.rare[0], pattern.rare[0] = first;
  }
  return pattern;
}

static int find_plainly(const uint8_t *bytes, size_t from, size_t end, size_t base, const struct pattern *pattern, struct found *ret) {
  const uint8_t *at = bytes + from;
  while ((at = memmem(at, (size_t)(bytes + end - at), pattern->bytes, pattern->length)) != NULL) {
    if (add(ret, (uint32_t)(base + (size_t)(at - bytes))) != 0) return ENOMEM;
    at++;
  }
  return 0;
}

/*
 * Matches in `size` bytes, of which the first is number `base`. Two bytes of the pattern are compared at 16 places at once, and all of it where both are right. Where that is so again
 * and again, and all of it is not, memmem goes on, whose time does not depend on what it meets.
 */
static int find(const uint8_t *bytes, size_t size, size_t base, const struct pattern *pattern, struct found *ret) {
  size_t at = 0;
#ifdef __SSE2__
  const __m128i first = _mm_set1_epi8((char)pattern->bytes[pattern->rare[0]]), second = _mm_set1_epi8((char)pattern->bytes[pattern->rare[1]]);
  size_t patience = 4 * size + 16 * pattern->length;
  for (; size - at >= pattern->length + 31; at += 32) {
    const uint8_t *one = bytes + at + pattern->rare[0], *other = bytes + at + pattern->rare[1];
    const __m128i low = _mm_and_si128(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)one), first), _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)other), second));
    const __m128i high =
        _mm_and_si128(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(one + 16)), first), _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(other + 16)), second));
    uint32_t places = (uint32_t)_mm_movemask_epi8(low) | (uint32_t)_mm_movemask_epi8(high) << 16;
    for (; places != 0; places &= places - 1) {
      const size_t place = at + (size_t)__builtin_ctz(places);
      if (memcmp(bytes + place, pattern->bytes, pattern->length) == 0) {
        if (add(ret, (uint32_t)(base + place)) != 0) return ENOMEM;
      } else if (patience < pattern->length) {
        return find_plainly(bytes, place + 1, size, base, pattern, ret);
      } else {
        patience -= pattern->length;
      }
    }
  }
#endif
  return find_plainly(bytes, at, size, base, pattern, ret);
}

int search_memory(const uint8_t *bytes, size_t size, const uint8_t *pattern, size_t length, struct found *ret) {
  const struct pattern wanted = pattern_of(pattern, length);
  return find(bytes, size, 0, &wanted, ret);
}

int search_file(int input, uint64_t offset, size_t size, const uint8_t *pattern, size_t length, struct found *ret) {
  const struct pattern wanted = pattern_of(pattern, length);
  uint8_t bytes[SEARCH_LONGEST + STEP];
  size_t kept = 0; /* bytes of the step before, in which a match can begin that ends in this one */
  for (size_t done = 0; done < size;) {
    const size_t step = size - done < STEP ? size - done : STEP;
    const int error = read_all(input, bytes + kept, step, offset + done);
    if (error != 0) return error;
    if (find(bytes, kept + step, done - kept, &wanted, ret) != 0) return ENOMEM;
    done += step;
    const size_t keep = kept + step < length - 1 ? kept + step : length - 1;
    memmove(bytes, bytes + kept + step - keep, keep);
    kept = keep;
  }
  return 0;
}

/* ---- pages ---- */

static int fill(int fd, uint8_t *bytes, size_t size, uint64_t start, uint64_t done) {
  if (start != UINT64_MAX) return read_all(fd, bytes, size, start + done);
  memset(bytes, 0, size);
  return 0;
}

int search_differences(int a, int b, const struct compared *stretches, size_t count, struct found *ret) {
  uint8_t one[STEP], other[STEP];
  for (size_t index = 0; index < count; index++) {
    const struct compared *stretch = &stretches[index];
    for (uint64_t done = 0; done < stretch->size; done += STEP) {
      const size_t step = stretch->size - done < STEP ? (size_t)(stretch->size - done) : STEP;
      int error = fill(a, one, step, stretch->offset_a, done);
      if (error == 0) error = fill(b, other, step, stretch->offset_b, done);
      if (error != 0) return error;
      if (memcmp(one, other, step) == 0) continue;
      for (size_t page = 0; page < step; page += PAGE) {
        if (memcmp(one + page, other + page, step - page < PAGE ? step - page : PAGE) == 0) continue;
        if (add(ret, (uint32_t)index) != 0 || add(ret, (uint32_t)(done + page)) != 0) return ENOMEM;
      }
    }
  }
  return 0;
}
