/* The policies of a program: those of its start, kept in its own memory, and those of a checkpoint. */
#include "engine.h"

/* A file as it was when the program started: it need not be there later. */
struct policy_file {
  struct policy_file *next;
  char name[4096];
  struct failure failure; /* why there is no text */
  size_t size;
  char text[];
};
static struct policy_file *policy_files;

void policies_remember(const char *path) {
  struct arena scratch = {NULL};
  struct failure failure = {.text = ""};
  size_t size = 0;
  const char *text = policies_read(&scratch, path, &size, &failure);
  struct policy_file *file = engine_memory(sizeof *file + size);
  if (file != NULL) {
    format(file->name, sizeof file->name, "%s", path);
    file->failure = failure;
    file->size = size;
    if (text != NULL) copy_bytes(file->text, text, size);
    struct policy_file **last = &policy_files;
    while (*last != NULL) last = &(*last)->next;
    *last = file;
  }
  arena_release(&scratch);
}

static int take_all(struct capture *capture) {
  const struct request *request = capture->request;
  policies_init(&capture->rules, &capture->arena);
  if (request->policies_file[0] != 0) {
    const char *text = request->policies;
    size_t size = request->policies_size;
    if (size == 0) text = policies_read(&capture->arena, request->policies_file, &size, capture->failure);
    if (text == NULL || policies_parse(&capture->rules, text, size, request->policies_file, capture->failure) < 0) return -1;
  }
  for (const struct policy_file *file = policy_files; file != NULL; file = file->next) {
    if (file->failure.text[0] != 0) return fail(capture->failure, "%s", file->failure.text);
    if (policies_parse(&capture->rules, file->text, file->size, file->name, capture->failure) < 0) return -1;
  }
  return 0;
}

int capture_policies(struct capture *capture) {
  if (take_all(capture) < 0) return -1;
  for (size_t i = 0; i < capture->rules.rules.count; i++) {
    const struct policy_rule *rule = list_at(&capture->rules.rules, struct policy_rule, i);
    const struct warp_slice file = table_string(&capture->policies, rule->file), text = table_string(&capture->policies, rule->text);
    struct warp_policy_record *record = table_add(&capture->policies);
    *record = (struct warp_policy_record){.type = rule->type, .action = rule->action, .flags = rule->quiet ? WARP_POLICY_QUIET : 0, .line = rule->line, .file = file, .text = text};
  }
  return 0;
}
