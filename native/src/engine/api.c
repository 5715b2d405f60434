/* The functions of warp.h: a program that checkpoints itself is a client of its own engine. */
#include <linux/un.h>

#include "../../include/warp.h"
#include "../base/lz4.h"
#include "../base/socket_constants.h"
#include "engine.h"

#define PUBLIC __attribute__((visibility("default")))

static char last_error[640];

int engine_fail(const char *text, ...) {
  va_list arguments;
  va_start(arguments, text);
  format_list(last_error, sizeof last_error, text, arguments);
  va_end(arguments);
  return WARP_FAILED;
}

/* Reads the engine's lines until one decides; a restored process finds its connection ended. */
static int wait_for_answer(int fd, uint32_t generation) {
  char text[2048];
  size_t length = 0;
  for (;;) {
    long n = sys(read, fd, text + length, sizeof text - 1 - length);
    if (warp_control.generation != generation) return WARP_RESTORED;
    if (n == -EINTR) continue;
    if (n <= 0) return engine_fail("the engine went away");
    length += (size_t)n;
    text[length] = 0;
    char *line = text, *end;
    while ((end = (char *)find_character(line, '\n')) != NULL) {
      *end = 0;
      if (line[0] == 'E') return engine_fail("%s", line + 1);
      if (line[0] == 'D') return WARP_LEFT_RUNNING;
      line = end + 1;
    }
    length -= (size_t)(line - text);
    move_bytes(text, line, length);
    if (length == sizeof text - 1) length = 0;
  }
}

/* Wipes it. */
static long send_key(int fd, uint8_t key[KEY_SIZE]) {
  static const char digits[] = "0123456789abcdef", name[] = "encryption-key=";
  char line[sizeof name + 2 * KEY_SIZE];
  size_t length = sizeof name - 1;
  copy_bytes(line, name, length);
  for (size_t i = 0; i < KEY_SIZE; i++) line[length++] = digits[key[i] >> 4], line[length++] = digits[key[i] & 15];
  line[length++] = '\n';
  const long sent = sys(sendto, fd, line, length, MSG_NOSIGNAL_);
  wipe(line, sizeof line);
  wipe(key, KEY_SIZE);
  wipe_stack();
  return sent == (long)length ? 0 : -EPIPE;
}

int engine_ask(const char *directory, enum engine_kind engine, bool leave_running, bool self_contained, int lz4_level, uint8_t *key, const char *policies) {
  char path[4200], request[8800], working_directory[4096];
  struct sockaddr_un address;
  struct failure failure = {.text = ""};
  uint8_t own_key[KEY_SIZE];
  const uint32_t generation = warp_control.generation;
  last_error[0] = 0;
  if (directory == NULL || directory[0] == 0) return engine_fail("no directory is named for the image");
  if (directory[0] == '/' || sys(getcwd, working_directory, sizeof working_directory) < 0) {
    format(path, sizeof path, "%s", directory);
  } else {
    format(path, sizeof path, "%s/%s", working_directory, directory);
  }
  if (find_character(path, '\n') != NULL) return engine_fail("%s: a directory's name cannot hold a newline here", path);
  if (key == NULL && engine == ENGINE_WARP && engine_key_file[0] != 0) {
    if (key_read_file(engine_key_file, own_key, &failure) < 0) return engine_fail("%s", failure.text);
    key = own_key;
  }
  long fd = sys(socket, AF_UNIX_, SOCK_STREAM_ | SOCK_CLOEXEC_, 0);
  if (fd < 0) wipe(own_key, sizeof own_key);
  if (fd < 0) return engine_fail("cannot reach the engine: %s", error_text(fd));
  size_t size = engine_socket_address(&address);
  long error = sys(connect, fd, &address, size);
  /* The engine begins with the empty line: by then the key is in no memory of this thread. */
  if (key != NULL && error == 0) error = send_key((int)fd, key);
  size_t length = format(request, sizeof request, "directory=%s\nengine=%s\nleave-running=%d\nself-contained=%d\nlz4-level=%d\npolicies-file=%s\n\n", path, engine_names[engine], leave_running, self_contained, lz4_level, policies == NULL ? "" : policies);
  if (error == 0 && sys(sendto, fd, request, length, MSG_NOSIGNAL_) != (long)length) error = -EPIPE;
  wipe(own_key, sizeof own_key);
  const int result = error < 0 ? engine_fail("cannot reach the engine: %s", error_text(error)) : wait_for_answer((int)fd, generation);
  sys(close, fd);
  return result;
}

PUBLIC enum warp_result warp_checkpoint(const char *directory, unsigned flags) {
  return (enum warp_result)engine_ask(directory, ENGINE_WARP, (flags & WARP_LEAVE_RUNNING) != 0, (flags & WARP_SELF_CONTAINED) != 0, (flags & WARP_COMPRESS_LZ4) != 0 ? LZ4_LEVEL_FAST : 0, NULL, NULL);
}

PUBLIC const char *warp_error(void) { return last_error; }

PUBLIC unsigned warp_generation(void) { return warp_control.generation; }
