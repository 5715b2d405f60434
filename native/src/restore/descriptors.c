/* Descriptors: every open file description is made once, and its numbers are set to it. */
#include <linux/fcntl.h>
#include <linux/eventpoll.h>
#include <linux/time.h>

#include "restore.h"

#define F_DUPFD_CLOEXEC_ 1030
#define F_ADD_SEALS_ 1033
#define TFD_IOC_SET_TICKS_ 0x40085400u
#define TFD_TIMER_ABSTIME_ 1u
#define ACCESS_MODE 3u
/* Flags that an open file keeps; the others act at opening only. */
#define KEPT_FLAGS (ACCESS_MODE | O_APPEND | O_NONBLOCK | O_DSYNC | __O_SYNC | O_DIRECT | O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_PATH)
#define SETTABLE_FLAGS (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | FASYNC)

int move_descriptor(const struct restore *restore, int fd) {
  if (fd < 0) return fd;
  long moved = sys(fcntl, fd, F_DUPFD_CLOEXEC_, restore->lowest_own_descriptor);
  if (moved < 0 && fd > 2) {
    program_error("no descriptor is free above %u: %s: raise RLIMIT_NOFILE", restore->lowest_own_descriptor, error_text(moved));
    sys(exit_group, 2);
  }
  if (moved >= 0 && fd > 2) sys(close, fd);
  return (int)moved;
}

static bool less_number(const void *a, const void *b) { return *(const int *)a < *(const int *)b; }

void keep_callers_descriptors(struct restore *restore) {
  struct options *options = &restore->options;
  int from[MOST_INHERITED];
  for (uint32_t i = 0; i < options->inherited_count; i++) {
    from[i] = options->inherited[i].fd;
    uint32_t same = 0;
    while (from[same] != from[i]) same++;
    options->inherited[i].fd = same < i ? options->inherited[same].fd : move_descriptor(restore, from[i]);
  }
  struct list kept;
  list_init(&kept, &restore->arena, sizeof(int));
  *(int *)list_add(&kept) = restore->image.fd;
  for (uint32_t i = 0; i < options->inherited_count; i++) *(int *)list_add(&kept) = options->inherited[i].fd;
  list_sort(&kept, less_number);
  unsigned next = 3;
  for (size_t i = 0; i < kept.count; i++) {
    const unsigned fd = (unsigned)*list_at(&kept, int, i);
    if (fd < next) continue;
    if (fd > next) sys(close_range, next, fd - 1, 0);
    next = fd + 1;
  }
  sys(close_range, next, ~0u, 0);
}

/* Which open files of the program the caller replaces. */
static int find_inherited(struct restore *restore) {
  const struct image *image = &restore->image;
  restore->inherited = arena_allocate(&restore->arena, image->descriptions.count * sizeof(int) + 1);
  for (size_t i = 0; i < image->descriptions.count; i++) restore->inherited[i] = -1;
  for (uint32_t i = 0; i < restore->options.inherited_count; i++) {
    const struct inherited_descriptor *inherited = &restore->options.inherited[i];
    bool found = false;
    for (size_t k = 0; k < image->descriptors.count; k++) {
      const struct warp_descriptor_record *descriptor = view_at(&image->descriptors, struct warp_descriptor_record, k);
      if (descriptor->number != inherited->number || descriptor->description >= image->descriptions.count) continue;
      restore->inherited[descriptor->description] = inherited->fd;
      found = true;
    }
    if (!found) return fail(&restore->failure, "--inherit-fd: the program has no descriptor %u: `warp-tool fds` lists those of an image", inherited->number);
  }
  return 0;
}

static const struct warp_description_record *description_at(const struct restore *restore, size_t index) { return view_at(&restore->image.descriptions, struct warp_description_record, index); }

/* Paths below /proc name the process that was: they mean the one that is. */
static void current_path(const struct restore *restore, const char *path, char *ret, size_t size) {
  char old[64];
  size_t n = format(old, sizeof old, "/proc/%u", view_at(&restore->image.process, struct warp_process_record, 0)->pid);
  if (starts_with(path, old) && (path[n] == '/' || path[n] == 0)) {
    format(ret, size, "/proc/%ld%s", sys(getpid), path + n);
  } else {
    format(ret, size, "%s", path);
  }
}

/* ---- policies ---- */

int read_policies(struct restore *restore) {
  const char *path = restore->options.policies;
  size_t size = 0;
  policies_init(&restore->policies, &restore->arena);
  if (path[0] == 0) return 0;
  const char *text = policies_read(&restore->arena, path, &size, &restore->failure);
  return text == NULL ? -1 : policies_parse(&restore->policies, text, size, path, &restore->failure);
}

