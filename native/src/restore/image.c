#include <linux/mman.h>

#include "restore.h"

static const char *damaged = "the image is damaged or incomplete: take it from its source again";

/* In pages of its own, which can be moved. */
static int load_metadata(struct image *image, struct failure *failure) {
  uint64_t size = image->anchor.metadata_size;
  long address = map_anonymous(0, size, PROT_READ | PROT_WRITE, MAP_POPULATE);
  if (address < 0) return fail(failure, "%s: %lu bytes of metadata cannot be read: %s", image->path, size, error_text(address));
  image->metadata = (uint8_t *)address;
  long n = read_fully(image->fd, image->metadata, size, 0);
  return n == (long)size ? 0 : fail(failure, "%s: metadata cannot be read: %s", image->path, n < 0 ? error_text(n) : damaged);
}

static uint64_t hash_metadata(struct image *image) {
  struct warp_anchor *in_place = (struct warp_anchor *)(image->metadata + WARP_ANCHOR_OFFSET);
  in_place->metadata_hash = 0;
  return xxh64(image->metadata, image->anchor.metadata_size);
}

/* Bytes of ELF header and anchor. */
#define START_SIZE ((long)(WARP_ANCHOR_OFFSET + sizeof(struct warp_anchor)))

#define KNOWN_FLAGS (WARP_IMAGE_SELF_CONTAINED | WARP_IMAGE_LEFT_RUNNING | WARP_IMAGE_COMPRESSED | WARP_IMAGE_ENCRYPTED | WARP_IMAGE_DELTA | WARP_IMAGE_FOREIGN | WARP_IMAGE_FIXED_CALLS)

/* ELF header and anchor at the start of the file, or of what was sealed in it: *header and image->anchor. */
static int read_start(struct image *image, const uint8_t *start, long n, Elf64_Ehdr *header, struct failure *failure) {
  struct warp_anchor *anchor = &image->anchor;
  copy_bytes(header, start, sizeof *header);
  copy_bytes(anchor, start + WARP_ANCHOR_OFFSET, sizeof *anchor);
  if (n < (long)sizeof *header || compare_bytes(header->e_ident, ELFMAG, SELFMAG) != 0) return fail(failure, "%s: not an ELF file: name a directory with core.img, or an image", image->path);
  if (header->e_type != ET_CORE || header->e_ident[EI_CLASS] != ELFCLASS64) return fail(failure, "%s: not a 64-bit ELF core file: name a directory with core.img, or an image", image->path);
  if (n < START_SIZE || compare_bytes(anchor->magic, WARP_ANCHOR_MAGIC, sizeof anchor->magic) != 0)
    return fail(failure, "%s: a core file, but not an image: it has no anchor at offset %u; only images of warp-tool can be restored", image->path, WARP_ANCHOR_OFFSET);
  if (anchor->format_major != WARP_FORMAT_MAJOR)
    return fail(failure, "%s: image format %u.%u, this restorer knows %u.x: use warp-tool of the version that made it", image->path, anchor->format_major, anchor->format_minor, WARP_FORMAT_MAJOR);
  if (header->e_machine != ARCH_ELF_MACHINE) return fail(failure, "%s: made on another kind of processor (ELF machine %u)", image->path, header->e_machine);
  if ((anchor->flags & WARP_IMAGE_FOREIGN) != 0) return fail(failure, "%s: a packed core file of another writer; only images of warp-tool can be restored", image->path);
  if ((anchor->flags & WARP_IMAGE_DELTA) != 0) return fail(failure, "%s: delta images cannot be restored by this version: restore its parent, or make an image without --parent", image->path);
  if ((anchor->flags & ~KNOWN_FLAGS) != 0)
    return fail(failure, "%s: flags 0x%x of the image are not known to this restorer: use warp-tool of the version that made it", image->path, anchor->flags & ~KNOWN_FLAGS);
  return 0;
}

static int fail_metadata(const struct image *image, const char *what, struct failure *failure) { return fail(failure, "%s: %s: %s", image->path, what, damaged); }

/*
 * Gives the sealed chunk index, of the image as it was before it was encrypted, the places of the encrypted chunks. Their content's hashes and
 * sizes stay what they were.
 */
