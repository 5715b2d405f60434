/* warp-checkpoint: asks the engine inside a process for a checkpoint, and waits until the image is durable. */
#include "../base/connection.h"
#include "../base/lz4.h"
#include "../image/encryption.h"
#include "../base/socket_constants.h"
#include "../image/simulated.h"
#include "../image/policies.h"
#include "../program/program.h"

static const char usage[] =
    "usage: warp-checkpoint PID --to DIR [--leave-running] [--self-contained] [--timeout SECONDS]\n"
    "                       [--compression none|lz4] [--compression-level 1-9] [--chunk-size KIB]\n"
    "                       [--encryption-key-file FILE | --encryption-key-env NAME]\n"
    "                       [--engine warp|simengine|pauseengine]\n"
    "                       [--policies FILE] [--log-level error|warn|info|debug] [--stats FILE] [--json-events] [--confirm]\n"
    "       warp-checkpoint --check-policies FILE\n"
    "\n"
    "Writes DIR/core.img with the whole state of process PID, which must run with libwarp.so (warp-tool run).\n"
    "The process then ends with SIGKILL (status 137), or goes on with --leave-running.\n"
    "With --confirm it is held once its image is durable: the line 'end' on standard input ends it, anything else, or no\n"
    "more input, lets it go on.\n"
    "Level 1 of LZ4, the default, is the fast one; higher ones take longer for a smaller image. What is compressed as one,\n"
    "and loaded as one, is a chunk: of 4 to 256 KiB; by default 64, and 256 of more than 1 GiB.\n"
    "With a key (64 hexadecimal digits or base64 of 32 bytes; in a file also 32 bytes as they are) the image is encrypted\n"
    "with AES-256-GCM; the key itself gets into neither the image nor the program.\n"
    "With --engine simengine there is no image and the process goes on; with pauseengine it stands still until\n"
    "'warp-restore DIR --engine pauseengine' lets it go on in place.\n"
    "--policies says what becomes of open files, pipes and sockets (docs/policies.md); --check-policies only reads such a\n"
    "file, and says what is wrong with it.\n"
    "\n"
    "As an engine of older CRaC JDKs (-XX:CREngine): warp-checkpoint checkpoint|restore|restorewait DIR; by a link\n"
    "to it of the name simengine or pauseengine, as these.\n";

struct options {
  uint32_t pid;
  enum engine_kind engine;
  char directory[4200];
  bool leave_running;
  bool self_contained;
  bool confirm;
  uint32_t lz4_level; /* 0: not compressed */
  uint32_t chunk_kib; /* 0: as the engine finds right */
  uint64_t timeout_ms; /* 0: as the engine finds right */
  const char *log_level;
  const char *stats;
  const char *policies; /* content of the file */
  size_t policies_size;
  char policies_file[4200];
  bool json;
  const char *key_file, *key_variable;
  char key_digits[2 * KEY_SIZE + 1]; /* empty: not encrypted */
};

/* ---- output ---- */

static void put_json_string(const char *s, char *to, size_t size) {
  size_t n = 0;
  for (; *s != 0 && n + 8 < size; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') to[n++] = '\\';
    if (c < 0x20) {
      n += format(to + n, size - n, "\\u%04x", c);
    } else {
      to[n++] = (char)c;
    }
  }
  to[n] = 0;
}

static void print(const char *text, ...) __attribute__((format(printf, 1, 2)));
static void print(const char *text, ...) {
  char line[9000];
  va_list arguments;
  va_start(arguments, text);
  size_t n = format_list(line, sizeof line, text, arguments);
  va_end(arguments);
  write_fully(1, line, n);
}

static int failed(const struct options *options, const char *message) {
  if (options->json) {
    char escaped[4096];
    put_json_string(message, escaped, sizeof escaped);
    print("{\"event\":\"error\",\"message\":\"%s\"}\n", escaped);
  } else {
    program_error("%s", message);
  }
  return 2;
}

static int failed_with(const struct options *options, const char *text, ...) __attribute__((format(printf, 2, 3)));
static int failed_with(const struct options *options, const char *text, ...) {
  char message[2048];
  va_list arguments;
  va_start(arguments, text);
  format_list(message, sizeof message, text, arguments);
  va_end(arguments);
  return failed(options, message);
}