struct policy_subject descriptor_subject(const struct restore *restore, uint32_t number, const struct warp_description_record *description) {
  const struct image *image = &restore->image;
  struct policy_subject subject = {.number = number, .mode = description->mode, .callers = description->kind == WARP_DESCRIPTION_CALLER};
  subject.path = view_string(&image->descriptions, (struct arena *)&restore->arena, description->path);
  if (description->kind == WARP_DESCRIPTION_SOCKET && description->detail < image->sockets.count) {
    const struct warp_socket_record *socket = view_at(&image->sockets, struct warp_socket_record, description->detail);
    subject.family = socket->family;
    subject.listening = socket->state == WARP_SOCKET_LISTENING;
    subject.local = view_bytes(&image->sockets, socket->local, &subject.local_size);
    subject.remote = view_bytes(&image->sockets, socket->remote, &subject.remote_size);
  }
  return subject;
}

int fail_descriptor(struct restore *restore, const struct policy_subject *subject, const struct treatment *treatment, uint32_t action, const char *text, ...) {
  char line[1600], policy[700];
  va_list arguments;
  va_start(arguments, text);
  format_list(line, sizeof line, text, arguments);
  va_end(arguments);
  if (treatment->action == WARP_POLICY_IGNORE) return fail(&restore->failure, "descriptor %u: %s", subject->number, line);
  policy_write(policy, sizeof policy, subject, action);
  return fail(&restore->failure, "descriptor %u: %s; or give --policies a file with these lines: %s", subject->number, line, policy);
}

/* What becomes of each descriptor: the first rule of this restore, else that of the image. */
static int find_treatments(struct restore *restore) {
  const struct image *image = &restore->image;
  restore->treatments = arena_allocate(&restore->arena, image->descriptors.count * sizeof *restore->treatments + 1);
  restore->replaced = arena_allocate(&restore->arena, image->descriptions.count * sizeof *restore->replaced + 1);
  if (restore->policies.rules.count == 0 && image->policies.count == 0) return 0;
  for (size_t i = 0; i < image->descriptors.count; i++) {
    const struct warp_descriptor_record *descriptor = view_at(&image->descriptors, struct warp_descriptor_record, i);
    if (restore->inherited[descriptor->description] >= 0) continue;
    const struct policy_subject subject = descriptor_subject(restore, descriptor->number, description_at(restore, descriptor->description));
    const struct policy_rule *rule = policies_find(&restore->policies, &subject);
    struct treatment *treatment = &restore->treatments[i];
    if (rule != NULL) {
      *treatment = (struct treatment){rule->action, rule->quiet};
      log_info("descriptor %u (%s): %s, as %s:%u says", descriptor->number, subject.path, policy_action_name(rule->action), rule->file, rule->line);
    } else if (descriptor->policy > 0) {
      const struct warp_policy_record *record = view_at(&image->policies, struct warp_policy_record, descriptor->policy - 1);
      *treatment = (struct treatment){record->action, (record->flags & WARP_POLICY_QUIET) != 0};
    }
    if (treatment->action == WARP_POLICY_ERROR) {
      char policy[700];
      policy_write(policy, sizeof policy, &subject, WARP_POLICY_CLOSE);
      return fail(&restore->failure, "descriptor %u (%s) must not come back, says the policy at %s:%u: change that, or put these lines before it: %s", descriptor->number, subject.path,
                  rule == NULL ? restore->image.path : rule->file, rule == NULL ? descriptor->policy : rule->line, policy);
    }
  }
  return 0;
}

int print_treatments(struct restore *restore) {
  const struct image *image = &restore->image;
  if (read_policies(restore) < 0 || find_inherited(restore) < 0 || find_treatments(restore) < 0) return -1;
  for (size_t i = 0; i < image->descriptors.count; i++) {
    char line[64];
    if (restore->treatments[i].action == 0) continue;
    const size_t n = format(line, sizeof line, "%u %s\n", view_at(&image->descriptors, struct warp_descriptor_record, i)->number, policy_action_name(restore->treatments[i].action));
    const long error = write_fully(1, line, n);
    if (error < 0) return fail(&restore->failure, "standard output cannot be written: %s", error_text(error));
  }
  return 0;
}

/* ---- files ---- */

static bool has_directory(const char *path) {
  char directory[4300];
  struct file_status status;
  format(directory, sizeof directory, "%s", path);
  char *slash = (char *)find_last_character(directory, '/');
  if (slash == NULL || slash == directory) return true;
  *slash = 0;
  return sys(newfstatat, AT_FDCWD_, directory, &status, 0) == 0 && (status.mode & S_IFMT) == S_IFDIR;
}

