/*
 * The program's descriptors. All of this runs in a stopped thread of the program, whose descriptor table it sees; the
 * helper has another.
 */
#include <asm/ioctls.h>
#include <linux/fcntl.h>
#include <linux/netlink.h>
#include <linux/poll.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/un.h>
#include <linux/unix_diag.h>

#include "engine.h"
#include "sockets.h"
#include "watches.h"

#define KCMP_FILE_ 0
#define ACCESS_MODE 3u
#define F_GET_SEALS_ 1034
#define MFD_CLOEXEC_ 1u
#define MFD_ALLOW_SEALING_ 2u
#define F_SEAL_SEAL_ 1u
#define O_PATH_ 010000000u

/* Beside each record of descriptions: what tells it from others before kcmp(2) is asked. */
struct known_description {
  uint64_t device;
  uint64_t inode;
  uint64_t hash;
  uint32_t number; /* a descriptor of it */
  const char *reason; /* why it is not kept, NULL when it is */
};

struct collection {
  struct capture *capture;
  struct list numbers; /* uint32_t, ascending */
  struct list known;   /* struct known_description */
  const char *reason; /* of the description that is being looked at, as in known_description */
  char path[4200];
  char information[64 * 1024]; /* /proc/thread-self/fdinfo/N */
};

static bool add_number(void *context, const char *name) {
  struct collection *collection = context;
  uint32_t *number = list_add(&collection->numbers);
  *number = (uint32_t)parse_decimal(&name);
  return true;
}

static bool less_number(const void *a, const void *b) { return *(const uint32_t *)a < *(const uint32_t *)b; }

static struct warp_description_record *description_at(struct capture *capture, size_t index) { return table_at(&capture->descriptions, struct warp_description_record, index); }

/* Whether two descriptors share one open file description. */
static bool same_description(int a, int b) {
  long pid = sys(getpid);
  long order = sys(kcmp, pid, pid, KCMP_FILE_, a, b);
  if (order >= 0) return order == 0;
  /* Without kcmp(2) (some containers forbid it): a setting of the description that is seen through the other one. */
  long signal_a = sys(fcntl, a, F_GETSIG, 0), signal_b = sys(fcntl, b, F_GETSIG, 0);
  if (signal_a < 0 || signal_a != signal_b) return false;
  long other = signal_a == 10 ? 12 : 10;
  sys(fcntl, a, F_SETSIG, other);
  bool same = sys(fcntl, b, F_GETSIG, 0) == other;
  sys(fcntl, a, F_SETSIG, signal_a);
  return same;
}

static const char *information_field(const struct collection *collection, const char *name) {
  const char *at = find_string(collection->information, name);
  if (at == NULL) return NULL;
  at += string_length(name);
  while (*at == ' ' || *at == '\t') at++;
  return at;
}

static uint64_t information_number(const struct collection *collection, const char *name, bool hex) {
  const char *at = information_field(collection, name);
  return at == NULL ? 0 : hex ? parse_hex(&at) : parse_decimal(&at);
}

static int refuse(struct collection *collection, uint32_t fd, const char *what, const char *mend) {
  return fail(collection->capture->failure, "descriptor %u (%s) %s: %s", fd, collection->path, what, mend);
}

/* ---- policies ---- */

static struct policy_subject subject_of(struct capture *capture, uint32_t fd, const struct warp_description_record *description, const char *path) {
  struct policy_subject subject = {.number = fd, .mode = description->mode, .path = path, .callers = description->kind == WARP_DESCRIPTION_CALLER};
  if (description->kind == WARP_DESCRIPTION_SOCKET && description->detail != WARP_NONE) {
    const struct warp_socket_record *socket = table_at(&capture->sockets, struct warp_socket_record, description->detail);
    subject.family = socket->family;
    subject.listening = socket->state == WARP_SOCKET_LISTENING;
    subject.local = capture->sockets.heap.bytes + socket->local.offset, subject.local_size = socket->local.length;
    subject.remote = capture->sockets.heap.bytes + socket->remote.offset, subject.remote_size = socket->remote.length;
  }
  return subject;
}

static const struct policy_rule *rule_for(struct capture *capture, uint32_t fd, const struct warp_description_record *description, const char *path) {
  if (capture->rules.rules.count == 0) return NULL;
  const struct policy_subject subject = subject_of(capture, fd, description, path);
  return policies_find(&capture->rules, &subject);
}

