#include "aes_gcm.h"

#include "base.h"

/* ---- AES, bitsliced: plane b holds bit b of each byte of four blocks ---- */

#define SLICED_BLOCKS 4

/* The S-box of all 64 bytes: the circuit of Boyar and Peralta, "A small depth-16 circuit for the AES S-box" (2012). */
static void substitute(uint64_t q[8]) {
  const uint64_t x0 = q[7], x1 = q[6], x2 = q[5], x3 = q[4], x4 = q[3], x5 = q[2], x6 = q[1], x7 = q[0];
  const uint64_t y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2, y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8;
  const uint64_t t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7, y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8, y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;
  const uint64_t t2 = y12 & y15, t3 = y3 & y6, t4 = t3 ^ t2, t5 = y4 & x7, t6 = t5 ^ t2, t7 = y13 & y16, t8 = y5 & y1, t9 = t8 ^ t7, t10 = y2 & y7, t11 = t10 ^ t7, t12 = y9 & y11, t13 = y14 & y17;
  const uint64_t t14 = t13 ^ t12, t15 = y8 & y10, t16 = t15 ^ t12, t17 = t4 ^ t14, t18 = t6 ^ t16, t19 = t9 ^ t14, t20 = t11 ^ t16, t21 = t17 ^ y20, t22 = t18 ^ y19, t23 = t19 ^ y21, t24 = t20 ^ y18;
  const uint64_t t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t28 = t25 & t27, t29 = t28 ^ t22, t30 = t23 ^ t24, t31 = t22 ^ t26, t32 = t31 & t30, t33 = t32 ^ t24, t34 = t23 ^ t33, t35 = t27 ^ t33;
  const uint64_t t36 = t24 & t35, t37 = t36 ^ t34, t38 = t27 ^ t36, t39 = t29 & t38, t40 = t25 ^ t39, t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37, t45 = t42 ^ t41;
  const uint64_t z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7, z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10;
  const uint64_t z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4, z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;
  const uint64_t t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10, t50 = z2 ^ z12, t51 = z2 ^ z5, t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7, t55 = z16 ^ z17, t56 = z12 ^ t48, t57 = t50 ^ t53;
  const uint64_t t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58, t64 = z4 ^ t59, t65 = t61 ^ t62, t66 = z1 ^ t63, t67 = t64 ^ t65;
  const uint64_t s3 = t53 ^ t66;
  q[7] = t59 ^ t63;
  q[6] = t64 ^ ~s3;
  q[5] = t55 ^ ~t67;
  q[4] = s3;
  q[3] = t51 ^ t66;
  q[2] = t47 ^ t65;
  q[1] = t56 ^ ~t62;
  q[0] = t48 ^ ~t60;
}

/* Swaps, between two words, the bits of `a` at `mask << shift` with those of `b` at `mask`. */
static void swap_bits(uint64_t *a, uint64_t *b, uint64_t mask, unsigned shift) {
  const uint64_t different = (*a >> shift ^ *b) & mask;
  *b ^= different;
  *a ^= different << shift;
}

/* Bit b of byte i of word k changes places with bit k of byte i of word b. */
static void transpose(uint64_t w[8]) {
  for (int i = 0; i < 8; i += 2) swap_bits(&w[i], &w[i + 1], 0x5555555555555555, 1);
  for (int i = 0; i < 8; i += i % 2 == 0 ? 1 : 3) swap_bits(&w[i], &w[i + 2], 0x3333333333333333, 2);
  for (int i = 0; i < 4; i++) swap_bits(&w[i], &w[i + 4], 0x0f0f0f0f0f0f0f0f, 4);
}

/* Bit j of plane b becomes bit b of byte j: bit 16n + 4c + r is row r, column c of block n. */
static void load_planes(const uint8_t *blocks, uint64_t q[8]) {
  for (int k = 0; k < 8; k++) {
    q[k] = 0;
    for (int i = 0; i < 8; i++) q[k] |= (uint64_t)blocks[8 * i + k] << (8 * i);
  }
  transpose(q);
}