/* Why what is at the path now is not what the program had open: one sentence, empty when it is. */
static void compare_file(const struct warp_description_record *description, int fd, const struct file_status *status, char *ret, size_t size) {
  const uint64_t now = (uint64_t)status->size;
  const bool appends = (description->status_flags & O_APPEND) != 0 && (description->status_flags & ACCESS_MODE) == O_WRONLY;
  ret[0] = 0;
  if (!appends && description->offset > status->size && (uint64_t)description->offset <= description->size) {
    format(ret, size, "is shorter than where the program stands in it: %lu bytes, and it goes on at %ld", now, description->offset);
  } else if (description->sample_hash != 0 && now < description->size) {
    format(ret, size, "has changed: %lu bytes, and %lu at the checkpoint", now, description->size);
  } else if (description->sample_hash != 0 && (now != description->size || file_mtime_ns(status) != description->mtime_ns) && file_sample_hash(fd, description->size) != description->sample_hash) {
    /* What only grows begins as it did. */
    format(ret, size, "has changed since the checkpoint");
  }
}

static int open_path(struct restore *restore, const struct warp_description_record *description, uint32_t number, const char *path, const struct treatment *treatment) {
  char now[4300], problem[160];
  current_path(restore, path, now, sizeof now);
  const bool by_name = treatment->action == WARP_POLICY_REOPEN, is_path = (description->status_flags & O_PATH) != 0;
  const uint32_t type = description->mode & S_IFMT;
  const bool written = type == S_IFREG && !is_path && (description->status_flags & ACCESS_MODE) != O_RDONLY;
  const int flags = (int)((description->status_flags & KEPT_FLAGS) | O_CLOEXEC | O_NOCTTY | (type == S_IFIFO ? O_NONBLOCK : 0u));
  const struct policy_subject subject = descriptor_subject(restore, number, description);
  struct file_status status;
  long fd = sys(newfstatat, AT_FDCWD_, now, &status, 0);
  if (fd == 0 && type == S_IFREG && !is_path && (status.mode & S_IFMT) != type) return fail_descriptor(restore, &subject, treatment, WARP_POLICY_IGNORE, "%s is another kind of file than at the checkpoint: put that back", now);
  if (fd == 0) fd = open_file(now, flags, 0);
  if (fd == -ENOENT && by_name && written) fd = open_file(now, flags | O_CREAT, description->mode & 0777);
  if (fd == -ENOENT && !has_directory(now)) return fail_descriptor(restore, &subject, treatment, WARP_POLICY_IGNORE, "%s cannot be opened: its directory is not there: make it", now);
  if (fd < 0) return fail_descriptor(restore, &subject, treatment, written && !by_name && fd == -ENOENT ? WARP_POLICY_REOPEN : WARP_POLICY_IGNORE, "%s cannot be opened: %s: put it there", now, error_text(fd));
  if (is_path || (type != S_IFREG && type != S_IFDIR)) return (int)fd;
  int64_t offset = description->offset;
  sys(fstat, fd, &status);
  if (type == S_IFREG) {
    compare_file(description, (int)fd, &status, problem, sizeof problem);
    if (problem[0] != 0 && treatment->action == 0) {
      sys(close, fd);
      return fail_descriptor(restore, &subject, treatment, WARP_POLICY_REOPEN, "%s %s: put it back as it was", now, problem);
    }
    if (problem[0] != 0 && !treatment->quiet) log_warn("descriptor %u: %s %s", number, now, problem);
    if (by_name && offset > status.size) offset = status.size;
  }
  if (offset > 0) sys(lseek, fd, offset, 0);
  return (int)fd;
}

/* A terminal: the same one when it is there, else the controlling one, else what the caller has. */
static int open_terminal(struct restore *restore, const struct warp_description_record *description, const char *path) {
  int flags = (int)((description->status_flags & KEPT_FLAGS) | O_CLOEXEC | O_NOCTTY);
  long fd = open_file(path, flags, 0);
  if (fd < 0) fd = open_file("/dev/tty", flags, 0);
  for (int i = 0; i < 3 && fd < 0; i++)
    if (restore->standard[i] >= 0) fd = sys(fcntl, restore->standard[i], F_DUPFD_CLOEXEC_, 3);
  return (int)fd;
}

/* ---- pipes ---- */

