/*
 * System calls on memory that is not there yet, one after the other: what they read and write is in pages that nobody has touched since the
 * capture, and none of it is lost. loading.c has those that programs make most. The calls of `waiting` wait until all memory is there, so
 * that nothing is absent any more for the others: the file `first` names the one that is made before anything else.
 */
#define PAGES 768
#include "absent.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif

/* musl has no headers of the kernel. */
#define FUTEX_CMP_REQUEUE 4
#define FUTEX_WAKE_OP 5
#define FUTEX_OP_ADD_ONE_CMP_EQ_0 (1u << 28 | 1u << 12)
#define SYS_RSEQ 334
#define SYS_CLONE3 435
#define SYS_EPOLL_PWAIT2 441
#define SYS_FUTEX_WAITV 449
#define ARCH_GET_FS 0x1003
#define SO_ATTACH_FILTER_ 26
#define RSEQ_SIGNATURE 0x53053053

struct filter_instruction {
  uint16_t code;
  uint8_t jt, jf;
  uint32_t k;
};

/* What calls read, each in a page of its own. */
static struct {
  struct iovec *vectors;
  struct mmsghdr *sent, *received;
  struct sockaddr_in *any;
  struct epoll_event *watch;
  struct timespec *short_time, *long_time;
  struct kernel_mask {
    uint64_t bits;
  } * usr1, *empty;
  siginfo_t *queued;
  stack_t *stack;
  struct sigevent *event;
  struct itimerspec *far;
  struct itimerval *far_real;
  int *one;
  struct filter_program {
    uint16_t length;
    const struct filter_instruction *code;
  } * filter;
  struct filter_instruction *accept_all;
  char *path, *directory, *name, *thread_name;
  int64_t *offset_from, *offset_to;
  uint64_t *cpus;
  uint64_t *clone_arguments;
  struct {
    uint64_t value, address;
    uint32_t flags, reserved;
  } * wait_vector;
  struct sembuf *operations;
  struct flock *lock;
  uint64_t *set;
} in;

static void *given(const void *content, size_t size) { return memcpy(fresh(1), content, size); }
#define GIVEN(...) given(&(__VA_ARGS__), sizeof(__VA_ARGS__))
#define PATTERN_OF(page) pattern(7, (size_t)((const unsigned char *)(page) - region) / 8)

static void prepare(void) {
  take_pages();
  in.vectors = fresh(1);
  for (int i = 0; i < 6; i++) in.vectors[i] = (struct iovec){fresh(2) + PAGE - 50, 100};
  in.sent = GIVEN((struct mmsghdr[2]){{.msg_hdr = {.msg_iov = &in.vectors[0], .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &in.vectors[1], .msg_iovlen = 1}}});
  in.received = GIVEN((struct mmsghdr[2]){{.msg_hdr = {.msg_iov = &in.vectors[2], .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &in.vectors[3], .msg_iovlen = 1}}});
  in.any = GIVEN((struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)});
  in.watch = GIVEN((struct epoll_event){.events = EPOLLIN, .data.u64 = 0x1234567890});
  in.short_time = GIVEN((struct timespec){0, 1000000});
  in.long_time = GIVEN((struct timespec){100000, 0});
  in.usr1 = GIVEN((struct kernel_mask){1ul << (SIGUSR1 - 1)});
  in.empty = GIVEN((struct kernel_mask){0});
  in.queued = GIVEN((siginfo_t){.si_signo = SIGUSR1, .si_code = SI_QUEUE, .si_value.sival_int = 4711});
  in.stack = GIVEN((stack_t){.ss_sp = fresh(16), .ss_size = 16 * PAGE});
  in.event = GIVEN((struct sigevent){.sigev_notify = SIGEV_NONE});
  in.far = GIVEN((struct itimerspec){.it_value.tv_sec = 100000});
  in.far_real = GIVEN((struct itimerval){.it_value.tv_sec = 100000});
  in.one = GIVEN((int){1});
  in.accept_all = GIVEN((struct filter_instruction){.code = 6 /* BPF_RET */, .k = 0xffff});
  in.filter = GIVEN((struct filter_program){1, in.accept_all});
  in.path = strcpy(fresh(1), "/proc/self/comm");
  in.directory = strcpy(fresh(1), "/proc/self");
  in.name = strcpy(fresh(1), "user.warp");
  in.thread_name = strcpy(fresh(1), "absent");
  in.offset_from = GIVEN((int64_t){16});
  in.offset_to = GIVEN((int64_t){32});
  in.cpus = given((uint64_t[16]){~0ul, ~0ul, ~0ul, ~0ul}, 128);
  in.clone_arguments = given((uint64_t[8]){0x100 /* CLONE_VM */ | 0x10000 /* CLONE_THREAD, which CLONE_SIGHAND must go with */, 0, 0, 0, 0, (uint64_t)fresh(2), PAGE, 0}, 64);
  in.wait_vector = fresh(1);
  in.wait_vector->address = (uint64_t)fresh(1);
  in.wait_vector->value = (uint32_t)PATTERN_OF(in.wait_vector->address) + 1;
  in.wait_vector->flags = 2; /* 32 bits */
  in.wait_vector->reserved = 0;
  in.operations = GIVEN((struct sembuf){0, 3, 0});
  in.lock = GIVEN((struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET});
  in.set = given((uint64_t[16]){1}, 128);
}

