#include "encryption.h"

#include <linux/mman.h>

#include "../base/sha256.h"

/* The first 32 bits of a nonce. */
enum purpose { FOR_CHUNK = 0, FOR_METADATA = 1 };

/* Bytes of a file that may hold a key: more than any form of it needs. */
#define LARGEST_KEY_FILE 4096

/* ---- the user's key ---- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

static bool parse_hex_key(const char *text, size_t size, uint8_t ret[KEY_SIZE]) {
  if (size != 2 * KEY_SIZE) return false;
  for (size_t i = 0; i < size; i += 2) {
    const int high = hex_value(text[i]), low = hex_value(text[i + 1]);
    if (high < 0 || low < 0) return false;
    ret[i / 2] = (uint8_t)(high << 4 | low);
  }
  return true;
}

static bool parse_base64_key(const char *text, size_t size, uint8_t ret[KEY_SIZE]) {
  uint32_t bits = 0;
  if (size == 44 && text[43] == '=') size--;
  if (size != 43) return false;
  for (size_t i = 0, filled = 0; i < size; i++) {
    const int value = base64_value(text[i]);
    if (value < 0) return false;
    bits = bits << 6 | (uint32_t)value;
    filled += 6;
    if (filled % 8 < 6 && filled / 8 >= 1 && filled / 8 <= KEY_SIZE) ret[filled / 8 - 1] = (uint8_t)(bits >> filled % 8);
  }
  return true;
}

int key_parse(const char *content, size_t size, const char *where, bool raw, uint8_t ret[KEY_SIZE], struct failure *failure) {
  if (raw && size == KEY_SIZE) {
    copy_bytes(ret, content, KEY_SIZE);
    return 0;
  }
  const char *start = content, *end = content + size;
  while (start < end && is_space(*start)) start++;
  while (start < end && is_space(end[-1])) end--;
  if (parse_hex_key(start, (size_t)(end - start), ret) || parse_base64_key(start, (size_t)(end - start), ret)) return 0;
  return fail(failure, "%s holds no key: it has %lu bytes, and needed are %s64 hexadecimal digits or base64 of 32 bytes ('openssl rand -hex 32' makes one)", where, size, raw ? "32 bytes, " : "");
}

int key_read_file(const char *path, uint8_t ret[KEY_SIZE], struct failure *failure) {
  char content[LARGEST_KEY_FILE + 1];
  const long fd = open_file(path, O_RDONLY | O_CLOEXEC, 0);
  long size = 0, n = fd;
  /* A pipe gives what it has. */
  while (fd >= 0 && (size_t)size < sizeof content && (n = sys(read, fd, content + size, sizeof content - (size_t)size)) != 0) {
    if (n == -EINTR) continue;
    if (n < 0) break;
    size += n;
  }
  if (fd >= 0) sys(close, fd);
  int result = -1;
  if (n < 0) {
    fail(failure, "cannot read the key in %s: %s", path, error_text(n));
  } else if (size > LARGEST_KEY_FILE) {
    fail(failure, "%s holds no key: it has more than %d bytes", path, LARGEST_KEY_FILE);
  } else {
    result = key_parse(content, (size_t)size, path, true, ret, failure);
  }
  wipe(content, sizeof content);
  return result;
}

static int read_variable(char **environment, const char *name, bool wiped, uint8_t ret[KEY_SIZE], struct failure *failure) {
  const size_t length = string_length(name);
  char where[200];
  format(where, sizeof where, "the environment variable %s", name);
  for (; environment != NULL && *environment != NULL; environment++) {
    if (!starts_with(*environment, name) || (*environment)[length] != '=') continue;
    char *const value = *environment + length + 1;
    const size_t size = string_length(value);
    if (size == 0) return fail(failure, "%s is empty: a key is wiped there when it has been used; set it, or name a file", where);
    const int result = key_parse(value, size, where, false, ret, failure);
    if (wiped) wipe(value, size);
    return result;
  }
  return fail(failure, "%s with the key is not set", where);
}

int key_read_variable(char **environment, const char *name, uint8_t ret[KEY_SIZE], struct failure *failure) { return read_variable(environment, name, false, ret, failure); }
int key_take_variable(char **environment, const char *name, uint8_t ret[KEY_SIZE], struct failure *failure) { return read_variable(environment, name, true, ret, failure); }

/* More than any function here, and what it calls, takes. */
#define STACK_USED (12 * KIB)

__attribute__((noinline)) void wipe_stack(void) {
  uint8_t used[STACK_USED];
  wipe(used, sizeof used);
}

/* ---- the image's ---- */

void image_key_derive(const uint8_t key[KEY_SIZE], const uint8_t salt[SALT_SIZE], uint8_t ret[KEY_SIZE]) {
  static const char info[] = "warp-tool image encryption";
  hkdf_sha256(key, KEY_SIZE, salt, SALT_SIZE, info, sizeof info - 1, ret, KEY_SIZE);
}

void image_cipher_begin(struct image_cipher *cipher, const uint8_t image_key[KEY_SIZE], const uint8_t image_id[IMAGE_ID_SIZE]) {
  aes_gcm_begin(&cipher->gcm, image_key);
  copy_bytes(cipher->image_id, image_id, IMAGE_ID_SIZE);
}

static void make_nonce(uint8_t ret[AES_GCM_NONCE_SIZE], uint32_t purpose, uint64_t content_offset) {
  copy_bytes(ret, &purpose, sizeof purpose);
  copy_bytes(ret + sizeof purpose, &content_offset, sizeof content_offset);
}

#define CHUNK_DATA_SIZE (IMAGE_ID_SIZE + 2 * sizeof(uint32_t))

