/*
 * System calls and signals of the program while part of its memory is absent.
 *
 * The kernel does not wait for memory that only a handler can supply: a call that meets it returns EFAULT, perhaps after it
 * has taken data from a socket. So Syscall User Dispatch brings every system call of the program here first; what the call
 * refers to is made present, and the call is made in a stub of the engine's code with the program's own registers. A call
 * that is not in the table below waits until everything is there.
 *
 * That needs SIGSYS, and without userfaultfd SIGSEGV, in every thread at every time. The program's own handlers and masks for
 * these two are kept aside meanwhile, and signals that are not the engine's go to them exactly as the kernel would have sent them.
 */
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#include "loading.h"

#define SYS_USER_DISPATCH_ 2
#define PR_SET_SYSCALL_USER_DISPATCH_ 59
#define DISPATCH_FILTER_ALLOW 0
#define DISPATCH_FILTER_BLOCK 1
#define SIGSYS_ 31
#define SIGSEGV_ 11
/* The flags that the kernel keeps (UAPI_SA_FLAGS in include/linux/signal_types.h, and SA_RESTORER). */
#define KERNEL_ACTION_FLAGS (0xd8000807ul | ARCH_SA_RESTORER)
#define BIT(number) (1ul << ((number) - 1))
#define THREAD_ENDED UINT32_MAX

static uint8_t selector; /* per process: read by the kernel at each call */
static bool active;
static uint32_t failed_ends; /* since the beginning: a thread could not be stopped */
static uint64_t reserved_mask; /* signals that must not be blocked */
/* What the program believes its dispositions to be. */
static struct arch_sigaction program_actions[65];

/* Threads that have reserved signals blocked, as they believe. */
struct blocked_record {
  uint32_t tid; /* 0 none yet, THREAD_ENDED none any more */
  uint32_t bits; /* 1 SIGSYS, 2 SIGSEGV */
};
#define BLOCKED_RECORDS 4096u
static struct blocked_record blocked_records[BLOCKED_RECORDS];

/* ---- masks ---- */