static void set_up(void) { prepare(); }
static void verify(void) { CHECK(region != NULL); }

static void expect_sent(const struct iovec *from, const struct iovec *to) {
  CHECK(memcmp(from->iov_base, to->iov_base, 100) == 0);
  check_rest((unsigned char *)from->iov_base - (PAGE - 50), 0);
  check_rest((unsigned char *)to->iov_base + 50, 56);
}

static void sockets(void) {
  int pair[2], *made = fresh(1), listening = SYS(socket(AF_INET, SOCK_STREAM, 0)), connecting = SYS(socket(AF_INET, SOCK_STREAM, 0));
  SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
  CHECK(syscall(SYS_sendmmsg, pair[0], in.sent, 2, 0) == 2 && syscall(SYS_recvmmsg, pair[1], in.received, 2, 0, in.long_time) == 2);
  for (int i = 0; i < 2; i++) {
    CHECK(in.sent[i].msg_len == 100 && in.received[i].msg_len == 100);
    expect_sent(&in.vectors[i], &in.vectors[2 + i]);
  }
  SYS(close(pair[0]));
  SYS(close(pair[1]));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, made));
  CHECK(write(made[0], "x", 1) == 1);
  SYS(close(made[0]));
  SYS(close(made[1]));
  check_rest(made, 8);

  SYS(bind(listening, (struct sockaddr *)in.any, sizeof *in.any));
  SYS(listen(listening, 1));
  struct sockaddr_in *address = fresh(1);
  socklen_t *length = given(&(socklen_t){sizeof *address}, sizeof *length);
  SYS(getsockname(listening, (struct sockaddr *)address, length));
  SYS(connect(connecting, (struct sockaddr *)address, sizeof *address));
  struct sockaddr_in *peer = fresh(1);
  int accepted = SYS(accept4(listening, (struct sockaddr *)peer, &(socklen_t){sizeof *peer}, SOCK_CLOEXEC));
  CHECK(peer->sin_family == AF_INET);
  check_rest(peer, 16);
  /* What waits in a socket is taken into a page that is not there, in parts. */
  unsigned char *from = fresh(3), *to = fresh(3);
  CHECK(send(connecting, from + 100, 2 * PAGE, 0) == 2 * PAGE);
  for (size_t got = 0; got < 2 * PAGE;) got += SYS(recv(accepted, to + 100 + got, got == 0 ? 3000 : 2 * PAGE - got, 0));
  CHECK(memcmp(to + 100, from + 100, 2 * PAGE) == 0);
  check_rest(to + 2 * PAGE, 104);

  SYS(setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, in.one, sizeof *in.one));
  int *option = fresh(1);
  SYS(getsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, option, &(socklen_t){sizeof *option}));
  CHECK(*option != 0);
  check_rest(option, 8);
  int *pending = fresh(1);
  CHECK(write(connecting, "abc", 3) == 3);
  WAIT_UNTIL(ioctl(accepted, FIONREAD, pending) == 0 && *pending == 3);
  check_rest(pending, 8);
  SYS(close(connecting));
  SYS(close(accepted));
  SYS(close(listening));

  int one = SYS(socket(AF_INET, SOCK_DGRAM, 0)), other = SYS(socket(AF_INET, SOCK_DGRAM, 0));
  struct sockaddr_in bound = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  SYS(bind(one, (struct sockaddr *)&bound, sizeof bound));
  SYS(getsockname(one, (struct sockaddr *)&bound, &(socklen_t){sizeof bound}));
  from = fresh(1), to = fresh(1), address = fresh(1);
  CHECK(sendto(other, from, 64, 0, (struct sockaddr *)memcpy(fresh(1), &bound, sizeof bound), sizeof bound) == 64);
  CHECK(recvfrom(one, to, PAGE, 0, (struct sockaddr *)address, &(socklen_t){sizeof *address}) == 64 && memcmp(from, to, 64) == 0 && address->sin_family == AF_INET);
  check_rest(to, 64);
  SYS(close(one));
  SYS(close(other));
}