static int fill_pipe(struct restore *restore, const struct warp_pipe_record *pipe, int writer) {
  size_t size;
  const uint8_t *data = view_bytes(&restore->image.pipes, pipe->data, &size);
  if (pipe->capacity > 0) sys(fcntl, writer, F_SETPIPE_SZ, pipe->capacity);
  long flags = sys(fcntl, writer, F_GETFL, 0);
  sys(fcntl, writer, F_SETFL, flags | O_NONBLOCK);
  long error = 0;
  if ((pipe->flags & WARP_PIPE_PACKETS) == 0) {
    error = size == 0 ? 0 : write_fully(writer, data, size);
  } else {
    for (size_t at = 0; at + 8 <= size && error >= 0;) {
      uint32_t length;
      copy_bytes(&length, data + at, sizeof length);
      if (length > size - at - 8) break;
      error = sys(write, writer, data + at + 8, length);
      at += 8 + round_up(length, 8);
    }
  }
  sys(fcntl, writer, F_SETFL, flags);
  if (error < 0) return fail(&restore->failure, "%lu bytes cannot be put back into a pipe: %s: raise /proc/sys/fs/pipe-max-size", size, error_text(error));
  return 0;
}

struct pipe_ends {
  int reader;
  int writer;
  bool made;
  bool reader_taken;
  bool writer_taken;
};

static int make_pipe(struct restore *restore, uint32_t index, struct pipe_ends *ends, const struct policy_subject *subject, const struct treatment *treatment) {
  const struct warp_pipe_record *pipe = view_at(&restore->image.pipes, struct warp_pipe_record, index);
  char *path = view_string(&restore->image.pipes, &restore->arena, pipe->path);
  int32_t fds[2];
  if (path[0] != 0) {
    /* Opened for both at first, so that no open waits for the other side. */
    long fd = open_file(path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0) return fail_descriptor(restore, subject, treatment, WARP_POLICY_IGNORE, "the FIFO %s cannot be opened: %s: make it with mkfifo", path, error_text(fd));
    ends->made = true;
    ends->reader = ends->writer = move_descriptor(restore, (int)fd);
    return fill_pipe(restore, pipe, ends->writer);
  }
  long error = sys(pipe2, fds, O_CLOEXEC | ((pipe->flags & WARP_PIPE_PACKETS) != 0 ? O_DIRECT : 0));
  if (error < 0) return fail(&restore->failure, "cannot make a pipe: %s", error_text(error));
  ends->made = true;
  ends->reader = move_descriptor(restore, fds[0]);
  ends->writer = move_descriptor(restore, fds[1]);
  return fill_pipe(restore, pipe, ends->writer);
}

static int pipe_end(struct restore *restore, const struct warp_description_record *description, struct pipe_ends *pipes, uint32_t number, const struct treatment *treatment) {
  if (description->detail >= restore->image.pipes.count) return fail(&restore->failure, "%s: descriptor %u refers to pipe %u of %lu: the image is damaged", restore->image.path, number, description->detail, restore->image.pipes.count);
  struct pipe_ends *ends = &pipes[description->detail];
  const struct policy_subject subject = descriptor_subject(restore, number, description);
  if (!ends->made && make_pipe(restore, description->detail, ends, &subject, treatment) < 0) return -1;
  uint32_t access = description->status_flags & ACCESS_MODE;
  if (description->kind == WARP_DESCRIPTION_FIFO) {
    char *path = view_string(&restore->image.descriptions, &restore->arena, description->path);
    return open_path(restore, description, number, path, treatment);
  }
  /* The first description of an end is the one that pipe(2) made; another is opened through its link. */
  bool *taken = access == O_RDONLY ? &ends->reader_taken : &ends->writer_taken;
  if (access != O_RDWR && !*taken) {
    *taken = true;
    return (int)sys(fcntl, access == O_RDONLY ? ends->reader : ends->writer, F_DUPFD_CLOEXEC_, restore->lowest_own_descriptor);
  }
  char link[64];
  format(link, sizeof link, "/proc/self/fd/%d", access == O_RDONLY ? ends->reader : ends->writer);
  long fd = open_file(link, (int)(access | O_CLOEXEC | (description->status_flags & O_NONBLOCK)), 0);
  if (fd < 0) return fail(&restore->failure, "descriptor %u: the pipe cannot be opened: %s", number, error_text(fd));
  return (int)fd;
}

/* ---- kinds ---- */

