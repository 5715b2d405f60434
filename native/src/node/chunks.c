#define _GNU_SOURCE
#include "chunks.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/lz4.h"
#include "../base/xxh64.h"
#include "search.h"

#define LARGEST_CHUNK (1u << 20)
/* With its worst expansion by LZ4 and an authentication tag. */
#define LARGEST_STORED (LARGEST_CHUNK + LARGEST_CHUNK / 255 + 64)
#define MOST_THREADS 256u
#define HOLE_BLOCK (64u * 1024)
/* What is read is hashed while it is in the processor's cache. */
#define HASH_STEP (256u * 1024)
#define NO_RECORD UINT32_MAX

/* One chunk on its way from the input to the output. */
struct slot {
  uint8_t *content;
  uint8_t *block;
  const uint8_t *stored; /* one of these */
  bool ready;
};

struct pool {
  struct chunk_work *work;
  void (*run)(struct pool *, uint32_t *workspace);
  size_t next; /* the record that is taken next */
  bool failed;

  pthread_mutex_t lock;
  pthread_cond_t room;
  struct slot *slots;
  size_t slot_count;
  uint8_t *compared;
  size_t placed; /* records before it have their place in the output */
  bool placing;
  uint32_t *seen; /* records by content_hash: a hash table with open addressing */
  size_t seen_mask;
};

static void fail(struct pool *pool, size_t chunk, bool in_output, int error) {
  pthread_mutex_lock(&pool->lock);
  struct chunk_work *work = pool->work;
  if (!pool->failed && error != 0) {
    work->error = error;
    work->error_in_output = in_output;
    work->error_chunk = chunk;
  }
  __atomic_store_n(&pool->failed, true, __ATOMIC_RELAXED);
  pthread_cond_broadcast(&pool->room);
  pthread_mutex_unlock(&pool->lock);
}

