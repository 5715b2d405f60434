/*
 * Patterns over whole texts: globs and regular expressions, compiled to the same small automaton. Matching takes time in proportion to
 * pattern times text, whatever they are: there is nothing that backtracks.
 */
#ifndef WARP_PATTERN_H
#define WARP_PATTERN_H

#include "base.h"

struct pattern {
  struct list instructions;
};

/* Longer patterns are refused. */
#define PATTERN_LONGEST 512

/*
 * A glob as java.nio.file has them: `*` and `?` do not match a slash, `**` does; `[a-z]`, `[!a-z]`, `{a,b}`, and `\` before a character that is
 * meant as it is. NULL with *problem saying why it is none.
 */
const struct pattern *pattern_glob(struct arena *arena, const char *text, const char **problem);
/* A regular expression with . [] [^] * + ? | () \d \w \s and `\` before a character that is meant as it is. */
const struct pattern *pattern_regex(struct arena *arena, const char *text, const char **problem);
/* Whether the pattern matches all of `text`. */
bool pattern_matches(const struct pattern *pattern, const char *text);

#endif