/* The name of a file that has been removed, or will be opened by name: without what the kernel puts behind it. */
static uint32_t take_by_name(struct collection *collection, uint32_t mode) {
  if (ends_with(collection->path, " (deleted)")) collection->path[string_length(collection->path) - 10] = 0;
  switch (mode & S_IFMT) {
    case S_IFREG: return WARP_DESCRIPTION_FILE;
    case S_IFDIR: return WARP_DESCRIPTION_DIRECTORY;
    case S_IFIFO: return WARP_DESCRIPTION_FIFO;
    default: return WARP_DESCRIPTION_DEVICE;
  }
}

/* Whether a policy lets go what cannot be kept; else the refusal names one that would. */
static bool may_lose(struct collection *collection, uint32_t fd, struct warp_description_record *description) {
  struct capture *capture = collection->capture;
  struct failure *failure = capture->failure;
  const struct policy_rule *rule = rule_for(capture, fd, description, collection->path);
  if (rule == NULL || rule->action == WARP_POLICY_ERROR) {
    char policy[700];
    const struct policy_subject subject = subject_of(capture, fd, description, collection->path);
    const size_t n = string_length(failure->text);
    policy_write(policy, sizeof policy, &subject, WARP_POLICY_IGNORE);
    format(failure->text + n, sizeof failure->text - n, "; or give --policies a file with these lines: %s", policy);
    return false;
  }
  collection->reason = arena_string(&capture->arena, failure->text);
  failure->text[0] = 0;
  const bool has_name = collection->path[0] == '/' && !starts_with(collection->path, "/memfd:");
  if (rule->action == WARP_POLICY_REOPEN && has_name) {
    description->kind = take_by_name(collection, description->mode);
    return true;
  }
  if (!rule->quiet) log_warn("%s; not kept, as %s:%u allows", collection->reason, rule->file, rule->line);
  description->kind = WARP_DESCRIPTION_NOT_KEPT;
  description->detail = WARP_NONE;
  return true;
}

/* ---- kinds ---- */

static int add_object(struct collection *collection, uint32_t fd, const struct file_status *status, struct warp_description_record *description) {
  struct capture *capture = collection->capture;
  bool memfd = starts_with(collection->path, "/memfd:");
  char name[4096];
  format(name, sizeof name, "%s", memfd ? collection->path + 7 : collection->path);
  if (ends_with(name, " (deleted)")) name[string_length(name) - 10] = 0;
  description->kind = WARP_DESCRIPTION_OBJECT;
  description->detail = capture_object(capture, status->device, status->inode, memfd ? WARP_OBJECT_MEMFD : WARP_OBJECT_DELETED_FILE, name);
  struct warp_object_record *object = table_at(&capture->objects, struct warp_object_record, description->detail);
  object->kind = memfd ? WARP_OBJECT_MEMFD : WARP_OBJECT_DELETED_FILE;
  object->size = (uint64_t)status->size;
  object->mode = status->mode;
  long seals = memfd ? sys(fcntl, fd, F_GET_SEALS_, 0) : 0;
  if (seals > 0) object->seals = (uint32_t)seals;
  /* memfd_create without MFD_ALLOW_SEALING sets exactly F_SEAL_SEAL. */
  object->memfd_flags = memfd && seals != F_SEAL_SEAL_ ? MFD_ALLOW_SEALING_ : 0;
  return 0;
}

static int add_character_device(struct collection *collection, uint32_t fd, const struct file_status *status, struct warp_description_record *description) {
  uint64_t number = status->device_number;
  uint32_t major = (uint32_t)((number >> 8 & 0xfff) | (number >> 32 & 0xfffff000)), minor = (uint32_t)((number & 0xff) | (number >> 12 & 0xffffff00));
  uint8_t settings[64];
  if (sys(ioctl, fd, TCGETS, settings) == 0) {
    if (major == 5 && minor == 2) return refuse(collection, fd, "is the master side of a terminal, whose other side belongs to other processes", "close it before the checkpoint");
    description->kind = WARP_DESCRIPTION_TTY;
    return 0;
  }
  bool memory_device = major == 1 && (minor == 3 || minor == 5 || minor == 7 || minor == 8 || minor == 9);
  if (!memory_device && !(major == 5 && minor == 0) && (description->status_flags & O_PATH_) == 0) return refuse(collection, fd, "is a device whose state cannot be kept", "close it before the checkpoint");
  description->kind = WARP_DESCRIPTION_DEVICE;
  return 0;
}

