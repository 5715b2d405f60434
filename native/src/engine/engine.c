/*
 * The engine's life inside a program: one helper thread, started when the library is loaded, that nobody notices. It has a
 * descriptor table of its own (clone without CLONE_FILES), blocks every signal, uses no C library, and waits on an abstract
 * Unix socket for the command to checkpoint.
 */
#include <linux/close_range.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#include "../base/connection.h"
#include "../base/socket_constants.h"
#include "java.h"
#include "javascript.h"
#include "loading.h"


HIDDEN struct warp_control warp_control = {
    .magic = WARP_CONTROL_MAGIC,
    .version = WARP_CONTROL_VERSION,
    .size = sizeof(struct warp_control),
    .stats_fd = -1,
};

HIDDEN uint32_t helper_tid;
static long engine_pid; /* of the program, also in a child that writes its image */
HIDDEN struct freeze engine_freeze;
HIDDEN uint8_t helper_stack[HELPER_STACK_SIZE] __attribute__((aligned(4096)));
static uint32_t helper_ready;
static int listener = -1;
static int log_client = -1;
static char log_file[4096];

extern HIDDEN const char __ehdr_start[];
extern HIDDEN const char _end[];
uint64_t engine_start(void) { return (uint64_t)__ehdr_start; }
uint64_t engine_end(void) { return round_up((uint64_t)_end, PAGE_SIZE); }

/* glibc has this symbol, musl does not. */
extern __attribute__((weak)) const char *gnu_get_libc_version(void);
extern __attribute__((weak)) int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *);
extern __attribute__((weak)) int pthread_atfork(void (*)(void), void (*)(void), void (*)(void));
bool engine_on_glibc(void) { return gnu_get_libc_version != NULL; }

/* ---- log ---- */

/* A stopped thread that works for the helper cannot reach the helper's descriptors: its lines wait here. */
static char waiting_lines[64 * 1024];
static size_t waiting_size;

void engine_log_flush(void) {
  if (waiting_size > 0 && log_client >= 0) sys(sendto, log_client, waiting_lines, waiting_size, MSG_NOSIGNAL_);
  waiting_size = 0;
}

