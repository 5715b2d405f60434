/*
 * Threads blocked without a time-out, each in another system call: none returns before it is woken after the restore, neither with EINTR
 * nor with anything else, however often the process is captured. Then each blocks again.
 */
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/un.h>

struct call {
  const char *name;
  void (*block)(struct call *);
  void (*wake)(struct call *);
  void (*prepare)(struct call *);
  int fd[2];
  int word; /* a futex */
  pthread_t thread;
  atomic_ulong returned;
  sem_t next;
};

static void on_signal(int number) { (void)number; }

static void make_eventfd(struct call *call) { call->fd[0] = SYS(eventfd(0, EFD_CLOEXEC)); }
static void make_pipe(struct call *call) { SYS(pipe2(call->fd, O_CLOEXEC)); }
static void make_sockets(struct call *call) { SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, call->fd)); }

static void make_full_pipe(struct call *call) {
  make_pipe(call);
  SYS(fcntl(call->fd[1], F_SETPIPE_SZ, 4096));
  char block[4096] = "";
  CHECK(write(call->fd[1], block, 4096) == 4096);
}

static void make_epoll(struct call *call) {
  call->fd[1] = SYS(epoll_create1(EPOLL_CLOEXEC));
  make_eventfd(call);
  SYS(epoll_ctl(call->fd[1], EPOLL_CTL_ADD, call->fd[0], &(struct epoll_event){.events = EPOLLIN, .data.u64 = 99}));
}

static void make_listener(struct call *call) {
  struct sockaddr_un any = {.sun_family = AF_UNIX};
  call->fd[0] = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SYS(bind(call->fd[0], (struct sockaddr *)&any, sizeof(sa_family_t)));
  SYS(listen(call->fd[0], 5));
}

