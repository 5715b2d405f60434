/*
 * Memory that a restore has mapped directly from the image is a private file mapping. When the program gives such memory
 * back with madvise(MADV_DONTNEED), the kernel would bring the image's bytes again where the program expects zeros, and it
 * refuses MADV_FREE; where it grows such memory with mremap, what follows in the image would appear. So the engine stands
 * before both: it replaces what comes from the image by anonymous memory.
 *
 * The C library's symbols are replaced by those here. The C library calls its own functions directly; those few
 * instructions are redirected in a restored process (release_patch). This file is compiled without vector registers: the
 * redirected code expects that a system call leaves them alone.
 */
#include <linux/mman.h>

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
  };
  return true;
}

/* For kernels without that ioctl: the same from the text. */
static bool search(int fd, uint64_t address, struct found_area *ret) {
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
        const char *p = line.permissions;
        *ret = (struct found_area){
            .start = line.start,
            .end = line.end,
            .protection = (p[0] == 'r' ? PROT_READ : 0) | (p[1] == 'w' ? PROT_WRITE : 0) | (p[2] == 'x' ? PROT_EXEC : 0),
            .from_image = line.inode != 0 && line.inode == warp_control.image_inode && line.device == warp_control.image_device && p[3] == 'p',
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

/* madvise(2) with what the program means by it; returns 0 or a negated errno. */
HIDDEN long engine_madvise(uint64_t address, uint64_t size, int advice) {
  loading_ensure(address, size);
  bool releases = advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_DONTNEED_LOCKED_;
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
      long mapped = sys(mmap, at, part_end - at, area.protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
      result = mapped < 0 ? mapped : 0;
    } else {
      result = sys(madvise, at, part_end - at, advice);
    }
    at = part_end;
  }
  sys(close, fd);
  return result;
}

/*
 * mremap(2): memory that grows gets zeros, where a private file mapping would get what follows in the image. Returns the
 * address or a negated errno.
 */
HIDDEN long engine_mremap(uint64_t address, uint64_t old_size, uint64_t size, int flags, uint64_t new_address) {
  struct found_area area = {.from_image = false};
  loading_ensure(address, max_u64(old_size, size));
  if ((flags & MREMAP_FIXED) != 0) loading_ensure(new_address, size);
  uint64_t old_end = round_up(old_size, PAGE_SIZE), end = round_up(size, PAGE_SIZE);
  if (warp_control.direct_mapped != 0 && end > old_end && old_size > 0) {
    long fd = open_file("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return -ENOMEM;
    if (!query((int)fd, address, &area) && !search((int)fd, address, &area)) area.from_image = false;
    sys(close, fd);
  }
  long moved = sys(mremap, address, old_size, size, flags, new_address);
  if (moved < 0 || !area.from_image || area.start > address) return moved;
  long grown = sys(mmap, (uint64_t)moved + old_end, end - old_end, area.protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
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

/* ---- the C library's own calls ---- */

static struct {
  uint64_t address;
  long number;
  bool patched;
} sites[ARCH_PATCH_SITES];
static size_t site_count;

static bool is_c_library(const char *name) {
  const char *file = find_last_character(name, '/');
  return file != NULL && (strings_equal(file, "/libc.so.6") || strings_equal(file, "/libc.so") || starts_with(file, "/ld-musl-") || starts_with(file, "/libc-2."));
}

/* At a capture: remembers where the C library makes the system call itself. */
void release_find_sites(const struct capture *capture) {
  if (site_count > 0) return;
  for (size_t i = 0; i < capture->vmas.records.count; i++) {
    const struct warp_vma_record *vma = table_at(&capture->vmas, struct warp_vma_record, i);
    char name[512];
    if (vma->kind != WARP_VMA_FILE || (vma->protection & WARP_PROT_EXEC) == 0 || (vma->protection & WARP_PROT_READ) == 0) continue;
    format(name, sizeof name, "%.*s", (int)vma->name.length, (const char *)capture->vmas.heap.bytes + vma->name.offset);
    if (!is_c_library(name)) continue;
    const long numbers[] = {__NR_madvise, __NR_mremap};
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
      for (uint64_t at = vma->start; site_count < ARCH_PATCH_SITES; at++) {
        at = arch_find_call(at, vma->end, numbers[k]);
        if (at == 0) break;
        sites[site_count].number = numbers[k];
        sites[site_count++].address = at;
      }
  }
  log_debug("the C library calls madvise and mremap at %lu places", site_count);
}

/* In a restored process whose memory is mapped from the image, before its threads go on. */
void release_patch(const struct freeze *freeze) {
  for (size_t i = 0; i < site_count; i++) {
    if (sites[i].patched) continue;
    bool busy = false;
    for (size_t k = 0; k < freeze->count; k++) {
      const struct slot *slot = &freeze->slots[k];
      if (slot->context != NULL) busy |= arch_in_call(slot->context, sites[i].address);
    }
    uint64_t page = round_down(sites[i].address, PAGE_SIZE), length = round_up(sites[i].address + 16, PAGE_SIZE) - page;
    if (busy || sys(mprotect, page, length, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) {
      log_warn("the C library's system call at 0x%lx is not redirected: memory that it releases or enlarges may not read as zeros", sites[i].address);
      continue;
    }
    sites[i].patched = arch_patch_call(sites[i].address, i, sites[i].number);
    sys(mprotect, page, length, PROT_READ | PROT_EXEC);
    log_debug("the C library's system call at 0x%lx is redirected", sites[i].address);
  }
}
