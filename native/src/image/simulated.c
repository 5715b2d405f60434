#include "simulated.h"

#include "../base/connection.h"
#include "../base/socket_constants.h"
#include "tables.h"

const char *const engine_names[3] = {[ENGINE_WARP] = "warp", [ENGINE_SIM] = "simengine", [ENGINE_PAUSE] = "pauseengine"};

bool engine_parse(const char *name, enum engine_kind *ret) {
  for (enum engine_kind kind = ENGINE_WARP; kind <= ENGINE_PAUSE; kind++)
    if (strings_equal(name, engine_names[kind])) {
      *ret = kind;
      return true;
    }
  return false;
}

long queue_restore_signal(uint32_t pid, int32_t value) { return queue_signal(pid, 0, RESTORE_SIGNAL, (void *)(int64_t)value); }

/* ---- the files ---- */

/* In one step, so that a reader finds the old file or the new one. */
static int write_file(const char *directory, const char *name, const void *bytes, size_t size, struct failure *failure) {
  char path[4300], temporary[4300];
  format(path, sizeof path, "%s/%s", directory, name);
  format(temporary, sizeof temporary, "%s/.%s.%ld", directory, name, sys(getpid));
  sys(unlinkat, AT_FDCWD_, temporary, 0);
  long fd = open_file(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  long error = fd < 0 ? fd : write_fully((int)fd, bytes, size);
  if (error >= 0) error = sys(fsync, fd);
  if (fd >= 0) sys(close, fd);
  if (error >= 0) error = sys(renameat, AT_FDCWD_, temporary, AT_FDCWD_, path);
  if (error >= 0) return 0;
  if (fd >= 0) sys(unlinkat, AT_FDCWD_, temporary, 0);
  return fail(failure, "cannot write %s: %s: name a directory that user %ld can write in", path, error_text(error), sys(geteuid));
}

static void remove_file(const char *directory, const char *name) {
  char path[4300];
  format(path, sizeof path, "%s/%s", directory, name);
  sys(unlinkat, AT_FDCWD_, path, 0);
}

int simulated_write(const char *directory, const struct simulated_text *text, uint32_t pid, struct failure *failure) {
  static const char *const names[] = {"tags", "score", "user_data", "pid"};
  char number[16];
  const size_t digits = format(number, sizeof number, "%u\n", pid);
  const long made = sys(mkdirat, AT_FDCWD_, directory, 0700);
  if (made < 0 && made != -EEXIST) return fail(failure, "cannot make the directory %s: %s: name one that user %ld can write in", directory, error_text(made), sys(geteuid));
  /* Those of an earlier checkpoint would speak for this one. */
  if (text->user_data.size == 0) remove_file(directory, "user_data");
  if (pid == 0) remove_file(directory, "pid");
  int result = write_file(directory, "tags", text->tags.bytes, text->tags.size, failure);
  if (result == 0) result = write_file(directory, "score", text->score.bytes, text->score.size, failure);
  if (result == 0 && text->user_data.size > 0) result = write_file(directory, "user_data", text->user_data.bytes, text->user_data.size, failure);
  if (result == 0 && pid != 0) result = write_file(directory, "pid", number, digits, failure);
  if (result == 0) return 0;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) remove_file(directory, names[i]);
  if (made == 0) sys(unlinkat, AT_FDCWD_, directory, 0x200 /* AT_REMOVEDIR */);
  return result;
}

static bool add_tag(struct table *table, struct arena *arena, uint32_t kind, char *line) {
  char *value = (char *)find_character(line, '=');
  if (value == NULL || value == line) return false;
  *value++ = 0;
  size_t size = string_length(value);
  uint8_t *bytes = (uint8_t *)value;
  if (kind == WARP_TAG_BITMAP || kind == WARP_TAG_USER_DATA) {
    bytes = arena_allocate(arena, size / 2 + 1);
    if (!parse_bytes(value, bytes, size / 2, &size)) return false;
  }
  const struct warp_slice name = table_string(table, line), content = table_bytes(table, bytes, size);
  struct warp_tag_record *record = table_add(table);
  record->kind = kind;
  record->name = name;
  record->value = content;
  return true;
}

