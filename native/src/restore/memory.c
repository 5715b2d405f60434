/* The image's memory takes the place of the restorer's own. */
#include <linux/memfd.h>
#include <linux/mman.h>
#include <linux/prctl.h>

#include "restore.h"

/* From this size on a stretch is mapped from the image: below, reading it costs less than a mapping and its page faults. */
#define DIRECT_MINIMUM (64 * KIB)

#define MADV_GUARD_INSTALL_ 102
#define MADV_WIPEONFORK_ 18

static bool in_bootstrap(const struct restore *restore, uint64_t address) { return address >= restore->bootstrap && address < restore->bootstrap + restore->bootstrap_size; }

static uint64_t control_address(const struct restore *restore) { return view_at(&restore->image.process, struct warp_process_record, 0)->control; }

/* ---- shared memory objects ---- */

/* An object that one mapping shows in full needs no name: it is made where it belongs (see map_area). */
static bool has_descriptor(const struct restore *restore, uint32_t object) {
  for (size_t i = 0; i < restore->image.descriptions.count; i++) {
    const struct warp_description_record *description = view_at(&restore->image.descriptions, struct warp_description_record, i);
    if (description->kind == WARP_DESCRIPTION_OBJECT && description->detail == object) return true;
  }
  return false;
}

static bool is_single_mapping(const struct restore *restore, uint32_t object) {
  const struct warp_object_record *record = view_at(&restore->image.objects, struct warp_object_record, object);
  if (record->kind != WARP_OBJECT_SHARED_ANONYMOUS || has_descriptor(restore, object)) return false;
  size_t mappings = 0;
  bool whole = false;
  for (size_t i = 0; i < restore->image.vmas.count; i++) {
    const struct warp_vma_record *vma = view_at(&restore->image.vmas, struct warp_vma_record, i);
    if (vma->kind != WARP_VMA_OBJECT || vma->object != object) continue;
    mappings++;
    whole = vma->offset == 0 && vma->end - vma->start == record->size;
  }
  return mappings == 1 && whole;
}

/* Maps an object from its first content to its last, which become targets; the mapping, if there is any, goes to *ret. */
static long map_object(const struct restore *restore, uint32_t object, int fd, struct io_vector *ret, struct list *targets) {
  const struct image *image = &restore->image;
  const size_t first_target = targets->count;
  const uint64_t size = view_at(&image->objects, struct warp_object_record, object)->size;
  uint64_t start = UINT64_MAX, end = 0;
  for (size_t i = 0; i < image->extents.count; i++) {
    const struct warp_extent_record *extent = view_at(&image->extents, struct warp_extent_record, i);
    if (extent->object != object || extent->object_offset >= size || extent->length == 0) continue;
    const uint64_t length = min_u64(extent->length, size - extent->object_offset);
    *(struct target *)list_add(targets) = (struct target){extent->content_offset, length, extent->object_offset};
    start = min_u64(start, round_down(extent->object_offset, PAGE_SIZE));
    end = max_u64(end, extent->object_offset + length);
  }
  *ret = (struct io_vector){NULL, 0};
  if (start >= end) return 0;
  const long address = sys(mmap, 0, end - start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, start);
  if (address < 0) return address;
  for (size_t i = first_target; i < targets->count; i++) list_at(targets, struct target, i)->address += (uint64_t)address - start;
  *ret = (struct io_vector){(void *)address, end - start};
  return 0;
}

