/*
 * crlib (native/include/crlib.h): what a Java VM with CRaC calls. A checkpoint asks the engine in this very process; a restore
 * becomes warp-restore, which stands beside this library.
 */
#include "../../include/crlib.h"

#include <linux/un.h>

#include "../../include/warp.h"
#include "../base/lz4.h"
#include "engine.h"

#define PUBLIC __attribute__((visibility("default")))

static void complain(const char *text, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *text, ...) {
  char line[1400];
  va_list arguments;
  va_start(arguments, text);
  size_t n = format(line, sizeof line, "warp: ");
  n += format_list(line + n, sizeof line - n - 1, text, arguments);
  va_end(arguments);
  line[n++] = '\n';
  write_fully(2, line, n);
}

/* ---- names and values, kept over a checkpoint ---- */

struct crlib_conf {
  char image_location[4096];
  char restorer[4096];
  char policies[4096];
  char log_level[8];
  enum engine_kind engine;
  bool keep_running, self_contained, keep_pid;
  int compression_level; /* 0: none */
  bool compression_wanted;
  bool direct_map, direct_map_given, concurrent, concurrent_given;
  char load_concurrency[8];
  char key_file[4096], key_variable[256]; /* at most one; the key itself is read when it is needed, and kept nowhere */
  struct engine_tag *tags;     /* for the next checkpoint */
  struct engine_tag *required; /* of the next restore */
  size_t restore_data_size;
  uint8_t restore_data[WARP_RESTORE_DATA_ROOM];
};

static struct engine_tag *find_tag(struct engine_tag *list, uint32_t kind, const char *name) {
  for (; list != NULL; list = list->next)
    if (list->kind == kind && strings_equal(list->name, name)) return list;
  return NULL;
}

static void remove_tag(struct engine_tag **list, uint32_t kind, const char *name) {
  for (struct engine_tag **link = list; *link != NULL; link = &(*link)->next)
    if ((*link)->kind == kind && strings_equal((*link)->name, name)) {
      struct engine_tag *removed = *link;
      *link = removed->next;
      if (removed->found != NULL) engine_memory_free(removed->found);
      engine_memory_free(removed);
      return;
    }
}

static struct engine_tag *set_tag(struct engine_tag **list, uint32_t kind, const char *name, const void *value, size_t size) {
  if (name == NULL || name[0] == 0 || (value == NULL && size > 0)) return NULL;
  size_t name_size = string_length(name) + 1;
  struct engine_tag *tag = engine_memory(sizeof *tag + name_size + size);
  if (tag == NULL) return NULL;
  remove_tag(list, kind, name);
  *tag = (struct engine_tag){.kind = kind, .name = (char *)(tag + 1), .value = (uint8_t *)(tag + 1) + name_size, .size = size};
  copy_bytes(tag->name, name, name_size);
  copy_bytes(tag->value, value, size);
  /* In the order in which they were set. */
  while (*list != NULL) list = &(*list)->next;
  *list = tag;
  return tag;
}

static void free_tags(struct engine_tag *list) {
  while (list != NULL) {
    struct engine_tag *next = list->next;
    if (list->found != NULL) engine_memory_free(list->found);
    engine_memory_free(list);
    list = next;
  }
}

/* As all functions that hand out bytes: how many there are, and at most `size` of them. */
static size_t hand_out(const void *data, size_t have, void *buffer, size_t size) {
  if (buffer != NULL) copy_bytes(buffer, data, min_u64(have, size));
  return have;
}

/* ---- configuration ---- */

