/*
 * Checkpoints without an image, as CRaC's simengine and pauseengine take them: simengine's process goes on at once, pauseengine's stands still until a
 * restore lets it go on in place. Their directory holds the files `tags`, `score` and, of pauseengine, `pid`.
 */
#ifndef WARP_SIMULATED_H
#define WARP_SIMULATED_H

#include "../base/base.h"

enum engine_kind { ENGINE_WARP = 0, ENGINE_SIM = 1, ENGINE_PAUSE = 2 };
extern HIDDEN const char *const engine_names[3];
/* False when there is no engine of that name here. */
bool engine_parse(const char *name, enum engine_kind *ret);

/* The signal that ends a pause, SIGRTMIN + 2 of the C libraries; its value is the restore data. */
#define RESTORE_SIGNAL 36
/* Queues it to a process; 0 or a negated errno. */
long queue_restore_signal(uint32_t pid, int32_t value);

/* Text for the files: lines of its own each. */
struct simulated_text {
  struct buffer tags;      /* label:NAME=VALUE, bitmap:NAME=HEX */
  struct buffer score;     /* METRIC=NUMBER */
  struct buffer user_data; /* NAME=HEX; the file user_data is there only when there is some */
};
/* Writes the files into `directory`, which is made when it is missing; pid 0 for none. Whatever fails, none of them is left half-written. */
int simulated_write(const char *directory, const struct simulated_text *text, uint32_t pid, struct failure *failure);
/* Reads tags, scores and user data back as a note of type WARP_NOTE_TAGS. */
int simulated_read(const char *directory, struct arena *arena, struct buffer *ret, struct failure *failure);
/* What a directory without an image holds, as a line; false when it is nothing that is known. */
bool simulated_describe(const char *directory, struct failure *ret);

/* What a paused program gets when it goes on. */
struct resume {
  uint32_t restore_data_size;
  uint32_t environment_size;
  uint32_t arguments_size;
  const uint8_t *restore_data;
  const char *environment; /* as in struct warp_control */
  const char *arguments;
};
/* Lets the process that `directory`/pid names go on: by its engine or, where it runs none, by the signal. */
int simulated_resume(const char *directory, const struct resume *resume, struct failure *failure);
/* Does so by the signal alone. */
int simulated_signal(const char *directory, int32_t value, struct failure *failure);

#endif