/* 0, or an errno. */
static int write_all(int fd, const uint8_t *bytes, size_t size, uint64_t offset) {
  while (size > 0) {
    ssize_t n = pwrite(fd, bytes, size, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    bytes += n, size -= (size_t)n, offset += (uint64_t)n;
  }
  return 0;
}

static size_t take_record(struct pool *pool) {
  if (__atomic_load_n(pool->work->cancelled, __ATOMIC_RELAXED) != 0) fail(pool, 0, false, ECANCELED);
  if (__atomic_load_n(&pool->failed, __ATOMIC_RELAXED)) return pool->work->count;
  return __atomic_fetch_add(&pool->next, 1, __ATOMIC_RELAXED);
}

/* ---- packing ---- */

/* The earlier record with the same content as `index`, which is then registered if there is none. */
static int find_equal(struct pool *pool, size_t index, const uint8_t *content, uint32_t *ret) {
  const struct chunk_work *work = pool->work;
  const struct warp_chunk_record *record = &work->records[index];
  *ret = NO_RECORD;
  for (size_t at = record->content_hash & pool->seen_mask;; at = (at + 1) & pool->seen_mask) {
    const uint32_t earlier = pool->seen[at];
    if (earlier == NO_RECORD) {
      pool->seen[at] = (uint32_t)index;
      return 0;
    }
    const struct warp_chunk_record *other = &work->records[earlier];
    if (other->content_hash != record->content_hash || other->content_size != record->content_size) continue;
    /* A hash can be made to match. */
    int error = read_all(work->input, pool->compared, other->content_size, other->content_offset);
    if (error != 0) return error;
    if (memcmp(pool->compared, content, record->content_size) != 0) continue;
    *ret = earlier;
    return 0;
  }
}

static int place(struct pool *pool, size_t index, const struct slot *slot) {
  struct chunk_work *work = pool->work;
  struct warp_chunk_record *record = &work->records[index];
  uint32_t equal;
  int error = find_equal(pool, index, slot->content, &equal);
  if (error != 0) {
    fail(pool, index, false, error);
    return -1;
  }
  if (equal != NO_RECORD) {
    const struct warp_chunk_record *other = &work->records[equal];
    record->file_offset = other->file_offset;
    record->stored_size = other->stored_size;
    record->stored_hash = other->stored_hash;
    record->flags = other->flags;
  } else {
    record->file_offset = work->end;
    work->end += record->stored_size;
    error = write_all(work->output, slot->stored, record->stored_size, record->file_offset);
    if (error != 0) {
      fail(pool, index, true, error);
      return -1;
    }
  }
  __atomic_fetch_add(work->progress, record->content_size, __ATOMIC_RELAXED);
  return 0;
}

/* Chunks are placed in order, by whoever finishes the one that is next: the output does not depend on the threads' speed. */
static void hand_over(struct pool *pool, size_t index) {
  pthread_mutex_lock(&pool->lock);
  pool->slots[index % pool->slot_count].ready = true;
  while (!pool->placing && !pool->failed && pool->placed < pool->work->count) {
    struct slot *slot = &pool->slots[pool->placed % pool->slot_count];
    if (!slot->ready) break;
    pool->placing = true;
    pthread_mutex_unlock(&pool->lock);
    int result = place(pool, pool->placed, slot);
    pthread_mutex_lock(&pool->lock);
    pool->placing = false;
    if (result < 0) break;
    slot->ready = false;
    pool->placed++;
    pthread_cond_broadcast(&pool->room);
  }
  pthread_mutex_unlock(&pool->lock);
}

static bool wait_for_slot(struct pool *pool, size_t index) {
  pthread_mutex_lock(&pool->lock);
  while (!pool->failed && index >= pool->placed + pool->slot_count) pthread_cond_wait(&pool->room, &pool->lock);
  bool failed = pool->failed;
  pthread_mutex_unlock(&pool->lock);
  return !failed;
}

static void pack_records(struct pool *pool, uint32_t *workspace) {
  const struct chunk_work *work = pool->work;
  for (size_t index; (index = take_record(pool)) < work->count && wait_for_slot(pool, index);) {
    struct warp_chunk_record *record = &work->records[index];
    struct slot *slot = &pool->slots[index % pool->slot_count];
    const size_t size = record->content_size;
    int error = read_all(work->input, slot->content, size, record->content_offset);
    if (error != 0) {
      fail(pool, index, false, error);
      return;
    }
    record->content_hash = xxh64(slot->content, size);
    size_t stored = lz4_compress(slot->content, size, slot->block, size - size / 32, work->level, workspace);
    slot->stored = stored > 0 ? slot->block : slot->content;
    record->flags = stored > 0 ? WARP_CHUNK_LZ4 : WARP_CHUNK_PLAIN;
    record->stored_size = (uint32_t)(stored > 0 ? stored : size);
    record->stored_hash = stored > 0 ? xxh64(slot->block, stored) : record->content_hash;
    hand_over(pool, index);
  }
}

/* ---- unpacking ---- */

static bool is_zero(const uint8_t *bytes, size_t size) { return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0; }

static int write_with_holes(int fd, const uint8_t *bytes, size_t size, uint64_t offset) {
  for (size_t from = 0; from < size;) {
    size_t to = from;
    while (to < size && !is_zero(bytes + to, size - to < HOLE_BLOCK ? size - to : HOLE_BLOCK)) to += size - to < HOLE_BLOCK ? size - to : HOLE_BLOCK;
    int error = to > from ? write_all(fd, bytes + from, to - from, offset + from) : 0;
    if (error != 0) return error;
    from = to < size ? to + (size - to < HOLE_BLOCK ? size - to : HOLE_BLOCK) : size;
  }
  return 0;
}

/*
 * Reads a chunk's content into `content`, of at least content_size bytes, or tells what is wrong with it. `stored` has LARGEST_STORED bytes.
 * `discard`: the content is only checked, and not in `content` then. 0, or an errno of the input.
 */
static int load(int input, uint64_t input_size, const struct warp_chunk_record *record, uint8_t *stored, uint8_t *content, bool discard, uint8_t *status) {
  const uint32_t codec = record->flags & ~(WARP_CHUNK_ENCRYPTED | WARP_CHUNK_IN_PARENT);
  *status = CHUNK_SKIPPED;
  if ((record->flags & WARP_CHUNK_IN_PARENT) != 0) return 0;
  *status = CHUNK_IMPOSSIBLE_SIZE;
  if (record->content_size == 0 || record->content_size > LARGEST_CHUNK || record->stored_size > LARGEST_STORED) return 0;
  *status = CHUNK_BEHIND_END;
  if (record->file_offset > input_size || record->stored_size > input_size - record->file_offset) return 0;
  /* What is stored as it is needs no second buffer. */
  const bool in_place = codec == WARP_CHUNK_PLAIN && record->stored_size == record->content_size;
  uint8_t *const bytes = in_place ? content : stored;
  struct xxh64_state hash;
  xxh64_begin(&hash);
  for (uint32_t done = 0; done < record->stored_size;) {
    const uint32_t left = record->stored_size - done, step = left < HASH_STEP ? left : HASH_STEP;
    uint8_t *const at = in_place && discard ? bytes : bytes + done;
    int error = read_all(input, at, step, record->file_offset + done);
    if (error != 0) return error;
    xxh64_update(&hash, at, step);
    done += step;
  }
  *status = CHUNK_WRONG_STORED_HASH;
  if (xxh64_end(&hash) != record->stored_hash) return 0;
  *status = CHUNK_SKIPPED;
  if ((record->flags & WARP_CHUNK_ENCRYPTED) != 0) return 0;
  *status = CHUNK_UNKNOWN_CODEC;
  if (codec != WARP_CHUNK_PLAIN && codec != WARP_CHUNK_LZ4) return 0;
  *status = CHUNK_WRONG_BLOCK;
  if (codec == WARP_CHUNK_PLAIN ? !in_place : !lz4_decompress(stored, record->stored_size, content, record->content_size)) return 0;
  const bool right = in_place ? record->stored_hash == record->content_hash : xxh64(content, record->content_size) == record->content_hash;
  *status = right ? CHUNK_GOOD : CHUNK_WRONG_CONTENT_HASH;
  return 0;
}

int chunks_load(int input, const struct warp_chunk_record *record, uint8_t *content, uint8_t *status) {
  static _Thread_local uint8_t *stored; /* a thread of the pool loads many */
  struct stat file;
  if (stored == NULL) stored = malloc(LARGEST_STORED);
  if (stored == NULL) return ENOMEM;
  return fstat(input, &file) != 0 ? errno : load(input, (uint64_t)file.st_size, record, stored, content, false, status);
}

static void unpack_records(struct pool *pool, uint32_t *workspace) {
  const struct chunk_work *work = pool->work;
  struct stat input;
  uint8_t *stored = malloc(LARGEST_STORED), *content = malloc(LARGEST_CHUNK);
  (void)workspace;
  int error = stored == NULL || content == NULL ? ENOMEM : fstat(work->input, &input) != 0 ? errno : 0;
  if (error != 0) fail(pool, 0, false, error);
  for (size_t index; error == 0 && (index = take_record(pool)) < work->count;) {
    const struct warp_chunk_record *record = &work->records[index];
    error = load(work->input, (uint64_t)input.st_size, record, stored, content, work->output < 0, &work->status[index]);
    if (error != 0) {
      fail(pool, index, false, error);
    } else if (work->output >= 0 && work->status[index] != CHUNK_GOOD) {
      fail(pool, index, false, 0);
    } else if (work->output >= 0) {
      error = write_with_holes(work->output, content, record->content_size, record->content_offset + (uint64_t)work->moved);
      if (error != 0) fail(pool, index, true, error);
    }
    __atomic_fetch_add(work->progress, record->content_size, __ATOMIC_RELAXED);
  }
  free(stored);
  free(content);
}

/* ---- threads ---- */

static void *thread_main(void *argument) {
  struct pool *pool = argument;
  uint32_t *workspace = malloc(LZ4_WORKSPACE);
  if (workspace == NULL) {
    fail(pool, 0, false, ENOMEM);
  } else {
    pool->run(pool, workspace);
  }
  free(workspace);
  return NULL;
}

/* On as many threads as can be had: one is always there. */
static int run_pool(struct pool *pool) {
  struct chunk_work *work = pool->work;
  pthread_t threads[MOST_THREADS];
  uint32_t started = 0;
  const uint32_t wanted = work->threads < MOST_THREADS ? work->threads : MOST_THREADS;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->room, NULL);
  while (started + 1 < wanted && started + 1 < work->count && pthread_create(&threads[started], NULL, thread_main, pool) == 0) started++;
  thread_main(pool);
  for (uint32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
  pthread_cond_destroy(&pool->room);
  pthread_mutex_destroy(&pool->lock);
  return work->error == 0 ? 0 : -1;
}

static int allocate(struct pool *pool) {
  const struct chunk_work *work = pool->work;
  uint32_t largest = 0;
  for (size_t i = 0; i < work->count; i++)
    if (work->records[i].content_size > largest) largest = work->records[i].content_size;
  if (largest > LARGEST_CHUNK || work->count >= NO_RECORD) return EINVAL;
  /* Twice as many as threads: a slow chunk does not keep the others waiting. */
  pool->slot_count = 2 * (size_t)work->threads + 1;
  pool->seen_mask = 15;
  while (pool->seen_mask < 2 * work->count) pool->seen_mask = 2 * pool->seen_mask + 1;
  pool->slots = calloc(pool->slot_count, sizeof *pool->slots);
  pool->seen = malloc((pool->seen_mask + 1) * sizeof *pool->seen);
  pool->compared = malloc(largest);
  if (pool->slots == NULL || pool->seen == NULL || pool->compared == NULL) return ENOMEM;
  memset(pool->seen, 0xff, (pool->seen_mask + 1) * sizeof *pool->seen);
  for (size_t i = 0; i < pool->slot_count; i++) {
    struct slot *slot = &pool->slots[i];
    slot->content = malloc(largest);
    slot->block = malloc(largest);
    if (slot->content == NULL || slot->block == NULL) return ENOMEM;
  }
  return 0;
}

static void release(struct pool *pool) {
  for (size_t i = 0; pool->slots != NULL && i < pool->slot_count; i++) {
    free(pool->slots[i].content);
    free(pool->slots[i].block);
  }
  free(pool->slots);
  free(pool->seen);
  free(pool->compared);
}

int chunks_pack(struct chunk_work *work) {
  struct pool pool = {.work = work, .run = pack_records};
  work->error = allocate(&pool);
  int result = work->error == 0 ? run_pool(&pool) : -1;
  release(&pool);
  return result;
}

int chunks_unpack(struct chunk_work *work) {
  struct pool pool = {.work = work, .run = unpack_records};
  return run_pool(&pool);
}
