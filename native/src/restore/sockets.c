#include "../base/socket_constants.h"

#include <linux/poll.h>
#include <linux/un.h>

#include "restore.h"

/* Sockets that exist already because their peer was made: by index. */
static int *made_pairs;

static void set_options(struct restore *restore, const struct warp_socket_record *socket, int fd) {
  size_t size;
  const uint8_t *options = view_bytes(&restore->image.sockets, socket->options, &size);
  for (size_t at = 0; at + 16 <= size;) {
    int32_t header[4];
    copy_bytes(header, options + at, sizeof header);
    if ((uint32_t)header[2] > size - at - 16) break;
    long error = sys(setsockopt, fd, header[0], header[1], options + at + 16, header[2]);
    if (error < 0) log_debug("socket option %d/%d: %s", header[0], header[1], error_text(error));
    at += 16 + round_up((uint32_t)header[2], 8);
  }
}

static void describe_address(const uint8_t *address, size_t size, char *ret, size_t capacity) {
  uint16_t family = 0, port = 0;
  if (size >= 4) copy_bytes(&family, address, 2), copy_bytes(&port, address + 2, 2);
  port = (uint16_t)(port << 8 | port >> 8);
  if (family == AF_INET_ && size >= 8) {
    format(ret, capacity, "%u.%u.%u.%u:%u", address[4], address[5], address[6], address[7], port);
  } else if (family == AF_INET6_) {
    format(ret, capacity, "IPv6 port %u", port);
  } else if (family == AF_UNIX_ && size > 2) {
    bool abstract = address[2] == 0;
    format(ret, capacity, "%s%.*s", abstract ? "@" : "", (int)(size - 2 - abstract), (const char *)address + 2 + abstract);
  } else {
    format(ret, capacity, "an address");
  }
}

/* A socket that is being made: for messages. */
struct making {
  const struct warp_socket_record *socket;
  struct policy_subject subject;
  const struct treatment *treatment;
};

static int bind_socket(struct restore *restore, const struct making *making, int fd) {
  const struct warp_socket_record *socket = making->socket;
  size_t size;
  const uint8_t *address = view_bytes(&restore->image.sockets, socket->local, &size);
  if (size < 3) return 0;
  char text[160];
  describe_address(address, size, text, sizeof text);
  bool path = socket->family == AF_UNIX_ && address[2] != 0;
  if (path) {
    /* The file of a listener that is gone stays behind: it is removed unless somebody answers there. */
    long probe = sys(socket, AF_UNIX_, socket->type | SOCK_CLOEXEC_, 0);
    bool answered = probe >= 0 && sys(connect, probe, address, size) == 0;
    if (probe >= 0) sys(close, probe);
    if (answered) return fail_descriptor(restore, &making->subject, making->treatment, WARP_POLICY_IGNORE, "cannot listen on %s: another process does: end it first", text);
    char *name = arena_allocate(&restore->arena, size + 1);
    copy_bytes(name, address + 2, size - 2);
    /* Where tools attach to a Java virtual machine is named after its old process id: it makes a new one when it finds no such file. */
    if (find_string(name, "/.java_pid") != NULL) {
      const uint16_t family = AF_UNIX_;
      long unnamed = sys(bind, fd, &family, sizeof family);
      return unnamed < 0 ? fail(&restore->failure, "cannot bind a socket: %s", error_text(unnamed)) : 0;
    }
    struct file_status status;
    if (sys(newfstatat, AT_FDCWD_, name, &status, 0x100 /* AT_SYMLINK_NOFOLLOW */) == 0 && (status.mode & S_IFMT) == S_IFSOCK) sys(unlinkat, AT_FDCWD_, name, 0);
  }
  const int32_t on = 1, off = 0;
  int32_t reuse = 0;
  uint32_t reuse_size = sizeof reuse;
  sys(getsockopt, fd, SOL_SOCKET_, SO_REUSEADDR_, &reuse, &reuse_size);
  /* Connections of the program before the checkpoint may linger in TIME_WAIT on the port. */
  if (socket->state == WARP_SOCKET_LISTENING) sys(setsockopt, fd, SOL_SOCKET_, SO_REUSEADDR_, &on, sizeof on);
  long error = sys(bind, fd, address, size);
  if (reuse == 0 && socket->state == WARP_SOCKET_LISTENING) sys(setsockopt, fd, SOL_SOCKET_, SO_REUSEADDR_, &off, sizeof off);
  if (path && error == -ENOENT) return fail_descriptor(restore, &making->subject, making->treatment, WARP_POLICY_IGNORE, "cannot bind to %s: its directory is not there: make it", text);
  if (error < 0) return fail_descriptor(restore, &making->subject, making->treatment, WARP_POLICY_IGNORE, "cannot bind to %s: %s: end the process that uses it, or restore where it is free", text, error_text(error));
  if (path && (socket->mode & 07777) != 0) {
    char *name = arena_allocate(&restore->arena, size + 1);
    copy_bytes(name, address + 2, size - 2);
    sys(fchmodat, AT_FDCWD_, name, socket->mode & 07777);
  }
  return 0;
}