static void store_planes(uint64_t q[8], uint8_t *blocks) {
  transpose(q);
  for (int k = 0; k < 8; k++)
    for (int i = 0; i < 8; i++) blocks[8 * i + k] = (uint8_t)(q[k] >> (8 * i));
}

/* In each 16 bits of `x`, row r (bits 4c + r) moves r columns to the left. */
static uint64_t shift_rows(uint64_t x) {
  uint64_t ret = x & 0x1111111111111111ul;
  for (unsigned row = 1; row < 4; row++) {
    const uint64_t bits = x & 0x1111111111111111ul << row;
    const uint64_t low = 0x0001000100010001ul * ((1u << (16 - 4 * row)) - 1);
    ret |= (bits >> (4 * row) & low) | (bits << (16 - 4 * row) & ~low);
  }
  return ret;
}

/* Row r of each column gets row r + by. */
static uint64_t rotate_rows(uint64_t x, unsigned by) {
  const uint64_t low = 0x1111111111111111ul * ((1u << (4 - by)) - 1);
  return (x >> by & low) | (x << (4 - by) & ~low);
}

static void mix_columns(uint64_t q[8]) {
  uint64_t sum[8], ret[8];
  for (int b = 0; b < 8; b++) sum[b] = q[b] ^ rotate_rows(q[b], 1);
  for (int b = 0; b < 8; b++) {
    /* Twice the sum, modulo x^8 + x^4 + x^3 + x + 1. */
    const uint64_t twice = (b > 0 ? sum[b - 1] : 0) ^ (b == 0 || b == 1 || b == 3 || b == 4 ? sum[7] : 0);
    ret[b] = twice ^ rotate_rows(q[b], 1) ^ rotate_rows(sum[b], 2);
  }
  copy_bytes(q, ret, sizeof ret);
}

typedef uint64_t sliced_keys[AES_ROUNDS + 1][8];

static void slice_keys(const struct aes_gcm *gcm, sliced_keys ret) {
  uint8_t copies[SLICED_BLOCKS * AES_BLOCK];
  for (int round = 0; round <= AES_ROUNDS; round++) {
    for (int i = 0; i < SLICED_BLOCKS; i++) copy_bytes(copies + i * AES_BLOCK, gcm->round_keys[round], AES_BLOCK);
    load_planes(copies, ret[round]);
  }
  wipe(copies, sizeof copies);
}

/* Four blocks at once, in place. */
static void encrypt_blocks(sliced_keys keys, uint8_t blocks[SLICED_BLOCKS * AES_BLOCK]) {
  uint64_t q[8];
  load_planes(blocks, q);
  for (int b = 0; b < 8; b++) q[b] ^= keys[0][b];
  for (int round = 1; round <= AES_ROUNDS; round++) {
    substitute(q);
    for (int b = 0; b < 8; b++) q[b] = shift_rows(q[b]);
    if (round < AES_ROUNDS) mix_columns(q);
    for (int b = 0; b < 8; b++) q[b] ^= keys[round][b];
  }
  store_planes(q, blocks);
  wipe(q, sizeof q);
}

static void substitute_word(uint8_t word[4]) {
  uint8_t bytes[SLICED_BLOCKS * AES_BLOCK] = {word[0], word[1], word[2], word[3]};
  uint64_t q[8];
  load_planes(bytes, q);
  substitute(q);
  store_planes(q, bytes);
  copy_bytes(word, bytes, 4);
  wipe(bytes, sizeof bytes);
  wipe(q, sizeof q);
}

