/*
 * Node.js before a capture: V8 collects garbage, so that the image is as small as what lives and a restored program touches little of it.
 *
 * A thread that waits for events in its isolate's own loop is stopped there for a moment and gives the loop a handle, whose callback collects. It is the
 * loop that calls it, at a time when all that libuv and V8 can do may be done. The callback returns after the capture, so that no new garbage is made
 * meanwhile; in a restored process it first postpones what V8 wanted to do later. For V8, time has jumped, and its memory reducer, which begins
 * some seconds after a collection, would begin at once and touch all that lives.
 *
 * Functions of the program are found by the dynamic linker; libuv's are its stable interface; where one of V8's or Node.js's has another name there is no
 * collection. Programs without them have no event loop that is meant here.
 */
#include "javascript.h"

typedef void *opaque;
#define PROGRAM_FUNCTION extern __attribute__((weak))
PROGRAM_FUNCTION opaque current_isolate(void) __asm__("_ZN2v87Isolate10GetCurrentEv");
PROGRAM_FUNCTION void collect_all_garbage(opaque isolate) __asm__("_ZN2v87Isolate21LowMemoryNotificationEv");
/* Fills four numbers, and for that looks at every object: whatever sweeping the collection left to other threads is done then. */
PROGRAM_FUNCTION bool code_statistics(opaque isolate, size_t *ret) __asm__("_ZN2v87Isolate32GetHeapCodeAndMetadataStatisticsEPNS_18HeapCodeStatisticsE");
PROGRAM_FUNCTION opaque loop_of_isolate(opaque isolate) __asm__("_ZN4node19GetCurrentEventLoopEPN2v87IsolateE");
/* What Node.js has a timer call for a task that V8 wants to be run later. */
PROGRAM_FUNCTION void run_delayed_task(opaque timer) __asm__("_ZN4node22PerIsolatePlatformData17RunForegroundTaskEP10uv_timer_s");
PROGRAM_FUNCTION int uv_backend_fd(opaque loop);
PROGRAM_FUNCTION int uv_async_init(opaque loop, opaque handle, void (*callback)(opaque handle));
PROGRAM_FUNCTION int uv_async_send(opaque handle);
PROGRAM_FUNCTION void uv_close(opaque handle, void (*callback)(opaque handle));
PROGRAM_FUNCTION void uv_unref(opaque handle);
PROGRAM_FUNCTION size_t uv_handle_size(int type);
PROGRAM_FUNCTION int uv_handle_get_type(opaque handle);
PROGRAM_FUNCTION int uv_is_active(opaque handle);
PROGRAM_FUNCTION void uv_walk(opaque loop, void (*visit)(opaque handle, opaque argument), opaque argument);
PROGRAM_FUNCTION void uv_update_time(opaque loop);
PROGRAM_FUNCTION uint64_t uv_timer_get_due_in(opaque timer);
PROGRAM_FUNCTION void uv_timer_set_repeat(opaque timer, uint64_t milliseconds);
PROGRAM_FUNCTION int uv_timer_again(opaque timer);

/* enum uv_handle_type */
#define UV_ASYNC 1
#define UV_TIMER 13
/* uv_timer_t.timer_cb: behind what every handle has. */
#define TIMER_CALLBACK 96
#define TIMER_SIZE 152

#define MOST_LOOPS 64
#define MOST_TIMERS 16
#define HANDLE_ROOM 256
/* How long a main thread that does something else is waited for. */
#define PATIENCE_NS 1000000000ul
#define PAUSE_NS 2000000

enum loop_state {
  LOOP_FREE = 0,
  LOOP_ASKED = 1,      /* it has the handle, and will call us */
  LOOP_COLLECTING = 2,
  LOOP_READY = 3,      /* its thread waits for the end of the capture */
  LOOP_GOES_ON = 4,
  LOOP_RESTORED = 5,
  LOOP_ABANDONED = 6,  /* nobody waits for it any more */
};

static struct loop {
  uint8_t handle[HANDLE_ROOM] __attribute__((aligned(16))); /* uv_async_t: first, for this is how a callback finds the rest */
  uint32_t state; /* a futex; enum loop_state */
  uint32_t tid;
  opaque loop;
  size_t timer_count;
  struct {
    opaque timer;
    uint64_t due_in_ms;
  } timers[MOST_TIMERS];
} loops[MOST_LOOPS];

