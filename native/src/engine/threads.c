/* Stopping the program's threads, and letting them go on as if nothing had happened. */
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/time_types.h>

#include "loading.h"

/* A thread's call that waits for a relative time: it goes on with what was left, through arch_repeat_call_changed. */
struct timed_call {
  struct arch_changed_call call; /* first: the architecture's code knows only this, and ends its use */
  uint64_t owner;                /* the thread's FS base, which a restore does not change */
  int32_t time_argument;         /* which argument tells the time */
  uint32_t is_timespec;          /* else milliseconds */
  uint64_t left_ns;
  uint64_t resumed_ns; /* CLOCK_MONOTONIC when it last began to run */
  struct timespec64 time;
};
#define TIMED_CALLS_PER_BLOCK 60
struct timed_call_block {
  struct timed_call_block *next;
  struct timed_call calls[TIMED_CALLS_PER_BLOCK];
};
static struct timed_call_block *timed_calls;

static void calls_resume(const struct freeze *freeze);

static struct freeze *current_freeze;
/* The program's own disposition of CAPTURE_SIGNAL while ours is in place. */
static struct arch_sigaction program_action;
static bool action_installed;
static uint32_t parked_count;
/* Not sched_yield, which gives the processor to none of lower priority. */
static const struct timespec64 pause_between_looks = {0, 20000};

/* ---- engine memory that images keep ---- */

struct memory_block {
  struct memory_block *next;
  uint64_t size;
};
static struct memory_block *memory_blocks;

void *engine_memory(size_t size) {
  size = round_up(size + sizeof(struct memory_block), PAGE_SIZE);
  long address = map_anonymous(0, size, PROT_READ | PROT_WRITE, 0);
  if (address < 0) return NULL;
  struct memory_block *block = (struct memory_block *)address;
  block->size = size;
  block->next = memory_blocks;
  memory_blocks = block;
  return block + 1;
}

void engine_memory_free(void *memory) {
  struct memory_block *freed = (struct memory_block *)memory - 1;
  for (struct memory_block **link = &memory_blocks; *link != NULL; link = &(*link)->next)
    if (*link == freed) {
      *link = freed->next;
      sys(munmap, freed, freed->size);
      return;
    }
}

uint64_t next_engine_memory(uint64_t from, uint64_t *end) {
  uint64_t best = UINT64_MAX;
  if (from < engine_end()) best = max_u64(from, engine_start()), *end = engine_end();
  for (struct memory_block *block = memory_blocks; block != NULL; block = block->next) {
    uint64_t start = (uint64_t)block;
    if (from < start + block->size && max_u64(from, start) < best) best = max_u64(from, start), *end = start + block->size;
  }
  return best;
}

bool is_engine_memory(uint64_t start, uint64_t end) {
  uint64_t block_end = 0;
  return next_engine_memory(start, &block_end) == start && end <= block_end;
}

/* ---- inside the stopped thread ---- */

static void *call_frame[5];

_Noreturn void freeze_call_failed(void) { __builtin_longjmp(call_frame, 1); }

static void run_call(struct slot *slot) {
  slot->result = -1;
  if (__builtin_setjmp(call_frame) == 0) slot->result = arch_call_on_stack(slot->function, slot->argument, slot->stack_top);
}

static void park_wait(void *argument) {
  struct slot *slot = argument;
  __atomic_store_n(&slot->state, SLOT_PARKED, __ATOMIC_RELEASE);
  __atomic_add_fetch(&parked_count, 1, __ATOMIC_RELEASE);
  futex_wake(&parked_count, 1);
  for (;;) {
    uint32_t command = __atomic_load_n(&slot->command, __ATOMIC_ACQUIRE);
    if (command == COMMAND_RELEASE) return;
    if (command == COMMAND_CALL) {
      run_call(slot);
      __atomic_store_n(&slot->command, COMMAND_WAIT, __ATOMIC_RELEASE);
      futex_wake(&slot->command, 2);
      command = COMMAND_WAIT;
    }
    futex_wait(&slot->command, command, NULL);
  }
}

