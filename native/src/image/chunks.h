/*
 * The chunks of an image's content: making them, finding them, and getting content out of them. Nothing here keeps state of its own
 * or allocates: any number of threads can work at once, in the restorer or inside a restored process.
 */
#ifndef WARP_CHUNKS_H
#define WARP_CHUNKS_H

#include "encryption.h"

/* No chunk holds more content, and none takes more bytes in the file: what does not shrink is stored plain. */
#define CHUNK_LARGEST MIB
/* For a chunk as it is stored. */
#define CHUNK_ROOM (CHUNK_LARGEST + TAG_SIZE)

/* The chunk index of an open image. */
struct chunk_index {
  const char *path; /* of the image, for failures */
  int fd;
  const struct warp_chunk_record *records; /* by ascending content_offset */
  size_t count;
  const struct image_cipher *cipher; /* of an encrypted image: each stored chunk is encrypted, its tag behind its stored_size bytes; else NULL */
};

/* Whether every chunk makes sense in a file of that size and can be read by this version; else fails with a line that names the chunk. */
int chunks_check(const struct chunk_index *index, uint64_t file_size, struct failure *failure);

/* The first chunk that ends behind a content offset: the one that holds it, if any does; `count` when there is none. */
size_t chunks_find(const struct chunk_index *index, uint64_t content_offset);

/*
 * Reads chunk `number` and puts its content, content_size bytes that have the hash of the index, to `to`. `stored` are CHUNK_ROOM bytes to
 * work in. Of an encrypted image the tag proves the content, and is looked at before anything else is. `address` is where in the program the chunk's content belongs, for failures; 0 for nowhere.
 */
int chunk_read(const struct chunk_index *index, size_t number, uint8_t *to, uint8_t *stored, uint64_t address, struct failure *failure);

/* The line that a chunk with another hash than the index says leaves. */
int chunk_fail_hash(const struct chunk_index *index, size_t number, uint64_t hash, uint64_t address, struct failure *failure);

/*
 * Stores a chunk: `content` (record->content_size bytes, whose content_hash is set) goes to `to`, which has room for as many, as an LZ4 block,
 * or as it is when it does not shrink. Sets stored_size, stored_hash and flags. `workspace` has LZ4_WORKSPACE bytes.
 */
void chunk_store(struct warp_chunk_record *record, const uint8_t *content, int level, uint8_t *to, void *workspace);

#endif