static int add_anonymous(struct collection *collection, uint32_t fd, struct warp_description_record *description) {
  struct capture *capture = collection->capture;
  const char *name = collection->path + string_length("anon_inode:");
  if (strings_equal(name, "[eventfd]")) {
    description->kind = WARP_DESCRIPTION_EVENTFD;
    description->detail = (uint32_t)capture->eventfds.records.count;
    struct warp_eventfd_record *record = table_add(&capture->eventfds);
    record->count = information_number(collection, "eventfd-count:", true);
    record->semaphore = (uint32_t)information_number(collection, "eventfd-semaphore:", false);
    return 0;
  }
  if (strings_equal(name, "[eventpoll]")) {
    description->kind = WARP_DESCRIPTION_EPOLL;
    return 0;
  }
  if (strings_equal(name, "[timerfd]")) {
    description->kind = WARP_DESCRIPTION_TIMERFD;
    description->detail = (uint32_t)capture->timerfds.records.count;
    struct warp_timerfd_record *record = table_add(&capture->timerfds);
    record->clock = (uint32_t)information_number(collection, "clockid:", false);
    record->ticks = information_number(collection, "ticks:", false);
    record->settime_flags = 0;
    const char *flags = information_field(collection, "settime flags:");
    if (flags != NULL) record->settime_flags = (uint32_t)parse_octal(&flags);
    const char *at = information_field(collection, "it_value: (");
    if (at != NULL) {
      record->value_ns = parse_decimal(&at) * 1000000000u;
      at += 2;
      record->value_ns += parse_decimal(&at);
    }
    /* An absolute time of day is kept exactly: as time left at the image's own time. */
    if ((record->settime_flags & 1) != 0 && record->value_ns != 0 && record->clock == CLOCK_REALTIME_)
      record->value_ns += clock_ns(CLOCK_REALTIME_) - table_at(&capture->image, struct warp_image_record, 0)->realtime_ns;
    at = information_field(collection, "it_interval: (");
    if (at != NULL) {
      record->interval_ns = parse_decimal(&at) * 1000000000u;
      at += 2;
      record->interval_ns += parse_decimal(&at);
    }
    return 0;
  }
  if (strings_equal(name, "[signalfd]")) {
    description->kind = WARP_DESCRIPTION_SIGNALFD;
    description->detail = (uint32_t)capture->signalfds.records.count;
    struct warp_signalfd_record *record = table_add(&capture->signalfds);
    record->mask = information_number(collection, "sigmask:", true);
    return 0;
  }
  if (strings_equal(name, "inotify") || strings_equal(name, "[inotify]")) {
    description->kind = WARP_DESCRIPTION_INOTIFY;
    return 0;
  }
  if (starts_with(name, "[io_uring]")) return refuse(collection, fd, "cannot be kept", "have the program use epoll (for Node.js: UV_USE_IO_URING=0)");
  return refuse(collection, fd, "is of a kind that cannot be kept", "close it before the checkpoint");
}

/* Whether the path still names the open file: it may have been removed, or replaced. */
static bool leads_back(const struct collection *collection, const struct file_status *status) {
  struct file_status there;
  return sys(newfstatat, AT_FDCWD_, collection->path, &there, 0) == 0 && there.device == status->device && there.inode == status->inode;
}

/* What fdinfo tells of the open file, without what belongs to the descriptor: equal for descriptors that share it. */
static uint64_t information_hash(const struct collection *collection) {
  const char *flags = find_string(collection->information, "flags:"), *rest = flags == NULL ? NULL : find_character(flags, '\n');
  return rest == NULL ? 0 : xxh64(rest, string_length(rest));
}

/* A file that no path leads to: its content goes into the image, unless the program's policy for that path wants something else. */
static int add_removed_file(struct collection *collection, uint32_t fd, const struct file_status *status, struct warp_description_record *description) {
  const struct policy_rule *rule = rule_for(collection->capture, fd, description, collection->path);
  if (rule != NULL && rule->type == WARP_POLICY_FILE && rule->action == WARP_POLICY_REOPEN) {
    description->kind = take_by_name(collection, status->mode);
    return 0;
  }
  if (rule != NULL && rule->type == WARP_POLICY_FILE && rule->action == WARP_POLICY_CLOSE) {
    collection->reason = arena_string(&collection->capture->arena, "its content was left out, because a policy closes it");
    description->kind = WARP_DESCRIPTION_NOT_KEPT;
    return 0;
  }
  return (description->status_flags & O_PATH_) != 0 ? refuse(collection, fd, "is a file that has been removed", "close it before the checkpoint") : add_object(collection, fd, status, description);
}