/* For the program's handler all is as the kernel would have it: with everything blocked, a call of its own could not be redirected (dispatch.c). */
static void call_previous_handler(int number, struct siginfo *info, struct ucontext *context) {
  if (program_action.handler <= 1) return;
  uint64_t mask;
  copy_bytes(&mask, &context->uc_sigmask, sizeof mask);
  mask |= program_action.mask | 1ul << (CAPTURE_SIGNAL - 1);
  sys(rt_sigprocmask, 2 /* SIG_SETMASK */, &mask, NULL, sizeof mask);
  ((void (*)(int, struct siginfo *, void *))program_action.handler)(number, info, context);
}

static void capture_handler(int number, struct siginfo *info, void *context) {
  struct freeze *freeze = current_freeze;
  struct slot *slot = info->si_value.sival_ptr;
  if (info->si_code != SI_QUEUE || info->si_pid != (int)sys(getpid)) {
    call_previous_handler(number, info, context);
    return;
  }
  /* Of a capture that has failed meanwhile: the thread has been signalled again, if it is still wanted. */
  if (freeze == NULL || slot < freeze->slots || slot >= freeze->slots + freeze->capacity || (long)slot->tid != sys(gettid)) return;
  slot->context = context;
  slot->fs_base = arch_get_thread_pointer();
  slot->gs_base = arch_get_second_thread_pointer();
  sys(prctl, PR_GET_PDEATHSIG, &slot->death_signal);
  sys(prctl, PR_GET_TID_ADDRESS, &slot->clear_child_tid);
  long slack = sys(prctl, PR_GET_TIMERSLACK);
  slot->timer_slack_ns = slack > 0 ? (uint64_t)slack : 0;
  if (arch_park(&slot->resume_stack, park_wait, slot) == 0) {
    __atomic_store_n(&slot->state, SLOT_LEFT, __ATOMIC_RELEASE);
    return;
  }
  /* A restored thread: nothing of the program runs before all threads, descriptors and memory are back. */
  __atomic_add_fetch(&warp_control.threads_arrived, 1, __ATOMIC_RELEASE);
  futex_wake(&warp_control.threads_arrived, 1);
  while (__atomic_load_n(&warp_control.release, __ATOMIC_ACQUIRE) == 0) futex_wait(&warp_control.release, 0, NULL);
  dispatch_arm_thread(context);
}

/* ---- stopping ---- */

struct task_list {
  uint32_t *tids;
  size_t count;
  size_t capacity;
};

static bool add_task(void *context, const char *name) {
  struct task_list *list = context;
  if (list->count == list->capacity) return false;
  list->tids[list->count++] = (uint32_t)parse_decimal(&name);
  return true;
}

static struct slot *find_slot(struct freeze *freeze, uint32_t tid) {
  for (size_t i = 0; i < freeze->count; i++)
    if (freeze->slots[i].tid == tid) return &freeze->slots[i];
  return NULL;
}

/* What /proc tells of a thread before it is disturbed. */
static void observe(struct slot *slot) {
  char path[64], text[512];
  slot->seen.number = -1;
  slot->system_call = -1;
  format(path, sizeof path, "/proc/self/task/%u/stat", slot->tid);
  if (read_small_file(path, text, sizeof text) > 0) {
    const char *after_name = find_last_character(text, ')');
    if (after_name != NULL) slot->proc_state = after_name[2];
  }
  format(path, sizeof path, "/proc/self/task/%u/syscall", slot->tid);
  if (read_small_file(path, text, sizeof text) <= 0 || text[0] == 'r') return;
  const char *at = text;
  slot->seen.number = parse_signed(&at);
  if (slot->seen.number < 0) return;
  for (int i = 0; i < 6; i++) {
    at++;
    slot->seen.argument[i] = parse_hex(&at);
  }
  at++;
  slot->seen.stack = parse_hex(&at);
  at++;
  slot->seen.instruction = parse_hex(&at);
}

static void thread_name(uint32_t tid, char *ret, size_t size) {
  char path[64];
  format(path, sizeof path, "/proc/self/task/%u/comm", tid);
  long n = read_small_file(path, ret, size);
  if (n > 0 && ret[n - 1] == '\n') ret[n - 1] = 0;
  if (n <= 0) ret[0] = 0;
}

/* Filters that come from outside (a container's) are there at restore too; those that the program adds would be lost. */
static uint64_t filters_at_start;

