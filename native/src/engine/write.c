/* Writing memory into the image: chunks with hashes, compressed and encrypted where that was asked for. */
#include <linux/futex.h>
#include <linux/sched.h>

#include "../base/lz4.h"
#include "../image/chunks.h"
#include "engine.h"

/* What compressed chunks that are written at once have in memory: they lie in the file in the order of their content. */
#define BATCH CHUNK_LARGEST

struct writer {
  struct reader reader;
  struct capture *capture;
  uint8_t *buffer; /* a chunk's size */
  uint8_t *other;  /* when compressing, the content of another chunk, to compare with */
  uint8_t *output; /* when compressing or encrypting, the stored bytes of a batch */
  void *workspace;
  const struct warp_chunk_record *chunk; /* being written */
  struct xxh64_state hash;
  struct io_vector vectors[64];
  size_t vector_count;
  uint64_t vector_offset;
  uint64_t vector_end;
  uint64_t written;
  long error;
  uint64_t error_offset;
  uint32_t alive; /* cleared by the kernel when the thread has ended */
};

static size_t next_chunk;
static struct writer *first_writer;

static void flush(struct writer *writer) {
  struct io_vector *vector = writer->vectors;
  size_t count = writer->vector_count;
  uint64_t offset = writer->vector_offset;
  while (count > 0 && writer->error == 0) {
    long n = sys(pwritev, writer->capture->image_fd, vector, count, offset, 0);
    if (n == -EINTR) continue;
    if (n <= 0) {
      writer->error = n == 0 ? -EIO : n;
      writer->error_offset = offset;
      break;
    }
    writer->written += (uint64_t)n;
    offset += (uint64_t)n;
    while (n > 0) {
      size_t take = min_u64((uint64_t)n, vector->length);
      vector->base = (uint8_t *)vector->base + take;
      vector->length -= take;
      n -= (long)take;
      if (vector->length == 0) vector++, count--;
    }
  }
  writer->vector_count = 0;
}

static void put_bytes(struct writer *writer, const void *bytes, size_t size, uint64_t offset) {
  bool follows = writer->vector_count > 0 && writer->vector_end == offset;
  if (!follows || writer->vector_count == sizeof writer->vectors / sizeof writer->vectors[0]) flush(writer);
  if (writer->vector_count == 0) writer->vector_offset = offset;
  writer->vectors[writer->vector_count++] = (struct io_vector){(void *)bytes, size};
  writer->vector_end = offset + size;
}

/* ---- a chunk's content ---- */

/* A part of a chunk: bytes of a piece, or, with no piece, the zeros between two. */
struct stretch {
  const struct run *run;
  const struct piece *piece;
  uint64_t start; /* address, or offset in the object */
  uint64_t size;
  uint64_t content_offset;
};