static int place_chunks(struct image *image, struct arena *arena, const struct view *outside, struct failure *failure) {
  const struct warp_anchor *anchor = &image->anchor;
  struct view inside;
  if (view_find(&inside, arena, image->metadata + anchor->notes_offset, anchor->notes_size, anchor->notes_offset, image->path, WARP_NOTE_CHUNKS, sizeof(struct warp_chunk_record), failure) < 0) return -1;
  struct warp_table table;
  if (inside.count != outside->count) return fail_metadata(image, "the chunk index does not fit to the sealed one", failure);
  if (inside.count == 0) return 0;
  copy_bytes(&table, inside.payload, sizeof table);
  if (table.record_size < sizeof(struct warp_chunk_record)) return fail_metadata(image, "the sealed chunk index has too small records", failure);
  for (size_t i = 0; i < inside.count; i++) {
    struct warp_chunk_record chunk = *view_at(&inside, struct warp_chunk_record, i);
    const struct warp_chunk_record *encrypted = view_at(outside, struct warp_chunk_record, i);
    const bool same = chunk.content_offset == encrypted->content_offset && chunk.content_size == encrypted->content_size && (chunk.flags | WARP_CHUNK_ENCRYPTED) == encrypted->flags &&
                      chunk.stored_size + (uint64_t)TAG_SIZE == encrypted->stored_size;
    if (!same) return fail(failure, "%s: chunk %lu (offset 0x%lx) does not fit to the sealed index: %s", image->path, i, encrypted->file_offset, damaged);
    chunk.file_offset = encrypted->file_offset;
    chunk.flags = encrypted->flags;
    copy_bytes(image->metadata + (inside.payload - image->metadata) + sizeof table + i * table.record_size, &chunk, sizeof chunk);
  }
  return 0;
}

/* The metadata and anchor of the image inside take the place of those of the encrypted one. */
static int unseal(struct image *image, struct decryption *decryption, struct arena *arena, Elf64_Ehdr *header, struct failure *failure) {
  const struct warp_anchor outer = image->anchor, *anchor = &image->anchor;
  uint8_t *const outer_metadata = image->metadata;
  struct view chunks;
  uint64_t size;
  if (metadata_unseal(image->path, outer_metadata, &outer, decryption->key, arena, &decryption->cipher, decryption->image_key, &image->metadata, &size, failure) < 0) return -1;
  decryption->encrypted = true;
  decryption->file_size = outer.file_size;
  if (read_start(image, image->metadata, START_SIZE, header, failure) < 0) return -1;
  if (anchor->metadata_size != size || (anchor->flags & WARP_IMAGE_ENCRYPTED) != 0 || anchor->notes_offset > size || anchor->notes_size > size - anchor->notes_offset)
    return fail_metadata(image, "the sealed metadata makes no sense", failure);
  if (view_find(&chunks, arena, outer_metadata + outer.notes_offset, outer.notes_size, outer.notes_offset, image->path, WARP_NOTE_CHUNKS, sizeof(struct warp_chunk_record), failure) < 0) return -1;
  if (place_chunks(image, arena, &chunks, failure) < 0) return -1;
  sys(munmap, outer_metadata, outer.metadata_size);
  return 0;
}

