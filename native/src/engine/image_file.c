/* The image file: the kernel's notes, the layout, and writing it. */
#include <linux/prctl.h>

#include "engine.h"

/* struct elf_prpsinfo, include/linux/elfcore.h, on 64-bit machines. */
#define PRPSINFO_SIZE 136

/* ---- the kernel's notes ---- */

static void append_prpsinfo(struct capture *capture, struct buffer *notes) {
  const struct warp_process_record *process = table_at(&capture->process, struct warp_process_record, 0);
  struct {
    char state, state_name, zombie, nice;
    uint32_t padding;
    uint64_t flag;
    uint32_t uid, gid;
    int32_t pid, parent, group, session;
    char file_name[16];
    char arguments[80];
  } info;
  _Static_assert(sizeof info == PRPSINFO_SIZE, "struct elf_prpsinfo");
  fill_bytes(&info, 0, sizeof info);
  info.state_name = 'R';
  info.uid = process->uid[0], info.gid = process->gid[0];
  info.pid = (int32_t)process->pid, info.parent = (int32_t)process->parent_pid, info.group = (int32_t)process->process_group, info.session = (int32_t)process->session;
  sys(prctl, PR_GET_NAME, info.file_name);
  char path[64];
  format(path, sizeof path, "/proc/self/task/%u/comm", process->pid);
  long n = read_small_file(path, info.file_name, sizeof info.file_name);
  if (n > 0 && info.file_name[n - 1] == '\n') info.file_name[n - 1] = 0;
  const struct warp_image_record *image = table_at(&capture->image, struct warp_image_record, 0);
  size_t length = min_u64(image->command.length, sizeof info.arguments - 1);
  if (length > 0) copy_bytes(info.arguments, capture->image.heap.bytes + image->command.offset, length);
  for (size_t i = 0; i < length; i++)
    if (info.arguments[i] == 0) info.arguments[i] = ' ';
  note_append(notes, "CORE", NT_PRPSINFO, &info, sizeof info);
}

static void append_file_note(struct capture *capture, struct buffer *notes) {
  struct buffer table, names;
  buffer_init(&table, &capture->arena);
  buffer_init(&names, &capture->arena);
  uint64_t count = 0, page_size = PAGE_SIZE;
  buffer_append(&table, &count, sizeof count);
  buffer_append(&table, &page_size, sizeof page_size);
  for (size_t i = 0; i < capture->vmas.records.count; i++) {
    const struct warp_vma_record *vma = table_at(&capture->vmas, struct warp_vma_record, i);
    /* The engine's own pages are all in the image, and its file may be another version's by the time of a look. */
    if (vma->kind != WARP_VMA_FILE) continue;
    const uint64_t entry[3] = {vma->start, vma->end, vma->offset / PAGE_SIZE};
    buffer_append(&table, entry, sizeof entry);
    buffer_append(&names, capture->vmas.heap.bytes + vma->name.offset, vma->name.length);
    buffer_add(&names, 1);
    count++;
  }
  copy_bytes(table.bytes, &count, sizeof count);
  if (names.size > 0) buffer_append(&table, names.bytes, names.size);
  note_append(notes, "CORE", NT_FILE, table.bytes, table.size);
}

static void append_thread(struct capture *capture, struct buffer *notes, const struct slot *slot, bool first) {
  const struct warp_process_record *process = table_at(&capture->process, struct warp_process_record, 0);
  uint8_t status[ARCH_PRSTATUS_SIZE];
  uint64_t registers[ARCH_REGISTER_COUNT];
  fill_bytes(status, 0, sizeof status);
  fill_bytes(registers, 0, sizeof registers);
  /* struct elf_prstatus: si_signo.. 12 bytes, cursig, pending, held, pid, ppid, pgrp, sid, four times, registers, fpvalid. */
  const uint32_t ids[4] = {slot->tid, process->parent_pid, process->process_group, process->session};
  uint32_t fp_valid = slot->context != NULL;
  copy_bytes(status + 32, ids, sizeof ids);
  if (slot->context != NULL) {
    copy_bytes(status + 24, &slot->context->uc_sigmask, 8);
    arch_registers(slot->context, (long)slot->system_call, slot->fs_base, slot->gs_base, registers);
  }
  copy_bytes(status + ARCH_PRSTATUS_REGISTERS, registers, sizeof registers);
  copy_bytes(status + ARCH_PRSTATUS_REGISTERS + sizeof registers, &fp_valid, sizeof fp_valid);
  note_append(notes, "CORE", NT_PRSTATUS, status, sizeof status);
  if (first) {
    uint8_t siginfo[128];
    fill_bytes(siginfo, 0, sizeof siginfo);
    append_prpsinfo(capture, notes);
    note_append(notes, "CORE", NT_SIGINFO, siginfo, sizeof siginfo);
    size_t size = 0;
    long error;
    const char *auxv = read_whole_file(&capture->arena, "/proc/thread-self/auxv", &size, &error);
    if (auxv != NULL) note_append(notes, "CORE", NT_AUXV, auxv, size);
    append_file_note(capture, notes);
  }
  if (slot->context == NULL) return;
  uint8_t floating_point[ARCH_FPREGSET_SIZE];
  arch_fpregset(slot->context, floating_point);
  note_append(notes, "CORE", NT_FPREGSET, floating_point, sizeof floating_point);
  uint64_t features;
  uint32_t size = arch_xstate_size(slot->context, &features);
  if (size > 0) {
    uint8_t *state = arena_allocate(&capture->arena, size);
    arch_xstate(slot->context, state);
    note_append(notes, "LINUX", NT_X86_XSTATE, state, size);
  }
}

