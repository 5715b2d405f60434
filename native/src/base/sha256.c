#include "sha256.h"

#include "base.h"

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, unsigned by) { return x >> by | x << (32 - by); }

static void add_block(struct sha256 *hash, const uint8_t *block) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++) w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; i++)
    w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] + (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
  copy_bytes(s, hash->state, sizeof s);
  for (int i = 0; i < 64; i++) {
    const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]), majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
    const uint32_t first = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + choice + constants[i] + w[i];
    const uint32_t second = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + majority;
    for (int k = 7; k > 0; k--) s[k] = s[k - 1];
    s[4] += first;
    s[0] = first + second;
  }
  for (int i = 0; i < 8; i++) hash->state[i] += s[i];
  wipe(w, sizeof w);
  wipe(s, sizeof s);
}

void sha256_begin(struct sha256 *hash) {
  *hash = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void sha256_update(struct sha256 *hash, const void *bytes, size_t size) {
  const uint8_t *at = bytes;
  while (size > 0) {
    const size_t used = hash->size % SHA256_BLOCK, take = min_u64(size, SHA256_BLOCK - used);
    copy_bytes(hash->block + used, at, take);
    hash->size += take;
    at += take;
    size -= take;
    if (used + take == SHA256_BLOCK) add_block(hash, hash->block);
  }
}

void sha256_end(struct sha256 *hash, uint8_t ret[SHA256_SIZE]) {
  const uint64_t bits = 8 * hash->size;
  static const uint8_t padding[SHA256_BLOCK] = {0x80};
  uint8_t length[8];
  for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
  /* As many as leave 8 bytes for the length at the end of a block. */
  sha256_update(hash, padding, 1 + (2 * SHA256_BLOCK - 9 - hash->size % SHA256_BLOCK) % SHA256_BLOCK);
  sha256_update(hash, length, sizeof length);
  for (int i = 0; i < SHA256_SIZE; i++) ret[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
  wipe(hash, sizeof *hash);
}

void hmac_sha256(const void *key, size_t key_size, const void *bytes, size_t size, uint8_t ret[SHA256_SIZE]) {
  struct sha256 hash;
  uint8_t pad[SHA256_BLOCK] = {0};
  sha256_begin(&hash);
  if (key_size > SHA256_BLOCK) {
    sha256_update(&hash, key, key_size);
    sha256_end(&hash, pad);
    sha256_begin(&hash);
  } else {
    copy_bytes(pad, key, key_size);
  }
  for (size_t i = 0; i < sizeof pad; i++) pad[i] ^= 0x36;
  sha256_update(&hash, pad, sizeof pad);
  sha256_update(&hash, bytes, size);
  sha256_end(&hash, ret);
  for (size_t i = 0; i < sizeof pad; i++) pad[i] ^= 0x36 ^ 0x5c;
  sha256_begin(&hash);
  sha256_update(&hash, pad, sizeof pad);
  sha256_update(&hash, ret, SHA256_SIZE);
  sha256_end(&hash, ret);
  wipe(pad, sizeof pad);
}

void hkdf_sha256(const void *key, size_t key_size, const void *salt, size_t salt_size, const void *info, size_t info_size, uint8_t *ret, size_t size) {
  uint8_t extracted[SHA256_SIZE], input[SHA256_SIZE + HKDF_LONGEST_INFO + 1], output[SHA256_SIZE];
  hmac_sha256(salt, salt_size, key, key_size, extracted);
  for (size_t done = 0, before = 0; done < size; before = SHA256_SIZE) {
    copy_bytes(input, output, before);
    copy_bytes(input + before, info, info_size);
    input[before + info_size] = (uint8_t)(done / SHA256_SIZE + 1);
    hmac_sha256(extracted, sizeof extracted, input, before + info_size + 1, output);
    const size_t take = min_u64(size - done, SHA256_SIZE);
    copy_bytes(ret + done, output, take);
    done += take;
  }
  wipe(extracted, sizeof extracted);
  wipe(input, sizeof input);
  wipe(output, sizeof output);
}
