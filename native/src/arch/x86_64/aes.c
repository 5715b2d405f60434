/*
 * AES-256-GCM with AES-NI and PCLMULQDQ, eight blocks at once, and with VAES and VPCLMULQDQ on 512-bit registers, sixteen at once. The rounds of the
 * cipher and the multiplications of the hash are independent of each other and stand between each other, so that both units have work.
 *
 * Hashing is done as POLYVAL (RFC 8452, appendix A): blocks are reversed byte by byte, and the hash key is multiplied by x.
 */
#include <cpuid.h>
/* There is no C library with an allocator, which GCC's header would declare. */
#define _MM_MALLOC_H_INCLUDED
#include <immintrin.h>

#include "../../base/aes_gcm.h"
#include "../../base/base.h"

#define NARROW __attribute__((target("aes,pclmul,ssse3,sse4.1")))
#define WIDE __attribute__((target("aes,pclmul,ssse3,sse4.1,avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq")))
#define INLINE static inline __attribute__((always_inline))

#define NARROW_BLOCKS 8
#define WIDE_BLOCKS 16

int arch_aes_best(void) {
  struct arch_cpu cpu;
  arch_read_cpu(&cpu);
  const uint32_t narrow = bit_AES | bit_PCLMUL | bit_SSSE3 | bit_SSE4_1, wide_1 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ, wide_2 = bit_VAES | bit_VPCLMULQDQ;
  /* XCR0: SSE, AVX, opmasks and both halves of the 512-bit registers. */
  const uint64_t state = 0xe6;
  if ((cpu.features[0] & narrow) != narrow) return AES_PORTABLE;
  if ((cpu.features[2] & wide_1) != wide_1 || (cpu.features[3] & wide_2) != wide_2 || (cpu.xstate_features & state) != state) return AES_INSTRUCTIONS;
  return AES_WIDE_INSTRUCTIONS;
}

/* ---- the hash, one block at once ---- */

NARROW INLINE __m128i reversed(__m128i block) { return _mm_shuffle_epi8(block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)); }

/* The three parts of products that are yet to be reduced. */
struct sum {
  __m128i low, middle, high;
};

NARROW INLINE void add_product(struct sum *sum, __m128i a, __m128i b) {
  sum->low = _mm_xor_si128(sum->low, _mm_clmulepi64_si128(a, b, 0x00));
  sum->high = _mm_xor_si128(sum->high, _mm_clmulepi64_si128(a, b, 0x11));
  sum->middle = _mm_xor_si128(sum->middle, _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10)));
}

/* Modulo x^128 + x^127 + x^126 + x^121 + 1, and divided by x^128. */
NARROW INLINE __m128i reduce(struct sum sum) {
  const __m128i polynomial = _mm_set_epi64x((long long)0xc200000000000000, 1);
  __m128i low = _mm_xor_si128(sum.low, _mm_slli_si128(sum.middle, 8)), high = _mm_xor_si128(sum.high, _mm_srli_si128(sum.middle, 8));
  for (int i = 0; i < 2; i++) low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, polynomial, 0x10));
  return _mm_xor_si128(low, high);
}

NARROW INLINE __m128i multiply(__m128i a, __m128i b) {
  struct sum sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
  add_product(&sum, a, b);
  return reduce(sum);
}

/* powers[i] is the hash key to the power AES_GCM_POWERS - i: in the order of the blocks that they multiply. */
NARROW void arch_aes_gcm_begin(struct aes_gcm *gcm) {
  const __m128i key = reversed(_mm_loadu_si128((const void *)gcm->hash_key));
  /* Times x: what is carried out of the top comes back as the polynomial. */
  const __m128i carried = _mm_srli_epi64(key, 63), doubled = _mm_or_si128(_mm_slli_epi64(key, 1), _mm_slli_si128(carried, 8));
  const __m128i mask = _mm_sub_epi64(_mm_setzero_si128(), _mm_unpackhi_epi64(carried, carried));
  const __m128i first = _mm_xor_si128(doubled, _mm_and_si128(mask, _mm_set_epi64x((long long)0xc200000000000000, 1)));
  __m128i power = first;
  for (int i = AES_GCM_POWERS - 1; i >= 0; i--) {
    _mm_storeu_si128((void *)gcm->powers[i], power);
    power = multiply(power, first);
  }
}

NARROW void arch_aes_gcm_hash(const struct aes_gcm *gcm, uint8_t state[AES_BLOCK], const uint8_t *blocks, size_t count) {
  const __m128i first = _mm_loadu_si128((const void *)gcm->powers[AES_GCM_POWERS - 1]);
  __m128i hash = reversed(_mm_loadu_si128((const void *)state));
  for (; count > 0; count--, blocks += AES_BLOCK) hash = multiply(_mm_xor_si128(hash, reversed(_mm_loadu_si128((const void *)blocks))), first);
  _mm_storeu_si128((void *)state, reversed(hash));
}

