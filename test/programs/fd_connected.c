/*
 * TCP connections to another process, one idle, one with a thread blocked in recv, one with unread data: in the restored process the peer
 * has gone, as after a network fault (ECONNRESET or end of file), and nothing hangs. Left running, they go on working.
 */
#include "check.h"
#include <netinet/in.h>
#include <poll.h>

#define CONNECTIONS 3

static int connections[CONNECTIONS];
static pid_t connected_pid; /* of the process that has the connections; another one has been restored */
static atomic_int reader_result;
static pthread_t reader_thread;

/* Echoes on every connection until the other side ends; runs as an orphan and holds nothing else of this process. */
static void peer(int listener) {
  struct pollfd fds[CONNECTIONS];
  for (int fd = 0; fd < 3; fd++) close(fd);
  for (int i = 0; i < CONNECTIONS; i++) fds[i] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
  for (int open_count = CONNECTIONS; open_count;) {
    if (poll(fds, CONNECTIONS, 120000) <= 0) _exit(0);
    for (int i = 0; i < CONNECTIONS; i++) {
      if (!fds[i].revents) continue;
      char buffer[256];
      ssize_t n = recv(fds[i].fd, buffer, sizeof buffer, 0);
      if (n <= 0) {
        close(fds[i].fd);
        fds[i].fd = -1;
        open_count--;
      } else if (send(fds[i].fd, buffer, n, MSG_NOSIGNAL) != n) {
        _exit(1);
      }
    }
  }
  _exit(0);
}

static void *reader(void *unused) {
  (void)unused;
  char byte;
  ssize_t n = recv(connections[1], &byte, 1, 0);
  reader_result = n == 0 ? 1 : n < 0 ? errno : -1;
  return NULL;
}

static void set_up(void) {
  connected_pid = getpid();
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SYS(bind(listener, (struct sockaddr *)&address, size));
  SYS(listen(listener, CONNECTIONS));
  SYS(getsockname(listener, (struct sockaddr *)&address, &size));
  pid_t child = SYS(fork());
  if (child == 0) {
    if (fork() == 0) peer(listener);
    _exit(0);
  }
  SYS(waitpid(child, NULL, 0));
  for (int i = 0; i < CONNECTIONS; i++) {
    connections[i] = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(connections[i], (struct sockaddr *)&address, size));
  }
  close(listener);
  CHECK(send(connections[2], "unread", 6, MSG_NOSIGNAL) == 6);
  CHECK(recv(connections[2], &(char[6]){0}, 6, MSG_PEEK | MSG_WAITALL) == 6);
  reader_thread = start_thread(reader, NULL);
}

static bool gone;

static void verify(void) {
  char buffer[8];
  if (getpid() != connected_pid) return;
  ssize_t sent = send(connections[0], "echo", 4, MSG_NOSIGNAL);
  struct pollfd wait = {connections[0], POLLIN, 0};
  CHECK(poll(&wait, 1, 60000) == 1);
  ssize_t got = recv(connections[0], buffer, 4, MSG_WAITALL);
  if (getpid() != connected_pid) return; /* restored between the lines above */
  CHECK(sent == 4 && got == 4 && !memcmp(buffer, "echo", 4), "sent %zd, got %zd, errno %d", sent, got, errno);
  CHECK(reader_result == 0, "the blocked reader ended: %d", reader_result);
}

static void after_restore(void) {
  if (self_test || gone) return;
  gone = true;
  char buffer[64];
  for (int i = 0; i < CONNECTIONS; i += 2) {
    struct pollfd wait = {connections[i], POLLIN, 0};
    CHECK(poll(&wait, 1, 60000) == 1, "connection %d: nothing tells that the peer has gone", i);
    ssize_t n;
    while ((n = recv(connections[i], buffer, sizeof buffer, 0)) > 0) {
    }
    CHECK(n == 0 || errno == ECONNRESET, "connection %d: %zd, errno %d", i, n, errno);
    CHECK(send(connections[i], "x", 1, MSG_NOSIGNAL) == -1 || send(connections[i], "x", 1, MSG_NOSIGNAL) == -1);
  }
  WAIT_UNTIL(reader_result != 0);
  CHECK(reader_result == 1 || reader_result == ECONNRESET, "the blocked reader got %d", reader_result);
  PTHREAD(pthread_join(reader_thread, NULL));
  for (int i = 0; i < CONNECTIONS; i++) CHECK(SYS(fcntl(connections[i], F_GETFD)) == FD_CLOEXEC);
}
