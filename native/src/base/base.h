/*
 * The runtime under the engine. The engine runs inside other programs while their threads are parked with any lock held,
 * and before or after there is a C library: so nothing here calls one, allocates from its heap, or touches its thread-local
 * storage. Functions that can fail return a negated errno unless they say otherwise.
 */
#ifndef WARP_BASE_H
#define WARP_BASE_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/stat.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../arch/x86_64/arch.h"
#include "xxh64.h"

#define HIDDEN __attribute__((visibility("hidden")))

#define PAGE_SIZE ARCH_PAGE_SIZE
#define KIB 1024ul
#define MIB (1024 * KIB)

/* sys(name, arguments…): the system call of that name. */
#define SYS_SEVEN(name, a, b, c, d, e, f, ...) arch_syscall(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* How many this program has made, where it is built to count them. */
extern HIDDEN uint64_t system_calls;
#ifdef COUNT_SYSTEM_CALLS
#define sys(...) (__atomic_fetch_add(&system_calls, 1, __ATOMIC_RELAXED), SYS_SEVEN(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0))
#else
#define sys(...) SYS_SEVEN(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#endif

static inline uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
static inline uint64_t round_down(uint64_t value, uint64_t unit) { return value / unit * unit; }
static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* ---- bytes and strings ---- */
void copy_bytes(void *to, const void *from, size_t size);
/* As copy_bytes, for areas that may overlap. */
void move_bytes(void *to, const void *from, size_t size);
void fill_bytes(void *to, int value, size_t size);
/* Of secrets that are not needed any more. No compiler leaves it out: it is an instruction of ours (arch_fill). */
static inline void wipe(void *secret, size_t size) { arch_fill(secret, 0, size); }
int compare_bytes(const void *a, const void *b, size_t size);
size_t string_length(const char *s);
bool strings_equal(const char *a, const char *b);
bool starts_with(const char *s, const char *prefix);
bool ends_with(const char *s, const char *suffix);
/* The last or first place of a character, NULL when absent. */
const char *find_character(const char *s, char c);
const char *find_last_character(const char *s, char c);
const char *find_string(const char *s, const char *part);

/*
 * printf for %s %.*s %c %d %u %x %o with l, width and 0 padding, and %%. Always terminates `to` when size > 0; returns the
 * length that was written.
 */
size_t format(char *to, size_t size, const char *text, ...) __attribute__((format(printf, 3, 4)));
size_t format_list(char *to, size_t size, const char *text, va_list arguments) __attribute__((format(printf, 3, 0)));

/* Reads a number and moves *at behind it; 0 and *at unmoved when there is none. */
uint64_t parse_decimal(const char **at);
uint64_t parse_hex(const char **at);
int64_t parse_signed(const char **at);
uint64_t parse_octal(const char **at);
/* The bytes that an even number of hexadecimal digits stands for; false when they are something else, or more than `capacity`. */
bool parse_bytes(const char *digits, uint8_t *ret, size_t capacity, size_t *size);

/* "No such file or directory (ENOENT)" for -ENOENT or ENOENT. */
const char *error_text(long error);

/* ---- memory ---- */
/*
 * Memory that is released as a whole. Blocks come from mmap, and the arena knows where they are, so that a capture can
 * leave them out of the image.
 */
struct arena_block {
  struct arena_block *next;
  size_t size;
  size_t used;
};
struct arena {
  struct arena_block *blocks;
};
/*
 * Zeroed memory, aligned to 16. When the kernel has none left it calls arena_exhausted, which does not return; without one the
 * process ends.
 */
extern HIDDEN void (*arena_exhausted)(size_t size, long error);
void *arena_allocate(struct arena *arena, size_t size);
char *arena_string(struct arena *arena, const char *s);
void arena_release(struct arena *arena);
/* Where new blocks come from when `end` is set: mapped memory that is not in anybody's way. Such blocks are not released. */
struct arena_region {
  uint64_t start;
  uint64_t end;
};
extern HIDDEN struct arena_region arena_region;

/* A growing array of fixed-size items in an arena. */
struct list {
  struct arena *arena;
  void *items;
  size_t item_size;
  size_t count;
  size_t capacity;
};
void list_init(struct list *list, struct arena *arena, size_t item_size);
/* Makes room for `capacity` items in all, which then stay where they are. */
void list_reserve(struct list *list, size_t capacity);
/* Adds one zeroed item and returns it; earlier pointers into the list become invalid. */
void *list_add(struct list *list);
#define list_at(list, type, index) (&((type *)(list)->items)[index])
/* Sorts by `less(a, b)`; equal items keep their order. */
void list_sort(struct list *list, bool (*less)(const void *, const void *));

/* A growing byte string in an arena. */
struct buffer {
  struct arena *arena;
  uint8_t *bytes;
  size_t size;
  size_t capacity;
};
void buffer_init(struct buffer *buffer, struct arena *arena);
/* Makes room for `size` more bytes and returns it, zeroed. */
void *buffer_add(struct buffer *buffer, size_t size);
void buffer_append(struct buffer *buffer, const void *bytes, size_t size);
/* One message as the notes pipes and sockets hold it: u32 length, u32 zero, the bytes, padded to a multiple of 8. */
void buffer_append_message(struct buffer *buffer, const void *bytes, uint32_t size);

