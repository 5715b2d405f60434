/* Whether this host and its files are such that the image can run. */
#include "restore.h"

int check_host(struct restore *restore) {
  const struct image *image = &restore->image;
  const struct warp_image_record *record = view_at(&image->image, struct warp_image_record, 0);
  struct arch_cpu cpu;
  arch_read_cpu(&cpu);
  if (record->page_size != PAGE_SIZE) return fail(&restore->failure, "%s: made with pages of %u bytes, here they have %lu", image->path, record->page_size, PAGE_SIZE);
  if ((record->xstate_features & ~cpu.xstate_features) != 0)
    return fail(&restore->failure, "%s: its threads use processor state that this processor lacks (XSAVE features 0x%lx, here 0x%lx; made on %s): restore it on a processor with them", image->path, record->xstate_features,
                cpu.xstate_features, view_string(&image->image, &restore->arena, record->cpu_model));
  size_t size;
  const uint8_t *features = view_bytes(&image->image, record->cpu_features, &size);
  for (size_t i = 0; i < 8 && (i + 1) * 4 <= size; i++) {
    uint32_t needed;
    copy_bytes(&needed, features + i * 4, sizeof needed);
    /* OSXSAVE, the APIC id and other bits that describe the moment, not the instruction set, are not compared. */
    const uint32_t moment = i == 0 ? 1u << 27 | 1u << 31 | 1u << 3 | 1u << 21 : 0;
    uint32_t missing = needed & ~cpu.features[i] & ~moment;
    if (missing != 0) log_warn("the image was made on a processor (%s) with features that this one lacks (word %lu: 0x%x): the program fails where it uses them", view_string(&image->image, &restore->arena, record->cpu_model), i, missing);
  }
  return 0;
}

static int check_file(struct restore *restore, const struct warp_file_record *file, const char *path, int fd) {
  struct file_status status;
  sys(fstat, fd, &status);
  if (status.inode == file->inode && (uint64_t)status.size == file->size && file_mtime_ns(&status) == file->mtime_ns) return 0;
  size_t wanted_size;
  const uint8_t *wanted = view_bytes(&restore->image.files, file->build_id, &wanted_size);
  if (wanted_size > 0) {
    uint8_t found[64];
    size_t found_size = read_build_id(fd, found, sizeof found);
    if (found_size == wanted_size && compare_bytes(found, wanted, wanted_size) == 0) return 0;
    return fail(&restore->failure, "%s: not the file that the program had mapped (its build-id differs): put the version of the checkpoint back, or make the image with --self-contained", path);
  }
  if ((uint64_t)status.size == file->size && file_sample_hash(fd, file->size) == file->sample_hash) return 0;
  return fail(&restore->failure, "%s: changed since the checkpoint (%lu bytes then, %lu now): put that version back, or make the image with --self-contained", path, file->size, (uint64_t)status.size);
}

int open_files(struct restore *restore) {
  struct image *image = &restore->image;
  restore->file_fds = arena_allocate(&restore->arena, image->files.count * sizeof(int) + 1);
  const struct warp_image_record *record = view_at(&image->image, struct warp_image_record, 0);
  bool self_contained = (record->flags & WARP_IMAGE_SELF_CONTAINED) != 0;
  for (size_t i = 0; i < image->files.count; i++) {
    const struct warp_file_record *file = view_at(&image->files, struct warp_file_record, i);
    const char *path = view_string(&image->files, &restore->arena, file->path);
    bool writable = false, shared = false;
    for (size_t k = 0; k < image->vmas.count; k++) {
      const struct warp_vma_record *vma = view_at(&image->vmas, struct warp_vma_record, k);
      if (vma->kind != WARP_VMA_FILE || vma->file != i) continue;
      writable |= (vma->flags & WARP_VMA_SHARED) != 0 && (vma->flags & WARP_VMA_MAY_WRITE) != 0;
      shared |= (vma->flags & WARP_VMA_SHARED) != 0;
    }
    restore->file_fds[i] = -1;
    long fd = open_file(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
    if (fd < 0 && self_contained && !shared) continue;
    if (fd < 0) return fail(&restore->failure, "%s: the program has it mapped, and it cannot be opened: %s: put it there, or make the image with --self-contained", path, error_text(fd));
    /* The content of a shared mapping is the file's, whatever it is now. */
    if (!shared && check_file(restore, file, path, (int)fd) < 0) {
      if (!self_contained) return -1;
      restore->failure.text[0] = 0;
      sys(close, fd);
      continue;
    }
    restore->file_fds[i] = move_descriptor(restore, (int)fd);
    log_debug("mapped file %s is the one of the checkpoint", path);
  }
  return 0;
}
