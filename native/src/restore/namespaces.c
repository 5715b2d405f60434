/*
 * --keep-pid: the program gets its old process and thread ids, unprivileged, in a user and a pid namespace of its own.
 *
 * The command's process stays outside and mirrors the program's end. Its first child in the new pid namespace is process 1,
 * which waits only to keep the namespace alive (unless the program itself was process 1); the second is made with
 * clone3(2) set_tid and becomes the program.
 */
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "restore.h"

#define SIGNAL_CHILD 17

static int write_text(const char *path, const char *text) {
  long fd = open_file(path, O_WRONLY | O_CLOEXEC, 0);
  if (fd < 0) return (int)fd;
  long error = sys(write, fd, text, string_length(text));
  sys(close, fd);
  return error < 0 ? (int)error : 0;
}

static const char *mend = "allow unprivileged user namespaces, or restore without --keep-pid";

static int enter_user_namespace(struct restore *restore) {
  char text[64];
  uint32_t uid = (uint32_t)sys(geteuid), gid = (uint32_t)sys(getegid);
  long error = sys(unshare, CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS);
  if (error < 0) return fail(&restore->failure, "--keep-pid: a user namespace cannot be made: %s: %s", error_text(error), mend);
  write_text("/proc/self/setgroups", "deny");
  format(text, sizeof text, "%u %u 1", uid, uid);
  error = write_text("/proc/self/uid_map", text);
  format(text, sizeof text, "%u %u 1", gid, gid);
  if (error == 0) error = write_text("/proc/self/gid_map", text);
  if (error < 0) return fail(&restore->failure, "--keep-pid: the user's id cannot be kept in a user namespace: %s: %s", error_text(error), mend);
  return 0;
}

/*
 * Since another boot, or on another host, the monotonic clock is another one: in a time namespace of its own (Linux 5.6) the program's goes on from
 * where it was, and has moved by as much as the time of day.
 */
static void continue_clock(struct restore *restore) {
  const struct warp_image_record *record = view_at(&restore->image.image, struct warp_image_record, 0);
  char here[64], text[160];
  const char *boot = view_string(&restore->image.image, &restore->arena, record->boot_id);
  const long size = read_small_file("/proc/sys/kernel/random/boot_id", here, sizeof here);
  const bool same = size >= (long)record->boot_id.length && compare_bytes(boot, here, record->boot_id.length) == 0;
  /* A process in a time namespace may have been captured in this boot. */
  if (same && record->monotonic_ns <= clock_ns(CLOCK_MONOTONIC_)) return;
  const uint64_t day = clock_ns(CLOCK_REALTIME_), passed = day > record->realtime_ns ? day - record->realtime_ns : 0;
  const int64_t monotonic = (int64_t)(record->monotonic_ns + passed - clock_ns(CLOCK_MONOTONIC_)), boottime = (int64_t)(record->boottime_ns + passed - clock_ns(CLOCK_BOOTTIME_));
  /* Whole seconds, so that nothing goes back. */
  const int64_t seconds = monotonic / 1000000000 + 1, boot_seconds = boottime / 1000000000 + 1;
  format(text, sizeof text, "monotonic %ld 0\nboottime %ld 0\n", seconds, boot_seconds);
  long error = sys(unshare, CLONE_NEWTIME);
  if (error == 0) error = write_text("/proc/self/timens_offsets", text);
  if (error < 0) {
    log_warn("the monotonic clock is this host's, and not the one that the program knows: a time namespace cannot be made: %s", error_text(error));
    return;
  }
  restore->stats.begin_ns += (uint64_t)seconds * 1000000000;
  log_info("the monotonic clock goes on from the checkpoint's: %ld s from this host's", seconds);
}

static void mirror_end(int32_t status) {
  uint32_t ended_by = (uint32_t)status & 0x7f;
  if (ended_by == 0) sys(exit_group, status >> 8 & 0xff);
  sys(exit_group, 128 + ended_by);
}

