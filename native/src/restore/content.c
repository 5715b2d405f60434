/*
 * The image's content on its way into memory, by as many threads as there are processors. Of compressed and encrypted images, and of any that are to be
 * checked, whole chunks are read, and each is compared with its hash (or tag) while it is still in the processor's cache; of others the wanted
 * stretches only.
 */
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "restore.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Up to this size checking every byte takes a few milliseconds: it is always done. */
#define ALWAYS_CHECKED (16 * MIB)
/* Read, and hashed, at once. */
#define STEP (256 * KIB)
/* What no chunk borders, is shared out in pieces of this size. */
#define UNIT MIB
/* A thread more for each of these. */
#define LOADER_WORTH (4 * MIB)
#define LOADER_STACK_SIZE (64 * KIB)
#define WORTH_POPULATING (16 * KIB)
#define NO_CHUNK SIZE_MAX

int open_content(struct restore *restore) {
  struct image *image = &restore->image;
  struct content *content = &restore->content;
  const uint64_t size = image->anchor.file_size - image->anchor.metadata_size;
  content->compressed = (image->anchor.flags & WARP_IMAGE_COMPRESSED) != 0;
  content->encrypted = restore->decryption.encrypted;
  const bool packed = content->compressed || content->encrypted;
  content->check_all = restore->options.verify || (!restore->concurrent && !packed && (!restore->options.direct_map || size <= ALWAYS_CHECKED));
  if (!packed && !content->check_all && !restore->concurrent) return 0;
  if (image_read_chunks(image, &restore->arena, &restore->failure) < 0) return -1;
  content->index = (struct chunk_index){.path = image->path, .fd = restore->image_fd, .records = image->chunks.records, .count = image->chunks.count, .cipher = content->encrypted ? &restore->decryption.cipher : NULL};
  content->indexed = true;
  content->taken = arena_allocate(&restore->arena, image->chunks.count + 1);
  return chunks_check(&content->index, content->encrypted ? restore->decryption.file_size : image->anchor.file_size, &restore->failure);
}

/* ---- one unit: a chunk, or a stretch of an image whose chunks do not matter ---- */

struct unit {
  uint64_t start;
  uint64_t end;
  size_t chunk;
  size_t first_target; /* the first that may have something in it */
};

struct job {
  struct restore *restore;
  const struct target *targets;
  size_t target_count;
  const struct unit *units;
  size_t unit_count;
  size_t next;
  bool failed;
};

struct loader {
  struct job *job;
  long pid;
  struct failure failure;
  uint8_t *content; /* CHUNK_LARGEST bytes */
  uint8_t *stored;  /* CHUNK_ROOM bytes */
  struct io_vector vectors[256];
  size_t vector_count;
  uint64_t offset; /* in the file, of the first vector */
  uint64_t size;   /* of all vectors */
  struct xxh64_state hash;
  uint64_t loaded, read, reads;
};

/* Pages for what is about to be written, at once instead of fault by fault. */
static int populate(struct loader *loader, uint64_t address, uint64_t size) {
  if (size < WORTH_POPULATING) return 0;
  const uint64_t start = round_down(address, PAGE_SIZE), end = round_up(address + size, PAGE_SIZE);
  const long error = sys(madvise, start, end - start, MADV_POPULATE_WRITE);
  if (error >= 0 || error == -EINVAL) return 0; /* Linux before 5.14 does not know it */
  return fail(&loader->failure, "no memory for 0x%lx-0x%lx: %s: raise the memory limit", start, end, error_text(error));
}

static int flush(struct loader *loader, bool hashed) {
  const struct restore *restore = loader->job->restore;
  struct io_vector *vector = loader->vectors;
  while (loader->vector_count > 0) {
    long n = sys(preadv, restore->image_fd, vector, loader->vector_count, loader->offset, 0);
    if (n == -EINTR) continue;
    if (n <= 0) return fail(&loader->failure, "%s: cannot be read at offset 0x%lx: %s", restore->image.path, loader->offset, n == 0 ? "the file ends" : error_text(n));
    loader->reads++;
    loader->read += (uint64_t)n;
    loader->offset += (uint64_t)n;
    while (n > 0) {
      const size_t take = min_u64((uint64_t)n, vector->length);
      if (hashed) xxh64_update(&loader->hash, vector->base, take);
      vector->base = (uint8_t *)vector->base + take;
      vector->length -= take;
      n -= (long)take;
      if (vector->length == 0) vector++, loader->vector_count--;
    }
  }
  loader->size = 0;
  return 0;
}