static void waits(void) {
  int tube[2], epoll = SYS(epoll_create1(0));
  SYS(pipe(tube));
  SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, tube[0], in.watch));
  CHECK(write(tube[1], "x", 1) == 1);
  struct epoll_event *events = fresh(1);
  CHECK(epoll_wait(epoll, events, 4, -1) == 1 && events->data.u64 == 0x1234567890);
  check_rest(events, 16);
  events = fresh(1);
  long ready = syscall(SYS_EPOLL_PWAIT2, epoll, events, 4, in.short_time, in.empty, 8);
  CHECK((ready == 1 && events->data.u64 == 0x1234567890) || (ready == -1 && errno == ENOSYS));
  struct pollfd *polled = GIVEN((struct pollfd){.fd = tube[0], .events = POLLIN});
  CHECK(syscall(SYS_ppoll, polled, 1, in.short_time, in.usr1, 8) == 1 && polled->revents == POLLIN);
  fd_set *set = (fd_set *)in.set;
  CHECK(syscall(SYS_select, 0, set, fresh(1), fresh(1), memcpy(fresh(1), &(struct timeval){0, 0}, sizeof(struct timeval))) == 0);
  SYS(syscall(SYS_nanosleep, in.short_time, fresh(1)));
  SYS(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, in.short_time, fresh(1)));
  struct timespec *now = fresh(1);
  SYS(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, now));
  CHECK((uint64_t)now->tv_nsec < 1000000000);
  check_rest(now, 16);
  SYS(close(epoll));

  /* Of two words the second is in a page that is not there, and is changed. */
  uint32_t *word = fresh(1), *second = fresh(1);
  const uint32_t before = (uint32_t)PATTERN_OF(second);
  CHECK(syscall(SYS_futex, word, FUTEX_WAKE_OP, 1, 1, second, FUTEX_OP_ADD_ONE_CMP_EQ_0) == 0 && *second == before + 1);
  CHECK(syscall(SYS_futex, word, FUTEX_CMP_REQUEUE, 1, 1, fresh(1), *word) == 0);
  check_rest(word, 0);

  /* splice, sendfile and copy_file_range: offsets in memory. */
  const char *path = scratch_path("offsets");
  int file = SYS(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
  unsigned char *page = fresh(1);
  CHECK(pwrite(file, page, 256, 0) == 256 && read(tube[0], fresh(1), 1) == 1);
  CHECK(syscall(SYS_splice, file, in.offset_from, tube[1], NULL, 64, 0) == 64 && *in.offset_from == 80);
  unsigned char *copy = fresh(1);
  CHECK(read(tube[0], copy, 64) == 64 && memcmp(copy, page + 16, 64) == 0);
  check_rest(copy, 64);
  CHECK(syscall(SYS_copy_file_range, file, memcpy(fresh(1), &(int64_t){0}, 8), file, in.offset_to, 32, 0) == 32 && *in.offset_to == 64);
  CHECK(syscall(SYS_preadv2, file, memcpy(fresh(1), &(struct iovec){copy = fresh(1), 16}, 16), 1, 48, 0, 0) == 16 && memcmp(copy, page + 16, 16) == 0);
  SYS(fcntl(file, F_GETLK, in.lock));
  CHECK(in.lock->l_type == F_UNLCK);
  SYS(close(file));
  SYS(unlink(path));
  SYS(close(tube[0]));
  SYS(close(tube[1]));
}