static struct blocked_record *blocked_record(uint32_t tid, bool make) {
  for (;;) {
    struct blocked_record *vacant = NULL;
    uint32_t vacant_tid = 0;
    for (uint32_t i = 0; i < BLOCKED_RECORDS; i++) {
      struct blocked_record *record = &blocked_records[(tid + i) % BLOCKED_RECORDS];
      const uint32_t seen = __atomic_load_n(&record->tid, __ATOMIC_ACQUIRE);
      if (seen == tid) return record;
      if (vacant == NULL && (seen == 0 || seen == THREAD_ENDED)) vacant = record, vacant_tid = seen;
      if (seen == 0) break;
    }
    if (!make || vacant == NULL) return NULL;
    if (__atomic_compare_exchange_n(&vacant->tid, &vacant_tid, tid, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return vacant;
  }
}

static uint64_t believed_bits(uint32_t tid) {
  const struct blocked_record *record = blocked_record(tid, false);
  return record == NULL ? 0 : ((record->bits & 1) != 0 ? BIT(SIGSYS_) : 0) | ((record->bits & 2) != 0 ? BIT(SIGSEGV_) : 0);
}

/* Takes the reserved signals out of a mask that is to take effect, and remembers which were in it. */
static uint64_t without_reserved(uint32_t tid, uint64_t mask) {
  uint32_t bits = ((mask & reserved_mask & BIT(SIGSYS_)) != 0 ? 1 : 0) | ((mask & reserved_mask & BIT(SIGSEGV_)) != 0 ? 2 : 0);
  struct blocked_record *record = blocked_record(tid, bits != 0);
  if (record != NULL) record->bits = bits;
  return mask & ~reserved_mask;
}

/* Everything is blocked while the engine handles a call: adding to the mask changes nothing, but has the kernel look at the place. */
static bool readable(uint64_t address) { return sys(rt_sigprocmask, 0 /* SIG_BLOCK */, address, NULL, 8) == 0; }
static bool writable(uint64_t address) { return sys(rt_sigprocmask, 0, NULL, address, 8) == 0; }

static bool read_program(void *to, uint64_t address, size_t size) {
  loading_ensure(address, size);
  if (size < 8) return false;
  for (uint64_t at = address; at < address + size; at += PAGE_SIZE)
    if (!readable(min_u64(at, address + size - 8))) return false;
  if (!readable(address + size - 8)) return false;
  copy_bytes(to, (const void *)address, size);
  return true;
}

static bool write_program(uint64_t address, const void *from, size_t size) {
  loading_ensure(address, size);
  if (!writable(address) || !writable(address + size - 8)) return false;
  copy_bytes((void *)address, from, size);
  return true;
}

/* ---- signals ---- */

/* Installs what stands in for the program's disposition: no handler may run with a reserved signal blocked. */
static long set_action(int number) {
  const struct arch_sigaction *program = &program_actions[number];
  bool handled = program->handler > 1, reserved = (reserved_mask & BIT(number)) != 0;
  struct arch_sigaction action = *program;
  if (reserved) {
    action.handler = (uint64_t)(number == SIGSYS_ ? arch_dispatch_entry : arch_fault_entry);
    /* On the stack that the program's handler would run on: it may take over the frame. */
    action.flags = SA_SIGINFO | ARCH_SA_RESTORER | (number == SIGSYS_ || !handled ? SA_ONSTACK : program->flags & SA_ONSTACK) | (handled ? program->flags & SA_RESTART : 0);
    action.restorer = (uint64_t)arch_signal_return;
    action.mask = ~0ul;
  } else if (handled && number != CAPTURE_SIGNAL) {
    action.handler = (uint64_t)arch_signal_entry;
    action.mask &= ~reserved_mask;
  }
  return sys(rt_sigaction, number, &action, NULL, sizeof action.mask);
}

/*
 * The program's handler of a signal is about to run: its frame has the mask that the program believes it had, and while it runs, it
 * believes what its disposition says. Returns the handler.
 */
static uint64_t enter_handler(int number, struct ucontext *context) {
  struct arch_sigaction action = program_actions[number];
  uint32_t tid = (uint32_t)sys(gettid);
  uint64_t mask;
  if ((action.flags & SA_RESETHAND) != 0) program_actions[number].handler = 0;
  copy_bytes(&mask, &context->uc_sigmask, sizeof mask);
  mask |= believed_bits(tid);
  copy_bytes(&context->uc_sigmask, &mask, sizeof mask);
  without_reserved(tid, mask | action.mask | ((action.flags & SA_NODEFER) == 0 ? BIT(number) : 0));
  return action.handler;
}

/* Called by arch_signal_entry. */
HIDDEN uint64_t engine_signal(int number, struct siginfo *info, struct ucontext *context);
uint64_t engine_signal(int number, struct siginfo *info, struct ucontext *context) {
  (void)info;
  return enter_handler(number, context);
}

/* A reserved signal that is not the engine's: returns the program's handler, to be entered with the same frame, or 0. */
static uint64_t forward(int number, const struct siginfo *info, struct ucontext *context) {
  struct arch_sigaction action = program_actions[number];
  bool sent = info->si_code <= 0;
  if (action.handler == 1 /* SIG_IGN */ && sent) return 0;
  if (action.handler <= 1) {
    /* The default ends the process: at once when it was sent, else when the instruction is repeated. */
    const struct arch_sigaction usual = {.flags = ARCH_SA_RESTORER, .restorer = (uint64_t)arch_signal_return};
    sys(rt_sigaction, number, &usual, NULL, sizeof usual.mask);
    if (sent) sys(tgkill, sys(getpid), sys(gettid), number);
    return 0;
  }
  uint64_t mask;
  copy_bytes(&mask, &context->uc_sigmask, sizeof mask);
  mask |= action.mask | ((action.flags & SA_NODEFER) == 0 ? BIT(number) : 0);
  mask &= ~reserved_mask;
  sys(rt_sigprocmask, 2 /* SIG_SETMASK */, &mask, NULL, sizeof mask);
  /* Its return is a system call of the program, which comes by here: the mask in the frame is only what the program believes. */
  arch_frame_set_return(context, action.restorer);
  return enter_handler(number, context);
}

/* The last fault of a thread on memory that was there when it was looked at. */
struct repeated_fault {
  uint32_t tid;
  uint64_t address;
  uint64_t instruction;
};
static struct repeated_fault repeated_faults[256];

/* Called by arch_fault_entry. */
HIDDEN uint64_t engine_fault(int number, struct siginfo *info, struct ucontext *context);
uint64_t engine_fault(int number, struct siginfo *info, struct ucontext *context) {
  uint64_t address = (uint64_t)info->_sifields._sigfault._addr;
  uint32_t piece = info->si_code > 0 ? loading_piece_at(address) : WARP_NONE;
  if (piece == WARP_NONE) return forward(number, info, context);
  if (!loading_piece_present(piece)) {
    loading_ensure(address, 1);
    return 0;
  }
  /* It may have come between the fault and this look; the same fault again is the program's own. */
  uint32_t tid = (uint32_t)sys(gettid);
  struct repeated_fault *last = &repeated_faults[tid % 256];
  if (last->tid == tid && last->address == address && last->instruction == arch_context_instruction(context)) {
    last->tid = 0;
    return forward(number, info, context);
  }
  *last = (struct repeated_fault){tid, address, arch_context_instruction(context)};
  return 0;
}

/* ---- what system calls refer to ---- */

/*
 * A letter for each argument. - no address; s string; b buffer, its length is the next argument; v as many struct iovec as the next
 * argument says; m struct msghdr; M struct mmsghdr, f struct pollfd, e struct epoll_event likewise; l socket address with its length's address next;
 * g a signal mask in force during the call; r a range of memory, its length is the next argument; w, q, t, h, k, u, p: 4, 8, 16, 64, 256, 512,
 * 4096 bytes. "" takes none. What is not here waits for all memory.
 */
static const char *const references[] = {
    [__NR_read] = "-b-", [__NR_write] = "-b-", [__NR_open] = "s--", [__NR_close] = "-", [__NR_stat] = "sk", [__NR_fstat] = "-k", [__NR_lstat] = "sk", [__NR_poll] = "f--", [__NR_lseek] = "---",
    [__NR_mprotect] = "r--", [__NR_pread64] = "-b--", [__NR_pwrite64] = "-b--", [__NR_readv] = "-v-", [__NR_writev] = "-v-", [__NR_access] = "s-", [__NR_pipe] = "q",
    [__NR_sched_yield] = "", [__NR_msync] = "r--", [__NR_madvise] = "r--", [__NR_dup] = "-", [__NR_dup2] = "--", [__NR_pause] = "", [__NR_nanosleep] = "tt", [__NR_getitimer] = "-k",
    [__NR_setitimer] = "-kk", [__NR_alarm] = "-", [__NR_getpid] = "", [__NR_sendfile] = "--q-", [__NR_socket] = "---", [__NR_connect] = "-b-", [__NR_accept] = "-lw", [__NR_sendto] = "-b--b-",
    [__NR_recvfrom] = "-b--lw", [__NR_sendmsg] = "-m-", [__NR_recvmsg] = "-m-", [__NR_shutdown] = "--", [__NR_bind] = "-b-", [__NR_listen] = "--", [__NR_getsockname] = "-lw", [__NR_getpeername] = "-lw",
    [__NR_socketpair] = "---q", [__NR_wait4] = "-w-k", [__NR_kill] = "--", [__NR_uname] = "u", [__NR_flock] = "--", [__NR_fsync] = "-",
    [__NR_fdatasync] = "-", [__NR_truncate] = "s-", [__NR_ftruncate] = "--", [__NR_getcwd] = "b-", [__NR_chdir] = "s", [__NR_fchdir] = "-", [__NR_rename] = "ss", [__NR_mkdir] = "s-", [__NR_rmdir] = "s",
    [__NR_creat] = "s-", [__NR_link] = "ss", [__NR_unlink] = "s", [__NR_symlink] = "ss", [__NR_readlink] = "sb-", [__NR_chmod] = "s-", [__NR_fchmod] = "--", [__NR_chown] = "s--", [__NR_fchown] = "---",
    [__NR_lchown] = "s--", [__NR_umask] = "-", [__NR_gettimeofday] = "tt", [__NR_getrlimit] = "-t", [__NR_getrusage] = "-k", [__NR_sysinfo] = "k", [__NR_times] = "k", [__NR_getuid] = "", [__NR_getgid] = "",
    [__NR_geteuid] = "", [__NR_getegid] = "", [__NR_setpgid] = "--", [__NR_getppid] = "", [__NR_getpgrp] = "", [__NR_setsid] = "", [__NR_getresuid] = "www", [__NR_getresgid] = "www",
    [__NR_getpgid] = "-", [__NR_getsid] = "-", [__NR_rt_sigpending] = "q-", [__NR_rt_sigtimedwait] = "qkt-", [__NR_rt_sigqueueinfo] = "--k", [__NR_rt_sigsuspend] = "g-", [__NR_sigaltstack] = "hh",
    [__NR_utime] = "st", [__NR_personality] = "-", [__NR_statfs] = "sk", [__NR_fstatfs] = "-k", [__NR_getpriority] = "--", [__NR_setpriority] = "---", [__NR_sched_setparam] = "-w", [__NR_sched_getparam] = "-w",
    [__NR_sched_setscheduler] = "--w", [__NR_sched_getscheduler] = "-", [__NR_sched_get_priority_max] = "-", [__NR_sched_get_priority_min] = "-", [__NR_sched_rr_get_interval] = "-t", [__NR_mlock] = "r-",
    [__NR_munlock] = "r-", [__NR_arch_prctl] = "-q", [__NR_sync] = "", [__NR_gettid] = "", [__NR_readahead] = "---", [__NR_getxattr] = "ssb-", [__NR_tkill] = "--", [__NR_time] = "q",
    [__NR_futex] = "q--tq-", [__NR_sched_setaffinity] = "--p", [__NR_sched_getaffinity] = "--p", [__NR_epoll_create] = "-", [__NR_getdents64] = "-b-", [__NR_set_tid_address] = "w", [__NR_restart_syscall] = "",
    [__NR_fadvise64] = "----", [__NR_timer_create] = "-kw", [__NR_timer_settime] = "--kk", [__NR_timer_gettime] = "-k", [__NR_timer_getoverrun] = "-", [__NR_timer_delete] = "-", [__NR_clock_gettime] = "-t",
    [__NR_clock_getres] = "-t", [__NR_clock_nanosleep] = "--tt", [__NR_exit_group] = "-", [__NR_epoll_wait] = "-e--", [__NR_epoll_ctl] = "---t", [__NR_tgkill] = "---", [__NR_utimes] = "sk",
    [__NR_waitid] = "--k-k", [__NR_ioprio_get] = "--", [__NR_ioprio_set] = "---", [__NR_inotify_init] = "", [__NR_inotify_add_watch] = "-s-", [__NR_inotify_rm_watch] = "--", [__NR_openat] = "-s--",
    [__NR_mkdirat] = "-s-", [__NR_mknodat] = "-s--", [__NR_fchownat] = "-s---", [__NR_futimesat] = "-sk", [__NR_newfstatat] = "-sk-", [__NR_unlinkat] = "-s-", [__NR_renameat] = "-s-s", [__NR_linkat] = "-s-s-",
    [__NR_symlinkat] = "s-s", [__NR_readlinkat] = "-sb-", [__NR_fchmodat] = "-s-", [__NR_faccessat] = "-s-", [__NR_ppoll] = "f-tg-", [__NR_set_robust_list] = "h-", [__NR_get_robust_list] = "-qq",
    [__NR_splice] = "-q-q--", [__NR_tee] = "----", [__NR_sync_file_range] = "----", [__NR_utimensat] = "-sh-", [__NR_epoll_pwait] = "-e--g-", [__NR_signalfd] = "-q-", [__NR_timerfd_create] = "--",
    [__NR_eventfd] = "-", [__NR_fallocate] = "----", [__NR_timerfd_settime] = "--hh", [__NR_timerfd_gettime] = "-h", [__NR_accept4] = "-lw-", [__NR_signalfd4] = "-q--", [__NR_eventfd2] = "--",
    [__NR_epoll_create1] = "-", [__NR_dup3] = "---", [__NR_pipe2] = "q-", [__NR_inotify_init1] = "-", [__NR_preadv] = "-v---", [__NR_pwritev] = "-v---", [__NR_rt_tgsigqueueinfo] = "---k", [__NR_prlimit64] = "--tt",
    [__NR_syncfs] = "-", [__NR_getcpu] = "ww-", [__NR_sched_setattr] = "-p-", [__NR_sched_getattr] = "-k--", [__NR_renameat2] = "-s-s-", [__NR_getrandom] = "b--", [__NR_memfd_create] = "s-",
    [__NR_membarrier] = "---", [__NR_mlock2] = "r--", [__NR_copy_file_range] = "-q-q--", [__NR_preadv2] = "-v----", [__NR_pwritev2] = "-v----", [__NR_pkey_mprotect] = "r---", [__NR_pkey_alloc] = "--",
    [__NR_pkey_free] = "-", [__NR_statx] = "-s--k", [__NR_rseq] = "h---", [__NR_close_range] = "---", [__NR_openat2] = "-sb-", [__NR_faccessat2] = "-s--", [__NR_epoll_pwait2] = "-e-tg-",
    [__NR_sendmmsg] = "-M--", [__NR_recvmmsg] = "-M--t",
};

struct vector {
  uint64_t base;
  uint64_t size;
};

static void ensure_vectors(uint64_t address, uint64_t count) {
  if (count > 1024) return; /* the kernel refuses it */
  for (uint64_t i = 0; i < count; i++) {
    struct vector vector;
    if (!read_program(&vector, address + i * sizeof vector, sizeof vector)) return;
    loading_ensure(vector.base, vector.size);
  }
}

static void ensure_message(uint64_t address) {
  struct {
    uint64_t name, name_size, vectors, vector_count, control, control_size, flags;
  } header;
  if (!read_program(&header, address, sizeof header)) return;
  loading_ensure(header.name, 128);
  ensure_vectors(header.vectors, header.vector_count);
  loading_ensure(header.control, header.control_size);
}

static void ensure_messages(uint64_t address, uint64_t count) {
  for (uint64_t i = 0; i < min_u64(count, 1024); i++) { /* more the kernel leaves alone */
    loading_ensure(address + i * 64, 64);
    ensure_message(address + i * 64);
  }
}

static bool blocks_reserved(uint64_t mask_address) {
  uint64_t mask;
  return mask_address != 0 && read_program(&mask, mask_address, sizeof mask) && (mask & reserved_mask) != 0;
}

static const char *references_of(long number) { return number >= 0 && number < (long)(sizeof references / sizeof references[0]) ? references[number] : NULL; }

enum decision {
  MAKE_IN_STUB,
  MAKE_IN_STUB_OF_THREAD,
  WAIT_FOR_ALL, /* then in a stub */
  AFTER_THE_END, /* when the dispatch has ended, too: the call needs the program's real mask, or would forbid the engine its own calls */
  LEAVE_ALONE,  /* the thread ends, and has no stack for a signal's frame any more */
  ANSWERED,
};

static enum decision ensure_references(const char *letters, const uint64_t argument[6]) {
  for (int i = 0; letters[i] != 0; i++) {
    uint64_t address = argument[i], next = i < 5 ? argument[i + 1] : 0;
    if (letters[i] == '-' || address == 0) continue;
    switch (letters[i]) {
      case 's': loading_ensure(address, PAGE_SIZE); break;
      case 'b':
      case 'r': loading_ensure(address, next); break;
      case 'v': ensure_vectors(address, next); break;
      case 'm': ensure_message(address); break;
      case 'M': ensure_messages(address, next); break;
      case 'f': loading_ensure(address, next * 8); break;
      case 'e': loading_ensure(address, next * 12); break;
      case 'l': loading_ensure(address, 128); break;
      case 'g':
        if (blocks_reserved(address)) return AFTER_THE_END;
        break;
      case 'w': loading_ensure(address, 4); break;
      case 'q': loading_ensure(address, 8); break;
      case 't': loading_ensure(address, 16); break;
      case 'h': loading_ensure(address, 64); break;
      case 'k': loading_ensure(address, 256); break;
      case 'u': loading_ensure(address, 512); break;
      default: loading_ensure(address, 4096); break;
    }
  }
  return MAKE_IN_STUB;
}

/* ---- calls with a meaning of their own ---- */

static long change_mask(struct ucontext *context) {
  uint64_t how = arch_context_argument(context, 0), set = arch_context_argument(context, 1), old = arch_context_argument(context, 2), mask, change;
  uint32_t tid = (uint32_t)sys(gettid);
  if (arch_context_argument(context, 3) != 8) return -EINVAL;
  copy_bytes(&mask, &context->uc_sigmask, sizeof mask);
  mask |= believed_bits(tid) & reserved_mask;
  const uint64_t before = mask;
  if (set != 0) {
    if (!read_program(&change, set, sizeof change)) return -EFAULT;
    if (how > 2) return -EINVAL;
    mask = how == 0 ? mask | change : how == 1 ? mask & ~change : change;
    mask &= ~(BIT(9) | BIT(19));
    uint64_t real = without_reserved(tid, mask);
    copy_bytes(&context->uc_sigmask, &real, sizeof real);
  }
  return old != 0 && !write_program(old, &before, sizeof before) ? -EFAULT : 0;
}

static long change_action(const struct ucontext *context) {
  uint64_t number = arch_context_argument(context, 0), set = arch_context_argument(context, 1), old = arch_context_argument(context, 2);
  struct arch_sigaction action, before;
  if (arch_context_argument(context, 3) != 8) return -EINVAL;
  if (set != 0 && !read_program(&action, set, sizeof action)) return -EFAULT;
  if (number == 0 || number > 64 || (set != 0 && (number == 9 || number == 19))) return -EINVAL;
  before = program_actions[number];
  if (set != 0) {
    program_actions[number] = action;
    program_actions[number].mask &= ~(BIT(9) | BIT(19));
    program_actions[number].flags &= KERNEL_ACTION_FLAGS;
    long error = set_action((int)number);
    if (error < 0) return error;
  }
  return old != 0 && !write_program(old, &before, sizeof before) ? -EFAULT : 0;
}

static enum decision start_thread(const struct ucontext *context, long number) {
  uint64_t flags = arch_context_argument(context, 0), stack = arch_context_argument(context, 1), stack_size = 0, thread_pointer = arch_context_argument(context, 4);
  if (number == __NR_clone3) {
    struct clone_args arguments;
    uint64_t size = min_u64(arch_context_argument(context, 1), sizeof arguments);
    fill_bytes(&arguments, 0, sizeof arguments);
    if (size < 64 || !read_program(&arguments, arch_context_argument(context, 0), size)) return WAIT_FOR_ALL;
    flags = arguments.flags;
    stack = arguments.stack + arguments.stack_size;
    stack_size = arguments.stack_size;
    thread_pointer = arguments.tls;
    loading_ensure(arguments.parent_tid, 4);
    loading_ensure(arguments.child_tid, 4);
    loading_ensure(arguments.pidfd, 4);
    if (arguments.set_tid_size != 0) return WAIT_FOR_ALL;
  } else {
    stack_size = min_u64(stack, 8 * MIB);
    loading_ensure(arch_context_argument(context, 2), 4);
    loading_ensure(arch_context_argument(context, 3), 4);
  }
  if ((flags & CLONE_VM) == 0 || (flags & CLONE_THREAD) == 0 || (flags & CLONE_VFORK) != 0) return WAIT_FOR_ALL;
  /* Signals find the whole of the new thread's stack there. It inherits what its creator believes to block. */
  loading_ensure(stack - stack_size, stack_size + PAGE_SIZE);
  const uint64_t believed = believed_bits((uint32_t)sys(gettid));
  if (!write_program(stack - 128, &believed, sizeof believed)) return WAIT_FOR_ALL;
  if ((flags & CLONE_SETTLS) != 0) loading_ensure(thread_pointer - PAGE_SIZE, 3 * PAGE_SIZE);
  return MAKE_IN_STUB_OF_THREAD;
}

/* The kernel walks the robust list of a thread that ends, and gives up where memory is absent. */
static enum decision end_thread(void) {
  uint64_t head = 0, size = 0, first;
  struct blocked_record *record = blocked_record((uint32_t)sys(gettid), false);
  if (record != NULL) __atomic_store_n(&record->tid, THREAD_ENDED, __ATOMIC_RELEASE);
  if (sys(get_robust_list, 0, &head, &size) < 0 || head == 0) return MAKE_IN_STUB;
  loading_ensure(head, 24);
  return read_program(&first, head, sizeof first) && first == head ? MAKE_IN_STUB : WAIT_FOR_ALL;
}

/* Socket options whose value is small and refers to nothing further. */
static bool is_plain_option(uint64_t level, uint64_t option) {
  switch (level) {
    case 1 /* SOL_SOCKET */: return option != 26 /* SO_ATTACH_FILTER */ && option != 51 /* SO_ATTACH_REUSEPORT_CBPF */ && option != 59 /* SO_PEERGROUPS */;
    case 6 /* IPPROTO_TCP */: return option != 35 /* TCP_ZEROCOPY_RECEIVE */;
    case 0 /* IPPROTO_IP */:
    case 41 /* IPPROTO_IPV6 */: return option < 41; /* group filters; from 64 on tables of the packet filter */
    default: return false;
  }
}

/* Requests of ioctl(2) whose argument is small and refers to nothing further: those of terminals, and of sockets the usual ones. */
static bool is_plain_request(uint64_t request) {
  const uint64_t kind = request >> 8 & 0xff, number = request & 0xff;
  return kind == 0x54 || (kind == 0x89 && (number <= 0x07 || (number >= 0x10 && number <= 0x35 && number != 0x12 /* SIOCGIFCONF */)));
}

static enum decision decide(struct ucontext *context, long number, long *result) {
  uint64_t a = arch_context_argument(context, 0), b = arch_context_argument(context, 1), c = arch_context_argument(context, 2), d = arch_context_argument(context, 3), e = arch_context_argument(context, 4);
  *result = 0;
  switch (number) {
    case __NR_rt_sigprocmask:
      *result = change_mask(context);
      return ANSWERED;
    case __NR_rt_sigaction:
      *result = change_action(context);
      return ANSWERED;
    case __NR_rt_sigreturn: {
      struct ucontext *frame = arch_context_returned_frame(context);
      uint64_t mask;
      loading_ensure((uint64_t)frame, 3 * PAGE_SIZE);
      if (!readable((uint64_t)&frame->uc_sigmask)) return MAKE_IN_STUB;
      copy_bytes(&mask, &frame->uc_sigmask, sizeof mask);
      mask = without_reserved((uint32_t)sys(gettid), mask);
      copy_bytes(&frame->uc_sigmask, &mask, sizeof mask);
      return MAKE_IN_STUB;
    }
    case __NR_sigaltstack: {
      struct {
        uint64_t address, flags, size;
      } stack;
      if (a != 0 && read_program(&stack, a, sizeof stack)) loading_ensure(stack.address, stack.size);
      loading_ensure(b, 24);
      return MAKE_IN_STUB;
    }
    case __NR_munmap:
      /* musl's detached threads unmap their own stack, and then call exit. */
      loading_ensure(a, b);
      if (arch_context_stack(context) - a >= b) return MAKE_IN_STUB;
      if (end_thread() != MAKE_IN_STUB) loading_ensure_all();
      return LEAVE_ALONE;
    case __NR_mmap:
      if ((d & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0) loading_ensure(a, b);
      return MAKE_IN_STUB;
    case __NR_mremap:
      loading_ensure(a, max_u64(b, c));
      if ((d & MREMAP_FIXED) != 0) loading_ensure(e, c);
      return MAKE_IN_STUB;
    case __NR_brk: {
      uint64_t end = (uint64_t)sys(brk, 0);
      if (a != 0 && a < end) loading_ensure(a, end - a);
      return MAKE_IN_STUB;
    }
    case __NR_select:
    case __NR_pselect6: {
      uint64_t bytes = round_up(min_u64(a, 65536), 64) / 8;
      loading_ensure(b, bytes);
      loading_ensure(c, bytes);
      loading_ensure(d, bytes);
      loading_ensure(e, 16);
      struct vector mask;
      uint64_t mask_argument = number == __NR_pselect6 ? arch_context_argument(context, 5) : 0;
      return mask_argument != 0 && read_program(&mask, mask_argument, sizeof mask) && blocks_reserved(mask.base) ? AFTER_THE_END : MAKE_IN_STUB;
    }
    case __NR_fcntl:
      loading_ensure(c, 64);
      return MAKE_IN_STUB;
    case __NR_ioctl:
      if (!is_plain_request(b)) return WAIT_FOR_ALL;
      loading_ensure(c, 256);
      return MAKE_IN_STUB;
    case __NR_setsockopt:
    case __NR_getsockopt:
      if (!is_plain_option(b, c)) return WAIT_FOR_ALL;
      loading_ensure(d, number == __NR_setsockopt ? e : PAGE_SIZE);
      if (number == __NR_getsockopt) loading_ensure(e, 4);
      return MAKE_IN_STUB;
    case __NR_getgroups:
      loading_ensure(b, min_u64(a, 65536) * 4);
      return MAKE_IN_STUB;
    case __NR_prctl:
      if (a == PR_SET_NAME || a == PR_GET_NAME) {
        loading_ensure(b, 16);
        return MAKE_IN_STUB;
      }
      if (a == PR_GET_DUMPABLE || a == PR_SET_DUMPABLE || a == PR_SET_TIMERSLACK || a == PR_GET_TIMERSLACK || a == PR_SET_PDEATHSIG || a == PR_CAPBSET_READ) return MAKE_IN_STUB;
      if (a == 0x53564d41 /* PR_SET_VMA */) {
        loading_ensure(c, d);
        loading_ensure(e, 256);
        return MAKE_IN_STUB;
      }
      return a == PR_SET_SECCOMP || a == PR_SET_SYSCALL_USER_DISPATCH_ ? AFTER_THE_END : WAIT_FOR_ALL;
    case __NR_clone:
    case __NR_clone3: return start_thread(context, number);
    case __NR_exit: return end_thread();
    case __NR_execve:
    case __NR_execveat:
    case __NR_seccomp: return AFTER_THE_END;
    default: break;
  }
  const char *letters = references_of(number);
  return letters == NULL ? WAIT_FOR_ALL : ensure_references(letters, (const uint64_t[]){a, b, c, d, e, arch_context_argument(context, 5)});
}

static void switch_dispatch(bool on) { sys(prctl, PR_SET_SYSCALL_USER_DISPATCH_, on, on ? engine_start() : 0, on ? engine_end() - engine_start() : 0, on ? &selector : NULL); }

/* Called by arch_dispatch_entry. */
HIDDEN uint64_t engine_dispatched_call(int number, struct siginfo *info, struct ucontext *context);
uint64_t engine_dispatched_call(int number, struct siginfo *info, struct ucontext *context) {
  if (info->si_code != SYS_USER_DISPATCH_) return forward(number, info, context);
  long result;
  enum decision decision = decide(context, arch_context_call(context), &result);
  if (decision == ANSWERED) {
    arch_context_set_result(context, result);
    return 0;
  }
  if (decision == LEAVE_ALONE) {
    switch_dispatch(false);
    arch_context_make_call_again(context);
    return 0;
  }
  if (decision == WAIT_FOR_ALL) {
    log_debug("system call %ld waits until all memory is loaded", arch_context_call(context));
    loading_ensure_all();
  }
  if (decision != AFTER_THE_END && arch_make_call_in_stub(context, decision == MAKE_IN_STUB_OF_THREAD)) return 0;
  loading_ensure_all();
  if (__atomic_load_n(&failed_ends, __ATOMIC_ACQUIRE) == 0) {
    /* This thread is stopped between two attempts, when its signals are as the program has them, and goes on after the end. */
    const struct timespec64 pause = {0, 500000};
    sys(nanosleep, &pause, NULL);
    arch_context_make_call_again(context);
    return 0;
  }
  /* The end may be far off: a thread waits in vfork(2), say. From now on every call of the program passes. */
  __atomic_store_n(&selector, DISPATCH_FILTER_ALLOW, __ATOMIC_RELEASE);
  uint64_t mask;
  copy_bytes(&mask, &context->uc_sigmask, sizeof mask);
  mask |= believed_bits((uint32_t)sys(gettid));
  copy_bytes(&context->uc_sigmask, &mask, sizeof mask);
  arch_context_make_call_again(context);
  return 0;
}

/* ---- beginning and end ---- */

void dispatch_begin(bool own_faults) {
  reserved_mask = BIT(SIGSYS_) | (own_faults ? BIT(SIGSEGV_) : 0);
  fill_bytes(blocked_records, 0, sizeof blocked_records);
  failed_ends = 0;
  __atomic_store_n(&selector, DISPATCH_FILTER_BLOCK, __ATOMIC_RELEASE);
  for (int number = 1; number < 65; number++)
    if (sys(rt_sigaction, number, NULL, &program_actions[number], sizeof program_actions[number].mask) == 0 && number != 9 && number != 19) set_action(number);
  __atomic_store_n(&active, true, __ATOMIC_RELEASE);
}

void dispatch_arm_thread(struct ucontext *context) {
  if (!__atomic_load_n(&active, __ATOMIC_ACQUIRE)) return;
  if (context != NULL) {
    uint64_t mask;
    copy_bytes(&mask, &context->uc_sigmask, sizeof mask);
    mask = without_reserved((uint32_t)sys(gettid), mask);
    copy_bytes(&context->uc_sigmask, &mask, sizeof mask);
    /* A call that goes on with the time it had left is made by the engine, and does not come by here again. */
    const struct arch_changed_call *changed = arch_changed_call_in_progress(context);
    const char *letters = changed == NULL ? NULL : references_of((long)changed->number);
    if (changed != NULL && (letters == NULL || ensure_references(letters, changed->argument) != MAKE_IN_STUB)) loading_ensure_all();
  }
  switch_dispatch(true);
  if (!__atomic_load_n(&active, __ATOMIC_ACQUIRE)) switch_dispatch(false);
}

/* Called by a thread that a stub has started. */
HIDDEN void dispatch_thread_started(uint64_t believed);
void dispatch_thread_started(uint64_t believed) {
  if (believed != 0) without_reserved((uint32_t)sys(gettid), believed);
  dispatch_arm_thread(NULL);
}

static long disarm(void *argument) {
  (void)argument;
  switch_dispatch(false);
  return 0;
}

static void restore_actions(void) {
  for (int number = 1; number < 65; number++)
    if (number != 9 && number != 19 && number != CAPTURE_SIGNAL) sys(rt_sigaction, number, &program_actions[number], NULL, sizeof program_actions[number].mask);
}

bool dispatch_end(void) {
  struct request request = {.timeout_ms = 1000, .client = NOBODY};
  struct failure failure = {.text = ""};
  bool stopped = freeze_threads(&engine_freeze, &request, NULL, &failure) == 0;
  if (stopped) {
    freeze_forget_calls(&engine_freeze);
    freeze_continue_calls(&engine_freeze);
    for (size_t i = 0; i < engine_freeze.count; i++) {
      struct slot *slot = &engine_freeze.slots[i];
      if (slot->state != SLOT_PARKED) continue;
      freeze_call(slot, disarm, NULL);
      uint64_t mask;
      copy_bytes(&mask, &slot->context->uc_sigmask, sizeof mask);
      mask |= believed_bits(slot->tid);
      copy_bytes(&slot->context->uc_sigmask, &mask, sizeof mask);
      arch_leave_stub(slot->context);
    }
    __atomic_store_n(&active, false, __ATOMIC_RELEASE);
    __atomic_store_n(&selector, DISPATCH_FILTER_ALLOW, __ATOMIC_RELEASE);
    restore_actions();
  } else {
    __atomic_add_fetch(&failed_ends, 1, __ATOMIC_RELEASE);
    log_debug("the threads cannot be stopped yet: %s", failure.text);
  }
  freeze_release(&engine_freeze);
  return stopped;
}

void dispatch_forked(uint32_t parent_tid) {
  if (!active) return;
  active = false;
  restore_actions();
  const uint64_t believed = believed_bits(parent_tid);
  sys(rt_sigprocmask, 0 /* SIG_BLOCK */, &believed, NULL, sizeof believed);
}