static void engine_log(enum log_level level, const char *line, size_t length) {
  if (log_client >= 0) {
    char framed[1100];
    size_t n = format(framed, sizeof framed, "L%s %.*s\n", log_level_name(level), (int)length, line);
    if ((uint32_t)sys(gettid) == helper_tid) {
      sys(sendto, log_client, framed, n, MSG_NOSIGNAL_);
    } else if (waiting_size + n <= sizeof waiting_lines) {
      copy_bytes(waiting_lines + waiting_size, framed, n);
      waiting_size += n;
    }
  }
  if (log_file[0] != 0) {
    long fd = open_file(log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    char stamped[1100];
    uint64_t now = clock_ns(CLOCK_REALTIME_);
    size_t n = format(stamped, sizeof stamped, "%lu.%06lu warp-engine %ld %s: %.*s\n", now / 1000000000, now / 1000 % 1000000, sys(getpid), log_level_name(level), (int)length, line);
    sys(write, fd, stamped, n);
    sys(close, fd);
  }
}

bool generic_processor;
bool collects_garbage = true;
char engine_key_file[4096];

static void read_environment(void) {
  struct arena scratch = {NULL};
  size_t size = 0;
  long error;
  const char *environment = read_whole_file(&scratch, "/proc/self/environ", &size, &error);
  if (environment == NULL) return;
  for (const char *entry = environment; entry < environment + size; entry += string_length(entry) + 1) {
    if (starts_with(entry, "WARP_LOG_LEVEL=")) log_level_parse(entry + 15, &log_level);
    if (strings_equal(entry, "WARP_CPU_FEATURES=generic")) generic_processor = true;
    if (strings_equal(entry, "WARP_GC=false")) collects_garbage = false;
    if (starts_with(entry, "WARP_LOG_FILE=")) format(log_file, sizeof log_file, "%s", entry + 14);
    if (starts_with(entry, "WARP_POLICIES=") && entry[14] != 0) policies_remember(entry + 14);
    if (starts_with(entry, "WARP_ENCRYPTION_KEY_FILE=")) format(engine_key_file, sizeof engine_key_file, "%s", entry + 25);
  }
  arena_release(&scratch);
}

/* ---- clients ---- */

struct peer_credentials {
  int32_t pid;
  uint32_t uid;
  uint32_t gid;
};

static bool client_credentials(int client, struct peer_credentials *peer) {
  uint32_t size = sizeof *peer;
  if (sys(getsockopt, client, SOL_SOCKET_, SO_PEERCRED_, peer, &size) < 0) return false;
  return peer->uid == 0 || peer->uid == (uint32_t)sys(geteuid);
}

bool client_allowed(int client) {
  struct peer_credentials peer;
  return client_credentials(client, &peer);
}

static void send_line(int client, const char *line, size_t length) { sys(sendto, client, line, length, MSG_NOSIGNAL_); }

void client_send(const struct request *request, const char *text, ...) {
  if (request->client < 0) return;
  char line[5000];
  va_list arguments;
  va_start(arguments, text);
  size_t n = format_list(line, sizeof line - 1, text, arguments);
  va_end(arguments);
  line[n++] = '\n';
  send_line(request->client, line, n);
}

bool client_waits(const struct request *request) {
  if (request->client == NOBODY) return true;
  struct pollfd polled[2] = {{.fd = listener, .events = POLLIN}, {.fd = request->client, .events = POLLRDHUP}};
  if (sys(poll, polled, 2, 0) <= 0) return true;
  if ((polled[0].revents & POLLIN) != 0) {
    long other = sys(accept4, listener, 0, 0, SOCK_CLOEXEC_);
    if (other >= 0) {
      char line[160];
      size_t n = format(line, sizeof line, "Eprocess %ld is being checkpointed already: wait until that ends\n", engine_pid);
      send_line((int)other, line, n);
      sys(close, other);
    }
  }
  return (polled[1].revents & (POLLHUP | POLLRDHUP | POLLERR)) == 0;
}

bool client_confirms(const struct request *request) {
  static const char end[] = "end\n";
  char answer[sizeof end];
  struct pollfd polled = {.fd = request->client, .events = POLLIN};
  while (client_waits(request)) {
    if (sys(poll, &polled, 1, 500) <= 0) continue;
    return sys(read, request->client, answer, sizeof answer) == sizeof end - 1 && compare_bytes(answer, end, sizeof end - 1) == 0;
  }
  return false;
}

static long read_waiting(int client, char *to, size_t size) {
  struct pollfd polled = {.fd = client, .events = POLLIN};
  return sys(poll, &polled, 1, 5000) <= 0 ? -1 : sys(read, client, to, size);
}

/* Reads "key=value" lines up to an empty one; *ret_size is all that has come, which may be more. */
static bool read_request(int client, char *text, size_t size, size_t *ret_size) {
  for (*ret_size = 0; *ret_size + 1 < size;) {
    long n = read_waiting(client, text + *ret_size, size - 1 - *ret_size);
    if (n <= 0) return false;
    *ret_size += (size_t)n;
    text[*ret_size] = 0;
    if (find_string(text, "\n\n") != NULL) return true;
  }
  return false;
}

bool client_read(int client, char *text, size_t size) {
  size_t read;
  return read_request(client, text, size, &read);
}

/* The text of the policies follows the lines; `have` bytes of it have come. */
static bool read_policies(struct request *request, const char *have, size_t have_size) {
  static char policies[POLICIES_LARGEST];
  if (request->policies_size > sizeof policies) return false;
  size_t length = min_u64(have_size, request->policies_size);
  copy_bytes(policies, have, length);
  while (length < request->policies_size) {
    long n = read_waiting(request->client, policies + length, request->policies_size - length);
    if (n <= 0) return false;
    length += (size_t)n;
  }
  request->policies = policies;
  return true;
}

static void parse_request(char *text, struct request *request, enum log_level *level) {
  for (char *line = text; *line != 0 && *line != '\n';) {
    char *end = (char *)find_character(line, '\n');
    *end = 0;
    const char *value = find_character(line, '=');
    value = value == NULL ? "" : value + 1;
    if (starts_with(line, "directory=")) format(request->directory, sizeof request->directory, "%s", value);
    if (starts_with(line, "leave-running=")) request->leave_running = *value == '1';
    if (starts_with(line, "confirm=")) request->confirm = *value == '1';
    if (starts_with(line, "self-contained=")) request->self_contained = *value == '1';
    if (starts_with(line, "engine=")) engine_parse(value, &request->engine);
    if (starts_with(line, "chunk-kib=")) request->chunk_kib = (uint32_t)parse_decimal(&value);
    if (starts_with(line, "lz4-level=")) request->lz4_level = (uint32_t)parse_decimal(&value);
    if (starts_with(line, "encryption-key=")) request->key_digits = (char *)value;
    if (starts_with(line, "timeout-ms=") && *value != '0') request->timeout_ms = request->hooks_timeout_ms = parse_decimal(&value);
    if (starts_with(line, "log-level=")) log_level_parse(value, level);
    if (starts_with(line, "policies-size=")) request->policies_size = parse_decimal(&value);
    if (starts_with(line, "policies-file=")) format(request->policies_file, sizeof request->policies_file, "%s", value);
    line = end + 1;
  }
}

/*
 * A program that has given up root or changed its user with setuid(2) has done so for the threads that the C library knows: the
 * helper follows, so that images belong to the program's user.
 */
static void follow_user(void) {
  char status[8192];
  uint32_t user[3], group[3];
  if (read_small_file("/proc/self/status", status, sizeof status) <= 0) return;
  const char *uid = find_string(status, "\nUid:\t"), *gid = find_string(status, "\nGid:\t");
  if (uid == NULL || gid == NULL) return;
  uid += 6, gid += 6;
  for (int i = 0; i < 3; i++) {
    user[i] = (uint32_t)parse_decimal(&uid);
    group[i] = (uint32_t)parse_decimal(&gid);
    uid++, gid++;
  }
  uint32_t own[3];
  sys(getresuid, &own[0], &own[1], &own[2]);
  if (compare_bytes(own, user, sizeof own) == 0) return;
  if (own[1] == 0) sys(setgroups, 0, NULL);
  sys(setresgid, group[0], group[1], group[2]);
  sys(setresuid, user[0], user[1], user[2]);
}

static void serve(int client) {
  static char text[3 * 4096];
  struct request request = {.timeout_ms = 10000, .hooks_timeout_ms = 60000, .client = client};
  struct peer_credentials peer;
  follow_user();
  if (!client_credentials(client, &peer)) {
    client_send(&request, "Eprocess %ld belongs to user %ld and takes no commands from user %u", sys(getpid), sys(geteuid), peer.uid);
    return;
  }
  size_t size;
  if (!read_request(client, text, sizeof text, &size)) {
    wipe(text, sizeof text);
    return;
  }
  if (starts_with(text, "resume\n")) {
    client_send(&request, "Eprocess %ld is not paused: it goes on already", sys(getpid));
    return;
  }
  enum log_level usual = log_level;
  const char *body = find_string(text, "\n\n") + 2;
  parse_request(text, &request, &log_level);
  if (!read_policies(&request, body, size - (size_t)(body - text))) {
    wipe(text, sizeof text);
    log_level = usual;
    return;
  }
  log_client = client;
  log_info("checkpoint of process %ld asked for by process %d", sys(getpid), peer.pid);
  struct failure failure = {.text = ""};
  /* A program that asks for itself is ready. */
  request.from_program = peer.pid == sys(getpid);
  const bool ready = request.from_program || java_before_checkpoint(&request, &failure) == 0;
  const int listening = request.engine == ENGINE_PAUSE ? listener : -1;
  if (!ready || (request.engine == ENGINE_WARP ? checkpoint(&request, &failure) : simulate(&request, listening, &failure)) < 0) {
    log_info("checkpoint failed: %s", failure.text);
    client_send(&request, "E%s", failure.text);
    java_go_on(JAVA_FAILED);
  }
  wipe(text, sizeof text);
  log_client = -1;
  log_level = usual;
}

/* ---- the helper thread ---- */

size_t engine_socket_address(struct sockaddr_un *ret) { return engine_address(read_pid_namespace("/proc/self/ns/pid"), (uint32_t)sys(getpid), ret); }

static long open_listener(void) {
  struct sockaddr_un address;
  size_t size = engine_socket_address(&address);
  long fd = sys(socket, AF_UNIX_, SOCK_STREAM_ | SOCK_CLOEXEC_, 0);
  if (fd < 0) return fd;
  long error = sys(bind, fd, &address, size);
  if (error == 0) error = sys(listen, fd, 8);
  if (error < 0) {
    sys(close, fd);
    return error;
  }
  return fd;
}

static void close_between(uint32_t first, uint32_t last) {
  if (first > last || sys(close_range, first, last, 0) == 0) return;
  for (uint32_t fd = first; fd <= last && fd < 65536; fd++) sys(close, fd);
}

/* All but what the restorer has left for the loading, and for --stats. */
static void close_inherited(void) {
  const struct warp_loading *loading = warp_control.loading;
  int kept[5] = {warp_control.stats_fd, -1, -1, -1, -1};
  if (loading != NULL) kept[1] = loading->image_fd, kept[2] = loading->memory_fd, kept[3] = loading->trace_fd, kept[4] = loading->error_fd;
  for (uint32_t first = 0;;) {
    uint32_t next = ~0u;
    for (int i = 0; i < 5; i++)
      if (kept[i] >= 0 && (uint32_t)kept[i] >= first && (uint32_t)kept[i] < next) next = (uint32_t)kept[i];
    close_between(first, next == ~0u ? next : next - 1);
    if (next == ~0u) return;
    first = next + 1;
  }
}

static void helper_serve(void) {
  for (;;) {
    long client = sys(accept4, listener, 0, 0, SOCK_CLOEXEC_);
    if (client == -EINTR || client == -ECONNABORTED) continue;
    if (client < 0) sys(exit, 0);
    serve((int)client);
    sys(close, client);
  }
}

static void helper_begin(void) {
  helper_tid = (uint32_t)sys(gettid);
  engine_pid = sys(getpid);
  sys(prctl, PR_SET_NAME, "warp-engine");
  close_inherited();
  log_sink = engine_log;
  threads_begin();
  listener = (int)open_listener();
  if (listener < 0) log_error("this process cannot be checkpointed: its command socket cannot be opened: %s", error_text(listener));
}

static void helper_main(void *argument) {
  (void)argument;
  read_environment();
  helper_begin();
  log_debug("engine " ENGINE_VERSION " ready in process %ld, at 0x%lx", sys(getpid), engine_start());
  __atomic_store_n(&helper_ready, 1, __ATOMIC_RELEASE);
  futex_wake(&helper_ready, 1);
  helper_serve();
}

/* The C library's list of variables, where programs and getenv(3) look. */
extern __attribute__((weak)) char **environ;

static bool same_name(const char *a, const char *b) {
  while (*a != 0 && *a != '=' && *a == *b) a++, b++;
  return *a == '=' && *b == '=';
}

/* Variables that the restore was asked to set: in a new list, for the old one has no room. */
void engine_apply_environment(void) {
  if (warp_control.environment_size == 0) return;
  if (&environ == NULL) {
    log_warn("the program has no environ: the variables given to the restore are not set");
    return;
  }
  size_t old_count = 0, added = 0;
  for (;; old_count++) {
    loading_ensure((uint64_t)(environ + old_count), sizeof *environ);
    if (environ == NULL || environ[old_count] == NULL) break;
    loading_ensure((uint64_t)environ[old_count], PAGE_SIZE);
  }
  for (uint32_t i = 0; i < warp_control.environment_size; i++) added += warp_control.environment[i] == 0;
  char **list = engine_memory((old_count + added + 1) * sizeof *list + warp_control.environment_size);
  if (list == NULL) return;
  char *strings = (char *)(list + old_count + added + 1);
  size_t count = 0;
  copy_bytes(strings, warp_control.environment, warp_control.environment_size);
  for (; count < old_count; count++) list[count] = environ[count];
  for (char *variable = strings; variable < strings + warp_control.environment_size; variable += string_length(variable) + 1) {
    size_t at = 0;
    while (at < count && !same_name(variable, list[at])) at++;
    list[at] = variable;
    count += at == count;
  }
  list[count] = NULL;
  environ = list;
  log_debug("%lu environment variables set", added);
}

static void unmap_bootstrap(void) {
  if (warp_control.bootstrap_size > 0) sys(munmap, warp_control.bootstrap_address, warp_control.bootstrap_size);
  warp_control.bootstrap_size = 0;
}

static void finish_stats(void) {
  if (warp_control.stats_fd < 0) return;
  char text[96];
  const uint64_t total_us = (clock_ns(CLOCK_MONOTONIC_) - warp_control.stats_begin_ns) / 1000;
  write_fully(warp_control.stats_fd, text, format(text, sizeof text, "\"engine_us\":%lu,\"total_us\":%lu}\n", total_us - warp_control.stats_us, total_us));
  sys(close, warp_control.stats_fd);
  warp_control.stats_fd = -1;
}

static bool client_knocks(void) {
  struct pollfd polled = {.fd = listener, .events = POLLIN};
  return sys(poll, &polled, 1, 0) > 0;
}

void engine_helper_restored(void *argument) {
  (void)argument;
  const long old_pid = engine_pid;
  log_client = -1;
  /* Names and descriptors first: a socket under the new id. */
  helper_begin();
  uint32_t arrived;
  while ((arrived = __atomic_load_n(&warp_control.threads_arrived, __ATOMIC_ACQUIRE)) < warp_control.threads_expected) futex_wait(&warp_control.threads_arrived, arrived, &(struct timespec64){0, 1000000});
  release_take_overlays();
  if (warp_control.direct_mapped != 0) release_redirect(&engine_freeze);
  freeze_forget(&engine_freeze);
  bool loads = loading_begin();
  if (!loads) unmap_bootstrap();
  engine_apply_environment();
  java_restored(old_pid);
  javascript_go_on(true);
  finish_stats();
  log_debug("process %ld restored: generation %u, %u threads", sys(getpid), warp_control.generation, warp_control.threads_expected);
  __atomic_store_n(&warp_control.release, 1, __ATOMIC_RELEASE);
  futex_wake(&warp_control.release, 0x7fffffff);
  if (loads) {
    loading_run();
    unmap_bootstrap();
  } else if (warp_control.direct_mapped != 0) {
    prefetch_mapped(client_knocks);
  }
  helper_serve();
}

void engine_start_helper(void) {
  const uint64_t all = ~0ul;
  uint64_t mask = 0;
  helper_ready = 0;
  /* A new thread inherits the signal mask. */
  sys(rt_sigprocmask, 2 /* SIG_SETMASK */, &all, &mask, sizeof mask);
  long tid = arch_clone(CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, helper_stack + HELPER_STACK_SIZE, NULL, NULL, 0, helper_main, NULL);
  sys(rt_sigprocmask, 2, &mask, NULL, sizeof mask);
  if (tid < 0) return;
  /* Until its copies of the program's descriptors are closed, a pipe's end would stay open behind the program's back. */
  while (__atomic_load_n(&helper_ready, __ATOMIC_ACQUIRE) == 0) futex_wait(&helper_ready, 0, NULL);
}

static uint32_t forking_thread;
static void before_fork(void) { forking_thread = (uint32_t)sys(gettid); }

static void after_fork_in_child(void) {
  loading_forked(forking_thread);
  java_forked();
  javascript_forked();
  engine_start_helper();
}

static __attribute__((constructor)) void engine_load(void) {
  engine_start_helper();
  if (__register_atfork != NULL) {
    __register_atfork(before_fork, NULL, after_fork_in_child, NULL);
  } else if (pthread_atfork != NULL) {
    pthread_atfork(before_fork, NULL, after_fork_in_child);
  }
}
