/*
 * AES-256-GCM (FIPS 197, NIST SP 800-38D) with nonces of 12 bytes and tags of 16. With the processor's instructions for it where there are any
 * (arch.h), chosen when a key is set up: an image may come back on another processor. Without them bitsliced and bit by bit: no
 * table is looked up by, and no branch depends on, key or content.
 */
#ifndef WARP_AES_GCM_H
#define WARP_AES_GCM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AES_BLOCK 16
#define AES_ROUNDS 14
#define AES_GCM_KEY_SIZE 32
#define AES_GCM_NONCE_SIZE 12
#define AES_GCM_TAG_SIZE 16
/* Powers of the hash key that are kept: as many blocks as are hashed at once, at most. */
#define AES_GCM_POWERS 16

enum aes_implementation { AES_PORTABLE = 0, AES_INSTRUCTIONS = 1, AES_WIDE_INSTRUCTIONS = 2 };

/* A key that is set up; secret. */
struct aes_gcm {
  uint32_t implementation; /* enum aes_implementation */
  uint8_t round_keys[AES_ROUNDS + 1][AES_BLOCK];
  uint8_t hash_key[AES_BLOCK];
  uint8_t powers[AES_GCM_POWERS][AES_BLOCK]; /* the implementation's own */
};

void aes_gcm_begin(struct aes_gcm *gcm, const uint8_t key[AES_GCM_KEY_SIZE]);
/* With one that arch_aes_best says is there, or a lesser one. */
void aes_gcm_begin_with(struct aes_gcm *gcm, const uint8_t key[AES_GCM_KEY_SIZE], enum aes_implementation implementation);

/* Encrypts `size` bytes (less than 2^36 - 32) from `from` to `to`, which may be the same place. `data` is authenticated only. No nonce may be used twice. */
void aes_gcm_encrypt(const struct aes_gcm *gcm, const uint8_t nonce[AES_GCM_NONCE_SIZE], const void *data, size_t data_size, const uint8_t *from, size_t size, uint8_t *to,
                     uint8_t tag[AES_GCM_TAG_SIZE]);
/* Decrypts likewise; false, with nothing but zeros in `to`, when the tag does not fit. */
bool aes_gcm_decrypt(const struct aes_gcm *gcm, const uint8_t nonce[AES_GCM_NONCE_SIZE], const void *data, size_t data_size, const uint8_t *from, size_t size, uint8_t *to,
                     const uint8_t tag[AES_GCM_TAG_SIZE]);

#endif
