#include "program.h"

extern HIDDEN const char __ehdr_start[];
extern HIDDEN const char _end[];
extern HIDDEN const Elf64_Dyn _DYNAMIC[];

HIDDEN _Noreturn void program_start(uint64_t *stack);

static const char *program_name;
HIDDEN int program_log_descriptor = 2;

uint64_t program_base(void) { return (uint64_t)__ehdr_start; }
uint64_t program_size(void) { return round_up((uint64_t)_end - (uint64_t)__ehdr_start, PAGE_SIZE); }

/* The program is linked at 0 and has no relocations but R_X86_64_RELATIVE and their like: base + addend. */
void program_relocate(uint64_t base) {
  uint64_t table = 0, size = 0;
  const uint64_t here = program_base();
  for (const Elf64_Dyn *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++) {
    if (entry->d_tag == DT_RELA) table = entry->d_un.d_val;
    if (entry->d_tag == DT_RELASZ) size = entry->d_un.d_val;
  }
  const Elf64_Rela *relocation = (const void *)(here + table);
  for (size_t i = 0; i < size / sizeof *relocation; i++) *(uint64_t *)(base + relocation[i].r_offset) = base + (uint64_t)relocation[i].r_addend;
}

void program_start(uint64_t *stack) {
  program_relocate(program_base());
  int argc = (int)stack[0];
  char **argv = (char **)(stack + 1);
  sys(exit_group, program_main(argc, argv, argv + argc + 1));
  __builtin_unreachable();
}

static void log_to_stderr(enum log_level level, const char *line, size_t length) {
  char text[1100];
  size_t n = format(text, sizeof text, "%s: %s: %.*s\n", program_name, log_level_name(level), (int)length, line);
  sys(write, program_log_descriptor, text, n);
}

void program_log_to_stderr(const char *name) {
  program_name = name;
  log_sink = log_to_stderr;
}

void program_error(const char *text, ...) {
  char line[1024];
  va_list arguments;
  size_t n = format(line, sizeof line, "%s: ", program_name);
  va_start(arguments, text);
  n += format_list(line + n, sizeof line - n - 1, text, arguments);
  va_end(arguments);
  line[n++] = '\n';
  sys(write, program_log_descriptor, line, n);
}

bool option_with_value(int argc, char **argv, int *i, const char *name, const char **value) {
  if (!starts_with(argv[*i], name)) return false;
  const char *rest = argv[*i] + string_length(name);
  if (*rest == '=') {
    *value = rest + 1;
    return true;
  }
  if (*rest != 0 || *i + 1 >= argc) return false;
  *value = argv[++*i];
  return true;
}

void absolute_path(const char *path, char *ret, size_t size) {
  char directory[4096];
  if (path[0] == '/' || sys(getcwd, directory, sizeof directory) < 0) {
    format(ret, size, "%s", path);
  } else {
    format(ret, size, "%s/%s", directory, path);
  }
}
