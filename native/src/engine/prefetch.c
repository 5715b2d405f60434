/*
 * Memory that is mapped from the image on a cold page cache: the program would wait for each place that it touches. Once it runs, the helper has
 * the kernel read what is not in the page cache, in the order of the addresses; nothing is mapped by that, and what is cached costs a look.
 */
#include "engine.h"

#define BLOCK (2 * MIB)
/* Of more than this a program hardly needs all, and something else might be put out of the page cache. */
#define MOST_READ (1024 * MIB)

void prefetch_mapped(bool (*wanted_elsewhere)(void)) {
  struct arena arena = {NULL};
  if (reads_far_ahead(warp_control.image_device)) return;
  size_t size;
  long error;
  struct map_line line;
  uint64_t asked = 0;
  const char *at = read_whole_file(&arena, "/proc/self/maps", &size, &error);
  while (at != NULL && (at = parse_map_line(at, &line)) != NULL) {
    if (line.inode == 0 || line.inode != warp_control.image_inode || line.device != warp_control.image_device) continue;
    for (uint64_t start = line.start; start < line.end && asked < MOST_READ && !wanted_elsewhere(); start += BLOCK) asked += read_mapped_ahead(start, min_u64(start + BLOCK, line.end));
  }
  log_debug("%lu bytes of the image were not in the page cache and are read ahead", asked);
  arena_release(&arena);
}