/* What tells, of a file that is only read, whether it is the same at a restore. Files of procfs and sysfs change with each reading. */
static void identify_read_file(const struct collection *collection, uint32_t fd, const struct file_status *status, struct warp_description_record *description) {
  const bool only_read = (description->status_flags & (ACCESS_MODE | O_PATH_ | O_DIRECT)) == O_RDONLY;
  if (description->kind != WARP_DESCRIPTION_FILE || !only_read || status->size == 0 || starts_with(collection->path, "/proc/") || starts_with(collection->path, "/sys/")) return;
  description->mtime_ns = file_mtime_ns(status);
  description->sample_hash = file_sample_hash((int)fd, (uint64_t)status->size);
}

static int add_description(struct collection *collection, uint32_t fd, const struct file_status *status, uint32_t *ret) {
  struct capture *capture = collection->capture;
  const uint64_t hash = information_hash(collection);
  for (size_t i = 0; i < collection->known.count; i++) {
    const struct known_description *known = list_at(&collection->known, struct known_description, i);
    if (known->inode == status->inode && known->device == status->device && known->hash == hash && same_description((int)known->number, (int)fd)) {
      *ret = (uint32_t)i;
      return 0;
    }
  }
  struct warp_description_record made;
  collection->reason = NULL;
  fill_bytes(&made, 0, sizeof made);
  made.detail = WARP_NONE;
  made.mode = status->mode;
  made.device = status->device;
  made.inode = status->inode;
  made.size = (uint64_t)status->size;
  made.status_flags = (uint32_t)sys(fcntl, fd, F_GETFL, 0);
  made.offset = (int64_t)information_number(collection, "pos:", false);
  if ((made.status_flags & O_PATH_) == 0) {
    long owner = sys(fcntl, fd, F_GETOWN, 0), owner_signal = sys(fcntl, fd, F_GETSIG, 0);
    made.owner = (int32_t)owner;
    made.owner_signal = owner_signal > 0 ? (uint32_t)owner_signal : 0;
  }
  int result = 0;
  uint32_t format_bits = status->mode & S_IFMT;
  if (starts_with(collection->path, "anon_inode:")) {
    result = add_anonymous(collection, fd, &made);
  } else if (format_bits == S_IFREG) {
    made.kind = WARP_DESCRIPTION_FILE;
    if (starts_with(collection->path, "/memfd:") || (collection->path[0] == '/' && !leads_back(collection, status))) {
      result = add_removed_file(collection, fd, status, &made);
    } else if (collection->path[0] != '/') {
      result = refuse(collection, fd, "is of a kind that cannot be kept", "close it before the checkpoint");
    } else if (starts_with(collection->path, "/proc/") && find_string(collection->path, "/task/") != NULL) {
      result = refuse(collection, fd, "belongs to a thread, which will have another id", "close it before the checkpoint");
    }
  } else if (format_bits == S_IFDIR) {
    made.kind = WARP_DESCRIPTION_DIRECTORY;
    if (!leads_back(collection, status)) result = refuse(collection, fd, "is a directory that has been removed", "close it before the checkpoint");
  } else if (format_bits == S_IFCHR) {
    result = add_character_device(collection, fd, status, &made);
  } else if (format_bits == S_IFIFO) {
    made.kind = starts_with(collection->path, "pipe:") ? WARP_DESCRIPTION_PIPE : WARP_DESCRIPTION_FIFO;
    if (made.kind == WARP_DESCRIPTION_FIFO && !leads_back(collection, status)) result = refuse(collection, fd, "is a FIFO that has been removed", "close it before the checkpoint");
  } else if (format_bits == S_IFSOCK) {
    made.kind = WARP_DESCRIPTION_SOCKET;
    result = capture_socket(capture, (int)fd, status->inode, collection->path, &made.detail);
  } else {
    result = refuse(collection, fd, "is of a kind that cannot be kept", "close it before the checkpoint");
  }
  if (result == 0 && made.kind == WARP_DESCRIPTION_INOTIFY) result = capture_inotify(capture, fd, (uint32_t)capture->descriptions.records.count, collection->information);
  if (result < 0 && !may_lose(collection, fd, &made)) return -1;
  identify_read_file(collection, fd, status, &made);
  made.path = table_string(&capture->descriptions, collection->path);
  *ret = (uint32_t)capture->descriptions.records.count;
  struct known_description *known = list_add(&collection->known);
  *known = (struct known_description){status->device, status->inode, hash, fd, collection->reason};
  struct warp_description_record *description = table_add(&capture->descriptions);
  *description = made;
  return 0;
}

