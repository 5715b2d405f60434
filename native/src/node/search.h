/* Going through files for bytes that occur, and for pages that differ: in steps that stay in the processor's cache. */
#ifndef WARP_NODE_SEARCH_H
#define WARP_NODE_SEARCH_H

#include <stddef.h>
#include <stdint.h>

/* Reads exactly `size` bytes. Returns 0 or an errno; ENODATA: the file ends before that. */
int read_all(int fd, uint8_t *bytes, size_t size, uint64_t offset);

/* The longest pattern. */
#define SEARCH_LONGEST 4096u

/* Numbers that were found. */
struct found {
  uint32_t *values; /* malloc(3) */
  size_t count;
  size_t capacity;
};

/*
 * Adds to `ret` at which of `size` bytes (less than 4 GiB) the pattern (1 to SEARCH_LONGEST bytes) begins, ascending and overlapping; the bytes are in
 * memory, or from `offset` on in a file. Return 0 or an errno, like read_all.
 */
int search_memory(const uint8_t *bytes, size_t size, const uint8_t *pattern, size_t length, struct found *ret);
int search_file(int input, uint64_t offset, size_t size, const uint8_t *pattern, size_t length, struct found *ret);

/* A stretch of two files. An offset of UINT64_MAX stands for zeros. */
struct compared {
  uint64_t offset_a;
  uint64_t offset_b;
  uint64_t size; /* less than 4 GiB */
};

/* Adds to `ret` pairs: index in `stretches`, and the byte at which a page of it that differs begins, ascending. Returns like read_all. */
int search_differences(int a, int b, const struct compared *stretches, size_t count, struct found *ret);

#endif