static uint64_t seccomp_filters(uint32_t tid) {
  char path[64], text[8192];
  format(path, sizeof path, "/proc/self/task/%u/status", tid);
  if (read_small_file(path, text, sizeof text) <= 0) return filters_at_start;
  const char *mode = find_string(text, "\nSeccomp:\t"), *count = find_string(text, "\nSeccomp_filters:\t");
  if (mode != NULL && mode[10] == '1') return UINT64_MAX; /* strict mode */
  if (count == NULL) return 0;
  count += string_length("\nSeccomp_filters:\t");
  return parse_decimal(&count);
}

void threads_begin(void) { filters_at_start = seccomp_filters((uint32_t)sys(gettid)); }

static int fail_not_stopped(struct freeze *freeze, const struct request *request, struct failure *failure) {
  for (size_t i = 0; i < freeze->count; i++) {
    struct slot *slot = &freeze->slots[i];
    if (slot->state != SLOT_SIGNALLED) continue;
    char name[32], path[64], text[4096];
    thread_name(slot->tid, name, sizeof name);
    format(path, sizeof path, "/proc/self/task/%u/status", slot->tid);
    uint64_t blocked = 0;
    if (read_small_file(path, text, sizeof text) > 0) {
      const char *mask = find_string(text, "SigBlk:\t");
      if (mask != NULL) mask += 8, blocked = parse_hex(&mask);
    }
    if ((blocked >> (CAPTURE_SIGNAL - 1) & 1) != 0)
      return fail(failure, "thread %u (%s) blocks signal %u, which stops threads for a checkpoint: unblock it in the program (it was blocked by a raw rt_sigprocmask)", slot->tid, name, CAPTURE_SIGNAL);
    return fail(failure, "thread %u (%s) did not stop within %lu ms (state %c): try again later, or with a longer --timeout", slot->tid, name, request->timeout_ms, slot->proc_state);
  }
  return fail(failure, "threads did not stop within %lu ms: try again with a longer --timeout", request->timeout_ms);
}