static int read_metadata(struct image *image, struct decryption *decryption, struct arena *arena, uint8_t *checked, struct failure *failure) {
  Elf64_Ehdr header;
  struct warp_anchor *anchor = &image->anchor;
  uint8_t start[START_SIZE];
  if (checked != NULL) {
    image->metadata = checked;
    if (read_start(image, checked, START_SIZE, &header, failure) < 0) return -1;
  } else {
    long n = read_fully(image->fd, start, sizeof start, 0);
    if (n < 0) return fail(failure, "%s: cannot be read: %s", image->path, error_text(n));
    if (read_start(image, start, n, &header, failure) < 0) return -1;
    const bool encrypted = (anchor->flags & WARP_IMAGE_ENCRYPTED) != 0;
    if (encrypted && !decryption->key_given) return fail(failure, "%s: it is encrypted: give its key with --encryption-key-file or --encryption-key-env", image->path);
    if ((uint64_t)image->status.size < anchor->file_size)
      return fail(failure, "%s: truncated: %lu bytes of %lu, at offset 0x%lx the content ends: %s", image->path, (uint64_t)image->status.size, anchor->file_size, (uint64_t)image->status.size, damaged);
    if (anchor->metadata_size < sizeof start || anchor->metadata_size > anchor->file_size || anchor->metadata_size > WARP_LARGEST_METADATA || anchor->metadata_size % PAGE_SIZE != 0)
      return fail(failure, "%s: offset %u: metadata size %lu is impossible: %s", image->path, WARP_ANCHOR_OFFSET + 16, anchor->metadata_size, damaged);
    if (load_metadata(image, failure) < 0) return -1;
    const uint64_t hash = hash_metadata(image);
    if (hash != anchor->metadata_hash) return fail(failure, "%s: the metadata (offset 0 to 0x%lx) has hash %016lx, its anchor says %016lx: %s", image->path, anchor->metadata_size, hash, anchor->metadata_hash, damaged);
    if (encrypted && unseal(image, decryption, arena, &header, failure) < 0) return -1;
    wipe(decryption->key, sizeof decryption->key);
  }
  image->segment_count = header.e_phnum;
  if (header.e_phnum == PN_XNUM) {
    if (header.e_shoff > anchor->metadata_size || anchor->metadata_size - header.e_shoff < sizeof(Elf64_Shdr)) return fail(failure, "%s: offset 0x28: section header out of range: %s", image->path, damaged);
    image->segment_count = ((const Elf64_Shdr *)(image->metadata + header.e_shoff))->sh_info;
  }
  if (header.e_phoff > anchor->metadata_size || image->segment_count > (anchor->metadata_size - header.e_phoff) / sizeof(Elf64_Phdr))
    return fail(failure, "%s: offset 0x20: %lu program headers do not fit: %s", image->path, image->segment_count, damaged);
  image->segments = (const void *)(image->metadata + header.e_phoff);
  return 0;
}

static bool is_compressed(const struct image *image) { return (image->anchor.flags & WARP_IMAGE_COMPRESSED) != 0; }
static uint64_t content_size(const struct image *image) { return is_compressed(image) ? image->anchor.content_size : image->anchor.file_size; }