static size_t first_run(const struct capture *capture, uint64_t content_offset) {
  size_t low = 0, high = capture->runs.count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const struct run *run = list_at(&capture->runs, struct run, middle);
    if (run->content_offset + run->size <= content_offset) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static uint32_t first_piece(const struct capture *capture, const struct run *run, uint64_t address) {
  uint32_t low = 0, high = run->piece_count;
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    if (list_at(&capture->pieces, struct piece, run->first_piece + middle)->end <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/* Calls `each` for the stretches of a chunk, in order, until it returns false. */
static void for_each_stretch(const struct capture *capture, const struct warp_chunk_record *chunk, bool (*each)(void *context, const struct stretch *stretch), void *context) {
  const uint64_t start = chunk->content_offset, end = start + chunk->content_size;
  for (size_t r = first_run(capture, start); r < capture->runs.count; r++) {
    const struct run *run = list_at(&capture->runs, struct run, r);
    if (run->content_offset >= end) break;
    uint64_t from = run->address + (max_u64(start, run->content_offset) - run->content_offset);
    const uint64_t to = run->address + (min_u64(end, run->content_offset + run->size) - run->content_offset);
    for (uint32_t p = first_piece(capture, run, from); p < run->piece_count && from < to; p++) {
      const struct piece *piece = list_at(&capture->pieces, struct piece, run->first_piece + p);
      if (piece->start > from) {
        const struct stretch zeros = {run, NULL, from, min_u64(piece->start, to) - from, run->content_offset + from - run->address};
        if (!each(context, &zeros)) return;
        from += zeros.size;
      }
      if (from >= to) break;
      const struct stretch bytes = {run, piece, from, min_u64(piece->end, to) - from, run->content_offset + from - run->address};
      if (!each(context, &bytes)) return;
      from += bytes.size;
    }
  }
}

/* The bytes of a stretch, in place or in `copy`; NULL with the error set when they cannot be read. */
static const uint8_t *read_stretch(struct writer *writer, const struct stretch *stretch, uint8_t *copy) {
  const uint8_t *bytes;
  const long n = capture_read(writer->capture, stretch->run, stretch->start, stretch->size, copy, &bytes);
  if (n < 0) {
    writer->error = n;
    writer->error_offset = stretch->content_offset;
    return NULL;
  }
  return bytes;
}

/* ---- plain ---- */

static const uint8_t zero_page[PAGE_SIZE];

static bool write_stretch(void *context, const struct stretch *stretch) {
  struct writer *writer = context;
  if (stretch->piece == NULL) {
    for (uint64_t left = stretch->size; left > 0; left -= min_u64(left, sizeof zero_page)) xxh64_update(&writer->hash, zero_page, min_u64(left, sizeof zero_page));
    return true;
  }
  const uint8_t *bytes = read_stretch(writer, stretch, writer->buffer + (stretch->content_offset - writer->chunk->content_offset));
  if (bytes == NULL) return false;
  xxh64_update(&writer->hash, bytes, stretch->size);
  put_bytes(writer, bytes, stretch->size, stretch->content_offset);
  return true;
}

static void write_chunk(struct writer *writer, struct warp_chunk_record *chunk) {
  writer->chunk = chunk;
  xxh64_begin(&writer->hash);
  for_each_stretch(writer->capture, chunk, write_stretch, writer);
  flush(writer);
  chunk->content_hash = chunk->stored_hash = xxh64_end(&writer->hash);
}

/* ---- compressed or encrypted ---- */

/* A chunk's content in one piece: where it is in memory, when that is one stretch, else in `buffer`. */
struct gathering {
  struct writer *writer;
  const struct warp_chunk_record *chunk;
  uint8_t *buffer;
  const uint8_t *content;
};

static bool gather_stretch(void *context, const struct stretch *stretch) {
  struct gathering *gathering = context;
  uint8_t *to = gathering->buffer + (stretch->content_offset - gathering->chunk->content_offset);
  gathering->content = gathering->buffer;
  if (stretch->piece == NULL) {
    fill_bytes(to, 0, stretch->size);
    return true;
  }
  const uint8_t *bytes = read_stretch(gathering->writer, stretch, to);
  if (bytes != NULL && stretch->size == gathering->chunk->content_size) {
    gathering->content = bytes;
  } else if (bytes != NULL && bytes != to) {
    copy_bytes(to, bytes, stretch->size);
  }
  return bytes != NULL;
}

static const uint8_t *gather(struct writer *writer, const struct warp_chunk_record *chunk, uint8_t *buffer) {
  struct gathering gathering = {writer, chunk, buffer, buffer};
  for_each_stretch(writer->capture, chunk, gather_stretch, &gathering);
  return writer->error == 0 ? gathering.content : NULL;
}

/*
 * Chunks by their content: each place of the table is 0, or 1 more than the number of a chunk whose hash is set. A chunk with the same content
 * as an earlier one is stored with that; which one goes to `same_as` (1 more than its number), and is followed up at the end.
 */
static uint32_t *known_chunks, *same_as;
static size_t known_mask;

/* The number of a chunk with the same content, or `number` itself, which is then known. */
static size_t find_same(struct writer *writer, size_t number, const uint8_t *content) {
  const struct capture *capture = writer->capture;
  const struct warp_chunk_record *chunk = table_at(&capture->chunks, struct warp_chunk_record, number);
  for (size_t place = chunk->content_hash & known_mask;; place = (place + 1) & known_mask) {
    uint32_t known = 0;
    if (__atomic_compare_exchange_n(&known_chunks[place], &known, (uint32_t)number + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return number;
    const struct warp_chunk_record *other = table_at(&capture->chunks, struct warp_chunk_record, known - 1);
    if (other->content_hash != chunk->content_hash || other->content_size != chunk->content_size) continue;
    const uint8_t *others = gather(writer, other, writer->other);
    if (others != NULL && compare_bytes(content, others, chunk->content_size) == 0) return known - 1;
  }
}

static size_t stored_size(const struct capture *capture, const struct warp_chunk_record *chunk) { return chunk->stored_size + (capture->sealing != NULL ? TAG_SIZE : 0ul); }

/* The chunk's stored bytes go to `to`, encrypted where that was asked for. */
static void store(struct writer *writer, size_t number, const uint8_t *content, uint8_t *to) {
  struct capture *capture = writer->capture;
  struct warp_chunk_record *chunk = table_at(&capture->chunks, struct warp_chunk_record, number);
  const int level = (int)capture->request->lz4_level;
  if (level > 0) {
    chunk_store(chunk, content, level, to, writer->workspace);
    content = to;
  } else {
    chunk->flags = WARP_CHUNK_PLAIN;
    chunk->stored_size = chunk->content_size;
    chunk->stored_hash = chunk->content_hash;
  }
  if (capture->sealing == NULL) return;
  struct warp_chunk_record *encrypted = table_at(&capture->encrypted_chunks, struct warp_chunk_record, number);
  *encrypted = (struct warp_chunk_record){.content_offset = chunk->content_offset, .content_size = chunk->content_size, .stored_size = (uint32_t)stored_size(capture, chunk), .flags = chunk->flags | WARP_CHUNK_ENCRYPTED};
  chunk_encrypt(&capture->sealing->cipher, chunk, content, to);
  encrypted->stored_hash = xxh64(to, encrypted->stored_size);
}

/* Compresses or encrypts a few chunks and writes them together. */
static void write_batch(struct writer *writer, size_t first, size_t end) {
  struct capture *capture = writer->capture;
  /* What is not compressed has its place: see plan_places. */
  const uint64_t planned = capture->request->lz4_level > 0 ? 0 : table_at(&capture->chunks, struct warp_chunk_record, first)->file_offset;
  size_t used = 0;
  for (size_t i = first; i < end; i++) {
    struct warp_chunk_record *chunk = table_at(&capture->chunks, struct warp_chunk_record, i);
    const uint8_t *content = gather(writer, chunk, writer->buffer);
    if (content == NULL) return;
    chunk->content_hash = xxh64(content, chunk->content_size);
    /* Encrypted chunks are not stored with others: each has a nonce of its own. */
    const size_t same = capture->sealing != NULL ? i : find_same(writer, i, content);
    if (writer->error != 0) return;
    if (same != i) {
      same_as[i] = (uint32_t)same + 1;
      continue;
    }
    store(writer, i, content, writer->output + used);
    chunk->file_offset = used;
    used += stored_size(capture, chunk);
  }
  const uint64_t offset = planned != 0 ? planned : __atomic_fetch_add(&capture->file_end, used, __ATOMIC_RELAXED);
  for (size_t i = first; i < end; i++) table_at(&capture->chunks, struct warp_chunk_record, i)->file_offset += offset;
  writer->error = pwrite_fully(capture->image_fd, writer->output, used, offset);
  writer->error_offset = offset;
  writer->written += used;
}

static void follow_same(struct capture *capture) {
  for (size_t i = 0; i < capture->chunks.records.count; i++) {
    struct warp_chunk_record *chunk = table_at(&capture->chunks, struct warp_chunk_record, i);
    if (same_as[i] == 0) continue;
    const struct warp_chunk_record *same = table_at(&capture->chunks, struct warp_chunk_record, same_as[i] - 1);
    chunk->file_offset = same->file_offset;
    chunk->stored_size = same->stored_size;
    chunk->stored_hash = same->stored_hash;
    chunk->flags = same->flags;
    capture->repeated_bytes += chunk->content_size;
  }
}

/* Encrypted chunks of a plain image lie in the file in the order of their content. */
static void plan_places(struct capture *capture) {
  for (size_t i = 0; i < capture->chunks.records.count; i++) {
    struct warp_chunk_record *chunk = table_at(&capture->chunks, struct warp_chunk_record, i);
    chunk->file_offset = capture->file_end;
    capture->file_end += chunk->content_size + TAG_SIZE;
  }
}

static const struct table *sorted_chunks;
static bool lies_before(const void *a, const void *b) {
  return table_at(sorted_chunks, struct warp_chunk_record, *(const uint32_t *)a)->file_offset < table_at(sorted_chunks, struct warp_chunk_record, *(const uint32_t *)b)->file_offset;
}

/*
 * So far the chunk index says where the encrypted chunks are: that is what the open index tells, and the sealed one where they would be without
 * encryption. In a compressed image those are next to each other, in a plain one at their content's offsets.
 */
static void place_sealed(struct capture *capture, struct arena *scratch) {
  struct list order;
  list_init(&order, scratch, sizeof(uint32_t));
  for (uint32_t i = 0; i < capture->chunks.records.count; i++) {
    table_at(&capture->encrypted_chunks, struct warp_chunk_record, i)->file_offset = table_at(&capture->chunks, struct warp_chunk_record, i)->file_offset;
    *(uint32_t *)list_add(&order) = i;
  }
  sorted_chunks = &capture->chunks;
  list_sort(&order, lies_before);
  capture->sealed_end = capture->metadata_size;
  for (size_t i = 0; i < order.count; i++) {
    struct warp_chunk_record *chunk = table_at(&capture->chunks, struct warp_chunk_record, *list_at(&order, uint32_t, i));
    chunk->file_offset = capture->request->lz4_level > 0 ? capture->sealed_end : chunk->content_offset;
    capture->sealed_end = chunk->file_offset + chunk->stored_size;
  }
  if (capture->request->lz4_level == 0) capture->sealed_end = capture->content_end;
}

/* ---- all of them ---- */

static void write_chunks(struct writer *writer) {
  struct capture *capture = writer->capture;
  if (__builtin_setjmp(writer->reader.frame) != 0) {
    writer->error = -EFAULT;
    return;
  }
  reading_add(capture, &writer->reader);
  const bool compressed = capture->request->lz4_level > 0, packed = compressed || capture->sealing != NULL;
  const size_t step = compressed ? BATCH / capture->chunk_size : 1, count = capture->chunks.records.count;
  while (writer->error == 0) {
    size_t index = __atomic_fetch_add(&next_chunk, step, __ATOMIC_RELAXED);
    if (index >= count) break;
    if (packed) {
      write_batch(writer, index, min_u64(index + step, count));
    } else {
      write_chunk(writer, table_at(&capture->chunks, struct warp_chunk_record, index));
    }
    if (writer == first_writer && index % (8 * step) == 0) {
      client_send(capture->request, "P%lu %lu", table_at(&capture->chunks, struct warp_chunk_record, index)->content_offset, capture->content_end);
      if (!client_waits(capture->request)) writer->error = -ECANCELED;
    }
  }
}

/* The helper's own stack is in the image, and may not have anything of the key. */
static long write_chunks_elsewhere(void *argument) {
  write_chunks(argument);
  return 0;
}

static void writer_thread(void *argument) {
  struct writer *writer = argument;
  write_chunks(writer);
  sys(exit, 0);
}

#define WRITER_STACK_SIZE (64 * KIB)
/* One has little to do beside waiting for the kernel; compressing takes a processor's time. */
#define MOST_WRITERS 4
#define MOST_COMPRESSORS 16

int capture_write_memory(struct capture *capture) {
  /* Memory of the writers is not the capture's: it must not be in the way of the areas that have been listed. */
  struct arena scratch = {NULL};
  const bool compressed = capture->request->lz4_level > 0, packed = compressed || capture->sealing != NULL;
  size_t count = min_u64(min_u64(processor_count(), packed ? MOST_COMPRESSORS : MOST_WRITERS), 1 + capture->content_end / (8 * MIB));
  next_chunk = 0;
  for (size_t i = 0; capture->sealing != NULL && i < capture->chunks.records.count; i++) table_add(&capture->encrypted_chunks);
  if (capture->sealing != NULL && !compressed) plan_places(capture);
  if (compressed) {
    for (known_mask = 63; known_mask < 2 * capture->chunks.records.count; known_mask = 2 * known_mask + 1) continue;
    known_chunks = arena_allocate(&scratch, (known_mask + 1) * sizeof *known_chunks);
    same_as = arena_allocate(&scratch, capture->chunks.records.count * sizeof *same_as + 1);
  }
  struct writer *writers = arena_allocate(&scratch, count * sizeof *writers);
  for (size_t i = 0; i < count; i++) {
    struct writer *writer = &writers[i];
    writer->capture = capture;
    writer->buffer = arena_allocate(&scratch, capture->chunk_size);
    if (compressed) {
      writer->other = arena_allocate(&scratch, capture->chunk_size);
      writer->workspace = arena_allocate(&scratch, LZ4_WORKSPACE);
    }
    if (packed) writer->output = arena_allocate(&scratch, BATCH + BATCH / capture->chunk_size * TAG_SIZE);
  }
  first_writer = writers;
  size_t started = 1;
  for (; started < count; started++) {
    uint8_t *stack = arena_allocate(&scratch, WRITER_STACK_SIZE);
    writers[started].alive = 1;
    if (arch_clone(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID, stack + WRITER_STACK_SIZE, NULL, &writers[started].alive, 0, writer_thread, &writers[started]) < 0) break;
  }
  if (capture->sealing != NULL) {
    uint8_t *stack = arena_allocate(&scratch, WRITER_STACK_SIZE);
    arch_call_on_stack(write_chunks_elsewhere, writers, stack + WRITER_STACK_SIZE);
  } else {
    write_chunks(writers);
  }
  int result = 0;
  for (size_t i = 0; i < started; i++) {
    struct writer *writer = &writers[i];
    /* The kernel's wake-up at a thread's end is not a private one. */
    while (i > 0 && __atomic_load_n(&writer->alive, __ATOMIC_ACQUIRE) != 0) sys(futex, &writer->alive, FUTEX_WAIT, 1, NULL);
    capture->bytes_written += writer->written;
    if (writer->error == -ECANCELED) {
      result = fail(capture->failure, "the checkpoint command went away");
    } else if (writer->error < 0) {
      result = fail(capture->failure, "cannot write %s/core.img at offset 0x%lx: %s", capture->request->directory, writer->error_offset, error_text(writer->error));
    }
  }
  capture->readers = NULL;
  if (compressed && result == 0) follow_same(capture);
  if (capture->sealing != NULL && result == 0) place_sealed(capture, &scratch);
  arena_release(&scratch);
  return result;
}