int freeze_threads(struct freeze *freeze, const struct request *request, bool (*wanted)(const struct slot *), struct failure *failure) {
  uint32_t pid = (uint32_t)sys(getpid);
  struct arena scratch = {NULL};
  struct task_list tasks = {.capacity = 256};
  /* Room for threads that are born while others are being stopped. */
  for (;;) {
    tasks.tids = arena_allocate(&scratch, tasks.capacity * sizeof *tasks.tids);
    tasks.count = 0;
    for_each_entry("/proc/self/task", add_task, &tasks);
    if (tasks.count < tasks.capacity / 2) break;
    tasks.capacity *= 4;
  }
  freeze->capacity = tasks.capacity;
  freeze->slots = engine_memory(freeze->capacity * sizeof *freeze->slots);
  if (freeze->slots == NULL) {
    arena_release(&scratch);
    return fail(failure, "cannot map memory for %lu threads: raise the memory limit", freeze->capacity);
  }
  parked_count = 0;
  current_freeze = freeze;
  const struct arch_sigaction action = {
      .handler = (uint64_t)capture_handler,
      .flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | ARCH_SA_RESTORER,
      .restorer = (uint64_t)arch_signal_return,
      .mask = ~0ul,
  };
  struct arch_sigaction previous;
  long error = sys(rt_sigaction, CAPTURE_SIGNAL, &action, &previous, sizeof action.mask);
  if (error < 0) {
    arena_release(&scratch);
    return fail(failure, "cannot set the handler of signal %u: %s", CAPTURE_SIGNAL, error_text(error));
  }
  /* After a capture that a thread blocking the signal has failed, our handler is still there. */
  if (previous.handler != action.handler) program_action = previous;
  action_installed = true;
  uint64_t deadline = clock_ns(CLOCK_MONOTONIC_) + request->timeout_ms * 1000000;
  int result = -1;
  for (unsigned round = 0;; round++) {
    bool found_new = false, all_stopped = true;
    for (size_t i = 0; i < freeze->count; i++) all_stopped &= __atomic_load_n(&freeze->slots[i].state, __ATOMIC_ACQUIRE) != SLOT_SIGNALLED;
    tasks.count = 0;
    error = for_each_entry("/proc/self/task", add_task, &tasks);
    if (error < 0) {
      fail(failure, "cannot list the threads in /proc/self/task: %s: mount procfs", error_text(error));
      break;
    }
    for (size_t i = 0; i < tasks.count; i++) {
      if (tasks.tids[i] == helper_tid || find_slot(freeze, tasks.tids[i]) != NULL) continue;
      if (freeze->count == freeze->capacity) break;
      found_new = true;
      struct slot *slot = &freeze->slots[freeze->count];
      slot->tid = tasks.tids[i];
      observe(slot);
      /* A signal that is pending when the program becomes another one would meet the default action there, and end it. */
      if (slot->seen.number == __NR_execve || slot->seen.number == __NR_execveat) continue;
      freeze->count++;
      if (wanted != NULL && !wanted(slot)) {
        slot->state = SLOT_GONE;
        continue;
      }
      if (slot->proc_state == 'Z') {
        slot->state = slot->tid == pid ? SLOT_ENDED_LEADER : SLOT_GONE;
        continue;
      }
      char name[32];
      thread_name(slot->tid, name, sizeof name);
      if (seccomp_filters(slot->tid) != filters_at_start) {
        fail(failure, "thread %u (%s) has a seccomp filter that the program has set, which cannot be kept: checkpoint it before it sets one", slot->tid, name);
        slot->state = SLOT_GONE;
        goto out;
      }
      if (starts_with(name, "iou-")) {
        fail(failure, "thread %u (%s) works for io_uring, whose state cannot be kept: have the program use epoll (for Node.js: UV_USE_IO_URING=0)", slot->tid, name);
        slot->state = SLOT_GONE;
        goto out;
      }
      error = queue_signal(pid, slot->tid, CAPTURE_SIGNAL, slot);
      if (error == -ESRCH) slot->state = SLOT_GONE;
      if (error < 0 && error != -ESRCH) {
        fail(failure, "cannot signal thread %u: %s: raise RLIMIT_SIGPENDING", slot->tid, error_text(error));
        slot->state = SLOT_GONE;
        goto out;
      }
    }
    if (freeze->count == freeze->capacity) {
      fail(failure, "threads are created faster than they can be stopped (%lu seen): try again", freeze->count);
      break;
    }
    size_t waiting = 0;
    uint32_t parked = __atomic_load_n(&parked_count, __ATOMIC_ACQUIRE);
    for (size_t i = 0; i < freeze->count; i++) {
      struct slot *slot = &freeze->slots[i];
      if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) != SLOT_SIGNALLED) continue;
      if (sys(tgkill, pid, slot->tid, 0) == -ESRCH) {
        slot->state = SLOT_GONE;
      } else {
        waiting++;
      }
    }
    if (waiting == 0 && !found_new && all_stopped) {
      result = 0;
      break;
    }
    if (clock_ns(CLOCK_MONOTONIC_) > deadline) {
      fail_not_stopped(freeze, request, failure);
      break;
    }
    if (!client_waits(request)) {
      fail(failure, "the checkpoint command went away");
      break;
    }
    if (waiting > 0) futex_wait(&parked_count, parked, &(struct timespec64){0, round < 10 ? 200000 : 2000000});
  }
out:
  arena_release(&scratch);
  /* Those that have stopped go on as after a capture: their calls, too. */
  if (result < 0) freeze_continue_calls(freeze);
  return result;
}

int freeze_settle(const struct freeze *freeze, const struct request *request, struct failure *failure) {
  const uint64_t deadline = clock_ns(CLOCK_MONOTONIC_) + request->timeout_ms * 1000000;
  for (size_t i = 0; i < freeze->count; i++) {
    struct slot *slot = &freeze->slots[i];
    if (slot->state != SLOT_PARKED) continue;
    for (;;) {
      const long waits = futex_has_waiter(&slot->command, COMMAND_WAIT);
      if (waits > 0) break;
      if (waits < 0) return fail(failure, "cannot see whether thread %u has stopped: futex: %s", slot->tid, error_text(waits));
      if (clock_ns(CLOCK_MONOTONIC_) > deadline) return fail(failure, "thread %u was not given a processor to stop on within %lu ms: try again with a longer --timeout", slot->tid, request->timeout_ms);
      sys(nanosleep, &pause_between_looks, NULL);
    }
  }
  return 0;
}

struct slot *freeze_proxy(struct freeze *freeze) {
  for (size_t i = 0; i < freeze->count; i++)
    if (freeze->slots[i].state == SLOT_PARKED) return &freeze->slots[i];
  return NULL;
}

#define PROXY_STACK_SIZE (512 * KIB)

