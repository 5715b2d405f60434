/*
 * Memory that a restore has mapped directly from the image is a private file mapping. When the program gives such memory
 * back with madvise(MADV_DONTNEED), the kernel would bring the image's bytes again where the program expects zeros, and it
 * refuses MADV_FREE; where it grows such memory with mremap, what follows in the image would appear. So the engine stands
 * before both: it replaces what comes from the image by anonymous memory.
 *
 * The C library's symbols are replaced by those here. Code that makes these system calls by itself, the C library's own and
 * any other, is found at a capture (release_find_calls) and redirected in a restored process (release_redirect). This file is
 * compiled without vector registers: redirected code expects that a system call leaves them alone.
 */
#include <linux/mman.h>

#include "../base/xxh64.h"
#include "loading.h"

#define MADV_DONTNEED_LOCKED_ 24

/* ioctl PROCMAP_QUERY of /proc/PID/maps (Linux 6.11, include/uapi/linux/fs.h). */
struct map_query {
  uint64_t size;
  uint64_t flags;
  uint64_t address;
  uint64_t start;
  uint64_t end;
  uint64_t protection;
  uint64_t page_size;
  uint64_t offset;
  uint64_t inode;
  uint32_t device_major;
  uint32_t device_minor;
  uint32_t name_size;
  uint32_t build_id_size;
  uint64_t name;
  uint64_t build_id;
};
_Static_assert(sizeof(struct map_query) == 104, "struct procmap_query");
#define PROCMAP_QUERY_ 0xc0686611u
#define QUERY_COVERING_OR_NEXT 0x10u

struct found_area {
  uint64_t start;
  uint64_t end;
  int protection;
  bool from_image;
  uint64_t offset; /* in the image, of its start */
};

static bool query(int fd, uint64_t address, struct found_area *ret) {
  struct map_query question;
  fill_bytes(&question, 0, sizeof question);
  question.size = sizeof question;
  question.flags = QUERY_COVERING_OR_NEXT;
  question.address = address;
  if (sys(ioctl, fd, PROCMAP_QUERY_, &question) < 0) return false;
  uint64_t device = device_number(question.device_major, question.device_minor);
  *ret = (struct found_area){
      .start = question.start,
      .end = question.end,
      .protection = (int)(question.protection & 7),
      .from_image = question.inode != 0 && question.inode == warp_control.image_inode && device == warp_control.image_device && (question.protection & 8) == 0,
      .offset = question.offset,
  };
  return true;
}

static int protection_of(const struct map_line *line) {
  const char *p = line->permissions;
  return (p[0] == 'r' ? PROT_READ : 0) | (p[1] == 'w' ? PROT_WRITE : 0) | (p[2] == 'x' ? PROT_EXEC : 0);
}

/* For kernels without that ioctl: the same from the text. Not inlined: callers may stand on a small stack. */
static __attribute__((noinline)) bool search(int fd, uint64_t address, struct found_area *ret) {
  char text[4096 + 1];
  size_t length = 0;
  uint64_t offset = 0;
  for (;;) {
    long n = sys(pread64, fd, text + length, sizeof text - 1 - length, offset);
    if (n <= 0) return false;
    offset += (uint64_t)n;
    length += (size_t)n;
    text[length] = 0;
    const char *at = text;
    struct map_line line;
    while (find_character(at, '\n') != NULL && parse_map_line(at, &line) != NULL) {
      if (line.end > address) {
        *ret = (struct found_area){
            .start = line.start,
            .end = line.end,
            .protection = protection_of(&line),
            .from_image = line.inode != 0 && line.inode == warp_control.image_inode && line.device == warp_control.image_device && line.permissions[3] == 'p',
            .offset = line.offset,
        };
        return true;
      }
      at = find_character(at, '\n') + 1;
    }
    size_t left = length - (size_t)(at - text);
    if (left == sizeof text - 1) return false;
    move_bytes(text, at, left);
    length = left;
  }
}

/* ---- changed pages of files, mapped from the image ---- */

static struct warp_overlay *overlays;
static size_t overlay_count;

