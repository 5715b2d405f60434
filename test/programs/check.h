/*
 * Shared by every test program: the protocol towards the harness, and checked calls.
 *
 * A program defines set_up(), verify() and after_restore(); this header defines main(). It prints `ready`, then `tick N` about every
 * 20 ms, and calls verify() at each tick. A restored process has another stdout (the restoring caller's) or another pid: on noticing
 * that it runs after_restore() once, which also arms the feature for the next checkpoint, and prints `restored ok`. Anything wrong
 * prints `FAIL reason` and exits with 1.
 *
 * Arguments: a scratch directory, then optionally `self-test`: run the same checks with no checkpoint, three rounds, and exit with 0.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void set_up(void);
static void verify(void);
static void after_restore(void);

static const char *scratch; /* directory for the program's files */
static bool self_test;      /* no checkpoint happens: checks run without one */
static char **arguments;    /* argv of main */

static inline void print_line(const char *format, ...) {
  char line[1024];
  va_list list;
  va_start(list, format);
  int length = vsnprintf(line, sizeof line - 1, format, list);
  va_end(list);
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  for (int done = 0; done < length;) {
    ssize_t n = write(1, line + done, length - done);
    if (n < 0 && errno != EINTR && errno != EAGAIN) _exit(3);
    if (n > 0) done += n;
  }
}

#define FAIL(format, ...)                                                               \
  do {                                                                                  \
    print_line("FAIL %s:%d: " format, __FILE__, __LINE__ __VA_OPT__(, ) __VA_ARGS__);   \
    _exit(1);                                                                           \
  } while (0)

