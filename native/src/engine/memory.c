/* What memory there is, and what of it goes into the image. */
#include <linux/fs.h>
#include <linux/mman.h>

#include "engine.h"

/* ioctl PAGEMAP_SCAN (Linux 6.7, include/uapi/linux/fs.h), defined here because older headers lack it. */
struct pagemap_scan {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t ranges;
  uint64_t range_count;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_any_of;
  uint64_t return_mask;
};
struct pagemap_range {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
#define PAGEMAP_SCAN_ 0xc0606610u
#define PAGE_IS_FILE_ (1u << 2)
#define PAGE_IS_PRESENT_ (1u << 3)
#define PAGE_IS_SWAPPED_ (1u << 4)
#define PAGE_IS_PFNZERO_ (1u << 5)
#define PAGE_IS_GUARD_ (1u << 8)

#define PAGEMAP_PRESENT (1ul << 63)
#define PAGEMAP_SWAPPED (1ul << 62)
#define PAGEMAP_FILE (1ul << 61)
#define PAGEMAP_GUARD (1ul << 58)

/* asm-generic/mman-common.h; not in every libc's copy. */
#define MADV_WIPEONFORK_ 18
#define MADV_KEEPONFORK_ 19

/* Pages between stored pages of one anonymous area that are bridged by a hole of the file, to keep segments few. */
#define BRIDGE_SIZE (128 * KIB)

/* ---- memory areas ---- */

struct area {
  struct map_line map;
  char name[4096];
  uint32_t flags;
  uint64_t resident;
  bool shared;
  bool userfault;
  bool device_memory;
};

static uint32_t parse_vm_flags(const char *at, struct area *area) {
  static const struct {
    char letters[3];
    uint32_t flag;
  } known[] = {
      {"gd", WARP_VMA_GROWS_DOWN}, {"nr", WARP_VMA_NO_RESERVE}, {"lo", WARP_VMA_LOCKED},        {"lf", WARP_VMA_LOCK_ON_FAULT}, {"ht", WARP_VMA_HUGETLB},
      {"dd", WARP_VMA_DONT_DUMP},  {"dc", WARP_VMA_DONT_FORK},  {"wf", WARP_VMA_WIPE_ON_FORK}, {"mg", WARP_VMA_MERGEABLE},     {"hg", WARP_VMA_HUGE_PAGE},
      {"nh", WARP_VMA_NO_HUGE_PAGE}, {"rr", WARP_VMA_RANDOM},   {"sr", WARP_VMA_SEQUENTIAL},   {"sl", WARP_VMA_SEALED},        {"mw", WARP_VMA_MAY_WRITE},
  };
  uint32_t flags = 0;
  while (*at != '\n' && *at != 0) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
      if (at[0] == known[i].letters[0] && at[1] == known[i].letters[1]) flags |= known[i].flag;
    if (at[0] == 'u' && (at[1] == 'm' || at[1] == 'w' || at[1] == 'i')) area->userfault = true;
    if ((at[0] == 'i' && at[1] == 'o') || (at[0] == 'p' && at[1] == 'f')) area->device_memory = true;
    at++;
  }
  return flags;
}

/* procfs escapes newlines in names as \012. */
static void copy_name(char *to, size_t size, const char *from, size_t length) {
  size_t n = 0;
  for (size_t i = 0; i < length && n + 1 < size; i++) {
    if (i + 3 < length && compare_bytes(from + i, "\\012", 4) == 0) {
      to[n++] = '\n';
      i += 3;
    } else {
      to[n++] = from[i];
    }
  }
  to[n] = 0;
}

static uint64_t kilobytes(const char *at) {
  while (*at == ' ') at++;
  return parse_decimal(&at) * KIB;
}

/* Reads the area at `at` of /proc/self/smaps; returns where the next begins, NULL at the end. */
static const char *parse_area(const char *at, struct area *area) {
  fill_bytes(area, 0, offsetof(struct area, name));
  area->flags = 0, area->resident = 0, area->shared = area->userfault = area->device_memory = false;
  at = parse_map_line(at, &area->map);
  if (at == NULL) return NULL;
  copy_name(area->name, sizeof area->name, area->map.name, area->map.name_length);
  area->shared = area->map.permissions[3] == 's';
  struct map_line next;
  while (*at != 0 && parse_map_line(at, &next) == NULL) {
    if (starts_with(at, "Rss:") || starts_with(at, "Swap:")) area->resident += kilobytes(find_character(at, ':') + 1);
    if (starts_with(at, "VmFlags:")) area->flags = parse_vm_flags(at + 8, area);
    while (*at != 0 && *at != '\n') at++;
    if (*at == '\n') at++;
  }
  return at;
}