/* ---- pairs ---- */

static int send_messages(struct restore *restore, const struct warp_socket_record *receiver, int sender) {
  size_t size;
  const uint8_t *data = view_bytes(&restore->image.sockets, receiver->data, &size);
  if (size == 0) return 0;
  const int32_t room = (int32_t)min_u64(size * 2 + 65536, 1 << 30);
  sys(setsockopt, sender, SOL_SOCKET_, SO_SNDBUF_, &room, sizeof room);
  for (size_t at = 0; at + 8 <= size;) {
    uint32_t length;
    copy_bytes(&length, data + at, sizeof length);
    if (length > size - at - 8) break;
    for (uint32_t done = 0; done < length || length == 0;) {
      long n = sys(sendto, sender, data + at + 8 + done, length - done, MSG_DONTWAIT_ | MSG_NOSIGNAL_);
      if (n < 0) return fail(&restore->failure, "%u bytes cannot be put back into a socket: %s: raise net.core.wmem_max", length - done, error_text(n));
      done += (uint32_t)n;
      if (length == 0) break;
    }
    at += 8 + round_up(length, 8);
  }
  return 0;
}

static void shut_down(int fd, uint32_t flags) {
  if (flags != 0) sys(shutdown, fd, flags - 1); /* SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2 */
}

static int make_pair(struct restore *restore, uint32_t index, const struct warp_socket_record *socket) {
  const struct view *sockets = &restore->image.sockets;
  int32_t pair[2];
  if (made_pairs == NULL) {
    made_pairs = arena_allocate(&restore->arena, sockets->count * sizeof *made_pairs);
    for (size_t i = 0; i < sockets->count; i++) made_pairs[i] = -1;
  }
  if (made_pairs[index] >= 0) {
    const int made = made_pairs[index];
    made_pairs[index] = -1;
    return made;
  }
  if (socket->peer >= sockets->count) return fail(&restore->failure, "%s: socket %u has peer %u of %lu: the image is damaged", restore->image.path, index, socket->peer, sockets->count);
  const struct warp_socket_record *peer = view_at(sockets, struct warp_socket_record, socket->peer);
  long error = sys(socketpair, AF_UNIX_, socket->type | SOCK_CLOEXEC_, 0, pair);
  if (error < 0) return fail(&restore->failure, "cannot make a pair of sockets: %s", error_text(error));
  if (send_messages(restore, socket, pair[1]) < 0 || send_messages(restore, peer, pair[0]) < 0) return -1;
  shut_down(pair[0], socket->flags);
  shut_down(pair[1], peer->flags);
  made_pairs[socket->peer] = move_descriptor(restore, pair[1]);
  set_options(restore, socket, pair[0]);
  set_options(restore, peer, made_pairs[socket->peer]);
  return pair[0];
}

void close_unused_pairs(const struct restore *restore) {
  for (size_t i = 0; made_pairs != NULL && i < restore->image.sockets.count; i++)
    if (made_pairs[i] >= 0) sys(close, made_pairs[i]);
}

