/* What belongs to the process as a whole, and its threads. */
#include <linux/ioprio.h>
#include <linux/personality.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#include "restore.h"

#define PR_SET_MM_MAP_ 14

static struct restore *current;
/* Read once: a new thread stands on its own stack, which may be small, and uses little of it. */
static uint8_t affinity_here[1024];

/* ---- the process ---- */

static void restore_memory_layout(struct restore *restore, const struct warp_process_record *process) {
  struct {
    uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end;
    const void *auxv;
    uint32_t auxv_size;
    uint32_t exe_fd;
  } map = {
      process->start_code, process->end_code, process->start_data, process->end_data, process->start_brk, process->brk, process->start_stack, process->arg_start, process->arg_end, process->env_start, process->env_end,
      restore->image.auxv, (uint32_t)restore->image.auxv_size, ~0u,
  };
  long error = sys(prctl, PR_SET_MM, PR_SET_MM_MAP_, &map, sizeof map, 0);
  if (error < 0) log_warn("the process's memory layout cannot be set (prctl PR_SET_MM_MAP: %s): its heap cannot grow by brk, and ps shows other arguments", error_text(error));
}

static void restore_limits(const struct warp_process_record *process) {
  for (int i = 0; i < 16; i++) {
    uint64_t have[2], want[2] = {process->rlimit[i][0], process->rlimit[i][1]};
    if (sys(prlimit64, 0, i, NULL, have) < 0) continue;
    /* A hard limit that is lower here is the host's decision. */
    want[1] = min_u64(want[1], have[1]);
    want[0] = min_u64(want[0], want[1]);
    sys(prlimit64, 0, i, want, NULL);
  }
}

/* Root that restores another user's image becomes that user, before anything of the image is opened. */
int become_user(struct restore *restore) {
  const struct warp_process_record *process = view_at(&restore->image.process, struct warp_process_record, 0);
  uint32_t uid = (uint32_t)sys(geteuid);
  if (uid == process->uid[1]) return 0;
  if (uid != 0) {
    log_info("the program ran as user %u, and goes on as user %u", process->uid[1], uid);
    return 0;
  }
  size_t size;
  const uint8_t *groups = view_bytes(&restore->image.process, process->groups, &size);
  long error = sys(setgroups, size / 4, groups);
  if (error == 0) error = sys(setresgid, process->gid[0], process->gid[1], process->gid[2]);
  if (error == 0) error = sys(setresuid, process->uid[0], process->uid[1], process->uid[2]);
  return error < 0 ? fail(&restore->failure, "the program ran as user %u, and that user cannot be taken on: %s: restore it as that user", process->uid[1], error_text(error)) : 0;
}

int enter_directory(struct restore *restore) {
  const struct image *image = &restore->image;
  char *cwd = view_string(&image->process, &restore->arena, view_at(&image->process, struct warp_process_record, 0)->cwd);
  long error = sys(chdir, cwd);
  return error < 0 ? fail(&restore->failure, "cannot enter the working directory %s: %s: make it", cwd, error_text(error)) : 0;
}

