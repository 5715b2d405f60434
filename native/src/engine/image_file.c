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

/* Mutexes found while writing go into a note that was laid out before: room for this many. */
#define TID_REFERENCE_ROOM 512

static void for_each_table(struct capture *capture, void (*each)(struct table *, void *), void *context) {
  struct table *const tables[] = {
      &capture->image,       &capture->process,  &capture->threads,   &capture->vmas,       &capture->files,           &capture->objects, &capture->extents,        &capture->descriptors,
      &capture->descriptions, &capture->pipes,   &capture->sockets,   &capture->epoll_watches, &capture->eventfds,     &capture->timerfds, &capture->signalfds,     &capture->inotify_watches,
      &capture->locks,       &capture->signal_actions, &capture->pending_signals, &capture->timers, &capture->tid_references, &capture->guards, &capture->chunks,    &capture->tags,
  };
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) each(tables[i], context);
}

static void add_size(struct table *table, void *context) { *(uint64_t *)context += table_note_size(table); }
static void append_note(struct table *table, void *context) { table_write(table, context); }

#define FIXED_SEGMENTS 3u

int capture_write_image(struct capture *capture) {
  const struct buffer kernel_notes = capture->kernel_notes;
  struct buffer metadata;
  buffer_init(&metadata, &capture->arena);
  uint64_t notes_room = 64 + TID_REFERENCE_ROOM * sizeof(struct warp_tid_reference_record);
  for_each_table(capture, add_size, &notes_room);
  const uint64_t segment_count = FIXED_SEGMENTS + capture->segments.count;
  const bool extended = segment_count >= PN_XNUM;
  const uint64_t segments_offset = WARP_ANCHOR_OFFSET + sizeof(struct warp_anchor);
  const uint64_t section_offset = segments_offset + segment_count * sizeof(Elf64_Phdr);
  const uint64_t kernel_notes_offset = round_up(section_offset + (extended ? sizeof(Elf64_Shdr) : 0), 8);
  const uint64_t notes_offset = round_up(kernel_notes_offset + kernel_notes.size, 8);
  const uint64_t metadata_size = round_up(notes_offset + notes_room, PAGE_SIZE);
  if (metadata_size > WARP_LARGEST_METADATA)
    return fail(capture->failure, "the image would have %lu bytes of metadata (threads, areas, descriptors and their data, chunks), and may have %lu", metadata_size, WARP_LARGEST_METADATA);
  capture->metadata_size = metadata_size;
  capture_place_content(capture, metadata_size);
  const bool compressed = capture->request->lz4_level > 0;
  capture->file_end = compressed ? metadata_size : capture->content_end;
  long error = sys(ftruncate, capture->image_fd, capture->file_end);
  if (error < 0) return fail(capture->failure, "cannot write %s/core.img: %s", capture->request->directory, error_text(error));
  log_debug("image: %lu segments, %lu bytes of metadata, %lu bytes of content", segment_count, metadata_size, capture->content_end - metadata_size);
  if (capture_write_memory(capture) < 0) return -1;
  if (capture->tid_references.records.count > TID_REFERENCE_ROOM)
    return fail(capture->failure, "%lu mutexes that record their owner are locked, and there is room for %u: the program must hold fewer at a checkpoint", capture->tid_references.records.count, TID_REFERENCE_ROOM);

  struct buffer notes;
  buffer_init(&notes, &capture->arena);
  for_each_table(capture, append_note, &notes);

  uint8_t *bytes = buffer_add(&metadata, metadata_size);
  Elf64_Ehdr header = {
      .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE},
      .e_type = ET_CORE,
      .e_machine = ARCH_ELF_MACHINE,
      .e_version = EV_CURRENT,
      .e_phoff = segments_offset,
      .e_ehsize = sizeof(Elf64_Ehdr),
      .e_phentsize = sizeof(Elf64_Phdr),
      .e_phnum = extended ? PN_XNUM : (uint16_t)segment_count,
  };
  if (extended) {
    header.e_shoff = section_offset;
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 1;
    const Elf64_Shdr section = {.sh_type = SHT_NULL, .sh_size = 1, .sh_info = (uint32_t)segment_count};
    copy_bytes(bytes + section_offset, &section, sizeof section);
  }
  copy_bytes(bytes, &header, sizeof header);
  Elf64_Phdr *segments = (void *)(bytes + segments_offset);
  segments[0] = (Elf64_Phdr){.p_type = PT_WARP_ANCHOR, .p_offset = WARP_ANCHOR_OFFSET, .p_filesz = sizeof(struct warp_anchor), .p_align = 8};
  segments[1] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = kernel_notes_offset, .p_filesz = kernel_notes.size, .p_align = 4};
  segments[2] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = notes_offset, .p_filesz = notes.size, .p_align = 4};
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
  struct warp_anchor anchor = {
      .format_major = WARP_FORMAT_MAJOR,
      .format_minor = WARP_FORMAT_MINOR,
      .flags = table_at(&capture->image, struct warp_image_record, 0)->flags,
      .metadata_size = metadata_size,
      .file_size = capture->file_end,
      .content_size = capture->content_end,
      .notes_offset = notes_offset,
      .notes_size = notes.size,
  };
  copy_bytes(anchor.magic, WARP_ANCHOR_MAGIC, sizeof anchor.magic);
  copy_bytes(bytes + WARP_ANCHOR_OFFSET, &anchor, sizeof anchor);
  anchor.metadata_hash = xxh64(bytes, metadata_size);
  copy_bytes(bytes + WARP_ANCHOR_OFFSET, &anchor, sizeof anchor);
  error = pwrite_fully(capture->image_fd, bytes, metadata_size, 0);
  if (error < 0) return fail(capture->failure, "cannot write %s/core.img: %s", capture->request->directory, error_text(error));
  capture->bytes_written += metadata_size;
  return 0;
}
