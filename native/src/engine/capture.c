/* One checkpoint, from the request to the durable image. */
#include <linux/futex.h>
#include <linux/ioprio.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/time.h>
#include <linux/utsname.h>

#include "engine.h"

/* NT_FILE, NT_SIGINFO: linux/elf.h; struct layouts of fs/binfmt_elf.c and include/linux/elfcore.h for x86-64. */
#define PRPSINFO_SIZE 136

static struct capture the_capture;

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

static int32_t find_tid_offset(const struct freeze *freeze) {
  /* The C library's record of a thread's id stands at the same place of every thread's control block: look for it there. */
  for (int32_t offset = 0; offset < 0x800; offset += 4) {
    size_t matching = 0, threads = 0;
    for (size_t i = 0; i < freeze->count; i++) {
      const struct slot *slot = &freeze->slots[i];
      if (slot->state != SLOT_PARKED) continue;
      threads++;
      if (slot->fs_base == 0 || *(const uint32_t *)(slot->fs_base + (uint64_t)offset) != slot->tid) break;
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
  if (read_link("/proc/thread-self/cwd", text, sizeof text) >= 0) process->cwd = table_string(table, text);
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

static void capture_threads(struct capture *capture) {
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

#define FUTEX_LOCK_PI2_ 13

/*
 * A thread that waits for a robust or priority-inheriting mutex has read its own id before, and will write it into the mutex
 * when it gets it: glibc keeps it in a register or in the frame (nptl/pthread_mutex_lock.c).
 */
static void capture_cached_ids(struct capture *capture) {
  for (size_t i = 0; i < capture->freeze->count; i++) {
    struct slot *slot = &capture->freeze->slots[i];
    if (slot->state != SLOT_PARKED || slot->system_call != __NR_futex) continue;
    uint64_t operation = arch_context_argument(slot->context, 1) & (uint64_t)FUTEX_CMD_MASK, value = arch_context_argument(slot->context, 2);
    bool robust = (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET) && (value & FUTEX_WAITERS) != 0;
    bool inheriting = operation == FUTEX_LOCK_PI || operation == FUTEX_LOCK_PI2_ || operation == FUTEX_WAIT_REQUEUE_PI;
    if (!robust && !inheriting) continue;
    size_t count;
    uint64_t *registers = arch_context_registers(slot->context, &count);
    for (size_t k = 0; k < count; k++) {
      if (registers[k] != slot->tid) continue;
      struct warp_tid_reference_record *reference = table_add(&capture->tid_references);
      *reference = (struct warp_tid_reference_record){(uint64_t)&registers[k], slot->tid, WARP_TID_CACHED};
    }
    const uint32_t *frame = (const uint32_t *)arch_context_stack(slot->context);
    for (size_t k = 0; k < 64; k++) {
      if (frame[k] != slot->tid) continue;
      struct warp_tid_reference_record *reference = table_add(&capture->tid_references);
      *reference = (struct warp_tid_reference_record){(uint64_t)&frame[k], slot->tid, WARP_TID_CACHED};
    }
  }
}

static void capture_image(struct capture *capture) {
  struct table *table = &capture->image;
  struct warp_image_record *image = table_add(table);
  struct arch_cpu cpu;
  struct new_utsname name;
  char text[4096];
  sys(getrandom, image->image_id, sizeof image->image_id, 0);
  image->image_id[6] = (uint8_t)((image->image_id[6] & 0x0f) | 0x40);
  image->image_id[8] = (uint8_t)((image->image_id[8] & 0x3f) | 0x80);
  image->generation = warp_control.generation;
  image->flags = (capture->request->self_contained ? WARP_IMAGE_SELF_CONTAINED : 0) | (capture->request->leave_running ? WARP_IMAGE_LEFT_RUNNING : 0);
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

/* ---- the kernel's notes ---- */

static void append_prpsinfo(struct capture *capture, struct buffer *notes) {
  const struct warp_process_record *process = table_at(&capture->process, struct warp_process_record, 0);
  struct {
    char state, state_name, zombie, nice;
    uint32_t padding;
    uint64_t flag;
    uint32_t uid, gid;
    int32_t pid, parent, group, session;
    char file_name[16];
    char arguments[80];
  } info;
  _Static_assert(sizeof info == PRPSINFO_SIZE, "struct elf_prpsinfo");
  fill_bytes(&info, 0, sizeof info);
  info.state_name = 'R';
  info.uid = process->uid[0], info.gid = process->gid[0];
  info.pid = (int32_t)process->pid, info.parent = (int32_t)process->parent_pid, info.group = (int32_t)process->process_group, info.session = (int32_t)process->session;
  sys(prctl, PR_GET_NAME, info.file_name);
  char path[64];
  format(path, sizeof path, "/proc/self/task/%u/comm", process->pid);
  long n = read_small_file(path, info.file_name, sizeof info.file_name);
  if (n > 0 && info.file_name[n - 1] == '\n') info.file_name[n - 1] = 0;
  const struct warp_image_record *image = table_at(&capture->image, struct warp_image_record, 0);
  size_t length = min_u64(image->command.length, sizeof info.arguments - 1);
  if (length > 0) copy_bytes(info.arguments, capture->image.heap.bytes + image->command.offset, length);
  for (size_t i = 0; i < length; i++)
    if (info.arguments[i] == 0) info.arguments[i] = ' ';
  note_append(notes, "CORE", NT_PRPSINFO, &info, sizeof info);
}

static void append_file_note(struct capture *capture, struct buffer *notes) {
  struct buffer table, names;
  buffer_init(&table, &capture->arena);
  buffer_init(&names, &capture->arena);
  uint64_t count = 0, page_size = PAGE_SIZE;
  buffer_append(&table, &count, sizeof count);
  buffer_append(&table, &page_size, sizeof page_size);
  for (size_t i = 0; i < capture->vmas.records.count; i++) {
    const struct warp_vma_record *vma = table_at(&capture->vmas, struct warp_vma_record, i);
    /* The engine's own pages are all in the image, and its file may be another version's by the time of a look. */
    if (vma->kind != WARP_VMA_FILE) continue;
    const uint64_t entry[3] = {vma->start, vma->end, vma->offset / PAGE_SIZE};
    buffer_append(&table, entry, sizeof entry);
    buffer_append(&names, capture->vmas.heap.bytes + vma->name.offset, vma->name.length);
    buffer_add(&names, 1);
    count++;
  }
  copy_bytes(table.bytes, &count, sizeof count);
  if (names.size > 0) buffer_append(&table, names.bytes, names.size);
  note_append(notes, "CORE", NT_FILE, table.bytes, table.size);
}

static void append_thread(struct capture *capture, struct buffer *notes, const struct slot *slot, bool first) {
  const struct warp_process_record *process = table_at(&capture->process, struct warp_process_record, 0);
  uint8_t status[ARCH_PRSTATUS_SIZE];
  uint64_t registers[ARCH_REGISTER_COUNT];
  fill_bytes(status, 0, sizeof status);
  fill_bytes(registers, 0, sizeof registers);
  /* struct elf_prstatus: si_signo.. 12 bytes, cursig, pending, held, pid, ppid, pgrp, sid, four times, registers, fpvalid. */
  const uint32_t ids[4] = {slot->tid, process->parent_pid, process->process_group, process->session};
  uint32_t fp_valid = slot->context != NULL;
  copy_bytes(status + 32, ids, sizeof ids);
  if (slot->context != NULL) {
    copy_bytes(status + 24, &slot->context->uc_sigmask, 8);
    arch_registers(slot->context, (long)slot->system_call, slot->fs_base, slot->gs_base, registers);
  }
  copy_bytes(status + ARCH_PRSTATUS_REGISTERS, registers, sizeof registers);
  copy_bytes(status + ARCH_PRSTATUS_REGISTERS + sizeof registers, &fp_valid, sizeof fp_valid);
  note_append(notes, "CORE", NT_PRSTATUS, status, sizeof status);
  if (first) {
    uint8_t siginfo[128];
    fill_bytes(siginfo, 0, sizeof siginfo);
    append_prpsinfo(capture, notes);
    note_append(notes, "CORE", NT_SIGINFO, siginfo, sizeof siginfo);
    size_t size = 0;
    long error;
    const char *auxv = read_whole_file(&capture->arena, "/proc/thread-self/auxv", &size, &error);
    if (auxv != NULL) note_append(notes, "CORE", NT_AUXV, auxv, size);
    append_file_note(capture, notes);
  }
  if (slot->context == NULL) return;
  uint8_t floating_point[ARCH_FPREGSET_SIZE];
  arch_fpregset(slot->context, floating_point);
  note_append(notes, "CORE", NT_FPREGSET, floating_point, sizeof floating_point);
  uint64_t features;
  uint32_t size = arch_xstate_size(slot->context, &features);
  if (size > 0) {
    uint8_t *state = arena_allocate(&capture->arena, size);
    arch_xstate(slot->context, state);
    note_append(notes, "LINUX", NT_X86_XSTATE, state, size);
  }
}

static void build_kernel_notes(struct capture *capture, struct buffer *notes) {
  bool first = true;
  for (size_t i = 0; i < capture->freeze->count; i++) {
    const struct slot *slot = &capture->freeze->slots[i];
    if (slot->state == SLOT_GONE) continue;
    append_thread(capture, notes, slot, first);
    first = false;
  }
}

/* ---- the file ---- */

/* Where the target goes before it is complete: a file without a name where the file system has such files. */
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

/* Mutexes found while writing go into a note that was laid out before: room for this many. */
#define TID_REFERENCE_ROOM 512

static void for_each_table(struct capture *capture, void (*each)(struct table *, void *), void *context) {
  struct table *const tables[] = {
      &capture->image,       &capture->process,  &capture->threads,   &capture->vmas,       &capture->files,           &capture->objects, &capture->extents,        &capture->descriptors,
      &capture->descriptions, &capture->pipes,   &capture->sockets,   &capture->epoll_watches, &capture->eventfds,     &capture->timerfds, &capture->signalfds,     &capture->inotify_watches,
      &capture->locks,       &capture->signal_actions, &capture->pending_signals, &capture->timers, &capture->tid_references, &capture->guards, &capture->chunks,    &capture->tags,
  };
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) each(tables[i], context);
}

static void add_size(struct table *table, void *context) { *(uint64_t *)context += table_note_size(table); }
static void append_note(struct table *table, void *context) { table_write(table, context); }

#define FIXED_SEGMENTS 3u

static int write_image(struct capture *capture) {
  struct buffer kernel_notes, metadata;
  buffer_init(&kernel_notes, &capture->arena);
  buffer_init(&metadata, &capture->arena);
  build_kernel_notes(capture, &kernel_notes);
  uint64_t notes_room = 64 + TID_REFERENCE_ROOM * sizeof(struct warp_tid_reference_record);
  for_each_table(capture, add_size, &notes_room);
  const uint64_t segment_count = FIXED_SEGMENTS + capture->segments.count;
  const bool extended = segment_count >= PN_XNUM;
  const uint64_t segments_offset = WARP_ANCHOR_OFFSET + sizeof(struct warp_anchor);
  const uint64_t section_offset = segments_offset + segment_count * sizeof(Elf64_Phdr);
  const uint64_t kernel_notes_offset = round_up(section_offset + (extended ? sizeof(Elf64_Shdr) : 0), 8);
  const uint64_t notes_offset = round_up(kernel_notes_offset + kernel_notes.size, 8);
  const uint64_t metadata_size = round_up(notes_offset + notes_room, PAGE_SIZE);
  capture_place_content(capture, metadata_size);
  long error = sys(ftruncate, capture->image_fd, capture->content_end);
  if (error < 0) return fail(capture->failure, "cannot write %s/core.img: %s", capture->request->directory, error_text(error));
  log_debug("image: %lu segments, %lu bytes of metadata, %lu bytes of content", segment_count, metadata_size, capture->content_end - metadata_size);
  if (capture_write_memory(capture) < 0) return -1;
  if (capture->tid_references.records.count > TID_REFERENCE_ROOM)
    return fail(capture->failure, "%lu mutexes that record their owner are locked, and there is room for %u: the program must hold fewer at a checkpoint", capture->tid_references.records.count, TID_REFERENCE_ROOM);

  struct buffer notes;
  buffer_init(&notes, &capture->arena);
  for_each_table(capture, append_note, &notes);

  uint8_t *bytes = buffer_add(&metadata, metadata_size);
  Elf64_Ehdr header = {
      .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE},
      .e_type = ET_CORE,
      .e_machine = ARCH_ELF_MACHINE,
      .e_version = EV_CURRENT,
      .e_phoff = segments_offset,
      .e_ehsize = sizeof(Elf64_Ehdr),
      .e_phentsize = sizeof(Elf64_Phdr),
      .e_phnum = extended ? PN_XNUM : (uint16_t)segment_count,
  };
  if (extended) {
    header.e_shoff = section_offset;
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 1;
    const Elf64_Shdr section = {.sh_type = SHT_NULL, .sh_size = 1, .sh_info = (uint32_t)segment_count};
    copy_bytes(bytes + section_offset, &section, sizeof section);
  }
  copy_bytes(bytes, &header, sizeof header);
  Elf64_Phdr *segments = (void *)(bytes + segments_offset);
  segments[0] = (Elf64_Phdr){.p_type = PT_WARP_ANCHOR, .p_offset = WARP_ANCHOR_OFFSET, .p_filesz = sizeof(struct warp_anchor), .p_align = 8};
  segments[1] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = kernel_notes_offset, .p_filesz = kernel_notes.size, .p_align = 4};
  segments[2] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = notes_offset, .p_filesz = notes.size, .p_align = 4};
  for (size_t i = 0; i < capture->segments.count; i++) {
    const struct segment *segment = list_at(&capture->segments, struct segment, i);
    segments[FIXED_SEGMENTS + i] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_flags = ((segment->protection & WARP_PROT_READ) != 0 ? PF_R : 0) | ((segment->protection & WARP_PROT_WRITE) != 0 ? PF_W : 0) | ((segment->protection & WARP_PROT_EXEC) != 0 ? PF_X : 0),
        .p_offset = segment->stored ? segment->content_offset : metadata_size,
        .p_vaddr = segment->address,
        .p_filesz = segment->stored ? segment->size : 0,
        .p_memsz = segment->size,
        .p_align = PAGE_SIZE,
    };
  }
  copy_bytes(bytes + kernel_notes_offset, kernel_notes.bytes, kernel_notes.size);
  copy_bytes(bytes + notes_offset, notes.bytes, notes.size);
  struct warp_anchor anchor = {
      .format_major = WARP_FORMAT_MAJOR,
      .format_minor = WARP_FORMAT_MINOR,
      .flags = table_at(&capture->image, struct warp_image_record, 0)->flags,
      .metadata_size = metadata_size,
      .file_size = capture->content_end,
      .content_size = capture->content_end,
      .notes_offset = notes_offset,
      .notes_size = notes.size,
  };
  copy_bytes(anchor.magic, WARP_ANCHOR_MAGIC, sizeof anchor.magic);
  copy_bytes(bytes + WARP_ANCHOR_OFFSET, &anchor, sizeof anchor);
  anchor.metadata_hash = xxh64(bytes, metadata_size);
  copy_bytes(bytes + WARP_ANCHOR_OFFSET, &anchor, sizeof anchor);
  error = pwrite_fully(capture->image_fd, bytes, metadata_size, 0);
  if (error < 0) return fail(capture->failure, "cannot write %s/core.img: %s", capture->request->directory, error_text(error));
  capture->bytes_written += metadata_size;
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
#undef TABLE
  list_init(&capture->object_sources, arena, sizeof(struct object_source));
  list_init(&capture->pieces, arena, sizeof(struct piece));
  list_init(&capture->runs, arena, sizeof(struct run));
  list_init(&capture->segments, arena, sizeof(struct segment));
}

