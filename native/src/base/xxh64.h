#ifndef WARP_XXH64_H
#define WARP_XXH64_H

#include <stddef.h>
#include <stdint.h>

/* XXH64 with seed 0 of the whole, and in parts. */
uint64_t xxh64(const void *data, size_t size);
struct xxh64_state {
  uint64_t lane[4];
  uint64_t total;
  uint8_t pending[32];
  uint32_t pending_size;
};
void xxh64_begin(struct xxh64_state *state);
void xxh64_update(struct xxh64_state *state, const void *data, size_t size);
uint64_t xxh64_end(const struct xxh64_state *state);

#endif
