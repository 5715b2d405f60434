#include "sockets.h"

#include <asm/ioctls.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/un.h>
#include <linux/unix_diag.h>

#include "../base/socket_constants.h"

/* What the kernel tells of a Unix socket: its peer's inode and, of a listener, its backlog. */
struct unix_socket {
  uint32_t inode;
  uint32_t peer_inode;
  uint32_t backlog;
  uint8_t shutdown; /* 1: no more is received, 2: no more is sent */
};
static struct list unix_sockets;

static void read_diag_answer(const uint8_t *bytes, size_t size, bool *done) {
  for (size_t at = 0; at + sizeof(struct nlmsghdr) <= size;) {
    const struct nlmsghdr *header = (const void *)(bytes + at);
    if (header->nlmsg_len < sizeof *header || at + header->nlmsg_len > size) return;
    if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) {
      *done = true;
      return;
    }
    const struct unix_diag_msg *message = (const void *)(header + 1);
    struct unix_socket *found = list_add(&unix_sockets);
    found->inode = message->udiag_ino;
    for (size_t a = sizeof *header + sizeof *message; a + sizeof(struct nlattr) <= header->nlmsg_len;) {
      const struct nlattr *attribute = (const void *)(bytes + at + a);
      if (attribute->nla_len < sizeof *attribute) break;
      const uint32_t *value = (const void *)(attribute + 1);
      if (attribute->nla_type == UNIX_DIAG_PEER) found->peer_inode = value[0];
      if (attribute->nla_type == UNIX_DIAG_SHUTDOWN) found->shutdown = *(const uint8_t *)value;
      if (attribute->nla_type == UNIX_DIAG_RQLEN) found->backlog = value[1];
      a += round_up(attribute->nla_len, 4);
    }
    at += round_up(header->nlmsg_len, 4);
  }
}