static int take(struct capture *capture, struct target *target) {
  if (freeze_threads(capture->freeze, capture->request, capture->failure) < 0) return -1;
  capture->frozen_ns = clock_ns(CLOCK_MONOTONIC_);
  log_debug("%lu threads stopped in %lu us", capture->freeze->count, (capture->frozen_ns - capture->started_ns) / 1000);
  freeze_continue_calls(capture->freeze);
  capture->process_memory = (int)open_file("/proc/thread-self/mem", O_RDONLY | O_CLOEXEC, 0);
  if (capture->process_memory < 0) return fail(capture->failure, "cannot open /proc/PID/mem: %s: mount procfs", error_text(capture->process_memory));
  if (capture_process(capture) < 0 || capture_signals(capture) < 0) return -1;
  capture_threads(capture);
  capture_cached_ids(capture);
  capture_image(capture);
  if (capture_memory_areas(capture) < 0) return -1;
  release_find_sites(capture);
  if (capture_descriptors(capture) < 0) return -1;
  capture->collected_ns = clock_ns(CLOCK_MONOTONIC_);
  if (capture_scan_memory(capture) < 0) return -1;
  capture->scanned_ns = clock_ns(CLOCK_MONOTONIC_);
  log_debug("%lu runs of memory, %lu bytes, found in %lu us", capture->runs.count, capture->content_end, (capture->scanned_ns - capture->collected_ns) / 1000);
  capture->image_fd = target->fd;
  if (write_image(capture) < 0) return -1;
  capture->written_ns = clock_ns(CLOCK_MONOTONIC_);
  return 0;
}