static const crlib_conf_option_t options[] = {
    {"image_location", CRLIB_CONF_OPTION_CHECKPOINT | CRLIB_CONF_OPTION_RESTORE, "path", NULL, "directory of the image (core.img)"},
    {"engine", CRLIB_CONF_OPTION_CHECKPOINT | CRLIB_CONF_OPTION_RESTORE, "warp/simengine/pauseengine", "warp", "simengine keeps no image and goes on; pauseengine stands still until a restore"},
    {"keep_running", CRLIB_CONF_OPTION_CHECKPOINT, "true/false", "false", "the process goes on after its checkpoint"},
    {"compression", CRLIB_CONF_OPTION_CHECKPOINT, "true/false", "false", "compress the image"},
    {"compression.algorithm", CRLIB_CONF_OPTION_CHECKPOINT, "lz4", "lz4", "how to compress"},
    {"compression.level", CRLIB_CONF_OPTION_CHECKPOINT, "1-9", "1", "1 is fast, 9 small"},
    {"encryption.key.file", CRLIB_CONF_OPTION_CHECKPOINT | CRLIB_CONF_OPTION_RESTORE, "path", NULL, "encrypt the image with the key in this file, or decrypt it"},
    {"encryption.key.env", CRLIB_CONF_OPTION_CHECKPOINT | CRLIB_CONF_OPTION_RESTORE, "variable", NULL, "likewise, with 64 hexadecimal digits in an environment variable, which is wiped"},
    {"encryption.algorithm", CRLIB_CONF_OPTION_CHECKPOINT, "aes-256-gcm", "aes-256-gcm", "how to encrypt"},
    {"self_contained", CRLIB_CONF_OPTION_CHECKPOINT, "true/false", "false", "store unmodified pages of mapped files too"},
    {"direct_map", CRLIB_CONF_OPTION_RESTORE, "true/false", "true", "map the content of plain images rather than read it"},
    {"concurrent", CRLIB_CONF_OPTION_RESTORE, "true/false", "true for compressed images", "load memory while the program runs"},
    {"load_concurrency", CRLIB_CONF_OPTION_RESTORE, "0-64", "processors", "threads that load memory"},
    {"keep_pid", CRLIB_CONF_OPTION_RESTORE, "true/false", "false", "the process ids of the checkpoint, in namespaces"},
    {"policies", CRLIB_CONF_OPTION_CHECKPOINT | CRLIB_CONF_OPTION_RESTORE, "path", NULL, "rules for open files, pipes and sockets"},
    {"log_level", CRLIB_CONF_OPTION_RESTORE, "error/warn/info/debug", "warn", "what warp-restore tells on standard error"},
    {"restorer", CRLIB_CONF_OPTION_RESTORE, "path", "warp-restore beside the library", "the program that restores"},
    {NULL, 0, NULL, NULL, NULL},
};
#define OPTION_COUNT (sizeof options / sizeof options[0] - 1)

static bool can_configure(crlib_conf_t *conf, const char *key) {
  (void)conf;
  for (size_t i = 0; key != NULL && i < OPTION_COUNT; i++)
    if (strings_equal(options[i].key, key)) return true;
  return false;
}

static bool set_switch(const char *key, const char *value, bool *ret) {
  bool on = strings_equal(value, "true") || strings_equal(value, "1") || value[0] == 0;
  if (!on && !strings_equal(value, "false") && !strings_equal(value, "0")) {
    complain("%s=%s: give true or false", key, value);
    return false;
  }
  *ret = on;
  return true;
}

static bool set_text(const char *key, const char *value, char *ret, size_t size) {
  if (value[0] == 0 || string_length(value) >= size) {
    complain("%s=%s: give 1 to %lu characters", key, value, size - 1);
    return false;
  }
  format(ret, size, "%s", value);
  return true;
}

static bool in_range(const char *key, const char *value, uint64_t first, uint64_t last) {
  const char *at = value;
  uint64_t number = parse_decimal(&at);
  if (at != value && *at == 0 && number >= first && number <= last) return true;
  complain("%s=%s: give a number from %lu to %lu", key, value, first, last);
  return false;
}

static bool are_policies(const char *path) {
  struct arena scratch = {NULL};
  struct policies policies;
  struct failure failure = {.text = ""};
  size_t size = 0;
  policies_init(&policies, &scratch);
  const char *text = policies_read(&scratch, path, &size, &failure);
  const bool good = text != NULL && policies_parse(&policies, text, size, path, &failure) == 0;
  if (!good) complain("%s", failure.text);
  arena_release(&scratch);
  return good;
}

