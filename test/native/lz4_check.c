/*
 * The LZ4 codec under AddressSanitizer and UndefinedBehaviorSanitizer, against liblz4 both ways: every buffer is allocated to the byte, so
 * that an access outside is seen. Argument: the number of damaged blocks to decode. Prints one line; anything else is a failure.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../native/src/base/lz4.h"
#include "random.h"

#define LONGEST (1 << 20)

static int (*library_compress)(const char *, char *, int, int, int);
static int (*library_compress_best)(const char *, char *, int, int, int);
static int (*library_decompress)(const char *, char *, int, int);
static void *workspace;
static unsigned blocks, damaged, both;

static void stop(const char *what, int kind, size_t size, int level) {
  printf("%s: kind %d, %zu bytes, level %d\n", what, kind, size, level);
  exit(1);
}

enum { ZEROS, PERIODIC, RANDOM, FEW_VALUES, TEXT, POINTERS, COPIES, KINDS };

static void fill(unsigned char *to, size_t size, int kind) {
  static const char words[] = "checkpoint restore thread memory chunk descriptor signal address space process image of the and a ";
  const size_t period = 1 + next_random() % 40;
  for (size_t i = 0; i < size; i++) {
    switch (kind) {
      case ZEROS: to[i] = 0; break;
      case PERIODIC: to[i] = i < period ? (unsigned char)next_random() : to[i - period]; break;
      case RANDOM: to[i] = (unsigned char)next_random(); break;
      case FEW_VALUES: to[i] = (unsigned char)(next_random() % 3); break;
      case TEXT: to[i] = (unsigned char)words[(i * 7 / 5 + next_random() % 2) % (sizeof words - 1)]; break;
      case POINTERS: to[i] = i % 8 < 2 ? (unsigned char)next_random() : i % 8 < 6 ? (unsigned char)(0x55 + i % 8) : 0; break;
      /* Stretches of up to 600 bytes, each new or from any distance before, up to beyond what an offset can name. */
      case COPIES: {
        const size_t end = i + 1 + next_random() % 600, distance = i == 0 || next_random() % 3 == 0 ? 0 : 1 + next_random() % (i < 70000 ? i : 70000);
        for (; i < size && i < end; i++) to[i] = distance == 0 ? (unsigned char)next_random() : to[i - distance];
        i--;
        break;
      }
    }
  }
}

/* A copy with not a byte to spare on either side. */
static void *exact_copy(const void *from, size_t size) {
  void *copy = malloc(size);
  memcpy(copy, from, size);
  return copy;
}

static void round_trip(const unsigned char *content, size_t size, int kind, int level) {
  const size_t bound = lz4_bound(size);
  unsigned char *block = malloc(bound), *back = malloc(size);
  const size_t stored = lz4_compress(content, size, block, bound, level, workspace);
  if (stored == 0 || stored > bound) stop("does not fit in its own bound", kind, size, level);
  unsigned char *exact = exact_copy(block, stored);
  if (!lz4_decompress(exact, stored, back, size) || memcmp(content, back, size) != 0) stop("comes back different", kind, size, level);
  memset(back, 0x5a, size);
  if (library_decompress((char *)exact, (char *)back, (int)stored, (int)size) != (int)size || memcmp(content, back, size) != 0)
    stop("liblz4 decodes it differently", kind, size, level);
  /* Exactly as much room as the block takes is enough, and a byte less is not. */
  unsigned char *tight = malloc(stored);
  if (lz4_compress(content, size, tight, stored, level, workspace) != stored || memcmp(tight, exact, stored) != 0)
    stop("does not fit where it fits", kind, size, level);
  free(tight);
  tight = malloc(stored - 1);
  if (lz4_compress(content, size, tight, stored - 1, level, workspace) != 0) stop("fits where it does not", kind, size, level);
  free(tight);
  /* The wrong size, either way. */
  unsigned char *other = malloc(size + 1);
  if (lz4_decompress(exact, stored, other, size + 1)) stop("gives more bytes than it has", kind, size, level);
  free(other);
  if (size > 0) {
    other = malloc(size - 1);
    if (lz4_decompress(exact, stored, other, size - 1)) stop("gives fewer bytes than it has", kind, size, level);
    free(other);
  }
  free(exact);
  int theirs = level <= LZ4_LEVEL_FAST ? library_compress((const char *)content, (char *)block, (int)size, (int)bound, 1)
                                       : library_compress_best((const char *)content, (char *)block, (int)size, (int)bound, level);
  exact = exact_copy(block, (size_t)theirs);
  memset(back, 0x5a, size);
  if (!lz4_decompress(exact, (size_t)theirs, back, size) || memcmp(content, back, size) != 0)
    stop("liblz4's block comes back different", kind, size, level);
  free(exact);
  free(block);
  free(back);
  blocks++;
}

