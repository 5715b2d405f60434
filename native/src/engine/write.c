/* Writing memory into the image: chunks with hashes, compressed and encrypted where that was asked for, and the thread ids in them. */
#include <linux/futex.h>
#include <linux/sched.h>

#include "../base/lz4.h"
#include "../image/chunks.h"
#include "engine.h"

#define TID_CANDIDATES 1024

/* What compressed chunks that are written at once have in memory: they lie in the file in the order of their content. */
#define BATCH CHUNK_LARGEST

struct writer {
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
  uint32_t lowest_tid;
  uint32_t tid_span;
  struct warp_tid_reference_record references[TID_CANDIDATES];
  size_t reference_count;
  bool references_full;
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

static bool is_thread_id(const struct capture *capture, uint32_t tid) {
  for (size_t i = 0; i < capture->freeze->count; i++)
    if (capture->freeze->slots[i].tid == tid && capture->freeze->slots[i].state != SLOT_GONE) return true;
  return false;
}

static void add_reference(struct writer *writer, uint64_t address, uint32_t tid, uint32_t kind) {
  if (writer->reference_count == TID_CANDIDATES) {
    writer->references_full = true;
    return;
  }
  writer->references[writer->reference_count++] = (struct warp_tid_reference_record){address, tid, kind};
}

#define FUTEX_TID 0x3fffffffu

/*
 * The same for the writer of a write-locked pthread_rwlock_t, whose unlock asks who holds it (glibc,
 * sysdeps/x86/nptl/bits/struct_rwlock.h: readers, writers, two futex words, two pads, the writer, shared, pads, kind).
 */
static void check_writer(struct writer *writer, const uint32_t *at, uint64_t address, size_t words_before, size_t words_after) {
  if (words_before < 6 || words_after < 7) return;
  bool write_locked = (at[-6] & 3) == 3 && at[-5] <= 0xffff, futexes = at[-4] <= 3 && at[-3] <= 3 && (at[-3] & 1) == 1;
  bool padded = (at[-2] | at[-1] | at[3] | at[4] | at[5]) == 0 && (at[2] & ~0xffu) == 0;
  if (write_locked && padded && futexes && at[1] <= 1 && at[6] <= 2 && is_thread_id(writer->capture, at[0])) add_reference(writer, address, at[0], WARP_TID_MUTEX);
}

/*
 * Whether the word at `at` (in a page that is a copy of `address`) is the owner field of a locked mutex whose owner matters:
 * recursive, error-checking, robust or priority-inheriting. Layouts: glibc, sysdeps/nptl/bits/struct_mutex.h (lock, count,
 * owner, nusers, kind); musl, src/internal/pthread_impl.h (type, lock, waiters, previous, next, count).
 */
static void check_owner(struct writer *writer, const uint32_t *at, uint64_t address, size_t words_before, size_t words_after) {
  if (engine_on_glibc()) {
    check_writer(writer, at, address, words_before, words_after);
    if (words_before < 2 || words_after < 8) return;
    uint32_t lock = at[-2], count = at[-1], owner = at[0], users = at[1], kind = at[2];
    bool robust_or_pi = (kind & 0x30) != 0;
    /* A mutex that is in no list has none: of integers in a row, few have zeros there. */
    if (!robust_or_pi && ((at[2] & 3) == 0 || (at[4] | at[5] | at[6] | at[7]) != 0 || at[3] > 0xffff)) return;
    bool typed = (kind & 3) == 1 || (kind & 3) == 2;
    if ((kind & ~0x3f3u) != 0 || (!robust_or_pi && !typed) || users == 0 || users > 0xffff || !is_thread_id(writer->capture, owner)) return;
    if (robust_or_pi ? (lock & FUTEX_TID) != owner : lock != 1 && lock != 2) return;
    if ((kind & 3) == 1 ? count == 0 || count > 0xffffff : count > 1) return;
    add_reference(writer, address, owner, WARP_TID_MUTEX);
    if (robust_or_pi) add_reference(writer, address - 8, owner, WARP_TID_FUTEX);
  } else {
    if (words_before < 1 || words_after < 9) return;
    /* musl links every mutex with an owner into the owner's list (pthread_mutex_trylock.c): what comes before points back. */
    uint64_t previous, back = 0;
    copy_bytes(&previous, &at[5], sizeof previous);
    if (read_fully(writer->capture->process_memory, &back, sizeof back, previous) != sizeof back || back != address - 4 + 32) return;
    uint32_t type = at[-1], owner = at[0] & FUTEX_TID, count = at[4];
    if (type == 0 || (type & ~0x8fu) != 0 || (type & 3) == 3 || count > 0xffffff || !is_thread_id(writer->capture, owner)) return;
    add_reference(writer, address, owner, WARP_TID_MUTEX);
  }
}

/*
 * Finds what may be owner fields: 32-bit words in the range of the process's thread ids, at the offset that the C library's layout gives.
 * `before` and `after` are the bytes around that can be looked at, too, for mutexes that lie across a border.
 */
__attribute__((optimize("O3"))) static void find_tid_references(struct writer *writer, const uint8_t *bytes, size_t size, uint64_t address, size_t before, size_t after) {
  const uint32_t lowest = writer->lowest_tid, span = writer->tid_span;
  const size_t first = engine_on_glibc() ? 0 : 1;
  const uint32_t mask = engine_on_glibc() ? ~0u : FUTEX_TID; /* musl keeps the owner in the futex word, with its flags */
  const uint32_t *words = (const uint32_t *)bytes;
  const size_t count = size / 4;
  for (size_t block = 0; block < count; block += 64) {
    uint32_t hits = 0;
    /* All words, not only those that may be owners: a row without gaps is compared many at a time. */
    for (size_t i = 0; i < 64; i++) hits |= (words[block + i] & mask) - lowest <= span;
    if (hits == 0) continue;
    for (size_t i = first; i < 64; i += 2)
      if ((words[block + i] & mask) - lowest <= span) check_owner(writer, &words[block + i], address + (block + i) * 4, before / 4 + block + i, after / 4 + count - block - i);
  }
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

/* The bytes of a stretch, in place or in `copy`, looked through for thread ids; NULL with the error set when they cannot be read. */
static const uint8_t *read_stretch(struct writer *writer, const struct stretch *stretch, uint8_t *copy) {
  const struct run *run = stretch->run;
  const uint8_t *bytes;
  const long n = capture_read(writer->capture, run, stretch->start, stretch->size, copy, &bytes);
  if (n < 0) {
    writer->error = n;
    writer->error_offset = stretch->content_offset;
    return NULL;
  }
  /* Mutexes in shared memory are corrected through a mapping of it. */
  const uint64_t address = run->source == SOURCE_OBJECT ? capture_object_address(list_at(&writer->capture->object_sources, struct object_source, run->object), stretch->start) : stretch->start;
  if (address != 0 && !is_engine_memory(address, address + stretch->size)) {
    const bool in_place = bytes == (const uint8_t *)address;
    find_tid_references(writer, bytes, stretch->size, address, in_place ? stretch->start - stretch->piece->start : 0, in_place ? stretch->piece->end - stretch->start - stretch->size : 0);
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
    /* Thread ids in it have been found when it was stored. */
    const size_t references = writer->reference_count;
    const uint8_t *others = gather(writer, other, writer->other);
    writer->reference_count = references;
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
  uint32_t lowest = UINT32_MAX, highest = 0;
  for (size_t i = 0; i < capture->freeze->count; i++) {
    const struct slot *slot = &capture->freeze->slots[i];
    if (slot->state == SLOT_GONE) continue;
    lowest = lowest < slot->tid ? lowest : slot->tid;
    highest = highest > slot->tid ? highest : slot->tid;
  }
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
    writer->lowest_tid = lowest;
    writer->tid_span = highest - lowest;
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
    if (writer->references_full) result = fail(capture->failure, "more than %u mutexes that record their owner are locked: the program must hold fewer at a checkpoint", TID_CANDIDATES);
    for (size_t k = 0; k < writer->reference_count; k++) {
      struct warp_tid_reference_record *reference = table_add(&capture->tid_references);
      *reference = writer->references[k];
    }
  }
  if (compressed && result == 0) follow_same(capture);
  if (capture->sealing != NULL && result == 0) place_sealed(capture, &scratch);
  arena_release(&scratch);
  return result;
}