static bool configure(crlib_conf_t *conf, const char *key, const char *value) {
  if (conf == NULL || key == NULL) return false;
  if (value == NULL) value = "";
  if (strings_equal(key, "image_location")) return set_text(key, value, conf->image_location, sizeof conf->image_location);
  if (strings_equal(key, "engine")) {
    if (engine_parse(value, &conf->engine)) return true;
    complain("%s=%s: give warp, simengine or pauseengine", key, value);
    return false;
  }
  if (strings_equal(key, "keep_running")) return set_switch(key, value, &conf->keep_running);
  if (strings_equal(key, "self_contained")) return set_switch(key, value, &conf->self_contained);
  if (strings_equal(key, "keep_pid")) return set_switch(key, value, &conf->keep_pid);
  if (strings_equal(key, "compression")) return set_switch(key, value, &conf->compression_wanted);
  if (strings_equal(key, "compression.level")) {
    if (!in_range(key, value, LZ4_LEVEL_FAST, LZ4_LEVEL_BEST)) return false;
    conf->compression_level = value[0] - '0';
    return true;
  }
  if (strings_equal(key, "compression.algorithm")) {
    if (strings_equal(value, "lz4")) return true;
    complain("%s=%s: this version compresses with lz4 only", key, value);
    return false;
  }
  if (strings_equal(key, "encryption.key.file") || strings_equal(key, "encryption.key.env")) {
    const bool is_file = strings_equal(key, "encryption.key.file");
    if ((is_file ? conf->key_variable : conf->key_file)[0] != 0) {
      complain("encryption.key.file and encryption.key.env name a key each: give one");
      return false;
    }
    return is_file ? set_text(key, value, conf->key_file, sizeof conf->key_file) : set_text(key, value, conf->key_variable, sizeof conf->key_variable);
  }
  if (strings_equal(key, "encryption.algorithm")) {
    if (strings_equal(value, "aes-256-gcm")) return true;
    complain("%s=%s: this version encrypts with aes-256-gcm only", key, value);
    return false;
  }
  if (strings_equal(key, "direct_map")) return conf->direct_map_given = set_switch(key, value, &conf->direct_map);
  if (strings_equal(key, "concurrent")) return conf->concurrent_given = set_switch(key, value, &conf->concurrent);
  if (strings_equal(key, "load_concurrency")) return in_range(key, value, 0, 64) && set_text(key, value, conf->load_concurrency, sizeof conf->load_concurrency);
  if (strings_equal(key, "restorer")) return set_text(key, value, conf->restorer, sizeof conf->restorer);
  if (strings_equal(key, "policies")) return set_text(key, value, conf->policies, sizeof conf->policies) && are_policies(value);
  if (strings_equal(key, "log_level")) {
    enum log_level level;
    if (log_level_parse(value, &level)) return set_text(key, value, conf->log_level, sizeof conf->log_level);
    complain("%s=%s: give error, warn, info or debug", key, value);
    return false;
  }
  complain("%s: no such option", key);
  return false;
}

static crlib_conf_t *create_conf(void) {
  crlib_conf_t *conf = engine_memory(sizeof *conf);
  return conf;
}

static void destroy_conf(crlib_conf_t *conf) {
  if (conf == NULL) return;
  free_tags(conf->tags);
  free_tags(conf->required);
  engine_memory_free(conf);
}

/* ---- keys ---- */

extern __attribute__((weak)) char **environ;

static bool has_key(const crlib_conf_t *conf) { return conf->key_file[0] != 0 || conf->key_variable[0] != 0; }

/* The key that was configured; `taken`: the variable's value is wiped. */
static int read_key(const crlib_conf_t *conf, bool taken, uint8_t ret[KEY_SIZE], struct failure *failure) {
  char **variables = &environ == NULL ? NULL : environ;
  if (conf->key_file[0] != 0) return key_read_file(conf->key_file, ret, failure);
  return taken ? key_take_variable(variables, conf->key_variable, ret, failure) : key_read_variable(variables, conf->key_variable, ret, failure);
}

