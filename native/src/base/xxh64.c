/* XXH64, from the algorithm's description (xxHash fast digest algorithm, doc/xxhash_spec.md of the xxHash project). */
#include "xxh64.h"

#define PRIME_1 0x9e3779b185ebca87u
#define PRIME_2 0xc2b2ae3d27d4eb4fu
#define PRIME_3 0x165667b19e3779f9u
#define PRIME_4 0x85ebca77c2b2ae63u
#define PRIME_5 0x27d4eb2f165667c5u

static inline uint64_t rotate(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

static inline uint64_t word(const uint8_t *at) {
  uint64_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

static inline uint64_t mix(uint64_t lane, uint64_t input) { return rotate(lane + input * PRIME_2, 31) * PRIME_1; }
static inline uint64_t merge(uint64_t hash, uint64_t lane) { return (hash ^ mix(0, lane)) * PRIME_1 + PRIME_4; }

static const uint8_t *stripes(uint64_t lane[4], const uint8_t *at, size_t count) {
  uint64_t a = lane[0], b = lane[1], c = lane[2], d = lane[3];
  for (; count > 0; count--, at += 32) {
    a = mix(a, word(at));
    b = mix(b, word(at + 8));
    c = mix(c, word(at + 16));
    d = mix(d, word(at + 24));
  }
  lane[0] = a, lane[1] = b, lane[2] = c, lane[3] = d;
  return at;
}

void xxh64_begin(struct xxh64_state *state) {
  __builtin_memset(state, 0, sizeof *state);
  state->lane[0] = PRIME_1 + PRIME_2;
  state->lane[1] = PRIME_2;
  state->lane[3] = -PRIME_1;
}

void xxh64_update(struct xxh64_state *state, const void *data, size_t size) {
  const uint8_t *at = data;
  state->total += size;
  if (state->pending_size > 0) {
    size_t take = size < 32 - state->pending_size ? size : 32 - state->pending_size;
    __builtin_memcpy(state->pending + state->pending_size, at, take);
    state->pending_size += (uint32_t)take;
    at += take;
    size -= take;
    if (state->pending_size < 32) return;
    stripes(state->lane, state->pending, 1);
    state->pending_size = 0;
  }
  at = stripes(state->lane, at, size / 32);
  size %= 32;
  __builtin_memcpy(state->pending, at, size);
  state->pending_size = (uint32_t)size;
}

uint64_t xxh64_end(const struct xxh64_state *state) {
  const uint64_t *lane = state->lane;
  uint64_t hash = PRIME_5;
  if (state->total >= 32) {
    hash = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
    for (int i = 0; i < 4; i++) hash = merge(hash, lane[i]);
  }
  hash += state->total;
  const uint8_t *at = state->pending;
  size_t left = state->pending_size;
  for (; left >= 8; left -= 8, at += 8) hash = rotate(hash ^ mix(0, word(at)), 27) * PRIME_1 + PRIME_4;
  if (left >= 4) {
    uint32_t value;
    __builtin_memcpy(&value, at, 4);
    hash = rotate(hash ^ value * PRIME_1, 23) * PRIME_2 + PRIME_3;
    at += 4;
    left -= 4;
  }
  for (; left > 0; left--, at++) hash = rotate(hash ^ *at * PRIME_5, 11) * PRIME_1;
  hash = (hash ^ hash >> 33) * PRIME_2;
  hash = (hash ^ hash >> 29) * PRIME_3;
  return hash ^ hash >> 32;
}

uint64_t xxh64(const void *data, size_t size) {
  struct xxh64_state state;
  xxh64_begin(&state);
  xxh64_update(&state, data, size);
  return xxh64_end(&state);
}