static void on_signal(int number) { (void)number; }

static void signals_and_timers(void) {
  uint64_t *old = fresh(1);
  struct sigaction action = {.sa_handler = on_signal};
  SYS(sigaction(SIGUSR1, &action, NULL));
  SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, in.usr1, old, 8));
  check_rest(old, 8);
  SYS(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, in.queued));
  uint64_t *pending = fresh(1);
  SYS(syscall(SYS_rt_sigpending, pending, 8));
  CHECK((*pending & in.usr1->bits) != 0);
  siginfo_t *taken = fresh(1);
  CHECK(syscall(SYS_rt_sigtimedwait, GIVEN((uint64_t){1ul << (SIGUSR1 - 1)}), taken, in.short_time, 8) == SIGUSR1 && taken->si_value.sival_int == 4711);
  check_rest(taken, 128);
  int queue = SYS(syscall(SYS_signalfd4, -1, GIVEN((uint64_t){1ul << (SIGUSR1 - 1)}), 8, SFD_CLOEXEC));
  SYS(kill(getpid(), SIGUSR1));
  struct signalfd_siginfo *read_back = fresh(1);
  CHECK(read(queue, read_back, sizeof *read_back) == sizeof *read_back && read_back->ssi_signo == SIGUSR1);
  check_rest(read_back, sizeof *read_back);
  SYS(close(queue));
  SYS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, old, NULL, 8));

  stack_t *before = fresh(1);
  SYS(sigaltstack(in.stack, before));
  check_rest(before, sizeof *before);
  SYS(sigaltstack(before, NULL));

  int *timer = fresh(1);
  struct itimerspec *left = fresh(1);
  SYS(syscall(SYS_timer_create, CLOCK_MONOTONIC, in.event, timer));
  SYS(syscall(SYS_timer_settime, *timer, 0, in.far, fresh(1)));
  SYS(syscall(SYS_timer_gettime, *timer, left));
  CHECK(left->it_value.tv_sec > 90000);
  check_rest(left, sizeof *left);
  SYS(syscall(SYS_timer_delete, *timer));
  SYS(setitimer(ITIMER_VIRTUAL, in.far_real, fresh(1)));
  struct itimerval *running = fresh(1);
  SYS(getitimer(ITIMER_VIRTUAL, running));
  CHECK(running->it_value.tv_sec > 90000);
  check_rest(running, sizeof *running);
  SYS(setitimer(ITIMER_VIRTUAL, &(struct itimerval){0}, NULL));
  int clock = SYS(timerfd_create(CLOCK_MONOTONIC, 0));
  SYS(timerfd_settime(clock, 0, GIVEN((struct itimerspec){.it_value.tv_nsec = 1}), fresh(1)));
  uint64_t *count = fresh(1);
  CHECK(read(clock, count, 8) == 8 && *count == 1);
  check_rest(count, 8);
  SYS(close(clock));
}

/* The kernel goes on writing to what a thread registers. */
static void *restartable(void *unused) {
  uint32_t *area = fresh(1);
  memset(area, 0, 32);
  long result = syscall(SYS_RSEQ, area, 32, 0, RSEQ_SIGNATURE);
  if (result != 0) return unused; /* the C library has done so for this thread */
  sched_yield();
  CHECK(area[0] == area[1] && (int)area[1] >= 0, "processor %d, %d", (int)area[0], (int)area[1]);
  check_rest(area, 32);
  SYS(syscall(SYS_RSEQ, area, 32, 1, RSEQ_SIGNATURE));
  return unused;
}