/* ---- locks ---- */

static void add_locks(struct collection *collection, uint32_t fd) {
  struct capture *capture = collection->capture;
  for (const char *at = collection->information; (at = find_string(at, "lock:\t")) != NULL;) {
    at = find_character(at, ' ') + 1; /* behind "lock:\tN:" */
    struct warp_lock_record lock;
    fill_bytes(&lock, 0, sizeof lock);
    lock.fd = fd;
    lock.kind = starts_with(at, "POSIX") ? WARP_LOCK_POSIX : starts_with(at, "FLOCK") ? WARP_LOCK_FLOCK : starts_with(at, "OFDLCK") ? WARP_LOCK_OFD : 0;
    const char *write = find_string(at, "WRITE"), *line_end = find_character(at, '\n');
    lock.exclusive = write != NULL && write < line_end;
    /* … PID MAJOR:MINOR:INODE START END */
    const char *end = line_end;
    while (end > at && end[-1] != ' ') end--;
    const char *start = end - 1;
    while (start > at && start[-1] != ' ') start--;
    lock.start = parse_decimal(&start);
    lock.end = starts_with(end, "EOF") ? UINT64_MAX : parse_decimal(&end);
    at = line_end;
    if (lock.kind == 0) {
      log_warn("descriptor %u (%s) holds a lease, which is not kept", fd, collection->path);
      continue;
    }
    bool known = false;
    for (size_t i = 0; i < capture->locks.records.count && !known; i++) {
      const struct warp_lock_record *other = table_at(&capture->locks, struct warp_lock_record, i);
      if (other->kind != lock.kind || other->start != lock.start || other->end != lock.end || other->exclusive != lock.exclusive) continue;
      /* One lock shows through every descriptor that can release it: all of the file (POSIX) or of the description (others). */
      const struct warp_description_record *mine = NULL, *theirs = NULL;
      uint32_t my_description = 0, their_description = 0;
      for (size_t k = 0; k < capture->descriptors.records.count; k++) {
        const struct warp_descriptor_record *descriptor = table_at(&capture->descriptors, struct warp_descriptor_record, k);
        if (descriptor->number == fd) my_description = descriptor->description, mine = description_at(capture, descriptor->description);
        if (descriptor->number == other->fd) their_description = descriptor->description, theirs = description_at(capture, descriptor->description);
      }
      if (mine == NULL || theirs == NULL) continue;
      known = lock.kind == WARP_LOCK_POSIX ? mine->device == theirs->device && mine->inode == theirs->inode : my_description == their_description;
    }
    if (known) continue;
    struct warp_lock_record *record = table_add(&capture->locks);
    *record = lock;
  }
}

/* ---- pipes ---- */

struct pipe_end {
  int32_t reader;
  int32_t writer;
  bool packets;
};

static struct pipe_end pipe_ends(struct capture *capture, uint64_t inode, uint64_t device) {
  struct pipe_end ends = {-1, -1, false};
  for (size_t i = 0; i < capture->descriptors.records.count; i++) {
    const struct warp_descriptor_record *descriptor = table_at(&capture->descriptors, struct warp_descriptor_record, i);
    const struct warp_description_record *description = description_at(capture, descriptor->description);
    if ((description->mode & S_IFMT) != S_IFIFO || description->inode != inode || description->device != device) continue;
    uint32_t access = description->status_flags & ACCESS_MODE;
    if (access != O_WRONLY) ends.reader = (int32_t)descriptor->number;
    if (access != O_RDONLY) ends.writer = (int32_t)descriptor->number;
    ends.packets |= (description->status_flags & O_DIRECT) != 0;
  }
  return ends;
}

