#include "base.h"

#include <asm/mman.h>
#include <linux/futex.h>
#include <linux/mman.h>

#ifdef COUNT_SYSTEM_CALLS
HIDDEN uint64_t system_calls;
#endif
HIDDEN enum log_level log_level = LOG_WARN;
HIDDEN void (*log_sink)(enum log_level level, const char *line, size_t length);

/* ---- bytes and strings ---- */

void copy_bytes(void *to, const void *from, size_t size) { arch_copy(to, from, size); }
void move_bytes(void *to, const void *from, size_t size) {
  uint8_t *t = to;
  const uint8_t *f = from;
  if (t <= f || t >= f + size) {
    arch_copy(to, from, size);
  } else {
    while (size-- > 0) t[size] = f[size];
  }
}
void fill_bytes(void *to, int value, size_t size) { arch_fill(to, value, size); }

int compare_bytes(const void *a, const void *b, size_t size) {
  const uint8_t *x = a, *y = b;
  size_t i = 0;
  for (uint64_t left, right; i + sizeof left <= size; i += sizeof left) {
    __builtin_memcpy(&left, x + i, sizeof left);
    __builtin_memcpy(&right, y + i, sizeof right);
    if (left != right) break;
  }
  for (; i < size; i++)
    if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
  return 0;
}

/* The compiler emits calls to these four by itself. */
HIDDEN void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  arch_copy(to, from, size);
  return to;
}
HIDDEN void *memset(void *to, int value, size_t size) {
  arch_fill(to, value, size);
  return to;
}
HIDDEN int memcmp(const void *a, const void *b, size_t size) { return compare_bytes(a, b, size); }
HIDDEN void *memmove(void *to, const void *from, size_t size) {
  move_bytes(to, from, size);
  return to;
}

size_t string_length(const char *s) {
  size_t n = 0;
  while (s[n] != 0) n++;
  return n;
}

bool strings_equal(const char *a, const char *b) {
  while (*a != 0 && *a == *b) a++, b++;
  return *a == *b;
}

bool starts_with(const char *s, const char *prefix) {
  while (*prefix != 0)
    if (*s++ != *prefix++) return false;
  return true;
}

bool ends_with(const char *s, const char *suffix) {
  size_t length = string_length(s), suffix_length = string_length(suffix);
  return length >= suffix_length && strings_equal(s + length - suffix_length, suffix);
}

const char *find_character(const char *s, char c) {
  for (; *s != 0; s++)
    if (*s == c) return s;
  return NULL;
}

const char *find_last_character(const char *s, char c) {
  const char *found = NULL;
  for (; *s != 0; s++)
    if (*s == c) found = s;
  return found;
}

const char *find_string(const char *s, const char *part) {
  for (; *s != 0; s++)
    if (starts_with(s, part)) return s;
  return NULL;
}

struct output {
  char *to;
  size_t size;
  size_t length;
};

static void put(struct output *out, char c) {
  if (out->length + 1 < out->size) out->to[out->length++] = c;
}

static void put_number(struct output *out, uint64_t value, unsigned base, bool negative, int width, char padding) {
  char digits[24];
  int n = 0;
  do {
    digits[n++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0);
  if (negative) digits[n++] = '-';
  for (int i = n; i < width; i++) put(out, padding);
  while (n > 0) put(out, digits[--n]);
}

size_t format_list(char *to, size_t size, const char *text, va_list arguments) {
  struct output out = {to, size, 0};
  for (const char *p = text; *p != 0; p++) {
    if (*p != '%') {
      put(&out, *p);
      continue;
    }
    p++;
    char padding = ' ';
    int width = 0, precision = -1, longs = 0;
    if (*p == '0') padding = '0', p++;
    while (*p >= '0' && *p <= '9') width = width * 10 + (*p++ - '0');
    if (starts_with(p, ".*")) precision = va_arg(arguments, int), p += 2;
    while (*p == 'l') longs++, p++;
    switch (*p) {
      case 's': {
        const char *s = va_arg(arguments, const char *);
        for (int i = 0; (precision < 0 || i < precision) && s[i] != 0; i++) put(&out, s[i]);
        break;
      }
      case 'c':
        put(&out, (char)va_arg(arguments, int));
        break;
      case 'd': {
        int64_t value = longs > 0 ? va_arg(arguments, long) : va_arg(arguments, int);
        put_number(&out, value < 0 ? -(uint64_t)value : (uint64_t)value, 10, value < 0, width, padding);
        break;
      }
      case 'u':
      case 'x':
      case 'o': {
        uint64_t value = longs > 0 ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned);
        put_number(&out, value, *p == 'u' ? 10 : *p == 'x' ? 16 : 8, false, width, padding);
        break;
      }
      default:
        put(&out, *p);
    }
  }
  if (size > 0) to[out.length] = 0;
  return out.length;
}