static int check_segments(const struct image *image, struct failure *failure) {
  uint64_t end = 0;
  for (uint64_t i = 0; i < image->segment_count; i++) {
    const Elf64_Phdr *segment = &image->segments[i];
    if (!segment_is_memory(segment)) continue;
    const bool chunked = segment->p_type == PT_WARP_CHUNKED;
    const uint64_t content_end = content_size(image), stored = segment_stored(segment);
    bool aligned = segment->p_vaddr % PAGE_SIZE == 0 && segment->p_memsz % PAGE_SIZE == 0 && segment->p_offset % PAGE_SIZE == 0;
    bool sized = segment->p_filesz == 0 || (!chunked && segment->p_filesz == segment->p_memsz);
    bool inside = segment->p_offset <= content_end && stored <= content_end - segment->p_offset && chunked == (is_compressed(image) && stored > 0);
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

int image_read_chunks(struct image *image, struct arena *arena, struct failure *failure) {
  const struct warp_anchor *anchor = &image->anchor;
  return view_find(&image->chunks, arena, image->metadata + anchor->notes_offset, anchor->notes_size, anchor->notes_offset, image->path, WARP_NOTE_CHUNKS, sizeof(struct warp_chunk_record), failure);
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

static int fail_record(const struct image *image, struct failure *failure, const char *table, size_t index, const char *what) {
  return fail(failure, "%s: note %s, record %lu: %s: %s", image->path, table, index, what, damaged);
}

static bool in_kind(const struct image *image, uint64_t address, uint32_t kind) {
  const struct warp_vma_record *vma = image_vma_at(image, address);
  return vma != NULL && (kind == 0 || vma->kind == kind);
}

/* What a later format may have brought, and what cannot be left out in silence. */
static int fail_unknown(const struct image *image, struct failure *failure, const char *table, size_t index, const char *field, uint32_t value) {
  return fail(failure, "%s: note %s, record %lu: %s 0x%x is not known to this restorer: use warp-tool of the version that made the image", image->path, table, index, field, value);
}

#define CHECK_EACH(name, type, field, known) \
  for (size_t i = 0; i < image->name.count; i++) { \
    const uint32_t value = view_at(&image->name, struct type, i)->field; \
    if (!(known)) return fail_unknown(image, failure, #name, i, #field, value); \
  }

static int check_known(const struct image *image, struct failure *failure) {
  CHECK_EACH(vmas, warp_vma_record, kind, value >= WARP_VMA_ANONYMOUS && value <= WARP_VMA_ENGINE)
  CHECK_EACH(vmas, warp_vma_record, flags, value < 2 * WARP_VMA_MAY_WRITE)
  CHECK_EACH(threads, warp_thread_record, flags, value < 2 * WARP_THREAD_EXITED)
  CHECK_EACH(objects, warp_object_record, kind, value >= WARP_OBJECT_MEMFD && value <= WARP_OBJECT_DELETED_FILE)
  CHECK_EACH(pipes, warp_pipe_record, flags, value < 2 * WARP_PIPE_PACKETS)
  CHECK_EACH(sockets, warp_socket_record, state, value >= WARP_SOCKET_UNCONNECTED && value <= WARP_SOCKET_BOUND)
  CHECK_EACH(sockets, warp_socket_record, flags, value < 2 * WARP_SOCKET_SHUTDOWN_WRITE)
  CHECK_EACH(policies, warp_policy_record, action, value >= WARP_POLICY_ERROR && value <= WARP_POLICY_REOPEN)
  CHECK_EACH(locks, warp_lock_record, kind, value >= WARP_LOCK_POSIX && value <= WARP_LOCK_OFD)
  CHECK_EACH(tid_references, warp_tid_reference_record, kind, value >= WARP_TID_THREAD && value <= WARP_TID_CACHED)
  return 0;
}

/* Highest address of user space with five-level page tables. */
#define ADDRESS_END (1ul << 56)
/* Far more than any kernel allows (fs.nr_open). */
#define MOST_DESCRIPTORS (1u << 30)

/* The metadata's hash says that nobody has damaged it; this, that whoever made it made sense. */
static int check_records(const struct image *image, struct failure *failure) {
  uint64_t end = 0, next = 0;
  for (size_t i = 0; i < image->vmas.count; i++) {
    const struct warp_vma_record *vma = view_at(&image->vmas, struct warp_vma_record, i);
    if (vma->start % PAGE_SIZE != 0 || vma->end % PAGE_SIZE != 0 || vma->start >= vma->end || vma->start < end || vma->end > ADDRESS_END || vma->start == 0) return fail_record(image, failure, "vmas", i, "impossible addresses");
    if (vma->kind == WARP_VMA_FILE && vma->file >= image->files.count) return fail_record(image, failure, "vmas", i, "no such file");
    if (vma->kind == WARP_VMA_OBJECT && vma->object >= image->objects.count) return fail_record(image, failure, "vmas", i, "no such object");
    end = vma->end;
    for (; next < image->segment_count; next++) {
      const Elf64_Phdr *segment = &image->segments[next];
      if (!segment_is_memory(segment)) continue;
      if (segment->p_vaddr >= vma->end) break;
      if (segment->p_vaddr < vma->start || segment->p_vaddr + segment->p_memsz > vma->end) return fail_record(image, failure, "vmas", i, "a segment reaches over its end");
    }
  }
  const uint64_t content_end = content_size(image);
  for (size_t i = 0; i < image->extents.count; i++) {
    const struct warp_extent_record *extent = view_at(&image->extents, struct warp_extent_record, i);
    if (extent->object >= image->objects.count || extent->content_offset > content_end || extent->length > content_end - extent->content_offset) return fail_record(image, failure, "extents", i, "refers to what is not there");
  }
  for (size_t i = 0; i < image->descriptions.count; i++) {
    const struct warp_description_record *description = view_at(&image->descriptions, struct warp_description_record, i);
    const size_t counts[] = {
        [WARP_DESCRIPTION_SOCKET] = image->sockets.count + 1,     [WARP_DESCRIPTION_EVENTFD] = image->eventfds.count + 1, [WARP_DESCRIPTION_TIMERFD] = image->timerfds.count + 1,
        [WARP_DESCRIPTION_SIGNALFD] = image->signalfds.count + 1, [WARP_DESCRIPTION_OBJECT] = image->objects.count + 1,   [WARP_DESCRIPTION_PIPE] = image->pipes.count + 1,
    };
    size_t count = description->kind < sizeof counts / sizeof counts[0] ? counts[description->kind] : 0;
    if (count != 0 && description->detail >= count - 1) return fail_record(image, failure, "descriptions", i, "refers to what is not there");
  }
  for (size_t i = 0; i < image->descriptors.count; i++) {
    const struct warp_descriptor_record *descriptor = view_at(&image->descriptors, struct warp_descriptor_record, i);
    if (descriptor->number >= MOST_DESCRIPTORS || descriptor->description >= image->descriptions.count) return fail_record(image, failure, "descriptors", i, "impossible number or open file");
    if (descriptor->policy > image->policies.count) return fail_record(image, failure, "descriptors", i, "no such policy");
  }
  for (size_t i = 0; i < image->inotify_watches.count; i++)
    if (view_at(&image->inotify_watches, struct warp_inotify_watch_record, i)->watch > 1u << 24) return fail_record(image, failure, "inotify_watches", i, "impossible watch number");
  for (size_t i = 0; i < image->timers.count; i++)
    if (view_at(&image->timers, struct warp_timer_record, i)->id < 0) return fail_record(image, failure, "timers", i, "impossible id");
  for (size_t i = 0; i < image->threads.count; i++) {
    const struct warp_thread_record *thread = view_at(&image->threads, struct warp_thread_record, i);
    if ((thread->flags & WARP_THREAD_EXITED) != 0) continue;
    if (!in_kind(image, thread->context, 0) || !in_kind(image, thread->resume_stack, 0)) return fail_record(image, failure, "threads", i, "its signal frame is in no memory area");
  }
  const struct warp_process_record *process = view_at(&image->process, struct warp_process_record, 0);
  const uint64_t engine[] = {process->control, process->resume_entry, process->helper_entry, process->helper_stack - 8};
  for (size_t i = 0; i < sizeof engine / sizeof engine[0]; i++)
    if (!in_kind(image, engine[i], WARP_VMA_ENGINE)) return fail_record(image, failure, "process", 0, "the engine's entry points are in no area of the engine");
  return 0;
}

int image_open(struct image *image, struct decryption *decryption, struct arena *arena, const char *path, int open_fd, uint8_t *checked, struct failure *failure) {
  format(image->path, sizeof image->path, "%s", path);
  long fd = open_fd >= 0 ? open_fd : open_file(path, O_RDONLY | O_CLOEXEC, 0);
  struct file_status *status = &image->status;
  if (fd >= 0) sys(fstat, fd, status);
  if (fd >= 0 && (status->mode & S_IFMT) == S_IFDIR) {
    sys(close, fd);
    format(image->path, sizeof image->path, "%s/core.img", path);
    fd = open_file(image->path, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) sys(fstat, fd, status);
    if (fd == -ENOENT && simulated_describe(path, failure)) return -1;
  }
  if (fd < 0) return fail(failure, "%s: cannot be opened: %s: name a directory with core.img, or an image", image->path, error_text(fd));
  image->fd = (int)fd;
  if (read_metadata(image, decryption, arena, checked, failure) < 0 || check_segments(image, failure) < 0) return -1;
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
  VIEW(accesses, ACCESSES, access);
  VIEW(policies, POLICIES, policy);
#undef VIEW
  if (image->image.count != 1 || image->process.count != 1 || image->threads.count == 0 || image->vmas.count == 0) return fail(failure, "%s: the notes image, process, threads or vmas are missing: %s", image->path, damaged);
  find_auxv(image);
  return check_known(image, failure) < 0 ? -1 : check_records(image, failure);
}

uint32_t image_new_tid(const struct restore *restore, uint32_t tid) {
  for (size_t i = 0; i < restore->image.threads.count; i++)
    if (view_at(&restore->image.threads, struct warp_thread_record, i)->tid == tid) return restore->new_tids[i];
  return 0;
}