static uint32_t area_protection(const struct area *area) {
  const char *p = area->map.permissions;
  return (p[0] == 'r' ? WARP_PROT_READ : 0) | (p[1] == 'w' ? WARP_PROT_WRITE : 0) | (p[2] == 'x' ? WARP_PROT_EXEC : 0);
}

static uint32_t capture_file(struct capture *capture, const char *path, const struct file_status *status) {
  for (size_t i = 0; i < capture->files.records.count; i++) {
    const struct warp_file_record *file = table_at(&capture->files, struct warp_file_record, i);
    if (file->device == status->device && file->inode == status->inode && file->path.length == string_length(path) &&
        compare_bytes(capture->files.heap.bytes + file->path.offset, path, file->path.length) == 0)
      return (uint32_t)i;
  }
  struct warp_file_record *file = table_add(&capture->files);
  file->device = status->device;
  file->inode = status->inode;
  file->size = (uint64_t)status->size;
  file->mtime_ns = file_mtime_ns(status);
  file->mode = status->mode;
  file->path = table_string(&capture->files, path);
  long fd = open_file(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd >= 0) {
    uint8_t build_id[64];
    size_t length = read_build_id((int)fd, build_id, sizeof build_id);
    file->build_id = table_bytes(&capture->files, build_id, length);
    file->sample_hash = file_sample_hash((int)fd, file->size);
    sys(close, fd);
  }
  return (uint32_t)capture->files.records.count - 1;
}

uint32_t capture_object(struct capture *capture, uint64_t device, uint64_t inode, uint32_t kind, const char *name) {
  for (size_t i = 0; i < capture->object_sources.count; i++) {
    const struct object_source *source = list_at(&capture->object_sources, struct object_source, i);
    if (source->device == device && source->inode == inode) return (uint32_t)i;
  }
  struct warp_object_record *object = table_add(&capture->objects);
  object->kind = kind;
  object->name = table_string(&capture->objects, name);
  struct object_source *source = list_add(&capture->object_sources);
  source->device = device;
  source->inode = inode;
  source->fd = -1;
  list_init(&source->mappings, &capture->arena, sizeof(struct object_mapping));
  return (uint32_t)capture->objects.records.count - 1;
}

/* Whether an area is private memory that a restore has mapped directly from its image. */
static bool is_from_image(const struct area *area) {
  return warp_control.generation > 0 && !area->shared && area->map.inode != 0 && area->map.inode == warp_control.image_inode && area->map.device == warp_control.image_device;
}

/* Where `start`, in an area from the image, is a changed page of a file: what the image is mapped over; else NULL. *end: up to which address that holds. */
static const struct warp_overlay *overlay_of(const struct area *area, uint64_t start, uint64_t *end) {
  *end = area->map.end;
  if (!is_from_image(area)) return NULL;
  const uint64_t offset = area->map.offset + (start - area->map.start);
  uint64_t stretch_end;
  const struct warp_overlay *overlay = release_overlay(offset, &stretch_end);
  *end = start + min_u64(area->map.end - start, stretch_end - offset);
  return overlay;
}

