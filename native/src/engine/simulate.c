/* Checkpoints without an image (simengine, pauseengine), for development: all that an application notices of a real one, in the same process. */
#include <linux/poll.h>

#include "../base/socket_constants.h"
#include "java.h"

static void append_text(struct buffer *buffer, const char *text, size_t size) { buffer_append(buffer, text, size); }

static void append_hex(struct buffer *buffer, const uint8_t *bytes, size_t size) {
  char digits[3];
  for (size_t i = 0; i < size; i++) append_text(buffer, digits, format(digits, sizeof digits, "%02x", bytes[i]));
}

static void append_tag(struct simulated_text *text, const struct engine_tag *tag) {
  struct buffer *to = tag->kind == WARP_TAG_SCORE ? &text->score : tag->kind == WARP_TAG_USER_DATA ? &text->user_data : &text->tags;
  const bool hex = tag->kind == WARP_TAG_BITMAP || tag->kind == WARP_TAG_USER_DATA;
  if (tag->kind == WARP_TAG_LABEL) append_text(to, "label:", 6);
  if (tag->kind == WARP_TAG_BITMAP) append_text(to, "bitmap:", 7);
  append_text(to, tag->name, string_length(tag->name));
  append_text(to, "=", 1);
  if (hex) append_hex(to, tag->value, tag->size);
  else append_text(to, (const char *)tag->value, tag->size);
  append_text(to, "\n", 1);
}

static int write_files(const struct request *request, struct failure *failure) {
  struct arena arena = {NULL};
  struct simulated_text text;
  buffer_init(&text.tags, &arena);
  buffer_init(&text.score, &arena);
  buffer_init(&text.user_data, &arena);
  for (const struct engine_tag *tag = engine_tags; tag != NULL; tag = tag->next) append_tag(&text, tag);
  const int result = simulated_write(request->directory, &text, request->engine == ENGINE_PAUSE ? (uint32_t)sys(getpid) : 0, failure);
  arena_release(&arena);
  return result;
}

static void send_done(const struct request *request) { client_send(request, "D0 %u %s", warp_control.generation, request->directory); }

/* ---- a pause ---- */

static bool read_exactly(int fd, void *to, size_t size) {
  for (size_t have = 0; have < size;) {
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    if (sys(poll, &polled, 1, 5000) <= 0) return false;
    const long n = sys(read, fd, (uint8_t *)to + have, size - have);
    if (n <= 0) return false;
    have += (size_t)n;
  }
  return true;
}

static uint64_t number_of(const char *text, const char *key) {
  const char *at = find_string(text, key);
  if (at == NULL) return 0;
  at += string_length(key);
  return parse_decimal(&at);
}

/* Whether a client has let the program go on; what it gives the program is in warp_control then. */
static bool take_resume(int client) {
  static struct {
    uint8_t data[WARP_RESTORE_DATA_ROOM];
    char environment[WARP_ENVIRONMENT_ROOM];
    char arguments[WARP_ARGUMENTS_ROOM];
  } given;
  static char text[8192];
  const struct request reply = {.client = client};
  if (!client_allowed(client) || !client_read(client, text, sizeof text)) return false;
  if (!starts_with(text, "resume\n")) {
    client_send(&reply, "Eprocess %ld is paused: let it go on first, with 'warp-tool restore DIR --engine pauseengine'", sys(getpid));
    return false;
  }
  const uint64_t data_size = number_of(text, "\nrestore-data-size="), environment_size = number_of(text, "\nenvironment-size="), arguments_size = number_of(text, "\narguments-size=");
  if (data_size > sizeof given.data || environment_size > sizeof given.environment || arguments_size > sizeof given.arguments) {
    client_send(&reply, "Eprocess %ld has no room for what it is given: use warp-restore and libwarp.so of the same version", sys(getpid));
    return false;
  }
  client_send(&reply, "G");
  /* A client that goes in the middle of it has changed nothing. */
  if (!read_exactly(client, given.data, data_size) || !read_exactly(client, given.environment, environment_size) || !read_exactly(client, given.arguments, arguments_size)) return false;
  copy_bytes(warp_control.restore_data, given.data, warp_control.restore_data_size = (uint32_t)data_size);
  copy_bytes(warp_control.environment, given.environment, warp_control.environment_size = (uint32_t)environment_size);
  copy_bytes(warp_control.arguments, given.arguments, warp_control.arguments_size = (uint32_t)arguments_size);
  client_send(&reply, "D");
  return true;
}

/* The signal, where the program does not use it itself: a descriptor that becomes readable, or a negated errno. */
static long open_signal(void) {
  const uint64_t mask = 1ul << (RESTORE_SIGNAL - 1);
  uint64_t pending = 0;
  if (sys(rt_sigpending, &pending, sizeof pending) == 0 && (pending & mask) != 0) return -EBUSY;
  return sys(signalfd4, -1, &mask, sizeof mask, SOCK_CLOEXEC_ | SOCK_NONBLOCK_);
}

static bool take_signal(int fd) {
  uint8_t info[128]; /* struct signalfd_siginfo: ssi_int is at 44 */
  if (sys(read, fd, info, sizeof info) != (long)sizeof info) return false;
  copy_bytes(warp_control.restore_data, info + 44, sizeof(int32_t));
  warp_control.restore_data_size = sizeof(int32_t);
  warp_control.environment_size = warp_control.arguments_size = 0;
  return true;
}

static void wait_for_resume(int listener) {
  struct pollfd polled[2] = {{.fd = listener, .events = POLLIN}, {.fd = (int)open_signal(), .events = POLLIN}};
  for (bool resumed = false; !resumed;) {
    if (sys(poll, polled, 2, -1) <= 0) continue;
    if (polled[1].revents != 0) resumed = take_signal(polled[1].fd);
    if (resumed || polled[0].revents == 0) continue;
    const long client = sys(accept4, listener, 0, 0, SOCK_CLOEXEC_);
    if (client < 0) continue;
    resumed = take_resume((int)client);
    sys(close, client);
  }
  if (polled[1].fd >= 0) sys(close, polled[1].fd);
}

static int pause_process(struct request *request, int listener, struct failure *failure) {
  int result = freeze_threads(&engine_freeze, request, NULL, failure);
  if (result == 0) {
    freeze_forget_calls(&engine_freeze);
    freeze_continue_calls(&engine_freeze);
    result = write_files(request, failure);
  }
  if (result == 0) {
    log_info("process %ld is paused", sys(getpid));
    send_done(request);
    /* Whoever asked from outside is answered; a thread of the program's that did stands still until the end. */
    sys(shutdown, request->client, 2 /* SHUT_RDWR */);
    wait_for_resume(listener);
    warp_control.generation++;
    engine_apply_environment();
    java_resumed();
    log_info("process %ld goes on", sys(getpid));
  }
  freeze_release(&engine_freeze);
  return result;
}

int simulate(struct request *request, int listener, struct failure *failure) {
  if (request->engine == ENGINE_PAUSE) return pause_process(request, listener, failure);
  if (write_files(request, failure) < 0) return -1;
  send_done(request);
  java_go_on(JAVA_LEFT_RUNNING);
  return 0;
}