size_t format(char *to, size_t size, const char *text, ...) {
  va_list arguments;
  va_start(arguments, text);
  size_t length = format_list(to, size, text, arguments);
  va_end(arguments);
  return length;
}

static uint64_t parse_digits(const char **at, unsigned base) {
  uint64_t value = 0;
  for (;; (*at)++) {
    char c = **at;
    unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10) : 99;
    if (digit >= base) return value;
    value = value * base + digit;
  }
}
uint64_t parse_decimal(const char **at) { return parse_digits(at, 10); }
uint64_t parse_octal(const char **at) { return parse_digits(at, 8); }
uint64_t parse_hex(const char **at) {
  if (starts_with(*at, "0x")) *at += 2;
  return parse_digits(at, 16);
}

bool parse_bytes(const char *digits, uint8_t *ret, size_t capacity, size_t *size) {
  const size_t length = string_length(digits);
  if (length % 2 != 0 || length / 2 > capacity) return false;
  for (size_t i = 0; i < length; i += 2) {
    const char pair[3] = {digits[i], digits[i + 1], 0}, *at = pair;
    ret[i / 2] = (uint8_t)parse_hex(&at);
    if (at != pair + 2) return false;
  }
  *size = length / 2;
  return true;
}
int64_t parse_signed(const char **at) {
  bool negative = **at == '-';
  if (negative) (*at)++;
  int64_t value = (int64_t)parse_digits(at, 10);
  return negative ? -value : value;
}

const char *error_text(long error) {
  static const struct {
    int number;
    const char *text;
  } known[] = {
      {EPERM, "Operation not permitted (EPERM)"},
      {ENOENT, "No such file or directory (ENOENT)"},
      {ESRCH, "No such process (ESRCH)"},
      {EINTR, "Interrupted system call (EINTR)"},
      {EIO, "Input/output error (EIO)"},
      {ENXIO, "No such device or address (ENXIO)"},
      {EBADF, "Bad file descriptor (EBADF)"},
      {EAGAIN, "Resource temporarily unavailable (EAGAIN)"},
      {ENOMEM, "Cannot allocate memory (ENOMEM)"},
      {EACCES, "Permission denied (EACCES)"},
      {EFAULT, "Bad address (EFAULT)"},
      {EBUSY, "Device or resource busy (EBUSY)"},
      {EEXIST, "File exists (EEXIST)"},
      {EXDEV, "Invalid cross-device link (EXDEV)"},
      {ENODEV, "No such device (ENODEV)"},
      {ENOTDIR, "Not a directory (ENOTDIR)"},
      {EISDIR, "Is a directory (EISDIR)"},
      {EINVAL, "Invalid argument (EINVAL)"},
      {ENFILE, "Too many open files in system (ENFILE)"},
      {EMFILE, "Too many open files (EMFILE)"},
      {EFBIG, "File too large (EFBIG)"},
      {ENOSPC, "No space left on device (ENOSPC)"},
      {EROFS, "Read-only file system (EROFS)"},
      {EPIPE, "Broken pipe (EPIPE)"},
      {ENAMETOOLONG, "File name too long (ENAMETOOLONG)"},
      {ENOSYS, "Function not implemented (ENOSYS)"},
      {EDQUOT, "Disk quota exceeded (EDQUOT)"},
      {EOPNOTSUPP, "Operation not supported (EOPNOTSUPP)"},
      {EADDRINUSE, "Address already in use (EADDRINUSE)"},
      {EADDRNOTAVAIL, "Cannot assign requested address (EADDRNOTAVAIL)"},
      {ENETUNREACH, "Network is unreachable (ENETUNREACH)"},
      {ECONNREFUSED, "Connection refused (ECONNREFUSED)"},
      {ECONNRESET, "Connection reset by peer (ECONNRESET)"},
      {ETIMEDOUT, "Connection timed out (ETIMEDOUT)"},
      {EAFNOSUPPORT, "Address family not supported by protocol (EAFNOSUPPORT)"},
  };
  int number = (int)(error < 0 ? -error : error);
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (known[i].number == number) return known[i].text;
  static char text[24];
  format(text, sizeof text, "error %d", number);
  return text;
}

