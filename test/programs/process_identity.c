/* What belongs to the process: names, arguments, environment, directories, limits, priorities and the attributes that prctl sets. */
#include "check.h"
#include <sys/personality.h>

static char *environment_entry;
static sem_t request, reply;
static ino_t directory_inode;
static cpu_set_t affinity;

static void check_file(const char *path, const char *expected, size_t length) {
  char text[65536];
  size_t got = read_file(path, text, sizeof text);
  CHECK(got >= length && !memcmp(text, expected, length), "%s is \"%.100s\"", path, text);
}

static void *thread(void *unused) {
  (void)unused;
  PTHREAD(pthread_setname_np(pthread_self(), "second thread!!"));
  SYS(prctl(PR_SET_TIMERSLACK, 77000ul, 0, 0, 0));
  SYS(setpriority(PRIO_PROCESS, gettid(), 7));
  for (;;) {
    sem_post(&reply);
    wait_semaphore(&request);
    check_file("/proc/thread-self/comm", "second thread!!\n", 16);
    CHECK(SYS(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)) == 77000, "timer slack %d", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    errno = 0;
    CHECK(getpriority(PRIO_PROCESS, 0) == 7, "nice %d", getpriority(PRIO_PROCESS, 0));
  }
  return NULL;
}

static void set_up(void) {
  setenv("WARP_TEST_ENVIRONMENT", "kept", 1);
  environment_entry = getenv("PATH");
  SYS(prctl(PR_SET_NAME, "renamed leader", 0, 0, 0));
  SYS(mkdir(scratch_path("directory"), 0700) && errno != EEXIST ? -1 : 0);
  SYS(chdir(scratch_path("directory")));
  struct stat st;
  SYS(stat(".", &st));
  directory_inode = st.st_ino;
  umask(0137);
  struct rlimit limit;
  SYS(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = 777;
  SYS(setrlimit(RLIMIT_NOFILE, &limit));
  SYS(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
  SYS(getrlimit(RLIMIT_STACK, &limit));
  limit.rlim_cur = 4 << 20;
  SYS(setrlimit(RLIMIT_STACK, &limit));
  SYS(setpriority(PRIO_PROCESS, 0, 5));
  SYS(sched_getaffinity(0, sizeof affinity, &affinity));
  int last = 0;
  for (int i = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &affinity)) last = i;
  CPU_ZERO(&affinity);
  CPU_SET(last, &affinity);
  SYS(sched_setaffinity(0, sizeof affinity, &affinity));
  SYS(prctl(PR_SET_TIMERSLACK, 123000ul, 0, 0, 0));
  SYS(prctl(PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0));
  signal(SIGUSR1, SIG_IGN);
  SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  SYS(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
  SYS(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
  SYS(personality(ADDR_NO_RANDOMIZE));
  struct sched_param parameters = {0};
  SYS(syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &parameters)) /* musl refuses the call */;
  sem_init(&request, 0, 0);
  sem_init(&reply, 0, 0);
  start_thread(thread, NULL);
  wait_semaphore(&reply);
}

static void verify(void) {
  /* Reading /proc/self must work at any moment: a capture can fall between open and read. */
  check_file("/proc/self/comm", "renamed leader\n", 15);
}

static void after_restore(void) {
  check_file("/proc/self/cmdline", arguments[0], strlen(arguments[0]) + 1);
  char text[65536];
  size_t length = read_file("/proc/self/cmdline", text, sizeof text);
  CHECK(length > strlen(arguments[0]) + 1 && !strcmp(text + strlen(arguments[0]) + 1, scratch));
  length = read_file("/proc/self/environ", text, sizeof text);
  bool found = false;
  for (size_t at = 0; at < length; at += strlen(text + at) + 1) found |= !strncmp(text + at, "PATH=", 5);
  CHECK(found, "no PATH in /proc/self/environ");
  CHECK(getenv("PATH") == environment_entry && !strcmp(getenv("WARP_TEST_ENVIRONMENT"), "kept"));
  struct stat st;
  SYS(stat(".", &st));
  CHECK(st.st_ino == directory_inode, "working directory changed");
  mode_t mask = umask(0137);
  CHECK(mask == 0137, "umask 0%o", mask);
  struct rlimit limit;
  SYS(getrlimit(RLIMIT_NOFILE, &limit));
  CHECK(limit.rlim_cur == 777, "RLIMIT_NOFILE %lu", (unsigned long)limit.rlim_cur);
  SYS(getrlimit(RLIMIT_CORE, &limit));
  CHECK(limit.rlim_cur == 0 && limit.rlim_max == 0);
  SYS(getrlimit(RLIMIT_STACK, &limit));
  CHECK(limit.rlim_cur == 4 << 20, "RLIMIT_STACK %lu", (unsigned long)limit.rlim_cur);
  CHECK(getpriority(PRIO_PROCESS, 0) == 5, "nice %d", getpriority(PRIO_PROCESS, 0));
  cpu_set_t now;
  SYS(sched_getaffinity(0, sizeof now, &now));
  CHECK(CPU_EQUAL(&now, &affinity), "affinity lost: %d CPUs", CPU_COUNT(&now));
  CHECK(SYS(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)) == 123000, "timer slack %d", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
  int value = 0;
  SYS(prctl(PR_GET_PDEATHSIG, &value, 0, 0, 0));
  CHECK(value == SIGUSR1, "parent-death signal %d", value);
  CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no_new_privs lost");
  SYS(prctl(PR_GET_CHILD_SUBREAPER, &value, 0, 0, 0));
  CHECK(value == 1, "child subreaper lost");
  CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "PR_SET_THP_DISABLE lost");
  CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1, "dumpable %d", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
  CHECK((personality(0xffffffff) & ADDR_NO_RANDOMIZE) != 0, "personality 0x%x", personality(0xffffffff));
  CHECK(syscall(SYS_sched_getscheduler, 0) == SCHED_BATCH, "scheduling policy %ld", syscall(SYS_sched_getscheduler, 0));
  sem_post(&request);
  wait_semaphore(&reply);
}