static int read_pipe(struct capture *capture, const struct pipe_end *ends, struct warp_slice *ret) {
  int32_t waiting = 0;
  if (sys(ioctl, ends->reader, FIONREAD, &waiting) < 0 || waiting <= 0) return 0;
  int32_t copy[2];
  long error = sys(pipe2, copy, O_NONBLOCK | O_CLOEXEC | (ends->packets ? O_DIRECT : 0));
  if (error < 0) return fail(capture->failure, "descriptor %d: cannot copy the %d bytes in its pipe: %s", ends->reader, waiting, error_text(error));
  long capacity = sys(fcntl, ends->reader, F_GETPIPE_SZ, 0);
  sys(fcntl, copy[1], F_SETPIPE_SZ, capacity);
  /* tee(2) copies without taking away. */
  long copied = sys(tee, ends->reader, copy[1], 0x7fffffff, 2 /* SPLICE_F_NONBLOCK */);
  struct buffer data;
  buffer_init(&data, &capture->arena);
  uint8_t *part = arena_allocate(&capture->arena, 64 * KIB);
  long n;
  while (copied > 0 && (n = sys(read, copy[0], part, 64 * KIB)) > 0) {
    if (ends->packets) {
      buffer_append_message(&data, part, (uint32_t)n);
    } else {
      buffer_append(&data, part, (size_t)n);
    }
  }
  sys(close, copy[0]);
  sys(close, copy[1]);
  if (copied < waiting) return fail(capture->failure, "descriptor %d: only %ld of %d bytes in its pipe could be copied", ends->reader, copied, waiting);
  *ret = table_bytes(&capture->pipes, data.bytes, data.size);
  return 0;
}

static bool polls(int32_t fd, int16_t event) {
  struct pollfd polled = {.fd = fd, .events = event};
  return sys(poll, &polled, 1, 0) > 0 && (polled.revents & event) != 0;
}

static int add_pipe(struct collection *collection, uint32_t fd, uint32_t description_index) {
  struct capture *capture = collection->capture;
  const struct warp_description_record description = *description_at(capture, description_index);
  bool fifo = description.kind == WARP_DESCRIPTION_FIFO;
  for (size_t i = 0; i < capture->pipes.records.count; i++)
    if (table_at(&capture->pipes, struct warp_pipe_record, i)->inode == description.inode) {
      description_at(capture, description_index)->detail = (uint32_t)i;
      return 0;
    }
  struct pipe_end ends = pipe_ends(capture, description.inode, description.device);
  struct warp_pipe_record pipe;
  fill_bytes(&pipe, 0, sizeof pipe);
  pipe.inode = description.inode;
  if (ends.writer < 0 && polls(ends.reader, POLLHUP)) pipe.flags |= WARP_PIPE_NO_WRITER;
  if (ends.reader < 0 && polls(ends.writer, POLLERR)) pipe.flags |= WARP_PIPE_NO_READER;
  if (ends.packets) pipe.flags |= WARP_PIPE_PACKETS;
  if (!fifo && (ends.reader < 0 || ends.writer < 0) && (pipe.flags & (WARP_PIPE_NO_READER | WARP_PIPE_NO_WRITER)) == 0) {
    struct warp_slice path = description.path;
    return fail(capture->failure, "descriptor %u (%.*s) is a pipe whose other end another process holds: close it before the checkpoint, or let both ends be in the program", fd, (int)path.length,
                (const char *)capture->descriptions.heap.bytes + path.offset);
  }
  pipe.capacity = (uint32_t)sys(fcntl, fd, F_GETPIPE_SZ, 0);
  if (ends.reader >= 0 && (!fifo || ends.writer >= 0) && read_pipe(capture, &ends, &pipe.data) < 0) return -1;
  if (fifo) {
    char *path = arena_allocate(&capture->arena, description.path.length + 1);
    copy_bytes(path, capture->descriptions.heap.bytes + description.path.offset, description.path.length);
    pipe.path = table_string(&capture->pipes, path);
  }
  description_at(capture, description_index)->detail = (uint32_t)capture->pipes.records.count;
  struct warp_pipe_record *record = table_add(&capture->pipes);
  *record = pipe;
  return 0;
}

/* ---- the caller's streams ---- */