/* ---- failures and the log ---- */
/* The one line that a failed operation leaves. */
struct failure {
  char text[960];
};
/* Stores the line unless one is there already (the first cause counts), and returns -1. */
int fail(struct failure *failure, const char *text, ...) __attribute__((format(printf, 2, 3)));

enum log_level { LOG_ERROR = 0, LOG_WARN = 1, LOG_INFO = 2, LOG_DEBUG = 3 };
extern HIDDEN enum log_level log_level;
/* Where a finished line goes (no newline); set by each program. */
extern HIDDEN void (*log_sink)(enum log_level level, const char *line, size_t length);
void log_message(enum log_level level, const char *text, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_message(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_message(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_message(LOG_INFO, __VA_ARGS__)
#define log_debug(...) \
  do {                 \
    if (log_level >= LOG_DEBUG) log_message(LOG_DEBUG, __VA_ARGS__); \
  } while (0)
const char *log_level_name(enum log_level level);
/* False when there is no such level. */
bool log_level_parse(const char *name, enum log_level *ret);

/* ---- the kernel ---- */
struct timespec64 {
  int64_t seconds;
  int64_t nanoseconds;
};
uint64_t clock_ns(int clock);
#define CLOCK_REALTIME_ 0
#define CLOCK_MONOTONIC_ 1
#define CLOCK_BOOTTIME_ 7

struct io_vector {
  void *base;
  size_t length;
};

/* How many processors this process may use: at least 1. */
size_t processor_count(void);

/* struct stat of newfstatat(2) on 64-bit machines. */
struct file_status {
  uint64_t device;
  uint64_t inode;
  uint64_t link_count;
  uint32_t mode;
  uint32_t uid;
  uint32_t gid;
  uint32_t padding;
  uint64_t device_number;
  int64_t size;
  int64_t block_size;
  int64_t blocks;
  int64_t access_seconds;
  int64_t access_nanoseconds;
  int64_t modify_seconds;
  int64_t modify_nanoseconds;
  int64_t change_seconds;
  int64_t change_nanoseconds;
  int64_t reserved[3];
};
_Static_assert(sizeof(struct file_status) == 144, "struct stat of the kernel");
/* st_dev for a device's numbers: makedev(3) of the C libraries, which is what stat(2) gives on 64-bit machines. */
uint64_t device_number(uint64_t major, uint64_t minor);
/* Whether the kernel reads so much ahead of readers of this block device (a partition's too) that asking for more gains nothing. */
bool reads_far_ahead(uint64_t device);
/* Has the kernel read what the page cache lacks of a mapped file, [start, end) in whole pages, without waiting for it; returns how many bytes were asked for. */
uint64_t read_mapped_ahead(uint64_t start, uint64_t end);
int64_t file_mtime_ns(const struct file_status *status);

#define AT_FDCWD_ (-100)
long open_file(const char *path, int flags, unsigned mode);
long read_fully(int fd, void *to, size_t size, uint64_t offset);
long write_fully(int fd, const void *from, size_t size);
long pwrite_fully(int fd, const void *from, size_t size, uint64_t offset);
/* The whole of a file whose size is not known before (procfs), with a terminating NUL after it; NULL with *error set. */
char *read_whole_file(struct arena *arena, const char *path, size_t *size, long *error);
/* Reads a small file into `to`, NUL-terminated; returns the length or a negated errno. */
long read_small_file(const char *path, char *to, size_t size);
/* The target of a symbolic link, NUL-terminated. */
long read_link(const char *path, char *to, size_t size);

/* The names in a directory; calls `each` until it returns false. Returns 0 or a negated errno. */
long for_each_entry(const char *path, bool (*each)(void *context, const char *name), void *context);

void futex_wait(uint32_t *word, uint32_t value, const struct timespec64 *timeout);
void futex_wake(uint32_t *word, int count);
/* As pthread_sigqueue(3), and as sigqueue(3) where `tid` is 0. Returns 0 or a negated errno. */
long queue_signal(uint32_t pid, uint32_t tid, int number, void *value);
/*
 * Whether a thread waits in futex_wait on `word`, which holds `value`: 1 or 0, or a negated errno (-EAGAIN: it holds another value). A thread that
 * is counted returns to its own code only when it is woken (FUTEX_CMP_REQUEUE of one waiter to the word it waits on, futex(2)).
 */
long futex_has_waiter(uint32_t *word, uint32_t value);

/* Anonymous private memory; a negated errno in place of an address is < 0. */
long map_anonymous(uint64_t address, size_t size, int protection, int extra_flags);

/* The build-id of an ELF file that is open as `fd`: its length in bytes, 0 when it has none. */
size_t read_build_id(int fd, uint8_t *ret, size_t capacity);
/* The identity of a file without a build-id: see `sample_hash` in docs/image-format.md. */
uint64_t file_sample_hash(int fd, uint64_t size);

/* One line of /proc/PID/maps. */
struct map_line {
  uint64_t start;
  uint64_t end;
  uint64_t offset;
  uint64_t device;
  uint64_t inode;
  char permissions[5];
  const char *name; /* not terminated: name_length bytes */
  size_t name_length;
};
/* Reads the line at `at`; returns where the next begins, NULL when this is no map line. */
const char *parse_map_line(const char *at, struct map_line *ret);

#endif