static void make_flock(struct call *call) {
  for (int i = 0; i < 2; i++) call->fd[i] = SYS(open(scratch_path("blocking-flock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  SYS(flock(call->fd[0], LOCK_EX));
}

static struct flock whole(short type) { return (struct flock){.l_type = type, .l_whence = SEEK_SET}; }

static void make_ofd_lock(struct call *call) {
  for (int i = 0; i < 2; i++) call->fd[i] = SYS(open(scratch_path("blocking-ofd"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct flock lock = whole(F_WRLCK);
  SYS(fcntl(call->fd[0], F_OFD_SETLKW, &lock));
}

static void wake_eventfd(struct call *call) { eventfd_write(call->fd[0], 1); }
static void wake_pipe(struct call *call) { CHECK(write(call->fd[1], "w", 1) == 1); }
static void wake_by_signal(struct call *call) { PTHREAD(pthread_kill(call->thread, SIGUSR1)); }

static void wake_listener(struct call *call) {
  struct sockaddr_un address;
  socklen_t size = sizeof address;
  SYS(getsockname(call->fd[0], (struct sockaddr *)&address, &size));
  int client = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SYS(connect(client, (struct sockaddr *)&address, size));
  close(client);
}

static void take_event(struct call *call) {
  eventfd_t value;
  SYS(eventfd_read(call->fd[0], &value));
}

static void block_epoll_wait(struct call *call) {
  struct epoll_event event;
  int n = epoll_wait(call->fd[1], &event, 1, -1);
  CHECK(n == 1 && event.data.u64 == 99, "epoll_wait: %d, errno %d", n, errno);
  take_event(call);
}

static void block_epoll_pwait(struct call *call) {
  struct epoll_event event;
  sigset_t set;
  sigemptyset(&set);
  int n = epoll_pwait(call->fd[1], &event, 1, -1, &set);
  CHECK(n == 1 && event.data.u64 == 99, "epoll_pwait: %d, errno %d", n, errno);
  take_event(call);
}

static void block_poll(struct call *call) {
  struct pollfd fd = {call->fd[0], POLLIN, 0};
  int n = poll(&fd, 1, -1);
  CHECK(n == 1 && fd.revents == POLLIN, "poll: %d, errno %d", n, errno);
  take_event(call);
}

static void block_ppoll(struct call *call) {
  struct pollfd fd = {call->fd[0], POLLIN, 0};
  sigset_t set;
  sigfillset(&set);
  int n = ppoll(&fd, 1, NULL, &set); /* with everything blocked for the call's duration */
  CHECK(n == 1 && fd.revents == POLLIN, "ppoll: %d, errno %d", n, errno);
  take_event(call);
}

static void block_select(struct call *call) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(call->fd[0], &set);
  int n = select(call->fd[0] + 1, &set, NULL, NULL, NULL);
  CHECK(n == 1 && FD_ISSET(call->fd[0], &set), "select: %d, errno %d", n, errno);
  take_event(call);
}

static void block_pselect(struct call *call) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(call->fd[0], &set);
  sigset_t mask;
  sigemptyset(&mask);
  int n = pselect(call->fd[0] + 1, &set, NULL, NULL, &(struct timespec){36000, 0}, &mask);
  CHECK(n == 1 && FD_ISSET(call->fd[0], &set), "pselect: %d, errno %d", n, errno);
  take_event(call);
}

static void block_eventfd(struct call *call) { take_event(call); }

static void block_read(struct call *call) {
  char byte;
  ssize_t n = read(call->fd[0], &byte, 1);
  CHECK(n == 1 && byte == 'w', "read: %zd, errno %d", n, errno);
}

static void block_write(struct call *call) {
  char block[4096] = "";
  ssize_t n = write(call->fd[1], block, 4096);
  CHECK(n == 4096, "write: %zd, errno %d", n, errno);
}

static void wake_full_pipe(struct call *call) {
  char block[4096];
  CHECK(read(call->fd[0], block, 4096) == 4096);
}

static void block_recv(struct call *call) {
  char byte;
  ssize_t n = recv(call->fd[0], &byte, 1, 0);
  CHECK(n == 1 && byte == 'w', "recv: %zd, errno %d", n, errno);
}

static void block_recvmsg(struct call *call) {
  char byte;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  ssize_t n = recvmsg(call->fd[0], &message, 0);
  CHECK(n == 1 && byte == 'w', "recvmsg: %zd, errno %d", n, errno);
}

static void make_sockets_with_timeout(struct call *call) {
  make_sockets(call);
  SYS(setsockopt(call->fd[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){36000, 0}, sizeof(struct timeval)));
}

static void block_accept(struct call *call) {
  int fd = accept4(call->fd[0], NULL, NULL, SOCK_CLOEXEC);
  CHECK(fd >= 0, "accept: %d, errno %d", fd, errno);
  close(fd);
}

static void block_futex(struct call *call) {
  while (!__atomic_load_n(&call->word, __ATOMIC_SEQ_CST)) {
    long result = syscall(SYS_futex, &call->word, 0 /* FUTEX_WAIT */, 0, NULL, NULL, 0);
    CHECK(result == 0 || errno == EAGAIN, "futex: %ld, errno %d", result, errno);
  }
  call->word = 0;
}

/* With a time-out the kernel restarts a relative wait by itself only through restart_syscall. */
static void block_futex_relative(struct call *call) {
  while (!__atomic_load_n(&call->word, __ATOMIC_SEQ_CST)) {
    long result = syscall(SYS_futex, &call->word, 0 /* FUTEX_WAIT */, 0, &(struct timespec){36000, 0}, NULL, 0);
    CHECK(result == 0 || errno == EAGAIN, "futex: %ld, errno %d", result, errno);
  }
  call->word = 0;
}

static void block_futex_absolute(struct call *call) {
  struct timespec end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += 36000;
  while (!__atomic_load_n(&call->word, __ATOMIC_SEQ_CST)) {
    long result = syscall(SYS_futex, &call->word, 9 /* FUTEX_WAIT_BITSET */, 0, &end, NULL, ~0u);
    CHECK(result == 0 || errno == EAGAIN, "futex: %ld, errno %d", result, errno);
  }
  call->word = 0;
}

static void wake_futex(struct call *call) {
  __atomic_store_n(&call->word, 1, __ATOMIC_SEQ_CST);
  SYS(syscall(SYS_futex, &call->word, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0));
}

/* These end only by a signal of the program's own. */
static void block_pause(struct call *call) {
  (void)call;
  CHECK(pause() == -1 && errno == EINTR);
}

static void block_sigsuspend(struct call *call) {
  (void)call;
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, SIGUSR1);
  CHECK(sigsuspend(&set) == -1 && errno == EINTR);
}

static void block_nanosleep(struct call *call) {
  (void)call;
  struct timespec left = {0, 0};
  CHECK(nanosleep(&(struct timespec){36000, 0}, &left) == -1 && errno == EINTR, "errno %d", errno);
  CHECK(left.tv_sec > 35000 && left.tv_sec < 36000, "%ld s left", (long)left.tv_sec);
}

static void block_clock_nanosleep(struct call *call) {
  (void)call;
  int error = clock_nanosleep(CLOCK_BOOTTIME, 0, &(struct timespec){36000, 0}, NULL);
  CHECK(error == EINTR, "clock_nanosleep: %d", error);
}

static void block_clock_nanosleep_absolute(struct call *call) {
  (void)call;
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += 36000;
  int error = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &end, NULL);
  CHECK(error == EINTR, "clock_nanosleep: %d", error);
}

static void block_signal(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void block_sigwaitinfo(struct call *call) {
  (void)call;
  block_signal(SIGUSR2);
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  int number = sigwaitinfo(&set, &info);
  CHECK(number == SIGUSR2, "sigwaitinfo: %d, errno %d", number, errno);
}

static void block_sigtimedwait(struct call *call) {
  (void)call;
  block_signal(SIGUSR2);
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  int number = sigtimedwait(&set, &info, &(struct timespec){36000, 0});
  CHECK(number == SIGUSR2, "sigtimedwait: %d, errno %d", number, errno);
}

static void wake_waiter(struct call *call) { PTHREAD(pthread_kill(call->thread, SIGUSR2)); }

static void block_flock(struct call *call) {
  int result = flock(call->fd[1], LOCK_EX);
  CHECK(result == 0, "flock: errno %d", errno);
  SYS(flock(call->fd[1], LOCK_UN));
}

static void wake_flock(struct call *call) { SYS(flock(call->fd[0], LOCK_UN)); }
static void hold_flock(struct call *call) { SYS(flock(call->fd[0], LOCK_EX)); }

static void block_ofd_lock(struct call *call) {
  struct flock lock = whole(F_WRLCK);
  int result = fcntl(call->fd[1], F_OFD_SETLKW, &lock);
  CHECK(result == 0, "fcntl(F_OFD_SETLKW): errno %d", errno);
  lock = whole(F_UNLCK);
  SYS(fcntl(call->fd[1], F_OFD_SETLK, &lock));
}

static void wake_ofd_lock(struct call *call) {
  struct flock lock = whole(F_UNLCK);
  SYS(fcntl(call->fd[0], F_OFD_SETLK, &lock));
}

static void hold_ofd_lock(struct call *call) {
  struct flock lock = whole(F_WRLCK);
  SYS(fcntl(call->fd[0], F_OFD_SETLKW, &lock));
}

static struct call calls[] = {
    {.name = "epoll_wait", .block = block_epoll_wait, .wake = wake_eventfd, .prepare = make_epoll},
    {.name = "epoll_pwait", .block = block_epoll_pwait, .wake = wake_eventfd, .prepare = make_epoll},
    {.name = "poll", .block = block_poll, .wake = wake_eventfd, .prepare = make_eventfd},
    {.name = "ppoll", .block = block_ppoll, .wake = wake_eventfd, .prepare = make_eventfd},
    {.name = "select", .block = block_select, .wake = wake_eventfd, .prepare = make_eventfd},
    {.name = "pselect", .block = block_pselect, .wake = wake_eventfd, .prepare = make_eventfd},
    {.name = "read of an eventfd", .block = block_eventfd, .wake = wake_eventfd, .prepare = make_eventfd},
    {.name = "read of a pipe", .block = block_read, .wake = wake_pipe, .prepare = make_pipe},
    {.name = "write to a full pipe", .block = block_write, .wake = wake_full_pipe, .prepare = make_full_pipe},
    {.name = "recv", .block = block_recv, .wake = wake_pipe, .prepare = make_sockets},
    {.name = "recv with SO_RCVTIMEO", .block = block_recv, .wake = wake_pipe, .prepare = make_sockets_with_timeout},
    {.name = "recvmsg", .block = block_recvmsg, .wake = wake_pipe, .prepare = make_sockets},
    {.name = "accept", .block = block_accept, .wake = wake_listener, .prepare = make_listener},
    {.name = "futex", .block = block_futex, .wake = wake_futex},
    {.name = "futex, relative time-out", .block = block_futex_relative, .wake = wake_futex},
    {.name = "futex, absolute time-out", .block = block_futex_absolute, .wake = wake_futex},
    {.name = "pause", .block = block_pause, .wake = wake_by_signal},
    {.name = "sigsuspend", .block = block_sigsuspend, .wake = wake_by_signal},
    {.name = "nanosleep", .block = block_nanosleep, .wake = wake_by_signal},
    {.name = "clock_nanosleep", .block = block_clock_nanosleep, .wake = wake_by_signal},
    {.name = "clock_nanosleep, absolute", .block = block_clock_nanosleep_absolute, .wake = wake_by_signal},
    {.name = "sigwaitinfo", .block = block_sigwaitinfo, .wake = wake_waiter},
    {.name = "sigtimedwait", .block = block_sigtimedwait, .wake = wake_waiter},
    {.name = "flock", .block = block_flock, .wake = wake_flock, .prepare = make_flock},
    {.name = "F_OFD_SETLKW", .block = block_ofd_lock, .wake = wake_ofd_lock, .prepare = make_ofd_lock},
};

static unsigned long expected;

static void *caller(void *argument) {
  struct call *call = argument;
  char name[16];
  snprintf(name, sizeof name, "%.15s", call->name);
  pthread_setname_np(pthread_self(), name);
  for (;;) {
    call->block(call);
    call->returned++;
    wait_semaphore(&call->next);
  }
  return NULL;
}

static void set_up(void) {
  struct sigaction action = {.sa_handler = on_signal};
  SYS(sigaction(SIGUSR1, &action, NULL));
  for (unsigned i = 0; i < COUNT(calls); i++) {
    if (calls[i].prepare) calls[i].prepare(&calls[i]);
    sem_init(&calls[i].next, 0, 0);
    calls[i].thread = start_thread(caller, &calls[i]);
  }
  sleep_ms(50); /* most are in the kernel by then; those that are not are checked all the same */
}

static void verify(void) {
  for (unsigned i = 0; i < COUNT(calls); i++)
    CHECK(calls[i].returned == expected, "%s returned without having been woken", calls[i].name);
}

static void after_restore(void) {
  sleep_ms(100); /* what wrongly returns has returned by then */
  verify();
  expected++;
  for (unsigned i = 0; i < COUNT(calls); i++) {
    calls[i].wake(&calls[i]);
    WAIT_UNTIL(calls[i].returned == expected);
    if (calls[i].block == block_flock) hold_flock(&calls[i]);
    if (calls[i].block == block_ofd_lock) hold_ofd_lock(&calls[i]);
    sem_post(&calls[i].next);
  }
  sleep_ms(50);
}