/* FIPS 197, 5.2, for 8 words of key. */
static void expand_key(struct aes_gcm *gcm, const uint8_t key[AES_GCM_KEY_SIZE]) {
  uint8_t *words = gcm->round_keys[0];
  copy_bytes(words, key, AES_GCM_KEY_SIZE);
  for (unsigned i = 8; i < 4 * (AES_ROUNDS + 1); i++) {
    uint8_t word[4];
    copy_bytes(word, words + 4 * (i - 1), 4);
    if (i % 8 == 0) {
      const uint8_t first = word[0];
      move_bytes(word, word + 1, 3);
      word[3] = first;
    }
    if (i % 4 == 0) substitute_word(word);
    if (i % 8 == 0) word[0] ^= (uint8_t)(1u << (i / 8 - 1));
    for (unsigned k = 0; k < 4; k++) words[4 * i + k] = words[4 * (i - 8) + k] ^ word[k];
    wipe(word, sizeof word);
  }
}

/* ---- GCM ---- */

static uint64_t load_big(const uint8_t *from) {
  uint64_t value;
  copy_bytes(&value, from, sizeof value);
  return __builtin_bswap64(value);
}

static void store_big(uint8_t *to, uint64_t value) {
  value = __builtin_bswap64(value);
  copy_bytes(to, &value, sizeof value);
}

/* SP 800-38D, algorithm 1 and 2, bit by bit. */
static void hash_portably(const struct aes_gcm *gcm, uint8_t state[AES_BLOCK], const uint8_t *blocks, size_t count) {
  const uint64_t key[2] = {load_big(gcm->hash_key), load_big(gcm->hash_key + 8)};
  for (; count > 0; count--, blocks += AES_BLOCK) {
    const uint64_t x[2] = {load_big(state) ^ load_big(blocks), load_big(state + 8) ^ load_big(blocks + 8)};
    uint64_t v[2] = {key[0], key[1]}, z[2] = {0, 0};
    for (unsigned i = 0; i < 128; i++) {
      const uint64_t chosen = -(x[i / 64] >> (63 - i % 64) & 1), carry = -(v[1] & 1);
      z[0] ^= v[0] & chosen;
      z[1] ^= v[1] & chosen;
      v[1] = v[1] >> 1 | v[0] << 63;
      v[0] = v[0] >> 1 ^ (0xe100000000000000 & carry);
    }
    store_big(state, z[0]);
    store_big(state + 8, z[1]);
  }
}

static void hash(const struct aes_gcm *gcm, uint8_t state[AES_BLOCK], const uint8_t *blocks, size_t count) {
  if (gcm->implementation == AES_PORTABLE) {
    hash_portably(gcm, state, blocks, count);
  } else {
    arch_aes_gcm_hash(gcm, state, blocks, count);
  }
}

/* Of bytes that are followed by zeros up to a whole block. */
static void hash_bytes(const struct aes_gcm *gcm, uint8_t state[AES_BLOCK], const uint8_t *bytes, size_t size) {
  hash(gcm, state, bytes, size / AES_BLOCK);
  if (size % AES_BLOCK == 0) return;
  uint8_t last[AES_BLOCK] = {0};
  copy_bytes(last, bytes + size / AES_BLOCK * AES_BLOCK, size % AES_BLOCK);
  hash(gcm, state, last, 1);
}

static void counter_block(const uint8_t nonce[AES_GCM_NONCE_SIZE], uint32_t counter, uint8_t ret[AES_BLOCK]) {
  copy_bytes(ret, nonce, AES_GCM_NONCE_SIZE);
  counter = __builtin_bswap32(counter);
  copy_bytes(ret + AES_GCM_NONCE_SIZE, &counter, sizeof counter);
}

/* XORs the key stream from `counter` on to `size` bytes. */
static void crypt_bytes(const struct aes_gcm *gcm, const uint8_t nonce[AES_GCM_NONCE_SIZE], uint32_t counter, const uint8_t *from, uint8_t *to, size_t size) {
  uint8_t stream[SLICED_BLOCKS * AES_BLOCK];
  sliced_keys keys;
  const bool portable = gcm->implementation == AES_PORTABLE;
  const size_t step = portable ? sizeof stream : AES_BLOCK;
  if (portable && size > 0) slice_keys(gcm, keys);
  for (size_t done = 0; done < size; done += step) {
    for (size_t i = 0; i < step; i += AES_BLOCK) counter_block(nonce, counter++, stream + i);
    if (portable) {
      encrypt_blocks(keys, stream);
    } else {
      arch_aes_encrypt_block(gcm, stream);
    }
    const size_t take = min_u64(step, size - done);
    for (size_t i = 0; i < take; i++) to[done + i] = from[done + i] ^ stream[i];
  }
  if (portable) wipe(keys, sizeof keys);
  wipe(stream, sizeof stream);
}

