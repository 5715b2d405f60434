/* The start of the static executables, and what they share. */
#ifndef WARP_PROGRAM_H
#define WARP_PROGRAM_H

#include "../base/base.h"

/* Supplied by each program; what it returns is the exit status. */
int program_main(int argc, char **argv, char **environment);

/* Applies the program's own relocations as if it stood at `base`: for the start, and for a copy of it elsewhere. */
void program_relocate(uint64_t base);
/* Where the running copy stands, and its size in memory. */
uint64_t program_base(void);
uint64_t program_size(void);

/* Where log lines and errors go: standard error, or a copy of it. */
extern HIDDEN int program_log_descriptor;
/* Sends log lines there as "NAME: LEVEL: text". */
void program_log_to_stderr(const char *name);
/* "NAME: text" on standard error. */
void program_error(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* For `--name VALUE` and `--name=VALUE`: true when argv[*i] is that option, with *value set and *i on its last word. */
bool option_with_value(int argc, char **argv, int *i, const char *name, const char **value);
/* An absolute path for `path`, seen from the working directory. */
void absolute_path(const char *path, char *ret, size_t size);

#endif