/* Decides what an area is; false with the failure set when it cannot be kept. */
static bool classify(struct capture *capture, const struct area *area, struct warp_vma_record *vma, bool *store_all) {
  const struct warp_process_record *process = table_at(&capture->process, struct warp_process_record, 0);
  const char *name = area->name;
  *store_all = false;
  vma->file = vma->object = WARP_NONE;
  if (area->userfault) {
    fail(capture->failure, "memory area 0x%lx-0x%lx is registered with a userfaultfd, which cannot be kept: unregister it first", vma->start, vma->end);
    return false;
  }
  if ((area->flags & WARP_VMA_HUGETLB) != 0) {
    fail(capture->failure, "memory area 0x%lx-0x%lx consists of hugetlb pages, which cannot be kept yet: use transparent huge pages (for Java: -XX:+UseTransparentHugePages)", vma->start, vma->end);
    return false;
  }
  if (strings_equal(name, "[vdso]")) {
    vma->kind = WARP_VMA_VDSO;
    *store_all = true;
    return true;
  }
  if (starts_with(name, "[vvar")) {
    vma->kind = WARP_VMA_VVAR;
    return true;
  }
  uint64_t engine_part_end;
  if (next_engine_memory(vma->start, &engine_part_end) == vma->start) {
    vma->kind = WARP_VMA_ENGINE;
    *store_all = true;
    return true;
  }
  bool from_image = is_from_image(area);
  uint64_t stretch_end;
  struct file_status status;
  const struct warp_overlay *overlay = overlay_of(area, vma->start, &stretch_end);
  if (overlay != NULL && sys(newfstatat, AT_FDCWD_, overlay->path, &status, 0) == 0 && status.device == overlay->device && status.inode == overlay->inode) {
    *store_all = true;
    vma->kind = WARP_VMA_FILE;
    vma->offset = overlay->file_offset + (vma->offset - overlay->image_offset);
    vma->file = capture_file(capture, overlay->path, &status);
    return true;
  }
  bool anonymous = area->map.inode == 0 && (name[0] == 0 || name[0] == '[');
  if (from_image || anonymous || (!area->shared && strings_equal(name, "/dev/zero"))) {
    *store_all = from_image;
    vma->kind = vma->start >= process->start_brk && vma->end <= round_up(process->brk, PAGE_SIZE) ? WARP_VMA_HEAP : WARP_VMA_ANONYMOUS;
    if (vma->start <= process->start_stack && process->start_stack < vma->end) vma->kind = WARP_VMA_STACK;
    vma->offset = 0;
    return true;
  }
  if (area->device_memory || starts_with(name, "anon_inode:") || starts_with(name, "/[aio]") || starts_with(name, "/SYSV")) {
    const char *mend = starts_with(name, "/SYSV") ? "use POSIX shared memory or memfd_create in place of System V shared memory" : starts_with(name, "/[aio]") ? "have the program use no Linux AIO (nginx: aio off)" : "close it before the checkpoint";
    fail(capture->failure, "memory area 0x%lx-0x%lx (%s) cannot be kept: %s", vma->start, vma->end, name, mend);
    return false;
  }
  bool memfd = starts_with(name, "/memfd:");
  fill_bytes(&status, 0, sizeof status);
  if (starts_with(name, "/secretmem")) {
    fail(capture->failure, "memory area 0x%lx-0x%lx is secret memory (memfd_secret), which nobody can read: release it before the checkpoint", vma->start, vma->end);
    return false;
  }
  /* A JVM's performance data belongs to the process, and the next JVM that starts removes the file of one that has gone. */
  bool own_file = area->shared && find_string(name, "/hsperfdata_") != NULL;
  /* "… (deleted)" may be a file's real name. */
  bool found = !memfd && sys(newfstatat, AT_FDCWD_, name, &status, 0) == 0 && (status.inode == area->map.inode || !ends_with(name, " (deleted)"));
  bool deleted = own_file || !found;
  if (!deleted) {
    if ((status.mode & S_IFMT) == S_IFCHR && !strings_equal(name, "/dev/zero")) {
      fail(capture->failure, "memory area 0x%lx-0x%lx maps the device %s, which cannot be kept: close it before the checkpoint", vma->start, vma->end, name);
      return false;
    }
    vma->kind = WARP_VMA_FILE;
    vma->file = capture_file(capture, name, &status);
    *store_all = capture->request->self_contained && !area->shared;
    return true;
  }
  if (!area->shared) {
    /* Private memory over something that no path leads to any more: it comes back as plain memory with the same content. */
    vma->kind = WARP_VMA_ANONYMOUS;
    *store_all = true;
    return true;
  }
  vma->kind = WARP_VMA_OBJECT;
  uint32_t kind = memfd ? WARP_OBJECT_MEMFD : starts_with(name, "/dev/zero") ? WARP_OBJECT_SHARED_ANONYMOUS : WARP_OBJECT_DELETED_FILE;
  char object_name[4096];
  format(object_name, sizeof object_name, "%s", memfd ? name + 7 : name);
  if (ends_with(object_name, " (deleted)")) object_name[string_length(object_name) - 10] = 0;
  vma->object = capture_object(capture, area->map.device, area->map.inode, kind, object_name);
  struct object_source *source = list_at(&capture->object_sources, struct object_source, vma->object);
  struct object_mapping *mapping = list_add(&source->mappings);
  *mapping = (struct object_mapping){vma->start, vma->end, vma->offset};
  struct warp_object_record *object = table_at(&capture->objects, struct warp_object_record, vma->object);
  object->size = max_u64(object->size, vma->offset + vma->end - vma->start);
  return true;
}

static bool in_arena(const struct arena *arena, uint64_t address, uint64_t *end) {
  for (const struct arena_block *block = arena->blocks; block != NULL; block = block->next)
    if (address >= (uint64_t)block && address < (uint64_t)block + block->size) {
      *end = (uint64_t)block + block->size;
      return true;
    }
  return false;
}

static uint64_t next_arena_block(const struct arena *arena, uint64_t from) {
  uint64_t best = UINT64_MAX;
  for (const struct arena_block *block = arena->blocks; block != NULL; block = block->next)
    if ((uint64_t)block >= from) best = min_u64(best, (uint64_t)block);
  return best;
}

/* How the pages of a vma record, or of a part of one, are found and read. */
struct area_part {
  uint64_t start;
  uint64_t end;
  size_t vma;
  bool store_all;
  bool readable;
  bool over_file; /* file content that zeros would not stand for */
  bool from_image; /* a direct restore has mapped it */
  bool overlay;   /* changed pages of a file, all of them, that a direct restore has mapped */
  bool plain; /* anonymous without a name: the program saw one area where a direct restore has left several */
};
static struct list area_parts;