/* `kind` 0: each line says it. */
static int read_lines(const char *directory, const char *name, uint32_t kind, struct arena *arena, struct table *table, struct failure *failure) {
  char path[4300];
  size_t size, number = 1;
  long error = 0;
  format(path, sizeof path, "%s/%s", directory, name);
  char *line = read_whole_file(arena, path, &size, &error);
  if (line == NULL && error == -ENOENT && kind == WARP_TAG_USER_DATA) return 0;
  if (line == NULL) return fail(failure, "%s: cannot be read: %s: name the directory of a checkpoint by simengine or pauseengine", path, error_text(error));
  for (char *end; *line != 0; line = end, number++) {
    end = (char *)find_character(line, '\n');
    if (end == NULL) end = line + string_length(line);
    else *end++ = 0;
    uint32_t of = kind;
    if (kind == 0 && starts_with(line, "label:")) of = WARP_TAG_LABEL, line += 6;
    if (kind == 0 && starts_with(line, "bitmap:")) of = WARP_TAG_BITMAP, line += 7;
    if (of == 0 || !add_tag(table, arena, of, line)) return fail(failure, "%s: line %lu is none of label:NAME=VALUE, bitmap:NAME=HEX: take a new checkpoint", path, number);
  }
  return 0;
}

int simulated_read(const char *directory, struct arena *arena, struct buffer *ret, struct failure *failure) {
  struct table table;
  table_init(&table, arena, WARP_NOTE_TAGS, sizeof(struct warp_tag_record));
  if (read_lines(directory, "tags", 0, arena, &table, failure) < 0 || read_lines(directory, "score", WARP_TAG_SCORE, arena, &table, failure) < 0 || read_lines(directory, "user_data", WARP_TAG_USER_DATA, arena, &table, failure) < 0) return -1;
  table_write(&table, ret);
  return 0;
}

/* 0 when there is none. */
static uint32_t read_pid(const char *directory) {
  char path[4300], text[32];
  format(path, sizeof path, "%s/pid", directory);
  const char *at = text;
  return read_small_file(path, text, sizeof text) <= 0 ? 0 : (uint32_t)parse_decimal(&at);
}

static bool holds(const char *directory, const char *name) {
  char path[4300];
  format(path, sizeof path, "%s/%s", directory, name);
  return sys(faccessat, AT_FDCWD_, path, 0) == 0;
}

bool simulated_describe(const char *directory, struct failure *ret) {
  const uint32_t pid = read_pid(directory);
  if (holds(directory, "inventory.img")) {
    fail(ret, "%s: an image that CRIU made: restore it with 'warp-tool restore %s --engine criu'", directory, directory);
  } else if (pid != 0) {
    fail(ret, "%s: no image: pauseengine has paused process %u, which --engine pauseengine lets go on", directory, pid);
  } else if (holds(directory, "tags") && holds(directory, "score")) {
    fail(ret, "%s: no image: simengine only simulated a checkpoint, and the process went on: take one with --engine warp", directory);
  } else {
    return false;
  }
  return true;
}

/* ---- going on ---- */

/* Reads one line of the engine's and nothing behind it; empty when it has gone. */
static void read_answer(int fd, char *ret, size_t size) {
  size_t length = 0;
  while (length + 1 < size) {
    const long n = sys(read, fd, ret + length, 1);
    if (n == -EINTR) continue;
    if (n <= 0 || ret[length] == '\n') break;
    length++;
  }
  ret[length] = 0;
}

static bool send_bytes(int fd, const void *bytes, size_t size) {
  for (size_t sent = 0; sent < size;) {
    long n = sys(sendto, fd, (const uint8_t *)bytes + sent, size - sent, MSG_NOSIGNAL_);
    if (n == -EINTR) continue;
    if (n <= 0) return false;
    sent += (size_t)n;
  }
  return true;
}

