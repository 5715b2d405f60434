/* Socket pairs within the process: stream, datagram and seqpacket, with queued data in both directions, and half-closed. */
#include "check.h"
#include <sys/ioctl.h>

static int stream[2], datagram[2], seqpacket[2], half[2], closed_peer[2];

static void put(int fd, const char *text) { CHECK(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text)); }

static void expect(int fd, const char *text) {
  char buffer[256];
  ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
  CHECK(n == (ssize_t)strlen(text) && !memcmp(buffer, text, n), "got %zd bytes, should be \"%s\"", n, text);
}

static void arm(void) {
  put(stream[0], "one ");
  put(stream[0], "two");
  put(stream[1], "back");
  put(datagram[0], "first datagram");
  put(datagram[0], "second");
  put(datagram[1], "datagram back");
  put(seqpacket[0], "packet 1");
  put(seqpacket[0], "packet 22");
}

static void set_up(void) {
  SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream));
  SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, datagram));
  SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, seqpacket));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
  put(half[0], "before shutdown");
  SYS(shutdown(half[0], SHUT_WR));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, closed_peer));
  SYS(close(closed_peer[1]));
  SYS(setsockopt(stream[0], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
  struct timeval timeout = {1234, 0};
  SYS(setsockopt(seqpacket[1], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
  SYS(setsockopt(seqpacket[1], SOL_SOCKET, SO_PASSCRED, &(int){0}, sizeof(int)));
  arm();
}

static int option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  SYS(getsockopt(fd, SOL_SOCKET, name, &value, &size));
  return value;
}

static void verify(void) {
  CHECK(option(stream[0], SO_TYPE) == SOCK_STREAM && option(datagram[1], SO_TYPE) == SOCK_DGRAM &&
        option(seqpacket[1], SO_TYPE) == SOCK_SEQPACKET);
  CHECK(option(stream[0], SO_PASSCRED) == 1, "SO_PASSCRED lost");
  struct timeval timeout;
  socklen_t size = sizeof timeout;
  SYS(getsockopt(seqpacket[1], SOL_SOCKET, SO_RCVTIMEO, &timeout, &size));
  CHECK(timeout.tv_sec == 1234, "SO_RCVTIMEO lost: %ld s", (long)timeout.tv_sec);
  CHECK(SYS(fcntl(stream[0], F_GETFD)) == FD_CLOEXEC && SYS(fcntl(datagram[0], F_GETFL)) == (O_RDWR | O_NONBLOCK));
  char byte;
  CHECK(recv(stream[1], &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && byte == 'o');
}

static void after_restore(void) {
  char buffer[64];
  verify();
  expect(stream[1], "one two");
  expect(stream[0], "back");
  expect(datagram[1], "first datagram");
  expect(datagram[1], "second");
  expect(datagram[0], "datagram back");
  expect(seqpacket[1], "packet 1");
  expect(seqpacket[1], "packet 22");
  expect(half[1], "before shutdown");
  CHECK(recv(half[1], buffer, 1, MSG_DONTWAIT) == 0, "no end of file behind a shutdown");
  put(half[1], "the other way");
  expect(half[0], "the other way");
  CHECK(send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
  CHECK(recv(closed_peer[0], buffer, 1, MSG_DONTWAIT) == 0, "no end of file where the peer was closed");
  SYS(close(half[0]));
  SYS(close(half[1]));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
  put(half[0], "before shutdown");
  SYS(shutdown(half[0], SHUT_WR));
  arm();
}