static void chunk_data(const struct image_cipher *cipher, const struct warp_chunk_record *chunk, uint8_t ret[CHUNK_DATA_SIZE]) {
  const uint32_t facts[2] = {chunk->content_size, chunk->flags | WARP_CHUNK_ENCRYPTED};
  copy_bytes(ret, cipher->image_id, IMAGE_ID_SIZE);
  copy_bytes(ret + IMAGE_ID_SIZE, facts, sizeof facts);
}

void chunk_encrypt(const struct image_cipher *cipher, const struct warp_chunk_record *chunk, const uint8_t *from, uint8_t *to) {
  uint8_t nonce[AES_GCM_NONCE_SIZE], data[CHUNK_DATA_SIZE];
  make_nonce(nonce, FOR_CHUNK, chunk->content_offset);
  chunk_data(cipher, chunk, data);
  aes_gcm_encrypt(&cipher->gcm, nonce, data, sizeof data, from, chunk->stored_size, to, to + chunk->stored_size);
}

bool chunk_decrypt(const struct image_cipher *cipher, const struct warp_chunk_record *chunk, const uint8_t *from, uint8_t *to) {
  uint8_t nonce[AES_GCM_NONCE_SIZE], data[CHUNK_DATA_SIZE];
  make_nonce(nonce, FOR_CHUNK, chunk->content_offset);
  chunk_data(cipher, chunk, data);
  return aes_gcm_decrypt(&cipher->gcm, nonce, data, sizeof data, from, chunk->stored_size, to, from + chunk->stored_size);
}

struct buffer open_data(struct arena *arena, const uint8_t *image_note, size_t image_note_size, uint64_t content_size, const struct warp_chunk_record *chunks, size_t count) {
  struct chunk_facts {
    uint64_t content_offset;
    uint32_t content_size;
    uint32_t flags;
  };
  struct buffer ret;
  buffer_init(&ret, arena);
  buffer_append(&ret, image_note, image_note_size);
  buffer_append(&ret, &content_size, sizeof content_size);
  struct chunk_facts *facts = buffer_add(&ret, count * sizeof *facts);
  for (size_t i = 0; i < count; i++) {
    const struct chunk_facts fact = {chunks[i].content_offset, chunks[i].content_size, chunks[i].flags};
    copy_bytes(&facts[i], &fact, sizeof fact);
  }
  return ret;
}

void metadata_seal(const struct image_cipher *cipher, const struct buffer *open, const uint8_t *metadata, size_t size, uint8_t *to) {
  uint8_t nonce[AES_GCM_NONCE_SIZE];
  make_nonce(nonce, FOR_METADATA, 0);
  aes_gcm_encrypt(&cipher->gcm, nonce, open->bytes, open->size, metadata, size, to, to + size);
}

static const char *damaged = "the image is damaged: take it from its source again";

int metadata_unseal(const char *path, const uint8_t *metadata, const struct warp_anchor *anchor, const uint8_t key[KEY_SIZE], struct arena *arena, struct image_cipher *cipher, uint8_t image_key[KEY_SIZE],
                    uint8_t **ret, uint64_t *ret_size, struct failure *failure) {
  struct view record, encryption, chunks;
  if (anchor->notes_offset > anchor->metadata_size || anchor->notes_size > anchor->metadata_size - anchor->notes_offset) return fail(failure, "%s: notes out of range: %s", path, damaged);
#define FIND(name, type, kind) \
  if (view_find(name, arena, metadata + anchor->notes_offset, anchor->notes_size, anchor->notes_offset, path, WARP_NOTE_##type, sizeof(struct kind), failure) < 0) return -1
  FIND(&record, IMAGE, warp_image_record);
  FIND(&encryption, ENCRYPTION, warp_encryption_record);
  FIND(&chunks, CHUNKS, warp_chunk_record);
#undef FIND
  if (record.count != 1 || encryption.count != 1) return fail(failure, "%s: the notes image or encryption are missing: %s", path, damaged);
  const struct warp_encryption_record *how = view_at(&encryption, struct warp_encryption_record, 0);
  if (how->cipher != WARP_CIPHER_AES_256_GCM || how->derivation != WARP_DERIVATION_HKDF_SHA256)
    return fail(failure, "%s: encrypted with cipher %u and key derivation %u, which are not known here: use warp-tool of the version that made it", path, how->cipher, how->derivation);
  size_t size;
  const uint8_t *sealed = view_bytes(&encryption, how->sealed, &size);
  if (size < WARP_ANCHOR_OFFSET + sizeof *anchor + TAG_SIZE) return fail(failure, "%s: the sealed metadata is cut off: %s", path, damaged);
  const long address = map_anonymous(0, size, PROT_READ | PROT_WRITE, MAP_POPULATE);
  if (address < 0) return fail(failure, "%s: %lu bytes of metadata cannot be decrypted: %s", path, size, error_text(address));
  image_key_derive(key, how->salt, image_key);
  image_cipher_begin(cipher, image_key, view_at(&record, struct warp_image_record, 0)->image_id);
  const struct buffer open = open_data(arena, record.payload, record.payload_size, anchor->content_size, chunks.records, chunks.count);
  uint8_t nonce[AES_GCM_NONCE_SIZE];
  make_nonce(nonce, FOR_METADATA, 0);
  *ret = (uint8_t *)address;
  *ret_size = size - TAG_SIZE;
  if (aes_gcm_decrypt(&cipher->gcm, nonce, open.bytes, open.size, sealed, *ret_size, *ret, sealed + *ret_size)) return 0;
  sys(munmap, address, size);
  return fail(failure, "%s: it was encrypted with another key, or changed on purpose: give the right key", path);
}
