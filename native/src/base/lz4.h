/*
 * The LZ4 block format (doc/lz4_Block_format.md of the LZ4 project), for code that has no C library: blocks are those that liblz4
 * makes and reads. Nothing here allocates, needs much stack, or keeps state between calls.
 */
#ifndef WARP_LZ4_H
#define WARP_LZ4_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of memory that lz4_compress needs to work in, aligned to 4; what is in them before and after does not matter. */
#define LZ4_WORKSPACE (256ul * 1024)

#define LZ4_LEVEL_FAST 1
#define LZ4_LEVEL_BEST 9

/* Bytes that a block of `size` content bytes can take at most. */
size_t lz4_bound(size_t size);

/*
 * Compresses `size` bytes (less than 2 GiB) into at most `capacity` bytes at `target`. Level 1 is fast; from 2 to 9 it searches ever
 * longer for better matches. Returns the block's size; 0 when it does not fit.
 */
size_t lz4_compress(const void *source, size_t size, void *target, size_t capacity, int level, void *workspace);

/*
 * Decompresses a block of `stored` bytes into exactly `size` bytes at `target`; false when the block is damaged or holds another number of
 * bytes. Whatever the block says, nothing outside of both is read or written.
 */
bool lz4_decompress(const void *source, size_t stored, void *target, size_t size);

#endif