/* ---- checkpoint ---- */

static int take_checkpoint(crlib_conf_t *conf) {
  if (conf == NULL) return -1;
  if (conf->image_location[0] == 0) {
    complain("image_location is not set: name a directory for the image");
    return -1;
  }
  uint8_t key[KEY_SIZE];
  struct failure failure = {.text = ""};
  if (has_key(conf) && read_key(conf, true, key, &failure) < 0) {
    complain("%s", failure.text);
    return -1;
  }
  engine_tags = conf->tags;
  enum warp_result result =
      engine_ask(conf->image_location, conf->engine, conf->keep_running, conf->self_contained, conf->compression_wanted ? (conf->compression_level == 0 ? LZ4_LEVEL_FAST : conf->compression_level) : 0, has_key(conf) ? key : NULL, conf->policies);
  wipe(key, sizeof key);
  engine_tags = NULL;
  /* What an earlier restore gave is not this one's. */
  if (result == WARP_LEFT_RUNNING) warp_control.restore_data_size = 0;
  if (result != WARP_FAILED) return 0;
  complain("%s", warp_error());
  return -1;
}

/* ---- what an image has ---- */

struct crlib_user_data_storage {
  struct arena arena;
  struct view tags;
  uint8_t *metadata;
};

static int read_simulated(const char *location, struct crlib_user_data_storage *ret, struct failure *failure) {
  struct buffer note;
  buffer_init(&note, &ret->arena);
  if (simulated_read(location, &ret->arena, &note, failure) < 0) return -1;
  return view_find(&ret->tags, &ret->arena, note.bytes, note.size, 0, location, WARP_NOTE_TAGS, sizeof(struct warp_tag_record), failure);
}

/* What is sealed in an encrypted image takes the place of its metadata and anchor. */
static int unseal(const crlib_conf_t *conf, const char *path, struct warp_anchor *anchor, struct crlib_user_data_storage *storage, struct failure *failure) {
  struct {
    uint8_t key[KEY_SIZE], image_key[KEY_SIZE];
    struct image_cipher cipher;
  } secret;
  uint8_t *metadata;
  uint64_t size;
  if (!has_key(conf)) return fail(failure, "%s: it is encrypted: set encryption.key.file or encryption.key.env", path);
  int result = read_key(conf, false, secret.key, failure);
  if (result == 0) result = metadata_unseal(path, storage->metadata, anchor, secret.key, &storage->arena, &secret.cipher, secret.image_key, &metadata, &size, failure);
  wipe(&secret, sizeof secret);
  wipe_stack();
  if (result < 0) return -1;
  storage->metadata = arena_allocate(&storage->arena, size);
  copy_bytes(storage->metadata, metadata, size);
  sys(munmap, metadata, size + TAG_SIZE);
  copy_bytes(anchor, storage->metadata + WARP_ANCHOR_OFFSET, sizeof *anchor);
  return anchor->metadata_size == size ? 0 : fail(failure, "%s: the sealed metadata makes no sense: take a new checkpoint", path);
}

