/* Encrypted images (docs/image-format.md, "Encryption"): keys, and what they open and seal. */
#ifndef WARP_ENCRYPTION_H
#define WARP_ENCRYPTION_H

#include "../../include/warp_image.h"
#include "../base/aes_gcm.h"
#include "../base/base.h"
#include "tables.h"

#define KEY_SIZE AES_GCM_KEY_SIZE
#define SALT_SIZE 32
/* Bytes that encryption adds to what it encrypts. */
#define TAG_SIZE AES_GCM_TAG_SIZE
#define IMAGE_ID_SIZE 16

/* ---- the user's key ---- */

/*
 * The key in the content of a file or a variable: 64 hexadecimal digits or base64 of 32 bytes, with white space around them; with `raw` also 32 bytes as
 * they are. `where` is what messages, which never show what it holds, call it.
 */
int key_parse(const char *content, size_t size, const char *where, bool raw, uint8_t ret[KEY_SIZE], struct failure *failure);
/* The key in a file. */
int key_read_file(const char *path, uint8_t ret[KEY_SIZE], struct failure *failure);
/* The key in a variable of `environment`. */
int key_read_variable(char **environment, const char *name, uint8_t ret[KEY_SIZE], struct failure *failure);
/* Likewise, and wipes the variable's value: who looks at this process does not find it. */
int key_take_variable(char **environment, const char *name, uint8_t ret[KEY_SIZE], struct failure *failure);

/* What functions of this file, which have returned, may have left on the calling thread's stack. */
void wipe_stack(void);

/* ---- the image's ---- */

/* The image's own key, of the user's and the image's salt. */
void image_key_derive(const uint8_t key[KEY_SIZE], const uint8_t salt[SALT_SIZE], uint8_t ret[KEY_SIZE]);

/* The image's key, set up; secret. */
struct image_cipher {
  struct aes_gcm gcm;
  uint8_t image_id[IMAGE_ID_SIZE];
};
void image_cipher_begin(struct image_cipher *cipher, const uint8_t image_key[KEY_SIZE], const uint8_t image_id[IMAGE_ID_SIZE]);

/* The stored bytes of a chunk, at most as many as its content has, to `to`, and the tag behind them; either may be encrypted in place. */
void chunk_encrypt(const struct image_cipher *cipher, const struct warp_chunk_record *chunk, const uint8_t *from, uint8_t *to);
/* Likewise; false, with nothing in `to` but zeros, when the tag does not fit. */
bool chunk_decrypt(const struct image_cipher *cipher, const struct warp_chunk_record *chunk, const uint8_t *from, uint8_t *to);

/*
 * What an encrypted image shows and the tag of its sealed metadata proves: the payload of the note `image`, the content's size, and of `count` chunks offset,
 * size and flags.
 */
struct buffer open_data(struct arena *arena, const uint8_t *image_note, size_t image_note_size, uint64_t content_size, const struct warp_chunk_record *chunks, size_t count);
/* The whole metadata; `to` has room for TAG_SIZE more. */
/*
 * Decrypts what is sealed in the open metadata of an encrypted image, with the user's key, to new pages: *ret and *ret_size. The image's key is set up in
 * `cipher`, and goes to `image_key`.
 */
int metadata_unseal(const char *path, const uint8_t *metadata, const struct warp_anchor *anchor, const uint8_t key[KEY_SIZE], struct arena *arena, struct image_cipher *cipher, uint8_t image_key[KEY_SIZE],
                    uint8_t **ret, uint64_t *ret_size, struct failure *failure);
void metadata_seal(const struct image_cipher *cipher, const struct buffer *open, const uint8_t *metadata, size_t size, uint8_t *to);

#endif
