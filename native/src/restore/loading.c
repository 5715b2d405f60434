/*
 * What need not be there when the threads go on: it is left out of what the restorer loads, and listed for the engine, which
 * loads it while the program runs (native/src/engine/loading.c).
 *
 * What the kernel touches by itself, without a system call of the program, must be there: stacks (signal frames), restartable sequences,
 * robust lists, and what the restorer itself writes to.
 */
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/userfaultfd.h>

#include "restore.h"

/* Stacks that programs switch to by themselves have a guard before them. */
#define LARGEST_GUARD (64 * KIB)
#define LARGEST_STACK (64 * MIB)
/* Below this, loading takes less time than what loading later costs. */
#define WORTH_DEFERRING (8 * MIB)

#define PR_SET_SYSCALL_USER_DISPATCH_ 59

static bool dispatch_works(void) {
  uint8_t selector = 0;
  /* The range covers everything: no call of ours is ever held up. */
  if (sys(prctl, PR_SET_SYSCALL_USER_DISPATCH_, 1, 0, UINT64_MAX / 2, &selector) < 0) return false;
  return sys(prctl, PR_SET_SYSCALL_USER_DISPATCH_, 0, 0, 0, 0) == 0;
}

/* A file system may have no mmap(2) (some network and user-space ones). */
static bool can_be_mapped(const struct restore *restore) {
  const long page = sys(mmap, 0, PAGE_SIZE, PROT_READ, MAP_PRIVATE, restore->image_fd, 0);
  if (page < 0) return false;
  sys(munmap, page, PAGE_SIZE);
  return true;
}

/* Why content cannot, or shall not, be mapped from the image. */
static bool is_mapping_ruled_out(const struct restore *restore, struct choice *ret) {
  const uint32_t flags = restore->image.anchor.flags;
  if (restore->decryption.encrypted) {
    *ret = (struct choice){.reason = "encrypted", .explanation = "encrypted content cannot be mapped from the image"};
  } else if ((flags & WARP_IMAGE_COMPRESSED) != 0) {
    *ret = (struct choice){.reason = "compressed", .explanation = "compressed content cannot be mapped from the image"};
  } else if (!restore->options.direct_map) {
    *ret = (struct choice){.reason = "no-direct-map", .explanation = "--no-direct-map was given"};
  } else if ((flags & WARP_IMAGE_FIXED_CALLS) != 0) {
    *ret = (struct choice){.reason = "fixed-calls", .explanation = "the program may release memory by system calls that cannot be redirected, and would see the image's content again if it were mapped"};
  } else if (!can_be_mapped(restore)) {
    *ret = (struct choice){.reason = "not-mappable", .explanation = "the image's file system has no mmap"};
  } else if (nears_area_limit(restore)) {
    *ret = (struct choice){.reason = "area-limit", .explanation = "mapping the image might need more memory areas than vm.max_map_count allows"};
  } else {
    return false;
  }
  return true;
}

static struct choice eager(const char *reason, const char *explanation) { return (struct choice){.mode = MODE_EAGER, .reason = reason, .explanation = explanation}; }

static struct choice choose(const struct restore *restore) {
  const struct options *options = &restore->options;
  const uint64_t size = restore->image.anchor.file_size - restore->image.anchor.metadata_size;
  struct choice choice;
  const bool ruled_out = is_mapping_ruled_out(restore, &choice);
  if (options->concurrent == CONCURRENT_ALWAYS) {
    choice = (struct choice){.reason = "concurrent", .explanation = "--concurrent was given"};
  } else if (!ruled_out) {
    return (struct choice){.mode = MODE_DIRECT, .reason = "plain", .explanation = "the content is stored as it is in memory, on a file system that can map it"};
  } else if ((restore->image.anchor.flags & WARP_IMAGE_COMPRESSED) == 0 && !restore->decryption.encrypted && !options->direct_map) {
    return eager(choice.reason, choice.explanation);
  } else if (options->concurrent == CONCURRENT_NEVER) {
    return eager("no-concurrent", "the image cannot be mapped, and --no-concurrent was given");
  } else if (options->verify) {
    return eager("verify", "--verify compares all content before the program goes on");
  } else if (size < WORTH_DEFERRING) {
    return eager("small", "the image cannot be mapped, and loading so little takes less time than it costs to load it later");
  }
  choice.mode = MODE_CONCURRENT;
  if (dispatch_works()) return choice;
  return eager("no-dispatch", "this kernel cannot hold up system calls (Syscall User Dispatch, Linux 5.11), which loading while the program runs needs");
}

