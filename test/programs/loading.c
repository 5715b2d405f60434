/*
 * Memory that is loaded while the program runs: what is first touched by a system call, a signal, a new thread or a vector instruction
 * has the right content, and nothing a call takes is lost. Every use gets a page that nobody has touched since the capture.
 */
#define PAGES 512
#include "absent.h"
#include <immintrin.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/uio.h>

#define FUTEX_WAIT 0 /* musl has no headers of the kernel */

static int pair[2], tube[2];
static volatile sig_atomic_t signals_seen;
static unsigned char *volatile fault_address;
static sigjmp_buf escape;

/* What a page was given before the capture: prepared structures in the first ones, a pattern in the others. */
enum prepared { VECTORS, MESSAGE, POLLED, ACTION, TIME, PATH, ARGUMENTS, PREPARED };

struct kernel_action {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)(void);
  unsigned long mask;
};

static void on_signal(int number) {
  (void)number;
  signals_seen++;
}

static void on_fault(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  fault_address = info->si_addr;
  siglongjmp(escape, 1);
}

static bool faults(unsigned char *at, bool write) {
  if (sigsetjmp(escape, 1)) return fault_address == at;
  if (write)
    *(volatile unsigned char *)at = 1;
  else
    (void)*(volatile unsigned char *)at;
  return false;
}

static unsigned char *vectors_to[2], *vectors_from[2], *message_to, *message_from;

static void prepare(void) {
  take_pages();
  next_page = PREPARED;
  for (int i = 0; i < 2; i++) vectors_to[i] = fresh(2), vectors_from[i] = fresh(2);
  message_to = fresh(1), message_from = fresh(1);
  struct iovec *vectors = (struct iovec *)page_at(VECTORS);
  for (int i = 0; i < 2; i++) {
    vectors[i] = (struct iovec){vectors_from[i] + PAGE - 100, 200};
    vectors[2 + i] = (struct iovec){vectors_to[i] + PAGE - 100, 200};
  }
  struct msghdr *messages = (struct msghdr *)page_at(MESSAGE);
  vectors[4] = (struct iovec){message_from, 64};
  vectors[5] = (struct iovec){message_to, 64};
  messages[0] = (struct msghdr){.msg_iov = &vectors[4], .msg_iovlen = 1};
  messages[1] = (struct msghdr){.msg_iov = &vectors[5], .msg_iovlen = 1};
  *(struct pollfd *)page_at(POLLED) = (struct pollfd){.fd = pair[0], .events = POLLIN};
  struct kernel_action action;
  SYS(syscall(SYS_rt_sigaction, SIGUSR2, NULL, &action, 8));
  action.handler = on_signal;
  *(struct kernel_action *)page_at(ACTION) = action;
  *(struct timespec *)page_at(TIME) = (struct timespec){0, 1000000};
  strcpy((char *)page_at(PATH), "/proc/self/exe");
  char **list = (char **)page_at(ARGUMENTS);
  strcpy((char *)(list + 8), "true");
  list[0] = (char *)(list + 8);
  list[1] = NULL;
  CHECK(write(pair[1], "queued before the capture", 25) == 25);
}

static void set_up(void) {
  struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, usual = {.sa_handler = on_signal};
  SYS(sigaction(SIGSEGV, &fault, NULL));
  SYS(sigaction(SIGUSR1, &usual, NULL));
  SYS(sigaction(SIGUSR2, &usual, NULL));
  SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  SYS(pipe(tube));
  prepare();
}

static void verify(void) { CHECK(region != NULL); }

static void system_calls(void) {
  unsigned char *page = fresh(1), copy[512];
  CHECK(poll((struct pollfd *)page_at(POLLED), 1, 0) == 1);
  CHECK(read(pair[0], page, 25) == 25 && memcmp(page, "queued before the capture", 25) == 0);
  check_rest(page, 32);

  page = fresh(2);
  CHECK(write(tube[1], page + PAGE - 16, 32) == 32 && read(tube[0], copy, 32) == 32 && memcmp(copy, page + PAGE - 16, 32) == 0);
  check_rest(page, 0);

  const struct iovec *vectors = (const struct iovec *)page_at(VECTORS);
  CHECK(writev(tube[1], vectors, 2) == 400 && readv(tube[0], vectors + 2, 2) == 400);
  for (int i = 0; i < 2; i++) {
    CHECK(memcmp(vectors_to[i] + PAGE - 100, vectors_from[i] + PAGE - 100, 200) == 0);
    check_rest(vectors_from[i], 0);
    check_rest(vectors_to[i] + PAGE, 104);
  }

  struct msghdr *messages = (struct msghdr *)page_at(MESSAGE);
  CHECK(sendmsg(pair[1], &messages[0], 0) == 64 && recvmsg(pair[0], &messages[1], 0) == 64);
  check_rest(message_from, 0);
  check_rest(message_to, 64);
  CHECK(memcmp(message_to, message_from, 64) == 0);

  uint32_t *word = (uint32_t *)fresh(1);
  CHECK(syscall(SYS_futex, word, FUTEX_WAIT, (uint32_t)pattern(7, (size_t)((unsigned char *)word - region) / 8) + 1, NULL, NULL, 0) == -1 && errno == EAGAIN);
  word = (uint32_t *)fresh(1);
  CHECK(syscall(SYS_futex, word, FUTEX_WAIT, (uint32_t)pattern(7, (size_t)((unsigned char *)word - region) / 8), page_at(TIME), NULL, 0) == -1 && errno == ETIMEDOUT);

  page = fresh(1);
  CHECK(readlink((const char *)page_at(PATH), (char *)page, PAGE - 8) > 0 && page[0] == '/');
  CHECK(getcwd((char *)fresh(1), PAGE) != NULL);
  SYS(stat((const char *)page_at(PATH), (struct stat *)fresh(1)));
  SYS(getsockname(pair[0], (struct sockaddr *)fresh(1), &(socklen_t){128}));
}

