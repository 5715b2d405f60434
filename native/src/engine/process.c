/* What belongs to the process and its threads. */
#include <linux/ioprio.h>
#include <linux/membarrier.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/time.h>
#include <linux/utsname.h>

#include "engine.h"

/* ---- /proc/self/stat and status ---- */

/* Field `number` (as proc(5) counts, 3 and up) of a stat line. */
static uint64_t stat_field(const char *stat, int number) {
  const char *at = find_last_character(stat, ')');
  if (at == NULL) return 0;
  at += 2;
  for (int i = 3; i < number; i++) {
    at = find_character(at, ' ');
    if (at == NULL) return 0;
    at++;
  }
  return (uint64_t)parse_signed(&at);
}

static const char *status_field(const char *status, const char *name) {
  const char *at = find_string(status, name);
  if (at == NULL) return "";
  at += string_length(name);
  while (*at == '\t' || *at == ' ') at++;
  return at;
}

static uint64_t status_number(const char *status, const char *name) {
  const char *at = status_field(status, name);
  return parse_decimal(&at);
}

static void status_numbers(const char *status, const char *name, uint32_t *ret, int count) {
  const char *at = status_field(status, name);
  for (int i = 0; i < count; i++) {
    ret[i] = (uint32_t)parse_decimal(&at);
    while (*at == '\t' || *at == ' ') at++;
  }
}

/* ---- the process ---- */

#define MEMBARRIER_GET_REGISTRATIONS (1 << 9) /* Linux 6.3 */

static int refuse_children(struct capture *capture) {
  for (size_t i = 0; i < capture->freeze->count; i++) {
    char path[64], children[512];
    format(path, sizeof path, "/proc/self/task/%u/children", capture->freeze->slots[i].tid);
    if (read_small_file(path, children, sizeof children) <= 0) continue;
    const char *at = children;
    uint32_t child = (uint32_t)parse_decimal(&at);
    if (child == 0) continue;
    char name[64], stat[512];
    format(path, sizeof path, "/proc/%u/comm", child);
    long n = read_small_file(path, name, sizeof name);
    if (n > 0) name[n - 1] = 0;
    format(path, sizeof path, "/proc/%u/stat", child);
    if (read_small_file(path, stat, sizeof stat) <= 0) continue;
    const char *end = find_last_character(stat, ')');
    if (end != NULL && end[2] == 'Z') {
      log_warn("child process %u has ended but was not waited for: a restored process will not find it", child);
      continue;
    }
    return fail(capture->failure, "child process %u (%s) is running, and only a single process can be kept: wait until it has ended, or stop it", child, n > 0 ? name : "?");
  }
  return 0;
}

/* Threads that a program makes without the C library may have no control block, or one of another thread. */
static bool has_own_block(const struct freeze *freeze, const struct slot *slot) {
  if (slot->fs_base == 0) return false;
  for (const struct slot *other = freeze->slots; other < slot; other++)
    if (other->state == SLOT_PARKED && other->fs_base == slot->fs_base) return false;
  return true;
}

static int32_t find_tid_offset(const struct freeze *freeze) {
  /* The C library's record of a thread's id stands at the same place of every thread's control block: look for it there. */
  for (int32_t offset = 0; offset < 0x800; offset += 4) {
    size_t matching = 0, threads = 0;
    for (size_t i = 0; i < freeze->count; i++) {
      const struct slot *slot = &freeze->slots[i];
      if (slot->state != SLOT_PARKED || !has_own_block(freeze, slot)) continue;
      threads++;
      if (*(const uint32_t *)(slot->fs_base + (uint64_t)offset) != slot->tid) break;
      matching++;
    }
    if (threads > 0 && matching == threads) return offset;
  }
  return -1;
}