static void capture_close(struct capture *capture) {
  if (capture->process_memory > 0) sys(close, capture->process_memory);
  for (size_t i = 0; i < capture->object_sources.count; i++) {
    const struct object_source *source = list_at(&capture->object_sources, struct object_source, i);
    if (source->fd >= 0) sys(close, source->fd);
  }
}

static void release(struct capture *capture) {
  if (capture->freeze->slots == NULL) return;
  requeue_signals(capture);
  freeze_release(capture->freeze);
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
  init_tables(capture);
  bool done = false;
  if (target_open(&target, request->directory, failure) == 0) {
    /* A process that is not dumpable cannot read its own /proc files. */
    capture->dumpable = sys(prctl, PR_GET_DUMPABLE);
    if (capture->dumpable != 1) sys(prctl, PR_SET_DUMPABLE, 1);
    done = take(capture, &target) == 0;
    capture_close(capture);
    if (capture->dumpable == 0) sys(prctl, PR_SET_DUMPABLE, 0);
    if (!done || request->leave_running) release(capture);
    uint64_t released_ns = clock_ns(CLOCK_MONOTONIC_);
    done = done && target_commit(&target, failure) == 0;
    capture->durable_ns = clock_ns(CLOCK_MONOTONIC_);
    if (done) {
      client_send(request,
                  "S{\"freeze_us\":%lu,\"collect_us\":%lu,\"scan_us\":%lu,\"write_us\":%lu,\"sync_us\":%lu,\"total_us\":%lu,\"paused_us\":%lu,\"bytes_written\":%lu,\"image_bytes\":%lu,\"threads\":%lu,\"memory_areas\":%lu,\"segments\":%lu}",
                  (capture->frozen_ns - capture->started_ns) / 1000, (capture->collected_ns - capture->frozen_ns) / 1000, (capture->scanned_ns - capture->collected_ns) / 1000,
                  (capture->written_ns - capture->scanned_ns) / 1000, (capture->durable_ns - released_ns) / 1000, (capture->durable_ns - capture->started_ns) / 1000,
                  ((request->leave_running ? released_ns : capture->durable_ns) - capture->started_ns) / 1000, capture->bytes_written, capture->content_end, capture->threads.records.count, capture->vmas.records.count,
                  capture->segments.count);
      client_send(request, "D%lu %u %s", capture->content_end, warp_control.generation, target.path);
      if (!request->leave_running) {
        log_debug("the image is durable: process %ld ends", sys(getpid));
        sys(kill, sys(getpid), 9);
        for (;;) sys(pause);
      }
    }
    release(capture);
  }
  target_discard(&target);
  arena_release(&capture->arena);
  return done ? 0 : -1;
}