/* ---- memory ---- */

#define ARENA_BLOCK_SIZE (256 * KIB)

HIDDEN struct arena_region arena_region;
HIDDEN void (*arena_exhausted)(size_t size, long error);

long map_anonymous(uint64_t address, size_t size, int protection, int extra_flags) {
  return sys(mmap, address, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
}

void *arena_allocate(struct arena *arena, size_t size) {
  size = round_up(size, 16);
  struct arena_block *block = arena->blocks;
  if (block == NULL || block->size - block->used < size) {
    size_t block_size = round_up(max_u64(ARENA_BLOCK_SIZE, size + sizeof *block + 16), PAGE_SIZE);
    long address;
    if (arena_region.end != 0) {
      address = arena_region.end - arena_region.start >= block_size ? (long)arena_region.start : -ENOMEM;
      if (address > 0) arena_region.start += block_size;
    } else {
      address = map_anonymous(0, block_size, PROT_READ | PROT_WRITE, 0);
    }
    if (address < 0) {
      if (arena_exhausted != NULL) arena_exhausted(block_size, address);
      log_error("out of memory: cannot map %lu bytes: %s", block_size, error_text(address));
      sys(exit_group, 2);
    }
    struct arena_block *fresh = (struct arena_block *)address;
    fresh->size = block_size;
    fresh->used = round_up(sizeof *fresh, 16);
    /* A block made for one large item leaves the current block in use. */
    if (block != NULL && block_size > ARENA_BLOCK_SIZE) {
      fresh->next = block->next;
      block->next = fresh;
    } else {
      fresh->next = block;
      arena->blocks = fresh;
    }
    block = fresh;
  }
  void *result = (uint8_t *)block + block->used;
  block->used += size;
  return result;
}

char *arena_string(struct arena *arena, const char *s) {
  size_t size = string_length(s) + 1;
  return memcpy(arena_allocate(arena, size), s, size);
}

void arena_release(struct arena *arena) {
  struct arena_block *block = arena->blocks;
  arena->blocks = NULL;
  while (block != NULL) {
    struct arena_block *next = block->next;
    sys(munmap, block, block->size);
    block = next;
  }
}

void list_init(struct list *list, struct arena *arena, size_t item_size) {
  *list = (struct list){.arena = arena, .item_size = item_size};
}

void list_reserve(struct list *list, size_t capacity) {
  if (capacity <= list->capacity) return;
  void *items = arena_allocate(list->arena, capacity * list->item_size);
  if (list->count > 0) copy_bytes(items, list->items, list->count * list->item_size);
  list->items = items;
  list->capacity = capacity;
}

void *list_add(struct list *list) {
  if (list->count == list->capacity) list_reserve(list, list->capacity == 0 ? 16 : list->capacity * 2);
  return (uint8_t *)list->items + list->item_size * list->count++;
}

void list_sort(struct list *list, bool (*less)(const void *, const void *)) {
  const size_t size = list->item_size, count = list->count;
  uint8_t *from = list->items;
  size_t sorted = 1;
  while (sorted < count && !less(from + sorted * size, from + (sorted - 1) * size)) sorted++;
  if (sorted >= count) return;
  /* Merges neighbours of equal length, from one array into the other. */
  uint8_t *to = arena_allocate(list->arena, list->capacity * size);
  for (size_t length = 1; length < count; length *= 2) {
    for (size_t start = 0; start < count; start += 2 * length) {
      const size_t middle = min_u64(start + length, count), end = min_u64(middle + length, count);
      size_t left = start, right = middle;
      for (size_t i = start; i < end; i++) {
        const bool take_right = left == middle || (right < end && less(from + right * size, from + left * size));
        copy_bytes(to + i * size, from + (take_right ? right++ : left++) * size, size);
      }
    }
    uint8_t *const merged = to;
    to = from;
    from = merged;
  }
  list->items = from;
}

void buffer_init(struct buffer *buffer, struct arena *arena) { *buffer = (struct buffer){.arena = arena}; }

void *buffer_add(struct buffer *buffer, size_t size) {
  if (buffer->capacity - buffer->size < size) {
    size_t capacity = max_u64(max_u64(256, buffer->capacity * 2), buffer->size + size);
    uint8_t *bytes = arena_allocate(buffer->arena, capacity);
    if (buffer->size > 0) copy_bytes(bytes, buffer->bytes, buffer->size);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
  }
  void *result = buffer->bytes + buffer->size;
  buffer->size += size;
  return result;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t size) { copy_bytes(buffer_add(buffer, size), bytes, size); }

void buffer_append_message(struct buffer *buffer, const void *bytes, uint32_t size) {
  const uint32_t prefix[2] = {size, 0};
  buffer_append(buffer, prefix, sizeof prefix);
  copy_bytes(buffer_add(buffer, round_up(size, 8)), bytes, size);
}

/* ---- failures and the log ---- */

int fail(struct failure *failure, const char *text, ...) {
  if (failure->text[0] != 0) return -1;
  va_list arguments;
  va_start(arguments, text);
  format_list(failure->text, sizeof failure->text, text, arguments);
  va_end(arguments);
  return -1;
}

static const char *const level_names[] = {"error", "warn", "info", "debug"};

const char *log_level_name(enum log_level level) { return level_names[level]; }

bool log_level_parse(const char *name, enum log_level *ret) {
  for (int i = LOG_ERROR; i <= LOG_DEBUG; i++)
    if (strings_equal(name, level_names[i])) {
      *ret = (enum log_level)i;
      return true;
    }
  return false;
}

void log_message(enum log_level level, const char *text, ...) {
  if (level > log_level || log_sink == NULL) return;
  char line[1024];
  va_list arguments;
  va_start(arguments, text);
  size_t length = format_list(line, sizeof line, text, arguments);
  va_end(arguments);
  log_sink(level, line, length);
}

/* ---- the kernel ---- */

uint64_t clock_ns(int clock) {
  struct timespec64 now = {0, 0};
  sys(clock_gettime, clock, &now);
  return (uint64_t)now.seconds * 1000000000u + (uint64_t)now.nanoseconds;
}

uint64_t device_number(uint64_t major, uint64_t minor) { return (major & 0xfffff000) << 32 | (major & 0xfff) << 8 | (minor & 0xffffff00) << 12 | (minor & 0xff); }

#define FAR_KIB 1024u /* the kernel's default is 128 */

bool reads_far_ahead(uint64_t device) {
  const uint64_t major = (device >> 8 & 0xfff) | (device >> 32 & 0xfffff000), minor = (device & 0xff) | (device >> 12 & 0xffffff00);
  char path[96], text[32];
  for (int partition = 0; partition < 2; partition++) {
    format(path, sizeof path, "/sys/dev/block/%lu:%lu/%squeue/read_ahead_kb", major, minor, partition != 0 ? "../" : "");
    if (read_small_file(path, text, sizeof text) <= 0) continue;
    const char *at = text;
    return parse_decimal(&at) >= FAR_KIB;
  }
  return false;
}

#define BLOCK_PAGES 512u
/* The kernel cuts a request to what the device reads ahead: 128 KiB by default. */
#define REQUEST_PAGES 32u

uint64_t read_mapped_ahead(uint64_t start, uint64_t end) {
  uint64_t asked = 0;
  for (uint64_t block = start; block < end; block += BLOCK_PAGES * PAGE_SIZE) {
    uint8_t resident[BLOCK_PAGES];
    const uint64_t pages = min_u64(BLOCK_PAGES, (end - block) / PAGE_SIZE);
    if (sys(mincore, block, pages * PAGE_SIZE, resident) < 0) continue;
    for (uint64_t first = 0; first < pages; first += REQUEST_PAGES) {
      const uint64_t count = min_u64(REQUEST_PAGES, pages - first);
      bool absent = false;
      for (uint64_t i = first; i < first + count; i++) absent |= (resident[i] & 1) == 0;
      if (!absent) continue;
      sys(madvise, block + first * PAGE_SIZE, count * PAGE_SIZE, MADV_WILLNEED);
      asked += count * PAGE_SIZE;
    }
  }
  return asked;
}

size_t processor_count(void) {
  uint64_t mask[128];
  long n = sys(sched_getaffinity, 0, sizeof mask, mask);
  size_t count = 0;
  for (long i = 0; i < n / 8; i++)
    for (uint64_t bits = mask[i]; bits != 0; bits &= bits - 1) count++;
  return count == 0 ? 1 : count;
}

int64_t file_mtime_ns(const struct file_status *status) { return status->modify_seconds * 1000000000 + status->modify_nanoseconds; }

long open_file(const char *path, int flags, unsigned mode) { return sys(openat, AT_FDCWD_, path, flags, mode); }

long read_fully(int fd, void *to, size_t size, uint64_t offset) {
  size_t done = 0;
  while (done < size) {
    long n = sys(pread64, fd, (uint8_t *)to + done, size - done, offset + done);
    if (n == -EINTR) continue;
    if (n < 0) return n;
    if (n == 0) break;
    done += (size_t)n;
  }
  return (long)done;
}

long write_fully(int fd, const void *from, size_t size) {
  for (size_t done = 0; done < size;) {
    long n = sys(write, fd, (const uint8_t *)from + done, size - done);
    if (n == -EINTR) continue;
    if (n < 0) return n;
    done += (size_t)n;
  }
  return 0;
}

long pwrite_fully(int fd, const void *from, size_t size, uint64_t offset) {
  for (size_t done = 0; done < size;) {
    long n = sys(pwrite64, fd, (const uint8_t *)from + done, size - done, offset + done);
    if (n == -EINTR) continue;
    if (n < 0) return n;
    if (n == 0) return -EIO;
    done += (size_t)n;
  }
  return 0;
}

char *read_whole_file(struct arena *arena, const char *path, size_t *size, long *error) {
  long fd = open_file(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) {
    *error = fd;
    return NULL;
  }
  struct buffer content;
  buffer_init(&content, arena);
  for (;;) {
    size_t room = content.capacity - content.size;
    if (room < 4096) {
      size_t more = max_u64(64 * KIB, content.size);
      buffer_add(&content, more);
      content.size -= more;
      room = content.capacity - content.size;
    }
    long n = sys(read, fd, content.bytes + content.size, room - 1);
    if (n == -EINTR) continue;
    if (n <= 0) {
      sys(close, fd);
      if (n < 0) {
        *error = n;
        return NULL;
      }
      content.bytes[content.size] = 0;
      *size = content.size;
      return (char *)content.bytes;
    }
    content.size += (size_t)n;
  }
}

long read_small_file(const char *path, char *to, size_t size) {
  long fd = open_file(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return fd;
  size_t length = 0;
  long n;
  while (length < size - 1 && (n = sys(read, fd, to + length, size - 1 - length)) > 0) length += (size_t)n;
  sys(close, fd);
  to[length] = 0;
  return (long)length;
}

long read_link(const char *path, char *to, size_t size) {
  long n = sys(readlinkat, AT_FDCWD_, path, to, size - 1);
  if (n >= 0) to[n] = 0;
  return n;
}

struct directory_entry {
  uint64_t inode;
  int64_t offset;
  uint16_t size;
  uint8_t type;
  char name[];
};

long for_each_entry(const char *path, bool (*each)(void *context, const char *name), void *context) {
  long fd = open_file(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd < 0) return fd;
  uint8_t entries[4096] __attribute__((aligned(8)));
  long n;
  bool go_on = true;
  while (go_on && (n = sys(getdents64, fd, entries, sizeof entries)) > 0)
    for (long at = 0; at < n && go_on;) {
      const struct directory_entry *entry = (const void *)(entries + at);
      if (entry->name[0] != '.') go_on = each(context, entry->name);
      at += entry->size;
    }
  sys(close, fd);
  return go_on && n < 0 ? n : 0;
}

void futex_wait(uint32_t *word, uint32_t value, const struct timespec64 *timeout) { sys(futex, word, FUTEX_WAIT_PRIVATE, value, timeout); }
void futex_wake(uint32_t *word, int count) { sys(futex, word, FUTEX_WAKE_PRIVATE, count); }

long queue_signal(uint32_t pid, uint32_t tid, int number, void *value) {
  struct siginfo info;
  fill_bytes(&info, 0, sizeof info);
  info.si_signo = number;
  info.si_code = SI_QUEUE;
  info.si_pid = (int)sys(getpid);
  info.si_uid = (uint32_t)sys(getuid);
  info.si_value.sival_ptr = value;
  return tid != 0 ? sys(rt_tgsigqueueinfo, pid, tid, number, &info) : sys(rt_sigqueueinfo, pid, number, &info);
}
long futex_has_waiter(uint32_t *word, uint32_t value) { return sys(futex, word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 1, word, value); }

/* ---- files ---- */

static size_t find_build_id(const uint8_t *notes, size_t size, uint8_t *ret, size_t capacity) {
  for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= size;) {
    const Elf64_Nhdr *note = (const void *)(notes + at);
    size_t name = at + sizeof *note, description = name + round_up(note->n_namesz, 4);
    if (description + note->n_descsz > size) return 0;
    if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && compare_bytes(notes + name, "GNU", 4) == 0 && note->n_descsz <= capacity) {
      copy_bytes(ret, notes + description, note->n_descsz);
      return note->n_descsz;
    }
    at = description + round_up(note->n_descsz, 4);
  }
  return 0;
}