void capture_kernel_notes(struct capture *capture) {
  struct buffer *notes = &capture->kernel_notes;
  bool first = true;
  buffer_init(notes, &capture->arena);
  for (size_t i = 0; i < capture->freeze->count; i++) {
    const struct slot *slot = &capture->freeze->slots[i];
    if (slot->state == SLOT_GONE) continue;
    append_thread(capture, notes, slot, first);
    first = false;
  }
}

/* ---- the file ---- */

static void for_each_table(struct capture *capture, void (*each)(struct table *, void *), void *context) {
  struct table *const tables[] = {
      &capture->image,       &capture->process,  &capture->threads,   &capture->vmas,       &capture->files,           &capture->objects, &capture->extents,        &capture->descriptors,
      &capture->descriptions, &capture->pipes,   &capture->sockets,   &capture->epoll_watches, &capture->eventfds,     &capture->timerfds, &capture->signalfds,     &capture->inotify_watches,
      &capture->locks,       &capture->signal_actions, &capture->pending_signals, &capture->timers, &capture->tid_references, &capture->guards, &capture->chunks,    &capture->tags,      &capture->policies,
  };
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) each(tables[i], context);
}

static void add_size(struct table *table, void *context) { *(uint64_t *)context += table_note_size(table); }
static void append_note(struct table *table, void *context) { table_write(table, context); }

/* Program headers before those of memory; and of an encrypted image, which shows none of memory. */
#define FIXED_SEGMENTS 3u
#define OPEN_SEGMENTS 2u

static bool is_extended(uint64_t segment_count) { return segment_count >= PN_XNUM; }

/* Behind the program headers, and the section header where their number needs one. */
static uint64_t headers_end(uint64_t segment_count) {
  return WARP_ANCHOR_OFFSET + sizeof(struct warp_anchor) + segment_count * sizeof(Elf64_Phdr) + (is_extended(segment_count) ? sizeof(Elf64_Shdr) : 0);
}

/* ELF header, and the section header; returns the program headers, of which the first, the anchor's, is there. */
static Elf64_Phdr *put_headers(uint8_t *metadata, uint64_t segment_count) {
  const uint64_t segments_offset = WARP_ANCHOR_OFFSET + sizeof(struct warp_anchor), section_offset = segments_offset + segment_count * sizeof(Elf64_Phdr);
  Elf64_Ehdr header = {
      .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE},
      .e_type = ET_CORE,
      .e_machine = ARCH_ELF_MACHINE,
      .e_version = EV_CURRENT,
      .e_phoff = segments_offset,
      .e_ehsize = sizeof(Elf64_Ehdr),
      .e_phentsize = sizeof(Elf64_Phdr),
      .e_phnum = is_extended(segment_count) ? PN_XNUM : (uint16_t)segment_count,
  };
  if (is_extended(segment_count)) {
    header.e_shoff = section_offset;
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 1;
    const Elf64_Shdr section = {.sh_type = SHT_NULL, .sh_size = 1, .sh_info = (uint32_t)segment_count};
    copy_bytes(metadata + section_offset, &section, sizeof section);
  }
  copy_bytes(metadata, &header, sizeof header);
  Elf64_Phdr *segments = (void *)(metadata + segments_offset);
  segments[0] = (Elf64_Phdr){.p_type = PT_WARP_ANCHOR, .p_offset = WARP_ANCHOR_OFFSET, .p_filesz = sizeof(struct warp_anchor), .p_align = 8};
  return segments;
}

