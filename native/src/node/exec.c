/*
 * Node-API addon: becomes another program, cleanly. Node.js 20 has no execve, and later ones leave SIGPIPE and SIGXFSZ ignored;
 * what a program inherits here would end up in its image.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "napi.h"

static char *string_value(napi_env env, napi_value value) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != 0) return NULL;
  char *text = malloc(length + 1);
  if (text != NULL) napi_get_value_string_utf8(env, value, text, length + 1, &length);
  return text;
}

static void free_strings(char **strings) {
  if (strings == NULL) return;
  for (size_t i = 0; strings[i] != NULL; i++) free(strings[i]);
  free(strings);
}

static char **string_array(napi_env env, napi_value array) {
  uint32_t count;
  if (napi_get_array_length(env, array, &count) != 0) return NULL;
  char **strings = calloc((size_t)count + 1, sizeof *strings);
  for (uint32_t i = 0; strings != NULL && i < count; i++) {
    napi_value element;
    if (napi_get_element(env, array, i, &element) != 0 || (strings[i] = string_value(env, element)) == NULL) {
      free_strings(strings);
      return NULL;
    }
  }
  return strings;
}

/* "NAME=VALUE" strings from an object. */
static char **environment_array(napi_env env, napi_value object) {
  napi_value names;
  uint32_t count;
  if (napi_get_property_names(env, object, &names) != 0 || napi_get_array_length(env, names, &count) != 0) return NULL;
  char **strings = calloc((size_t)count + 1, sizeof *strings);
  for (uint32_t i = 0; strings != NULL && i < count; i++) {
    napi_value name, value;
    char *left = NULL, *right = NULL;
    if (napi_get_element(env, names, i, &name) == 0 && napi_get_property(env, object, name, &value) == 0) {
      left = string_value(env, name);
      right = string_value(env, value);
    }
    if (left != NULL && right != NULL && (strings[i] = malloc(strlen(left) + strlen(right) + 2)) != NULL) {
      strcpy(strings[i], left);
      strcat(strings[i], "=");
      strcat(strings[i], right);
    }
    free(left);
    free(right);
    if (strings[i] == NULL) {
      free_strings(strings);
      return NULL;
    }
  }
  return strings;
}

/* The kernel's own call: the C library hides the signals it uses itself. */
static void default_signals(void) {
  struct {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
  } action = {NULL, 0, NULL, 0};
  for (int number = 1; number <= 64; number++) syscall(SYS_rt_sigaction, number, &action, NULL, sizeof action.mask);
  const uint64_t none = 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/*
 * Pipes and sockets that the runtime's own parent has left open by mistake would reach the program, and could not be kept in
 * its image. Files stay, as with any command; so does what is named in `keep`, although the runtime marks what it inherits.
 */
static void close_leftovers(napi_env env, napi_value keep) {
  uint32_t keep_count = 0;
  napi_get_array_length(env, keep, &keep_count);
  DIR *directory = opendir("/proc/self/fd");
  if (directory == NULL) return;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    int fd = atoi(entry->d_name);
    struct stat status;
    bool kept = fd < 3;
    for (uint32_t i = 0; i < keep_count && !kept; i++) {
      napi_value element;
      int32_t number = -1;
      if (napi_get_element(env, keep, i, &element) == 0 && napi_get_value_int32(env, element, &number) == 0) kept = number == fd;
    }
    if (kept && fd >= 3) fcntl(fd, F_SETFD, 0);
    if (!kept && fstat(fd, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode))) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  closedir(directory);
}

static napi_value throw_error(napi_env env, int error) {
  const char *code = error == ENOENT ? "ENOENT" : error == EACCES ? "EACCES" : error == ENOEXEC ? "ENOEXEC" : error == E2BIG ? "E2BIG" : error == EINVAL ? "EINVAL" : error == ENOMEM ? "ENOMEM" : "EIO";
  napi_throw_error(env, code, strerror(error));
  return NULL;
}

/* exec(file, arguments, environment, keep): replaces the process; throws an Error with `code` when the kernel refuses. */
static napi_value exec(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != 0 || count < 4) return throw_error(env, EINVAL);
  char *file = string_value(env, arguments[0]);
  char **argv = string_array(env, arguments[1]);
  char **environment = environment_array(env, arguments[2]);
  int error = file == NULL || argv == NULL || environment == NULL ? EINVAL : 0;
  /* Checked first: after the signals are reset, the runtime could not go on as before. */
  if (error == 0 && access(file, X_OK) != 0) error = errno;
  if (error == 0) {
    /* libuv makes terminals and pipes non-blocking, for everybody who shares them, and closes all three at an exec. */
    for (int fd = 0; fd < 3; fd++) {
      int flags = fcntl(fd, F_GETFL);
      fcntl(fd, F_SETFD, 0);
      if (flags >= 0 && (flags & O_NONBLOCK) != 0) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    }
    close_leftovers(env, arguments[3]);
    default_signals();
    execve(file, argv, environment);
    error = errno;
  }
  free(file);
  free_strings(argv);
  free_strings(environment);
  return throw_error(env, error);
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  napi_value function;
  if (napi_create_function(env, "exec", 4, exec, NULL, &function) != 0) return NULL;
  napi_set_named_property(env, exports, "exec", function);
  return exports;
}
