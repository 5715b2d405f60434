/* Numbers that look random and are the same in every run (xorshift64). */
#ifndef WARP_TEST_RANDOM_H
#define WARP_TEST_RANDOM_H

#include <stdint.h>

static uint64_t state = 88172645463325252u;
static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

#endif