static int make_timerfd(struct restore *restore, const struct warp_timerfd_record *timer, uint32_t flags) {
  long fd = sys(timerfd_create, timer->clock, O_CLOEXEC | (flags & O_NONBLOCK));
  if (fd < 0) return fail(&restore->failure, "cannot make a timerfd: %s", error_text(fd));
  struct {
    struct timespec64 interval, value;
  } setting = {{(int64_t)(timer->interval_ns / 1000000000u), (int64_t)(timer->interval_ns % 1000000000u)}, {(int64_t)(timer->value_ns / 1000000000u), (int64_t)(timer->value_ns % 1000000000u)}};
  uint32_t settime_flags = 0;
  if ((timer->settime_flags & TFD_TIMER_ABSTIME_) != 0 && timer->clock == CLOCK_REALTIME_ && timer->value_ns != 0) {
    /* An hour of the day, not a length of time. */
    uint64_t when = view_at(&restore->image.image, struct warp_image_record, 0)->realtime_ns + timer->value_ns;
    setting.value = (struct timespec64){(int64_t)(when / 1000000000u), (int64_t)(when % 1000000000u)};
    settime_flags = timer->settime_flags;
  }
  /* A periodic timer whose expirations nobody reads stands still until they are read: it has expired. */
  if (timer->value_ns == 0 && timer->interval_ns != 0) setting.value.nanoseconds = 1;
  if (timer->value_ns != 0 || timer->interval_ns != 0) sys(timerfd_settime, fd, settime_flags, &setting, NULL);
  if (timer->ticks > 0) {
    long error = sys(ioctl, fd, TFD_IOC_SET_TICKS_, &timer->ticks);
    if (error < 0) {
      /* Without that ioctl (CONFIG_CHECKPOINT_RESTORE): it expires at once, once. */
      setting.value = (struct timespec64){0, 1};
      sys(timerfd_settime, fd, 0, &setting, NULL);
    }
  }
  return (int)fd;
}

static int make_inotify(struct restore *restore, uint32_t index, const struct warp_description_record *description) {
  long fd = sys(inotify_init1, O_CLOEXEC | (description->status_flags & O_NONBLOCK));
  if (fd < 0) return fail(&restore->failure, "cannot make an inotify descriptor: %s: raise fs.inotify.max_user_instances", error_text(fd));
  const struct view *watches = &restore->image.inotify_watches;
  /* Watch descriptors count up from 1: those that the program has given up are made and removed. */
  for (uint32_t wanted = 1, left = 1; left > 0; wanted++) {
    left = 0;
    const struct warp_inotify_watch_record *found = NULL;
    for (size_t i = 0; i < watches->count; i++) {
      const struct warp_inotify_watch_record *watch = view_at(watches, struct warp_inotify_watch_record, i);
      if (watch->description != index || watch->watch < wanted) continue;
      left++;
      if (watch->watch == wanted) found = watch;
    }
    if (left == 0) break;
    const char *path = found == NULL ? "/" : view_string(watches, &restore->arena, found->path);
    long watch = sys(inotify_add_watch, fd, path, found == NULL ? 0x200u /* IN_DELETE */ : found->mask & 0x84000fffu /* with IN_ONESHOT, IN_EXCL_UNLINK */);
    if (watch >= 0 && found == NULL) sys(inotify_rm_watch, fd, watch);
    if (watch >= 0 && (found == NULL || watch == (long)wanted)) continue;
    sys(close, fd);
    if (watch < 0) return fail(&restore->failure, "%s cannot be watched: %s: put it there", path, error_text(watch));
    return fail(&restore->failure, "the watch of %s has number %ld, and the program knows it as %u", path, watch, wanted);
  }
  /* Removing a watch leaves an IN_IGNORED event. */
  uint8_t events[4096];
  sys(fcntl, fd, F_SETFL, O_NONBLOCK);
  while (sys(read, fd, events, sizeof events) > 0) continue;
  sys(fcntl, fd, F_SETFL, description->status_flags & O_NONBLOCK);
  return (int)fd;
}

static int make_object(struct restore *restore, const struct warp_description_record *description, uint32_t number) {
  char link[64];
  if (description->detail >= restore->image.objects.count) return fail(&restore->failure, "%s: descriptor %u refers to object %u: the image is damaged", restore->image.path, number, description->detail);
  format(link, sizeof link, "/proc/self/fd/%d", restore->object_fds[description->detail]);
  long fd = open_file(link, (int)((description->status_flags & (ACCESS_MODE | O_APPEND | O_NONBLOCK)) | O_CLOEXEC), 0);
  if (fd < 0) return fail(&restore->failure, "descriptor %u: shared memory cannot be opened: %s", number, error_text(fd));
  if (description->offset > 0) sys(lseek, fd, description->offset, 0);
  return (int)fd;
}

