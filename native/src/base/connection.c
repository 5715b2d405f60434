#include "connection.h"

#include "socket_constants.h"

uint64_t read_pid_namespace(const char *link) {
  char text[64];
  const char *at = read_link(link, text, sizeof text) < 0 ? NULL : find_character(text, '[');
  if (at == NULL) return 0;
  at++;
  return parse_decimal(&at);
}

size_t engine_address(uint64_t pid_namespace, uint32_t pid, struct sockaddr_un *ret) {
  fill_bytes(ret, 0, sizeof *ret);
  ret->sun_family = AF_UNIX_;
  const size_t n = format(ret->sun_path + 1, sizeof ret->sun_path - 1, "warp-tool/%lu/%u", pid_namespace, pid);
  return offsetof(struct sockaddr_un, sun_path) + 1 + n;
}

/* The process's id in its own pid namespace, which its socket is named after. */
static uint32_t innermost_pid(const char *status, uint32_t pid) {
  const char *at = find_string(status, "NSpid:");
  if (at == NULL) return pid;
  for (at += 6; *at == '\t' || *at == ' ';) {
    at++;
    pid = (uint32_t)parse_decimal(&at);
  }
  return pid;
}

long engine_connect(uint32_t pid, struct failure *failure) {
  char path[64], status[4096];
  struct sockaddr_un address;
  format(path, sizeof path, "/proc/%u/status", pid);
  if (read_small_file(path, status, sizeof status) < 0) {
    fail(failure, "process %u does not exist: give the pid of a running process (warp-tool ps lists them)", pid);
    return -ESRCH;
  }
  format(path, sizeof path, "/proc/%u/ns/pid", pid);
  uint64_t pid_namespace = read_pid_namespace(path);
  /* Without the right to look (another user's process) it is most likely our own namespace. */
  if (pid_namespace == 0) pid_namespace = read_pid_namespace("/proc/self/ns/pid");
  const size_t size = engine_address(pid_namespace, innermost_pid(status, pid), &address);
  long fd = sys(socket, AF_UNIX_, SOCK_STREAM_ | SOCK_CLOEXEC_, 0);
  long error = fd < 0 ? fd : sys(connect, fd, &address, size);
  struct {
    int32_t pid;
    uint32_t uid, gid;
  } peer = {0, 0, 0};
  uint32_t peer_size = sizeof peer;
  if (error < 0) {
    fail(failure, "process %u does not run the engine (no socket of it: %s): start the program with 'warp-tool run', or with LD_PRELOAD=libwarp.so", pid, error_text(error));
  } else if (sys(getsockopt, fd, SOL_SOCKET_, SO_PEERCRED_, &peer, &peer_size) < 0 || (uint32_t)peer.pid != pid) {
    /* An abstract name can be taken by anybody: what answers must be the process itself. */
    fail(failure, "process %d, not process %u, answers in its name: nothing was asked of it", peer.pid, pid);
    error = -EPERM;
  }
  if (error < 0 && fd >= 0) sys(close, fd);
  return error < 0 ? error : fd;
}
