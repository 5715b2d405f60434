#include "tables.h"

void table_init(struct table *table, struct arena *arena, uint32_t type, size_t record_size) {
  table->type = type;
  list_init(&table->records, arena, record_size);
  buffer_init(&table->heap, arena);
}

void *table_add(struct table *table) { return list_add(&table->records); }

struct warp_slice table_bytes(struct table *table, const void *bytes, size_t size) {
  struct warp_slice slice = {(uint32_t)table->heap.size, (uint32_t)size};
  if (size == 0) return (struct warp_slice){0, 0};
  buffer_append(&table->heap, bytes, size);
  return slice;
}

struct warp_slice table_string(struct table *table, const char *s) { return table_bytes(table, s, string_length(s)); }

void note_append(struct buffer *notes, const char *owner, uint32_t type, const void *payload, size_t size) {
  size_t owner_size = string_length(owner) + 1;
  const Elf64_Nhdr header = {.n_namesz = (uint32_t)owner_size, .n_descsz = (uint32_t)size, .n_type = type};
  buffer_append(notes, &header, sizeof header);
  copy_bytes(buffer_add(notes, round_up(owner_size, 4)), owner, owner_size);
  if (size > 0) copy_bytes(buffer_add(notes, round_up(size, 4)), payload, size);
}

size_t table_payload_size(const struct table *table) {
  return round_up(sizeof(struct warp_table) + table->records.count * table->records.item_size + table->heap.size, 8);
}

/* 12 bytes of note header and 12 of the padded owner name: the payload is at a multiple of 8. */
#define NOTE_OVERHEAD (sizeof(Elf64_Nhdr) + 12)

size_t table_note_size(const struct table *table) { return table->records.count == 0 ? 0 : NOTE_OVERHEAD + table_payload_size(table); }

void table_write(const struct table *table, struct buffer *notes) {
  if (table->records.count == 0) return;
  const struct warp_table header = {
      .record_size = (uint32_t)table->records.item_size,
      .record_count = (uint32_t)table->records.count,
      .heap_size = table->heap.size,
  };
  const Elf64_Nhdr note = {.n_namesz = sizeof WARP_NOTE_OWNER, .n_descsz = (uint32_t)table_payload_size(table), .n_type = table->type};
  buffer_append(notes, &note, sizeof note);
  copy_bytes(buffer_add(notes, 12), WARP_NOTE_OWNER, sizeof WARP_NOTE_OWNER);
  uint8_t *payload = buffer_add(notes, table_payload_size(table));
  size_t records = table->records.count * table->records.item_size;
  copy_bytes(payload, &header, sizeof header);
  copy_bytes(payload + sizeof header, table->records.items, records);
  if (table->heap.size > 0) copy_bytes(payload + sizeof header + records, table->heap.bytes, table->heap.size);
}

int view_find(struct view *ret, struct arena *arena, const uint8_t *notes, size_t size, uint64_t notes_offset, const char *path, uint32_t type, size_t record_size, struct failure *failure) {
  *ret = (struct view){.record_size = record_size};
  for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= size;) {
    const Elf64_Nhdr *note = (const void *)(notes + at);
    size_t name = at + sizeof *note;
    size_t payload = name + round_up(note->n_namesz, 4);
    size_t next = payload + round_up(note->n_descsz, 4);
    if (payload > size || next > size) return fail(failure, "%s: note at offset 0x%lx reaches past the notes' end: the image is damaged; take it from its source again", path, notes_offset + at);
    if (note->n_type == type && note->n_namesz == sizeof WARP_NOTE_OWNER && compare_bytes(notes + name, WARP_NOTE_OWNER, sizeof WARP_NOTE_OWNER) == 0) {
      struct warp_table header;
      if (note->n_descsz < sizeof header) return fail(failure, "%s: note 0x%x at offset 0x%lx is too short for a table header: the image is damaged", path, type, notes_offset + at);
      copy_bytes(&header, notes + payload, sizeof header);
      uint64_t records = (uint64_t)header.record_size * header.record_count;
      if (records > note->n_descsz - sizeof header || header.heap_size > note->n_descsz - sizeof header - records)
        return fail(failure, "%s: note 0x%x at offset 0x%lx: %u records of %u bytes and a heap of %lu do not fit into %u bytes: the image is damaged", path, type, notes_offset + at, header.record_count,
                    header.record_size, header.heap_size, note->n_descsz);
      const uint8_t *source = notes + payload + sizeof header;
      *ret = (struct view){.records = source, .count = header.record_count, .record_size = record_size, .heap = source + records, .heap_size = header.heap_size, .payload = notes + payload, .payload_size = note->n_descsz};
      if (header.record_size == record_size && (uint64_t)source % 8 == 0) return 0;
      uint8_t *copy = arena_allocate(arena, header.record_count * record_size + 1);
      for (uint32_t i = 0; i < header.record_count; i++) copy_bytes(copy + i * record_size, source + (size_t)i * header.record_size, min_u64(record_size, header.record_size));
      ret->records = copy;
      return 0;
    }
    at = next;
  }
  return 0;
}

const uint8_t *view_bytes(const struct view *view, struct warp_slice slice, size_t *size) {
  bool inside = (uint64_t)slice.offset + slice.length <= view->heap_size;
  *size = inside ? slice.length : 0;
  return inside ? view->heap + slice.offset : NULL;
}

char *view_string(const struct view *view, struct arena *arena, struct warp_slice slice) {
  size_t size;
  const uint8_t *bytes = view_bytes(view, slice, &size);
  char *s = arena_allocate(arena, size + 1);
  if (size > 0) copy_bytes(s, bytes, size);
  return s;
}