int create_objects(struct restore *restore) {
  struct image *image = &restore->image;
  struct io_vector *mappings = arena_allocate(&restore->arena, image->objects.count * sizeof *mappings + 1);
  struct list targets;
  list_init(&targets, &restore->arena, sizeof(struct target));
  restore->object_fds = arena_allocate(&restore->arena, image->objects.count * sizeof(int) + 1);
  for (uint32_t i = 0; i < image->objects.count; i++) {
    const struct warp_object_record *object = view_at(&image->objects, struct warp_object_record, i);
    restore->object_fds[i] = -1;
    if (is_single_mapping(restore, i)) continue;
    char *name = view_string(&image->objects, &restore->arena, object->name);
    const char *base_name = object->kind == WARP_OBJECT_MEMFD ? name : find_last_character(name, '/');
    if (base_name == NULL) base_name = name;
    if (object->kind != WARP_OBJECT_MEMFD && base_name[0] == '/') base_name++;
    char short_name[240];
    format(short_name, sizeof short_name, "%s", base_name);
    long fd = sys(memfd_create, short_name, MFD_CLOEXEC | (object->kind == WARP_OBJECT_MEMFD ? object->memfd_flags : 0u));
    if (fd < 0) return fail(&restore->failure, "cannot create shared memory object %u (%s): %s", i, name, error_text(fd));
    long error = sys(ftruncate, fd, object->size);
    if (error == 0 && (object->mode & 07777) != 0) error = sys(fchmod, fd, object->mode & 07777);
    if (error == 0) error = map_object(restore, i, (int)fd, &mappings[i], &targets);
    if (error < 0) return fail(&restore->failure, "cannot fill shared memory object %u (%s, %lu bytes): %s", i, name, object->size, error_text(error));
    restore->object_fds[i] = move_descriptor(restore, (int)fd);
  }
  if (load_content(restore, &targets, false) < 0) return -1;
  restore->stats.object_bytes = restore->stats.eager_bytes;
  restore->stats.eager_bytes = 0;
  for (size_t i = 0; i < image->objects.count; i++)
    if (mappings[i].length > 0) sys(munmap, mappings[i].base, mappings[i].length);
  return 0;
}

/* ---- giving up our own memory ---- */

static bool is_kernel_area(const struct map_line *line) { return line->name_length >= 5 && (compare_bytes(line->name, "[vdso", 5) == 0 || compare_bytes(line->name, "[vvar", 5) == 0); }

/*
 * The kernel's vDSO and its data areas are moved together into the restorer's place, in their order. This is the only look at /proc/self/maps: with
 * the program's areas in it, it takes as long as making them.
 */
int clear_memory(struct restore *restore) {
  size_t size;
  long error;
  /* One page of the image: maps may name it otherwise than stat(2) does (overlayfs, btrfs). */
  arena_region.end -= PAGE_SIZE;
  const uint64_t page = arena_region.end;
  sys(mmap, page, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED, restore->image_fd, 0);
  restore->image_in_maps = (struct file_identity){restore->image.status.device, restore->image.status.inode};
  const char *maps = read_whole_file(&restore->arena, "/proc/self/maps", &size, &error), *at = maps;
  if (maps == NULL) return fail(&restore->failure, "cannot read /proc/self/maps: %s: mount procfs", error_text(error));
  struct map_line line;
  uint64_t place = restore->vdso_place;
  while ((at = parse_map_line(at, &line)) != NULL) {
    if (line.start == page && line.inode != 0) restore->image_in_maps = (struct file_identity){line.device, line.inode};
    if (in_bootstrap(restore, line.start) || line.start >= (1ul << 63)) continue;
    if (is_kernel_area(&line) && restore->kernel_area_count < MOST_KERNEL_AREAS) {
      const uint64_t length = line.end - line.start;
      long moved = sys(mremap, line.start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place);
      if (moved < 0) return fail(&restore->failure, "the kernel's %.*s cannot be moved: %s", (int)line.name_length, line.name, error_text(moved));
      line.start = place;
      line.end = place += length;
      restore->kernel_areas[restore->kernel_area_count++] = line;
      continue;
    }
    sys(munmap, line.start, line.end - line.start);
  }
  return 0;
}

/* ---- areas ---- */

int kernel_protection(uint32_t protection) {
  return ((protection & WARP_PROT_READ) != 0 ? PROT_READ : 0) | ((protection & WARP_PROT_WRITE) != 0 ? PROT_WRITE : 0) | ((protection & WARP_PROT_EXEC) != 0 ? PROT_EXEC : 0);
}

