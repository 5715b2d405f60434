/*
 * What the engine understands of machine code, beside objdump. Arguments: an ELF file, and the output of `objdump -d -w --no-show-raw-insn`
 * over it. Prints how many instructions have the same length, how many have another, how many system calls both see, and how many one of
 * them only; then what can be done about those calls.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../native/src/base/base.h"

/* Stands in for the engine's: nothing is redirected here. */
const char arch_redirected_entry[1];

static unsigned char *file;
static size_t file_size;

static unsigned char *read_all(const char *path, size_t *size) {
  FILE *stream = fopen(path, "r");
  if (stream == NULL || fseek(stream, 0, SEEK_END) != 0) exit(1);
  *size = (size_t)ftell(stream);
  unsigned char *content = malloc(*size + 1);
  rewind(stream);
  if (content == NULL || fread(content, 1, *size, stream) != *size) exit(1);
  content[*size] = 0;
  fclose(stream);
  return content;
}

static const Elf64_Phdr *segment_at(uint64_t address) {
  const Elf64_Ehdr *header = (const void *)file;
  const Elf64_Phdr *segments = (const void *)(file + header->e_phoff);
  for (int i = 0; i < header->e_phnum; i++)
    if (segments[i].p_type == PT_LOAD && (segments[i].p_flags & PF_X) != 0 && address >= segments[i].p_vaddr && address < segments[i].p_vaddr + segments[i].p_filesz) return &segments[i];
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 3) return 1;
  size_t listing_size, same = 0, different = 0, both = 0, unseen = 0, redirectable = 0, other = 0, fixed = 0, confirmed = 0;
  file = read_all(argv[1], &file_size);
  char *listing = (char *)read_all(argv[2], &listing_size);
  uint64_t before = 0;
  bool before_judged = false;
  for (char *line = listing, *next; line != NULL && *line != 0; line = next) {
    next = strchr(line, '\n');
    if (next != NULL) *next++ = 0;
    char *colon;
    const uint64_t address = strtoull(line, &colon, 16);
    /* Only lines of instructions begin with a space; a new function or section breaks the row. */
    if (line[0] != ' ' || *colon != ':') {
      before_judged = false;
      continue;
    }
    const Elf64_Phdr *segment = segment_at(before);
    if (before_judged && segment != NULL) {
      const size_t length = arch_instruction_length(file + segment->p_offset + (before - segment->p_vaddr), segment->p_filesz - (before - segment->p_vaddr));
      if (length == address - before) {
        same++;
      } else {
        different++;
        if (getenv("SHOW") != NULL) printf("0x%lx: %zu, not %lu\n", (unsigned long)before, length, (unsigned long)(address - before));
      }
    }
    before = address;
    before_judged = strstr(colon, "(bad)") == NULL && strstr(colon, ".byte") == NULL;
    if (!before_judged || strstr(colon, "\tsyscall") == NULL || (segment = segment_at(address)) == NULL) continue;
    struct arch_call_site site;
    const enum arch_call_kind kind = arch_examine_call(file + segment->p_offset, segment->p_filesz, address - segment->p_vaddr, &site);
    if (kind == ARCH_NO_CALL) unseen++;
    else both++;
    redirectable += kind == ARCH_REDIRECTABLE_CALL;
    other += kind == ARCH_OTHER_CALL;
    fixed += kind == ARCH_FIXED_CALL;
    if (getenv("SHOW") != NULL && kind != ARCH_OTHER_CALL) printf("call at 0x%lx: kind %d number %ld length %u\n", (unsigned long)address, kind, kind == ARCH_REDIRECTABLE_CALL ? site.number : -2, kind == ARCH_REDIRECTABLE_CALL ? site.length : 0);
  }
  const Elf64_Ehdr *header = (const void *)file;
  const Elf64_Phdr *segments = (const void *)(file + header->e_phoff);
  for (int i = 0; i < header->e_phnum; i++) {
    if (segments[i].p_type != PT_LOAD || (segments[i].p_flags & PF_X) == 0) continue;
    const uint8_t *code = file + segments[i].p_offset;
    struct arch_call_site site;
    for (size_t at = 0; (at = arch_next_call(code, segments[i].p_filesz, at)) < segments[i].p_filesz; at++) confirmed += arch_examine_call(code, segments[i].p_filesz, at, &site) != ARCH_NO_CALL;
  }
  printf("%zu lengths agree, %zu differ; %zu system calls seen, %zu not, %zu seen where there are none; %zu redirectable, %zu others, %zu fixed\n", same, different, both, unseen, confirmed - both, redirectable, other, fixed);
  return 0;
}
