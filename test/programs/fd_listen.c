/* Listening TCP (IPv4 and IPv6) and Unix sockets (path and abstract), bound UDP: clients connect after the restore. */
#include "check.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/un.h>

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_un local;
};

static struct endpoint {
  const char *name;
  int fd, type;
  union address address;
  socklen_t size;
} endpoints[5];
static int endpoint_count;
static int next_port; /* below those that the kernel gives to clients, who could take it between capture and restore */

static void open_endpoint(const char *name, int type, union address *address, socklen_t size) {
  int fd = socket(address->any.sa_family, type | SOCK_CLOEXEC, 0);
  if (fd < 0 && errno == EAFNOSUPPORT) return; /* a host without IPv6 */
  CHECK(fd >= 0);
  if (address->any.sa_family != AF_UNIX) SYS(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
  if (address->any.sa_family == AF_INET6) SYS(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int)));
  int error = bind(fd, &address->any, size) ? errno : 0;
  for (int i = 0; error == EADDRINUSE && address->any.sa_family != AF_UNIX && i < 1000; i++) {
    address->v4.sin_port = htons(next_port++);
    error = bind(fd, &address->any, size) ? errno : 0;
  }
  if (error) {
    CHECK(error == EADDRNOTAVAIL && address->any.sa_family == AF_INET6, "%s: bind: errno %d", name, error);
    close(fd);
    return;
  }
  if (type == SOCK_STREAM) SYS(listen(fd, 17));
  struct endpoint *endpoint = &endpoints[endpoint_count++];
  *endpoint = (struct endpoint){.name = name, .fd = fd, .type = type, .size = sizeof endpoint->address};
  SYS(getsockname(fd, &endpoint->address.any, &endpoint->size));
}

static void set_up(void) {
  next_port = 20000 + getpid() * 7 % 12000;
  union address address = {.v4 = {.sin_family = AF_INET, .sin_port = htons(next_port++), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
  open_endpoint("TCP over IPv4", SOCK_STREAM, &address, sizeof address.v4);
  open_endpoint("UDP", SOCK_DGRAM, &address, sizeof address.v4);
  address = (union address){.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(next_port++), .sin6_addr = in6addr_loopback}};
  open_endpoint("TCP over IPv6", SOCK_STREAM, &address, sizeof address.v6);
  address = (union address){.local = {.sun_family = AF_UNIX}};
  snprintf(address.local.sun_path, sizeof address.local.sun_path, "%s/socket", scratch);
  unlink(address.local.sun_path);
  open_endpoint("Unix, path", SOCK_STREAM, &address, sizeof address.local);
  address = (union address){.local = {.sun_family = AF_UNIX}};
  int length = snprintf(address.local.sun_path + 1, sizeof address.local.sun_path - 1, "warp-test-%d", getpid());
  open_endpoint("Unix, abstract", SOCK_STREAM, &address, offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

static void exchange(struct endpoint *endpoint) {
  char buffer[16] = "";
  int client = SYS(socket(endpoint->address.any.sa_family, endpoint->type | SOCK_CLOEXEC, 0));
  CHECK(connect(client, &endpoint->address.any, endpoint->size) == 0, "%s: connect: errno %d", endpoint->name, errno);
  struct pollfd wait = {endpoint->fd, POLLIN, 0};
  if (endpoint->type == SOCK_DGRAM) {
    CHECK(send(client, "ping", 4, 0) == 4);
    CHECK(poll(&wait, 1, 60000) == 1 && recv(endpoint->fd, buffer, sizeof buffer, 0) == 4 && !memcmp(buffer, "ping", 4));
  } else {
    CHECK(poll(&wait, 1, 60000) == 1, "%s", endpoint->name);
    int server = SYS(accept4(endpoint->fd, NULL, NULL, SOCK_CLOEXEC));
    CHECK(send(client, "ping", 4, 0) == 4 && recv(server, buffer, 4, MSG_WAITALL) == 4);
    CHECK(send(server, "pong", 4, 0) == 4 && recv(client, buffer, 4, MSG_WAITALL) == 4 && !memcmp(buffer, "pong", 4), "%s", endpoint->name);
    /* reset rather than TIME_WAIT, so that the next restore finds the port free whatever the options */
    if (endpoint->address.any.sa_family != AF_UNIX) setsockopt(server, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(server);
  }
  close(client);
}

static void verify(void) {
  for (int i = 0; i < endpoint_count; i++) {
    struct endpoint *endpoint = &endpoints[i];
    union address now;
    socklen_t size = sizeof now;
    SYS(getsockname(endpoint->fd, &now.any, &size));
    CHECK(size == endpoint->size && !memcmp(&now, &endpoint->address, size), "%s: bound to another address", endpoint->name);
    int listening = -1;
    size = sizeof listening;
    SYS(getsockopt(endpoint->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size));
    CHECK(listening == (endpoint->type == SOCK_STREAM), "%s", endpoint->name);
    CHECK(SYS(fcntl(endpoint->fd, F_GETFD)) == FD_CLOEXEC);
  }
}

static void after_restore(void) {
  verify();
  for (int round = 0; round < 2; round++)
    for (int i = 0; i < endpoint_count; i++) exchange(&endpoints[i]);
  int value = 0;
  socklen_t size = sizeof value;
  SYS(getsockopt(endpoints[0].fd, SOL_SOCKET, SO_REUSEADDR, &value, &size));
  CHECK(value == 1, "SO_REUSEADDR lost");
}