long freeze_call(struct slot *slot, long (*function)(void *), void *argument) {
  struct arena scratch = {NULL};
  uint8_t *stack = arena_allocate(&scratch, PROXY_STACK_SIZE);
  slot->function = function;
  slot->argument = argument;
  slot->stack_top = stack + PROXY_STACK_SIZE;
  __atomic_store_n(&slot->command, COMMAND_CALL, __ATOMIC_RELEASE);
  futex_wake(&slot->command, 1);
  while (__atomic_load_n(&slot->command, __ATOMIC_ACQUIRE) == COMMAND_CALL) futex_wait(&slot->command, COMMAND_CALL, NULL);
  arena_release(&scratch);
  engine_log_flush();
  return slot->result;
}

void freeze_release(struct freeze *freeze) {
  if (freeze->slots == NULL) return;
  calls_resume(freeze);
  /* A thread that was signalled but never stopped (it blocks the signal) keeps it pending: it must find our handler, which
   * lets it pass, so it is given the slots for good. That costs one page per failed capture and harms nobody. */
  bool some_pending = false;
  for (size_t i = 0; i < freeze->count; i++) {
    struct slot *slot = &freeze->slots[i];
    some_pending |= __atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) == SLOT_SIGNALLED;
    __atomic_store_n(&slot->command, COMMAND_RELEASE, __ATOMIC_RELEASE);
  }
  if (action_installed && !some_pending) sys(rt_sigaction, CAPTURE_SIGNAL, &program_action, NULL, sizeof program_action.mask);
  action_installed &= some_pending;
  for (size_t i = 0; i < freeze->count; i++) futex_wake(&freeze->slots[i].command, 2);
  /* Also of those that stay signalled: the next capture, soon after a failed one, must not meet the others on their way out. */
  for (size_t i = 0; i < freeze->count; i++)
    while (__atomic_load_n(&freeze->slots[i].state, __ATOMIC_ACQUIRE) == SLOT_PARKED) sys(nanosleep, &pause_between_looks, NULL);
  freeze->count = 0;
  if (some_pending) return;
  current_freeze = NULL;
  engine_memory_free(freeze->slots);
  freeze->slots = NULL;
}

const struct arch_sigaction *freeze_program_action(void) { return &program_action; }

void freeze_forget(struct freeze *freeze) {
  current_freeze = NULL;
  action_installed = false;
  calls_resume(freeze);
  if (freeze->slots != NULL) engine_memory_free(freeze->slots);
  fill_bytes(freeze, 0, sizeof *freeze);
}

/* ---- system calls that go on ---- */

static bool owner_is_stopped(const struct timed_call *call, const struct freeze *freeze) {
  for (size_t i = 0; i < freeze->count; i++)
    if (freeze->slots[i].state == SLOT_PARKED && freeze->slots[i].fs_base == call->owner) return true;
  return false;
}

/* Time-outs of stopped threads run on from now, after a release or a restore. */
static void calls_resume(const struct freeze *freeze) {
  uint64_t now = clock_ns(CLOCK_MONOTONIC_);
  for (struct timed_call_block *block = timed_calls; block != NULL; block = block->next)
    for (size_t i = 0; i < TIMED_CALLS_PER_BLOCK; i++)
      if (owner_is_stopped(&block->calls[i], freeze)) block->calls[i].resumed_ns = now;
}

static struct timed_call *new_timed_call(void) {
  for (struct timed_call_block *block = timed_calls; block != NULL; block = block->next)
    for (size_t i = 0; i < TIMED_CALLS_PER_BLOCK; i++)
      if (block->calls[i].call.in_use == 0) return &block->calls[i];
  struct timed_call_block *block = engine_memory(sizeof *block);
  if (block == NULL) return NULL;
  block->next = timed_calls;
  timed_calls = block;
  return &block->calls[0];
}

static uint64_t timespec_ns(const struct timespec64 *time) { return (uint64_t)time->seconds * 1000000000u + (uint64_t)time->nanoseconds; }

/*
 * The time that an interrupted call had been given, when it is relative and the kernel will not account for what has passed.
 * `argument` tells which argument holds it. Calls whose time the kernel updates itself (select, pselect6, ppoll) or which
 * take an absolute time are simply made again.
 */