/* Standard streams come from whoever restores, unless what stands there is the program's own making. */
static void find_callers_streams(struct capture *capture) {
  for (size_t i = 0; i < capture->descriptors.records.count; i++) {
    const struct warp_descriptor_record *descriptor = table_at(&capture->descriptors, struct warp_descriptor_record, i);
    if (descriptor->number > 2) break;
    struct warp_description_record *description = description_at(capture, descriptor->description);
    bool callers = false;
    switch (description->kind) {
      case WARP_DESCRIPTION_FILE:
      case WARP_DESCRIPTION_TTY:
      case WARP_DESCRIPTION_DEVICE:
      case WARP_DESCRIPTION_FIFO:
        callers = true;
        break;
      case WARP_DESCRIPTION_OBJECT:
        callers = table_at(&capture->objects, struct warp_object_record, description->detail)->kind == WARP_OBJECT_DELETED_FILE;
        break;
      case WARP_DESCRIPTION_PIPE: {
        struct pipe_end ends = pipe_ends(capture, description->inode, description->device);
        callers = ends.reader < 0 || ends.writer < 0;
        break;
      }
      case WARP_DESCRIPTION_SOCKET: {
        uint32_t state = table_at(&capture->sockets, struct warp_socket_record, description->detail)->state;
        callers = state == WARP_SOCKET_CONNECTED;
        break;
      }
      default:
        break;
    }
    if (callers) {
      description->kind = WARP_DESCRIPTION_CALLER;
      description->detail = descriptor->number;
    }
  }
  /* Other descriptions of the same terminal or pipe (Node.js opens its terminal again). */
  for (size_t i = 0; i < capture->descriptions.records.count; i++) {
    struct warp_description_record *description = description_at(capture, i);
    if (description->kind != WARP_DESCRIPTION_TTY && description->kind != WARP_DESCRIPTION_PIPE && description->kind != WARP_DESCRIPTION_FIFO) continue;
    for (size_t k = 0; k < capture->descriptions.records.count; k++) {
      const struct warp_description_record *stream = description_at(capture, k);
      bool direction = ((description->status_flags ^ stream->status_flags) & ACCESS_MODE) == 0 || (stream->status_flags & ACCESS_MODE) == O_RDWR || description->kind == WARP_DESCRIPTION_TTY;
      if (stream->kind != WARP_DESCRIPTION_CALLER || stream->device != description->device || stream->inode != description->inode || !direction) continue;
      description->kind = WARP_DESCRIPTION_CALLER;
      description->detail = stream->detail;
      break;
    }
  }
}

/* ---- the whole ---- */

static const char *path_of(struct collection *collection, struct warp_slice path) {
  format(collection->path, sizeof collection->path, "%.*s", (int)path.length, (const char *)collection->capture->descriptions.heap.bytes + path.offset);
  return collection->path;
}

/* Says of each descriptor which rule it is under. */
static int apply_policies(struct collection *collection) {
  struct capture *capture = collection->capture;
  for (size_t i = 0; i < capture->descriptors.records.count; i++) {
    struct warp_descriptor_record *descriptor = table_at(&capture->descriptors, struct warp_descriptor_record, i);
    const struct warp_description_record *description = description_at(capture, descriptor->description);
    const char *path = path_of(collection, description->path);
    const struct policy_rule *rule = rule_for(capture, descriptor->number, description, path);
    if (rule == NULL && description->kind == WARP_DESCRIPTION_NOT_KEPT)
      return fail(capture->failure, "descriptor %u (%s) has no policy, unlike others of the same open file: %s", descriptor->number, path, list_at(&collection->known, struct known_description, descriptor->description)->reason);
    if (rule == NULL) continue;
    descriptor->policy = (uint32_t)(rule - list_at(&capture->rules.rules, struct policy_rule, 0)) + 1;
    if (rule->action == WARP_POLICY_ERROR) {
      char policy[700];
      const struct policy_subject subject = subject_of(capture, descriptor->number, description, path);
      policy_write(policy, sizeof policy, &subject, WARP_POLICY_IGNORE);
      return fail(capture->failure, "descriptor %u (%s) must not be open at a checkpoint, says the policy at %s:%u: close it before, or put these lines before that rule: %s", descriptor->number, path, rule->file,
                  rule->line, policy);
    }
    log_info("descriptor %u (%s): %s, as %s:%u says", descriptor->number, path, policy_action_name(rule->action), rule->file, rule->line);
  }
  return 0;
}

/* A pipe to another process. */
static bool may_lose_pipe(struct collection *collection, const struct warp_descriptor_record *descriptor) {
  struct warp_description_record *description = description_at(collection->capture, descriptor->description);
  path_of(collection, description->path);
  if (!may_lose(collection, descriptor->number, description)) return false;
  list_at(&collection->known, struct known_description, descriptor->description)->reason = collection->reason;
  return true;
}

