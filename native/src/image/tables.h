/* Building and reading the project's notes: tables of records with a heap (docs/image-format.md). */
#ifndef WARP_TABLES_H
#define WARP_TABLES_H

#include "../../include/warp_image.h"
#include "../base/base.h"

/* A note that is being made. */
struct table {
  uint32_t type;
  struct list records;
  struct buffer heap;
};
void table_init(struct table *table, struct arena *arena, uint32_t type, size_t record_size);
/* Adds a zeroed record; earlier record pointers become invalid. */
void *table_add(struct table *table);
#define table_at(table, kind, index) list_at(&(table)->records, kind, index)
struct warp_slice table_bytes(struct table *table, const void *bytes, size_t size);
struct warp_slice table_string(struct table *table, const char *s);
/* Appends the note to `notes`, unless the table is empty. */
void table_write(const struct table *table, struct buffer *notes);
/* The bytes that table_write will append. */
size_t table_note_size(const struct table *table);
/* Of these the last ones, which are the note's payload. */
size_t table_payload_size(const struct table *table);

/* Appends one ELF note. */
void note_append(struct buffer *notes, const char *owner, uint32_t type, const void *payload, size_t size);

/* A note that has been read. Records of another size than the reader's are copied: absent fields are zero. */
struct view {
  const void *records;
  size_t count;
  size_t record_size;
  const uint8_t *heap;
  uint64_t heap_size;
  const uint8_t *payload; /* all of the note, in place */
  size_t payload_size;
};
/*
 * Finds the note of `type` among `notes` and checks its structure. An absent note is an empty view. Fails with a line that
 * names `path` and the note's offset in the file (`notes_offset` is that of `notes`).
 */
int view_find(struct view *ret, struct arena *arena, const uint8_t *notes, size_t size, uint64_t notes_offset, const char *path, uint32_t type, size_t record_size, struct failure *failure);
#define view_at(view, kind, index) (&((const kind *)(view)->records)[index])
/* A slice as a NUL-terminated string in `arena`, or its bytes in place. Out-of-range slices are empty. */
char *view_string(const struct view *view, struct arena *arena, struct warp_slice slice);
const uint8_t *view_bytes(const struct view *view, struct warp_slice slice, size_t *size);

#endif