static bool maps_directly(const Elf64_Phdr *segment) { return segment->p_type == PT_LOAD && segment->p_filesz >= DIRECT_MINIMUM; }

bool is_anonymous(const struct warp_vma_record *vma) {
  const uint32_t peculiar = WARP_VMA_GROWS_DOWN | WARP_VMA_SHARED | WARP_VMA_WIPE_ON_FORK | WARP_VMA_LOCKED;
  return (vma->kind == WARP_VMA_ANONYMOUS || vma->kind == WARP_VMA_HEAP) && (vma->flags & peculiar) == 0;
}

bool is_mapped_directly(const struct restore *restore, const Elf64_Phdr *segment) {
  const struct warp_vma_record *vma = restore->options.direct_map && maps_directly(segment) ? image_vma_at(&restore->image, segment->p_vaddr) : NULL;
  return vma != NULL && is_anonymous(vma);
}

/* Private memory over a file. Code is left out: whoever looks for its symbols finds the file in /proc/PID/maps. */
static bool is_over_file(const struct warp_vma_record *vma) {
  const uint32_t peculiar = WARP_VMA_SHARED | WARP_VMA_WIPE_ON_FORK | WARP_VMA_LOCKED;
  return vma->kind == WARP_VMA_FILE && (vma->flags & peculiar) == 0 && (vma->protection & WARP_PROT_EXEC) == 0;
}

/* The version of the control block that is in a plain image; 0 when there is none. */
static uint32_t engine_version(const struct restore *restore) {
  const uint64_t address = control_address(restore);
  struct warp_control control;
  const size_t size = offsetof(struct warp_control, size);
  for (uint64_t i = 0; i < restore->image.segment_count; i++) {
    const Elf64_Phdr *segment = &restore->image.segments[i];
    if (segment->p_type != PT_LOAD || segment->p_vaddr > address || segment->p_vaddr + segment->p_filesz < address + size) continue;
    return read_fully(restore->image_fd, &control, size, segment->p_offset + (address - segment->p_vaddr)) == (long)size ? control.version : 0;
  }
  return 0;
}

/* Tells the engine whose file the mapping of changed pages stands over. */
static void add_overlay(struct restore *restore, const struct warp_vma_record *vma, const Elf64_Phdr *segment, const struct file_status *status) {
  const struct warp_file_record *file = view_at(&restore->image.files, struct warp_file_record, vma->file);
  *(struct warp_overlay *)list_add(&restore->overlays) = (struct warp_overlay){
      .image_offset = segment->p_offset,
      .size = segment->p_filesz,
      .file_offset = vma->offset + (segment->p_vaddr - vma->start),
      .device = status->device,
      .inode = status->inode,
      .path = view_string(&restore->image.files, &restore->arena, file->path),
  };
}

static int fail_map(struct restore *restore, const struct warp_vma_record *vma, long error) {
  const char *mend = error == -ENOMEM ? ": raise the memory limit, or vm.max_map_count" : "";
  return fail(&restore->failure, "cannot map memory area 0x%lx-0x%lx (%s): %s%s", vma->start, vma->end, view_string(&restore->image.vmas, &restore->arena, vma->name), error_text(error), mend);
}