static int add_area(struct capture *capture, const struct area *area, uint64_t start, uint64_t end) {
  struct warp_vma_record vma = {.start = start, .end = end};
  vma.offset = area->map.inode == 0 ? 0 : area->map.offset + (start - area->map.start);
  vma.protection = area_protection(area);
  vma.flags = (area->flags & ~WARP_VMA_MAY_WRITE) | (area->shared ? WARP_VMA_SHARED | (area->flags & WARP_VMA_MAY_WRITE) : 0);
  /* smaps tells it for the whole: a part has its share at most. */
  vma.resident = min_u64(area->resident, end - start);
  bool store_all;
  if (!classify(capture, area, &vma, &store_all)) return -1;
  uint64_t stretch_end;
  const struct warp_overlay *over = overlay_of(area, start, &stretch_end);
  const bool overlay = over != NULL && vma.kind == WARP_VMA_FILE, from_image = is_from_image(area) && !overlay;
  bool heap = vma.kind == WARP_VMA_HEAP;
  /* A deleted file's mapping may reach past its end, where a plain read raises SIGBUS. */
  bool over_file = vma.kind == WARP_VMA_ANONYMOUS && area->map.inode != 0 && !from_image;
  struct area_part *part = list_add(&area_parts);
  *part = (struct area_part){
      .start = start,
      .end = end,
      .store_all = store_all,
      .over_file = area->map.inode != 0 && !from_image && vma.kind != WARP_VMA_ANONYMOUS,
      .from_image = from_image,
      .overlay = overlay,
      .readable = (vma.protection & WARP_PROT_READ) != 0 && !over_file,
      .plain = heap || (vma.kind == WARP_VMA_ANONYMOUS && (from_image || area->name[0] == 0)),
  };
  size_t count = capture->vmas.records.count;
  if (count > 0 && warp_control.generation > 0 && part->plain && area_parts.count > 1 && (part - 1)->plain) {
    struct warp_vma_record *last = table_at(&capture->vmas, struct warp_vma_record, count - 1);
    if (last->end == vma.start && last->kind == vma.kind && last->protection == vma.protection && last->flags == vma.flags) {
      last->end = vma.end;
      last->resident += vma.resident;
      part->vma = count - 1;
      return 0;
    }
  }
  if (count > 0 && warp_control.generation > 0 && vma.kind == WARP_VMA_FILE && !area->shared) {
    struct warp_vma_record *last = table_at(&capture->vmas, struct warp_vma_record, count - 1);
    const bool follows = last->kind == WARP_VMA_FILE && last->end == vma.start && last->file == vma.file && last->offset + (last->end - last->start) == vma.offset;
    if (follows && last->protection == vma.protection && last->flags == vma.flags) {
      last->end = vma.end;
      last->resident += vma.resident;
      part->vma = count - 1;
      return 0;
    }
  }
  part->vma = count;
  vma.name = table_string(&capture->vmas, heap ? "[heap]" : from_image ? "" : overlay ? over->path : area->name);
  struct warp_vma_record *record = table_add(&capture->vmas);
  *record = vma;
  return 0;
}

int capture_memory_areas(struct capture *capture) {
  list_init(&area_parts, &capture->arena, sizeof(struct area_part));
  size_t size;
  long error;
  const char *at = read_whole_file(&capture->arena, "/proc/thread-self/smaps", &size, &error);
  if (at == NULL) return fail(capture->failure, "cannot read /proc/self/smaps: %s: mount procfs", error_text(error));
  struct area *area = arena_allocate(&capture->arena, sizeof *area);
  while ((at = parse_area(at, area)) != NULL) {
    if (strings_equal(area->name, "[vsyscall]")) continue;
    /* The capture's own memory stays out, even where the kernel has merged it with the program's. */
    for (uint64_t start = area->map.start; start < area->map.end;) {
      uint64_t skip_to, engine_end_address = 0;
      if (in_arena(&capture->arena, start, &skip_to)) {
        start = skip_to;
        continue;
      }
      uint64_t end = min_u64(area->map.end, next_arena_block(&capture->arena, start));
      uint64_t engine = next_engine_memory(start, &engine_end_address);
      end = min_u64(end, engine == start ? engine_end_address : engine);
      uint64_t stretch_end;
      overlay_of(area, start, &stretch_end);
      end = min_u64(end, stretch_end);
      if (add_area(capture, area, start, end) < 0) return -1;
      start = end;
    }
  }
  log_debug("%lu memory areas, %lu mapped files, %lu shared memory objects", capture->vmas.records.count, capture->files.records.count, capture->objects.records.count);
  return 0;
}

/* ---- which pages ---- */

struct page_query {
  int pagemap;
  bool scan_unsupported;
  uint64_t guard; /* PAGE_IS_GUARD_, 0 on kernels without it */
};