NARROW void arch_aes_encrypt_block(const struct aes_gcm *gcm, uint8_t block[AES_BLOCK]) {
  __m128i x = _mm_xor_si128(_mm_loadu_si128((const void *)block), _mm_loadu_si128((const void *)gcm->round_keys[0]));
  for (int round = 1; round < AES_ROUNDS; round++) x = _mm_aesenc_si128(x, _mm_loadu_si128((const void *)gcm->round_keys[round]));
  _mm_storeu_si128((void *)block, _mm_aesenclast_si128(x, _mm_loadu_si128((const void *)gcm->round_keys[AES_ROUNDS])));
}

/* ---- eight blocks at once ---- */

/* Hashes the eight blocks at `hashed`, unless that is NULL, while eight others go through the cipher. */
NARROW INLINE void crypt_narrow(const struct aes_gcm *gcm, __m128i *counter, __m128i *hash, const uint8_t *hashed, const uint8_t *from, uint8_t *to) {
  const __m128i one = _mm_set_epi32(0, 0, 0, 1);
  __m128i x[NARROW_BLOCKS];
  struct sum sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
  __m128i key = _mm_loadu_si128((const void *)gcm->round_keys[0]);
#pragma GCC unroll 8
  for (int i = 0; i < NARROW_BLOCKS; i++) {
    x[i] = _mm_xor_si128(reversed(*counter), key);
    *counter = _mm_add_epi32(*counter, one);
  }
#pragma GCC unroll 16
  for (int round = 1; round < AES_ROUNDS; round++) {
    key = _mm_loadu_si128((const void *)gcm->round_keys[round]);
#pragma GCC unroll 8
    for (int i = 0; i < NARROW_BLOCKS; i++) x[i] = _mm_aesenc_si128(x[i], key);
    if (hashed != NULL && round <= NARROW_BLOCKS) {
      __m128i block = reversed(_mm_loadu_si128((const void *)(hashed + (round - 1) * AES_BLOCK)));
      if (round == 1) block = _mm_xor_si128(block, *hash);
      add_product(&sum, block, _mm_loadu_si128((const void *)gcm->powers[AES_GCM_POWERS - NARROW_BLOCKS + round - 1]));
    }
  }
  if (hashed != NULL) *hash = reduce(sum);
  key = _mm_loadu_si128((const void *)gcm->round_keys[AES_ROUNDS]);
#pragma GCC unroll 8
  for (int i = 0; i < NARROW_BLOCKS; i++)
    _mm_storeu_si128((void *)(to + i * AES_BLOCK), _mm_xor_si128(_mm_loadu_si128((const void *)(from + i * AES_BLOCK)), _mm_aesenclast_si128(x[i], key)));
}

NARROW INLINE void hash_narrow(const struct aes_gcm *gcm, __m128i *hash, const uint8_t *hashed) {
  struct sum sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
  for (int i = 0; i < NARROW_BLOCKS; i++) {
    __m128i block = reversed(_mm_loadu_si128((const void *)(hashed + i * AES_BLOCK)));
    if (i == 0) block = _mm_xor_si128(block, *hash);
    add_product(&sum, block, _mm_loadu_si128((const void *)gcm->powers[AES_GCM_POWERS - NARROW_BLOCKS + i]));
  }
  *hash = reduce(sum);
}

NARROW static size_t crypt_all_narrow(const struct aes_gcm *gcm, bool encrypt, const uint8_t first[AES_BLOCK], uint8_t state[AES_BLOCK], const uint8_t *from, uint8_t *to, size_t count) {
  const size_t whole = count / NARROW_BLOCKS * NARROW_BLOCKS;
  __m128i counter = reversed(_mm_loadu_si128((const void *)first)), hash = reversed(_mm_loadu_si128((const void *)state));
  /* What is encrypted is hashed a step later. */
  const uint8_t *before = NULL;
  for (size_t done = 0; done < whole; done += NARROW_BLOCKS, from += NARROW_BLOCKS * AES_BLOCK, to += NARROW_BLOCKS * AES_BLOCK) {
    if (!encrypt) {
      crypt_narrow(gcm, &counter, &hash, from, from, to);
    } else if (before == NULL) {
      crypt_narrow(gcm, &counter, &hash, NULL, from, to);
    } else {
      crypt_narrow(gcm, &counter, &hash, before, from, to);
    }
    before = to;
  }
  if (encrypt && before != NULL) hash_narrow(gcm, &hash, before);
  _mm_storeu_si128((void *)state, reversed(hash));
  return whole;
}

/* ---- sixteen blocks at once, four to a register ---- */

WIDE INLINE __m512i reversed_wide(__m512i blocks) {
  return _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
}

struct wide_sum {
  __m512i low, middle, high;
};