static int make_description(struct restore *restore, uint32_t index, uint32_t number, struct pipe_ends *pipes, const struct treatment *treatment) {
  const struct image *image = &restore->image;
  const struct warp_description_record *description = description_at(restore, index);
  char *path = view_string(&image->descriptions, &restore->arena, description->path);
  long fd;
  switch (description->kind) {
    case WARP_DESCRIPTION_FILE:
    case WARP_DESCRIPTION_DIRECTORY:
    case WARP_DESCRIPTION_DEVICE:
      return open_path(restore, description, number, path, treatment);
    case WARP_DESCRIPTION_NOT_KEPT: {
      if (treatment->action == WARP_POLICY_REOPEN && path[0] == '/' && !starts_with(path, "/memfd:")) {
        if (ends_with(path, " (deleted)")) path[string_length(path) - 10] = 0;
        return open_path(restore, description, number, path, treatment);
      }
      const struct policy_subject subject = descriptor_subject(restore, number, description);
      return fail_descriptor(restore, &subject, treatment, WARP_POLICY_IGNORE, "%s was not kept at the checkpoint: take another", path);
    }
    case WARP_DESCRIPTION_TTY:
      fd = open_terminal(restore, description, path);
      return fd >= 0 ? (int)fd : fail(&restore->failure, "descriptor %u: no terminal in place of %s", number, path);
    case WARP_DESCRIPTION_PIPE:
    case WARP_DESCRIPTION_FIFO:
      return pipe_end(restore, description, pipes, number, treatment);
    case WARP_DESCRIPTION_SOCKET:
      return restore_socket(restore, description, number, treatment);
    case WARP_DESCRIPTION_EVENTFD: {
      const struct warp_eventfd_record *eventfd = view_at(&image->eventfds, struct warp_eventfd_record, description->detail);
      fd = sys(eventfd2, 0, O_CLOEXEC | (description->status_flags & O_NONBLOCK) | (eventfd->semaphore != 0 ? 1u : 0u));
      if (fd >= 0 && eventfd->count > 0) sys(write, fd, &eventfd->count, sizeof eventfd->count);
      break;
    }
    case WARP_DESCRIPTION_EPOLL:
      fd = sys(epoll_create1, O_CLOEXEC);
      break;
    case WARP_DESCRIPTION_TIMERFD:
      return make_timerfd(restore, view_at(&image->timerfds, struct warp_timerfd_record, description->detail), description->status_flags);
    case WARP_DESCRIPTION_SIGNALFD:
      fd = sys(signalfd4, -1, &view_at(&image->signalfds, struct warp_signalfd_record, description->detail)->mask, sizeof(uint64_t), O_CLOEXEC | (description->status_flags & O_NONBLOCK));
      break;
    case WARP_DESCRIPTION_INOTIFY:
      return make_inotify(restore, index, description);
    case WARP_DESCRIPTION_OBJECT:
      return make_object(restore, description, number);
    default:
      return fail(&restore->failure, "%s: descriptor %u is of kind %u, which this restorer does not know: use warp-tool of the version that made the image", image->path, number, description->kind);
  }
  if (fd < 0) return fail(&restore->failure, "descriptor %u (%s) cannot be made: %s", number, path, error_text(fd));
  return (int)fd;
}

/* In place of what cannot be made. */
static int substitute(struct restore *restore, uint32_t index, uint32_t number, const struct treatment *treatment) {
  const struct warp_description_record *description = description_at(restore, index);
  if (!treatment->quiet) log_warn("%s; as a policy allows, the program gets something without content instead", restore->failure.text);
  restore->replaced[index] = true;
  restore->failure.text[0] = 0;
  long fd = description->kind == WARP_DESCRIPTION_SOCKET ? substitute_socket(restore, description->detail) : -EINVAL;
  if (fd < 0) fd = open_file("/dev/null", (int)((description->status_flags & ACCESS_MODE) | O_CLOEXEC), 0);
  return fd >= 0 ? (int)fd : fail(&restore->failure, "descriptor %u: /dev/null cannot be opened: %s", number, error_text(fd));
}

/* ---- epoll ---- */

/*
 * The kernel knows a watch by number and open file. Where the program has closed that number since, or given it to another
 * file, the number is lent to the watched file for the moment.
 */
static long add_watch(struct restore *restore, int epoll, int number, int target, const struct epoll_event *event) {
  if (number == target) return sys(epoll_ctl, epoll, EPOLL_CTL_ADD, number, event);
  long flags = sys(fcntl, number, F_GETFD, 0);
  long saved = flags >= 0 ? sys(fcntl, number, F_DUPFD_CLOEXEC_, restore->lowest_own_descriptor) : -1;
  long error = sys(dup3, target, number, O_CLOEXEC);
  if (error >= 0) error = sys(epoll_ctl, epoll, EPOLL_CTL_ADD, number, event);
  if (saved >= 0) {
    sys(dup3, saved, number, flags != 0 ? O_CLOEXEC : 0);
    sys(close, saved);
  } else {
    sys(close, number);
  }
  return error;
}

