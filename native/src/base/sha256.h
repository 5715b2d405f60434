/* SHA-256 (FIPS 180-4), HMAC (RFC 2104) and HKDF (RFC 5869) with it. No table is looked up by, and no branch depends on, what is hashed. */
#ifndef WARP_SHA256_H
#define WARP_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32
#define SHA256_BLOCK 64

struct sha256 {
  uint32_t state[8];
  uint64_t size; /* bytes so far */
  uint8_t block[SHA256_BLOCK];
};
void sha256_begin(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *bytes, size_t size);
/* Wipes `hash`. */
void sha256_end(struct sha256 *hash, uint8_t ret[SHA256_SIZE]);

void hmac_sha256(const void *key, size_t key_size, const void *bytes, size_t size, uint8_t ret[SHA256_SIZE]);

/* At most 255 * SHA256_SIZE bytes of output; `info` has at most 128. */
#define HKDF_LONGEST_INFO 128
void hkdf_sha256(const void *key, size_t key_size, const void *salt, size_t salt_size, const void *info, size_t info_size, uint8_t *ret, size_t size);

#endif