/* ---- connections to others ---- */

/* Whether a connection came in through a listening socket: nobody can open it from here. */
static bool was_accepted(const struct restore *restore, const struct warp_socket_record *socket) {
  const struct view *sockets = &restore->image.sockets;
  size_t size, other_size;
  const uint8_t *local = view_bytes(sockets, socket->local, &size);
  if (socket->family == AF_UNIX_) return size > 2;
  for (size_t i = 0; i < sockets->count; i++) {
    const struct warp_socket_record *other = view_at(sockets, struct warp_socket_record, i);
    const uint8_t *address = view_bytes(sockets, other->local, &other_size);
    if (other->state == WARP_SOCKET_LISTENING && other->family == socket->family && size >= 4 && other_size >= 4 && compare_bytes(address + 2, local + 2, 2) == 0) return true;
  }
  return false;
}

#define CONNECT_MILLISECONDS 10000

/* A new connection to where the old one led. */
static int connect_again(struct restore *restore, const struct making *making) {
  const struct warp_socket_record *socket = making->socket;
  char text[160];
  size_t size;
  const uint8_t *remote = view_bytes(&restore->image.sockets, socket->remote, &size);
  describe_address(remote, size, text, sizeof text);
  const long fd = sys(socket, socket->family, socket->type | SOCK_CLOEXEC_ | O_NONBLOCK, socket->protocol);
  if (fd >= 0) set_options(restore, socket, (int)fd);
  long error = fd < 0 ? fd : sys(connect, fd, remote, size);
  if (error == -EINPROGRESS) {
    struct pollfd polled = {.fd = (int)fd, .events = POLLOUT};
    int32_t problem = 0;
    uint32_t problem_size = sizeof problem;
    error = sys(poll, &polled, 1, CONNECT_MILLISECONDS);
    if (error > 0) sys(getsockopt, fd, SOL_SOCKET_, SO_ERROR_, &problem, &problem_size);
    error = error == 0 ? -ETIMEDOUT : error < 0 ? error : -problem;
  }
  if (error == 0) return (int)fd;
  if (fd >= 0) sys(close, fd);
  return fail_descriptor(restore, &making->subject, making->treatment, WARP_POLICY_IGNORE, "cannot connect to %s again: %s: start what listens there", text, error_text(error));
}

int substitute_socket(struct restore *restore, uint32_t index) {
  const uint16_t family = AF_UNIX_;
  const struct warp_socket_record *socket = index < restore->image.sockets.count ? view_at(&restore->image.sockets, struct warp_socket_record, index) : NULL;
  if (socket == NULL) return -EINVAL;
  const bool listening = socket->state == WARP_SOCKET_LISTENING;
  long fd = sys(socket, listening ? AF_UNIX_ : socket->family, socket->type | SOCK_CLOEXEC_, listening ? 0 : socket->protocol);
  if (fd >= 0 && listening) sys(bind, fd, &family, sizeof family); /* a name that the kernel chooses and nobody knows */
  if (fd >= 0 && listening) sys(listen, fd, 1);
  return (int)fd;
}

/* A TCP socket whose peer has gone: connected over loopback to one that is reset. */
static int make_reset_connection(const struct warp_socket_record *socket) {
  uint8_t address[28];
  uint32_t size = socket->family == AF_INET6_ ? 28 : 16;
  fill_bytes(address, 0, sizeof address);
  const uint16_t family = (uint16_t)socket->family;
  copy_bytes(address, &family, sizeof family);
  if (socket->family == AF_INET6_) {
    address[23] = 1; /* ::1 */
  } else {
    address[4] = 127, address[7] = 1;
  }
  long listener = sys(socket, socket->family, SOCK_STREAM_ | SOCK_CLOEXEC_, 0);
  if (listener < 0) return -1;
  long mine = -1;
  if (sys(bind, listener, address, size) == 0 && sys(listen, listener, 1) == 0 && sys(getsockname, listener, address, &size) == 0) {
    mine = sys(socket, socket->family, SOCK_STREAM_ | SOCK_CLOEXEC_, 0);
    if (mine >= 0 && sys(connect, mine, address, size) == 0) {
      long peer = sys(accept4, listener, 0, 0, SOCK_CLOEXEC_);
      const int32_t linger[2] = {1, 0}; /* closing resets the connection */
      sys(setsockopt, peer, SOL_SOCKET_, SO_LINGER_, linger, sizeof linger);
      sys(close, peer);
    }
  }
  sys(close, listener);
  return (int)mine;
}