void release_take_overlays(void) {
  const size_t count = warp_control.overlay_count, list_size = count * sizeof *overlays;
  size_t size = list_size;
  if (overlays != NULL) engine_memory_free(overlays);
  overlays = NULL;
  overlay_count = 0;
  for (size_t i = 0; i < count; i++) size += string_length(warp_control.overlays[i].path) + 1;
  if (count > 0 && (overlays = engine_memory(size)) == NULL) log_warn("no memory: changed pages of files that the program gives back will not read as the file does: restore with --no-direct-map");
  if (overlays != NULL) {
    char *name = (char *)overlays + list_size;
    copy_bytes(overlays, warp_control.overlays, list_size);
    for (overlay_count = 0; overlay_count < count; overlay_count++) {
      const size_t length = string_length(overlays[overlay_count].path) + 1;
      copy_bytes(name, overlays[overlay_count].path, length);
      overlays[overlay_count].path = name;
      name += length;
    }
  }
  warp_control.overlays = NULL;
  warp_control.overlay_count = 0;
}

const struct warp_overlay *release_overlay(uint64_t image_offset, uint64_t *end) {
  *end = UINT64_MAX;
  for (size_t i = 0; i < overlay_count; i++) {
    const struct warp_overlay *overlay = &overlays[i];
    if (image_offset >= overlay->image_offset + overlay->size) continue;
    const bool holds = image_offset >= overlay->image_offset;
    *end = holds ? overlay->image_offset + overlay->size : overlay->image_offset;
    return holds ? overlay : NULL;
  }
  return NULL;
}

/* ---- giving back and growing ---- */

