/* Whole files of chunks (docs/image-format.md), on several threads: for commands that go through all content of an image. */
#ifndef WARP_NODE_CHUNKS_H
#define WARP_NODE_CHUNKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../include/warp_image.h"

/* What chunks_unpack found of a chunk. src/engine/codec.ts names the same numbers. */
enum chunk_status {
  CHUNK_UNSEEN = 0,
  CHUNK_GOOD = 1,
  CHUNK_IMPOSSIBLE_SIZE = 2,
  CHUNK_BEHIND_END = 3,
  CHUNK_WRONG_STORED_HASH = 4,
  CHUNK_UNKNOWN_CODEC = 5,
  CHUNK_WRONG_BLOCK = 6,
  CHUNK_WRONG_CONTENT_HASH = 7,
  CHUNK_SKIPPED = 8, /* in the parent, or encrypted and the stored bytes are good */
};

struct chunk_work {
  int input;
  int output; /* -1: nothing is written */
  struct warp_chunk_record *records;
  size_t count;
  uint32_t threads;
  uint64_t *progress; /* bytes of content done; read by others meanwhile */
  const uint32_t *cancelled; /* set by others: ends the work with ECANCELED */

  int level;    /* pack */
  uint64_t end; /* pack: where in the output the next stored chunk goes */

  uint8_t *status; /* unpack: one of enum chunk_status for each record */
  int64_t moved;   /* unpack: what is added to content offsets */

  /* The first failure: errno, of the output or of the input, at which chunk. ENODATA: the input ends before the chunk does. */
  int error;
  bool error_in_output;
  size_t error_chunk;
};

/*
 * Compresses content of `input`, at the content offsets and of the content sizes in `records`, into chunks of `output`, in the order of the
 * records; equal content is stored once. Fills the other fields of the records. What LZ4 does not make at least 1/32 smaller is stored plain.
 * The output is the same whatever the number of threads. Returns 0, or -1 with `error` set.
 */
int chunks_pack(struct chunk_work *work);

/*
 * Checks all chunks of `input` against their hashes. With an `output` it also writes their content there, blocks of zeros as holes, and ends
 * at the first chunk that is not good. Returns 0, also when chunks are bad; -1 with `error` set.
 */
int chunks_unpack(struct chunk_work *work);

/*
 * Reads one chunk of `input` into `content`, of at least content_size bytes; checked like that. *status is what was found, one of enum
 * chunk_status; the content is there where that is CHUNK_GOOD. Returns 0, or an errno of the input.
 */
int chunks_load(int input, const struct warp_chunk_record *record, uint8_t *content, uint8_t *status);

#endif