int sockets_begin(struct capture *capture) {
  list_init(&unix_sockets, &capture->arena, sizeof(struct unix_socket));
  long fd = sys(socket, AF_NETLINK_, SOCK_RAW_ | SOCK_CLOEXEC_, NETLINK_SOCK_DIAG);
  if (fd < 0) {
    log_debug("Unix sockets cannot be asked for their peers: %s", error_text(fd));
    return 0;
  }
  const struct {
    struct nlmsghdr header;
    struct unix_diag_req request;
  } question = {
      {.nlmsg_len = sizeof question, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
      {.sdiag_family = AF_UNIX_, .udiag_states = ~0u, .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN},
  };
  bool done = sys(sendto, fd, &question, sizeof question) < 0;
  uint8_t *answer = arena_allocate(&capture->arena, 64 * KIB);
  while (!done) {
    long n = sys(recvfrom, fd, answer, 64 * KIB);
    if (n <= 0) break;
    read_diag_answer(answer, (size_t)n, &done);
  }
  sys(close, fd);
  return 0;
}

static const struct unix_socket *find_unix_socket(uint64_t inode) {
  for (size_t i = 0; i < unix_sockets.count; i++) {
    const struct unix_socket *found = list_at(&unix_sockets, struct unix_socket, i);
    if (found->inode == inode) return found;
  }
  return NULL;
}

static int32_t option(int fd, int level, int name) {
  int32_t value = 0;
  uint32_t size = sizeof value;
  return sys(getsockopt, fd, level, name, &value, &size) < 0 ? -1 : value;
}

static struct warp_slice capture_options(struct capture *capture, int fd, uint32_t family, uint32_t type) {
  struct buffer options;
  buffer_init(&options, &capture->arena);
  for (size_t i = 0; i < socket_option_count; i++) {
    const struct socket_option *known = &socket_options[i];
    bool ip = family == AF_INET_ || family == AF_INET6_;
    if (known->level == IPPROTO_TCP_ && !(ip && type == SOCK_STREAM_)) continue;
    if (known->level == IPPROTO_IPV6_ && family != AF_INET6_) continue;
    if (known->level == IPPROTO_IP_ && family != AF_INET_) continue;
    if (known->level == SOL_SOCKET_ && known->name == SO_RCVBUF_ && (option(fd, SOL_SOCKET_, SO_BUF_LOCK_) & 2) == 0) continue;
    if (known->level == SOL_SOCKET_ && known->name == SO_SNDBUF_ && (option(fd, SOL_SOCKET_, SO_BUF_LOCK_) & 1) == 0) continue;
    uint8_t value[64];
    fill_bytes(value, 0, sizeof value);
    uint32_t size = sizeof value;
    if (sys(getsockopt, fd, known->level, known->name, value, &size) < 0 || size > sizeof value) continue;
    /* The kernel doubles what it is given. */
    if (known->level == SOL_SOCKET_ && (known->name == SO_RCVBUF_ || known->name == SO_SNDBUF_)) *(uint32_t *)value /= 2;
    const uint32_t header[4] = {(uint32_t)known->level, (uint32_t)known->name, size, 0};
    buffer_append(&options, header, sizeof header);
    copy_bytes(buffer_add(&options, round_up(size, 8)), value, size);
  }
  return table_bytes(&capture->sockets, options.bytes, options.size);
}

/* struct msghdr of 64-bit machines. */
struct message_header {
  void *name;
  uint32_t name_size;
  uint32_t padding;
  struct io_vector *vectors;
  uint64_t vector_count;
  void *control;
  uint64_t control_size;
  int32_t flags;
  uint32_t padding_2;
};

/* Queued messages, without taking them: SO_PEEK_OFF moves on while MSG_PEEK leaves everything in place (socket(7), Unix sockets). */
static int peek_messages(struct capture *capture, int fd, uint32_t type, struct warp_slice *ret) {
  struct buffer data, stream;
  buffer_init(&data, &capture->arena);
  buffer_init(&stream, &capture->arena);
  const int32_t from_start = 0, off = -1;
  if (sys(setsockopt, fd, SOL_SOCKET_, SO_PEEK_OFF_, &from_start, sizeof from_start) < 0) return 0;
  const size_t capacity = 256 * KIB;
  uint8_t *part = arena_allocate(&capture->arena, capacity);
  long n;
  struct io_vector vector = {part, capacity};
  /* Room for the sender's credentials where the program asked for them, and for no descriptor: those would be opened here. */
  uint64_t credentials[4];
  const uint64_t control_size = option(fd, SOL_SOCKET_, SO_PASSCRED_) == 1 ? sizeof credentials : 0;
  struct message_header header;
  for (;;) {
    header = (struct message_header){.vectors = &vector, .vector_count = 1, .control = credentials, .control_size = control_size};
    n = sys(recvmsg, fd, &header, MSG_PEEK_ | MSG_DONTWAIT_ | MSG_TRUNC_);
    if (n <= 0) break;
    if ((header.flags & MSG_CTRUNC_) != 0) {
      sys(setsockopt, fd, SOL_SOCKET_, SO_PEEK_OFF_, &off, sizeof off);
      return fail(capture->failure, "descriptor %d: a descriptor is under way in its queue (SCM_RIGHTS), which cannot be kept: receive it before the checkpoint", fd);
    }
    if (type == SOCK_STREAM_) {
      buffer_append(&stream, part, (size_t)n);
      continue;
    }
    const uint32_t prefix[2] = {(uint32_t)n, 0};
    buffer_append(&data, prefix, sizeof prefix);
    copy_bytes(buffer_add(&data, round_up((size_t)n, 8)), part, min_u64((uint64_t)n, capacity));
  }
  sys(setsockopt, fd, SOL_SOCKET_, SO_PEEK_OFF_, &off, sizeof off);
  if (stream.size > 0) {
    buffer_append_message(&data, stream.bytes, (uint32_t)stream.size);
  }
  *ret = table_bytes(&capture->sockets, data.bytes, data.size);
  return 0;
}

int capture_socket(struct capture *capture, int fd, uint64_t inode, const char *path, uint32_t *detail) {
  struct warp_socket_record socket;
  fill_bytes(&socket, 0, sizeof socket);
  socket.inode = inode;
  socket.family = (uint32_t)option(fd, SOL_SOCKET_, SO_DOMAIN_);
  socket.type = (uint32_t)option(fd, SOL_SOCKET_, SO_TYPE_);
  socket.protocol = (uint32_t)option(fd, SOL_SOCKET_, SO_PROTOCOL_);
  socket.peer = WARP_NONE;
  bool known_family = socket.family == AF_INET_ || socket.family == AF_INET6_ || socket.family == AF_UNIX_ || socket.family == AF_NETLINK_;
  if (!known_family || (socket.type == SOCK_RAW_ && socket.family != AF_NETLINK_))
    return fail(capture->failure, "descriptor %d (%s) is a socket of family %u, type %u, which cannot be kept: close it before the checkpoint", fd, path, socket.family, socket.type);
  uint8_t address[128];
  uint32_t size = sizeof address;
  if (sys(getsockname, fd, address, &size) == 0) socket.local = table_bytes(&capture->sockets, address, min_u64(size, sizeof address));
  size = sizeof address;
  bool connected = sys(getpeername, fd, address, &size) == 0;
  if (connected) socket.remote = table_bytes(&capture->sockets, address, min_u64(size, sizeof address));
  socket.options = capture_options(capture, fd, socket.family, socket.type);
  bool named = false;
  if (socket.local.length > 0) {
    const uint8_t *name = capture->sockets.heap.bytes + socket.local.offset;
    uint16_t port;
    copy_bytes(&port, name + 2, 2);
    named = socket.family == AF_UNIX_ ? socket.local.length > 2 : socket.family == AF_NETLINK_ ? true : port != 0;
  }
  if (option(fd, SOL_SOCKET_, SO_ACCEPTCONN_) == 1) {
    socket.state = WARP_SOCKET_LISTENING;
    socket.backlog = 128;
    if (socket.family == AF_UNIX_) {
      const struct unix_socket *known = find_unix_socket(inode);
      if (known != NULL) socket.backlog = known->backlog;
    } else {
      struct tcp_info info;
      fill_bytes(&info, 0, sizeof info);
      size = sizeof info;
      /* Of a listener, tcpi_sacked is the backlog (net/ipv4/tcp.c, tcp_get_info). */
      if (sys(getsockopt, fd, IPPROTO_TCP_, TCP_INFO, &info, &size) == 0) socket.backlog = info.tcpi_sacked;
      if (info.tcpi_unacked > 0) log_warn("descriptor %d (%s): %u connections that wait to be accepted will be lost", fd, path, info.tcpi_unacked);
    }
  } else if (connected) {
    socket.state = WARP_SOCKET_CONNECTED;
  } else {
    socket.state = named ? WARP_SOCKET_BOUND : WARP_SOCKET_UNCONNECTED;
    /* A stream that was connected once and whose peer has gone. */
    int32_t tcp_state = 0;
    if (socket.type == SOCK_STREAM_ && (socket.family == AF_INET_ || socket.family == AF_INET6_)) {
      struct tcp_info info;
      fill_bytes(&info, 0, sizeof info);
      size = sizeof info;
      if (sys(getsockopt, fd, IPPROTO_TCP_, TCP_INFO, &info, &size) == 0) tcp_state = info.tcpi_state;
      /* A connection that has ended keeps its local address, which is the listener's: it must not be bound again. */
      if ((tcp_state != 7 /* TCP_CLOSE */ && tcp_state != 0) || info.tcpi_segs_in > 0 || info.tcpi_segs_out > 0) socket.state = WARP_SOCKET_CONNECTED;
    }
  }
  if (socket.family == AF_UNIX_ && socket.local.length > 3) {
    const struct sockaddr_un *name = (const void *)(capture->sockets.heap.bytes + socket.local.offset);
    struct file_status status;
    if (name->sun_path[0] != 0 && sys(newfstatat, AT_FDCWD_, name->sun_path, &status, 0) == 0) socket.mode = status.mode;
  }
  *detail = (uint32_t)capture->sockets.records.count;
  struct warp_socket_record *record = table_add(&capture->sockets);
  *record = socket;
  if (socket.family == AF_UNIX_ && socket.state != WARP_SOCKET_LISTENING) {
    struct warp_slice data = {0, 0};
    if (peek_messages(capture, fd, socket.type, &data) < 0) return -1;
    table_at(&capture->sockets, struct warp_socket_record, *detail)->data = data;
  }
  return 0;
}

void sockets_end(struct capture *capture) {
  for (size_t i = 0; i < capture->sockets.records.count; i++) {
    struct warp_socket_record *socket = table_at(&capture->sockets, struct warp_socket_record, i);
    if (socket->family != AF_UNIX_ || socket->state != WARP_SOCKET_CONNECTED) continue;
    const struct unix_socket *known = find_unix_socket(socket->inode);
    if (known == NULL) continue;
    socket->flags = known->shutdown; /* WARP_SOCKET_SHUTDOWN_ bits are the kernel's */
    if (known->peer_inode == 0) continue;
    for (size_t k = 0; k < capture->sockets.records.count; k++) {
      struct warp_socket_record *other = table_at(&capture->sockets, struct warp_socket_record, k);
      if (other->inode != known->peer_inode || other->family != AF_UNIX_) continue;
      /* A datagram socket may be connected to one that is not connected back: that is no pair. */
      const struct unix_socket *back = find_unix_socket(other->inode);
      if (back == NULL || back->peer_inode != socket->inode) continue;
      socket->state = WARP_SOCKET_PAIR;
      socket->peer = (uint32_t)k;
    }
  }
}

int check_socket(struct capture *capture, uint32_t fd, uint32_t index) {
  const struct warp_socket_record *socket = table_at(&capture->sockets, struct warp_socket_record, index);
  if (socket->state == WARP_SOCKET_CONNECTED && socket->type != SOCK_DGRAM_) log_info("descriptor %u is a connection to another process: after a restore its peer will have gone", fd);
  if (socket->family == AF_INET_ || socket->family == AF_INET6_) {
    int32_t waiting = 0;
    if (socket->type == SOCK_DGRAM_ && sys(ioctl, fd, FIONREAD, &waiting) == 0 && waiting > 0) log_warn("descriptor %u: datagrams that wait to be read will be lost", fd);
  }
  return 0;
}