size_t read_build_id(int fd, uint8_t *ret, size_t capacity) {
  /* The program headers and the build-id note stand within the first page of nearly every file. */
  uint8_t start[4096] __attribute__((aligned(8)));
  long n = read_fully(fd, start, sizeof start, 0);
  const Elf64_Ehdr *header = (const void *)start;
  if (n < (long)sizeof *header || compare_bytes(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_phentsize != sizeof(Elf64_Phdr)) return 0;
  for (unsigned i = 0; i < header->e_phnum; i++) {
    Elf64_Phdr segment;
    uint64_t at = header->e_phoff + i * sizeof segment;
    if (at + sizeof segment <= (uint64_t)n) {
      copy_bytes(&segment, start + at, sizeof segment);
    } else if (read_fully(fd, &segment, sizeof segment, at) != sizeof segment) {
      return 0;
    }
    if (segment.p_type != PT_NOTE) continue;
    uint8_t notes[2048] __attribute__((aligned(8)));
    size_t size = min_u64(segment.p_filesz, sizeof notes);
    if (segment.p_offset + size <= (uint64_t)n) {
      copy_bytes(notes, start + segment.p_offset, size);
    } else if (read_fully(fd, notes, size, segment.p_offset) != (long)size) {
      return 0;
    }
    size_t length = find_build_id(notes, size, ret, capacity);
    if (length > 0) return length;
  }
  return 0;
}

uint64_t file_sample_hash(int fd, uint64_t size) {
  struct xxh64_state state;
  uint8_t part[8192];
  const uint64_t sample = 64 * KIB;
  const uint64_t starts[2] = {0, size > 2 * sample ? size - sample : min_u64(sample, size)};
  xxh64_begin(&state);
  for (int i = 0; i < 2; i++) {
    uint64_t end = i == 0 ? min_u64(sample, size) : size;
    for (uint64_t at = starts[i]; at < end;) {
      long n = read_fully(fd, part, min_u64(sizeof part, end - at), at);
      if (n <= 0) break;
      xxh64_update(&state, part, (size_t)n);
      at += (uint64_t)n;
    }
  }
  xxh64_update(&state, &size, sizeof size);
  return xxh64_end(&state);
}

const char *parse_map_line(const char *at, struct map_line *ret) {
  const char *begin = at;
  ret->start = parse_hex(&at);
  if (at == begin || *at != '-') return NULL;
  at++;
  ret->end = parse_hex(&at);
  at++;
  copy_bytes(ret->permissions, at, 4);
  ret->permissions[4] = 0;
  at += 5;
  ret->offset = parse_hex(&at);
  at++;
  uint64_t major = parse_hex(&at);
  at++;
  uint64_t minor = parse_hex(&at);
  at++;
  ret->device = device_number(major, minor);
  ret->inode = parse_decimal(&at);
  while (*at == ' ') at++;
  ret->name = at;
  while (*at != 0 && *at != '\n') at++;
  ret->name_length = (size_t)(at - ret->name);
  return *at == '\n' ? at + 1 : at;
}