/* ---- answers ---- */

static int write_stats(const struct options *options, const char *json) {
  if (options->stats == NULL) return 0;
  long fd = open_file(options->stats, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return failed_with(options, "cannot write %s: %s", options->stats, error_text(fd));
  write_fully((int)fd, json, string_length(json));
  write_fully((int)fd, "\n", 1);
  sys(close, fd);
  return 0;
}

struct outcome {
  bool held, done;
  int status;
  char image[5000]; /* as the engine tells it */
};

static void print_image(const struct options *options, const char *event, const char *at) {
  char escaped[5000];
  const uint64_t bytes = parse_decimal(&at);
  at++;
  const uint64_t generation = parse_decimal(&at);
  at++;
  put_json_string(at, escaped, sizeof escaped);
  if (options->json) print("{\"event\":\"%s\",\"image\":\"%s\",\"bytes\":%lu,\"generation\":%lu}\n", event, escaped, bytes, generation);
}

/* Passes the answer of whoever asked on to the engine. */
static void confirm(int fd) {
  char answer[8];
  const long got = sys(read, 0, answer, sizeof answer);
  const char *const word = got >= 4 && compare_bytes(answer, "end\n", 4) == 0 ? "end\n" : "continue\n";
  sys(sendto, fd, word, string_length(word), MSG_NOSIGNAL_);
}

static void handle_line(const struct options *options, int fd, char *line, struct outcome *outcome) {
  char escaped[5000];
  const char *at = line + 1;
  switch (line[0]) {
    case 'L': {
      char *message = (char *)find_character(line, ' ');
      if (message == NULL) return;
      *message++ = 0;
      if (options->json) {
        put_json_string(message, escaped, sizeof escaped);
        print("{\"event\":\"log\",\"level\":\"%s\",\"message\":\"%s\"}\n", line + 1, escaped);
      } else {
        program_error("%s: %s", line + 1, message);
      }
      return;
    }
    case 'P': {
      uint64_t done = parse_decimal(&at);
      at++;
      uint64_t total = parse_decimal(&at);
      if (options->json) print("{\"event\":\"progress\",\"done\":%lu,\"total\":%lu}\n", done, total);
      return;
    }
    case 'S':
      if (write_stats(options, line + 1) != 0) outcome->status = 2;
      return;
    case 'E':
      outcome->status = failed(options, line + 1);
      outcome->done = true;
      return;
    case 'H':
      format(outcome->image, sizeof outcome->image, "%s", at);
      outcome->held = true;
      print_image(options, "held", at);
      confirm(fd);
      return;
    case 'D':
      print_image(options, "done", at);
      outcome->done = true;
      return;
    default:
      return;
  }
}

static int converse(struct options *options, int fd) {
  static char buffer[16384], policies[4400];
  size_t length = 0;
  policies[0] = 0;
  if (options->policies_size > 0) format(policies, sizeof policies, "policies-file=%s\npolicies-size=%lu\n", options->policies_file, options->policies_size);
  static struct outcome outcome;
  size_t n = format(buffer, sizeof buffer, "directory=%s\nengine=%s\nleave-running=%d\nconfirm=%d\nself-contained=%d\nlz4-level=%u\nchunk-kib=%u\ntimeout-ms=%lu\n%s%s%s%s%s%s%s\n", options->directory, engine_names[options->engine], options->leave_running, options->confirm, options->self_contained, options->lz4_level, options->chunk_kib, options->timeout_ms,
                    options->key_digits[0] == 0 ? "" : "encryption-key=", options->key_digits, options->key_digits[0] == 0 ? "" : "\n",
                    options->log_level == NULL ? "" : "log-level=", options->log_level == NULL ? "" : options->log_level, options->log_level == NULL ? "" : "\n", policies);
  /* An engine that refuses at once may have closed before it is asked: its reason can still be read. */
  bool asked = sys(sendto, fd, buffer, n, MSG_NOSIGNAL_) == (long)n;
  wipe(buffer, n);
  wipe(options->key_digits, sizeof options->key_digits);
  if (asked && options->policies_size > 0) asked = sys(sendto, fd, options->policies, options->policies_size, MSG_NOSIGNAL_) == (long)options->policies_size;
  for (;;) {
    long got = sys(read, fd, buffer + length, sizeof buffer - 1 - length);
    if (got == -EINTR) continue;
    if (got <= 0) break;
    length += (size_t)got;
    buffer[length] = 0;
    char *line = buffer, *end;
    while ((end = (char *)find_character(line, '\n')) != NULL) {
      *end = 0;
      handle_line(options, fd, line, &outcome);
      line = end + 1;
    }
    length -= (size_t)(line - buffer);
    move_bytes(buffer, line, length);
    /* A process that is not left running closes the connection by ending: waiting for that, its pid is free on return. */
    if (outcome.done && (outcome.status != 0 || options->leave_running)) break;
    if (length == sizeof buffer - 1) length = 0;
  }
  if (!outcome.done && outcome.held) {
    /* The held process was ended by somebody else: what was asked for is there. */
    print_image(options, "done", outcome.image);
    return outcome.status;
  }
  if (!outcome.done && !asked) return failed_with(options, "process %u does not answer: see whether it still runs", options->pid);
  if (!outcome.done) return failed_with(options, "process %u ended before its image was complete; nothing was written to %s", options->pid, options->directory);
  return outcome.status;
}

/* An engine gets only rules that can be read. */
static int read_policies(struct options *options, const char *path) {
  static struct arena arena;
  struct policies policies;
  struct failure failure = {.text = ""};
  absolute_path(path, options->policies_file, sizeof options->policies_file);
  if (find_character(options->policies_file, '\n') != NULL) return failed_with(options, "--policies: a file's name cannot hold a newline here");
  policies_init(&policies, &arena);
  options->policies = policies_read(&arena, path, &options->policies_size, &failure);
  if (options->policies == NULL || policies_parse(&policies, options->policies, options->policies_size, path, &failure) < 0) return failed_with(options, "%s", failure.text);
  return 0;
}

static int parse_options(int argc, char **argv, struct options *options) {
  const char *value;
  enum log_level level;
  const char *directory = NULL;
  uint32_t wanted_level = 0;
  bool compressed = false;
  for (int i = 1; i < argc; i++) {
    if (strings_equal(argv[i], "--help") || strings_equal(argv[i], "-h")) {
      print("%s", usage);
      sys(exit_group, 0);
    } else if (strings_equal(argv[i], "--leave-running")) {
      options->leave_running = true;
    } else if (strings_equal(argv[i], "--confirm")) {
      options->confirm = true;
    } else if (strings_equal(argv[i], "--self-contained")) {
      options->self_contained = true;
    } else if (strings_equal(argv[i], "--json-events")) {
      options->json = true;
    } else if (option_with_value(argc, argv, &i, "--to", &value)) {
      directory = value;
    } else if (option_with_value(argc, argv, &i, "--engine", &value)) {
      if (!engine_parse(value, &options->engine)) return failed_with(options, "--engine %s: choose warp, simengine or pauseengine", value);
    } else if (option_with_value(argc, argv, &i, "--check-policies", &value)) {
      const int status = read_policies(options, value);
      if (status == 0) sys(exit_group, 0);
      return status;
    } else if (option_with_value(argc, argv, &i, "--policies", &value)) {
      if (read_policies(options, value) != 0) return 2;
    } else if (option_with_value(argc, argv, &i, "--stats", &value)) {
      options->stats = value;
    } else if (option_with_value(argc, argv, &i, "--timeout", &value)) {
      const char *at = value;
      options->timeout_ms = parse_decimal(&at) * 1000;
      if (*at == '.') {
        uint64_t unit = 100;
        for (at++; *at >= '0' && *at <= '9'; at++, unit /= 10) options->timeout_ms += unit * (uint64_t)(*at - '0');
      }
      if (*at != 0 || at == value || options->timeout_ms == 0) return failed_with(options, "--timeout %s is not a number of seconds above 0", value);
    } else if (option_with_value(argc, argv, &i, "--compression", &value)) {
      compressed = strings_equal(value, "lz4");
      if (!compressed && !strings_equal(value, "none")) return failed_with(options, "--compression %s: choose none or lz4", value);
    } else if (option_with_value(argc, argv, &i, "--compression-level", &value)) {
      if (value[0] < '0' + LZ4_LEVEL_FAST || value[0] > '0' + LZ4_LEVEL_BEST || value[1] != 0) return failed_with(options, "--compression-level %s: choose %d to %d", value, LZ4_LEVEL_FAST, LZ4_LEVEL_BEST);
      wanted_level = (uint32_t)(value[0] - '0');
    } else if (option_with_value(argc, argv, &i, "--chunk-size", &value)) {
      const char *at = value;
      options->chunk_kib = (uint32_t)parse_decimal(&at);
      if (at == value || *at != 0 || options->chunk_kib < 4 || options->chunk_kib > 256 || options->chunk_kib % 4 != 0) return failed_with(options, "--chunk-size %s: choose a multiple of 4 (KiB), from 4 to 256", value);
    } else if (option_with_value(argc, argv, &i, "--encryption-key-file", &value)) {
      options->key_file = value;
    } else if (option_with_value(argc, argv, &i, "--encryption-key-env", &value)) {
      options->key_variable = value;
    } else if (option_with_value(argc, argv, &i, "--log-level", &value)) {
      if (!log_level_parse(value, &level)) return failed_with(options, "--log-level %s: choose error, warn, info or debug", value);
      options->log_level = value;
    } else if (argv[i][0] >= '1' && argv[i][0] <= '9' && options->pid == 0) {
      const char *at = argv[i];
      options->pid = (uint32_t)parse_decimal(&at);
      if (*at != 0) return failed_with(options, "%s is not a process id", argv[i]);
    } else {
      return failed_with(options, "unknown argument %s: see warp-checkpoint --help", argv[i]);
    }
  }
  if (wanted_level != 0 && !compressed) return failed_with(options, "--compression-level has no meaning without --compression lz4: give both");
  if (options->chunk_kib != 0 && !compressed) return failed_with(options, "--chunk-size has no meaning without --compression lz4: give both");
  if (compressed) options->lz4_level = wanted_level == 0 ? LZ4_LEVEL_FAST : wanted_level;
  if (options->pid == 0) return failed_with(options, "name the process to checkpoint by its pid: see warp-checkpoint --help");
  if (directory == NULL || directory[0] == 0) return failed_with(options, "name the directory for the image with --to: see warp-checkpoint --help");
  absolute_path(directory, options->directory, sizeof options->directory);
  if (find_character(options->directory, '\n') != NULL) return failed_with(options, "--to: a directory's name cannot hold a newline here");
  return 0;
}

static int read_key(struct options *options, char **environment) {
  static const char digits[] = "0123456789abcdef";
  struct failure failure = {.text = ""};
  uint8_t key[KEY_SIZE];
  int result = 0;
  if (options->key_file != NULL && options->key_variable != NULL) return failed_with(options, "--encryption-key-file and --encryption-key-env name a key each: give one");
  if (options->key_file == NULL && options->key_variable == NULL) return 0;
  result = options->key_file != NULL ? key_read_file(options->key_file, key, &failure) : key_take_variable(environment, options->key_variable, key, &failure);
  for (size_t i = 0; result == 0 && i < sizeof key; i++) options->key_digits[2 * i] = digits[key[i] >> 4], options->key_digits[2 * i + 1] = digits[key[i] & 15];
  wipe(key, sizeof key);
  return result < 0 ? failed(options, failure.text) : 0;
}

static int take_checkpoint(struct options *given) {
  struct options options = *given;
  wipe(given->key_digits, sizeof given->key_digits);
  struct failure failure = {.text = ""};
  const long fd = engine_connect(options.pid, &failure);
  if (fd < 0) return failed(&options, failure.text);
  return converse(&options, (int)fd);
}

/* ---- as an engine that older CRaC JDKs run: checkpoint|restore|restorewait DIRECTORY, on the process that runs it ---- */

static const char *variable(char **environment, const char *name) {
  size_t length = string_length(name);
  for (; *environment != NULL; environment++)
    if (starts_with(*environment, name) && (*environment)[length] == '=') return *environment + length + 1;
  return NULL;
}

/* Needs nothing in the JVM: what it waits for comes at once, or with a restore. */
static int simulate_parent(const struct options *options, enum engine_kind engine) {
  const struct simulated_text nothing = {.tags = {NULL}};
  struct failure failure = {.text = ""};
  const int result = simulated_write(options->directory, &nothing, engine == ENGINE_PAUSE ? options->pid : 0, &failure);
  if (result < 0 || engine == ENGINE_SIM) queue_restore_signal(options->pid, result);
  return result < 0 ? failed(options, failure.text) : 0;
}

/* The JVM waits for this program's end and then for the signal: so a child does the work, and is nobody's child meanwhile. */
static int checkpoint_parent(const char *directory, enum engine_kind engine, char **environment) {
  static struct options options;
  options.pid = (uint32_t)sys(getppid);
  const char *leave_running = variable(environment, "CRAC_CRIU_LEAVE_RUNNING");
  options.leave_running = leave_running != NULL && leave_running[0] != 0;
  absolute_path(directory, options.directory, sizeof options.directory);
  if (engine != ENGINE_WARP) return simulate_parent(&options, engine);
  long child = sys(clone, 17 /* SIGCHLD */, 0, 0, 0, 0);
  if (child < 0) return failed_with(&options, "cannot start a process: %s", error_text(child));
  if (child > 0) return 0;
  const uint32_t parent = (uint32_t)sys(getppid);
  for (int i = 0; i < 1000 && (uint32_t)sys(getppid) == parent; i++) {
    const struct timespec64 pause = {0, 1000000};
    sys(nanosleep, &pause, NULL);
  }
  int status = take_checkpoint(&options);
  if (status != 0 || options.leave_running) queue_restore_signal(options.pid, status == 0 ? 0 : -1);
  return status;
}

static int restore_as_jvm(const char *directory, enum engine_kind engine, char **environment) {
  char restorer[4200], notify[32];
  const char *data_id = variable(environment, "CRAC_NEW_ARGS_ID");
  if (engine == ENGINE_PAUSE) {
    struct failure failure = {.text = ""};
    const int32_t value = data_id == NULL ? 0 : (int32_t)parse_signed(&data_id);
    return simulated_signal(directory, value, &failure) < 0 ? (program_error("%s", failure.text), 2) : 0;
  }
  if (engine == ENGINE_SIM) {
    program_error("%s: simengine keeps no image: nothing can be restored", directory);
    return 2;
  }
  long n = read_link("/proc/self/exe", restorer, sizeof restorer);
  char *slash = n <= 0 ? NULL : (char *)find_last_character(restorer, '/');
  if (slash == NULL) {
    program_error("cannot tell where this program is: mount procfs");
    return 2;
  }
  format(slash + 1, sizeof restorer - (size_t)(slash + 1 - restorer), "warp-restore");
  format(notify, sizeof notify, "%d:%s", RESTORE_SIGNAL, data_id == NULL || data_id[0] == 0 ? "0" : data_id);
  const char *argv[] = {"warp-restore", directory, "--notify", notify, NULL};
  long error = sys(execve, restorer, argv, environment);
  program_error("cannot run %s: %s", restorer, error_text(error));
  return 2;
}

/* The engine that this program is called as. */
static enum engine_kind called_as(const char *name) {
  enum engine_kind engine = ENGINE_WARP;
  const char *slash = find_last_character(name, '/');
  engine_parse(slash == NULL ? name : slash + 1, &engine);
  return engine;
}

int program_main(int argc, char **argv, char **environment) {
  static struct options options;
  program_log_to_stderr("warp-checkpoint");
  if (argc == 3 && strings_equal(argv[1], "checkpoint")) return checkpoint_parent(argv[2], called_as(argv[0]), environment);
  if (argc == 3 && (strings_equal(argv[1], "restore") || strings_equal(argv[1], "restorewait"))) return restore_as_jvm(argv[2], called_as(argv[0]), environment);
  int status = parse_options(argc, argv, &options);
  if (status == 0) status = read_key(&options, environment);
  return status != 0 ? status : take_checkpoint(&options);
}