/* Has `size` bytes of the file read to `address`, after what is waiting to be read. */
static int add_read(struct loader *loader, uint64_t offset, uint64_t size, uint64_t address, bool hashed) {
  while (size > 0) {
    const bool follows = loader->vector_count > 0 && loader->offset + loader->size == offset;
    const bool full = loader->size >= STEP || loader->vector_count == sizeof loader->vectors / sizeof loader->vectors[0];
    if ((!follows || full) && flush(loader, hashed) < 0) return -1;
    if (loader->vector_count == 0) loader->offset = offset;
    const uint64_t take = min_u64(size, STEP - min_u64(loader->size, STEP - 1));
    loader->vectors[loader->vector_count++] = (struct io_vector){(void *)address, take};
    loader->size += take;
    offset += take;
    address += take;
    size -= take;
  }
  return 0;
}

/* Straight into the targets. Of a chunk that is to be compared with its hash, what no target wants is read too. */
static int load_in_place(struct loader *loader, const struct unit *unit, uint64_t file_offset) {
  const struct job *job = loader->job;
  const bool hashed = unit->chunk != NO_CHUNK;
  uint64_t at = unit->start;
  for (size_t i = unit->first_target; i < job->target_count && job->targets[i].offset < unit->end; i++) {
    const struct target *target = &job->targets[i];
    const uint64_t start = max_u64(target->offset, unit->start), end = min_u64(target->offset + target->size, unit->end);
    if (start >= end) continue;
    const uint64_t address = target->address + (start - target->offset);
    if (hashed && add_read(loader, file_offset + (at - unit->start), start - at, (uint64_t)loader->content + (at - unit->start), true) < 0) return -1;
    if (populate(loader, address, end - start) < 0 || add_read(loader, file_offset + (start - unit->start), end - start, address, hashed) < 0) return -1;
    loader->loaded += end - start;
    at = end;
  }
  if (hashed && add_read(loader, file_offset + (at - unit->start), unit->end - at, (uint64_t)loader->content + (at - unit->start), true) < 0) return -1;
  return flush(loader, hashed);
}

/* Where the program has the first byte of a unit that it has; 0 for nowhere. */
static uint64_t unit_address(const struct job *job, const struct unit *unit) {
  for (size_t i = unit->first_target; i < job->target_count && job->targets[i].offset < unit->end; i++) {
    const struct target *target = &job->targets[i];
    if (target->offset + target->size > unit->start) return target->address + (max_u64(target->offset, unit->start) - target->offset);
  }
  return 0;
}

static int load_chunk(struct loader *loader, const struct unit *unit) {
  const struct job *job = loader->job;
  struct content *content = &job->restore->content;
  const struct warp_chunk_record *chunk = &content->index.records[unit->chunk];
  const uint64_t address = unit_address(job, unit);
  bool whole = false, overlapping = false;
  uint64_t reached = unit->start;
  for (size_t i = unit->first_target; i < job->target_count && job->targets[i].offset < unit->end; i++) {
    const struct target *target = &job->targets[i];
    if (target->offset + target->size <= unit->start) continue;
    whole |= target->offset <= unit->start && target->offset + target->size >= unit->end;
    overlapping |= max_u64(target->offset, unit->start) < reached;
    reached = max_u64(reached, target->offset + target->size);
  }
  if (chunk->flags == WARP_CHUNK_PLAIN && !overlapping) {
    xxh64_begin(&loader->hash);
    if (load_in_place(loader, unit, chunk->file_offset) < 0) return -1;
    const uint64_t hash = xxh64_end(&loader->hash);
    if (hash != chunk->content_hash) return chunk_fail_hash(&content->index, unit->chunk, hash, address, &loader->failure);
  } else {
    uint8_t *const to = whole && !overlapping ? (uint8_t *)address : loader->content;
    if (to != loader->content && populate(loader, address, unit->end - unit->start) < 0) return -1;
    if (chunk_read(&content->index, unit->chunk, to, loader->stored, address, &loader->failure) < 0) return -1;
    loader->reads++;
    loader->read += chunk->stored_size;
    for (size_t i = unit->first_target; i < job->target_count && job->targets[i].offset < unit->end; i++) {
      const struct target *target = &job->targets[i];
      const uint64_t start = max_u64(target->offset, unit->start), end = min_u64(target->offset + target->size, unit->end);
      if (start >= end) continue;
      loader->loaded += end - start;
      if (to != loader->content) continue;
      const uint64_t place = target->address + (start - target->offset);
      if (populate(loader, place, end - start) < 0) return -1;
      copy_bytes((void *)place, to + (start - unit->start), end - start);
    }
  }
  return 0;
}

/* ---- all of them ---- */

static void load_units(struct loader *loader) {
  struct job *job = loader->job;
  while (!__atomic_load_n(&job->failed, __ATOMIC_RELAXED)) {
    const size_t index = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
    if (index >= job->unit_count) break;
    const struct unit *unit = &job->units[index];
    if ((unit->chunk == NO_CHUNK ? load_in_place(loader, unit, unit->start) : load_chunk(loader, unit)) < 0) __atomic_store_n(&job->failed, true, __ATOMIC_RELAXED);
  }
}