static bool has_userfaultfd(uint32_t flags) {
  const long fd = sys(userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
  if (fd >= 0) sys(close, fd);
  return fd >= 0;
}

/* As the engine will find it. */
static void find_faults(uint32_t wanted, struct choice *choice) {
  static const char *const names[] = {"auto", "userfaultfd", "userfaultfd-user", "signals"};
  if (wanted != WARP_LOAD_FAULTS_AUTO) {
    choice->faults = names[wanted];
    choice->faults_reason = "load-faults";
    choice->faults_explanation = "--load-faults was given";
  } else if (has_userfaultfd(0)) {
    choice->faults = names[WARP_LOAD_FAULTS_USERFAULTFD];
    choice->faults_reason = "kernel-faults";
    choice->faults_explanation = "this user may handle the kernel's faults too";
  } else if (has_userfaultfd(UFFD_USER_MODE_ONLY)) {
    choice->faults = names[WARP_LOAD_FAULTS_USERFAULTFD_USER];
    choice->faults_reason = "user-faults";
    choice->faults_explanation = "this user may handle faults of programs only (vm.unprivileged_userfaultfd is 0)";
  } else {
    choice->faults = names[WARP_LOAD_FAULTS_SIGNALS];
    choice->faults_reason = "no-userfaultfd";
    choice->faults_explanation = "userfaultfd is not allowed here (a container's filter) or not in this kernel";
  }
}

void choose_mode(struct restore *restore) {
  struct choice *choice = &restore->choice;
  *choice = choose(restore);
  if (choice->mode == MODE_CONCURRENT) find_faults(restore->options.load_faults, choice);
  restore->concurrent = choice->mode == MODE_CONCURRENT;
  const uint32_t flags = restore->image.anchor.flags & (WARP_IMAGE_COMPRESSED | WARP_IMAGE_FIXED_CALLS);
  restore->map_chunks = restore->concurrent && restore->options.direct_map && flags == WARP_IMAGE_COMPRESSED && !restore->decryption.encrypted;
  restore->options.direct_map = choice->mode == MODE_DIRECT;
  if (restore->options.concurrent == CONCURRENT_ALWAYS && !restore->concurrent) log_warn("all memory is loaded before the program goes on: %s", choice->explanation);
}

void settle_mode(struct restore *restore) {
  struct choice *choice = &restore->choice;
  if (choice->mode == MODE_CONCURRENT && restore->loading == NULL && restore->stats.direct_mappings > 0)
    *choice = (struct choice){.mode = MODE_DIRECT, .reason = "chunks-mapped", .explanation = "all content that can wait stands in the image as it does in memory"};
  if (choice->mode == MODE_CONCURRENT && restore->loading == NULL) *choice = eager("nothing-can-wait", "all content is stacks, shared memory and the like, which must be there when the program goes on");
  if (choice->mode == MODE_DIRECT && restore->stats.direct_mappings == 0) *choice = eager("nothing-to-map", "no private memory has a stretch of 64 KiB: reading takes less time than mapping");
  log_info("memory: %s", choice->explanation);
}

struct deferral {
  struct restore *restore;
  const struct list *targets; /* of struct target, by address */
  bool *needed;               /* by chunk: must be there at once */
  bool *mappable;             /* by chunk */
  struct list remaining;      /* of struct target */
  struct list pieces;         /* of struct warp_load_piece, by address */
};

static const struct chunk_index *index_of(const struct deferral *deferral) { return &deferral->restore->content.index; }

/* Marks the chunks that content [offset, offset + size) lies in. */
static void need_content(struct deferral *deferral, uint64_t offset, uint64_t size) {
  const struct chunk_index *index = index_of(deferral);
  for (size_t i = chunks_find(index, offset); i < index->count && index->records[i].content_offset < offset + size; i++) deferral->needed[i] = true;
}

static void need_memory(struct deferral *deferral, uint64_t address, uint64_t size) {
  const struct list *targets = deferral->targets;
  size_t low = 0, high = targets->count;
  if (size == 0 || address + size < address) return;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct target *target = list_at(targets, struct target, middle);
    if (target->address + target->size <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (; low < targets->count; low++) {
    const struct target *target = list_at(targets, struct target, low);
    if (target->address >= address + size) break;
    uint64_t start = max_u64(target->address, address), end = min_u64(target->address + target->size, address + size);
    need_content(deferral, target->offset + (start - target->address), end - start);
  }
}

static bool holds_stack(const struct image *image, const struct warp_vma_record *vma) {
  for (size_t i = 0; i < image->threads.count; i++) {
    const struct warp_thread_record *thread = view_at(&image->threads, struct warp_thread_record, i);
    if (thread->resume_stack >= vma->start && thread->resume_stack <= vma->end) return true;
    if (thread->context >= vma->start && thread->context < vma->end) return true;
  }
  if (vma->end - vma->start > LARGEST_STACK) return false;
  if (vma > (const struct warp_vma_record *)image->vmas.records) {
    const struct warp_vma_record *before = vma - 1;
    if (before->end == vma->start && before->protection == 0 && before->end - before->start <= LARGEST_GUARD) return true;
  }
  for (size_t i = 0; i < image->guards.count; i++) {
    const struct warp_guard_record *guard = view_at(&image->guards, struct warp_guard_record, i);
    if (guard->start >= vma->start && guard->end <= vma->end) return true;
  }
  return false;
}

static bool may_be_deferred(const struct image *image, const struct warp_vma_record *vma) {
  const uint32_t unfit = WARP_VMA_HUGETLB | WARP_VMA_SEALED;
  return is_anonymous(vma) && (vma->flags & unfit) == 0 && (vma->protection & WARP_PROT_READ) != 0 && !holds_stack(image, vma);
}

/* What training runs needed, where `optimize` has stored it as it is in memory. */
static void find_mappable(struct deferral *deferral) {
  struct restore *restore = deferral->restore;
  const struct chunk_index *index = index_of(deferral);
  if (!restore->map_chunks || nears_area_limit(restore)) return;
  for (size_t i = 0; i < restore->image.accesses.count; i++) {
    const uint32_t chunk = view_at(&restore->image.accesses, struct warp_access_record, i)->chunk;
    if (chunk < index->count) deferral->mappable[chunk] = index->records[chunk].flags == WARP_CHUNK_PLAIN && index->records[chunk].file_offset % PAGE_SIZE == 0;
  }
}

/*
 * Maps target memory from chunk `first` on, whose content is wanted from `offset` on, for as far as chunks that can be mapped follow each other in the file
 * too: few mappings. Returns how many bytes that are, 0 when it cannot be done.
 */
static uint64_t map_chunks(struct deferral *deferral, const struct target *target, const struct warp_vma_record *vma, size_t first, uint64_t offset) {
  const struct chunk_index *index = index_of(deferral);
  const struct warp_chunk_record *records = index->records;
  const uint64_t address = target->address + (offset - target->offset), target_end = target->offset + target->size;
  uint64_t end = offset;
  for (size_t i = first; i < index->count && end < target_end && deferral->mappable[i]; i++) {
    if (i > first && (records[i].content_offset != end || records[i].file_offset != records[i - 1].file_offset + records[i - 1].content_size)) break;
    end = min_u64(target_end, records[i].content_offset + records[i].content_size);
  }
  const uint64_t size = end - offset, in_file = records[first].file_offset + (offset - records[first].content_offset);
  if (size == 0 || vma == NULL || !is_anonymous(vma) || (address | size | in_file) % PAGE_SIZE != 0 || address + size > vma->end) return 0;
  return map_from_image(deferral->restore, vma, address, size, in_file) ? size : 0;
}

static void need_what_the_kernel_touches(struct deferral *deferral) {
  const struct image *image = &deferral->restore->image;
  for (size_t i = 0; i < image->threads.count; i++) {
    const struct warp_thread_record *thread = view_at(&image->threads, struct warp_thread_record, i);
    need_memory(deferral, thread->fs_base - PAGE_SIZE, 3 * PAGE_SIZE);
    need_memory(deferral, thread->robust_head, thread->robust_length);
    need_memory(deferral, thread->rseq_address, thread->rseq_length);
    need_memory(deferral, thread->altstack_address, thread->altstack_size);
    need_memory(deferral, thread->clear_child_tid, sizeof(uint32_t));
  }
  for (size_t i = 0; i < image->tid_references.count; i++) need_memory(deferral, view_at(&image->tid_references, struct warp_tid_reference_record, i)->address, sizeof(uint32_t));
  const struct warp_process_record *process = view_at(&image->process, struct warp_process_record, 0);
  need_memory(deferral, process->arg_start, process->env_end - process->arg_start);
}

/* Splits a target at the borders of chunks: what can be mapped is, what is needed at once stays a target, the rest becomes pieces. */
static void split(struct deferral *deferral, const struct target *target, const struct warp_vma_record *vma) {
  const struct chunk_index *index = index_of(deferral);
  const uint64_t target_end = target->offset + target->size;
  const uint32_t protection = vma == NULL ? 0 : (uint32_t)kernel_protection(vma->protection);
  size_t i = chunks_find(index, target->offset);
  for (uint64_t at = target->offset, end; at < target_end; at = end) {
    while (i < index->count && index->records[i].content_offset + index->records[i].content_size <= at) i++;
    const struct warp_chunk_record *chunk = i < index->count ? &index->records[i] : NULL;
    const uint64_t address = target->address + (at - target->offset);
    /* What no chunk holds is an error that the restorer finds. */
    const bool found = chunk != NULL && chunk->content_offset <= at;
    const uint64_t mapped = found && deferral->mappable[i] ? map_chunks(deferral, target, vma, i, at) : 0;
    end = mapped > 0 ? at + mapped : chunk == NULL ? target_end : min_u64(target_end, chunk->content_offset + chunk->content_size);
    if (mapped > 0) continue;
    if (found && !deferral->needed[i] && (address | (end - at)) % PAGE_SIZE == 0) {
      *(struct warp_load_piece *)list_add(&deferral->pieces) = (struct warp_load_piece){.address = address, .size = end - at, .chunk = (uint32_t)i, .offset = (uint32_t)(at - chunk->content_offset), .protection = protection, .next = WARP_NONE};
      deferral->restore->stats.deferred_bytes += end - at;
    } else {
      *(struct target *)list_add(&deferral->remaining) = (struct target){at, end - at, address};
    }
  }
}

static const struct warp_chunk_record *sorted_records;
static bool less_place_in_file(const void *a, const void *b) {
  const struct warp_load_chunk *first = a, *second = b;
  return sorted_records[first->number].file_offset < sorted_records[second->number].file_offset;
}
/* The pieces' chunks in the order of the file, which is the order in which they are loaded; pieces then refer to that order. */
static void list_chunks(struct deferral *deferral, struct list *chunks) {
  struct list *const pieces = &deferral->pieces;
  const struct chunk_index *index = index_of(deferral);
  struct arena *arena = &deferral->restore->arena;
  uint32_t *place = arena_allocate(arena, index->count * sizeof *place);
  bool *listed = arena_allocate(arena, index->count);
  list_reserve(chunks, min_u64(pieces->count, index->count));
  for (size_t i = 0; i < pieces->count; i++) {
    uint32_t number = list_at(pieces, struct warp_load_piece, i)->chunk;
    if (listed[number]) continue;
    listed[number] = true;
    struct warp_load_chunk *chunk = list_add(chunks);
    chunk->number = number;
    chunk->first_piece = WARP_NONE;
  }
  sorted_records = index->records;
  list_sort(chunks, less_place_in_file);
  for (size_t i = 0; i < chunks->count; i++) place[list_at(chunks, struct warp_load_chunk, i)->number] = (uint32_t)i;
  for (size_t i = pieces->count; i-- > 0;) {
    struct warp_load_piece *piece = list_at(pieces, struct warp_load_piece, i);
    piece->chunk = place[piece->chunk];
    struct warp_load_chunk *chunk = list_at(chunks, struct warp_load_chunk, piece->chunk);
    piece->next = chunk->first_piece;
    chunk->first_piece = (uint32_t)i;
  }
}

static int open_trace(struct restore *restore) {
  if (restore->options.trace[0] == 0) return -1;
  long fd = open_file(restore->options.trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) log_warn("cannot write %s: %s: what is loaded when is not recorded", restore->options.trace, error_text(fd));
  return fd < 0 ? -1 : move_descriptor(restore, (int)fd);
}

void trace_loaded(const struct restore *restore) {
  if (restore->options.trace[0] == 0 || !restore->concurrent) return;
  const int fd = (int)open_file(restore->options.trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return; /* open_trace has said so, or nothing was deferred */
  for (size_t i = 0; i < restore->content.index.count; i++) {
    if (!restore->content.taken[i]) continue;
    const struct warp_load_event event = {restore->content.index.records[i].content_offset, restore->stats.end_us[PHASE_DESCRIPTORS] * 1000 + 1, restore->stats.end_us[PHASE_AREAS] * 1000 + 1};
    write_fully(fd, &event, sizeof event);
  }
  sys(close, fd);
}

static void list_huge(struct restore *restore, const struct list *pieces, struct list *ret) {
  const struct warp_vma_record *last = NULL;
  for (size_t i = 0; i < pieces->count; i++) {
    const uint64_t address = list_at(pieces, struct warp_load_piece, i)->address;
    if (last != NULL && address < last->end) continue;
    last = image_vma_at(&restore->image, address);
    if (last != NULL && (last->flags & WARP_VMA_HUGE_PAGE) != 0) *(struct warp_load_range *)list_add(ret) = (struct warp_load_range){last->start, last->end};
  }
}

int defer_content(struct restore *restore, struct list *targets) {
  const struct image *image = &restore->image;
  const size_t chunk_count = restore->content.index.count;
  struct deferral deferral = {.restore = restore, .targets = targets};
  struct list *const pieces = &deferral.pieces, chunks, huge;
  deferral.needed = arena_allocate(&restore->arena, chunk_count + 1);
  deferral.mappable = arena_allocate(&restore->arena, chunk_count + 1);
  find_mappable(&deferral);
  list_init(&deferral.remaining, &restore->arena, sizeof(struct target));
  list_init(pieces, &restore->arena, sizeof(struct warp_load_piece));
  list_init(&chunks, &restore->arena, sizeof(struct warp_load_chunk));
  list_init(&huge, &restore->arena, sizeof(struct warp_load_range));
  /* What is reserved and not used is never touched. A list that grew by doubling would be touched twice over. */
  list_reserve(pieces, chunk_count + targets->count);
  need_what_the_kernel_touches(&deferral);
  /* A chunk that is loaded for one target is loaded for all. */
  for (size_t i = 0; i < targets->count; i++) {
    const struct target *target = list_at(targets, struct target, i);
    const struct warp_vma_record *vma = image_vma_at(image, target->address);
    if (vma == NULL || !may_be_deferred(image, vma)) need_content(&deferral, target->offset, target->size);
  }
  for (size_t i = 0; i < targets->count; i++) {
    const struct target *target = list_at(targets, struct target, i);
    split(&deferral, target, image_vma_at(image, target->address));
  }
  log_debug("%lu targets, %lu pieces can wait, %lu are mapped", targets->count, pieces->count, restore->stats.direct_mappings);
  *targets = deferral.remaining;
  if (pieces->count == 0) return 0;
  list_chunks(&deferral, &chunks);
  list_huge(restore, pieces, &huge);
  struct warp_loading *loading = arena_allocate(&restore->arena, sizeof *loading);
  *loading = (struct warp_loading){
      .faults = restore->options.load_faults,
      .concurrency = restore->options.load_concurrency,
      .image_fd = restore->image_fd,
      .memory_fd = move_descriptor(restore, (int)open_file("/proc/self/mem", O_RDWR | O_CLOEXEC, 0)),
      .trace_fd = open_trace(restore),
      .error_fd = restore->standard[2],
      .chunk_count = (uint32_t)chunks.count,
      .piece_count = (uint32_t)pieces->count,
      .records = restore->content.index.records,
      .record_count = restore->content.index.count,
      .chunks = chunks.items,
      .pieces = pieces->items,
      .begin_ns = restore->stats.begin_ns,
      .huge_count = huge.count,
      .huge = huge.items,
  };
  if (restore->decryption.encrypted) {
    loading->encrypted = 1;
    copy_bytes(loading->image_key, restore->decryption.image_key, sizeof loading->image_key);
    copy_bytes(loading->image_id, restore->decryption.cipher.image_id, sizeof loading->image_id);
  }
  format(loading->path, sizeof loading->path, "%s", image->path);
  restore->loading = loading;
  return 0;
}