WIDE INLINE void add_product_wide(struct wide_sum *sum, __m512i a, __m512i b) {
  sum->low = _mm512_xor_si512(sum->low, _mm512_clmulepi64_epi128(a, b, 0x00));
  sum->high = _mm512_xor_si512(sum->high, _mm512_clmulepi64_epi128(a, b, 0x11));
  sum->middle = _mm512_ternarylogic_epi64(sum->middle, _mm512_clmulepi64_epi128(a, b, 0x01), _mm512_clmulepi64_epi128(a, b, 0x10), 0x96 /* exclusive or of three */);
}

WIDE INLINE __m128i fold(__m512i x) {
  const __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

WIDE INLINE __m128i reduce_wide(struct wide_sum sum) { return reduce((struct sum){fold(sum.low), fold(sum.middle), fold(sum.high)}); }

WIDE INLINE __m512i hashed_blocks(const struct aes_gcm *gcm, const uint8_t *hashed, int i, __m128i hash, struct wide_sum *sum) {
  __m512i blocks = reversed_wide(_mm512_loadu_si512(hashed + i * 4 * AES_BLOCK));
  if (i == 0) blocks = _mm512_xor_si512(blocks, _mm512_zextsi128_si512(hash));
  add_product_wide(sum, blocks, _mm512_loadu_si512(gcm->powers[4 * i]));
  return blocks;
}

WIDE INLINE void crypt_wide(const struct aes_gcm *gcm, const __m512i keys[AES_ROUNDS + 1], __m512i *counter, __m128i *hash, const uint8_t *hashed, const uint8_t *from, uint8_t *to) {
  const __m512i four = _mm512_broadcast_i32x4(_mm_set_epi32(0, 0, 0, 4));
  __m512i x[4];
  struct wide_sum sum = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    x[i] = _mm512_xor_si512(reversed_wide(*counter), keys[0]);
    *counter = _mm512_add_epi32(*counter, four);
  }
#pragma GCC unroll 16
  for (int round = 1; round < AES_ROUNDS; round++) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) x[i] = _mm512_aesenc_epi128(x[i], keys[round]);
    if (hashed != NULL && round % 3 == 1 && round / 3 < 4) hashed_blocks(gcm, hashed, round / 3, *hash, &sum);
  }
  if (hashed != NULL) *hash = reduce_wide(sum);
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    _mm512_storeu_si512(to + i * 4 * AES_BLOCK, _mm512_xor_si512(_mm512_loadu_si512(from + i * 4 * AES_BLOCK), _mm512_aesenclast_epi128(x[i], keys[AES_ROUNDS])));
}

WIDE static size_t crypt_all_wide(const struct aes_gcm *gcm, bool encrypt, const uint8_t first[AES_BLOCK], uint8_t state[AES_BLOCK], const uint8_t *from, uint8_t *to, size_t count) {
  const size_t whole = count / WIDE_BLOCKS * WIDE_BLOCKS;
  __m512i keys[AES_ROUNDS + 1];
  for (int round = 0; round <= AES_ROUNDS; round++) keys[round] = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)gcm->round_keys[round]));
  __m512i counter = _mm512_broadcast_i32x4(reversed(_mm_loadu_si128((const void *)first)));
  counter = _mm512_add_epi32(counter, _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0));
  __m128i hash = reversed(_mm_loadu_si128((const void *)state));
  const uint8_t *before = NULL;
  for (size_t done = 0; done < whole; done += WIDE_BLOCKS, from += WIDE_BLOCKS * AES_BLOCK, to += WIDE_BLOCKS * AES_BLOCK) {
    if (!encrypt) {
      crypt_wide(gcm, keys, &counter, &hash, from, from, to);
    } else if (before == NULL) {
      crypt_wide(gcm, keys, &counter, &hash, NULL, from, to);
    } else {
      crypt_wide(gcm, keys, &counter, &hash, before, from, to);
    }
    before = to;
  }
  if (encrypt && before != NULL) {
    struct wide_sum sum = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int i = 0; i < 4; i++) hashed_blocks(gcm, before, i, hash, &sum);
    hash = reduce_wide(sum);
  }
  _mm_storeu_si128((void *)state, reversed(hash));
  wipe(keys, sizeof keys);
  return whole;
}

size_t arch_aes_gcm_crypt(const struct aes_gcm *gcm, bool encrypt, const uint8_t counter[AES_BLOCK], uint8_t state[AES_BLOCK], const uint8_t *from, uint8_t *to, size_t count) {
  size_t done = 0;
  if (gcm->implementation == AES_WIDE_INSTRUCTIONS) done = crypt_all_wide(gcm, encrypt, counter, state, from, to, count);
  uint8_t next[AES_BLOCK];
  uint32_t number;
  copy_bytes(next, counter, sizeof next);
  copy_bytes(&number, next + AES_GCM_NONCE_SIZE, sizeof number);
  number = __builtin_bswap32(__builtin_bswap32(number) + (uint32_t)done);
  copy_bytes(next + AES_GCM_NONCE_SIZE, &number, sizeof number);
  return done + crypt_all_narrow(gcm, encrypt, next, state, from + done * AES_BLOCK, to + done * AES_BLOCK, count - done);
}