int restore_socket(struct restore *restore, const struct warp_description_record *description, uint32_t number, const struct treatment *treatment) {
  const struct view *sockets = &restore->image.sockets;
  const uint32_t index = description->detail;
  if (index >= sockets->count) return fail(&restore->failure, "%s: socket %u of %lu: the image is damaged", restore->image.path, index, sockets->count);
  const struct warp_socket_record *socket = view_at(sockets, struct warp_socket_record, index);
  if (socket->state == WARP_SOCKET_PAIR) return make_pair(restore, index, socket);
  bool ip = socket->family == AF_INET_ || socket->family == AF_INET6_;
  long fd;
  const struct making making = {socket, descriptor_subject(restore, number, description), treatment};
  if (socket->state == WARP_SOCKET_CONNECTED && socket->type != SOCK_DGRAM_ && treatment->action == WARP_POLICY_REOPEN && socket->remote.length > 2 && !was_accepted(restore, socket)) return connect_again(restore, &making);
  if (socket->state == WARP_SOCKET_CONNECTED && socket->type != SOCK_DGRAM_) {
    char text[160];
    size_t size;
    const uint8_t *remote = view_bytes(sockets, socket->remote, &size);
    describe_address(remote, size, text, sizeof text);
    log_info("a connection to %s has ended: the program sees its peer gone", text);
    if (ip) {
      fd = make_reset_connection(socket);
      if (fd >= 0) {
        set_options(restore, socket, (int)fd);
        return (int)fd;
      }
    } else if (socket->family == AF_UNIX_) {
      int32_t pair[2];
      long error = sys(socketpair, AF_UNIX_, socket->type | SOCK_CLOEXEC_, 0, pair);
      if (error < 0) return fail(&restore->failure, "cannot make a socket: %s", error_text(error));
      int moved = move_descriptor(restore, pair[1]);
      int sent = send_messages(restore, socket, moved);
      sys(close, moved);
      return sent < 0 ? -1 : pair[0];
    }
  }
  fd = sys(socket, socket->family, socket->type | SOCK_CLOEXEC_, socket->protocol);
  if (fd < 0) return fail(&restore->failure, "cannot make a socket of family %u, type %u: %s", socket->family, socket->type, error_text(fd));
  set_options(restore, socket, (int)fd);
  if ((socket->state == WARP_SOCKET_LISTENING || socket->state == WARP_SOCKET_BOUND || (socket->state == WARP_SOCKET_CONNECTED && socket->local.length > 2)) && bind_socket(restore, &making, (int)fd) < 0) {
    sys(close, fd);
    return -1;
  }
  if (socket->state == WARP_SOCKET_LISTENING) {
    long error = sys(listen, fd, socket->backlog);
    char text[160];
    size_t size;
    const uint8_t *local = view_bytes(sockets, socket->local, &size);
    describe_address(local, size, text, sizeof text);
    if (error < 0) {
      sys(close, fd);
      return fail_descriptor(restore, &making.subject, treatment, WARP_POLICY_IGNORE, "cannot listen on %s: %s: end the process that uses it", text, error_text(error));
    }
    log_debug("listening on %s again", text);
  }
  if (socket->state == WARP_SOCKET_CONNECTED && socket->type == SOCK_DGRAM_) {
    size_t size;
    const uint8_t *remote = view_bytes(sockets, socket->remote, &size);
    long error = sys(connect, fd, remote, size);
    if (error < 0) log_warn("a datagram socket cannot be connected again: %s", error_text(error));
  }
  return (int)fd;
}
