/* eventfd: counter and semaphore mode, flags. */
#include "check.h"
#include <sys/eventfd.h>

static int counter, semaphore;

static void arm(void) {
  eventfd_write(counter, 123456789012ull);
  eventfd_write(semaphore, 3);
}

static void set_up(void) {
  counter = SYS(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  semaphore = SYS(eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK));
  arm();
}

static void verify(void) {
  CHECK(SYS(fcntl(counter, F_GETFD)) == FD_CLOEXEC && SYS(fcntl(semaphore, F_GETFD)) == 0);
  CHECK(SYS(fcntl(counter, F_GETFL)) & O_NONBLOCK);
  eventfd_t value;
  SYS(eventfd_read(counter, &value));
  CHECK(value == 123456789012ull, "value %lu", (unsigned long)value);
  CHECK(eventfd_read(counter, &value) == -1 && errno == EAGAIN);
  for (int i = 0; i < 3; i++) CHECK(eventfd_read(semaphore, &value) == 0 && value == 1, "semaphore mode lost: %lu", (unsigned long)value);
  CHECK(eventfd_read(semaphore, &value) == -1 && errno == EAGAIN);
  arm();
}

static void after_restore(void) {}