/* Bits changed, bytes changed, the end cut off or bytes added: an answer, and nothing outside touched. */
static void damage(const unsigned char *content, size_t size) {
  const size_t bound = lz4_bound(size);
  unsigned char *block = malloc(bound + 16), *back = malloc(size);
  size_t stored = lz4_compress(content, size, block, bound, 1 + (int)(next_random() % 9), workspace);
  for (unsigned long changes = next_random() % 4; changes > 0; changes--) {
    const size_t at = next_random() % stored;
    block[at] = next_random() % 2 == 0 ? block[at] ^ (unsigned char)(1u << next_random() % 8) : (unsigned char)-(next_random() % 2);
  }
  if (next_random() % 3 == 0) stored = next_random() % (stored + 1);
  if (next_random() % 8 == 0)
    for (int i = 0; i < 16; i++) block[stored++] = (unsigned char)next_random();
  unsigned char *exact = exact_copy(block, stored);
  const bool accepted = lz4_decompress(exact, stored, back, size);
  /* What both take is the same. (liblz4 takes an offset of 0, which the format forbids, and enforces the rules for the end.) */
  unsigned char *theirs = malloc(size);
  const int length = library_decompress((char *)exact, (char *)theirs, (int)stored, (int)size);
  if (accepted && length == (int)size) {
    if (memcmp(back, theirs, size) != 0) stop("liblz4 decodes a damaged block differently", -1, size, 0);
    both++;
  }
  free(theirs);
  free(exact);
  free(block);
  free(back);
  damaged++;
}

int main(int argc, char **argv) {
  void *library = dlopen("liblz4.so.1", RTLD_NOW);
  if (library == NULL) {
    printf("no liblz4\n");
    return 0;
  }
  library_compress = dlsym(library, "LZ4_compress_fast");
  library_compress_best = dlsym(library, "LZ4_compress_HC");
  library_decompress = dlsym(library, "LZ4_decompress_safe");
  if (argc < 2 || library_compress == NULL || library_compress_best == NULL || library_decompress == NULL) return 3;
  workspace = malloc(LZ4_WORKSPACE);
  memset(workspace, 0xee, LZ4_WORKSPACE);
  for (size_t size = 0; size <= 300; size++) {
    for (int kind = 0; kind < KINDS; kind++) {
      unsigned char *content = malloc(size);
      fill(content, size, kind);
      round_trip(content, size, kind, 1);
      round_trip(content, size, kind, 2 + (int)(next_random() % 8));
      free(content);
    }
  }
  for (int round = 0; round < 6; round++) {
    for (int kind = 0; kind < KINDS; kind++) {
      const size_t size = round == 0 ? LONGEST : round == 1 ? 65536 + next_random() % 32 - 16 : next_random() % (LONGEST >> round) + 1;
      unsigned char *content = malloc(size);
      fill(content, size, kind);
      round_trip(content, size, kind, 1);
      /* The deepest searches take long on the repetitive kinds under sanitizers. */
      round_trip(content, size, kind, 2 + (int)(next_random() % (size > 200000 ? 2 : 8)));
      free(content);
    }
  }
  for (long left = atol(argv[1]); left > 0; left--) {
    const size_t size = 1 + next_random() % (left % 8 == 0 ? 20000 : 400);
    unsigned char *content = malloc(size);
    fill(content, size, (int)(next_random() % KINDS));
    damage(content, size);
    free(content);
  }
  printf("%u round trips, %u damaged blocks, %u of them taken as liblz4 takes them\n", blocks, damaged, both);
  return 0;
}
