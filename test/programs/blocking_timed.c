/*
 * Threads that go from one timed wait to the next, each with another system call: every wait ends by its time-out, never with EINTR and
 * never early, however often the process is captured. WARP_TEST_WAIT_MS is how long each is.
 */
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

static int64_t wait_ns = 60000000;

static struct timespec spec(int64_t ns) { return (struct timespec){ns / 1000000000, ns % 1000000000}; }
static int sockets[2], epoll_fd;
static int word;

static void timed_epoll_wait(void) {
  struct epoll_event event;
  int n = epoll_wait(epoll_fd, &event, 1, wait_ns / 1000000);
  CHECK(n == 0, "epoll_wait: %d, errno %d", n, errno);
}

static void timed_poll(void) {
  struct pollfd fd = {sockets[0], POLLIN, 0};
  int n = poll(&fd, 1, wait_ns / 1000000);
  CHECK(n == 0, "poll: %d, errno %d", n, errno);
}

static void timed_ppoll(void) {
  struct pollfd fd = {sockets[0], POLLIN, 0};
  struct timespec timeout = spec(wait_ns);
  int n = ppoll(&fd, 1, &timeout, NULL);
  CHECK(n == 0, "ppoll: %d, errno %d", n, errno);
}

static void timed_select(void) {
  struct timeval timeout = {0, wait_ns / 1000};
  int n = select(0, NULL, NULL, NULL, &timeout);
  CHECK(n == 0, "select: %d, errno %d", n, errno);
}

static void timed_pselect(void) {
  struct timespec timeout = spec(wait_ns);
  int n = pselect(0, NULL, NULL, NULL, &timeout, NULL);
  CHECK(n == 0, "pselect: %d, errno %d", n, errno);
}

static void timed_nanosleep(void) {
  struct timespec timeout = spec(wait_ns);
  CHECK(nanosleep(&timeout, NULL) == 0, "errno %d", errno);
}

static void timed_nanosleep_remainder(void) {
  struct timespec timeout = spec(wait_ns), left;
  CHECK(nanosleep(&timeout, &left) == 0, "errno %d, %ld ns left", errno, left.tv_nsec);
}

static void timed_clock_nanosleep(void) {
  struct timespec timeout = spec(wait_ns);
  int error = clock_nanosleep(CLOCK_MONOTONIC, 0, &timeout, NULL);
  CHECK(error == 0, "clock_nanosleep: %d", error);
}

static void timed_clock_nanosleep_absolute(void) {
  struct timespec end = spec(now_ns(CLOCK_MONOTONIC) + wait_ns);
  int error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
  CHECK(error == 0, "clock_nanosleep: %d", error);
}

static void timed_futex_relative(void) {
  struct timespec timeout = spec(wait_ns);
  long result = syscall(SYS_futex, &word, 0, 0, &timeout, NULL, 0);
  CHECK(result == -1 && errno == ETIMEDOUT, "futex: %ld, errno %d", result, errno);
}

static void timed_futex_absolute(void) {
  struct timespec end = spec(now_ns(CLOCK_MONOTONIC) + wait_ns);
  long result = syscall(SYS_futex, &word, 9 /* FUTEX_WAIT_BITSET */, 0, &end, NULL, ~0u);
  CHECK(result == -1 && errno == ETIMEDOUT, "futex: %ld, errno %d", result, errno);
}

static void timed_sigtimedwait(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  struct timespec timeout = spec(wait_ns);
  int number = sigtimedwait(&set, NULL, &timeout);
  CHECK(number == -1 && errno == EAGAIN, "sigtimedwait: %d, errno %d", number, errno);
}

static void timed_recv(void) {
  char byte;
  ssize_t n = recv(sockets[1], &byte, 1, 0);
  CHECK(n == -1 && errno == EAGAIN, "recv with SO_RCVTIMEO: %zd, errno %d", n, errno);
}

static void timed_semaphore(void) {
  static sem_t never;
  struct timespec end = spec(now_ns(CLOCK_REALTIME) + wait_ns);
  CHECK(sem_timedwait(&never, &end) == -1 && errno == ETIMEDOUT, "sem_timedwait: errno %d", errno);
}

static struct call {
  const char *name;
  void (*wait)(void);
  atomic_ulong rounds;
} calls[] = {
    {"epoll_wait", timed_epoll_wait, 0},
    {"poll", timed_poll, 0},
    {"ppoll", timed_ppoll, 0},
    {"select", timed_select, 0},
    {"pselect", timed_pselect, 0},
    {"nanosleep", timed_nanosleep, 0},
    {"nanosleep with remainder", timed_nanosleep_remainder, 0},
    {"clock_nanosleep", timed_clock_nanosleep, 0},
    {"clock_nanosleep, absolute", timed_clock_nanosleep_absolute, 0},
    {"futex, relative", timed_futex_relative, 0},
    {"futex, absolute", timed_futex_absolute, 0},
    {"sigtimedwait", timed_sigtimedwait, 0},
    {"recv with SO_RCVTIMEO", timed_recv, 0},
    {"sem_timedwait", timed_semaphore, 0},
};

static void *caller(void *argument) {
  struct call *call = argument;
  for (;;) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    call->wait();
    int64_t lasted = now_ns(CLOCK_MONOTONIC) - start;
    /* recv counts in ticks of the kernel's clock, of at most 10 ms */
    CHECK(lasted >= wait_ns - (call->wait == timed_recv ? 10000000 : 1000000), "%s ended after %ld of %ld ns", call->name, lasted, wait_ns);
    call->rounds++;
  }
  return NULL;
}

static void set_up(void) {
  const char *milliseconds = getenv("WARP_TEST_WAIT_MS");
  if (milliseconds != NULL) wait_ns = strtol(milliseconds, NULL, 10) * 1000000;
  SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  SYS(setsockopt(sockets[1], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, wait_ns / 1000}, sizeof(struct timeval)));
  epoll_fd = SYS(epoll_create1(EPOLL_CLOEXEC));
  SYS(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, sockets[0], &(struct epoll_event){.events = EPOLLIN}));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  SYS(sigprocmask(SIG_BLOCK, &set, NULL));
  for (unsigned i = 0; i < COUNT(calls); i++) start_thread(caller, &calls[i]);
}

static void verify(void) {}

static void after_restore(void) {
  for (unsigned i = 0; i < COUNT(calls); i++) {
    unsigned long before = calls[i].rounds;
    WAIT_UNTIL(calls[i].rounds > before + 1);
  }
}
