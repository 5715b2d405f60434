/* Where the time of a restore goes: --stats. */
#include "restore.h"

int open_stats(struct restore *restore) {
  struct stats *stats = &restore->stats;
  stats->fd = -1;
  if (restore->options.stats[0] == 0) return 0;
  const long fd = open_file(restore->options.stats, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return fail(&restore->failure, "cannot write %s: %s", restore->options.stats, error_text(fd));
  stats->fd = move_descriptor(restore, (int)fd);
  return 0;
}

void end_phase(struct restore *restore, enum phase phase) {
  if (restore->stats.timed) restore->stats.end_us[phase] = (clock_ns(CLOCK_MONOTONIC_) - restore->stats.begin_ns) / 1000;
}

struct json {
  char text[3072];
  size_t size;
};

static void add_number(struct json *json, const char *name, uint64_t value) { json->size += format(json->text + json->size, sizeof json->text - json->size, "\"%s\":%lu,", name, value); }

/* None of ours has a character to be escaped. */
static void add_text(struct json *json, const char *name, const char *value) {
  const char *const quote = value == NULL ? "" : "\"";
  json->size += format(json->text + json->size, sizeof json->text - json->size, "\"%s\":%s%s%s,", name, quote, value == NULL ? "null" : value, quote);
}

static void add_phases(struct json *json, const struct stats *stats) {
  static const char *const names[PHASES] = {
      [PHASE_METADATA] = "metadata_us", [PHASE_PLACE] = "place_us", [PHASE_CONTENT] = "content_us", [PHASE_FILES] = "files_us", [PHASE_DESCRIPTORS] = "descriptors_us", [PHASE_CLEAR] = "clear_us",
      [PHASE_MAP] = "map_us",           [PHASE_DEFER] = "defer_us", [PHASE_LOAD] = "load_us",       [PHASE_AREAS] = "areas_us", [PHASE_PROCESS] = "process_us",         [PHASE_THREADS] = "threads_us",
  };
  for (int i = 0; i < PHASES; i++) add_number(json, names[i], stats->end_us[i] - (i == 0 ? 0 : stats->end_us[i - 1]));
  add_number(json, "memory_us", stats->end_us[PHASE_AREAS] - stats->end_us[PHASE_DESCRIPTORS]);
}

/* struct rusage of getrusage(2). */
struct resource_usage {
  int64_t user_s, user_us, system_s, system_us;
  int64_t resident_kib, unused[3];
  int64_t page_faults, page_faults_with_reading;
  int64_t unused_2[8];
};
_Static_assert(sizeof(struct resource_usage) == 144, "struct rusage of the kernel");

static void add_costs(struct json *json) {
  struct resource_usage usage;
  fill_bytes(&usage, 0, sizeof usage);
  sys(getrusage, 0 /* RUSAGE_SELF */, &usage);
  add_number(json, "cpu_us", (uint64_t)((usage.user_s + usage.system_s) * 1000000 + usage.user_us + usage.system_us));
  add_number(json, "page_faults", (uint64_t)(usage.page_faults + usage.page_faults_with_reading));
  add_number(json, "system_calls", system_calls);
}

void write_stats(struct restore *restore) {
  static const char *const modes[] = {[MODE_DIRECT] = "direct", [MODE_CONCURRENT] = "concurrent", [MODE_EAGER] = "eager"};
  const struct stats *stats = &restore->stats;
  const struct choice *choice = &restore->choice;
  struct warp_control *control = (struct warp_control *)view_at(&restore->image.process, struct warp_process_record, 0)->control;
  const uint64_t end_us = stats->end_us[PHASE_THREADS];
  if (control->version >= 4) {
    control->stats_fd = stats->fd;
    control->stats_begin_ns = stats->begin_ns;
    control->stats_us = end_us;
  }
  if (stats->fd < 0) return;
  struct json *json = arena_allocate(&restore->arena, sizeof *json);
  json->size = format(json->text, sizeof json->text, "{");
  add_number(json, "begin_ns", stats->begin_ns);
  add_phases(json, stats);
  add_costs(json);
  add_number(json, "direct_bytes", stats->direct_bytes);
  add_number(json, "direct_mappings", stats->direct_mappings);
  add_number(json, "eager_bytes", stats->eager_bytes);
  add_number(json, "eager_reads", stats->eager_reads);
  add_number(json, "read_bytes", stats->read_bytes);
  add_number(json, "loaders", stats->loaders);
  add_text(json, "compression", restore->content.compressed ? "lz4" : "none");
  add_text(json, "encryption", restore->content.encrypted ? "aes-256-gcm" : "none");
  add_number(json, "object_bytes", stats->object_bytes);
  add_number(json, "memory_areas", restore->image.vmas.count);
  add_number(json, "threads", restore->image.threads.count);
  add_number(json, "descriptors", restore->image.descriptors.count);
  add_number(json, "deferred_bytes", stats->deferred_bytes);
  add_number(json, "prefetched_bytes", stats->prefetched_bytes);
  add_text(json, "mode", modes[choice->mode]);
  add_text(json, "reason", choice->reason);
  add_text(json, "explanation", choice->explanation);
  add_text(json, "faults", choice->faults);
  add_text(json, "faults_reason", choice->faults_reason);
  add_text(json, "faults_explanation", choice->faults_explanation);
  if (control->version < 4) json->size += format(json->text + json->size, sizeof json->text - json->size, "\"engine_us\":null,\"total_us\":%lu}\n", end_us);
  write_fully(stats->fd, json->text, json->size);
}