/* The file of an overlay, open, as long as it is still the one at its path; a negated errno. */
static long open_overlaid(const struct warp_overlay *overlay) {
  struct file_status status;
  const long fd = open_file(overlay->path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return fd;
  if (sys(fstat, fd, &status) == 0 && status.device == overlay->device && status.inode == overlay->inode) return fd;
  sys(close, fd);
  return -EIO;
}

/* In the place of what comes from the image at `image_offset`: what was below it before the checkpoint, zeros or a file's content. */
static long lay_ground(uint64_t address, uint64_t size, int protection, uint64_t image_offset, const struct warp_overlay *overlay) {
  if (overlay == NULL) return sys(mmap, address, size, protection, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  const long fd = open_overlaid(overlay);
  if (fd < 0) {
    log_error("the content of %s cannot be had again at 0x%lx: %s: restore with --no-direct-map", overlay->path, address, error_text(fd));
    return fd == -EMFILE || fd == -ENFILE ? -EAGAIN : -EIO;
  }
  const long mapped = sys(mmap, address, size, protection, MAP_PRIVATE | MAP_FIXED, fd, overlay->file_offset + (image_offset - overlay->image_offset));
  sys(close, fd);
  return mapped;
}

static long lay_all_ground(uint64_t address, uint64_t size, int protection, uint64_t image_offset) {
  for (uint64_t end = image_offset + size, stretch_end; image_offset < end; image_offset = stretch_end) {
    const struct warp_overlay *overlay = release_overlay(image_offset, &stretch_end);
    stretch_end = min_u64(stretch_end, end);
    const long mapped = lay_ground(address, stretch_end - image_offset, protection, image_offset, overlay);
    if (mapped < 0) return mapped;
    address += stretch_end - image_offset;
  }
  return 0;
}

/* madvise(2) with what the program means by it; returns 0 or a negated errno. */
HIDDEN long engine_madvise(uint64_t address, uint64_t size, int advice) {
  loading_ensure(address, size);
  bool releases = advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_DONTNEED_LOCKED_ || advice == MADV_REMOVE;
  if (warp_control.direct_mapped == 0 || !releases || address % PAGE_SIZE != 0 || size == 0) return sys(madvise, address, size, advice);
  uint64_t end = address + round_up(size, PAGE_SIZE);
  long fd = open_file("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return -EAGAIN; /* no descriptor is free: madvise may fail so, and the memory stays as it is */
  long result = 0;
  for (uint64_t at = address; at < end && result == 0;) {
    struct found_area area;
    if (!query((int)fd, at, &area) && !search((int)fd, at, &area)) area = (struct found_area){.start = end, .end = end};
    uint64_t part_start = area.from_image ? max_u64(area.start, at) : at;
    /* Up to an area of the image, and for anything else, the kernel's answer is the right one. */
    uint64_t part_end = area.from_image ? (part_start > at ? part_start : min_u64(area.end, end)) : min_u64(max_u64(area.end, at + PAGE_SIZE), end);
    if (area.from_image && part_start == at) {
      const uint64_t offset = area.offset + (at - area.start);
      uint64_t stretch_end;
      const struct warp_overlay *overlay = release_overlay(offset, &stretch_end);
      part_end = at + min_u64(part_end - at, stretch_end - offset);
      if (overlay != NULL && (advice == MADV_FREE || advice == MADV_REMOVE)) {
        result = sys(madvise, at, part_end - at, advice); /* it is a file's, as it was before */
      } else if (advice == MADV_REMOVE) {
        result = -EINVAL; /* as for any memory that is no file's */
      } else {
        const long mapped = lay_ground(at, part_end - at, area.protection, offset, overlay);
        result = mapped < 0 ? mapped : 0;
      }
    } else {
      result = sys(madvise, at, part_end - at, advice);
    }
    at = part_end;
  }
  sys(close, fd);
  return result;
}

/*
 * mremap(2): memory that grows, or stays behind with MREMAP_DONTUNMAP, gets zeros, or what is in its file, where a private
 * mapping of the image would show that. Returns the address or a negated errno.
 */
HIDDEN long engine_mremap(uint64_t address, uint64_t old_size, uint64_t size, int flags, uint64_t new_address) {
  struct found_area area = {.from_image = false};
  loading_ensure(address, max_u64(old_size, size));
  if ((flags & MREMAP_FIXED) != 0) loading_ensure(new_address, size);
  uint64_t old_end = round_up(old_size, PAGE_SIZE), end = round_up(size, PAGE_SIZE);
  const bool stays = (flags & MREMAP_DONTUNMAP) != 0;
  if (warp_control.direct_mapped != 0 && (end > old_end || stays) && old_size > 0) {
    long fd = open_file("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return -ENOMEM;
    if (!query((int)fd, address, &area) && !search((int)fd, address, &area)) area.from_image = false;
    sys(close, fd);
  }
  long moved = sys(mremap, address, old_size, size, flags, new_address);
  if (moved < 0 || !area.from_image || area.start > address) return moved;
  const uint64_t offset = area.offset + (address - area.start);
  if (stays) {
    const long emptied = lay_all_ground(address, old_end, area.protection, offset);
    return emptied < 0 ? emptied : moved;
  }
  uint64_t stretch_end;
  const uint64_t last = offset + old_end - PAGE_SIZE;
  const long grown = lay_ground((uint64_t)moved + old_end, end - old_end, area.protection, last + PAGE_SIZE, release_overlay(last, &stretch_end));
  return grown < 0 ? grown : moved;
}

/* The redirected calls, by number; arguments as the kernel gets them. */
HIDDEN long engine_redirected_call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
  return number == __NR_mremap ? engine_mremap(a, b, c, (int)d, e) : engine_madvise(a, b, (int)c);
}

extern __attribute__((weak)) int *__errno_location(void);

static long with_errno(long result) {
  if (result >= 0 || result < -4095) return result;
  if (__errno_location != NULL) *__errno_location() = (int)-result;
  return -1;
}

__attribute__((visibility("default"))) int madvise(void *address, size_t size, int advice) { return (int)with_errno(engine_madvise((uint64_t)address, size, advice)); }

__attribute__((visibility("default"))) void *mremap(void *address, size_t old_size, size_t size, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  uint64_t new_address = (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0 ? va_arg(arguments, uint64_t) : 0;
  va_end(arguments);
  return (void *)with_errno(engine_mremap((uint64_t)address, old_size, size, flags, new_address));
}

/* ---- system calls that code makes by itself ---- */

#define ISLAND_SIZE PAGE_SIZE
#define SCAN_SIZE (256 * KIB)
#define LONGEST_SYSCALL_FUNCTION 256ul

/* A page with what redirected places go by, near enough to them. */
struct island {
  struct island *next;
  uint8_t *page;
  size_t used;
};
static struct island *islands;

static struct site {
  struct arch_call_site code;
  uint8_t *entry; /* in an island; NULL: not redirected */
  int protection; /* of the code, for mprotect(2) */
} *sites;
static size_t site_count, site_capacity;
static size_t fixed_calls; /* that cannot be redirected, in files' code */
static uint64_t scanned;   /* hash of the mappings that were looked through */

/* What the C library is known to do: its own calls have their number in sight, but for syscall(3) and those that wait. */
extern __attribute__((weak)) long syscall(long number, ...);

bool is_c_library(const char *path) {
  const char *file = find_last_character(path, '/');
  return file != NULL && (starts_with(file, "/libc.so") || starts_with(file, "/libc-2.") || starts_with(file, "/libpthread") || starts_with(file, "/ld-linux") || starts_with(file, "/ld-musl-") || starts_with(file, "/ld-2."));
}

/* Reads what may be unmapped at the same time. */
static long read_code(int memory_fd, uint64_t address, void *to, size_t size) {
  const struct io_vector local = {to, size}, remote = {(void *)address, size};
  const long n = sys(process_vm_readv, sys(getpid), &local, 1, &remote, 1, 0);
  return n == (long)size || memory_fd < 0 ? n : sys(pread64, memory_fd, to, size, address);
}

bool release_read_code(uint64_t address, void *to, size_t size) {
  const int memory_fd = (int)open_file("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
  const long n = read_code(memory_fd, address, to, size);
  if (memory_fd >= 0) sys(close, memory_fd);
  if (n != (long)size) return false;
  for (size_t i = 0; i < site_count; i++) {
    const struct arch_call_site *code = &sites[i].code;
    if (sites[i].entry == NULL) continue;
    for (uint64_t k = 0, at = code->call - code->length - address; k < code->length; k++, at++)
      if (at < size) ((uint8_t *)to)[at] = code->original[k];
  }
  return true;
}

static bool is_known(uint64_t call) {
  for (size_t i = 0; i < site_count; i++)
    if (sites[i].code.call == call) return true;
  return false;
}

static bool add_site(const struct arch_call_site *code, int protection) {
  if (site_count == site_capacity) {
    struct site *larger = engine_memory((site_capacity + 64) * sizeof *sites);
    if (larger == NULL) return false;
    copy_bytes(larger, sites, site_count * sizeof *sites);
    if (sites != NULL) engine_memory_free(sites);
    sites = larger;
    site_capacity += 64;
  }
  sites[site_count++] = (struct site){.code = *code, .protection = protection};
  return true;
}

struct scanned_mapping {
  uint64_t start;
  uint64_t end;
  int protection;
  bool c_library;
  char name[512];
};

static void examine(const struct scanned_mapping *mapping, const uint8_t *code, size_t size, size_t at, uint64_t address) {
  struct arch_call_site site;
  if (is_known(address)) return;
  enum arch_call_kind kind = arch_examine_call(code, size, at, &site);
  site.call = address;
  if (kind == ARCH_NO_CALL || kind == ARCH_OTHER_CALL) return;
  const uint64_t function = (uint64_t)&syscall;
  if (mapping->c_library && site.number < 0 && (address < function || address > function + LONGEST_SYSCALL_FUNCTION)) return;
  if (kind == ARCH_REDIRECTABLE_CALL && add_site(&site, mapping->protection)) return;
  fixed_calls++;
  log_debug("%s: the system call at 0x%lx cannot be redirected", mapping->name, address);
}

/* Looks through one mapping, piece by piece, with what is around each piece. */
static void scan(int memory_fd, const struct scanned_mapping *mapping, uint8_t *buffer) {
  for (uint64_t piece = mapping->start; piece < mapping->end; piece += SCAN_SIZE) {
    const uint64_t end = min_u64(mapping->end, piece + SCAN_SIZE), from = max_u64(mapping->start, piece - min_u64(piece, ARCH_CODE_AROUND)), size = min_u64(mapping->end, end + ARCH_CODE_AROUND) - from;
    if (read_code(memory_fd, from, buffer, size) != (long)size) {
      fixed_calls++;
      log_debug("%s: the code at 0x%lx cannot be read", mapping->name, piece);
      return;
    }
    for (size_t at = piece - from; (at = arch_next_call(buffer, size, at)) < end - from; at++) examine(mapping, buffer, size, at, from + at);
  }
}

static bool is_code(const struct map_line *line) {
  const bool own = line->start < engine_end() && line->end > engine_start(), kernels = line->name_length > 2 && compare_bytes(line->name, "[v", 2) == 0;
  return line->permissions[2] == 'x' && !own && !kernels;
}

/* Code that no linker has made: in anonymous memory, which may be mapped from the image, or in shared memory that is written elsewhere. */
static bool is_in_no_file(const struct map_line *line) {
  const bool from_image = warp_control.generation > 0 && line->inode == warp_control.image_inode && line->device == warp_control.image_device;
  return line->inode == 0 || from_image || line->permissions[3] == 's';
}

static bool is_scanned(const struct map_line *line) { return is_code(line) && !is_in_no_file(line); }

static void forget_vanished_sites(int memory_fd) {
  size_t kept = 0;
  for (size_t i = 0; i < site_count; i++) {
    uint8_t code[sizeof sites->code.original];
    /* A jump stands there still. */
    if (sites[i].entry == NULL || read_code(memory_fd, sites[i].code.call - sites[i].code.length, code, 1) != 1 || code[0] == sites[i].code.original[0]) continue;
    sites[kept++] = sites[i];
  }
  site_count = kept;
}

static void find_calls_in_files(const char *maps, int memory_fd, uint8_t *buffer) {
  const uint64_t begun_ns = clock_ns(CLOCK_MONOTONIC_);
  struct map_line line;
  uint64_t bytes = 0;
  forget_vanished_sites(memory_fd);
  fixed_calls = 0;
  for (const char *at = maps; at != NULL && (at = parse_map_line(at, &line)) != NULL;) {
    if (!is_scanned(&line)) continue;
    struct scanned_mapping mapping = {.start = line.start, .end = line.end, .protection = protection_of(&line)};
    format(mapping.name, sizeof mapping.name, "%.*s", (int)line.name_length, line.name);
    mapping.c_library = is_c_library(mapping.name);
    scan(memory_fd, &mapping, buffer);
    bytes += line.end - line.start;
  }
  log_debug("code makes madvise and mremap by itself at %lu places that can be redirected and %lu that cannot: %lu KiB looked through in %lu us", site_count, fixed_calls, bytes / KIB, (clock_ns(CLOCK_MONOTONIC_) - begun_ns) / 1000);
}

static bool is_island(uint64_t address) {
  for (const struct island *island = islands; island != NULL; island = island->next)
    if (address >= (uint64_t)island->page && address < (uint64_t)island->page + ISLAND_SIZE) return true;
  return false;
}

/* Whether [start, end), SCAN_SIZE at most, has a page: large areas are reserved for code that is never made. */
static bool has_pages(int pagemap_fd, uint64_t start, uint64_t end) {
  uint64_t entries[SCAN_SIZE / PAGE_SIZE];
  const size_t size = (end - start) / PAGE_SIZE * sizeof entries[0];
  if (sys(pread64, pagemap_fd, entries, size, start / PAGE_SIZE * sizeof entries[0]) != (long)size) return true;
  for (size_t i = 0; i < size / sizeof entries[0]; i++)
    if (entries[i] >> 62 != 0) return true; /* present, or swapped */
  return false;
}

/*
 * Code that is in no file: a compiler in the process makes it, moves it and throws it away at any time, with data in between. None of that is changed, and
 * none taken for a call by what is around it. A call that is certain counts as one that cannot be redirected. Returns how many there are.
 */
static size_t find_calls_in_memory(const char *maps, int memory_fd, uint8_t *buffer) {
  const uint64_t begun_ns = clock_ns(CLOCK_MONOTONIC_);
  const int pagemap_fd = (int)open_file("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
  size_t found = 0, bytes = 0;
  struct map_line line;
  for (const char *at = maps; at != NULL && (at = parse_map_line(at, &line)) != NULL;) {
    if (!is_code(&line) || !is_in_no_file(&line)) continue;
    for (uint64_t piece = line.start; piece < line.end; piece += SCAN_SIZE) {
      const uint64_t end = min_u64(line.end, piece + SCAN_SIZE), from = max_u64(line.start, piece - min_u64(piece, ARCH_CODE_AROUND)), size = min_u64(line.end, end + ARCH_CODE_AROUND) - from;
      if (!has_pages(pagemap_fd, piece, end) || read_code(memory_fd, from, buffer, size) != (long)size) continue;
      bytes += end - piece;
      for (size_t k = piece - from; (k = arch_next_call(buffer, size, k)) < end - from; k++) {
        if (!arch_is_plain_call(buffer, size, k) || is_island(from + k)) continue;
        found++;
        log_debug("the system call at 0x%lx, in code that is in no file, is not redirected", from + k);
      }
    }
  }
  if (pagemap_fd >= 0) sys(close, pagemap_fd);
  log_debug("code that is in no file makes madvise and mremap at %lu places: %lu KiB looked through in %lu us", found, bytes / KIB, (clock_ns(CLOCK_MONOTONIC_) - begun_ns) / 1000);
  return found;
}

size_t release_find_calls(struct arena *arena) {
  size_t size;
  long error;
  const char *maps = read_whole_file(arena, "/proc/self/maps", &size, &error);
  struct map_line line;
  struct xxh64_state hash;
  xxh64_begin(&hash);
  for (const char *at = maps; at != NULL && (at = parse_map_line(at, &line)) != NULL;)
    if (is_scanned(&line)) xxh64_update(&hash, &(const uint64_t[]){line.start, line.end, line.device, line.inode, line.offset}, 40);
  const uint64_t seen = xxh64_end(&hash);
  const int memory_fd = (int)open_file("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
  uint8_t *buffer = arena_allocate(arena, SCAN_SIZE + 2 * ARCH_CODE_AROUND);
  if (seen != scanned) find_calls_in_files(maps, memory_fd, buffer);
  scanned = seen;
  const size_t in_memory = find_calls_in_memory(maps, memory_fd, buffer);
  if (memory_fd >= 0) sys(close, memory_fd);
  return fixed_calls + in_memory;
}

/* Room for an entry that `site` can reach; NULL when there is none. */
static struct island *island_near(uint64_t site) {
  for (struct island *island = islands; island != NULL; island = island->next) {
    const uint64_t page = (uint64_t)island->page;
    if (island->used + ARCH_ENTRY_SIZE <= ISLAND_SIZE && (page > site ? page - site : site - page) < ARCH_ENTRY_REACH) return island;
  }
  /* Downwards: above a program may be its heap, which grows. */
  for (uint64_t distance = MIB; distance < ARCH_ENTRY_REACH && distance + MIB < site; distance += MIB) {
    const uint64_t page = round_down(site - distance, PAGE_SIZE);
    const long mapped = map_anonymous(page, ISLAND_SIZE, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
    if (mapped == (long)page) {
      struct island *island = engine_memory(sizeof *island);
      if (island == NULL) return NULL;
      *island = (struct island){.next = islands, .page = (uint8_t *)page};
      islands = island;
      return island;
    }
    if (mapped > 0) sys(munmap, mapped, ISLAND_SIZE);
  }
  return NULL;
}

static bool redirect(struct site *site, const struct freeze *freeze) {
  const uint64_t start = site->code.call - site->code.length, page = round_down(start, PAGE_SIZE), length = round_up(site->code.call, PAGE_SIZE) - page;
  struct island *island = island_near(start);
  if (island == NULL || sys(mprotect, page, length, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) return false;
  uint8_t *entry = island->page + island->used;
  const bool same = compare_bytes((const void *)start, site->code.original, site->code.length) == 0;
  if (same && sys(mprotect, island->page, ISLAND_SIZE, PROT_READ | PROT_WRITE) == 0) {
    if (arch_redirect_call(&site->code, entry)) site->entry = entry;
    sys(mprotect, island->page, ISLAND_SIZE, PROT_READ | PROT_EXEC);
  }
  sys(mprotect, page, length, site->protection);
  if (site->entry == NULL) return false;
  island->used += ARCH_ENTRY_SIZE;
  for (size_t i = 0; i < freeze->count; i++)
    if (freeze->slots[i].context != NULL) arch_leave_redirected(freeze->slots[i].context, &site->code, entry);
  return true;
}

void release_redirect(const struct freeze *freeze) {
  for (size_t i = 0; i < site_count; i++) {
    if (sites[i].entry != NULL) continue;
    if (redirect(&sites[i], freeze)) {
      log_debug("the system call at 0x%lx is redirected", sites[i].code.call);
    } else {
      log_warn("the system call at 0x%lx cannot be redirected: memory that it releases or enlarges may not read as zeros: restore with --no-direct-map", sites[i].code.call);
    }
  }
}