int capture_process(struct capture *capture) {
  if (freeze_proxy(capture->freeze) == NULL) return fail(capture->failure, "no thread of the program is left");
  if (refuse_children(capture) < 0) return -1;
  char stat[2048], status[4096], text[4096];
  /* Of a thread of the program: the helper has attributes of its own, and a leader that has ended has no memory. */
  char path[64];
  struct slot *thread = freeze_proxy(capture->freeze);
  format(path, sizeof path, "/proc/self/task/%u/stat", thread->tid);
  long n = read_small_file(path, stat, sizeof stat);
  if (n < 0) return fail(capture->failure, "cannot read /proc/stat: %s: mount procfs", error_text(n));
  format(path, sizeof path, "/proc/self/task/%u/status", thread->tid);
  n = read_small_file(path, status, sizeof status);
  if (n < 0) return fail(capture->failure, "cannot read /proc/status: %s: mount procfs", error_text(n));
  struct table *table = &capture->process;
  struct warp_process_record *process = table_add(table);
  process->pid = (uint32_t)sys(getpid);
  process->parent_pid = (uint32_t)sys(getppid);
  process->process_group = (uint32_t)sys(getpgid, 0);
  process->session = (uint32_t)sys(getsid, 0);
  status_numbers(status, "\nUid:", process->uid, 4);
  status_numbers(status, "\nGid:", process->gid, 4);
  process->umask = 0;
  const char *umask = status_field(status, "\nUmask:");
  process->umask = (uint32_t)parse_octal(&umask);
  format(path, sizeof path, "/proc/self/task/%u/personality", thread->tid);
  if (read_small_file(path, text, sizeof text) > 0) {
    const char *at = text;
    process->personality = (uint32_t)parse_hex(&at);
  }
  process->dumpable = (uint32_t)capture->dumpable;
  process->no_new_privs = (uint32_t)status_number(status, "\nNoNewPrivs:");
  long thp = sys(prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
  process->thp_disable = thp > 0 ? (uint32_t)thp : 0;
  uint32_t subreaper = 0;
  sys(prctl, PR_GET_CHILD_SUBREAPER, &subreaper);
  process->child_subreaper = subreaper;
  if (read_small_file("/proc/self/oom_score_adj", text, sizeof text) > 0) {
    const char *at = text;
    process->oom_score_adj = (int32_t)parse_signed(&at);
  }
  /* Before Linux 6.3 nobody can tell: the common one is assumed, which costs a barrier more at some thread switches. */
  long registrations = sys(membarrier, MEMBARRIER_GET_REGISTRATIONS, 0, 0);
  process->membarrier = registrations >= 0 ? (uint32_t)registrations : MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
  process->tid_offset = find_tid_offset(capture->freeze);
  process->start_code = stat_field(stat, 26);
  process->end_code = stat_field(stat, 27);
  process->start_stack = stat_field(stat, 28);
  process->start_data = stat_field(stat, 45);
  process->end_data = stat_field(stat, 46);
  process->start_brk = stat_field(stat, 47);
  process->arg_start = stat_field(stat, 48);
  process->arg_end = stat_field(stat, 49);
  process->env_start = stat_field(stat, 50);
  process->env_end = stat_field(stat, 51);
  process->brk = (uint64_t)sys(brk, 0);
  process->control = (uint64_t)&warp_control;
  process->resume_entry = (uint64_t)arch_resume_entry;
  process->helper_entry = (uint64_t)engine_helper_restored;
  process->helper_stack = (uint64_t)(helper_stack + HELPER_STACK_SIZE);
  for (int i = 0; i < 16; i++) sys(prlimit64, 0, i, NULL, process->rlimit[i]);
  for (int i = 0; i < 3; i++) {
    struct itimerval64 {
      int64_t interval_seconds, interval_microseconds, value_seconds, value_microseconds;
    } timer;
    if (sys(getitimer, i, &timer) < 0) continue;
    process->itimer[i][0] = (uint64_t)(timer.value_seconds * 1000000 + timer.value_microseconds);
    process->itimer[i][1] = (uint64_t)(timer.interval_seconds * 1000000 + timer.interval_microseconds);
  }
  if (process->start_brk == 0) return fail(capture->failure, "/proc/PID/stat does not tell this process's memory layout: it must be dumpable (prctl PR_SET_DUMPABLE)");
  struct file_status directory;
  if (read_link("/proc/thread-self/cwd", text, sizeof text) < 0 || sys(newfstatat, AT_FDCWD_, text, &directory, 0) < 0)
    return fail(capture->failure, "the working directory %s has been removed: change to another one before the checkpoint", text);
  process->cwd = table_string(table, text);
  if (read_link("/proc/thread-self/root", text, sizeof text) >= 0) process->root = table_string(table, text);
  uint32_t groups[256];
  long group_count = sys(getgroups, 256, groups);
  if (group_count > 0) process->groups = table_bytes(table, groups, (size_t)group_count * 4);
  return 0;
}

/* glibc tells where it keeps a thread's rseq area (since 2.35). */
extern __attribute__((weak)) const ptrdiff_t __rseq_offset;
extern __attribute__((weak)) const unsigned int __rseq_size;
#define RSEQ_SIGNATURE 0x53053053u /* of x86, asm/rseq.h of glibc */
#define RSEQ_LENGTH 32u

/* In the thread itself: rseq(2) answers EBUSY for the area that is registered, EINVAL for any other, and 0 when none was. */
static long probe_rseq(void *address) {
  long answer = sys(rseq, address, RSEQ_LENGTH, 0, RSEQ_SIGNATURE);
  if (answer == 0) sys(rseq, address, RSEQ_LENGTH, 1 /* RSEQ_FLAG_UNREGISTER */, RSEQ_SIGNATURE);
  return answer;
}

/* Where a program registers for itself (musl, tcmalloc) the area is a thread-local variable, near the thread pointer. */
static uint64_t search_rseq(struct capture *capture, struct slot *slot) {
  static uint8_t nowhere[RSEQ_LENGTH] __attribute__((aligned(RSEQ_LENGTH)));
  if (freeze_call(slot, probe_rseq, nowhere) != -EINVAL) return 0;
  const uint64_t before = 32 * KIB;
  uint64_t start = round_down(slot->fs_base, RSEQ_LENGTH) - before;
  uint8_t *bytes = arena_allocate(&capture->arena, before + PAGE_SIZE);
  for (uint64_t at = round_down(start, PAGE_SIZE); at < slot->fs_base + PAGE_SIZE; at += PAGE_SIZE) {
    if (read_fully(capture->process_memory, bytes, PAGE_SIZE, at) != (long)PAGE_SIZE) continue;
    for (uint64_t offset = 0; offset < PAGE_SIZE; offset += RSEQ_LENGTH) {
      uint32_t processors[2];
      copy_bytes(processors, bytes + offset, sizeof processors);
      if (processors[0] == processors[1] && processors[0] < 8192 && freeze_call(slot, probe_rseq, (void *)(at + offset)) == -EBUSY) return at + offset;
    }
  }
  log_warn("thread %u has restartable sequences registered at a place that is not known: they will not be registered again", slot->tid);
  return 0;
}

static void capture_rseq(struct capture *capture, struct slot *slot, struct warp_thread_record *thread) {
  if (!has_own_block(capture->freeze, slot)) return;
  if (&__rseq_offset != NULL && &__rseq_size != NULL && __rseq_size != 0) {
    uint64_t address = slot->fs_base + (uint64_t)__rseq_offset;
    int32_t processor;
    copy_bytes(&processor, (const void *)(address + 4), sizeof processor);
    if (processor < 0) return; /* never registered */
    thread->rseq_address = address;
    thread->rseq_length = __rseq_size < RSEQ_LENGTH ? RSEQ_LENGTH : __rseq_size;
  } else {
    thread->rseq_address = search_rseq(capture, slot);
    thread->rseq_length = RSEQ_LENGTH;
  }
  if (thread->rseq_address != 0) thread->rseq_signature = RSEQ_SIGNATURE;
}

void capture_threads(struct capture *capture) {
  for (size_t i = 0; i < capture->freeze->count; i++) {
    struct slot *slot = &capture->freeze->slots[i];
    if (slot->state == SLOT_GONE) continue;
    struct warp_thread_record *thread = table_add(&capture->threads);
    char path[64], text[64];
    thread->tid = slot->tid;
    thread->flags = (slot->tid == (uint32_t)sys(getpid) ? WARP_THREAD_LEADER : 0) | (slot->state == SLOT_ENDED_LEADER ? WARP_THREAD_EXITED : 0);
    thread->system_call = -1;
    format(path, sizeof path, "/proc/self/task/%u/comm", slot->tid);
    long n = read_small_file(path, text, sizeof text);
    if (n > 1) thread->name = table_bytes(&capture->threads, text, (size_t)n - 1);
    if (slot->state == SLOT_ENDED_LEADER) continue;
    thread->system_call = (int32_t)slot->system_call;
    thread->state = (uint8_t)slot->proc_state;
    thread->fs_base = slot->fs_base;
    thread->gs_base = slot->gs_base;
    thread->clear_child_tid = slot->clear_child_tid;
    thread->timer_slack_ns = slot->timer_slack_ns;
    thread->death_signal = slot->death_signal;
    thread->context = (uint64_t)slot->context;
    thread->resume_stack = slot->resume_stack;
    thread->altstack_address = (uint64_t)slot->context->uc_stack.ss_sp;
    thread->altstack_size = slot->context->uc_stack.ss_size;
    thread->altstack_flags = (uint32_t)slot->context->uc_stack.ss_flags;
    copy_bytes(&thread->signal_mask, &slot->context->uc_sigmask, sizeof thread->signal_mask);
    sys(get_robust_list, slot->tid, &thread->robust_head, &thread->robust_length);
    capture_rseq(capture, slot, thread);
    long nice = sys(getpriority, 0, slot->tid);
    thread->nice = (int32_t)(nice > 0 ? 20 - nice : 0);
    long policy = sys(sched_getscheduler, slot->tid);
    thread->scheduling_policy = policy > 0 ? (uint32_t)policy : 0;
    uint32_t priority = 0;
    if (sys(sched_getparam, slot->tid, &priority) == 0) thread->scheduling_priority = priority;
    long io_priority = sys(ioprio_get, IOPRIO_WHO_PROCESS, slot->tid);
    thread->io_priority = io_priority > 0 ? (uint32_t)io_priority : 0;
    uint64_t mask[128];
    long size = sys(sched_getaffinity, slot->tid, sizeof mask, mask);
    if (size > 0) thread->affinity = table_bytes(&capture->threads, mask, (size_t)size);
  }
}

void capture_image(struct capture *capture) {
  struct table *table = &capture->image;
  struct warp_image_record *image = table_add(table);
  struct arch_cpu cpu;
  struct new_utsname name;
  char text[4096];
  sys(getrandom, image->image_id, sizeof image->image_id, 0);
  image->image_id[6] = (uint8_t)((image->image_id[6] & 0x0f) | 0x40);
  image->image_id[8] = (uint8_t)((image->image_id[8] & 0x3f) | 0x80);
  image->generation = warp_control.generation;
  image->flags = (capture->request->self_contained ? WARP_IMAGE_SELF_CONTAINED : 0) | (capture->request->leave_running ? WARP_IMAGE_LEFT_RUNNING : 0) |
                 (capture->request->lz4_level > 0 ? WARP_IMAGE_COMPRESSED : 0) | (capture->fixed_calls > 0 ? WARP_IMAGE_FIXED_CALLS : 0);
  image->realtime_ns = clock_ns(CLOCK_REALTIME_);
  image->monotonic_ns = clock_ns(CLOCK_MONOTONIC_);
  image->boottime_ns = clock_ns(CLOCK_BOOTTIME_);
  image->page_size = PAGE_SIZE;
  image->machine = ARCH_ELF_MACHINE;
  for (size_t i = 0; i < capture->freeze->count; i++) {
    const struct slot *slot = &capture->freeze->slots[i];
    if (slot->state != SLOT_PARKED) continue;
    uint64_t features;
    arch_xstate_size(slot->context, &features);
    image->xstate_features |= features;
    uint32_t size = arch_frame_xstate_size(slot->context);
    image->xstate_size = size > image->xstate_size ? size : image->xstate_size;
  }
  arch_read_cpu(&cpu);
  if (generic_processor) {
    /* What other registers hold, if anything, is left over from code that only tries them, as HotSpot does when it starts. A kernel that has them loads it, others only what they know. */
    image->xstate_features &= ARCH_GENERIC_XSTATE;
    arch_limit_cpu(&cpu);
  }
  image->engine_version = table_string(table, ENGINE_VERSION);
  if (sys(uname, &name) == 0) {
    image->kernel_release = table_string(table, name.release);
    image->kernel_version = table_string(table, name.version);
    image->hostname = table_string(table, name.nodename);
  }
  image->cpu_model = table_string(table, cpu.model);
  image->cpu_features = table_bytes(table, cpu.features, sizeof cpu.features);
  long n = read_small_file("/proc/sys/kernel/random/boot_id", text, sizeof text);
  if (n > 1) image->boot_id = table_bytes(table, text, (size_t)n - 1);
  if (warp_control.generation > 0) {
    image->executable = table_string(table, warp_control.executable);
  } else if (read_link("/proc/thread-self/exe", text, sizeof text) >= 0) {
    image->executable = table_string(table, text);
  }
  size_t size = 0;
  long error;
  const char *command = read_whole_file(&capture->arena, "/proc/thread-self/cmdline", &size, &error);
  if (command != NULL && size > 0) image->command = table_bytes(table, command, size - (command[size - 1] == 0));
}