static bool relative_time(const struct ucontext *context, long number, int *argument, bool *is_timespec, uint64_t *left_ns) {
  const struct timespec64 *given = NULL;
  const struct timespec64 *remaining = NULL;
  *is_timespec = true;
  switch (number) {
#ifdef __NR_poll
    case __NR_poll:
      *argument = 2;
      *is_timespec = false;
      break;
#endif
#ifdef __NR_epoll_wait
    case __NR_epoll_wait:
#endif
    case __NR_epoll_pwait:
      *argument = 3;
      *is_timespec = false;
      break;
    case __NR_nanosleep:
      *argument = 0;
      remaining = (const void *)arch_context_argument(context, 1);
      break;
    case __NR_clock_nanosleep:
      if ((arch_context_argument(context, 1) & 1 /* TIMER_ABSTIME */) != 0) return false;
      *argument = 2;
      remaining = (const void *)arch_context_argument(context, 3);
      break;
    case __NR_futex:
      if ((arch_context_argument(context, 1) & FUTEX_CMD_MASK) != FUTEX_WAIT) return false;
      *argument = 3;
      break;
    case __NR_rt_sigtimedwait:
      *argument = 2;
      break;
    case __NR_semtimedop:
    case __NR_epoll_pwait2:
      *argument = 3;
      break;
    case __NR_io_getevents:
      *argument = 4;
      break;
    default:
      return false;
  }
  if (!*is_timespec) {
    int32_t milliseconds = (int32_t)arch_context_argument(context, *argument);
    *left_ns = (uint64_t)milliseconds * 1000000u;
    return milliseconds > 0;
  }
  given = remaining != NULL ? remaining : (const struct timespec64 *)arch_context_argument(context, *argument);
  if (given == NULL) return false;
  *left_ns = timespec_ns(given);
  return true;
}

static void set_time(struct timed_call *call) {
  if (call->is_timespec) {
    call->time = (struct timespec64){(int64_t)(call->left_ns / 1000000000u), (int64_t)(call->left_ns % 1000000000u)};
    call->call.argument[call->time_argument] = (uint64_t)&call->time;
  } else {
    call->call.argument[call->time_argument] = (call->left_ns + 999999u) / 1000000u;
  }
}

static void continue_call(struct slot *slot, uint64_t now) {
  struct ucontext *context = slot->context;
  struct timed_call *running = (struct timed_call *)arch_changed_call_in_progress(context);
  if (running != NULL) {
    if (!arch_changed_call_restart(context)) return;
    uint64_t passed = now - running->resumed_ns;
    running->left_ns = running->left_ns > passed ? running->left_ns - passed : 0;
    set_time(running);
    slot->system_call = (int64_t)running->call.number;
    return;
  }
  long number;
  if (!arch_interrupted_call_in_stub(context, &number) && !arch_interrupted_call(context, &slot->seen, release_read_code, &number)) {
    if (arch_kernel_repeats_call(context, &number)) slot->system_call = number;
    return;
  }
  slot->system_call = number;
  int argument;
  bool is_timespec;
  uint64_t left_ns;
  struct timed_call *call = relative_time(context, number, &argument, &is_timespec, &left_ns) ? new_timed_call() : NULL;
  if (call == NULL) {
    arch_repeat_call(context, number);
    return;
  }
  call->call.in_use = 1;
  call->owner = slot->fs_base;
  call->time_argument = argument;
  call->is_timespec = is_timespec;
  call->left_ns = left_ns;
  call->resumed_ns = now;
  for (int i = 0; i < 6; i++) call->call.argument[i] = arch_context_argument(context, i);
  set_time(call);
  arch_repeat_call_changed(context, &call->call, number);
}

void freeze_forget_calls(const struct freeze *freeze) {
  for (struct timed_call_block *block = timed_calls; block != NULL; block = block->next)
    for (size_t i = 0; i < TIMED_CALLS_PER_BLOCK; i++)
      if (!owner_is_stopped(&block->calls[i], freeze)) block->calls[i].call.in_use = 0;
}

void freeze_continue_calls(struct freeze *freeze) {
  const uint64_t now = clock_ns(CLOCK_MONOTONIC_);
  for (size_t i = 0; i < freeze->count; i++) {
    struct slot *slot = &freeze->slots[i];
    if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) != SLOT_PARKED) continue;
    continue_call(slot, now);
    if (slot->system_call >= 0) log_debug("thread %u: system call %ld goes on", slot->tid, slot->system_call);
  }
}