static void signals(void) {
  int before = signals_seen;
  SYS(syscall(SYS_rt_sigaction, SIGUSR2, page_at(ACTION), fresh(1), 8));
  raise(SIGUSR2);
  CHECK(signals_seen == before + 1);

  stack_t stack = {.ss_sp = fresh(16), .ss_size = 16 * PAGE}, old;
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
  SYS(sigaltstack(&stack, &old));
  SYS(sigaction(SIGUSR1, &action, NULL));
  raise(SIGUSR1);
  CHECK(signals_seen == before + 2);
  SYS(sigaltstack(&old, NULL));

  /* A thread that blocks everything still gets its memory. */
  sigset_t all, mask;
  sigfillset(&all);
  SYS(sigprocmask(SIG_SETMASK, &all, &mask));
  check_rest(fresh(1), 0);
  sigset_t now;
  SYS(sigprocmask(SIG_SETMASK, &mask, &now));
  CHECK(sigismember(&now, SIGSEGV) && sigismember(&now, SIGSYS));
  SYS(sigprocmask(SIG_SETMASK, NULL, &now));
  CHECK(!sigismember(&now, SIGSEGV) && !sigismember(&now, SIGSYS));

  struct sigaction seen;
  SYS(sigaction(SIGSEGV, NULL, &seen));
  CHECK(seen.sa_sigaction == on_fault);
  SYS(sigaction(SIGSYS, NULL, &seen));
  CHECK(seen.sa_handler == SIG_DFL);
  CHECK(faults((unsigned char *)16, false) && faults((unsigned char *)16, true));
}

static void *thread(void *argument) {
  check_rest(fresh(1), 0);
  pthread_kill(pthread_self(), SIGUSR1);
  return argument;
}

static void threads(void) {
  pthread_t id;
  pthread_attr_t attributes;
  void *result;
  int before = signals_seen;
  pthread_attr_init(&attributes);
  CHECK(pthread_attr_setstack(&attributes, fresh(32), 32 * PAGE) == 0);
  CHECK(pthread_create(&id, &attributes, thread, region) == 0 && pthread_join(id, &result) == 0 && result == region);
  CHECK(signals_seen == before + 1);
}

__attribute__((target("avx"))) static void vectors_across(unsigned char *at, unsigned char *to) { _mm256_storeu_si256((__m256i *)to, _mm256_loadu_si256((const __m256i *)at)); }

static void instructions(void) {
  unsigned char *page = fresh(2), copy[32];
  if (__builtin_cpu_supports("avx"))
    vectors_across(page + PAGE - 13, copy);
  else
    memcpy(copy, page + PAGE - 13, 32);
  CHECK(memcmp(copy, page + PAGE - 13, 32) == 0);
  check_rest(page, 0);
  check_rest(page + PAGE, 0);
  page = fresh(2);
  __asm__ volatile("lock incl (%0)" : : "r"(page) : "memory");
  CHECK(*(uint32_t *)page == (uint32_t)pattern(7, (size_t)(page - region) / 8) + 1);
  check_rest(page, 8);
}

static void areas(void) {
  unsigned char *page = fresh(3);
  SYS(munmap(page + PAGE, PAGE));
  CHECK(faults(page + PAGE, false));
  check_rest(page, 0);
  check_rest(page + 2 * PAGE, 0);

  page = fresh(2);
  unsigned char *moved = mremap(page, PAGE, 4 * PAGE, MREMAP_MAYMOVE);
  CHECK(moved != MAP_FAILED && ((uint64_t *)moved)[5] == pattern(7, (size_t)(page - region) / 8 + 5) && moved[PAGE] == 0);
  SYS(munmap(moved, 4 * PAGE));
  check_rest(page + PAGE, 0);

  page = fresh(3);
  SYS(mprotect(page + PAGE, PAGE, PROT_READ));
  CHECK(faults(page + PAGE, true));
  check_rest(page, 0);
  check_rest(page + PAGE, 0);
  check_rest(page + 2 * PAGE, 0);

  page = fresh(2);
  SYS(madvise(page, PAGE, MADV_DONTNEED));
  CHECK(is_zero(page, PAGE));
  check_rest(page + PAGE, 0);

  page = fresh(2);
  CHECK(mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
  CHECK(is_zero(page, PAGE));
  check_rest(page + PAGE, 0);
  page[0] = 1;
}

/* Last: a child gets all that is left. */
static void processes(void) {
  pid_t child = fork();
  if (child == 0) {
    for (size_t i = PAGES / 2; i < PAGES; i += 2) check_rest(page_at(i), 0);
    struct sigaction seen;
    sigaction(SIGSYS, NULL, &seen);
    _exit(seen.sa_handler == SIG_DFL ? 42 : 43);
  }
  int status;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42, "status %x", status);
  child = vfork();
  if (child == 0) {
    execv("/bin/true", (char **)page_at(ARGUMENTS));
    _exit(44);
  }
  CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
  for (size_t i = PAGES / 2; i < PAGES; i++) check_rest(page_at(i), 0);
}

static void after_restore(void) {
  instructions();
  system_calls();
  signals();
  threads();
  areas();
  processes();
  prepare();
}