static void loader_main(void *argument) {
  load_units(argument);
  sys(exit, 0);
}

static bool less_target(const void *a, const void *b) { return ((const struct target *)a)->offset < ((const struct target *)b)->offset; }

/* The units that the targets lie in, and with `check_rest` the chunks that none has been in yet; -1 when the index does not cover a target. */
static int find_units(struct restore *restore, const struct list *targets, bool check_rest, struct list *units) {
  struct content *content = &restore->content;
  uint64_t covered = 0;
  for (size_t i = 0; i < targets->count; i++) {
    const struct target *target = list_at(targets, struct target, i);
    for (uint64_t at = max_u64(target->offset, covered); at < target->offset + target->size; at = covered) {
      struct unit unit = {.start = round_down(at, UNIT), .end = round_down(at, UNIT) + UNIT, .chunk = NO_CHUNK, .first_target = i};
      if (content->indexed) {
        unit.chunk = chunks_find(&content->index, at);
        if (unit.chunk == content->index.count || content->index.records[unit.chunk].content_offset > at)
          return fail(&restore->failure, "%s: no chunk has the content at 0x%lx, memory at 0x%lx: the image is damaged: take it from its source again", restore->image.path, at, target->address + (at - target->offset));
        content->taken[unit.chunk] = true;
        unit.start = content->index.records[unit.chunk].content_offset;
        unit.end = unit.start + content->index.records[unit.chunk].content_size;
      }
      *(struct unit *)list_add(units) = unit;
      covered = unit.end;
    }
  }
  for (size_t i = 0; check_rest && i < content->index.count; i++) {
    const struct warp_chunk_record *chunk = &content->index.records[i];
    if (!content->taken[i]) *(struct unit *)list_add(units) = (struct unit){chunk->content_offset, chunk->content_offset + chunk->content_size, i, targets->count};
  }
  return 0;
}

/*
 * Loaders share memory and descriptors with the restorer, and are processes rather than threads: when wait4(2) returns, their ids are free
 * again, which the program's threads may need.
 */
static void start_loader(struct restore *restore, struct loader *loader) {
  uint8_t *stack = arena_allocate(&restore->arena, LOADER_STACK_SIZE);
  loader->pid = arch_clone(CLONE_VM | CLONE_FS | CLONE_FILES, stack + LOADER_STACK_SIZE, NULL, NULL, 0, loader_main, loader);
  if (loader->pid < 0) log_debug("no further thread to load with: %s", error_text(loader->pid));
}

static void end_loader(struct loader *loader) {
  int32_t status = 0;
  if (loader->pid <= 0) return;
  while (sys(wait4, loader->pid, &status, __WALL, NULL) == -EINTR) continue;
  if (status != 0) fail(&loader->failure, "a thread that loads memory was ended (status 0x%x): the memory limit may be too low", status);
}

int load_content(struct restore *restore, struct list *targets, bool check_rest) {
  struct list units;
  uint64_t bytes = 0;
  list_init(&units, &restore->arena, sizeof(struct unit));
  list_sort(targets, less_target);
  if (find_units(restore, targets, check_rest, &units) < 0) return -1;
  for (size_t i = 0; i < units.count && restore->content.indexed; i++) bytes += list_at(&units, struct unit, i)->end - list_at(&units, struct unit, i)->start;
  for (size_t i = 0; i < targets->count && !restore->content.indexed; i++) bytes += list_at(targets, struct target, i)->size;
  struct job job = {.restore = restore, .targets = targets->items, .target_count = targets->count, .units = units.items, .unit_count = units.count};
  const size_t count = min_u64(min_u64(processor_count(), MOST_LOADERS), 1 + bytes / LOADER_WORTH);
  struct loader *loaders = arena_allocate(&restore->arena, count * sizeof *loaders);
  for (size_t i = 0; i < count; i++) {
    loaders[i].job = &job;
    if (!restore->content.indexed) continue;
    loaders[i].content = arena_allocate(&restore->arena, CHUNK_LARGEST);
    loaders[i].stored = arena_allocate(&restore->arena, CHUNK_ROOM);
  }
  for (size_t i = 1; i < count; i++) start_loader(restore, &loaders[i]);
  load_units(&loaders[0]);
  for (size_t i = 0; i < count; i++) {
    end_loader(&loaders[i]);
    if (loaders[i].failure.text[0] != 0) fail(&restore->failure, "%s", loaders[i].failure.text);
    restore->stats.eager_bytes += loaders[i].loaded;
    restore->stats.read_bytes += loaders[i].read;
    restore->stats.eager_reads += loaders[i].reads;
  }
  restore->stats.loaders = max_u64(restore->stats.loaders, count);
  return restore->failure.text[0] == 0 ? 0 : -1;
}