#define EPOLL_ALWAYS (EPOLLERR | EPOLLHUP)

/*
 * A one-shot watch that has fired shows no events. It is added with all of them and fires, before any other watch
 * of that epoll instance could; what is not ready for anything stays on, and may wake the program once, as epoll(7) allows.
 */
static bool has_fired(const struct warp_epoll_watch_record *watch) { return (watch->events & EPOLLONESHOT) != 0 && (watch->events & EPOLL_ALWAYS) == 0; }

/* Whether the program has the descriptor: a policy may have closed it. */
static bool is_open(const struct restore *restore, size_t descriptor) { return restore->treatments[descriptor].action != WARP_POLICY_CLOSE; }

static bool is_callers(const struct restore *restore, size_t description) { return restore->inherited[description] >= 0 || description_at(restore, description)->kind == WARP_DESCRIPTION_CALLER; }

static int restore_watch(struct restore *restore, const int *first_number, const struct warp_epoll_watch_record *watch) {
  const bool fired = has_fired(watch);
  const struct epoll_event event = {.events = watch->events | (fired ? EPOLLIN | EPOLLOUT : 0), .data = watch->data};
  int epoll = first_number[watch->description], target = first_number[watch->target];
  if (epoll < 0 || target < 0 || restore->replaced[watch->description]) return 0;
  for (size_t k = 0; k < restore->image.descriptors.count; k++) {
    const struct warp_descriptor_record *descriptor = view_at(&restore->image.descriptors, struct warp_descriptor_record, k);
    if (descriptor->number == watch->fd && descriptor->description == watch->target && is_open(restore, k)) target = (int)watch->fd;
  }
  long error = add_watch(restore, epoll, (int)watch->fd, target, &event);
  /* What the caller gives may be a plain file, which cannot be watched. */
  if (error == -EPERM && (is_callers(restore, watch->target) || restore->replaced[watch->target])) {
    log_info("descriptor %u is a file now, and always ready: it is no longer watched", watch->fd);
  } else if (error < 0) {
    return fail(&restore->failure, "descriptor %d (epoll) cannot watch descriptor %u: %s", epoll, watch->fd, error_text(error));
  } else if (fired) {
    struct epoll_event happened;
    sys(epoll_wait, epoll, &happened, 1, 0);
  }
  return 0;
}

static int restore_watches(struct restore *restore, const int *first_number) {
  const struct view *watches = &restore->image.epoll_watches;
  for (int fired = 1; fired >= 0; fired--)
    for (size_t i = 0; i < watches->count; i++) {
      const struct warp_epoll_watch_record *watch = view_at(watches, struct warp_epoll_watch_record, i);
      if (watch->description >= restore->image.descriptions.count || watch->target >= restore->image.descriptions.count) return fail(&restore->failure, "%s: epoll watch %lu is out of range: the image is damaged", restore->image.path, i);
      if (has_fired(watch) == (fired == 1) && restore_watch(restore, first_number, watch) < 0) return -1;
    }
  return 0;
}

/* ---- all ---- */