static Elf64_Phdr notes_segment(uint64_t offset, uint64_t size) { return (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = offset, .p_filesz = size, .p_align = 4}; }

/* The anchor, which makes the metadata complete. */
static void put_anchor(uint8_t *metadata, struct warp_anchor anchor) {
  copy_bytes(anchor.magic, WARP_ANCHOR_MAGIC, sizeof anchor.magic);
  anchor.format_major = WARP_FORMAT_MAJOR;
  anchor.format_minor = WARP_FORMAT_MINOR;
  copy_bytes(metadata + WARP_ANCHOR_OFFSET, &anchor, sizeof anchor);
  anchor.metadata_hash = xxh64(metadata, anchor.metadata_size);
  copy_bytes(metadata + WARP_ANCHOR_OFFSET, &anchor, sizeof anchor);
}

/* ---- what an encrypted image shows ---- */

/* The note `image` with what everybody may read. */
static void open_image(struct capture *capture, struct table *ret) {
  const struct warp_image_record *image = table_at(&capture->image, struct warp_image_record, 0);
  table_init(ret, &capture->arena, WARP_NOTE_IMAGE, sizeof *image);
  struct warp_image_record open = *image;
  const struct warp_slice none = {0, 0};
  struct warp_slice *const kept[] = {&open.engine_version, &open.kernel_release, &open.kernel_version, &open.cpu_model, &open.cpu_features};
  for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) *kept[i] = table_bytes(ret, capture->image.heap.bytes + kept[i]->offset, kept[i]->length);
  open.hostname = open.boot_id = open.executable = open.command = open.parent_location = none;
  open.flags |= WARP_IMAGE_ENCRYPTED;
  *(struct warp_image_record *)table_add(ret) = open;
}

/* The note `encryption` with room for sealed metadata of `size` bytes. */
static void encryption_note(struct capture *capture, uint64_t size, struct table *ret) {
  table_init(ret, &capture->arena, WARP_NOTE_ENCRYPTION, sizeof(struct warp_encryption_record));
  struct warp_encryption_record *record = table_add(ret);
  *record = (struct warp_encryption_record){.cipher = WARP_CIPHER_AES_256_GCM, .derivation = WARP_DERIVATION_HKDF_SHA256, .sealed = {0, (uint32_t)(size + TAG_SIZE)}};
  copy_bytes(record->salt, capture->sealing->salt, sizeof record->salt);
  buffer_add(&ret->heap, size + TAG_SIZE);
}

/* Bytes of the open metadata around sealed metadata of `size` bytes; the chunks behind it are where they will be. */
static uint64_t open_size(struct capture *capture, uint64_t size) {
  struct table image;
  open_image(capture, &image);
  const struct table encryption = {.records = {.count = 1, .item_size = sizeof(struct warp_encryption_record)}, .heap = {.size = size + TAG_SIZE}};
  return round_up(round_up(headers_end(OPEN_SEGMENTS), 8) + table_note_size(&image) + table_note_size(&encryption) + table_note_size(&capture->chunks), PAGE_SIZE);
}

/* Of the whole metadata of the image without encryption makes the metadata that everybody may see. */
static uint8_t *seal(struct capture *capture, const uint8_t *metadata, uint64_t size, uint64_t *ret_size) {
  struct table image, encryption;
  struct buffer notes, ret;
  const uint64_t notes_offset = round_up(headers_end(OPEN_SEGMENTS), 8);
  *ret_size = open_size(capture, size);
  buffer_init(&notes, &capture->arena);
  open_image(capture, &image);
  table_write(&image, &notes);
  const uint64_t image_payload = notes.size - table_payload_size(&image);
  const struct table *chunks = &capture->encrypted_chunks;
  const struct buffer open = open_data(&capture->arena, notes.bytes + image_payload, table_payload_size(&image), capture->content_end, chunks->records.items, chunks->records.count);
  encryption_note(capture, size, &encryption);
  metadata_seal(&capture->sealing->cipher, &open, metadata, size, encryption.heap.bytes);
  table_write(&encryption, &notes);
  table_write(chunks, &notes);
  buffer_init(&ret, &capture->arena);
  uint8_t *bytes = buffer_add(&ret, *ret_size);
  put_headers(bytes, OPEN_SEGMENTS)[1] = notes_segment(notes_offset, notes.size);
  copy_bytes(bytes + notes_offset, notes.bytes, notes.size);
  put_anchor(bytes, (struct warp_anchor){
                        .flags = table_at(&capture->image, struct warp_image_record, 0)->flags | WARP_IMAGE_ENCRYPTED,
                        .metadata_size = *ret_size,
                        .file_size = capture->file_end,
                        .content_size = capture->content_end,
                        .notes_offset = notes_offset,
                        .notes_size = notes.size,
                    });
  return bytes;
}

