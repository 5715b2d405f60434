#include "lz4.h"

#include <stdint.h>

/*
 * A block is a row of sequences: a token (literal count in the high four bits, match length less 4 in the low ones; 15 means that bytes
 * follow, each added, up to the first that is not 255), the literals, two bytes of offset, the match. The last sequence has no match.
 * Decoders may rely on the end of a block: the last 5 bytes are literals, and no match starts within the last 12.
 */
#define SHORTEST_MATCH 4
#define LONGEST_OFFSET 65535
#define LAST_LITERALS 5
#define LAST_MATCH_START 12
#define LONGEST_SOURCE 0x7e000000ul

static inline uint16_t load_16(const uint8_t *from) {
  uint16_t value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

static inline uint32_t load_32(const uint8_t *from) {
  uint32_t value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

static inline uint64_t load_64(const uint8_t *from) {
  uint64_t value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

static inline void copy_8(uint8_t *to, const uint8_t *from) { __builtin_memcpy(to, from, 8); }
static inline void copy_16(uint8_t *to, const uint8_t *from) { __builtin_memcpy(to, from, 16); }

/* ---- compression ---- */

size_t lz4_bound(size_t size) { return size + size / 255 + 16; }

/* Bytes that follow the token for a count. */
static inline size_t extra_bytes(size_t count) { return count < 15 ? 0 : (count - 15) / 255 + 1; }

static inline uint8_t *put_extra(uint8_t *to, size_t count) {
  for (count -= 15; count >= 255; count -= 255) *to++ = 255;
  *to++ = (uint8_t)count;
  return to;
}

/* Copies all of the literals and up to 15 bytes more where both sides have them, else up to 7, which they always have before a match. */
static inline void copy_literals(uint8_t *to, const uint8_t *to_end, const uint8_t *from, const uint8_t *from_end, size_t count) {
  uint8_t *const stop = to + count;
  if ((size_t)(to_end - to) >= count + 16 && (size_t)(from_end - from) >= count + 16) {
    do copy_16(to, from), to += 16, from += 16;
    while (to < stop);
  } else {
    for (; to < stop; to += 8, from += 8) copy_8(to, from);
  }
}

/* What is being compressed, and how far it is. */
struct encoder {
  const uint8_t *literals; /* not yet written */
  const uint8_t *end;      /* of the source */
  uint8_t *to;
  uint8_t *to_end;
};

/* Writes a sequence whose literals end at `at`; false when it and what must follow do not fit. */
static inline __attribute__((always_inline)) bool put_sequence(struct encoder *encoder, const uint8_t *at, size_t offset, size_t length) {
  const size_t literals = (size_t)(at - encoder->literals), coded = length - SHORTEST_MATCH;
  uint8_t *to = encoder->to;
  if ((size_t)(encoder->to_end - to) < 1 + extra_bytes(literals) + literals + 2 + extra_bytes(coded) + 1 + LAST_LITERALS) return false;
  uint8_t *const token = to++;
  if (literals >= 15) to = put_extra(to, literals);
  copy_literals(to, encoder->to_end, encoder->literals, encoder->end, literals);
  to += literals;
  *to++ = (uint8_t)offset;
  *to++ = (uint8_t)(offset >> 8);
  *token = (uint8_t)((literals < 15 ? literals : 15) << 4 | (coded < 15 ? coded : 15));
  if (coded >= 15) to = put_extra(to, coded);
  encoder->to = to;
  encoder->literals = at + length;
  return true;
}

static bool put_last_literals(struct encoder *encoder) {
  const size_t literals = (size_t)(encoder->end - encoder->literals);
  uint8_t *to = encoder->to;
  if ((size_t)(encoder->to_end - to) < 1 + extra_bytes(literals) + literals) return false;
  *to++ = (uint8_t)((literals < 15 ? literals : 15) << 4);
  if (literals >= 15) to = put_extra(to, literals);
  __builtin_memcpy(to, encoder->literals, literals);
  encoder->to = to + literals;
  return true;
}

/* How many bytes from `a` on are the same as those from `b` on; `a` goes up to `a_end`. */
static inline size_t common_length(const uint8_t *a, const uint8_t *b, const uint8_t *a_end) {
  const uint8_t *const start = a;
  for (; a_end - a >= 8; a += 8, b += 8) {
    const uint64_t difference = load_64(a) ^ load_64(b);
    if (difference != 0) return (size_t)(a - start) + (size_t)__builtin_ctzll(difference) / 8;
  }
  while (a < a_end && *a == *b) a++, b++;
  return (size_t)(a - start);
}

#define FAST_BITS 13
static inline uint32_t fast_hash(uint64_t bytes) { return (uint32_t)((bytes << 24) * 889523592379u >> (64 - FAST_BITS)); }

/* The last place of each hash of five bytes is tried; where nothing is found for long, the steps grow. */
static bool compress_fast(struct encoder *encoder, const uint8_t *source, uint32_t *table) {
  const uint8_t *const last_start = encoder->end - LAST_MATCH_START, *const match_end = encoder->end - LAST_LITERALS;
  const uint8_t *at = source + 1;
  __builtin_memset(table, 0, sizeof *table << FAST_BITS);
  for (;;) {
    const uint8_t *match;
    for (uint32_t tries = 1u << 6;; tries++) {
      if (at > last_start) return true;
      const uint32_t hash = fast_hash(load_64(at));
      match = source + table[hash];
      table[hash] = (uint32_t)(at - source);
      if (load_32(match) == load_32(at) && at - match <= LONGEST_OFFSET) break;
      at += tries >> 6;
    }
    while (at > encoder->literals && match > source && at[-1] == match[-1]) at--, match--;
    for (;;) {
      const size_t length = SHORTEST_MATCH + common_length(at + SHORTEST_MATCH, match + SHORTEST_MATCH, match_end);
      if (!put_sequence(encoder, at, (size_t)(at - match), length)) return false;
      at += length;
      if (at > last_start) return true;
      table[fast_hash(load_64(at - 2))] = (uint32_t)(at - 2 - source);
      const uint32_t hash = fast_hash(load_64(at));
      match = source + table[hash];
      table[hash] = (uint32_t)(at - source);
      if (load_32(match) != load_32(at) || at - match > LONGEST_OFFSET) break;
    }
    at++;
  }
}

#define CHAIN_BITS 15
/* The last place of each hash of four bytes (plus 1; 0 for none), and for each place how far back the one before it is (0 for none). */
struct chains {
  uint32_t head[1u << CHAIN_BITS];
  uint16_t back[LONGEST_OFFSET + 1];
};
_Static_assert(sizeof(struct chains) <= LZ4_WORKSPACE && (sizeof(uint32_t) << FAST_BITS) <= LZ4_WORKSPACE, "workspace");

struct search {
  struct chains *chains;
  const uint8_t *source;
  const uint8_t *next; /* the first place that is not in the chains yet */
  const uint8_t *match_end;
  uint32_t depth;
};

static inline uint32_t chain_hash(const uint8_t *at) { return (uint32_t)((load_64(at) << 24) * 889523592379u >> (64 - CHAIN_BITS)); }

static void add_places(struct search *search, const uint8_t *until) {
  for (; search->next < until; search->next++) {
    const uint32_t place = (uint32_t)(search->next - search->source);
    uint32_t *head = &search->chains->head[chain_hash(search->next)];
    const uint32_t distance = *head == 0 ? 0 : place + 1 - *head;
    search->chains->back[place & LONGEST_OFFSET] = distance > LONGEST_OFFSET ? 0 : (uint16_t)distance;
    *head = place + 1;
  }
}

struct found {
  const uint8_t *start;
  const uint8_t *match;
  size_t length;
};

/* The longest match that covers `at`, begins at `lowest` or later, and is longer than *best, among the last `depth` places of the same hash. */
static bool find_longer(struct search *search, const uint8_t *at, const uint8_t *lowest, struct found *best) {
  bool better = false;
  add_places(search, at);
  const uint32_t head = search->chains->head[chain_hash(at)];
  if (head == 0) return false;
  const uint8_t *match = search->source + head - 1;
  for (uint32_t tries = search->depth; tries > 0 && at - match <= LONGEST_OFFSET; tries--) {
    if (load_32(match) == load_32(at)) {
      const uint8_t *start = at, *from = match;
      size_t length = SHORTEST_MATCH + common_length(at + SHORTEST_MATCH, match + SHORTEST_MATCH, search->match_end);
      while (start > lowest && from > search->source && start[-1] == from[-1]) start--, from--, length++;
      if (length > best->length) *best = (struct found){start, from, length}, better = true;
    }
    const uint16_t back = search->chains->back[(match - search->source) & LONGEST_OFFSET];
    if (back == 0) break;
    match -= back;
  }
  return better;
}

/* A match gives way to a longer one that begins within it, and then ends where that begins. */
static bool compress_chains(struct encoder *encoder, const uint8_t *source, int level, struct chains *chains) {
  const uint8_t *const last_start = encoder->end - LAST_MATCH_START;
  struct search search = {chains, source, source, encoder->end - LAST_LITERALS, 1u << (level - 1)};
  __builtin_memset(chains->head, 0, sizeof chains->head);
  for (const uint8_t *at = source; at <= last_start;) {
    struct found match = {at, at, SHORTEST_MATCH - 1};
    if (!find_longer(&search, at, encoder->literals, &match)) {
      at++;
      continue;
    }
    for (;;) {
      struct found later = match;
      at = match.start + match.length - (match.length > SHORTEST_MATCH ? 3 : 2);
      if (at > last_start || !find_longer(&search, at, match.start, &later)) break;
      const size_t left = (size_t)(later.start - match.start);
      if (left >= SHORTEST_MATCH && !put_sequence(encoder, match.start, (size_t)(match.start - match.match), left)) return false;
      match = later;
    }
    if (!put_sequence(encoder, match.start, (size_t)(match.start - match.match), match.length)) return false;
    at = encoder->literals;
  }
  return true;
}

size_t lz4_compress(const void *source, size_t size, void *target, size_t capacity, int level, void *workspace) {
  if (size > LONGEST_SOURCE) return 0;
  struct encoder encoder = {source, (const uint8_t *)source + size, target, (uint8_t *)target + capacity};
  bool fits = true;
  if (size > LAST_MATCH_START)
    fits = level <= LZ4_LEVEL_FAST ? compress_fast(&encoder, source, workspace)
                                   : compress_chains(&encoder, source, level < LZ4_LEVEL_BEST ? level : LZ4_LEVEL_BEST, workspace);
  if (!fits || !put_last_literals(&encoder)) return 0;
  return (size_t)(encoder.to - (uint8_t *)target);
}

/* ---- decompression ---- */

/* Adds the bytes that follow a count of 15; false at the end of the source. */
static inline bool take_extra(const uint8_t **from, const uint8_t *from_end, size_t *count) {
  uint8_t byte;
  do {
    if (*from == from_end) return false;
    byte = *(*from)++;
    *count += byte;
  } while (byte == 255);
  return true;
}

/* Copies without a byte more than `count`; the areas do not overlap. */
static inline void copy_exactly(uint8_t *to, const uint8_t *from, size_t count) {
  if (count >= 16) {
    const size_t tail = count - 16;
    for (size_t i = 0; i < tail; i += 16) copy_16(to + i, from + i);
    copy_16(to + tail, from + tail);
  } else if (count >= 8) {
    copy_8(to, from);
    copy_8(to + count - 8, from + count - 8);
  } else {
    for (size_t i = 0; i < count; i++) to[i] = from[i];
  }
}

/*
 * Repeats what stands `offset` bytes before `to`, and writes up to 31 bytes more where there is room for them. A run with a period of 1, 2, 4 or
 * 8 bytes is 8 bytes again and again; another short one goes on with a multiple of it, so that 16 bytes can be copied at a time.
 */
static inline __attribute__((always_inline)) void copy_match(uint8_t *to, const uint8_t *to_end, size_t offset, size_t length) {
  static const uint64_t all[9] = {[1] = 0x0101010101010101u, [2] = 0x0001000100010001u, [4] = 0x0000000100000001u, [8] = 1};
  static const uint8_t multiple[16] = {[3] = 18, [5] = 20, [6] = 18, [7] = 21, [9] = 18, [10] = 20, [11] = 22, [12] = 24, [13] = 26, [14] = 28, [15] = 30};
  uint8_t *const stop = to + length;
  if ((size_t)(to_end - to) < length + 32) {
    for (; to < stop; to++) *to = *(to - offset);
  } else if (offset >= 32) {
    for (; to < stop; to += 32) copy_16(to, to - offset), copy_16(to + 16, to + 16 - offset);
  } else if ((offset & (offset - 1)) == 0 && offset <= 8) {
    const uint64_t run = (load_64(to - offset) & UINT64_MAX >> (64 - 8 * offset)) * all[offset];
    for (; to < stop; to += 16) __builtin_memcpy(to, &run, 8), __builtin_memcpy(to + 8, &run, 8);
  } else {
    if (offset < 16) {
      for (int i = 0; i < 16; i++) to[i] = *(to + i - offset);
      to += 16;
      offset = multiple[offset];
    }
    for (; to < stop; to += 16) copy_16(to, to - offset);
  }
}

/* Room that a sequence of up to 14 literals and a match of up to 18 bytes needs, with what is copied beyond them. */
#define FAST_SOURCE 20
#define FAST_TARGET 48

bool lz4_decompress(const void *source, size_t stored, void *target, size_t size) {
  const uint8_t *from = source, *const from_end = from + stored;
  uint8_t *to = target, *const to_end = to + size;
  while (from < from_end) {
    const uint8_t token = *from++;
    size_t literals = token >> 4, length = token & 15, offset;
    if (literals < 15 && from_end - from >= FAST_SOURCE && to_end - to >= FAST_TARGET) {
      copy_16(to, from);
      to += literals;
      offset = load_16(from + literals);
      from += literals + 2;
      if (length < 15 && offset >= 8 && offset <= (size_t)(to - (uint8_t *)target)) {
        copy_8(to, to - offset);
        copy_8(to + 8, to + 8 - offset);
        __builtin_memcpy(to + 16, to + 16 - offset, 2);
        to += length + SHORTEST_MATCH;
        continue;
      }
    } else {
      if (literals == 15 && !take_extra(&from, from_end, &literals)) return false;
      if (literals > (size_t)(from_end - from) || literals > (size_t)(to_end - to)) return false;
      copy_exactly(to, from, literals);
      from += literals, to += literals;
      if (from == from_end) return to == to_end;
      if (from_end - from < 2) return false;
      offset = load_16(from);
      from += 2;
    }
    if (offset == 0 || offset > (size_t)(to - (uint8_t *)target)) return false;
    if (length == 15 && !take_extra(&from, from_end, &length)) return false;
    length += SHORTEST_MATCH;
    if (length > (size_t)(to_end - to)) return false;
    copy_match(to, to_end, offset, length);
    to += length;
  }
  return false;
}
