/*
 * Threads wait in system calls by way of the C library and are interrupted; the number of the call is found out from the signal frame and the code, and
 * compared with what the kernel tells of the waiting thread. Then the call is made again, and must end as if nothing had happened. Prints a line for each.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bool decode_interrupted(void *context, long *number);
void repeat_interrupted(void *context, long number);

static int sockets[2], epoll_fd, word;
static sem_t never;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static volatile int woken;
static sigset_t blocked;

/* What ends each wait: a byte in the socket, SIGUSR2, or a wake-up. */
static void call_poll(void) { woken = poll(&(struct pollfd){sockets[0], POLLIN, 0}, 1, 600000) == 1; }
static void call_ppoll(void) { woken = ppoll(&(struct pollfd){sockets[0], POLLIN, 0}, 1, &(struct timespec){600, 0}, NULL) == 1; }
static void call_epoll_wait(void) { woken = epoll_wait(epoll_fd, &(struct epoll_event){0}, 1, 600000) == 1; }
static void call_epoll_pwait(void) { woken = epoll_pwait(epoll_fd, &(struct epoll_event){0}, 1, 600000, &blocked) == 1; }
static void call_syscall_epoll(void) { woken = syscall(SYS_epoll_wait, epoll_fd, &(struct epoll_event){0}, 1, 600000) == 1; }
static void call_select(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(sockets[0], &set);
  woken = select(sockets[0] + 1, &set, NULL, NULL, &(struct timeval){600, 0}) == 1;
}
static void call_pselect(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(sockets[0], &set);
  woken = pselect(sockets[0] + 1, &set, NULL, NULL, &(struct timespec){600, 0}, NULL) == 1;
}
static void call_recv(void) {
  char byte;
  woken = recv(sockets[0], &byte, 1, MSG_PEEK) == 1;
}
static void call_sigtimedwait(void) {
  woken = sigtimedwait(&blocked, NULL, &(struct timespec){600, 0}) == SIGUSR2;
}
static void call_syscall_futex(void) { woken = syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, &(struct timespec){600, 0}, NULL, 0) == 0; }
static void call_semaphore(void) {
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += 600;
  woken = sem_timedwait(&never, &end) == 0;
}
static void call_condition(void) {
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += 600;
  pthread_mutex_lock(&mutex);
  woken = pthread_cond_timedwait(&condition, &mutex, &end) == 0;
  pthread_mutex_unlock(&mutex);
}
/* These two are ended by their time. */
static void call_nanosleep(void) { woken = nanosleep(&(struct timespec){0, 300000000}, NULL) == 0; }
static void call_clock_nanosleep(void) { woken = clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 300000000}, NULL) == 0; }

static const struct call {
  const char *name;
  void (*make)(void);
  bool ends_by_itself;
} calls[] = {
    {"poll", call_poll, false},
    {"ppoll", call_ppoll, false},
    {"epoll_wait", call_epoll_wait, false},
    {"epoll_pwait", call_epoll_pwait, false},
    {"epoll_wait through syscall()", call_syscall_epoll, false},
    {"select", call_select, false},
    {"pselect", call_pselect, false},
    {"recv", call_recv, false},
    {"sigtimedwait", call_sigtimedwait, false},
    {"futex through syscall()", call_syscall_futex, false},
    {"sem_timedwait", call_semaphore, false},
    {"pthread_cond_timedwait", call_condition, false},
    {"nanosleep", call_nanosleep, true},
    {"clock_nanosleep", call_clock_nanosleep, true},
};

static volatile int tid, interrupted, ended;
static volatile long found;

static void handler(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  long decoded;
  const int error = errno;
  interrupted = decode_interrupted(context, &decoded);
  if (interrupted && decoded >= 0) repeat_interrupted(context, decoded);
  __atomic_store_n(&found, decoded, __ATOMIC_RELEASE);
  errno = error;
}

static void *make(void *argument) {
  woken = 0;
  __atomic_store_n(&tid, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
  ((const struct call *)argument)->make();
  __atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
  return NULL;
}

/* The call that the thread waits in, by the kernel; -1 while it runs. */
static long waits_in(int thread) {
  char path[64], text[256] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread);
  const int fd = open(path, O_RDONLY);
  if (fd >= 0 && read(fd, text, sizeof text - 1) < 0) text[0] = 0;
  if (fd >= 0) close(fd);
  return text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
}

static void end_wait(pthread_t thread) {
  char byte = 0;
  if (write(sockets[1], &byte, 1) != 1) exit(1);
  pthread_kill(thread, SIGUSR2);
  sem_post(&never);
  pthread_mutex_lock(&mutex);
  pthread_cond_signal(&condition);
  pthread_mutex_unlock(&mutex);
  while (!__atomic_load_n(&ended, __ATOMIC_ACQUIRE)) {
    syscall(SYS_futex, &word, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
    usleep(1000);
  }
}

enum outcome { RIGHT, WRONG, TOO_LATE };

static enum outcome check(const struct call *call) {
  pthread_t thread;
  long expected = -1, last = -2;
  tid = ended = interrupted = 0;
  found = -2;
  if (pthread_create(&thread, NULL, make, (void *)call) != 0) exit(1);
  while (__atomic_load_n(&tid, __ATOMIC_ACQUIRE) == 0) usleep(1000);
  /* Several times the same: a lock on the way to the call is another one. */
  for (int same = 0; same < 3 && !__atomic_load_n(&ended, __ATOMIC_ACQUIRE); same = expected >= 0 && expected == last ? same + 1 : 0) {
    last = expected;
    usleep(2000);
    expected = waits_in(tid);
  }
  pthread_kill(thread, SIGUSR1);
  while (__atomic_load_n(&found, __ATOMIC_ACQUIRE) == -2 && !__atomic_load_n(&ended, __ATOMIC_ACQUIRE)) usleep(1000);
  if (!call->ends_by_itself) end_wait(thread);
  pthread_join(thread, NULL);
  while (recv(sockets[0], &(char){0}, 1, MSG_DONTWAIT) == 1) {}
  while (sem_trywait(&never) == 0) {}
  if (!interrupted && call->ends_by_itself) return TOO_LATE;
  const bool right = interrupted && found == expected && woken;
  printf("%s: %s: call %ld, found %ld%s%s\n", right ? "ok" : "FAIL", call->name, expected, found, interrupted ? "" : ", not interrupted", woken ? "" : ", ended otherwise");
  return right ? RIGHT : WRONG;
}

int main(int argc, char **argv) {
  bool right = true;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, NULL);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0 || (epoll_fd = epoll_create1(0)) < 0) return 1;
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, sockets[0], &(struct epoll_event){.events = EPOLLIN}) != 0) return 1;
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  if (sigaction(SIGUSR1, &action, NULL) != 0) return 1;
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
    if (argc < 2 || strcmp(argv[1], calls[i].name) == 0) {
      enum outcome outcome;
      while ((outcome = check(&calls[i])) == TOO_LATE) {}
      right &= outcome == RIGHT;
    }
  return right ? 0 : 1;
}