static void process(void) {
  unsigned char *page = fresh(3);
  CHECK(syscall(SYS_getrandom, page + 8, 2 * PAGE, 0) == 2 * PAGE && ((uint64_t *)page)[0] == PATTERN_OF(page) && ((uint64_t *)page)[1] != pattern(7, (size_t)(page - region) / 8 + 1));
  check_rest(page + 2 * PAGE, 8);
  char *name = fresh(1), before[16];
  SYS(prctl(PR_GET_NAME, before));
  SYS(prctl(PR_SET_NAME, in.thread_name));
  SYS(prctl(PR_GET_NAME, name));
  CHECK(!strcmp(name, "absent"));
  check_rest(name, 16);
  SYS(prctl(PR_SET_NAME, before));
  uint64_t *base = fresh(1);
  SYS(syscall(SYS_arch_prctl, ARCH_GET_FS, base));
  CHECK(*base == (uint64_t)pthread_self());
  check_rest(base, 8);
  PTHREAD(pthread_join(start_thread(restartable, NULL), NULL));
  CHECK(syscall(SYS_CLONE3, in.clone_arguments, 64) == -1 && (errno == EINVAL || errno == ENOSYS), "clone3: errno %d", errno);

  unsigned long *cpus = fresh(1);
  long size = SYS(syscall(SYS_sched_getaffinity, 0, 1024, cpus));
  check_rest(cpus, size);
  SYS(syscall(SYS_sched_setaffinity, 0, size, cpus));
  unsigned *processor = fresh(1);
  SYS(syscall(SYS_getcpu, processor, fresh(1), NULL));
  check_rest(processor, 8);
  struct rlimit *limit = fresh(1);
  SYS(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, limit));
  CHECK(limit->rlim_cur > 0);
  check_rest(limit, sizeof *limit);
  struct rusage *usage = fresh(1);
  SYS(getrusage(RUSAGE_SELF, usage));
  check_rest(usage, 144);
  struct sysinfo *host = fresh(1);
  SYS(syscall(SYS_sysinfo, host));
  check_rest(host, 112);
  struct utsname *kernel = fresh(1);
  SYS(uname(kernel));
  CHECK(!strcmp(kernel->sysname, "Linux"));
  check_rest(kernel, sizeof *kernel);
  SYS(times(fresh(1)));
  SYS(syscall(SYS_getgroups, 0, fresh(1)));
  unsigned *ids = fresh(1);
  SYS(syscall(SYS_getresuid, ids, ids + 1, ids + 2));
  CHECK(ids[0] == getuid() && ids[2] == geteuid());
  check_rest(ids, 16);

  int file = SYS(syscall(SYS_openat, AT_FDCWD, in.path, O_RDONLY | O_CLOEXEC));
  char *text = fresh(1);
  CHECK(pread(file, text, PAGE, 0) > 1);
  uint32_t *status = fresh(1);
  CHECK(syscall(SYS_statx, file, "", 0x1000 /* AT_EMPTY_PATH */, 0xfff, status) == 0 && status[0] != 0);
  check_rest(status, 256);
  SYS(close(file));
  file = SYS(open(in.directory, O_RDONLY | O_DIRECTORY));
  unsigned char *entries = fresh(2);
  CHECK(syscall(SYS_getdents64, file, entries + PAGE - 100, 300) > 24 && entries[PAGE - 100 + 18] != 0);
  check_rest(entries + PAGE, 200);
  SYS(close(file));
  SYS(close(SYS(syscall(SYS_memfd_create, in.name, 0))));
}

/* ---- calls that wait until everything is there ---- */