int restore_descriptors(struct restore *restore) {
  const struct image *image = &restore->image;
  struct pipe_ends *pipes = arena_allocate(&restore->arena, image->pipes.count * sizeof *pipes + 1);
  int *first_number = arena_allocate(&restore->arena, image->descriptions.count * sizeof *first_number + 1);
  bool standard_used[3] = {false, false, false};
  for (size_t i = 0; i < image->descriptions.count; i++) first_number[i] = -1;
  if (find_inherited(restore) < 0 || find_treatments(restore) < 0) return -1;
  /* The caller's streams first, while 0, 1 and 2 are still the caller's. */
  for (size_t i = 0; i < image->descriptors.count; i++) {
    const struct warp_descriptor_record *descriptor = view_at(&image->descriptors, struct warp_descriptor_record, i);
    if (descriptor->description >= image->descriptions.count) return fail(&restore->failure, "%s: descriptor %u refers to open file %u of %lu: the image is damaged", image->path, descriptor->number, descriptor->description, image->descriptions.count);
    const struct warp_description_record *description = description_at(restore, descriptor->description);
    if (!is_open(restore, i)) continue;
    int fd = first_number[descriptor->description];
    bool made = false;
    if (restore->inherited[descriptor->description] >= 0) {
      fd = restore->inherited[descriptor->description];
    } else if (description->kind == WARP_DESCRIPTION_CALLER) {
      fd = description->detail <= 2 ? restore->standard[description->detail] : -1;
      /* A stream that the caller has closed stays closed. */
      if (fd < 0) continue;
    } else if (fd < 0) {
      const struct treatment *treatment = &restore->treatments[i];
      fd = make_description(restore, descriptor->description, descriptor->number, pipes, treatment);
      if (fd < 0 && treatment->action == WARP_POLICY_IGNORE) fd = substitute(restore, descriptor->description, descriptor->number, treatment);
      if (fd < 0) return -1;
      made = true;
    }
    if (descriptor->number <= 2) standard_used[descriptor->number] = true;
    if (fd != (int)descriptor->number) {
      long error = sys(dup3, fd, descriptor->number, (descriptor->flags & 1) != 0 ? O_CLOEXEC : 0);
      if (error < 0) return fail(&restore->failure, "descriptor %u cannot be set: %s: raise RLIMIT_NOFILE", descriptor->number, error_text(error));
      if (made) sys(close, fd);
    } else {
      sys(fcntl, fd, F_SETFD, descriptor->flags & 1);
    }
    if (first_number[descriptor->description] >= 0) continue;
    first_number[descriptor->description] = (int)descriptor->number;
    if (is_callers(restore, descriptor->description) || (description->status_flags & O_PATH) != 0) continue;
    sys(fcntl, descriptor->number, F_SETFL, description->status_flags & SETTABLE_FLAGS);
    if (description->owner != 0) {
      bool self = description->owner == (int32_t)view_at(&image->process, struct warp_process_record, 0)->pid;
      sys(fcntl, descriptor->number, F_SETOWN, self ? sys(getpid) : description->owner);
    }
    if (description->owner_signal != 0) sys(fcntl, descriptor->number, F_SETSIG, description->owner_signal);
  }
  /* Not before: something else would have taken the number. */
  for (int i = 0; i < 3; i++)
    if (!standard_used[i]) sys(close, i);
  if (restore_watches(restore, first_number) < 0) return -1;
  close_unused_pairs(restore);
  for (size_t i = 0; i < image->pipes.count; i++) {
    if (!pipes[i].made) continue;
    sys(close, pipes[i].reader);
    if (pipes[i].writer != pipes[i].reader) sys(close, pipes[i].writer);
  }
  log_debug("%lu descriptors of %lu open files are back", image->descriptors.count, image->descriptions.count);
  return 0;
}

/* struct flock of 64-bit machines. */
struct file_lock {
  int16_t type;
  int16_t whence;
  int64_t start;
  int64_t length;
  int32_t pid;
};

/* Whether the file of a lock is one that the program has now. */
static bool is_there(const struct restore *restore, uint32_t number) {
  for (size_t i = 0; i < restore->image.descriptors.count; i++) {
    const struct warp_descriptor_record *descriptor = view_at(&restore->image.descriptors, struct warp_descriptor_record, i);
    if (descriptor->number == number) return is_open(restore, i) && !restore->replaced[descriptor->description];
  }
  return false;
}

int restore_locks(struct restore *restore) {
  const struct image *image = &restore->image;
  for (size_t i = 0; i < image->objects.count; i++) {
    const struct warp_object_record *object = view_at(&image->objects, struct warp_object_record, i);
    if (restore->object_fds[i] < 0 || object->kind != WARP_OBJECT_MEMFD || object->seals <= 1) continue;
    long error = sys(fcntl, restore->object_fds[i], F_ADD_SEALS_, object->seals);
    if (error < 0) log_warn("shared memory object %lu cannot be sealed again: %s", i, error_text(error));
  }
  for (size_t i = 0; i < image->locks.count; i++) {
    const struct warp_lock_record *lock = view_at(&image->locks, struct warp_lock_record, i);
    if (!is_there(restore, lock->fd)) continue;
    long error;
    if (lock->kind == WARP_LOCK_FLOCK) {
      error = sys(flock, lock->fd, (lock->exclusive != 0 ? 2 : 1) | 4 /* LOCK_NB */);
    } else {
      const struct file_lock wanted = {.type = lock->exclusive != 0 ? 1 : 0, .start = (int64_t)lock->start, .length = lock->end == UINT64_MAX ? 0 : (int64_t)(lock->end - lock->start + 1)};
      error = sys(fcntl, lock->fd, lock->kind == WARP_LOCK_OFD ? 37 /* F_OFD_SETLK */ : F_SETLK, &wanted);
    }
    if (error < 0) return fail(&restore->failure, "the lock that descriptor %u held cannot be taken: %s: another process holds it; end that first", lock->fd, error_text(error));
  }
  return 0;
}