static uint32_t loop_state(const struct loop *loop) { return __atomic_load_n(&loop->state, __ATOMIC_ACQUIRE); }

static bool loop_change(struct loop *loop, uint32_t from, uint32_t to) {
  if (!__atomic_compare_exchange_n(&loop->state, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return false;
  futex_wake(&loop->state, 0x7fffffff);
  return true;
}

/* ---- in the loop's thread ---- */

static void note_delayed_task(opaque handle, opaque argument) {
  struct loop *loop = argument;
  if (uv_handle_get_type(handle) != UV_TIMER || uv_is_active(handle) == 0 || loop->timer_count == MOST_TIMERS) return;
  if (*(void **)((uint8_t *)handle + TIMER_CALLBACK) != (void *)run_delayed_task) return;
  loop->timers[loop->timer_count].timer = handle;
  loop->timers[loop->timer_count++].due_in_ms = uv_timer_get_due_in(handle);
}

/* What was to be done in some seconds is to be done in as many seconds from now. */
static void postpone_delayed_tasks(struct loop *loop) {
  uv_update_time(loop->loop);
  for (size_t i = 0; i < loop->timer_count; i++) {
    uv_timer_set_repeat(loop->timers[i].timer, loop->timers[i].due_in_ms);
    uv_timer_again(loop->timers[i].timer); /* nothing when it is due */
    uv_timer_set_repeat(loop->timers[i].timer, 0);
  }
}

static bool knows_delayed_tasks(void) {
  return run_delayed_task != NULL && uv_handle_get_type != NULL && uv_is_active != NULL && uv_walk != NULL && uv_update_time != NULL && uv_timer_get_due_in != NULL && uv_timer_set_repeat != NULL &&
         uv_timer_again != NULL && uv_handle_size(UV_TIMER) == TIMER_SIZE;
}

static void closed(opaque handle) { loop_change((struct loop *)handle, LOOP_GOES_ON, LOOP_FREE); }

static void collect(opaque handle) {
  struct loop *loop = handle;
  opaque const isolate = current_isolate();
  if (loop_change(loop, LOOP_ASKED, LOOP_COLLECTING)) {
    if (isolate != NULL) collect_all_garbage(isolate);
    size_t unused[16];
    if (isolate != NULL && code_statistics != NULL) code_statistics(isolate, unused);
    loop->timer_count = 0;
    if (knows_delayed_tasks()) {
      uv_update_time(loop->loop);
      uv_walk(loop->loop, note_delayed_task, loop);
    }
    loop_change(loop, LOOP_COLLECTING, LOOP_READY);
    while (loop_state(loop) == LOOP_READY) futex_wait(&loop->state, LOOP_READY, NULL);
    if (loop_state(loop) == LOOP_RESTORED) postpone_delayed_tasks(loop);
  }
  __atomic_store_n(&loop->state, LOOP_GOES_ON, __ATOMIC_RELEASE);
  uv_close(handle, closed);
}

struct visit {
  struct loop *loop;
  uint32_t tid;
  int epoll;
};

/* In a thread that waits in epoll_wait(2) for events of `epoll`, and holds nothing else than libuv does there. */
static long ask_loop(void *argument) {
  const struct visit *visit = argument;
  struct loop *loop = visit->loop;
  opaque const isolate = current_isolate();
  loop->loop = isolate == NULL ? NULL : loop_of_isolate(isolate);
  if (loop->loop == NULL || uv_backend_fd(loop->loop) != visit->epoll || uv_async_init(loop->loop, loop->handle, collect) != 0) return 0;
  uv_unref(loop->handle); /* a program that has nothing else to do ends */
  loop->tid = visit->tid;
  __atomic_store_n(&loop->state, LOOP_ASKED, __ATOMIC_RELEASE);
  uv_async_send(loop->handle);
  return 1;
}

/* ---- the helper's side ---- */

static bool has_event_loops(void) {
  return current_isolate != NULL && collect_all_garbage != NULL && loop_of_isolate != NULL && uv_backend_fd != NULL && uv_async_init != NULL && uv_async_send != NULL && uv_close != NULL && uv_unref != NULL &&
         uv_handle_size != NULL && uv_handle_size(UV_ASYNC) <= HANDLE_ROOM;
}

static bool is_asked(uint32_t tid) {
  for (size_t i = 0; i < MOST_LOOPS; i++)
    if (loops[i].tid == tid && loop_state(&loops[i]) != LOOP_FREE) return true;
  return false;
}

static struct loop *free_loop(void) {
  for (size_t i = 0; i < MOST_LOOPS; i++)
    if (loop_state(&loops[i]) == LOOP_FREE) return &loops[i];
  return NULL;
}

static bool waits_for_events(long call) { return call == __NR_epoll_wait || call == __NR_epoll_pwait; }

static bool may_be_asked(const struct slot *slot) { return waits_for_events(slot->seen.number) && !is_asked(slot->tid); }

static void ask_waiting_loops(const struct request *request) {
  struct failure ignored = {.text = ""}; /* the capture will say so itself */
  struct freeze *freeze = &engine_freeze;
  if (freeze_threads(freeze, request, may_be_asked, &ignored) == 0) {
    for (size_t i = 0; i < freeze->count; i++) {
      struct slot *slot = &freeze->slots[i];
      struct visit visit = {.loop = free_loop(), .tid = slot->tid};
      long call;
      if (slot->state != SLOT_PARKED || visit.loop == NULL || !arch_interrupted_call(slot->context, &slot->seen, release_read_code, &call) || !waits_for_events(call)) continue;
      visit.epoll = (int)arch_context_argument(slot->context, 0);
      freeze_call(slot, ask_loop, &visit);
    }
    freeze_continue_calls(freeze);
  }
  freeze_release(freeze);
}

/* Waits until no loop is in `state`; those that are then, at the end of the time, are given up. */
static size_t wait_for_loops(const struct request *request, uint32_t state, uint64_t deadline_ns) {
  size_t abandoned = 0;
  for (size_t i = 0; i < MOST_LOOPS; i++) {
    while (loop_state(&loops[i]) == state && client_waits(request) && clock_ns(CLOCK_MONOTONIC_) < deadline_ns) futex_wait(&loops[i].state, state, &(struct timespec64){0, PAUSE_NS});
    abandoned += loop_change(&loops[i], state, LOOP_ABANDONED);
  }
  return abandoned;
}

void javascript_collect_garbage(const struct request *request) {
  if (!collects_garbage || !has_event_loops()) return;
  const uint64_t begun_ns = clock_ns(CLOCK_MONOTONIC_), patience_ends_ns = begun_ns + PATIENCE_NS;
  const uint32_t main_tid = (uint32_t)sys(getpid);
  const struct timespec64 pause = {0, PAUSE_NS};
  do {
    ask_waiting_loops(request);
    if (is_asked(main_tid) || !client_waits(request)) break;
    sys(nanosleep, &pause, NULL);
  } while (clock_ns(CLOCK_MONOTONIC_) < patience_ends_ns);
  size_t abandoned = wait_for_loops(request, LOOP_ASKED, patience_ends_ns);
  abandoned += wait_for_loops(request, LOOP_COLLECTING, begun_ns + request->hooks_timeout_ms * 1000000);
  size_t collected = 0;
  for (size_t i = 0; i < MOST_LOOPS; i++) collected += loop_state(&loops[i]) == LOOP_READY;
  if (abandoned > 0 || !is_asked(main_tid)) log_info("garbage is not collected in every event loop: %s", abandoned > 0 ? "a callback or the collection takes long" : "the main thread does not wait for events");
  log_debug("garbage collected by %lu event loops in %lu us", collected, (clock_ns(CLOCK_MONOTONIC_) - begun_ns) / 1000);
}

void javascript_go_on(bool restored) {
  for (size_t i = 0; i < MOST_LOOPS; i++) loop_change(&loops[i], LOOP_READY, restored ? LOOP_RESTORED : LOOP_GOES_ON);
}

void javascript_forked(void) {
  for (size_t i = 0; i < MOST_LOOPS; i++) loop_change(&loops[i], LOOP_ASKED, LOOP_ABANDONED);
}