static int resume_by_engine(int fd, uint32_t pid, const struct resume *resume, struct failure *failure) {
  char text[1024];
  const size_t size = format(text, sizeof text, "resume\nrestore-data-size=%u\nenvironment-size=%u\narguments-size=%u\n\n", resume->restore_data_size, resume->environment_size, resume->arguments_size);
  send_bytes(fd, text, size);
  read_answer(fd, text, sizeof text);
  if (text[0] == 'G' && send_bytes(fd, resume->restore_data, resume->restore_data_size) && send_bytes(fd, resume->environment, resume->environment_size) && send_bytes(fd, resume->arguments, resume->arguments_size)) read_answer(fd, text, sizeof text);
  if (text[0] == 'D') return 0;
  return text[0] == 'E' ? fail(failure, "%s", text + 1) : fail(failure, "process %u has ended while it was asked to go on", pid);
}

/* Nanoseconds since the epoch; 0 when there is no such process. */
static uint64_t start_time(uint32_t pid) {
  char path[64], text[1024];
  format(path, sizeof path, "/proc/%u/stat", pid);
  const char *at = read_small_file(path, text, sizeof text) <= 0 ? NULL : find_last_character(text, ')');
  /* Field 22, where the name is the second: in hundredths of a second since the system's start (proc(5), USER_HZ). */
  for (int field = 2; at != NULL && field < 22; field++) at = find_character(at + 1, ' ');
  if (at == NULL) return 0;
  at++;
  return parse_decimal(&at) * 10000000 + clock_ns(CLOCK_REALTIME_) - clock_ns(CLOCK_BOOTTIME_);
}

static int signal_process(const char *directory, uint32_t pid, int32_t value, struct failure *failure) {
  char path[4300];
  struct file_status status;
  const uint64_t started = start_time(pid);
  format(path, sizeof path, "%s/pid", directory);
  if (started == 0) return fail(failure, "process %u, which was paused, has ended: start the program anew", pid);
  /* The id may have passed to another process, which the signal would end. */
  const long error = sys(newfstatat, AT_FDCWD_, path, &status, 0);
  if (error < 0 || started > (uint64_t)file_mtime_ns(&status) + 1000000000) return fail(failure, "process %u started later than %s was written: it is not the one that was paused: start the program anew", pid, path);
  const long sent = queue_restore_signal(pid, value);
  return sent < 0 ? fail(failure, "cannot signal process %u: %s: use the account that it runs under", pid, error_text(sent)) : 0;
}

static int paused_process(const char *directory, uint32_t *ret, struct failure *failure) {
  *ret = read_pid(directory);
  return *ret != 0 ? 0 : fail(failure, "%s holds no pid of a process that pauseengine has paused: name the directory that its checkpoint was given", directory);
}

int simulated_signal(const char *directory, int32_t value, struct failure *failure) {
  uint32_t pid;
  return paused_process(directory, &pid, failure) < 0 ? -1 : signal_process(directory, pid, value, failure);
}

int simulated_resume(const char *directory, const struct resume *resume, struct failure *failure) {
  struct failure unreachable = {.text = ""};
  uint32_t pid;
  if (paused_process(directory, &pid, failure) < 0) return -1;
  const long fd = engine_connect(pid, &unreachable);
  if (fd == -ECONNREFUSED || fd == -ESRCH) {
    /* A virtual machine that waits by itself (the executable interface of older JDKs). */
    int32_t value = 0;
    if (resume->environment_size + resume->arguments_size > 0) return fail(failure, "process %u does not run the engine: it takes neither variables nor arguments", pid);
    if (resume->restore_data_size > sizeof value) return fail(failure, "process %u does not run the engine: it takes at most %lu bytes of restore data", pid, sizeof value);
    copy_bytes(&value, resume->restore_data, resume->restore_data_size);
    return signal_process(directory, pid, value, failure);
  }
  if (fd < 0) return fail(failure, "%s", unreachable.text);
  const int result = resume_by_engine((int)fd, pid, resume, failure);
  sys(close, fd);
  return result;
}