/* All of a message but the comparison of tags. */
static void crypt_message(const struct aes_gcm *gcm, bool encrypt, const uint8_t nonce[AES_GCM_NONCE_SIZE], const void *data, size_t data_size, const uint8_t *from, size_t size, uint8_t *to, uint8_t tag[AES_GCM_TAG_SIZE]) {
  uint8_t state[AES_BLOCK] = {0}, lengths[AES_BLOCK];
  hash_bytes(gcm, state, data, data_size);
  /* Counter 1 is the tag's. */
  uint32_t counter = 2;
  size_t done = 0;
  if (gcm->implementation != AES_PORTABLE) {
    uint8_t first[AES_BLOCK];
    counter_block(nonce, counter, first);
    done = arch_aes_gcm_crypt(gcm, encrypt, first, state, from, to, size / AES_BLOCK) * AES_BLOCK;
    counter += (uint32_t)(done / AES_BLOCK);
  }
  /* In place, decrypted bytes take the place of those that are hashed. */
  if (!encrypt) hash_bytes(gcm, state, from + done, size - done);
  crypt_bytes(gcm, nonce, counter, from + done, to + done, size - done);
  if (encrypt) hash_bytes(gcm, state, to + done, size - done);
  store_big(lengths, 8 * (uint64_t)data_size);
  store_big(lengths + 8, 8 * (uint64_t)size);
  hash(gcm, state, lengths, 1);
  crypt_bytes(gcm, nonce, 1, state, tag, AES_GCM_TAG_SIZE);
}

void aes_gcm_begin_with(struct aes_gcm *gcm, const uint8_t key[AES_GCM_KEY_SIZE], enum aes_implementation implementation) {
  uint8_t zeros[SLICED_BLOCKS * AES_BLOCK] = {0};
  sliced_keys keys;
  gcm->implementation = implementation;
  expand_key(gcm, key);
  slice_keys(gcm, keys);
  encrypt_blocks(keys, zeros);
  copy_bytes(gcm->hash_key, zeros, AES_BLOCK);
  wipe(zeros, sizeof zeros);
  wipe(keys, sizeof keys);
  if (implementation != AES_PORTABLE) arch_aes_gcm_begin(gcm);
}

void aes_gcm_begin(struct aes_gcm *gcm, const uint8_t key[AES_GCM_KEY_SIZE]) { aes_gcm_begin_with(gcm, key, arch_aes_best()); }

void aes_gcm_encrypt(const struct aes_gcm *gcm, const uint8_t nonce[AES_GCM_NONCE_SIZE], const void *data, size_t data_size, const uint8_t *from, size_t size, uint8_t *to,
                     uint8_t tag[AES_GCM_TAG_SIZE]) {
  crypt_message(gcm, true, nonce, data, data_size, from, size, to, tag);
}

bool aes_gcm_decrypt(const struct aes_gcm *gcm, const uint8_t nonce[AES_GCM_NONCE_SIZE], const void *data, size_t data_size, const uint8_t *from, size_t size, uint8_t *to,
                     const uint8_t tag[AES_GCM_TAG_SIZE]) {
  uint8_t expected[AES_GCM_TAG_SIZE], different = 0;
  crypt_message(gcm, false, nonce, data, data_size, from, size, to, expected);
  for (int i = 0; i < AES_GCM_TAG_SIZE; i++) different |= expected[i] ^ tag[i];
  wipe(expected, sizeof expected);
  if (different != 0) fill_bytes(to, 0, size);
  return different == 0;
}
