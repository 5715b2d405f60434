#include "restore.h"

static const char *damaged = "the image is damaged or incomplete: take it from its source again";

static int read_metadata(struct image *image, struct arena *arena, struct failure *failure) {
  Elf64_Ehdr header;
  struct warp_anchor *anchor = &image->anchor;
  uint8_t start[WARP_ANCHOR_OFFSET + sizeof *anchor];
  long n = read_fully(image->fd, start, sizeof start, 0);
  if (n < 0) return fail(failure, "%s: cannot be read: %s", image->path, error_text(n));
  copy_bytes(&header, start, sizeof header);
  copy_bytes(anchor, start + WARP_ANCHOR_OFFSET, sizeof *anchor);
  if (n < (long)sizeof header || compare_bytes(header.e_ident, ELFMAG, SELFMAG) != 0) return fail(failure, "%s: not an ELF file: name a directory with core.img, or an image", image->path);
  if (header.e_type != ET_CORE || header.e_ident[EI_CLASS] != ELFCLASS64) return fail(failure, "%s: not a 64-bit ELF core file: name a directory with core.img, or an image", image->path);
  if (n < (long)sizeof start || compare_bytes(anchor->magic, WARP_ANCHOR_MAGIC, sizeof anchor->magic) != 0)
    return fail(failure, "%s: a core file, but not an image: it has no anchor at offset %u; only images of warp-tool can be restored", image->path, WARP_ANCHOR_OFFSET);
  if (anchor->format_major != WARP_FORMAT_MAJOR)
    return fail(failure, "%s: image format %u.%u, this restorer knows %u.x: use warp-tool of the version that made it", image->path, anchor->format_major, anchor->format_minor, WARP_FORMAT_MAJOR);
  if (header.e_machine != ARCH_ELF_MACHINE) return fail(failure, "%s: made on another kind of processor (ELF machine %u)", image->path, header.e_machine);
  if ((anchor->flags & (WARP_IMAGE_COMPRESSED | WARP_IMAGE_ENCRYPTED | WARP_IMAGE_DELTA)) != 0)
    return fail(failure, "%s: compressed, encrypted and delta images cannot be restored by this version: make a plain one with 'warp-tool decompress'", image->path);
  if ((uint64_t)image->status.size < anchor->file_size)
    return fail(failure, "%s: truncated: %lu bytes of %lu, at offset 0x%lx the content ends: %s", image->path, (uint64_t)image->status.size, anchor->file_size, (uint64_t)image->status.size, damaged);
  if (anchor->metadata_size < sizeof start || anchor->metadata_size > anchor->file_size || anchor->metadata_size % PAGE_SIZE != 0)
    return fail(failure, "%s: offset %u: metadata size %lu is impossible: %s", image->path, WARP_ANCHOR_OFFSET + 16, anchor->metadata_size, damaged);
  image->metadata = arena_allocate(arena, anchor->metadata_size);
  n = read_fully(image->fd, image->metadata, anchor->metadata_size, 0);
  if (n != (long)anchor->metadata_size) return fail(failure, "%s: metadata cannot be read: %s", image->path, n < 0 ? error_text(n) : damaged);
  struct warp_anchor *in_place = (struct warp_anchor *)(image->metadata + WARP_ANCHOR_OFFSET);
  in_place->metadata_hash = 0;
  uint64_t hash = xxh64(image->metadata, anchor->metadata_size);
  if (hash != anchor->metadata_hash) return fail(failure, "%s: the metadata (offset 0 to 0x%lx) has hash %016lx, its anchor says %016lx: %s", image->path, anchor->metadata_size, hash, anchor->metadata_hash, damaged);
  image->segment_count = header.e_phnum;
  if (header.e_phnum == PN_XNUM) {
    if (header.e_shoff + sizeof(Elf64_Shdr) > anchor->metadata_size) return fail(failure, "%s: offset 0x28: section header out of range: %s", image->path, damaged);
    image->segment_count = ((const Elf64_Shdr *)(image->metadata + header.e_shoff))->sh_info;
  }
  if (header.e_phoff > anchor->metadata_size || image->segment_count > (anchor->metadata_size - header.e_phoff) / sizeof(Elf64_Phdr))
    return fail(failure, "%s: offset 0x20: %lu program headers do not fit: %s", image->path, image->segment_count, damaged);
  image->segments = (const void *)(image->metadata + header.e_phoff);
  return 0;
}

static int check_segments(const struct image *image, struct failure *failure) {
  uint64_t end = 0;
  for (uint64_t i = 0; i < image->segment_count; i++) {
    const Elf64_Phdr *segment = &image->segments[i];
    if (segment->p_type != PT_LOAD) continue;
    bool aligned = segment->p_vaddr % PAGE_SIZE == 0 && segment->p_memsz % PAGE_SIZE == 0 && segment->p_offset % PAGE_SIZE == 0;
    bool sized = segment->p_filesz == 0 || segment->p_filesz == segment->p_memsz;
    bool inside = segment->p_offset <= image->anchor.file_size && segment->p_filesz <= image->anchor.file_size - segment->p_offset;
    if (!aligned || !sized || !inside || segment->p_vaddr < end || segment->p_vaddr + segment->p_memsz < segment->p_vaddr)
      return fail(failure, "%s: program header %lu (address 0x%lx, offset 0x%lx, size 0x%lx) is impossible: %s", image->path, i, segment->p_vaddr, segment->p_offset, segment->p_memsz, damaged);
    end = segment->p_vaddr + segment->p_memsz;
  }
  return 0;
}

