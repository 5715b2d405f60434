/* One checkpoint, from the request to the durable image. */
#include <linux/prctl.h>
#include <linux/wait.h>

#include "java.h"
#include "javascript.h"

static struct capture the_capture;

/* ---- where the image goes ---- */

/* A file without a name where the file system has such files. */
struct target {
  char directory[4096];
  char path[4200];
  char temporary[4200]; /* empty: the file has no name yet */
  bool made_directory;
  int fd;
};

static int target_open(struct target *target, const char *directory, struct failure *failure) {
  target->fd = -1;
  format(target->directory, sizeof target->directory, "%s", directory);
  format(target->path, sizeof target->path, "%s/core.img", directory);
  long made = sys(mkdirat, AT_FDCWD_, directory, 0700);
  target->made_directory = made == 0;
  /* The program's umask is not the engine's: the image must be readable by its owner, and by nobody else. */
  if (made == 0) sys(fchmodat, AT_FDCWD_, directory, 0700);
  if (made < 0 && made != -EEXIST) return fail(failure, "cannot make the directory %s: %s: name one that user %ld can write in", directory, error_text(made), sys(geteuid));
  long fd = open_file(directory, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL) {
    format(target->temporary, sizeof target->temporary, "%s/.core.img.%ld", directory, sys(getpid));
    sys(unlinkat, AT_FDCWD_, target->temporary, 0);
    fd = open_file(target->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) target->temporary[0] = 0;
  }
  if (fd < 0) return fail(failure, "cannot create %s: %s: name a directory that user %ld can write in", target->path, error_text(fd), sys(geteuid));
  sys(fchmod, fd, 0600);
  target->fd = (int)fd;
  return 0;
}

static void target_discard(struct target *target) {
  if (target->temporary[0] != 0) sys(unlinkat, AT_FDCWD_, target->temporary, 0);
  if (target->fd >= 0) sys(close, target->fd);
  if (target->made_directory) sys(unlinkat, AT_FDCWD_, target->directory, 0x200 /* AT_REMOVEDIR */);
  target->fd = -1;
}