/* Calls `each` for the ranges of [start, end) with pages of the program's own: present or swapped, and, with `private_file`, changed. */
static int for_each_own_range(struct capture *capture, struct page_query *query, uint64_t start, uint64_t end, bool private_file, void (*each)(void *, uint64_t, uint64_t), void *context) {
  static struct pagemap_range ranges[512];
  while (!query->scan_unsupported && start < end) {
    struct pagemap_scan scan = {
        .size = sizeof scan,
        .start = start,
        .end = end,
        .ranges = (uint64_t)ranges,
        .range_count = sizeof ranges / sizeof ranges[0],
        .category_inverted = (private_file ? PAGE_IS_FILE_ : PAGE_IS_PFNZERO_) | query->guard,
        .category_mask = (private_file ? PAGE_IS_FILE_ : PAGE_IS_PFNZERO_) | query->guard,
        .category_any_of = PAGE_IS_PRESENT_ | PAGE_IS_SWAPPED_,
        .return_mask = PAGE_IS_PRESENT_,
    };
    long n = sys(ioctl, query->pagemap, PAGEMAP_SCAN_, &scan);
    if (n == -EINVAL && query->guard != 0) {
      query->guard = 0;
      continue;
    }
    if (n < 0) {
      query->scan_unsupported = true;
      break;
    }
    for (long i = 0; i < n; i++) each(context, ranges[i].start, ranges[i].end);
    start = scan.walk_end;
  }
  static uint64_t entries[4096];
  while (start < end) {
    size_t pages = min_u64((end - start) / PAGE_SIZE, sizeof entries / sizeof entries[0]);
    long n = read_fully(query->pagemap, entries, pages * 8, start / PAGE_SIZE * 8);
    if (n != (long)(pages * 8)) return fail(capture->failure, "cannot read /proc/self/pagemap for 0x%lx: %s", start, n < 0 ? error_text(n) : "short read");
    for (size_t i = 0; i < pages; i++) {
      bool own = (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0 && (!private_file || (entries[i] & PAGEMAP_FILE) == 0) && (entries[i] & PAGEMAP_GUARD) == 0;
      if (own) each(context, start + i * PAGE_SIZE, start + (i + 1) * PAGE_SIZE);
    }
    start += pages * PAGE_SIZE;
  }
  return 0;
}

static void find_guards(struct capture *capture, struct page_query *query, uint64_t start, uint64_t end) {
  struct pagemap_range ranges[64];
  while (start < end) {
    struct pagemap_scan scan = {
        .size = sizeof scan, .start = start, .end = end, .ranges = (uint64_t)ranges, .range_count = 64, .category_mask = PAGE_IS_GUARD_, .return_mask = PAGE_IS_GUARD_,
    };
    long n = sys(ioctl, query->pagemap, PAGEMAP_SCAN_, &scan);
    if (n < 0) return; /* a kernel without this category has no guard pages either */
    for (long i = 0; i < n; i++) {
      struct warp_guard_record *guard = table_add(&capture->guards);
      *guard = (struct warp_guard_record){ranges[i].start, ranges[i].end};
    }
    start = scan.walk_end;
  }
}

static bool is_zero(const void *page, size_t size) {
  const uint64_t *word = page;
  for (size_t i = 0; i < size / 8; i += 8)
    if ((word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] | word[i + 7]) != 0) return false;
  return true;
}

struct scan {
  struct capture *capture;
  bool keep_zeros;
  bool from_image; /* all of it can be read */
  int process_memory; /* /proc/self/mem where the area is not readable, else -1 */
  uint8_t *page;
  size_t first_piece;
};

static void add_piece(struct scan *scan, uint64_t start, uint64_t end) {
  struct list *pieces = &scan->capture->pieces;
  if (pieces->count > scan->first_piece) {
    struct piece *last = list_at(pieces, struct piece, pieces->count - 1);
    if (last->end == start) {
      last->end = end;
      return;
    }
  }
  struct piece *piece = list_add(pieces);
  *piece = (struct piece){start, end};
}

static void scan_range(void *context, uint64_t start, uint64_t end) {
  struct scan *scan = context;
  if (scan->keep_zeros) {
    add_piece(scan, start, end);
    return;
  }
  for (uint64_t page = start; page < end; page += PAGE_SIZE) {
    const void *bytes = (const void *)page;
    if (scan->process_memory >= 0) {
      if (read_fully(scan->process_memory, scan->page, PAGE_SIZE, page) != (long)PAGE_SIZE) {
        if (scan->from_image) reading_lost(page);
        continue;
      }
      bytes = scan->page;
    }
    if (!is_zero(bytes, PAGE_SIZE)) add_piece(scan, page, page + PAGE_SIZE);
  }
}

