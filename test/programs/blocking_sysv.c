/*
 * System V semaphore and message queue waits, with and without time-out, which the kernel never restarts by itself. The objects outlive the
 * process; `blocking_sysv DIRECTORY remove` removes them.
 */
#define CHECK_OWN_MAIN
#include "check.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

static int semaphores, queue;
static atomic_ulong semaphore_returned, message_returned, timeouts;
static unsigned long expected;

static void *wait_semop(void *unused) {
  (void)unused;
  for (;;) {
    int result = semop(semaphores, &(struct sembuf){0, -1, 0}, 1);
    CHECK(result == 0, "semop: errno %d", errno);
    semaphore_returned++;
  }
  return NULL;
}

static void *wait_semtimedop(void *unused) {
  (void)unused;
  for (;;) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    int result = semtimedop(semaphores, &(struct sembuf){1, -1, 0}, 1, &(struct timespec){0, 50000000});
    CHECK(result == -1 && errno == EAGAIN, "semtimedop: %d, errno %d", result, errno);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= 40000000, "semtimedop ended early");
    timeouts++;
  }
  return NULL;
}

static void *wait_message(void *unused) {
  (void)unused;
  for (;;) {
    struct {
      long type;
      char text[16];
    } message;
    ssize_t n = msgrcv(queue, &message, sizeof message.text, 5, 0);
    CHECK(n == 5 && !memcmp(message.text, "hello", 5), "msgrcv: %zd, errno %d", n, errno);
    message_returned++;
  }
  return NULL;
}

static key_t key(int id) { return SYS(ftok(scratch, id)); }

static void set_up(void) {
  semaphores = SYS(semget(key(1), 2, IPC_CREAT | 0600));
  queue = SYS(msgget(key(2), IPC_CREAT | 0600));
  SYS(semctl(semaphores, 0, SETVAL, 0));
  SYS(semctl(semaphores, 1, SETVAL, 0));
  start_thread(wait_semop, NULL);
  start_thread(wait_semtimedop, NULL);
  start_thread(wait_message, NULL);
  sleep_ms(20);
}

static void verify(void) { CHECK(semaphore_returned == expected && message_returned == expected, "a wait ended by itself"); }

static void after_restore(void) {
  sleep_ms(100);
  verify();
  expected++;
  struct {
    long type;
    char text[5];
  } message = {5, {'h', 'e', 'l', 'l', 'o'}};
  SYS(semop(semaphores, &(struct sembuf){0, 1, 0}, 1));
  SYS(msgsnd(queue, &message, 5, 0));
  WAIT_UNTIL(semaphore_returned == expected && message_returned == expected);
  unsigned long before = timeouts;
  WAIT_UNTIL(timeouts > before + 1);
}

int main(int argc, char **argv) {
  begin(argc, argv);
  if (argc > 2 && !strcmp(argv[2], "remove")) {
    int id = semget(key(1), 2, 0);
    if (id >= 0) semctl(id, 0, IPC_RMID);
    id = msgget(key(2), 0);
    if (id >= 0) msgctl(id, IPC_RMID, NULL);
    return 0;
  }
  set_up();
  print_line("ready");
  tick_forever(NULL);
}
