/* Signal dispositions, queued signals and POSIX timers. */
#include "engine.h"

#define SIGNAL_COUNT 64
#define SIGEV_THREAD_ID_ 4

/* ---- queued signals ---- */

struct dequeue {
  struct capture *capture;
  struct slot *slot; /* NULL: signals sent to the process */
  uint64_t mask;
};

static uint64_t pending_mask(uint32_t tid, const char *field) {
  char path[64], text[4096];
  format(path, sizeof path, "/proc/self/task/%u/status", tid);
  if (read_small_file(path, text, sizeof text) <= 0) return 0;
  const char *at = find_string(text, field);
  if (at == NULL) return 0;
  at += string_length(field);
  return parse_hex(&at) & ~(1ul << (CAPTURE_SIGNAL - 1));
}

/*
 * Takes the queued signals one by one, with their information. A thread's own are taken by itself (the kernel gives those
 * first), the process's by the helper, which has none of its own.
 */
static long dequeue(void *argument) {
  struct dequeue *work = argument;
  struct capture *capture = work->capture;
  const char *field = work->slot != NULL ? "\nSigPnd:\t" : "\nShdPnd:\t";
  uint32_t tid = work->slot != NULL ? work->slot->tid : helper_tid;
  for (uint64_t mask; (mask = pending_mask(tid, field)) != 0;) {
    mask &= -mask; /* the lowest: the order in which the kernel delivers */
    struct warp_pending_signal_record signal;
    fill_bytes(&signal, 0, sizeof signal);
    const struct timespec64 now = {0, 0};
    if (sys(rt_sigtimedwait, &mask, signal.siginfo, &now, sizeof mask) < 0) break;
    signal.tid = work->slot != NULL ? tid : 0;
    struct warp_pending_signal_record *record = table_add(&capture->pending_signals);
    *record = signal;
  }
  return 0;
}

static long requeue(void *argument) {
  const struct dequeue *work = argument;
  uint32_t tid = work->slot == NULL ? 0 : work->slot->tid;
  long pid = sys(getpid);
  for (size_t i = 0; i < work->capture->pending_signals.records.count; i++) {
    const struct warp_pending_signal_record *signal = table_at(&work->capture->pending_signals, struct warp_pending_signal_record, i);
    if (signal->tid != tid) continue;
    int32_t number;
    copy_bytes(&number, signal->siginfo, sizeof number);
    long error = tid != 0 ? sys(rt_tgsigqueueinfo, pid, tid, number, signal->siginfo) : sys(rt_sigqueueinfo, pid, number, signal->siginfo);
    if (error < 0) log_warn("queued signal %d could not be put back: %s", number, error_text(error));
  }
  return 0;
}

void requeue_signals(struct capture *capture) {
  if (capture->pending_signals.records.count == 0) return;
  for (size_t i = 0; i < capture->freeze->count; i++) {
    struct slot *slot = &capture->freeze->slots[i];
    if (slot->state != SLOT_PARKED) continue;
    struct dequeue own = {.capture = capture, .slot = slot};
    freeze_call(slot, requeue, &own);
  }
  /* The kernel lets only the leader send the process signals that look like another sender's. */
  struct dequeue shared = {.capture = capture};
  struct slot *leader = &capture->freeze->slots[0];
  if (leader->state == SLOT_PARKED) {
    freeze_call(leader, requeue, &shared);
  } else {
    requeue(&shared);
  }
  capture->pending_signals.records.count = 0;
}

/* ---- timers ---- */

static const char *timer_field(const char *at, const char *name) {
  const char *found = find_string(at, name);
  return found == NULL ? NULL : found + string_length(name);
}

static bool less_timer(const void *a, const void *b) { return ((const struct warp_timer_record *)a)->id < ((const struct warp_timer_record *)b)->id; }

static int capture_timers(struct capture *capture) {
  size_t size;
  long error;
  const char *at = read_whole_file(&capture->arena, "/proc/self/timers", &size, &error);
  if (at == NULL) {
    log_debug("POSIX timers cannot be listed (/proc/self/timers: %s)", error_text(error));
    return 0;
  }
  while ((at = timer_field(at, "ID: ")) != NULL) {
    struct warp_timer_record timer;
    fill_bytes(&timer, 0, sizeof timer);
    timer.id = (int32_t)parse_signed(&at);
    const char *signal = timer_field(at, "signal: "), *notify = timer_field(at, "notify: "), *clock = timer_field(at, "ClockID: ");
    if (signal == NULL || notify == NULL || clock == NULL) return fail(capture->failure, "/proc/self/timers: timer %d is not described as expected", timer.id);
    timer.number = (uint32_t)parse_decimal(&signal);
    signal++;
    timer.value = parse_hex(&signal);
    timer.notify = starts_with(notify, "none") ? 1 : starts_with(notify, "thread") ? 2 : 0;
    const char *owner = find_character(notify, '/') + 1;
    if (starts_with(owner, "tid.")) {
      owner += 4;
      timer.notify |= SIGEV_THREAD_ID_;
      timer.tid = (uint32_t)parse_decimal(&owner);
    }
    timer.clock = (uint32_t)parse_signed(&clock);
    struct {
      struct timespec64 interval, value;
    } setting = {{0, 0}, {0, 0}};
    sys(timer_gettime, timer.id, &setting);
    timer.value_ns = (uint64_t)setting.value.seconds * 1000000000u + (uint64_t)setting.value.nanoseconds;
    timer.interval_ns = (uint64_t)setting.interval.seconds * 1000000000u + (uint64_t)setting.interval.nanoseconds;
    struct warp_timer_record *record = table_add(&capture->timers);
    *record = timer;
    at = clock;
  }
  list_sort(&capture->timers.records, less_timer);
  return 0;
}

int capture_signals(struct capture *capture) {
  for (uint32_t number = 1; number <= SIGNAL_COUNT; number++) {
    struct arch_sigaction action;
    if (number == CAPTURE_SIGNAL) {
      action = *freeze_program_action();
    } else if (sys(rt_sigaction, number, NULL, &action, sizeof action.mask) < 0) {
      continue;
    }
    if (action.handler == 0 && action.flags == 0 && action.mask == 0) continue;
    struct warp_signal_action_record *record = table_add(&capture->signal_actions);
    *record = (struct warp_signal_action_record){number, 0, action.handler, action.flags, action.restorer, action.mask};
  }
  /* Timers before queued signals: taking a timer's signal from the queue would start its next interval. */
  if (capture_timers(capture) < 0) return -1;
  for (size_t i = 0; i < capture->freeze->count; i++) {
    struct slot *slot = &capture->freeze->slots[i];
    if (slot->state != SLOT_PARKED || pending_mask(slot->tid, "\nSigPnd:\t") == 0) continue;
    struct dequeue own = {.capture = capture, .slot = slot};
    freeze_call(slot, dequeue, &own);
  }
  struct dequeue shared = {.capture = capture};
  dequeue(&shared);
  log_debug("%lu signal dispositions, %lu queued signals, %lu POSIX timers", capture->signal_actions.records.count, capture->pending_signals.records.count, capture->timers.records.count);
  return 0;
}