/* The notes of an image's metadata; the restorer checks the rest. */
static int read_tags(const crlib_conf_t *conf, struct crlib_user_data_storage *ret, struct failure *failure) {
  char path[4200];
  struct warp_anchor anchor;
  struct file_status status;
  format(path, sizeof path, "%s/core.img", conf->image_location);
  long fd = open_file(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return fail(failure, "cannot open %s: %s", path, error_text(fd));
  long n = read_fully((int)fd, &anchor, sizeof anchor, WARP_ANCHOR_OFFSET);
  sys(fstat, fd, &status);
  const bool known = n == (long)sizeof anchor && compare_bytes(anchor.magic, WARP_ANCHOR_MAGIC, sizeof anchor.magic) == 0 && anchor.format_major == WARP_FORMAT_MAJOR;
  const bool placed = known && anchor.metadata_size <= WARP_LARGEST_METADATA && anchor.metadata_size <= (uint64_t)status.size;
  if (placed) {
    ret->metadata = arena_allocate(&ret->arena, anchor.metadata_size);
    n = read_fully((int)fd, ret->metadata, anchor.metadata_size, 0);
  }
  sys(close, fd);
  if (!placed || n != (long)anchor.metadata_size) return fail(failure, "%s: not an image of this version, or damaged: take a new checkpoint", path);
  if ((anchor.flags & WARP_IMAGE_ENCRYPTED) != 0 && unseal(conf, path, &anchor, ret, failure) < 0) return -1;
  if (anchor.notes_offset > anchor.metadata_size || anchor.notes_size > anchor.metadata_size - anchor.notes_offset) return fail(failure, "%s: its notes are out of range: take a new checkpoint", path);
  return view_find(&ret->tags, &ret->arena, ret->metadata + anchor.notes_offset, anchor.notes_size, anchor.notes_offset, path, WARP_NOTE_TAGS, sizeof(struct warp_tag_record), failure);
}

static const struct warp_tag_record *image_tag(struct crlib_user_data_storage *storage, uint32_t kind, const char *name) {
  for (size_t i = 0; i < storage->tags.count; i++) {
    const struct warp_tag_record *record = view_at(&storage->tags, struct warp_tag_record, i);
    if (record->kind == kind && strings_equal(view_string(&storage->tags, &storage->arena, record->name), name)) return record;
  }
  return NULL;
}

/* ---- restore ---- */

static uint8_t byte_at(const uint8_t *bytes, size_t size, size_t i) { return i < size ? bytes[i] : 0; }

static bool bitmap_fits(const uint8_t *have, size_t have_size, const struct engine_tag *required) {
  for (size_t i = 0; i < have_size || i < required->size; i++) {
    const uint8_t a = byte_at(have, have_size, i), b = byte_at(required->value, required->size, i);
    const bool fits = required->comparison == CRLIB_BITMAP_EQUALS ? a == b : required->comparison == CRLIB_BITMAP_SUBSET ? (a & ~b) == 0 : (b & ~a) == 0;
    if (!fits) return false;
  }
  return true;
}

static bool fits(struct crlib_user_data_storage *storage, struct engine_tag *required) {
  const struct warp_tag_record *record = image_tag(storage, required->kind, required->name);
  size_t size = 0;
  const uint8_t *value = record == NULL ? NULL : view_bytes(&storage->tags, record->value, &size);
  const bool is_label = required->kind == WARP_TAG_LABEL;
  const bool good = record != NULL && (is_label ? size == required->size && compare_bytes(value, required->value, size) == 0 : bitmap_fits(value, size, required));
  required->failed = !good;
  if (good) return true;
  if (record == NULL) {
    complain("the image's %s is not known, and required", required->name);
  } else if (is_label) {
    complain("the image's %s is '%.*s', and '%.*s' is required", required->name, (int)size, (const char *)value, (int)required->size, (const char *)required->value);
  } else {
    complain("the image's %s is not within what is required", required->name);
  }
  if (required->found != NULL) engine_memory_free(required->found);
  required->found = size == 0 ? NULL : engine_memory(size);
  required->found_size = required->found == NULL ? 0 : size;
  if (required->found != NULL) copy_bytes(required->found, value, size);
  return false;
}

static int read_conf_tags(const crlib_conf_t *conf, struct crlib_user_data_storage *ret, struct failure *failure) {
  return conf->engine == ENGINE_WARP ? read_tags(conf, ret, failure) : read_simulated(conf->image_location, ret, failure);
}

static bool meets_requirements(crlib_conf_t *conf) {
  struct crlib_user_data_storage storage = {.arena = {NULL}};
  struct failure failure = {.text = ""};
  bool good = true;
  if (conf->required == NULL) return true;
  if (read_conf_tags(conf, &storage, &failure) < 0) {
    complain("%s", failure.text);
    good = false;
  } else {
    for (struct engine_tag *required = conf->required; required != NULL; required = required->next) good &= fits(&storage, required);
  }
  arena_release(&storage.arena);
  return good;
}

/* warp-restore stands beside this library, wherever that is. */
static bool find_restorer(char *ret, size_t size) {
  struct arena scratch = {NULL};
  size_t length;
  long error;
  bool found = false;
  const char *at = read_whole_file(&scratch, "/proc/self/maps", &length, &error);
  struct map_line line;
  while (!found && at != NULL && (at = parse_map_line(at, &line)) != NULL) {
    if (engine_start() < line.start || engine_start() >= line.end) continue;
    format(ret, size, "%.*s", (int)line.name_length, line.name);
    char *slash = (char *)find_last_character(ret, '/');
    if (slash != NULL) format(slash + 1, size - (size_t)(slash + 1 - ret), "warp-restore");
    found = slash != NULL;
  }
  arena_release(&scratch);
  return found;
}

/* The young virtual machine has done its work then. */
static int resume_paused(const crlib_conf_t *conf) {
  const struct resume resume = {.restore_data = conf->restore_data, .restore_data_size = (uint32_t)conf->restore_data_size};
  struct failure failure = {.text = ""};
  if (simulated_resume(conf->image_location, &resume, &failure) == 0) sys(exit_group, 0);
  complain("%s", failure.text);
  return -1;
}

static int restore(crlib_conf_t *conf) {
  char restorer[4200], data[2 * WARP_RESTORE_DATA_ROOM + 1];
  if (conf == NULL) return -1;
  if (conf->image_location[0] == 0) {
    complain("image_location is not set: name the image's directory");
    return -1;
  }
  if (conf->engine == ENGINE_SIM) {
    complain("%s: simengine keeps no image, and its process went on: nothing can be restored", conf->image_location);
    return -1;
  }
  if (!meets_requirements(conf)) return -1;
  if (conf->engine == ENGINE_PAUSE) return resume_paused(conf);
  if (conf->restorer[0] != 0) {
    format(restorer, sizeof restorer, "%s", conf->restorer);
  } else if (!find_restorer(restorer, sizeof restorer)) {
    complain("warp-restore is not found: set the option restorer");
    return -1;
  }
  const char *argv[24] = {"warp-restore", conf->image_location};
  size_t count = 2;
  if (conf->direct_map_given && !conf->direct_map) argv[count++] = "--no-direct-map";
  if (conf->concurrent_given) argv[count++] = conf->concurrent ? "--concurrent" : "--no-concurrent";
  if (conf->keep_pid) argv[count++] = "--keep-pid";
  if (conf->load_concurrency[0] != 0) argv[count++] = "--load-concurrency", argv[count++] = conf->load_concurrency;
  if (conf->key_file[0] != 0) argv[count++] = "--encryption-key-file", argv[count++] = conf->key_file;
  if (conf->key_variable[0] != 0) argv[count++] = "--encryption-key-env", argv[count++] = conf->key_variable;
  if (conf->policies[0] != 0) argv[count++] = "--policies", argv[count++] = conf->policies;
  if (conf->log_level[0] != 0) argv[count++] = "--log-level", argv[count++] = conf->log_level;
  if (conf->restore_data_size > 0) {
    for (size_t i = 0; i < conf->restore_data_size; i++) format(data + 2 * i, 3, "%02x", conf->restore_data[i]);
    argv[count++] = "--restore-data", argv[count++] = data;
  }
  long error = sys(execve, restorer, argv, &environ == NULL ? NULL : environ);
  complain("cannot run %s: %s: put warp-restore there, or set the option restorer", restorer, error_text(error));
  return -1;
}

/* ---- extensions ---- */

static bool set_restore_data(crlib_conf_t *conf, const void *data, size_t size) {
  if (conf == NULL || size > sizeof conf->restore_data || (data == NULL && size > 0)) return false;
  copy_bytes(conf->restore_data, data, size);
  conf->restore_data_size = size;
  return true;
}

static size_t get_restore_data(crlib_conf_t *conf, void *buffer, size_t size) {
  (void)conf;
  return hand_out(warp_control.restore_data, warp_control.restore_data_size, buffer, size);
}

static bool set_user_data(crlib_conf_t *conf, const char *name, const void *data, size_t size) {
  if (conf == NULL || name == NULL) return false;
  if (data == NULL || size == 0) {
    remove_tag(&conf->tags, WARP_TAG_USER_DATA, name);
    return true;
  }
  return set_tag(&conf->tags, WARP_TAG_USER_DATA, name, data, size) != NULL;
}

static crlib_user_data_storage_t *load_user_data(crlib_conf_t *conf) {
  struct failure failure = {.text = ""};
  crlib_user_data_storage_t *storage = conf == NULL ? NULL : engine_memory(sizeof *storage);
  if (storage == NULL) return NULL;
  if (read_conf_tags(conf, storage, &failure) == 0) return storage;
  complain("%s", failure.text);
  arena_release(&storage->arena);
  engine_memory_free(storage);
  return NULL;
}

static bool lookup_user_data(crlib_user_data_storage_t *storage, const char *name, const void **data, size_t *size) {
  const struct warp_tag_record *record = storage == NULL || name == NULL ? NULL : image_tag(storage, WARP_TAG_USER_DATA, name);
  if (record == NULL) return false;
  *data = view_bytes(&storage->tags, record->value, size);
  return true;
}

static void destroy_user_data(crlib_user_data_storage_t *storage) {
  if (storage == NULL) return;
  arena_release(&storage->arena);
  engine_memory_free(storage);
}

static bool set_label(crlib_conf_t *conf, const char *name, const char *value) {
  return conf != NULL && value != NULL && set_tag(&conf->tags, WARP_TAG_LABEL, name, value, string_length(value)) != NULL;
}

static bool set_bitmap(crlib_conf_t *conf, const char *name, const unsigned char *value, size_t size) { return conf != NULL && set_tag(&conf->tags, WARP_TAG_BITMAP, name, value, size) != NULL; }

static bool require_label(crlib_conf_t *conf, const char *name, const char *value) {
  return conf != NULL && value != NULL && set_tag(&conf->required, WARP_TAG_LABEL, name, value, string_length(value)) != NULL;
}

static bool require_bitmap(crlib_conf_t *conf, const char *name, const unsigned char *value, size_t size, crlib_bitmap_comparison_t comparison) {
  if (conf == NULL || comparison > CRLIB_BITMAP_SUPERSET) return false;
  struct engine_tag *tag = set_tag(&conf->required, WARP_TAG_BITMAP, name, value, size);
  if (tag != NULL) tag->comparison = comparison;
  return tag != NULL;
}

static bool is_failed(crlib_conf_t *conf, const char *name) {
  if (conf == NULL || name == NULL) return false;
  const struct engine_tag *label = find_tag(conf->required, WARP_TAG_LABEL, name), *bitmap = find_tag(conf->required, WARP_TAG_BITMAP, name);
  return (label != NULL && label->failed) || (bitmap != NULL && bitmap->failed);
}

static size_t get_failed_bitmap(crlib_conf_t *conf, const char *name, unsigned char *value, size_t size) {
  const struct engine_tag *tag = conf == NULL || name == NULL ? NULL : find_tag(conf->required, WARP_TAG_BITMAP, name);
  return tag == NULL || !tag->failed ? 0 : hand_out(tag->found, tag->found_size, value, size);
}

static bool set_score(crlib_conf_t *conf, const char *metric, double value) {
  char text[48];
  const double size = value < 0 ? -value : value;
  if (conf == NULL || !(size < 1e15)) return false;
  uint64_t whole = (uint64_t)size, millionths = (uint64_t)((size - (double)whole) * 1e6 + 0.5);
  if (millionths >= 1000000) whole++, millionths -= 1000000;
  size_t n = format(text, sizeof text, "%s%lu.%06lu", value < 0 ? "-" : "", whole, millionths);
  return set_tag(&conf->tags, WARP_TAG_SCORE, metric, text, n) != NULL;
}

static const crlib_restore_data_t restore_data_extension = {{CRLIB_EXTENSION_RESTORE_DATA_NAME, sizeof(crlib_restore_data_t)}, set_restore_data, get_restore_data};
static const crlib_user_data_t user_data_extension = {{CRLIB_EXTENSION_USER_DATA_NAME, sizeof(crlib_user_data_t)}, set_user_data, load_user_data, lookup_user_data, destroy_user_data};
static const crlib_image_constraints_t constraints_extension = {
    {CRLIB_EXTENSION_IMAGE_CONSTRAINTS_NAME, sizeof(crlib_image_constraints_t)}, set_label, set_bitmap, require_label, require_bitmap, is_failed, get_failed_bitmap};
static const crlib_image_score_t score_extension = {{CRLIB_EXTENSION_IMAGE_SCORE_NAME, sizeof(crlib_image_score_t)}, set_score};

static const char *identity(crlib_conf_t *conf) {
  (void)conf;
  return "warp";
}

static const char *description(crlib_conf_t *conf) {
  (void)conf;
  return "warp " ENGINE_VERSION ": checkpoint and restore in the process itself, with no privilege";
}

static const char *configuration_doc(crlib_conf_t *conf) {
  (void)conf;
  return "* image_location=<path> - directory of the image\n"
         "* engine=<warp/simengine/pauseengine> (default: warp) - simengine keeps no image and goes on; pauseengine stands still until a restore\n"
         "* keep_running=<true/false> (default: false) - the process goes on after its checkpoint\n"
         "* compression=<true/false> (default: false), compression.algorithm=lz4, compression.level=<1-9> (default: 1)\n"
         "* encryption.key.file=<path> or encryption.key.env=<variable>, encryption.algorithm=aes-256-gcm - encrypt the image, or decrypt it\n"
         "* self_contained=<true/false> (default: false) - store unmodified pages of mapped files too\n"
         "* direct_map=<true/false> (default: true) - map plain images rather than read them\n"
         "* concurrent=<true/false> (default: true for compressed images), load_concurrency=<0-64> - load memory while the program runs\n"
         "* keep_pid=<true/false> (default: false) - the process ids of the checkpoint\n"
         "* policies=<path> - rules for open files, pipes and sockets: what becomes of them (docs/policies.md)\n"
         "* log_level=<error/warn/info/debug> (default: warn), restorer=<path> (default: warp-restore beside the library)\n";
}

static const char *keys[OPTION_COUNT + 1];
static const char *const *configurable_keys(crlib_conf_t *conf) {
  (void)conf;
  for (size_t i = 0; i < OPTION_COUNT; i++) keys[i] = options[i].key;
  return keys;
}

static const crlib_conf_option_t *configuration_options(crlib_conf_t *conf) {
  (void)conf;
  return options;
}

static const crlib_extension_t *const *supported_extensions(crlib_conf_t *conf);
static const crlib_description_t description_extension = {
    {CRLIB_EXTENSION_DESCRIPTION_NAME, sizeof(crlib_description_t)}, identity, description, configuration_doc, configurable_keys, supported_extensions, configuration_options};

static const crlib_extension_t *const extensions[] = {&restore_data_extension.header, &user_data_extension.header, &constraints_extension.header, &score_extension.header, &description_extension.header, NULL};

static const crlib_extension_t *const *supported_extensions(crlib_conf_t *conf) {
  (void)conf;
  return extensions;
}

static const crlib_extension_t *get_extension(const char *name, size_t size) {
  for (const crlib_extension_t *const *extension = extensions; name != NULL && *extension != NULL; extension++)
    if (strings_equal((*extension)->name, name)) return size <= (*extension)->size ? *extension : NULL;
  return NULL;
}

PUBLIC const crlib_api_t *crlib_api(int api_version, size_t api_size) {
  static const crlib_api_t api = {create_conf, destroy_conf, take_checkpoint, restore, can_configure, configure, get_extension};
  return api_version == CRLIB_API_VERSION && api_size <= sizeof api ? &api : NULL;
}
