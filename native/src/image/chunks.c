#include "chunks.h"

#include "../base/lz4.h"

static const char *damaged = "the image is damaged: take it from its source again";

int chunks_check(const struct chunk_index *index, uint64_t file_size, struct failure *failure) {
  uint64_t end = 0;
  for (size_t i = 0; i < index->count; i++) {
    const struct warp_chunk_record *chunk = &index->records[i];
    const uint32_t codec = chunk->flags & WARP_CHUNK_CODEC_MASK;
    const bool sized = chunk->content_size > 0 && chunk->content_size <= CHUNK_LARGEST && chunk->stored_size > 0 &&
                       (codec == WARP_CHUNK_PLAIN ? chunk->stored_size == chunk->content_size : chunk->stored_size < chunk->content_size);
    const uint64_t taken = chunk->stored_size + (index->cipher != NULL ? TAG_SIZE : 0ul);
    const bool placed = chunk->content_offset >= end && chunk->content_offset <= UINT64_MAX - CHUNK_LARGEST && chunk->file_offset <= file_size && taken <= file_size - chunk->file_offset;
    if (codec > WARP_CHUNK_LZ4 || chunk->flags != (index->cipher != NULL ? codec | WARP_CHUNK_ENCRYPTED : codec))
      return fail(failure, "%s: chunk %lu (offset 0x%lx) is stored in a way that this version cannot read (flags 0x%x): make a plain image with 'warp-tool decompress' or 'decrypt' of the version that made it", index->path, i,
                  chunk->file_offset, chunk->flags);
    if (!sized || !placed)
      return fail(failure, "%s: chunk %lu (offset 0x%lx, %u bytes for %u at content offset 0x%lx) is impossible: %s", index->path, i, chunk->file_offset, chunk->stored_size, chunk->content_size, chunk->content_offset, damaged);
    end = chunk->content_offset + chunk->content_size;
  }
  return 0;
}

size_t chunks_find(const struct chunk_index *index, uint64_t content_offset) {
  size_t low = 0, high = index->count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const struct warp_chunk_record *chunk = &index->records[middle];
    if (chunk->content_offset + chunk->content_size <= content_offset) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static int fail_chunk(const struct chunk_index *index, size_t number, uint64_t address, struct failure *failure, const char *what) {
  const struct warp_chunk_record *chunk = &index->records[number];
  char memory[64] = "";
  if (address != 0) format(memory, sizeof memory, ", memory at 0x%lx", address);
  return fail(failure, "%s: chunk %lu (offset 0x%lx, %u bytes%s) %s: %s", index->path, number, chunk->file_offset, chunk->stored_size, memory, what, damaged);
}

int chunk_fail_hash(const struct chunk_index *index, size_t number, uint64_t hash, uint64_t address, struct failure *failure) {
  char what[96];
  format(what, sizeof what, "has hash %016lx, the index says %016lx", hash, index->records[number].content_hash);
  return fail_chunk(index, number, address, failure, what);
}

int chunk_read(const struct chunk_index *index, size_t number, uint8_t *to, uint8_t *stored, uint64_t address, struct failure *failure) {
  const struct warp_chunk_record *chunk = &index->records[number];
  const bool plain = (chunk->flags & WARP_CHUNK_CODEC_MASK) == WARP_CHUNK_PLAIN, encrypted = index->cipher != NULL;
  const size_t size = chunk->stored_size + (encrypted ? TAG_SIZE : 0ul);
  const long n = read_fully(index->fd, plain && !encrypted ? to : stored, size, chunk->file_offset);
  if (n < 0) return fail(failure, "%s: cannot be read at offset 0x%lx: %s", index->path, chunk->file_offset, error_text(n));
  if (n != (long)size) return fail_chunk(index, number, address, failure, "is cut off");
  if (encrypted && !chunk_decrypt(index->cipher, chunk, stored, plain ? to : stored)) return fail_chunk(index, number, address, failure, "does not fit its tag: it was changed, or is of another image");
  if (!plain && !lz4_decompress(stored, chunk->stored_size, to, chunk->content_size)) return fail_chunk(index, number, address, failure, "cannot be decompressed");
  if (encrypted) return 0;
  const uint64_t hash = xxh64(to, chunk->content_size);
  return hash == chunk->content_hash ? 0 : chunk_fail_hash(index, number, hash, address, failure);
}

void chunk_store(struct warp_chunk_record *record, const uint8_t *content, int level, uint8_t *to, void *workspace) {
  const size_t size = lz4_compress(content, record->content_size, to, record->content_size - 1, level, workspace);
  record->flags = size > 0 ? WARP_CHUNK_LZ4 : WARP_CHUNK_PLAIN;
  record->stored_size = size > 0 ? (uint32_t)size : record->content_size;
  if (size == 0) copy_bytes(to, content, record->content_size);
  record->stored_hash = size > 0 ? xxh64(to, size) : record->content_hash;
}