int restore_process(struct restore *restore) {
  struct image *image = &restore->image;
  const struct warp_process_record *process = view_at(&image->process, struct warp_process_record, 0);
  long error;
  sys(umask, process->umask);
  sys(personality, process->personality);
  restore_memory_layout(restore, process);
  for (uint32_t left = process->membarrier; left != 0; left &= left - 1) {
    error = sys(membarrier, left & -left, 0, 0);
    if (error < 0) log_warn("membarrier registration %u is not possible here: %s", left & -left, error_text(error));
  }
  if (process->thp_disable != 0) sys(prctl, PR_SET_THP_DISABLE, process->thp_disable, 0, 0, 0);
  if (process->no_new_privs != 0) sys(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (process->child_subreaper != 0) sys(prctl, PR_SET_CHILD_SUBREAPER, 1);
  char text[32];
  long fd = open_file("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC, 0);
  if (fd >= 0) {
    size_t n = format(text, sizeof text, "%d", process->oom_score_adj);
    sys(write, fd, text, n); /* lowering it needs a privilege: then it stays */
    sys(close, fd);
  }
  const uint64_t all = ~0ul;
  sys(rt_sigprocmask, 2 /* SIG_SETMASK */, &all, NULL, sizeof all);
  for (uint32_t number = 1; number <= 64; number++) {
    struct arch_sigaction action = {0, 0, 0, 0};
    for (size_t i = 0; i < image->signal_actions.count; i++) {
      const struct warp_signal_action_record *record = view_at(&image->signal_actions, struct warp_signal_action_record, i);
      if (record->number == number) action = (struct arch_sigaction){record->handler, record->flags, record->restorer, record->mask};
    }
    if (number != 9 && number != 19) sys(rt_sigaction, number, &action, NULL, sizeof action.mask);
  }
  sys(prctl, PR_SET_DUMPABLE, process->dumpable == 1 ? 1 : 0);
  return 0;
}

/* ---- timers ---- */

struct timer_setting {
  struct timespec64 interval;
  struct timespec64 value;
};

static struct timespec64 timespec_of(uint64_t ns) { return (struct timespec64){(int64_t)(ns / 1000000000u), (int64_t)(ns % 1000000000u)}; }

static int restore_posix_timers(struct restore *restore) {
  const struct view *timers = &restore->image.timers;
  for (size_t i = 0; i < timers->count; i++) {
    const struct warp_timer_record *timer = view_at(timers, struct warp_timer_record, i);
    struct {
      uint64_t value;
      uint32_t number;
      uint32_t notify;
      uint32_t tid;
      uint32_t padding[11];
    } event = {.value = timer->value, .number = timer->number, .notify = timer->notify};
    _Static_assert(sizeof event == 64, "struct sigevent");
    if ((timer->notify & 4) != 0) event.tid = image_new_tid(restore, timer->tid);
    int32_t id = -1;
    /* The kernel numbers a process's timers in order of creation: timers that come before are made and deleted. */
    while (id < timer->id) {
      long error = sys(timer_create, timer->clock, &event, &id);
      if (error < 0) return fail(&restore->failure, "POSIX timer %d (clock %d) cannot be made: %s", timer->id, (int)timer->clock, error_text(error));
      if (id < timer->id) sys(timer_delete, id);
      if (id > timer->id) return fail(&restore->failure, "POSIX timer %d cannot have its number: the kernel gave %d", timer->id, id);
    }
    /* A periodic timer that stands at 0 has expired, and its signal waits: the next period begins. */
    bool processor_clock = timer->clock == 2 || timer->clock == 3 || (int32_t)timer->clock < 0;
    uint64_t value_ns = timer->value_ns != 0 || processor_clock ? timer->value_ns : timer->interval_ns;
    if (value_ns == 0) continue;
    const struct timer_setting setting = {timespec_of(timer->interval_ns), timespec_of(value_ns)};
    sys(timer_settime, id, 0, &setting, NULL);
  }
  return 0;
}

/* Interval timers: the last thing that acts by itself. POSIX timers wait for the threads that they signal. */
int restore_timers(struct restore *restore) {
  const struct warp_process_record *process = view_at(&restore->image.process, struct warp_process_record, 0);
  for (int i = 0; i < 3; i++) {
    uint64_t interval = process->itimer[i][1], value = process->itimer[i][0] != 0 || i != 0 ? process->itimer[i][0] : interval;
    if (value == 0) continue;
    const int64_t setting[4] = {(int64_t)(interval / 1000000), (int64_t)(interval % 1000000), (int64_t)(value / 1000000), (int64_t)(value % 1000000)};
    sys(setitimer, i, setting, NULL);
  }
  return 0;
}

/* ---- threads ---- */

static void requeue(uint32_t old_tid, uint32_t tid) {
  const struct view *signals = &current->image.pending_signals;
  for (size_t i = 0; i < signals->count; i++) {
    const struct warp_pending_signal_record *signal = view_at(signals, struct warp_pending_signal_record, i);
    if (signal->tid != old_tid) continue;
    int32_t number;
    copy_bytes(&number, signal->siginfo, sizeof number);
    long error = old_tid != 0 ? sys(rt_tgsigqueueinfo, sys(getpid), tid, number, signal->siginfo) : sys(rt_sigqueueinfo, sys(getpid), number, signal->siginfo);
    if (error < 0) log_warn("queued signal %d cannot be put back: %s", number, error_text(error));
  }
}

/* What a thread sets for itself; then it goes on in the program. */
static void begin_thread(void *argument) {
  const struct warp_thread_record *thread = argument;
  const struct view *threads = &current->image.threads;
  size_t size;
  char name[64];
  const uint8_t *bytes = view_bytes(threads, thread->name, &size);
  size = min_u64(size, sizeof name - 1);
  if (size > 0) copy_bytes(name, bytes, size);
  name[size] = 0;
  sys(prctl, PR_SET_NAME, name);
  if (thread->gs_base != 0) arch_set_second_thread_pointer(thread->gs_base);
  if (thread->robust_head != 0) sys(set_robust_list, thread->robust_head, thread->robust_length);
  if (thread->rseq_address != 0) {
    /* The area tells of the old registration: as at a thread's start, no processor and no critical section. */
    fill_bytes((void *)(thread->rseq_address + 8), 0, 8);
    const uint32_t uninitialised[2] = {0, ~0u};
    copy_bytes((void *)thread->rseq_address, uninitialised, sizeof uninitialised);
    long error = sys(rseq, thread->rseq_address, thread->rseq_length, 0, thread->rseq_signature);
    if (error < 0) log_warn("thread %u: restartable sequences cannot be registered: %s", thread->tid, error_text(error));
  }
  if (thread->death_signal != 0) sys(prctl, PR_SET_PDEATHSIG, thread->death_signal);
  if (thread->timer_slack_ns != 0) sys(prctl, PR_SET_TIMERSLACK, thread->timer_slack_ns);
  uint32_t priority = thread->scheduling_priority;
  if (thread->scheduling_policy != 0) {
    long error = sys(sched_setscheduler, 0, thread->scheduling_policy, &priority);
    if (error < 0) log_warn("thread %u: scheduling policy %u is not allowed here: %s", thread->tid, thread->scheduling_policy, error_text(error));
  }
  if (thread->nice != 0) sys(setpriority, 0, 0, thread->nice);
  if (thread->io_priority != 0) sys(ioprio_set, IOPRIO_WHO_PROCESS, 0, thread->io_priority);
  const uint8_t *mask = view_bytes(threads, thread->affinity, &size);
  if (size > 0 && compare_bytes(mask, affinity_here, min_u64(size, sizeof affinity_here)) != 0) sys(sched_setaffinity, 0, size, mask);
  requeue(thread->tid, (uint32_t)sys(gettid));
  if (current->keep_ids) drop_capabilities();
  const struct warp_process_record *process = view_at(&current->image.process, struct warp_process_record, 0);
  arch_jump_on_stack(process->resume_entry, 0, thread->resume_stack);
}

static void set_references(struct restore *restore) {
  const struct view *references = &restore->image.tid_references;
  for (size_t i = 0; i < references->count; i++) {
    const struct warp_tid_reference_record *reference = view_at(references, struct warp_tid_reference_record, i);
    const struct warp_vma_record *vma = image_vma_at(&restore->image, reference->address);
    uint32_t tid = image_new_tid(restore, reference->tid);
    if (vma == NULL || (vma->protection & WARP_PROT_WRITE) == 0 || tid == 0) continue;
    uint32_t *word = (uint32_t *)reference->address;
    *word = (*word & ~0x3fffffffu) | tid;
    log_debug("owner of the mutex at 0x%lx: thread %u, now %u", reference->address, reference->tid, tid);
  }
}

/* As sigqueue(3): how the older interface of CRaC wakes the JVM. */
static void notify(const struct restore *restore) {
  if (restore->options.notify_signal == 0) return;
  long error = queue_signal((uint32_t)sys(getpid), 0, (int)restore->options.notify_signal, (void *)(int64_t)restore->options.notify_value);
  if (error < 0) log_warn("signal %u cannot be queued: %s", restore->options.notify_signal, error_text(error));
}

static const struct warp_thread_record *find_leader(const struct view *threads) {
  for (size_t i = 0; i < threads->count; i++) {
    const struct warp_thread_record *thread = view_at(threads, struct warp_thread_record, i);
    if ((thread->flags & WARP_THREAD_LEADER) != 0) return thread;
  }
  return view_at(threads, struct warp_thread_record, 0);
}

/* clone3 wants to know a length; the thread is already on its stack, and uses less. */
#define THREAD_START_STACK 4096ul

_Noreturn void restore_threads(struct restore *restore) {
  const struct image *image = &restore->image;
  const struct warp_process_record *process = view_at(&image->process, struct warp_process_record, 0);
  struct warp_control *control = (struct warp_control *)process->control;
  const struct warp_thread_record *leader = find_leader(&image->threads);
  const uint64_t all = ~0ul;
  current = restore;
  sys(sched_getaffinity, 0, sizeof affinity_here, affinity_here);
  restore->new_tids = arena_allocate(&restore->arena, image->threads.count * sizeof(uint32_t));
  sys(rt_sigprocmask, 2 /* SIG_SETMASK */, &all, NULL, sizeof all);
  control->threads_expected = (uint32_t)image->threads.count;
  if ((leader->flags & WARP_THREAD_EXITED) == 0) {
    arch_set_thread_pointer(leader->fs_base);
    sys(set_tid_address, leader->clear_child_tid);
    if (process->tid_offset >= 0) *(uint32_t *)(leader->fs_base + (uint64_t)process->tid_offset) = (uint32_t)sys(getpid);
  }
  for (size_t i = 0; i < image->threads.count; i++) {
    const struct warp_thread_record *thread = view_at(&image->threads, struct warp_thread_record, i);
    if (thread == leader) {
      restore->new_tids[i] = (uint32_t)sys(getpid);
      continue;
    }
    uint64_t flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_CHILD_CLEARTID;
    void *tid_word = process->tid_offset >= 0 ? (void *)(thread->fs_base + (uint64_t)process->tid_offset) : NULL;
    if (tid_word != NULL) flags |= CLONE_PARENT_SETTID;
    const int32_t old_tid = (int32_t)thread->tid;
    const struct clone_args arguments = {
        .flags = flags,
        .child_tid = thread->clear_child_tid,
        .parent_tid = (uint64_t)tid_word,
        .stack = thread->resume_stack - THREAD_START_STACK,
        .stack_size = THREAD_START_STACK,
        .tls = thread->fs_base,
        .set_tid = (uint64_t)&old_tid,
        .set_tid_size = 1,
    };
    long tid = restore->keep_ids ? arch_clone3(&arguments, sizeof arguments, begin_thread, (void *)thread)
                                 : arch_clone(flags, (void *)thread->resume_stack, tid_word, (void *)thread->clear_child_tid, thread->fs_base, begin_thread, (void *)thread);
    if (tid < 0) {
      program_error("thread %u of %lu cannot be created: %s: raise the limit of processes (RLIMIT_NPROC, pids.max)", (unsigned)i, image->threads.count, error_text(tid));
      sys(exit_group, 2);
    }
    restore->new_tids[i] = (uint32_t)tid;
  }
  set_references(restore);
  if (restore_posix_timers(restore) < 0) {
    program_error("%s", restore->failure.text);
    sys(exit_group, 2);
  }
  requeue(0, 0);
  notify(restore);
  restore_limits(process);
  end_phase(restore, PHASE_THREADS);
  write_stats(restore);
  /* The helper takes no descriptor of the program with it: it closes its copies at once, but for what it needs itself. */
  const bool helper_needs = restore->loading != NULL || restore->stats.fd >= 0;
  if (!helper_needs) sys(close_range, restore->lowest_own_descriptor, ~0u, 0);
  long helper = arch_clone(CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, (void *)process->helper_stack, NULL, NULL, 0, (void (*)(void *))process->helper_entry, NULL);
  if (helper < 0) {
    program_error("the engine's thread cannot be created: %s", error_text(helper));
    sys(exit_group, 2);
  }
  if (helper_needs) sys(close_range, restore->lowest_own_descriptor, ~0u, 0);
  if ((leader->flags & WARP_THREAD_EXITED) != 0) arch_jump_on_stack(process->resume_entry, (uint64_t)&control->threads_arrived, process->helper_stack);
  begin_thread((void *)leader);
  __builtin_unreachable();
}