static void apply_advice(const struct warp_vma_record *vma) {
  static const struct {
    uint32_t flag;
    int advice;
  } advices[] = {
      {WARP_VMA_DONT_DUMP, MADV_DONTDUMP}, {WARP_VMA_DONT_FORK, MADV_DONTFORK},     {WARP_VMA_WIPE_ON_FORK, MADV_WIPEONFORK}, {WARP_VMA_MERGEABLE, MADV_MERGEABLE},
      {WARP_VMA_RANDOM, MADV_RANDOM},          {WARP_VMA_SEQUENTIAL, MADV_SEQUENTIAL},
  };
  if ((vma->flags & ~(WARP_VMA_SHARED | WARP_VMA_MAY_WRITE | WARP_VMA_NO_RESERVE)) == 0) return;
  for (size_t i = 0; i < sizeof advices / sizeof advices[0]; i++) {
    if ((vma->flags & advices[i].flag) == 0) continue;
    long error = sys(madvise, vma->start, vma->end - vma->start, advices[i].advice);
    if (error < 0) log_debug("memory area 0x%lx: madvise %d: %s", vma->start, advices[i].advice, error_text(error));
  }
  if ((vma->flags & WARP_VMA_LOCKED) != 0) {
    long error = sys(mlock2, vma->start, vma->end - vma->start, (vma->flags & WARP_VMA_LOCK_ON_FAULT) != 0 ? MLOCK_ONFAULT : 0);
    if (error < 0) log_warn("memory area 0x%lx-0x%lx was locked in memory, and cannot be here: %s: raise RLIMIT_MEMLOCK", vma->start, vma->end, error_text(error));
  }
}