/* Groups the pieces from `first` on into runs. */
static void add_runs(struct capture *capture, size_t first, uint64_t bridge, uint32_t source, uint32_t object) {
  for (size_t i = first; i < capture->pieces.count; i++) {
    const struct piece *piece = list_at(&capture->pieces, struct piece, i);
    struct run *last = i == first ? NULL : list_at(&capture->runs, struct run, capture->runs.count - 1);
    if (last != NULL && piece->start - (last->address + last->size) <= bridge) {
      capture->content_end += piece->end - last->address - last->size;
      last->size = piece->end - last->address;
      last->piece_count++;
      continue;
    }
    struct run *run = list_add(&capture->runs);
    *run = (struct run){.address = piece->start, .size = piece->end - piece->start, .content_offset = capture->content_end, .source = source, .object = object, .first_piece = (uint32_t)i, .piece_count = 1};
    capture->content_end += run->size;
  }
}

static void add_segment(struct capture *capture, uint64_t start, uint64_t end, bool stored, uint64_t content_offset, uint32_t protection) {
  if (start >= end) return;
  struct segment *segment = list_add(&capture->segments);
  *segment = (struct segment){start, end - start, content_offset, stored, protection};
}

/* A stopped thread that has just worked for the helper may still be on its way back to sleep, and use its stack for that. */
static bool holds_stack(const struct capture *capture, const struct area_part *part) {
  for (size_t i = 0; i < capture->freeze->count; i++) {
    const struct slot *slot = &capture->freeze->slots[i];
    if (slot->state == SLOT_PARKED && slot->resume_stack >= part->start && slot->resume_stack <= part->end) return true;
  }
  return false;
}

static int scan_part(struct capture *capture, struct page_query *query, const struct area_part *part, uint8_t *page) {
  const struct warp_vma_record *vma = table_at(&capture->vmas, struct warp_vma_record, part->vma);
  bool file_backed = vma->kind == WARP_VMA_FILE;
  struct scan scan = {
      .capture = capture,
      .keep_zeros = part->over_file && vma->kind != WARP_VMA_ENGINE,
      .from_image = part->from_image,
      .process_memory = part->readable ? -1 : capture->process_memory,
      .page = page,
      .first_piece = capture->pieces.count,
  };
  uint64_t end = part->end;
  if (part->store_all) {
    if (file_backed && !part->overlay) {
      const struct warp_file_record *file = table_at(&capture->files, struct warp_file_record, vma->file);
      const uint64_t file_end = vma->start + (file->size > vma->offset ? round_up(file->size - vma->offset, PAGE_SIZE) : 0);
      end = max_u64(part->start, min_u64(end, file_end));
    }
    if (part->start < end) scan_range(&scan, part->start, end);
  } else if (for_each_own_range(capture, query, part->start, end, file_backed, scan_range, &scan) < 0) {
    return -1;
  }
  if (vma->kind != WARP_VMA_VDSO) find_guards(capture, query, part->start, part->end);
  add_runs(capture, scan.first_piece, file_backed ? 0 : BRIDGE_SIZE, !part->readable ? SOURCE_PROCESS_MEMORY : vma->kind == WARP_VMA_ENGINE || holds_stack(capture, part) ? SOURCE_MEMORY_COPY : SOURCE_MEMORY, WARP_NONE);
  return 0;
}

/* Lays segments over an area: what its runs from `first_run` on hold is stored. */
static void add_private_segments(struct capture *capture, struct warp_vma_record *vma, size_t first_run) {
  uint64_t at = vma->start;
  for (size_t i = first_run; i < capture->runs.count; i++) {
    const struct run *run = list_at(&capture->runs, struct run, i);
    add_segment(capture, at, run->address, false, 0, vma->protection);
    add_segment(capture, run->address, run->address + run->size, true, run->content_offset, vma->protection);
    at = run->address + run->size;
    for (uint32_t p = 0; p < run->piece_count; p++) {
      const struct piece *piece = list_at(&capture->pieces, struct piece, run->first_piece + p);
      vma->stored += piece->end - piece->start;
    }
  }
  add_segment(capture, at, vma->end, false, 0, vma->protection);
}

/* ---- shared memory objects ---- */

/* Address of an object's page in some mapping of it, 0 when none maps it. */
uint64_t capture_object_address(const struct object_source *source, uint64_t offset) {
  for (size_t i = 0; i < source->mappings.count; i++) {
    const struct object_mapping *mapping = list_at(&source->mappings, struct object_mapping, i);
    if (offset >= mapping->offset && offset < mapping->offset + mapping->end - mapping->start) return mapping->start + offset - mapping->offset;
  }
  return 0;
}