static void attach_filter(void) {
  int pair[2];
  SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
  SYS(setsockopt(pair[0], SOL_SOCKET, SO_ATTACH_FILTER_, in.filter, 16));
  CHECK(write(pair[1], "x", 1) == 1 && read(pair[0], fresh(1), 1) == 1);
  SYS(close(pair[0]));
  SYS(close(pair[1]));
}

static void read_process(void) {
  struct iovec *to = GIVEN((struct iovec){in.vectors[4].iov_base, 100});
  CHECK(process_vm_readv(getpid(), to, 1, &in.vectors[5], 1, 0) == 100);
  expect_sent(&in.vectors[5], &in.vectors[4]);
}

static void submit_ring(void) {
#if __has_include(<linux/io_uring.h>)
  struct io_uring_params *parameters = given(&(struct io_uring_params){0}, sizeof *parameters);
  int tube[2], ring = (int)syscall(SYS_io_uring_setup, 2, parameters);
  if (ring < 0) return; /* forbidden here */
  SYS(pipe(tube));
  const size_t size = parameters->sq_off.array + parameters->sq_entries * 4;
  unsigned char *queue = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  struct io_uring_sqe *entry = mmap(NULL, 2 * sizeof *entry, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  CHECK(queue != MAP_FAILED && (void *)entry != MAP_FAILED);
  unsigned char *from = fresh(1), *to = fresh(1);
  *entry = (struct io_uring_sqe){.opcode = IORING_OP_WRITE, .fd = tube[1], .addr = (uint64_t)from, .len = 100, .off = (uint64_t)-1};
  *(uint32_t *)(queue + parameters->sq_off.array) = 0;
  __atomic_store_n((uint32_t *)(queue + parameters->sq_off.tail), 1, __ATOMIC_RELEASE);
  CHECK(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
  CHECK(read(tube[0], to, PAGE) == 100 && memcmp(from, to, 100) == 0);
  SYS(munmap(queue, size));
  SYS(munmap(entry, 2 * sizeof *entry));
  SYS(close(ring));
  SYS(close(tube[0]));
  SYS(close(tube[1]));
#endif
}

static void wait_for_several(void) { CHECK(syscall(SYS_FUTEX_WAITV, in.wait_vector, 1, 0, in.short_time, CLOCK_MONOTONIC) == -1 && (errno == EAGAIN || errno == ENOSYS)); }

static int status_of(pid_t child) {
  int *status = fresh(1);
  CHECK(child > 0 && wait4(child, status, 0, fresh(1)) == child);
  check_rest(status, 8);
  return *status;
}

static void fork_by_itself(void) {
  unsigned char *page = fresh(1);
  pid_t child = (pid_t)syscall(SYS_fork);
  if (child == 0) {
    check_rest(page, 0);
    syscall(SYS_exit_group, 42);
  }
  CHECK(status_of(child) == 42 << 8);
}

static void fork_by_vfork(void) {
  unsigned char *page = fresh(1);
  uint64_t expected = PATTERN_OF(page);
  pid_t child = vfork();
  if (child == 0) _exit(*(volatile uint64_t *)page == expected ? 42 : 43);
  CHECK(status_of(child) == 42 << 8);
}

static void gather(void) {
  int tube[2];
  SYS(pipe(tube));
  unsigned char *page = fresh(1), *to = fresh(1);
  long given_away = vmsplice(tube[1], GIVEN((struct iovec){page, PAGE}), 1, 0);
  CHECK(given_away == PAGE || errno == EPERM /* containers forbid it */, "vmsplice: errno %d", errno);
  CHECK(given_away != PAGE || (read(tube[0], to, PAGE) == PAGE && memcmp(page, to, PAGE) == 0));
  check_rest(page, 0);
  SYS(close(tube[0]));
  SYS(close(tube[1]));
}

static void semaphores(void) {
  int set = SYS(semget(IPC_PRIVATE, 1, 0600)), messages = SYS(msgget(IPC_PRIVATE, 0600));
  SYS(semop(set, in.operations, 1));
  CHECK(semctl(set, 0, GETVAL) == 3);
  SYS(semctl(set, 0, IPC_RMID));
  long *sent = fresh(1), *received = fresh(1);
  *sent = 5;
  SYS(msgsnd(messages, sent, 64, 0));
  CHECK(msgrcv(messages, received, 64, 0, 0) == 64 && memcmp(sent, received, 72) == 0);
  check_rest(received, 72);
  SYS(msgctl(messages, IPC_RMID, NULL));
}

static void present(void) {
  unsigned char *page = fresh(2), *answer = fresh(1);
  SYS(mincore(page, 2 * PAGE, answer));
  check_rest(answer, 8);
  check_rest(page, 0);
}

static void interfaces(void) {
  int udp = SYS(socket(AF_INET, SOCK_DGRAM, 0));
  struct {
    int length;
    void *buffer;
  } *list = fresh(1);
  list->length = PAGE;
  list->buffer = fresh(1);
  SYS(ioctl(udp, 0x8912 /* SIOCGIFCONF */, list));
  SYS(close(udp));
}

static void attributes(void) { CHECK(setxattr(in.path, in.name, fresh(1), 100, 0) == -1 && errno != EFAULT); }

static void expect_own_dispositions(void) {
  struct sigaction seen;
  sigset_t mask;
  SYS(sigaction(SIGUSR1, NULL, &seen));
  CHECK(seen.sa_handler == on_signal, "the handler is %p", (void *)seen.sa_handler);
  SYS(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_signal}, &seen));
  CHECK(seen.sa_handler == SIG_DFL);
  SYS(sigprocmask(SIG_SETMASK, NULL, &mask));
  for (int number = 1; number < 32; number++) CHECK(sigismember(&mask, number) == (number == SIGSEGV || number == SIGSYS), "signal %d", number);
  SYS(sigaction(SIGUSR2, NULL, &seen));
  CHECK(seen.sa_handler == on_signal);
  SYS(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = SIG_DFL}, NULL));
}

