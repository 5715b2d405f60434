/*
 * Accepted TCP connections that the client has ended, by a reset and by an orderly close, before the server closed its own descriptor: they
 * have the listener's port and no peer any more, and must not compete with the listener for it.
 */
#include "check.h"
#include <netinet/in.h>
#include <poll.h>

static int listener, reset, closed;
static struct sockaddr_in address = {.sin_family = AF_INET};

static int accept_and_end(bool by_reset) {
  int client = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SYS(connect(client, (struct sockaddr *)&address, sizeof address));
  int server = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
  if (by_reset) SYS(setsockopt(client, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)));
  close(client);
  CHECK(poll(&(struct pollfd){server, POLLIN, 0}, 1, 60000) == 1);
  if (!by_reset) SYS(shutdown(server, SHUT_WR));
  return server;
}

static void set_up(void) {
  socklen_t size = sizeof address;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SYS(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
  for (int port = 20000 + getpid() * 7 % 12000;; port++) {
    address.sin_port = htons(port);
    if (bind(listener, (struct sockaddr *)&address, size) == 0) break;
    CHECK(errno == EADDRINUSE);
  }
  SYS(listen(listener, 5));
  reset = accept_and_end(true);
  closed = accept_and_end(false);
}

static void verify(void) {}

/* Over at once: end of file or an error, never a wait. */
static void check_over(int fd) {
  char byte;
  ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
  CHECK(n == 0 || (n < 0 && (errno == ECONNRESET || errno == ENOTCONN)), "%zd, errno %d", n, errno);
}

static void after_restore(void) {
  check_over(reset);
  check_over(closed);
  close(reset);
  close(closed);
  reset = accept_and_end(true);
  closed = accept_and_end(false);
}
