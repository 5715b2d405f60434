/*
 * An image on a cold page cache: what is surely needed of a plain one lies in many places of the file, each of which would be waited for in turn; what
 * training found stands at the beginning. They are asked for at once, before anything else happens. The engine asks for the rest of a plain image while the
 * program runs (native/src/engine/prefetch.c). What the page cache has is left alone.
 */
#include <linux/mman.h>

#include "restore.h"

/* A direct mapping of at most this is wanted whole; of larger ones the kernel reads what is touched, and around it. */
#define WANTED_WHOLE (256 * KIB)
/* Reading so much that nobody wants costs less than another request. */
#define WORTH_JOINING (512 * KIB)

/* Of what training runs needed so much is asked for; what was needed later the program meets itself. */
#define MOST_ACCESSED (32 * MIB)

/* To look at every page of a warm cache would take longer than to map the image. */
static bool is_cached(uint64_t page) {
  uint8_t resident = 1;
  return sys(mincore, page, PAGE_SIZE, &resident) < 0 || (resident & 1) != 0;
}

/* [start, end) of the file, which is mapped at `file`: whole pages. */
static uint64_t ask_for(uint64_t file, uint64_t start, uint64_t end) {
  if (start == end || (is_cached(file + start) && is_cached(file + end - PAGE_SIZE))) return 0;
  return read_mapped_ahead(file + start, file + end);
}

/* Stretches of the file that are wanted; neighbours are one. */
struct wish {
  uint64_t file; /* where it is mapped */
  uint64_t start;
  uint64_t end;
  uint64_t asked;
};

static void want(struct wish *wish, uint64_t offset, uint64_t size) {
  const uint64_t start = round_down(offset, PAGE_SIZE), end = round_up(offset + size, PAGE_SIZE);
  if (start < wish->start || start > wish->end + WORTH_JOINING) {
    wish->asked += ask_for(wish->file, wish->start, wish->end);
    wish->start = wish->end = start;
  }
  wish->end = max_u64(wish->end, end);
}

static void want_segments(const struct restore *restore, struct wish *wish) {
  for (uint64_t i = 0; i < restore->image.segment_count; i++) {
    const Elf64_Phdr *segment = &restore->image.segments[i];
    if (segment->p_type != PT_LOAD || segment->p_filesz == 0 || (segment->p_filesz > WANTED_WHOLE && is_mapped_directly(restore, segment))) continue;
    want(wish, segment->p_offset, segment->p_filesz);
  }
}

/* What training runs needed, earliest first: mapped or not. */
static void want_accessed(const struct restore *restore, struct wish *wish) {
  const struct view *accesses = &restore->image.accesses;
  const struct chunk_index *index = &restore->content.index;
  uint64_t size = 0;
  for (size_t i = 0; i < accesses->count && size < MOST_ACCESSED; i++) {
    const uint32_t chunk = view_at(accesses, struct warp_access_record, i)->chunk;
    if (chunk >= index->count) continue;
    want(wish, index->records[chunk].file_offset, index->records[chunk].stored_size);
    size += index->records[chunk].stored_size;
  }
}

void prefetch(struct restore *restore) {
  const struct image *image = &restore->image;
  const bool direct = restore->choice.mode == MODE_DIRECT, trained = restore->concurrent && image->accesses.count > 0;
  if ((!direct && !trained) || reads_far_ahead(image->status.device)) return;
  const uint64_t size = round_up(image->anchor.file_size, PAGE_SIZE);
  const long file = sys(mmap, 0, size, PROT_READ, MAP_PRIVATE, restore->image_fd, 0);
  if (file < 0) return;
  struct wish wish = {.file = (uint64_t)file};
  if (direct) want_segments(restore, &wish);
  if (trained) want_accessed(restore, &wish);
  wish.asked += ask_for(wish.file, wish.start, wish.end);
  sys(munmap, file, size);
  log_debug("%lu bytes of the image are asked for ahead", wish.asked);
  restore->stats.prefetched_bytes = wish.asked;
}