static void find_auxv(struct image *image) {
  for (uint64_t i = 0; i < image->segment_count; i++) {
    const Elf64_Phdr *segment = &image->segments[i];
    if (segment->p_type != PT_NOTE || segment->p_offset + segment->p_filesz > image->anchor.metadata_size) continue;
    const uint8_t *notes = image->metadata + segment->p_offset;
    for (uint64_t at = 0; at + sizeof(Elf64_Nhdr) <= segment->p_filesz;) {
      const Elf64_Nhdr *note = (const void *)(notes + at);
      uint64_t payload = at + sizeof *note + round_up(note->n_namesz, 4);
      if (payload + note->n_descsz > segment->p_filesz) break;
      if (note->n_type == NT_AUXV && image->auxv == NULL) image->auxv = notes + payload, image->auxv_size = note->n_descsz;
      at = payload + round_up(note->n_descsz, 4);
    }
  }
}

int image_open(struct image *image, struct arena *arena, const char *path, struct failure *failure) {
  format(image->path, sizeof image->path, "%s", path);
  long fd = open_file(path, O_RDONLY | O_CLOEXEC, 0);
  struct file_status *status = &image->status;
  if (fd >= 0) sys(fstat, fd, status);
  if (fd >= 0 && (status->mode & S_IFMT) == S_IFDIR) {
    sys(close, fd);
    format(image->path, sizeof image->path, "%s/core.img", path);
    fd = open_file(image->path, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) sys(fstat, fd, status);
  }
  if (fd < 0) return fail(failure, "%s: cannot be opened: %s: name a directory with core.img, or an image", image->path, error_text(fd));
  image->fd = (int)fd;
  if (read_metadata(image, arena, failure) < 0 || check_segments(image, failure) < 0) return -1;
  const struct warp_anchor *anchor = &image->anchor;
  if (anchor->notes_offset > anchor->metadata_size || anchor->notes_size > anchor->metadata_size - anchor->notes_offset) return fail(failure, "%s: offset %u: notes out of range: %s", image->path, WARP_ANCHOR_OFFSET + 48, damaged);
  const uint8_t *notes = image->metadata + anchor->notes_offset;
#define VIEW(name, type, record) \
  if (view_find(&image->name, arena, notes, anchor->notes_size, anchor->notes_offset, image->path, WARP_NOTE_##type, sizeof(struct warp_##record##_record), failure) < 0) return -1
  VIEW(image, IMAGE, image);
  VIEW(process, PROCESS, process);
  VIEW(threads, THREADS, thread);
  VIEW(vmas, VMAS, vma);
  VIEW(files, FILES, file);
  VIEW(objects, OBJECTS, object);
  VIEW(extents, EXTENTS, extent);
  VIEW(descriptors, DESCRIPTORS, descriptor);
  VIEW(descriptions, DESCRIPTIONS, description);
  VIEW(pipes, PIPES, pipe);
  VIEW(sockets, SOCKETS, socket);
  VIEW(epoll_watches, EPOLL_WATCHES, epoll_watch);
  VIEW(eventfds, EVENTFDS, eventfd);
  VIEW(timerfds, TIMERFDS, timerfd);
  VIEW(signalfds, SIGNALFDS, signalfd);
  VIEW(inotify_watches, INOTIFY_WATCHES, inotify_watch);
  VIEW(locks, LOCKS, lock);
  VIEW(signal_actions, SIGNAL_ACTIONS, signal_action);
  VIEW(pending_signals, PENDING_SIGNALS, pending_signal);
  VIEW(timers, TIMERS, timer);
  VIEW(tid_references, TID_REFERENCES, tid_reference);
  VIEW(guards, GUARDS, guard);
  VIEW(chunks, CHUNKS, chunk);
#undef VIEW
  if (image->image.count != 1 || image->process.count != 1 || image->threads.count == 0 || image->vmas.count == 0) return fail(failure, "%s: the notes image, process, threads or vmas are missing: %s", image->path, damaged);
  find_auxv(image);
  return 0;
}

const struct warp_vma_record *image_vma_at(const struct image *image, uint64_t address) {
  size_t low = 0, high = image->vmas.count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const struct warp_vma_record *vma = view_at(&image->vmas, struct warp_vma_record, middle);
    if (address < vma->start) {
      high = middle;
    } else if (address >= vma->end) {
      low = middle + 1;
    } else {
      return vma;
    }
  }
  return NULL;
}

uint32_t image_new_tid(const struct restore *restore, uint32_t tid) {
  for (size_t i = 0; i < restore->image.threads.count; i++)
    if (view_at(&restore->image.threads, struct warp_thread_record, i)->tid == tid) return restore->new_tids[i];
  return 0;
}