/* CHECK(condition) or CHECK(condition, format, values...). */
#define CHECK(condition, ...)                                                           \
  do {                                                                                  \
    if (!(condition)) {                                                                 \
      char detail_[512] = "";                                                           \
      __VA_OPT__(snprintf(detail_, sizeof detail_, ": " __VA_ARGS__);)                  \
      FAIL("%s%s", #condition, detail_);                                                \
    }                                                                                   \
  } while (0)

/* The value of a call that reports errors by -1 and errno. */
#define SYS(call)                                                                       \
  ({                                                                                    \
    long value_ = (long)(call);                                                         \
    if (value_ == -1) FAIL("%s: errno %d (%s)", #call, errno, strerror(errno));         \
    value_;                                                                             \
  })

/* A call that returns an error number. */
#define PTHREAD(call)                                                                   \
  do {                                                                                  \
    int error_ = (call);                                                                \
    if (error_) FAIL("%s: %d (%s)", #call, error_, strerror(error_));                   \
  } while (0)

static inline int64_t now_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static inline void sleep_ms(long milliseconds) {
  struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  while (nanosleep(&left, &left) && errno == EINTR) {
  }
}

/* Waits until the condition holds; a minute without it is a failure. */
#define WAIT_UNTIL(condition)                                                           \
  do {                                                                                  \
    int64_t limit_ = now_ns(CLOCK_MONOTONIC) + 60000000000ll;                           \
    while (!(condition)) {                                                              \
      if (now_ns(CLOCK_MONOTONIC) > limit_) FAIL("waited a minute for %s", #condition); \
      sleep_ms(1);                                                                      \
    }                                                                                   \
  } while (0)

static inline pthread_t start_thread(void *(*function)(void *), void *argument) {
  pthread_t thread;
  PTHREAD(pthread_create(&thread, NULL, function, argument));
  return thread;
}

static inline void wait_semaphore(sem_t *semaphore) {
  while (sem_wait(semaphore))
    if (errno != EINTR) FAIL("sem_wait: errno %d", errno);
}

/* A path in the scratch directory; the result stays valid for the next 15 calls of the thread. */
static inline const char *scratch_path(const char *name) {
  static _Thread_local char paths[16][PATH_MAX];
  static _Thread_local int next;
  char *path = paths[next++ % 16];
  snprintf(path, PATH_MAX, "%s/%s", scratch, name);
  return path;
}

/* Fills and compares memory with a pattern that depends on the seed and on the position. */
static inline uint64_t pattern(uint64_t seed, size_t i) {
  uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;
  return x ^ x >> 29;
}

static inline void fill(void *memory, size_t size, uint64_t seed) {
  for (size_t i = 0; i < size / 8; i++) ((volatile uint64_t *)memory)[i] = pattern(seed, i);
}

static inline bool is_filled(const void *memory, size_t size, uint64_t seed) {
  for (size_t i = 0; i < size / 8; i++)
    if (((const volatile uint64_t *)memory)[i] != pattern(seed, i)) return false;
  return true;
}

static inline bool is_zero(const void *memory, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (((const volatile char *)memory)[i]) return false;
  return true;
}

static inline void *map_memory(size_t size, int protection, int flags) {
  void *memory = mmap(NULL, size, protection, flags, -1, 0);
  if (memory == MAP_FAILED) FAIL("mmap of %zu bytes: errno %d", size, errno);
  return memory;
}

/* Reads a whole small file (of /proc too) into buffer as a string; returns its length. */
static inline size_t read_file(const char *path, char *buffer, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) FAIL("open %s: errno %d", path, errno);
  size_t length = 0;
  ssize_t n;
  while (length < size - 1 && (n = read(fd, buffer + length, size - 1 - length)) > 0) length += n;
  close(fd);
  buffer[length] = 0;
  return length;
}

/*
 * A hexadecimal or decimal field of the calling thread's status, for example "SigPnd:". No program reads about another thread by its
 * id: ids change at a restore, and that can happen between any two instructions.
 */
static inline uint64_t status_field(const char *name, int base) {
  char text[8192];
  read_file("/proc/thread-self/status", text, sizeof text);
  char *line = strstr(text, name);
  if (!line) FAIL("no %s in /proc/thread-self/status", name);
  return strtoull(line + strlen(name), NULL, base);
}

/* Runs function in a forked child and checks that it ends with status 0. */
#define IN_CHILD(statements)                                                            \
  do {                                                                                  \
    pid_t child_ = SYS(fork());                                                         \
    if (child_ == 0) {                                                                  \
      statements;                                                                       \
      _exit(0);                                                                         \
    }                                                                                   \
    int status_;                                                                        \
    while (waitpid(child_, &status_, 0) < 0)                                            \
      if (errno != EINTR) FAIL("waitpid: errno %d", errno);                             \
    if (status_ != 0) FAIL("child ended with wait status 0x%x", status_);               \
  } while (0)

static struct {
  pid_t pid;
  dev_t device;
  ino_t inode;
} identity_;

/* True once after each restore. */
static inline bool was_restored(void) {
  struct stat st;
  pid_t pid = getpid();
  if (fstat(1, &st)) _exit(3);
  bool changed = pid != identity_.pid || st.st_dev != identity_.device || st.st_ino != identity_.inode;
  identity_.pid = pid;
  identity_.device = st.st_dev;
  identity_.inode = st.st_ino;
  return changed;
}

/* The main loop; for programs whose leader ends it is the body of another thread. */
static inline void *tick_forever(void *unused) {
  (void)unused;
  for (unsigned long n = 0;; n++) {
    print_line("tick %lu", n);
    sleep_ms(20);
    if (was_restored() || (self_test && n % 4 == 3)) {
      verify();
      after_restore();
      print_line("restored ok");
    }
    verify();
    if (self_test && n == 12) {
      print_line("self-test ok");
      _exit(0);
    }
  }
  return NULL;
}

static inline void begin(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s SCRATCH-DIRECTORY [self-test]\n", argv[0]);
    _exit(2);
  }
  arguments = argv;
  scratch = argv[1];
  self_test = argc > 2 && !strcmp(argv[2], "self-test");
  was_restored();
}

#ifndef CHECK_OWN_MAIN
int main(int argc, char **argv) {
  begin(argc, argv);
  set_up();
  print_line("ready");
  tick_forever(NULL);
}
#endif
#endif
