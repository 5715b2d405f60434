/* timerfd: periodic and one-shot, relative and absolute, with expirations not yet read, disarmed, on different clocks. */
#include "check.h"
#include <sys/timerfd.h>

static int periodic, one_shot, absolute, expired, disarmed;
static int64_t absolute_ns;

static void set(int fd, int flags, int64_t value_ns, int64_t interval_ns) {
  struct itimerspec timer = {{interval_ns / 1000000000, interval_ns % 1000000000}, {value_ns / 1000000000, value_ns % 1000000000}};
  SYS(timerfd_settime(fd, flags, &timer, NULL));
}

static uint64_t expirations(int fd) {
  uint64_t count;
  ssize_t n = read(fd, &count, 8);
  if (n < 0) CHECK(errno == EAGAIN, "errno %d", errno);
  return n == 8 ? count : 0;
}

static void arm(void) {
  set(expired, 0, 1, 0);
  sleep_ms(2);
}

static void set_up(void) {
  periodic = SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  one_shot = SYS(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK));
  absolute = SYS(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
  expired = SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  disarmed = SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  set(periodic, 0, 10000000, 10000000);
  set(one_shot, 0, 3600000000000, 0);
  absolute_ns = now_ns(CLOCK_REALTIME) + 7200000000000;
  set(absolute, TFD_TIMER_ABSTIME, absolute_ns, 5000000000);
  arm();
}

static void verify(void) {
  struct itimerspec timer;
  SYS(timerfd_gettime(periodic, &timer));
  CHECK(timer.it_interval.tv_nsec == 10000000 && timer.it_interval.tv_sec == 0, "interval %ld ns", timer.it_interval.tv_nsec);
  SYS(timerfd_gettime(one_shot, &timer));
  CHECK(timer.it_value.tv_sec > 3500 && timer.it_value.tv_sec <= 3600 && timer.it_interval.tv_sec == 0, "%ld s left",
        timer.it_value.tv_sec);
  SYS(timerfd_gettime(absolute, &timer));
  int64_t left = absolute_ns - now_ns(CLOCK_REALTIME), value = timer.it_value.tv_sec * 1000000000ll + timer.it_value.tv_nsec;
  CHECK(value >= left && value < left + 60000000000 && timer.it_interval.tv_sec == 5, "%ld ns left, should be %ld", value, left);
  SYS(timerfd_gettime(disarmed, &timer));
  CHECK(!timer.it_value.tv_sec && !timer.it_value.tv_nsec);
  CHECK(SYS(fcntl(periodic, F_GETFD)) == FD_CLOEXEC && SYS(fcntl(one_shot, F_GETFD)) == 0);
  CHECK(expirations(disarmed) == 0 && expirations(one_shot) == 0 && expirations(absolute) == 0);
}

static void after_restore(void) {
  CHECK(expirations(expired) == 1, "an expiration that was not yet read is lost");
  CHECK(expirations(expired) == 0);
  arm();
  expirations(periodic);
  for (uint64_t count = 0; count < 3;) {
    count += expirations(periodic);
    sleep_ms(3);
  }
}