/* An area that its segments will not cover by themselves: the ground that they are laid on. */
static long map_ground(struct restore *restore, const struct warp_vma_record *vma, int protection) {
  uint64_t size = vma->end - vma->start;
  int flags = MAP_FIXED | ((vma->flags & WARP_VMA_NO_RESERVE) != 0 ? MAP_NORESERVE : 0);
  if (vma->kind == WARP_VMA_FILE) {
    int fd = restore->file_fds[vma->file];
    if (fd >= 0) return sys(mmap, vma->start, size, protection, flags | ((vma->flags & WARP_VMA_SHARED) != 0 ? MAP_SHARED : MAP_PRIVATE), fd, vma->offset);
  }
  if (vma->kind == WARP_VMA_OBJECT) {
    int fd = restore->object_fds[vma->object];
    if (fd < 0) return sys(mmap, vma->start, size, protection, flags | MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return sys(mmap, vma->start, size, protection, flags | MAP_SHARED, fd, vma->offset);
  }
  if ((vma->flags & WARP_VMA_GROWS_DOWN) != 0) flags |= MAP_GROWSDOWN;
  if (vma->kind == WARP_VMA_STACK) flags |= MAP_STACK;
  return sys(mmap, vma->start, size, protection, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

bool map_from_image(struct restore *restore, const struct warp_vma_record *vma, uint64_t address, uint64_t size, uint64_t offset) {
  const int flags = MAP_PRIVATE | MAP_FIXED | ((vma->flags & WARP_VMA_NO_RESERVE) != 0 ? MAP_NORESERVE : 0);
  const long mapped = sys(mmap, address, size, kernel_protection(vma->protection), flags, restore->image_fd, offset);
  if (mapped < 0) {
    log_debug("memory at 0x%lx cannot be mapped from the image: %s: it is read", address, error_text(mapped));
    return false;
  }
  restore->stats.direct_mappings++;
  restore->stats.direct_bytes += size;
  return true;
}

static int map_area(struct restore *restore, const struct warp_vma_record *vma, const Elf64_Phdr *first, const Elf64_Phdr *end, struct list *targets, struct list *protect_later) {
  const int final = kernel_protection(vma->protection);
  bool content_elsewhere = vma->kind == WARP_VMA_OBJECT && restore->object_fds[vma->object] >= 0;
  struct file_status status;
  const bool overlays = restore->map_changed_pages && is_over_file(vma) && restore->file_fds[vma->file] >= 0 && sys(fstat, restore->file_fds[vma->file], &status) == 0;
  const bool direct_allowed = restore->options.direct_map && (is_anonymous(vma) || overlays);
  bool covered = direct_allowed && !overlays && first < end && first->p_memsz == vma->end - vma->start && maps_directly(first);
  bool eager = false;
  for (const Elf64_Phdr *segment = first; segment < end && !content_elsewhere; segment++) eager |= segment_stored(segment) > 0 && !(direct_allowed && maps_directly(segment));
  if (!covered) {
    long address = map_ground(restore, vma, final | (eager ? PROT_WRITE : 0));
    if (address < 0) return fail_map(restore, vma, address);
  }
  bool writable = eager;
  for (const Elf64_Phdr *segment = first; segment < end && !content_elsewhere; segment++) {
    if (segment_stored(segment) == 0) continue;
    if (direct_allowed && maps_directly(segment)) {
      if (map_from_image(restore, vma, segment->p_vaddr, segment->p_filesz, segment->p_offset)) {
        if (overlays) add_overlay(restore, vma, segment, &status);
        continue;
      }
      if (covered || !writable) {
        const long address = map_ground(restore, vma, final | PROT_WRITE);
        if (address < 0) return fail_map(restore, vma, address);
        writable = true;
      }
    }
    if (!writable) {
      sys(mprotect, vma->start, vma->end - vma->start, final | PROT_WRITE);
      writable = true;
    }
    *(struct target *)list_add(targets) = (struct target){segment->p_offset, segment_stored(segment), segment->p_vaddr};
  }
  /* Before the content comes: it decides about the pages that this gets. */
  if ((vma->flags & (WARP_VMA_HUGE_PAGE | WARP_VMA_NO_HUGE_PAGE)) != 0) sys(madvise, vma->start, vma->end - vma->start, (vma->flags & WARP_VMA_HUGE_PAGE) != 0 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  if (writable && (final & PROT_WRITE) == 0) *(const struct warp_vma_record **)list_add(protect_later) = vma;
  return 0;
}

/* Every direct mapping may split an area in three. */
bool nears_area_limit(const struct restore *restore) {
  char text[32];
  uint64_t limit = 65530, direct = 0;
  if (read_small_file("/proc/sys/vm/max_map_count", text, sizeof text) > 0) {
    const char *at = text;
    limit = parse_decimal(&at);
  }
  for (uint64_t i = 0; i < restore->image.segment_count; i++) direct += maps_directly(&restore->image.segments[i]);
  if (restore->map_chunks) direct += restore->image.accesses.count;
  return restore->image.vmas.count + 2 * direct + 64 > limit;
}

static bool less_overlay(const void *a, const void *b) { return ((const struct warp_overlay *)a)->image_offset < ((const struct warp_overlay *)b)->image_offset; }

int restore_memory(struct restore *restore) {
  struct image *image = &restore->image;
  struct list targets, protect_later;
  list_init(&targets, &restore->arena, sizeof(struct target));
  list_init(&protect_later, &restore->arena, sizeof(const struct warp_vma_record *));
  list_init(&restore->overlays, &restore->arena, sizeof(struct warp_overlay));
  restore->map_changed_pages = restore->options.direct_map && engine_version(restore) >= 5;
  uint64_t next = 0;
  for (size_t i = 0; i < image->vmas.count; i++) {
    const struct warp_vma_record *vma = view_at(&image->vmas, struct warp_vma_record, i);
    if (vma->kind == WARP_VMA_VVAR || vma->kind == WARP_VMA_VDSO) continue;
    while (next < image->segment_count && (!segment_is_memory(&image->segments[next]) || image->segments[next].p_vaddr < vma->start)) next++;
    uint64_t end = next;
    while (end < image->segment_count && image->segments[end].p_vaddr < vma->end) end++;
    if (map_area(restore, vma, image->segments + next, image->segments + end, &targets, &protect_later) < 0) return -1;
    next = end;
  }
  end_phase(restore, PHASE_MAP);
  if (restore->concurrent && defer_content(restore, &targets) < 0) return -1;
  end_phase(restore, PHASE_DEFER);
  if (load_content(restore, &targets, restore->content.check_all) < 0) return -1;
  end_phase(restore, PHASE_LOAD);
  for (size_t i = 0; i < protect_later.count; i++) {
    const struct warp_vma_record *vma = *list_at(&protect_later, const struct warp_vma_record *, i);
    sys(mprotect, vma->start, vma->end - vma->start, kernel_protection(vma->protection));
  }
  for (size_t i = 0; i < image->vmas.count; i++) {
    const struct warp_vma_record *vma = view_at(&image->vmas, struct warp_vma_record, i);
    if (vma->kind == WARP_VMA_VVAR || vma->kind == WARP_VMA_VDSO) continue;
    apply_advice(vma);
    char *name = view_string(&image->vmas, &restore->arena, vma->name);
    if (starts_with(name, "[anon:")) {
      name[string_length(name) - 1] = 0;
      sys(prctl, 0x53564d41 /* PR_SET_VMA */, 0 /* PR_SET_VMA_ANON_NAME */, vma->start, vma->end - vma->start, name + 6);
    }
  }
  for (size_t i = 0; i < image->guards.count; i++) {
    const struct warp_guard_record *guard = view_at(&image->guards, struct warp_guard_record, i);
    long error = sys(madvise, guard->start, guard->end - guard->start, MADV_GUARD_INSTALL_);
    if (error < 0) log_warn("guard pages at 0x%lx-0x%lx cannot be set on this kernel: %s: a stack overflow there goes unnoticed", guard->start, guard->end, error_text(error));
  }
  struct warp_control *control = (struct warp_control *)control_address(restore);
  const struct warp_vma_record *control_vma = image_vma_at(image, (uint64_t)control);
  if (control_vma == NULL || control_vma->kind != WARP_VMA_ENGINE || compare_bytes(control->magic, WARP_CONTROL_MAGIC, 8) != 0 || control->version > WARP_CONTROL_VERSION)
    return fail(&restore->failure, "%s: no engine that this restorer knows is at 0x%lx: use warp-tool of the version that made the image", image->path, (uint64_t)control);
  control->direct_mapped = restore->stats.direct_mappings > 0;
  control->generation = view_at(&image->image, struct warp_image_record, 0)->generation + 1;
  format(control->executable, sizeof control->executable, "%s", view_string(&image->image, &restore->arena, view_at(&image->image, struct warp_image_record, 0)->executable));
  control->environment_size = restore->options.environment_size;
  copy_bytes(control->environment, restore->options.environment, restore->options.environment_size);
  control->threads_arrived = 0;
  control->release = 0;
  if (control->version < 2 && restore->loading != NULL)
    return fail(&restore->failure, "%s: the engine in it cannot load memory while the program runs: restore with --no-concurrent", image->path);
  if (control->version < 4 && restore->loading != NULL && restore->loading->encrypted != 0)
    return fail(&restore->failure, "%s: the engine in it cannot decrypt memory while the program runs: restore with --no-concurrent", image->path);
  if (control->version >= 2) {
    control->loading = restore->loading;
    control->restore_data_size = restore->options.restore_data_size;
    copy_bytes(control->restore_data, restore->options.restore_data, restore->options.restore_data_size);
  }
  if (control->version < 3 && restore->options.arguments_size > 0) return fail(&restore->failure, "%s: the engine in it takes no arguments: restore without them", image->path);
  if (control->version >= 3) {
    if (restore->options.arguments_size > 0 && !control->takes_arguments)
      log_warn("the arguments behind -- are not used: only Java programs that were started by `warp-tool run` ask for them; give others variables by --env");
    control->arguments_size = restore->options.arguments_size;
    copy_bytes(control->arguments, restore->options.arguments, restore->options.arguments_size);
  }
  if (control->version >= 5) {
    list_sort(&restore->overlays, less_overlay);
    control->overlays = restore->overlays.items;
    control->overlay_count = restore->overlays.count;
  }
  control->image_device = restore->image_in_maps.device;
  control->image_inode = restore->image_in_maps.inode;
  control->bootstrap_address = restore->bootstrap;
  control->bootstrap_size = restore->bootstrap_size;
  return 0;
}

/* ---- the vDSO ---- */

struct vdso {
  uint64_t base;
  const Elf64_Sym *symbols;
  const char *names;
  size_t count;
};

static bool parse_vdso(uint64_t base, struct vdso *ret) {
  const Elf64_Ehdr *header = (const void *)base;
  const Elf64_Phdr *segments = (const void *)(base + header->e_phoff);
  uint64_t load = 0;
  const Elf64_Dyn *dynamic = NULL;
  *ret = (struct vdso){.base = base};
  if (compare_bytes(header->e_ident, ELFMAG, SELFMAG) != 0) return false;
  for (unsigned i = 0; i < header->e_phnum; i++) {
    if (segments[i].p_type == PT_LOAD) load = base + segments[i].p_offset - segments[i].p_vaddr;
    if (segments[i].p_type == PT_DYNAMIC) dynamic = (const void *)(base + segments[i].p_offset);
  }
  const uint32_t *hash = NULL, *gnu_hash = NULL;
  for (; dynamic != NULL && dynamic->d_tag != DT_NULL; dynamic++) {
    if (dynamic->d_tag == DT_SYMTAB) ret->symbols = (const void *)(load + dynamic->d_un.d_val);
    if (dynamic->d_tag == DT_STRTAB) ret->names = (const void *)(load + dynamic->d_un.d_val);
    if (dynamic->d_tag == DT_HASH) hash = (const void *)(load + dynamic->d_un.d_val);
    if (dynamic->d_tag == DT_GNU_HASH) gnu_hash = (const void *)(load + dynamic->d_un.d_val);
  }
  if (hash != NULL) {
    ret->count = hash[1];
  } else if (gnu_hash != NULL) {
    /* The symbols end where the last chain of the last bucket ends. */
    const uint32_t *buckets = gnu_hash + 4 + gnu_hash[2] * 2, *chains = buckets + gnu_hash[0];
    uint32_t last = 0;
    for (uint32_t i = 0; i < gnu_hash[0]; i++) last = buckets[i] > last ? buckets[i] : last;
    while (last >= gnu_hash[1] && (chains[last - gnu_hash[1]] & 1) == 0) last++;
    ret->count = last + 1;
  }
  ret->base = load;
  return ret->symbols != NULL && ret->names != NULL;
}

static uint64_t vdso_symbol(const struct vdso *vdso, const char *name) {
  for (size_t i = 0; i < vdso->count; i++)
    if (vdso->symbols[i].st_shndx != 0 && strings_equal(vdso->names + vdso->symbols[i].st_name, name)) return vdso->base + vdso->symbols[i].st_value;
  return 0;
}

/* Another kernel's vDSO: the image's stays where the program knows it, and each of its functions jumps to this kernel's. */
static int forward_vdso(struct restore *restore, uint64_t image_vdso, uint64_t size, const uint8_t *stored, uint64_t host_vdso) {
  long address = map_anonymous(image_vdso, size, PROT_READ | PROT_WRITE, MAP_FIXED);
  if (address < 0) return fail(&restore->failure, "cannot map the image's vDSO at 0x%lx: %s", image_vdso, error_text(address));
  copy_bytes((void *)image_vdso, stored, size);
  struct vdso image, host;
  if (!parse_vdso(image_vdso, &image)) return fail(&restore->failure, "%s: its vDSO at 0x%lx cannot be understood", restore->image.path, image_vdso);
  if (host_vdso == 0 || !parse_vdso(host_vdso, &host)) return fail(&restore->failure, "this kernel gives no vDSO, and the program uses one: boot without vdso=0");
  for (size_t i = 0; i < image.count; i++) {
    const Elf64_Sym *symbol = &image.symbols[i];
    const char *name = image.names + symbol->st_name;
    if (symbol->st_shndx == 0 || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC) continue;
    uint64_t target = vdso_symbol(&host, name);
    if (target == 0 || symbol->st_size < ARCH_JUMP_SIZE) {
      log_warn("the vDSO function %s of the checkpoint's kernel has no counterpart here", name);
      continue;
    }
    arch_write_jump((uint8_t *)(image.base + symbol->st_value), target);
  }
  sys(mprotect, image_vdso, size, PROT_READ | PROT_EXEC);
  return 0;
}

/* Room that stays: not in the restorer's place, which is given up. */
static uint64_t lasting_place(const struct restore *restore, uint64_t size) {
  for (uint64_t candidate = restore->bootstrap + restore->bootstrap_size + PAGE_SIZE;; candidate += MIB) {
    bool free = true;
    for (size_t i = 0; i < restore->image.vmas.count && free; i++) {
      const struct warp_vma_record *vma = view_at(&restore->image.vmas, struct warp_vma_record, i);
      free = candidate + size <= vma->start - min_u64(vma->start, PAGE_SIZE) || candidate >= vma->end + PAGE_SIZE;
    }
    if (free) return candidate;
  }
}

int restore_vdso(struct restore *restore) {
  struct image *image = &restore->image;
  const struct warp_vma_record *image_vdso = NULL;
  uint64_t image_data = 0, image_data_size = 0;
  for (size_t i = 0; i < image->vmas.count; i++) {
    const struct warp_vma_record *vma = view_at(&image->vmas, struct warp_vma_record, i);
    if (vma->kind == WARP_VMA_VDSO) image_vdso = vma;
    if (vma->kind == WARP_VMA_VVAR) {
      if (image_data == 0) image_data = vma->start;
      image_data_size += vma->end - vma->start;
    }
  }
  uint64_t host_vdso = 0, host_vdso_size = 0, host_data_size = 0;
  for (size_t i = 0; i < restore->kernel_area_count; i++) {
    const struct map_line *area = &restore->kernel_areas[i];
    if (compare_bytes(area->name, "[vdso", 5) == 0) {
      host_vdso = area->start;
      host_vdso_size = area->end - area->start;
    } else {
      host_data_size += area->end - area->start;
    }
  }
  if (image_vdso == NULL) return 0;
  uint8_t *stored = NULL;
  uint64_t vdso_size = image_vdso->end - image_vdso->start;
  for (uint64_t i = 0; i < image->segment_count; i++) {
    const Elf64_Phdr *segment = &image->segments[i];
    if (!segment_is_memory(segment) || segment->p_vaddr != image_vdso->start || segment_stored(segment) < vdso_size) continue;
    struct list targets;
    list_init(&targets, &restore->arena, sizeof(struct target));
    stored = arena_allocate(&restore->arena, vdso_size);
    *(struct target *)list_add(&targets) = (struct target){segment->p_offset, vdso_size, (uint64_t)stored};
    if (load_content(restore, &targets, false) < 0) return -1;
  }
  /* The data areas lie directly below the code, in the image as here, or the code would not find them. */
  bool same_layout = host_vdso != 0 && host_vdso_size == vdso_size && host_data_size == image_data_size && image_data + image_data_size == image_vdso->start;
  bool same = same_layout && stored != NULL && compare_bytes((const void *)host_vdso, stored, vdso_size) == 0;
  uint64_t target = same ? image_data : lasting_place(restore, host_vdso_size + host_data_size);
  for (size_t i = 0; i < restore->kernel_area_count; i++) {
    const struct map_line *area = &restore->kernel_areas[i];
    const uint64_t length = area->end - area->start;
    long moved = sys(mremap, area->start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    if (moved < 0) return fail(&restore->failure, "the kernel's %.*s cannot be moved to 0x%lx: %s", (int)area->name_length, area->name, target, error_text(moved));
    if (area->start == host_vdso) host_vdso = target;
    target += length;
  }
  if (same) return 0;
  if (stored == NULL) return fail(&restore->failure, "%s: the vDSO's code at 0x%lx is not in it", image->path, image_vdso->start);
  log_info("the image's vDSO is another kernel's: its functions are forwarded to this one's");
  return forward_vdso(restore, image_vdso->start, vdso_size, stored, host_vdso);
}
