/* Numbers of the socket interface that the kernel's user headers leave to the C library (asm-generic/socket.h has some). */
#ifndef WARP_SOCKET_CONSTANTS_H
#define WARP_SOCKET_CONSTANTS_H

#include "base.h"

#define AF_UNIX_ 1
#define AF_INET_ 2
#define AF_INET6_ 10
#define AF_NETLINK_ 16
#define SOCK_STREAM_ 1
#define SOCK_DGRAM_ 2
#define SOCK_RAW_ 3
#define SOCK_SEQPACKET_ 5
#define SOCK_CLOEXEC_ 02000000
#define SOCK_NONBLOCK_ 04000
#define SOL_SOCKET_ 1
#define SO_REUSEADDR_ 2
#define SO_TYPE_ 3
#define SO_ERROR_ 4
#define SO_BROADCAST_ 6
#define SO_SNDBUF_ 7
#define SO_RCVBUF_ 8
#define SO_KEEPALIVE_ 9
#define SO_OOBINLINE_ 10
#define SO_PRIORITY_ 12
#define SO_LINGER_ 13
#define SO_REUSEPORT_ 15
#define SO_PASSCRED_ 16
#define SO_PEERCRED_ 17
#define SO_RCVLOWAT_ 18
#define SO_RCVTIMEO_ 20
#define SO_SNDTIMEO_ 21
#define SO_TIMESTAMP_ 29
#define SO_ACCEPTCONN_ 30
#define SO_PROTOCOL_ 38
#define SO_DOMAIN_ 39
#define SO_PEEK_OFF_ 42
#define SO_BUSY_POLL_ 46
#define SO_BUF_LOCK_ 72
#define IPPROTO_IP_ 0
#define IPPROTO_TCP_ 6
#define IPPROTO_IPV6_ 41
#define MSG_PEEK_ 0x2
#define MSG_TRUNC_ 0x20
#define MSG_CTRUNC_ 0x8
#define MSG_DONTWAIT_ 0x40
#define MSG_NOSIGNAL_ 0x4000

/* Options that a socket keeps through a restore. */
struct socket_option {
  int16_t level;
  int16_t name;
};
extern HIDDEN const struct socket_option socket_options[];
extern HIDDEN const size_t socket_option_count;

#endif