/* What the program sees of its signals is the same before and after a call that cannot be made while memory is absent. */
static void with_signals_blocked(void (*call)(void)) {
  sigset_t blocked, mask;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGSEGV);
  sigaddset(&blocked, SIGSYS);
  SYS(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL));
  SYS(sigprocmask(SIG_BLOCK, &blocked, &mask));
  call();
  expect_own_dispositions();
  SYS(sigprocmask(SIG_SETMASK, &mask, NULL));
}

static void fail_to_execute(void) { CHECK(syscall(SYS_execve, in.name, in.vectors, NULL) == -1 && errno == ENOENT, "execve: errno %d", errno); }
static void sleep_with_all_blocked(void) { CHECK(syscall(SYS_ppoll, NULL, 0, in.short_time, in.cpus, 8) == 0); }
static void execute(void) { with_signals_blocked(fail_to_execute); }
static void sleep_blocked(void) { with_signals_blocked(sleep_with_all_blocked); }

static const struct {
  const char *name;
  void (*make)(void);
} waiting[] = {{"attach_filter", attach_filter}, {"process_vm_readv", read_process}, {"io_uring", submit_ring}, {"futex_waitv", wait_for_several}, {"fork", fork_by_itself}, {"vfork", fork_by_vfork}, {"vmsplice", gather},
               {"semop", semaphores}, {"mincore", present}, {"ioctl", interfaces}, {"setxattr", attributes}, {"execve", execute}, {"ppoll", sleep_blocked}};

static void after_restore(void) {
  char first[64] = "";
  if (access(scratch_path("first"), R_OK) == 0) read_file(scratch_path("first"), first, sizeof first);
  bool made = *first == 0;
  for (size_t i = 0; i < COUNT(waiting); i++)
    if (!strcmp(first, waiting[i].name)) waiting[i].make(), made = true;
  CHECK(made, "no call is named %s", first);
  sockets();
  waits();
  signals_and_timers();
  process();
  for (size_t i = 0; i < COUNT(waiting); i++)
    if (strcmp(first, waiting[i].name)) waiting[i].make();
  prepare();
}