/* ---- the whole ---- */

int capture_write_image(struct capture *capture) {
  const struct buffer kernel_notes = capture->kernel_notes;
  struct buffer metadata;
  buffer_init(&metadata, &capture->arena);
  uint64_t notes_room = 64;
  for_each_table(capture, add_size, &notes_room);
  const uint64_t segment_count = FIXED_SEGMENTS + capture->segments.count;
  const uint64_t kernel_notes_offset = round_up(headers_end(segment_count), 8);
  const uint64_t notes_offset = round_up(kernel_notes_offset + kernel_notes.size, 8);
  const uint64_t metadata_size = round_up(notes_offset + notes_room, PAGE_SIZE);
  const bool compressed = capture->request->lz4_level > 0, sealed = capture->sealing != NULL;
  const uint64_t begin = sealed ? open_size(capture, metadata_size) : metadata_size;
  if (begin > WARP_LARGEST_METADATA)
    return fail(capture->failure, "the image would have %lu bytes of metadata (threads, areas, descriptors and their data, chunks), and may have %lu", begin, WARP_LARGEST_METADATA);
  capture->metadata_size = metadata_size;
  capture_place_content(capture, metadata_size);
  capture->file_end = compressed || sealed ? begin : capture->content_end;
  long error = sys(ftruncate, capture->image_fd, capture->file_end);
  if (error < 0) return fail(capture->failure, "cannot write %s/core.img: %s", capture->request->directory, error_text(error));
  log_debug("image: %lu segments, %lu bytes of metadata, %lu bytes of content", segment_count, metadata_size, capture->content_end - metadata_size);
  if (capture_write_memory(capture) < 0) return -1;

  struct buffer notes;
  buffer_init(&notes, &capture->arena);
  for_each_table(capture, append_note, &notes);

  uint8_t *bytes = buffer_add(&metadata, metadata_size);
  Elf64_Phdr *segments = put_headers(bytes, segment_count);
  segments[1] = notes_segment(kernel_notes_offset, kernel_notes.size);
  segments[2] = notes_segment(notes_offset, notes.size);
  for (size_t i = 0; i < capture->segments.count; i++) {
    const struct segment *segment = list_at(&capture->segments, struct segment, i);
    segments[FIXED_SEGMENTS + i] = (Elf64_Phdr){
        .p_type = segment->stored && compressed ? PT_WARP_CHUNKED : PT_LOAD,
        .p_flags = ((segment->protection & WARP_PROT_READ) != 0 ? PF_R : 0) | ((segment->protection & WARP_PROT_WRITE) != 0 ? PF_W : 0) | ((segment->protection & WARP_PROT_EXEC) != 0 ? PF_X : 0),
        .p_offset = segment->stored ? segment->content_offset : metadata_size,
        .p_vaddr = segment->address,
        .p_filesz = segment->stored && !compressed ? segment->size : 0,
        .p_memsz = segment->size,
        .p_align = PAGE_SIZE,
    };
  }
  copy_bytes(bytes + kernel_notes_offset, kernel_notes.bytes, kernel_notes.size);
  copy_bytes(bytes + notes_offset, notes.bytes, notes.size);
  put_anchor(bytes, (struct warp_anchor){
                        .flags = table_at(&capture->image, struct warp_image_record, 0)->flags,
                        .metadata_size = metadata_size,
                        .file_size = sealed ? capture->sealed_end : capture->file_end,
                        .content_size = capture->content_end,
                        .notes_offset = notes_offset,
                        .notes_size = notes.size,
                    });
  uint64_t size = metadata_size;
  if (sealed) bytes = seal(capture, bytes, metadata_size, &size);
  error = pwrite_fully(capture->image_fd, bytes, size, 0);
  if (error < 0) return fail(capture->failure, "cannot write %s/core.img: %s", capture->request->directory, error_text(error));
  capture->bytes_written += size;
  return 0;
}
