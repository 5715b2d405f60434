/*
 * A plain image on a cold page cache: what is surely needed lies in many places of the file, each of which would be waited for in turn. They are
 * asked for at once, before anything else happens. The engine asks for the rest while the program runs (native/src/engine/prefetch.c). What the page cache has is left alone.
 */
#include <linux/mman.h>

#include "restore.h"

/* A direct mapping of at most this is wanted whole; of larger ones the kernel reads what is touched, and around it. */
#define WANTED_WHOLE (256 * KIB)
/* Reading so much that nobody wants costs less than another request. */
#define WORTH_JOINING (512 * KIB)

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

void prefetch(struct restore *restore) {
  const struct image *image = &restore->image;
  if (restore->choice.mode != MODE_DIRECT || reads_far_ahead(image->status.device)) return;
  const uint64_t size = round_up(image->anchor.file_size, PAGE_SIZE);
  const long file = sys(mmap, 0, size, PROT_READ, MAP_PRIVATE, restore->image_fd, 0);
  if (file < 0) return;
  uint64_t asked = 0, start = 0, end = 0; /* what is wanted next */
  for (uint64_t i = 0; i < image->segment_count; i++) {
    const Elf64_Phdr *segment = &image->segments[i];
    if (segment->p_type != PT_LOAD || segment->p_filesz == 0 || (segment->p_filesz > WANTED_WHOLE && is_mapped_directly(restore, segment))) continue;
    const uint64_t segment_start = round_down(segment->p_offset, PAGE_SIZE), segment_end = round_up(segment->p_offset + segment->p_filesz, PAGE_SIZE);
    if (segment_start < start || segment_start > end + WORTH_JOINING) {
      asked += ask_for((uint64_t)file, start, end);
      start = end = segment_start;
    }
    end = max_u64(end, segment_end);
  }
  asked += ask_for((uint64_t)file, start, end);
  sys(munmap, file, size);
  log_debug("%lu bytes of the image are asked for ahead", asked);
  restore->stats.prefetched_bytes = asked;
}
