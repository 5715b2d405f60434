/* Writing memory into the image: chunks with hashes, and the thread ids in them. */
#include <linux/futex.h>
#include <linux/sched.h>

#include "engine.h"

#define TID_CANDIDATES 1024

struct writer {
  struct capture *capture;
  uint8_t *buffer; /* CHUNK_SIZE bytes */
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

/* Finds what may be owner fields: 32-bit words in the range of the process's thread ids, at the offset that the C library's layout gives. */
__attribute__((optimize("O3"))) static void find_tid_references(struct writer *writer, const uint8_t *bytes, size_t size, uint64_t address) {
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
      if ((words[block + i] & mask) - lowest <= span) check_owner(writer, &words[block + i], address + (block + i) * 4, block + i, count - block - i);
  }
}

static void put_zeros(struct writer *writer, uint64_t size) {
  static const uint8_t zeros[4096];
  for (; size > 0; size -= min_u64(size, sizeof zeros)) xxh64_update(&writer->hash, zeros, min_u64(size, sizeof zeros));
}

static void put_piece(struct writer *writer, const struct run *run, uint64_t start, uint64_t size, uint64_t offset, uint8_t *copy) {
  const uint8_t *bytes;
  long n = capture_read(writer->capture, run, start, size, copy, &bytes);
  if (n < 0) {
    writer->error = n;
    writer->error_offset = offset;
    return;
  }
  xxh64_update(&writer->hash, bytes, size);
  /* Mutexes in shared memory are corrected through a mapping of it. */
  uint64_t address = run->source == SOURCE_OBJECT ? capture_object_address(list_at(&writer->capture->object_sources, struct object_source, run->object), start) : start;
  if (address != 0 && !is_engine_memory(address, address + size)) find_tid_references(writer, bytes, size, address);
  put_bytes(writer, bytes, size, offset);
}

static void write_chunk(struct writer *writer, struct warp_chunk_record *chunk, size_t *run_hint) {
  struct capture *capture = writer->capture;
  const uint64_t start = chunk->content_offset, end = start + chunk->content_size;
  xxh64_begin(&writer->hash);
  while (*run_hint + 1 < capture->runs.count && list_at(&capture->runs, struct run, *run_hint + 1)->content_offset <= start) ++*run_hint;
  for (size_t r = *run_hint; r < capture->runs.count && writer->error == 0; r++) {
    const struct run *run = list_at(&capture->runs, struct run, r);
    if (run->content_offset >= end) break;
    uint64_t from = run->address + (max_u64(start, run->content_offset) - run->content_offset);
    const uint64_t to = run->address + (min_u64(end, run->content_offset + run->size) - run->content_offset);
    for (uint32_t p = 0; p < run->piece_count && from < to; p++) {
      const struct piece *piece = list_at(&capture->pieces, struct piece, run->first_piece + p);
      if (piece->end <= from) continue;
      if (piece->start > from) {
        uint64_t gap = min_u64(piece->start, to) - from;
        put_zeros(writer, gap);
        from += gap;
      }
      if (from >= to) break;
      uint64_t size = min_u64(piece->end, to) - from;
      uint64_t offset = run->content_offset + from - run->address;
      put_piece(writer, run, from, size, offset, writer->buffer + (offset - start));
      from += size;
    }
  }
  flush(writer);
  chunk->content_hash = chunk->stored_hash = xxh64_end(&writer->hash);
}

static void write_chunks(struct writer *writer) {
  struct capture *capture = writer->capture;
  size_t run_hint = 0;
  while (writer->error == 0) {
    size_t index = __atomic_fetch_add(&next_chunk, 1, __ATOMIC_RELAXED);
    if (index >= capture->chunks.records.count) break;
    write_chunk(writer, table_at(&capture->chunks, struct warp_chunk_record, index), &run_hint);
    if (writer == first_writer && index % 8 == 0) {
      client_send(capture->request, "P%lu %lu", index * CHUNK_SIZE, capture->content_end);
      if (!client_waits(capture->request)) writer->error = -ECANCELED;
    }
  }
}

static void writer_thread(void *argument) {
  struct writer *writer = argument;
  write_chunks(writer);
  sys(exit, 0);
}

static size_t processor_count(void) {
  uint64_t mask[128];
  long n = sys(sched_getaffinity, 0, sizeof mask, mask);
  size_t count = 0;
  for (long i = 0; i < n / 8; i++)
    for (uint64_t bits = mask[i]; bits != 0; bits &= bits - 1) count++;
  return count == 0 ? 1 : count;
}

#define WRITER_STACK_SIZE (64 * KIB)
#define MOST_WRITERS 4

int capture_write_memory(struct capture *capture) {
  /* Memory of the writers is not the capture's: it must not be in the way of the areas that have been listed. */
  struct arena scratch = {NULL};
  size_t count = min_u64(min_u64(processor_count(), MOST_WRITERS), 1 + capture->content_end / (8 * CHUNK_SIZE));
  uint32_t lowest = UINT32_MAX, highest = 0;
  for (size_t i = 0; i < capture->freeze->count; i++) {
    const struct slot *slot = &capture->freeze->slots[i];
    if (slot->state == SLOT_GONE) continue;
    lowest = lowest < slot->tid ? lowest : slot->tid;
    highest = highest > slot->tid ? highest : slot->tid;
  }
  next_chunk = 0;
  struct writer *writers = arena_allocate(&scratch, count * sizeof *writers);
  for (size_t i = 0; i < count; i++) {
    struct writer *writer = &writers[i];
    writer->capture = capture;
    writer->buffer = arena_allocate(&scratch, CHUNK_SIZE);
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
  write_chunks(writers);
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
  arena_release(&scratch);
  return result;
}