static long collect(void *argument) {
  struct collection *collection = argument;
  struct capture *capture = collection->capture;
  list_init(&collection->numbers, &capture->arena, sizeof(uint32_t));
  list_init(&collection->known, &capture->arena, sizeof(struct known_description));
  long error = for_each_entry("/proc/thread-self/fd", add_number, collection);
  if (error < 0) return fail(capture->failure, "cannot list descriptors in /proc/thread-self/fd: %s", error_text(error));
  list_sort(&collection->numbers, less_number);
  if (sockets_begin(capture) < 0) return -1;
  for (size_t i = 0; i < collection->numbers.count; i++) {
    uint32_t fd = *list_at(&collection->numbers, uint32_t, i);
    struct file_status status;
    char link[64];
    long flags = sys(fcntl, fd, F_GETFD, 0);
    if (flags < 0) continue; /* the listing's own */
    error = sys(newfstatat, fd, "", &status, 0x1000 /* AT_EMPTY_PATH */);
    if (error < 0) return fail(capture->failure, "descriptor %u cannot be examined: %s", fd, error_text(error));
    format(link, sizeof link, "/proc/thread-self/fd/%u", fd);
    error = read_link(link, collection->path, sizeof collection->path);
    if (error < 0) return fail(capture->failure, "descriptor %u cannot be examined: %s", fd, error_text(error));
    format(link, sizeof link, "/proc/thread-self/fdinfo/%u", fd);
    if (read_small_file(link, collection->information, sizeof collection->information) < 0) collection->information[0] = 0;
    uint32_t description;
    if (add_description(collection, fd, &status, &description) < 0) return -1;
    struct warp_descriptor_record *descriptor = table_add(&capture->descriptors);
    *descriptor = (struct warp_descriptor_record){.number = fd, .flags = (uint32_t)flags, .description = description};
    add_locks(collection, fd);
    log_debug("descriptor %u: %s, flags 0%o, description %u", fd, collection->path, description_at(capture, description)->status_flags, description);
  }
  sockets_end(capture);
  find_callers_streams(capture);
  if (apply_policies(collection) < 0) return -1;
  for (size_t i = 0; i < capture->descriptors.records.count; i++) {
    struct warp_descriptor_record descriptor = *table_at(&capture->descriptors, struct warp_descriptor_record, i);
    struct warp_description_record *description = description_at(capture, descriptor.description);
    if ((description->kind == WARP_DESCRIPTION_PIPE || description->kind == WARP_DESCRIPTION_FIFO) && description->detail == WARP_NONE && add_pipe(collection, descriptor.number, descriptor.description) < 0 && !may_lose_pipe(collection, &descriptor)) return -1;
    if (description->kind == WARP_DESCRIPTION_EPOLL && description->detail == WARP_NONE) {
      description->detail = 0;
      char link[64];
      format(link, sizeof link, "/proc/thread-self/fdinfo/%u", descriptor.number);
      size_t size;
      const char *information = read_whole_file(&capture->arena, link, &size, &error);
      if (information != NULL) capture_epoll(capture, descriptor.number, descriptor.description, information);
    }
    if (description->kind == WARP_DESCRIPTION_SOCKET && check_socket(capture, descriptor.number, description->detail) < 0) return -1;
  }
  return 0;
}

int capture_descriptors(struct capture *capture) {
  struct slot *proxy = freeze_proxy(capture->freeze);
  if (proxy == NULL) return fail(capture->failure, "no thread is left to examine the descriptors");
  struct collection *collection = arena_allocate(&capture->arena, sizeof *collection);
  collection->capture = capture;
  if (freeze_call(proxy, collect, collection) < 0) return -1;
  /* The helper reads objects itself, through descriptors of its own. */
  for (size_t i = 0; i < capture->descriptors.records.count; i++) {
    const struct warp_descriptor_record *descriptor = table_at(&capture->descriptors, struct warp_descriptor_record, i);
    const struct warp_description_record *description = description_at(capture, descriptor->description);
    if (description->kind != WARP_DESCRIPTION_OBJECT) continue;
    struct object_source *source = list_at(&capture->object_sources, struct object_source, description->detail);
    if (source->fd >= 0) continue;
    char link[64];
    format(link, sizeof link, "/proc/self/task/%u/fd/%u", proxy->tid, descriptor->number);
    source->fd = (int)open_file(link, O_RDONLY | O_CLOEXEC, 0);
    if (source->fd < 0) return fail(capture->failure, "descriptor %u: the content of its unnamed file cannot be read: %s", descriptor->number, error_text(source->fd));
  }
  log_debug("%lu descriptors of %lu open files, %lu epoll watches", capture->descriptors.records.count, capture->descriptions.records.count, capture->epoll_watches.records.count);
  return 0;
}