static int scan_object(struct capture *capture, uint32_t index, uint8_t *buffer) {
  struct object_source *source = list_at(&capture->object_sources, struct object_source, index);
  struct warp_object_record *object = table_at(&capture->objects, struct warp_object_record, index);
  struct scan scan = {.capture = capture, .process_memory = -1, .first_piece = capture->pieces.count};
  uint64_t size = round_up(object->size, PAGE_SIZE);
  for (uint64_t at = 0; at < size;) {
    uint64_t data_end = size;
    if (source->fd >= 0) {
      long data = sys(lseek, source->fd, at, 3 /* SEEK_DATA */);
      if (data == -ENXIO) break;
      if (data >= 0) at = round_down((uint64_t)data, PAGE_SIZE);
      long hole = sys(lseek, source->fd, at, 4 /* SEEK_HOLE */);
      if (data >= 0 && hole >= 0) data_end = min_u64(size, round_up((uint64_t)hole, PAGE_SIZE));
    }
    for (; at < data_end; at += PAGE_SIZE) {
      if (source->fd >= 0) {
        fill_bytes(buffer, 0, PAGE_SIZE);
        long n = read_fully(source->fd, buffer, PAGE_SIZE, at);
        if (n < 0) return fail(capture->failure, "cannot read shared memory object %u at offset 0x%lx: %s", index, at, error_text(n));
      } else {
        uint64_t address = capture_object_address(source, at);
        unsigned char present = 0;
        if (address == 0) continue;
        if (sys(mincore, address, PAGE_SIZE, &present) == 0 && (present & 1) == 0) continue;
        long fd = capture->process_memory;
        if (read_fully((int)fd, buffer, PAGE_SIZE, address) != (long)PAGE_SIZE) continue;
      }
      if (!is_zero(buffer, PAGE_SIZE)) add_piece(&scan, at, at + PAGE_SIZE);
    }
  }
  size_t first_run = capture->runs.count;
  add_runs(capture, scan.first_piece, 0, SOURCE_OBJECT, index);
  for (size_t i = first_run; i < capture->runs.count; i++) {
    const struct run *run = list_at(&capture->runs, struct run, i);
    struct warp_extent_record *extent = table_add(&capture->extents);
    *extent = (struct warp_extent_record){.object = index, .object_offset = run->address, .length = run->size, .content_offset = run->content_offset};
  }
  return 0;
}

static void add_object_segments(struct capture *capture, struct warp_vma_record *vma) {
  uint64_t at = vma->start;
  for (size_t i = 0; i < capture->extents.records.count; i++) {
    const struct warp_extent_record *extent = table_at(&capture->extents, struct warp_extent_record, i);
    if (extent->object != vma->object) continue;
    uint64_t object_start = max_u64(extent->object_offset, vma->offset);
    uint64_t object_end = min_u64(extent->object_offset + extent->length, vma->offset + vma->end - vma->start);
    if (object_start >= object_end) continue;
    uint64_t start = vma->start + object_start - vma->offset, end = vma->start + object_end - vma->offset;
    add_segment(capture, at, start, false, 0, vma->protection);
    add_segment(capture, start, end, true, extent->content_offset + object_start - extent->object_offset, vma->protection);
    vma->stored += end - start;
    at = end;
  }
  add_segment(capture, at, vma->end, false, 0, vma->protection);
}

static uint64_t chosen_chunk_size(const struct capture *capture) {
  const struct request *request = capture->request;
  if (request->lz4_level == 0) return PLAIN_CHUNK_SIZE;
  if (request->chunk_kib != 0) return request->chunk_kib * KIB;
  return capture->content_end > MOST_FINE_CONTENT ? COMPRESSED_CHUNK_SIZE : FINE_CHUNK_SIZE;
}