/* ---- the outer process ---- */

static int32_t program_pid;

static void pass_on(int number) {
  if (program_pid > 0) sys(kill, program_pid, number);
}

static _Noreturn void wait_for_program(int32_t init) {
  const int forwarded[] = {1, 2, 3, 10, 12, 15, 18, 20, 28};
  for (size_t i = 0; i < sizeof forwarded / sizeof forwarded[0]; i++) {
    const struct arch_sigaction action = {.handler = (uint64_t)pass_on, .flags = SA_RESTART | ARCH_SA_RESTORER, .restorer = (uint64_t)arch_signal_return};
    sys(rt_sigaction, forwarded[i], &action, NULL, sizeof action.mask);
  }
  for (;;) {
    int32_t status;
    long child = sys(wait4, program_pid, &status, 0, NULL);
    if (child == -EINTR) continue;
    if (program_pid != init) sys(kill, init, 9);
    mirror_end(child < 0 ? 2 << 8 : status);
  }
}

void follow_child(int32_t pid) {
  program_pid = pid;
  wait_for_program(pid);
}

/* ---- in the new namespace ---- */

/* /proc must speak of this namespace: programs look themselves up there. */
static int mount_proc(void) {
  long error = sys(mount, "none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
  if (error == 0) error = sys(mount, "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
  return (int)error;
}

static _Noreturn void keep_namespace(struct restore *restore) {
  const struct timespec64 second = {1, 0};
  forget_keys(restore);
  sys(close_range, 0, ~0u, 0);
  for (;;) {
    /* Orphans of the program end up here. */
    if (sys(wait4, -1, NULL, 0, NULL) < 0) sys(nanosleep, &second, NULL);
  }
}

int restore_in_namespace(struct restore *restore) {
  const int32_t pid = (int32_t)view_at(&restore->image.process, struct warp_process_record, 0)->pid;
  int32_t report[2];
  long error = sys(pipe2, report, O_CLOEXEC);
  if (error < 0) return fail(&restore->failure, "--keep-pid: no pipe: %s", error_text(error));
  if (enter_user_namespace(restore) < 0) return -1;
  continue_clock(restore);
  long init = sys(clone, SIGNAL_CHILD, 0, 0, 0, 0);
  if (init < 0) return fail(&restore->failure, "--keep-pid: a process cannot be made: %s: %s", error_text(init), mend);
  if (init == 0) {
    sys(prctl, PR_SET_PDEATHSIG, 9);
    int32_t mounted = mount_proc();
    sys(write, report[1], &mounted, sizeof mounted);
    sys(close, report[0]);
    sys(close, report[1]);
    if (pid != 1) keep_namespace(restore);
    restore->keep_ids = true;
    move_away(restore);
  }
  int32_t mounted = -EIO;
  sys(close, report[1]);
  sys(read, report[0], &mounted, sizeof mounted);
  sys(close, report[0]);
  if (mounted < 0) {
    sys(kill, init, 9);
    return fail(&restore->failure, "--keep-pid: /proc of the new namespace cannot be mounted: %s: %s", error_text(mounted), mend);
  }
  program_pid = (int32_t)init;
  if (pid != 1) {
    const struct clone_args arguments = {.exit_signal = SIGNAL_CHILD, .set_tid = (uint64_t)&pid, .set_tid_size = 1};
    long child = sys(clone3, &arguments, sizeof arguments);
    if (child == 0) {
      restore->keep_ids = true;
      move_away(restore);
    }
    program_pid = (int32_t)child;
    if (child < 0) {
      sys(kill, init, 9);
      return fail(&restore->failure, "--keep-pid: process id %d cannot be had: %s: %s", pid, error_text(child), mend);
    }
  }
  forget_keys(restore);
  wait_for_program((int32_t)init);
}

/* The namespace gave every capability inside it: the program had none. */
void drop_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
  sys(capset, &header, none);
}