static int target_commit(struct target *target, struct failure *failure) {
  long error = sys(fsync, target->fd);
  if (error < 0) return fail(failure, "cannot make %s durable: %s", target->path, error_text(error));
  if (target->temporary[0] == 0) {
    char self[64];
    format(self, sizeof self, "/proc/thread-self/fd/%d", target->fd);
    format(target->temporary, sizeof target->temporary, "%s/.core.img.%ld", target->directory, sys(getpid));
    sys(unlinkat, AT_FDCWD_, target->temporary, 0);
    error = sys(linkat, AT_FDCWD_, self, AT_FDCWD_, target->temporary, 0x400 /* AT_SYMLINK_FOLLOW */);
    if (error < 0) {
      target->temporary[0] = 0;
      return fail(failure, "cannot name the image %s: %s", target->path, error_text(error));
    }
  }
  error = sys(renameat, AT_FDCWD_, target->temporary, AT_FDCWD_, target->path);
  if (error < 0) return fail(failure, "cannot name the image %s: %s", target->path, error_text(error));
  target->temporary[0] = 0;
  target->made_directory = false;
  long directory = open_file(target->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (directory >= 0) {
    sys(fsync, directory);
    sys(close, directory);
  }
  sys(close, target->fd);
  target->fd = -1;
  return 0;
}

/* ---- the whole ---- */

static void init_tables(struct capture *capture) {
  struct arena *arena = &capture->arena;
#define TABLE(name, type, record) table_init(&capture->name, arena, WARP_NOTE_##type, sizeof(struct warp_##record##_record))
  TABLE(image, IMAGE, image);
  TABLE(process, PROCESS, process);
  TABLE(threads, THREADS, thread);
  TABLE(vmas, VMAS, vma);
  TABLE(files, FILES, file);
  TABLE(objects, OBJECTS, object);
  TABLE(extents, EXTENTS, extent);
  TABLE(descriptors, DESCRIPTORS, descriptor);
  TABLE(descriptions, DESCRIPTIONS, description);
  TABLE(pipes, PIPES, pipe);
  TABLE(sockets, SOCKETS, socket);
  TABLE(epoll_watches, EPOLL_WATCHES, epoll_watch);
  TABLE(eventfds, EVENTFDS, eventfd);
  TABLE(timerfds, TIMERFDS, timerfd);
  TABLE(signalfds, SIGNALFDS, signalfd);
  TABLE(inotify_watches, INOTIFY_WATCHES, inotify_watch);
  TABLE(locks, LOCKS, lock);
  TABLE(signal_actions, SIGNAL_ACTIONS, signal_action);
  TABLE(pending_signals, PENDING_SIGNALS, pending_signal);
  TABLE(timers, TIMERS, timer);
  TABLE(tid_references, TID_REFERENCES, tid_reference);
  TABLE(guards, GUARDS, guard);
  TABLE(chunks, CHUNKS, chunk);
  TABLE(tags, TAGS, tag);
  TABLE(encrypted_chunks, CHUNKS, chunk);
  TABLE(policies, POLICIES, policy);
#undef TABLE
  list_init(&capture->object_sources, arena, sizeof(struct object_source));
  list_init(&capture->pieces, arena, sizeof(struct piece));
  list_init(&capture->runs, arena, sizeof(struct run));
  list_init(&capture->segments, arena, sizeof(struct segment));
}

const struct engine_tag *engine_tags;

static void capture_tags(struct capture *capture) {
  for (const struct engine_tag *tag = engine_tags; tag != NULL; tag = tag->next) {
    const struct warp_slice name = table_string(&capture->tags, tag->name), value = table_bytes(&capture->tags, tag->value, tag->size);
    struct warp_tag_record *record = table_add(&capture->tags);
    record->kind = tag->kind;
    record->name = name;
    record->value = value;
  }
}

/* Where a step that fails deep inside goes on: there is one capture at a time, and one thread that works on it. */
static void *failed_step_frame[5];

_Noreturn void capture_failed(void) { __builtin_longjmp(failed_step_frame, 1); }

static _Noreturn void out_of_memory(size_t size, long error) {
  fail(the_capture.failure, "the engine cannot map %lu bytes of memory in the process: %s: raise its memory limit", size, error_text(error));
  if ((uint32_t)sys(gettid) == helper_tid) capture_failed();
  freeze_call_failed();
}

/* The key of the image takes the place of the user's, of which nothing stays. */
static int begin_sealing(struct capture *capture) {
  char *const digits = capture->request->key_digits;
  if (digits == NULL) return 0;
  uint8_t key[KEY_SIZE], image_key[KEY_SIZE];
  static const uint8_t no_id[IMAGE_ID_SIZE];
  const size_t size = string_length(digits);
  const int result = key_parse(digits, size, "the request", false, key, capture->failure);
  wipe(digits, size);
  if (result == 0) {
    struct sealing *sealing = arena_allocate(&capture->arena, sizeof *sealing);
    sys(getrandom, sealing->salt, sizeof sealing->salt, 0);
    image_key_derive(key, sealing->salt, image_key);
    image_cipher_begin(&sealing->cipher, image_key, no_id);
    capture->sealing = sealing;
  }
  wipe(key, sizeof key);
  wipe(image_key, sizeof image_key);
  wipe_stack();
  return result;
}

static int take(struct capture *capture, struct target *target) {
  if (begin_sealing(capture) < 0 || capture_policies(capture) < 0) return -1;
  /* The program runs on meanwhile. */
  capture->fixed_calls = release_find_calls(&capture->arena);
  if (!capture->request->from_program) javascript_collect_garbage(capture->request);
  capture->stopping_ns = clock_ns(CLOCK_MONOTONIC_);
  if (freeze_threads(capture->freeze, capture->request, NULL, capture->failure) < 0) return -1;
  capture->frozen_ns = clock_ns(CLOCK_MONOTONIC_);
  /* A process that is not dumpable cannot read its own /proc files. Its threads, which could notice, stand still. */
  if (capture->dumpable != 1) sys(prctl, PR_SET_DUMPABLE, 1);
  log_debug("%lu threads stopped in %lu us", capture->freeze->count, (capture->frozen_ns - capture->stopping_ns) / 1000);
  freeze_forget_calls(capture->freeze);
  freeze_continue_calls(capture->freeze);
  capture->process_memory = (int)open_file("/proc/thread-self/mem", O_RDONLY | O_CLOEXEC, 0);
  if (capture->process_memory < 0) return fail(capture->failure, "cannot open /proc/PID/mem: %s: mount procfs", error_text(capture->process_memory));
  if (capture_process(capture) < 0 || capture_signals(capture) < 0) return -1;
  reading_begin(capture);
  capture_threads(capture);
  capture_image(capture);
  if (capture->sealing != NULL) copy_bytes(capture->sealing->cipher.image_id, table_at(&capture->image, struct warp_image_record, 0)->image_id, IMAGE_ID_SIZE);
  capture_tags(capture);
  if (capture_memory_areas(capture) < 0 || capture_mutexes(capture) < 0) return -1;
  if (capture_descriptors(capture) < 0) return -1;
  if (freeze_settle(capture->freeze, capture->request, capture->failure) < 0) return -1;
  capture->collected_ns = clock_ns(CLOCK_MONOTONIC_);
  if (capture_scan_memory(capture) < 0) return -1;
  capture->scanned_ns = clock_ns(CLOCK_MONOTONIC_);
  log_debug("%lu runs of memory, %lu bytes, found in %lu us", capture->runs.count, capture->content_end, (capture->scanned_ns - capture->collected_ns) / 1000);
  capture_kernel_notes(capture);
  capture->image_fd = target->fd;
  return 0;
}

static void capture_close(struct capture *capture) {
  if (capture->pagemap > 0) sys(close, capture->pagemap);
  if (capture->process_memory > 0) sys(close, capture->process_memory);
  for (size_t i = 0; i < capture->object_sources.count; i++) {
    const struct object_source *source = list_at(&capture->object_sources, struct object_source, i);
    if (source->fd >= 0) sys(close, source->fd);
  }
}

static void release(struct capture *capture) {
  javascript_go_on(false);
  reading_end(capture);
  if (capture->freeze->slots == NULL) return;
  requeue_signals(capture);
  freeze_release(capture->freeze);
}

/* Writes what has been taken and makes it durable. */
static int complete(struct capture *capture, struct target *target) {
  const struct request *request = capture->request;
  if (capture_write_image(capture) < 0) return -1;
  uint64_t written_ns = clock_ns(CLOCK_MONOTONIC_);
  if (target_commit(target, capture->failure) < 0) return -1;
  uint64_t durable_ns = clock_ns(CLOCK_MONOTONIC_);
  const uint64_t content_bytes = capture->content_end - capture->metadata_size, stored_bytes = capture->bytes_written - capture->metadata_size;
  const uint64_t hundredths = stored_bytes == 0 ? 100 : content_bytes * 100 / stored_bytes;
  client_send(request,
              "S{\"freeze_us\":%lu,\"collect_us\":%lu,\"scan_us\":%lu,\"write_us\":%lu,\"sync_us\":%lu,\"total_us\":%lu,\"paused_us\":%lu,\"bytes_written\":%lu,\"image_bytes\":%lu,\"content_bytes\":%lu,\"stored_bytes\":%lu,\"repeated_bytes\":%lu,\"compression\":\"%s\",\"encryption\":\"%s\",\"ratio\":%lu.%02lu,\"threads\":%lu,\"memory_areas\":%lu,\"segments\":%lu}",
              (capture->frozen_ns - capture->stopping_ns) / 1000, (capture->collected_ns - capture->frozen_ns) / 1000, (capture->scanned_ns - capture->collected_ns) / 1000, (written_ns - capture->scanned_ns) / 1000,
              (durable_ns - written_ns) / 1000, (durable_ns - capture->started_ns) / 1000, ((capture->released_ns != 0 ? capture->released_ns : durable_ns) - capture->stopping_ns) / 1000, capture->bytes_written,
              capture->file_end, content_bytes, stored_bytes, capture->repeated_bytes, request->lz4_level > 0 ? "lz4" : "none", capture->sealing != NULL ? "aes-256-gcm" : "none", hundredths / 100, hundredths % 100, capture->threads.records.count, capture->vmas.records.count, capture->segments.count);
  return 0;
}

/* 'H': the image is durable, and the process is held. 'D', which ends a request: everything is done, and the engine has given its memory back. */
static void send_image(const struct request *request, char what, const struct file_status *image) {
  client_send(request, "%c%lu %u %s/core.img", what, (uint64_t)image->size, warp_control.generation, request->directory);
}

/*
 * A program that is left running goes on at once: a forked child of the helper has the memory as it is now, and writes it.
 * Returns the child, 0 in it, or a negated errno where the kernel allows no child: then the program waits for the writing.
 * The child has no exit signal, so the program's own wait(2) does not see it.
 */
static long fork_writer(struct capture *capture) {
  if (!capture_prepare_fork(capture)) return -EOPNOTSUPP;
  capture_include_in_fork(capture, true);
  long child = sys(clone, 0, 0, 0, 0, 0);
  if (child != 0) {
    capture_include_in_fork(capture, false);
    return child;
  }
  helper_tid = (uint32_t)sys(gettid);
  sys(close, capture->process_memory);
  capture->process_memory = (int)open_file("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
  return 0;
}

static int wait_for_writer(long child, struct failure *failure) {
  int32_t status = 0;
  while (sys(wait4, child, &status, __WALL, NULL) == -EINTR) continue;
  if (status == 0) return 0;
  if ((status & 0x7f) == 0) return fail(failure, "the image could not be written"); /* the child has told why */
  return fail(failure, "the process that wrote the image was killed (signal %d): the memory limit may be too low for it", status & 0x7f);
}

int checkpoint(struct request *request, struct failure *failure) {
  struct capture *capture = &the_capture;
  struct target target;
  fill_bytes(capture, 0, sizeof *capture);
  fill_bytes(&target, 0, sizeof target);
  failure->text[0] = 0;
  capture->request = request;
  capture->failure = failure;
  capture->freeze = &engine_freeze;
  capture->started_ns = clock_ns(CLOCK_MONOTONIC_);
  arena_exhausted = NULL;
  init_tables(capture);
  struct file_status image = {.size = 0};
  int result = target_open(&target, request->directory, failure);
  if (result == 0) {
    capture->dumpable = sys(prctl, PR_GET_DUMPABLE);
    arena_exhausted = out_of_memory;
    result = __builtin_setjmp(failed_step_frame) == 0 ? take(capture, &target) : -1;
    long writer = result == 0 && request->leave_running ? fork_writer(capture) : -EINVAL;
    if (writer == 0) {
      capture->released_ns = clock_ns(CLOCK_MONOTONIC_);
      result = __builtin_setjmp(failed_step_frame) == 0 ? complete(capture, &target) : -1;
      reading_explain(capture);
      if (result < 0) client_send(request, "E%s", failure->text);
      target_discard(&target);
      sys(exit_group, result < 0 ? 1 : 0);
    }
    if (writer > 0) {
      if (capture->dumpable != 1) sys(prctl, PR_SET_DUMPABLE, 0);
      release(capture);
      java_go_on(JAVA_LEFT_RUNNING);
      /* The child has its own copy of the target, and answers the client. */
      target.made_directory = false;
      target.temporary[0] = 0;
      result = wait_for_writer(writer, failure);
      sys(fstat, target.fd, &image);
    } else if (result == 0) {
      result = __builtin_setjmp(failed_step_frame) == 0 ? complete(capture, &target) : -1;
      image.size = (int64_t)capture->file_end;
    }
    reading_explain(capture);
    if (result == 0 && request->confirm && !request->leave_running) {
      send_image(request, 'H', &image);
      if (!client_confirms(request)) result = fail(failure, "the process goes on, as its client has asked or has gone");
    }
    capture_close(capture);
    if (writer < 0 && capture->dumpable != 1) sys(prctl, PR_SET_DUMPABLE, 0);
    if (result == 0 && !request->leave_running) {
      send_image(request, 'D', &image);
      log_debug("the image is durable: process %ld ends", sys(getpid));
      sys(kill, sys(getpid), 9);
      sys(exit_group, 137); /* process 1 of a namespace cannot be killed from inside */
      for (;;) sys(pause);
    }
    release(capture);
    if (result == 0) java_go_on(JAVA_LEFT_RUNNING);
  }
  target_discard(&target);
  if (capture->sealing != NULL) wipe(capture->sealing, sizeof *capture->sealing);
  arena_release(&capture->arena);
  if (result == 0) send_image(request, 'D', &image);
  return result;
}