int capture_scan_memory(struct capture *capture) {
  capture->pagemap = (int)open_file("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC, 0);
  if (capture->pagemap < 0) return fail(capture->failure, "cannot open /proc/PID/pagemap: %s: mount procfs", error_text(capture->pagemap));
  struct page_query query = {.guard = PAGE_IS_GUARD_, .pagemap = capture->pagemap};
  uint8_t *page = arena_allocate(&capture->arena, PAGE_SIZE);
  /* Objects first: their content is shared by the segments of all areas that map them. */
  for (uint32_t i = 0; i < capture->objects.records.count; i++)
    if (scan_object(capture, i, page) < 0) return -1;
  for (size_t i = 0, part = 0; i < capture->vmas.records.count; i++) {
    struct warp_vma_record *vma = table_at(&capture->vmas, struct warp_vma_record, i);
    size_t first_part = part, first_run = capture->runs.count;
    while (part < area_parts.count && list_at(&area_parts, struct area_part, part)->vma == i) part++;
    if (vma->kind == WARP_VMA_VVAR) continue;
    if (vma->kind == WARP_VMA_OBJECT) {
      add_object_segments(capture, vma);
    } else if (vma->kind == WARP_VMA_FILE && (vma->flags & WARP_VMA_SHARED) != 0) {
      add_segment(capture, vma->start, vma->end, false, 0, vma->protection);
    } else {
      for (size_t k = first_part; k < part; k++)
        if (scan_part(capture, &query, list_at(&area_parts, struct area_part, k), page) < 0) return -1;
      add_private_segments(capture, vma, first_run);
    }
  }
  const uint64_t chunk_size = capture->chunk_size = chosen_chunk_size(capture);
  for (uint64_t at = 0; at < capture->content_end; at += chunk_size) {
    struct warp_chunk_record *chunk = table_add(&capture->chunks);
    chunk->content_offset = chunk->file_offset = at;
    chunk->content_size = chunk->stored_size = (uint32_t)min_u64(chunk_size, capture->content_end - at);
  }
  return 0;
}

long capture_read(const struct capture *capture, const struct run *run, uint64_t address, uint64_t size, uint8_t *copy, const uint8_t **ret) {
  long n = (long)size;
  *ret = copy;
  if (run->snapshot != NULL) {
    *ret = run->snapshot + (address - run->address);
  } else if (run->source == SOURCE_OBJECT) {
    const struct object_source *source = list_at(&capture->object_sources, struct object_source, run->object);
    fill_bytes(copy, 0, size);
    if (source->fd >= 0) return read_fully(source->fd, copy, size, address);
    for (uint64_t done = 0; done < size && n >= 0; done += PAGE_SIZE) n = read_fully(capture->process_memory, copy + done, PAGE_SIZE, capture_object_address(source, address + done));
  } else if (run->source == SOURCE_PROCESS_MEMORY) {
    fill_bytes(copy, 0, size);
    n = read_fully(capture->process_memory, copy, size, address);
    if (n >= 0 && n < (long)size) n = -EIO;
  } else if (run->source == SOURCE_MEMORY_COPY) {
    copy_bytes(copy, (const void *)address, size);
  } else {
    *ret = (const uint8_t *)address;
  }
  return n;
}

void capture_include_in_fork(const struct capture *capture, bool include) {
  for (size_t i = 0; i < capture->vmas.records.count; i++) {
    const struct warp_vma_record *vma = table_at(&capture->vmas, struct warp_vma_record, i);
    const uint64_t size = vma->end - vma->start;
    if ((vma->flags & WARP_VMA_DONT_FORK) != 0) sys(madvise, vma->start, size, include ? MADV_DOFORK : MADV_DONTFORK);
    if ((vma->flags & WARP_VMA_WIPE_ON_FORK) != 0) sys(madvise, vma->start, size, include ? MADV_KEEPONFORK_ : MADV_WIPEONFORK_);
  }
}

/* More than this is not copied while the program waits: writing it would take not much longer. */
#define MOST_SNAPSHOT (512 * MIB)

bool capture_prepare_fork(struct capture *capture) {
  struct list wanted;
  uint64_t total = 0;
  list_init(&wanted, &capture->arena, sizeof(struct run *));
  for (size_t i = 0; i < capture->runs.count; i++) {
    struct run *run = list_at(&capture->runs, struct run, i);
    if (run->source != SOURCE_OBJECT) continue;
    total += run->size;
    if (total > MOST_SNAPSHOT) return false;
    *(struct run **)list_add(&wanted) = run;
  }
  for (size_t i = 0; i < wanted.count; i++) {
    struct run *run = *list_at(&wanted, struct run *, i);
    uint8_t *snapshot = arena_allocate(&capture->arena, run->size);
    for (uint32_t k = 0; k < run->piece_count; k++) {
      const struct piece *piece = list_at(&capture->pieces, struct piece, run->first_piece + k);
      const uint8_t *bytes;
      uint8_t *to = snapshot + (piece->start - run->address);
      if (capture_read(capture, run, piece->start, piece->end - piece->start, to, &bytes) < 0) return false;
      if (bytes != to) copy_bytes(to, bytes, piece->end - piece->start);
    }
    run->snapshot = snapshot;
  }
  return true;
}

void capture_place_content(struct capture *capture, uint64_t metadata_size) {
  for (size_t i = 0; i < capture->runs.count; i++) list_at(&capture->runs, struct run, i)->content_offset += metadata_size;
  for (size_t i = 0; i < capture->segments.count; i++) {
    struct segment *segment = list_at(&capture->segments, struct segment, i);
    if (segment->stored) segment->content_offset += metadata_size;
  }
  for (size_t i = 0; i < capture->extents.records.count; i++) table_at(&capture->extents, struct warp_extent_record, i)->content_offset += metadata_size;
  for (size_t i = 0; i < capture->chunks.records.count; i++) {
    struct warp_chunk_record *chunk = table_at(&capture->chunks, struct warp_chunk_record, i);
    chunk->content_offset += metadata_size;
    chunk->file_offset += metadata_size;
  }
  capture->content_end += metadata_size;
}
