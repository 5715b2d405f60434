/* Clocks and CPU number through the vDSO, in all threads; time never goes back, and its page of code is where the auxiliary vector says. */
#include "check.h"
#include <sys/auxv.h>
#include <sys/time.h>

static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI,
                                   CLOCK_MONOTONIC_RAW};
static atomic_ulong rounds[3];

static int64_t by_system_call(clockid_t clock) {
  struct timespec t;
  SYS(syscall(SYS_clock_gettime, clock, &t));
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void check_clocks(int64_t *last) {
  for (unsigned i = 0; i < COUNT(clocks); i++) {
    struct timespec t;
    SYS(clock_gettime(clocks[i], &t));
    int64_t vdso = t.tv_sec * 1000000000ll + t.tv_nsec, kernel = by_system_call(clocks[i]);
    CHECK(kernel >= vdso, "clock %d: the vDSO says %ld, the kernel later %ld", clocks[i], vdso, kernel);
    if (clocks[i] != CLOCK_REALTIME && clocks[i] != CLOCK_REALTIME_COARSE && clocks[i] != CLOCK_TAI)
      CHECK(vdso >= last[i], "clock %d went back from %ld to %ld", clocks[i], last[i], vdso);
    last[i] = vdso;
  }
  struct timeval now;
  SYS(gettimeofday(&now, NULL));
  CHECK(time(NULL) >= now.tv_sec - 1);
  int cpu = sched_getcpu();
  CHECK(cpu >= 0 && cpu < CPU_SETSIZE);
}

static void *thread(void *argument) {
  int64_t last[COUNT(clocks)] = {0};
  for (;;) {
    for (int i = 0; i < 500; i++) check_clocks(last);
    rounds[(long)argument]++;
    sleep_ms(2);
  }
  return NULL;
}

static void set_up(void) {
  for (long i = 0; i < 3; i++) start_thread(thread, (void *)i);
}

static int64_t main_last[COUNT(clocks)];

static void verify(void) { check_clocks(main_last); }

static void after_restore(void) {
  unsigned long address = getauxval(AT_SYSINFO_EHDR);
  if (address) {
    char text[131072], start[32];
    read_file("/proc/self/maps", text, sizeof text);
    snprintf(start, sizeof start, "\n%lx-", address);
    char *line = strstr(text, start);
    CHECK(line, "nothing is mapped at the vDSO's address 0x%lx", address);
    CHECK(!memcmp((void *)address, "\177ELF", 4));
  }
  for (int i = 0; i < 3; i++) {
    unsigned long before = rounds[i];
    WAIT_UNTIL(rounds[i] > before + 1);
  }
}
