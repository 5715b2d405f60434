/* Alternate signal stacks per thread, captured while idle and while a handler runs on one. */
#include "check.h"
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

#define SIZE 65536

static char stacks[3][SIZE] __attribute__((aligned(64)));
static sem_t leave, left, inside;
static volatile bool ran_on_stack[3];
static _Thread_local int id;
static sem_t request[3], reply;

static bool on_stack(const void *address) {
  return (const char *)address >= stacks[id] && (const char *)address < stacks[id] + SIZE;
}

static void short_handler(int number) {
  (void)number;
  char here;
  ran_on_stack[id] = on_stack(&here);
}

/* Stays in the handler, on the alternate stack, until told to leave. */
static void long_handler(int number) {
  (void)number;
  volatile char big[16384];
  for (unsigned i = 0; i < sizeof big; i++) big[i] = (char)i;
  CHECK(on_stack((const void *)big));
  sem_post(&inside);
  for (;;) {
    stack_t now;
    SYS(sigaltstack(NULL, &now));
    CHECK(now.ss_flags == SS_ONSTACK && now.ss_sp == stacks[id] && now.ss_size == SIZE, "flags 0x%x", now.ss_flags);
    for (unsigned i = 0; i < sizeof big; i++) CHECK(big[i] == (char)i, "alternate stack overwritten at %u", i);
    if (!sem_timedwait(&leave, &(struct timespec){time(NULL), 0})) break;
    sleep_ms(2);
  }
}

static void set_stack(unsigned flags) {
  SYS(sigaltstack(&(stack_t){.ss_sp = stacks[id], .ss_size = SIZE, .ss_flags = (int)flags}, NULL));
}

static void *on_stack_thread(void *unused) {
  (void)unused;
  id = 1;
  set_stack(0);
  for (;;) {
    SYS(raise(SIGUSR2));
    stack_t now;
    SYS(sigaltstack(NULL, &now));
    CHECK(now.ss_flags == 0 && now.ss_sp == stacks[1], "flags 0x%x after leaving the stack", now.ss_flags);
    sem_post(&left);
  }
  return NULL;
}

static void *autodisarm_thread(void *unused) {
  (void)unused;
  id = 2;
  set_stack(SS_AUTODISARM);
  for (;;) {
    wait_semaphore(&request[2]);
    stack_t now;
    SYS(sigaltstack(NULL, &now));
    CHECK((unsigned)now.ss_flags == SS_AUTODISARM && now.ss_sp == stacks[2] && now.ss_size == SIZE, "flags 0x%x, %p, should be %p",
          now.ss_flags, now.ss_sp, (void *)stacks[2]);
    ran_on_stack[2] = false;
    SYS(raise(SIGUSR1));
    CHECK(ran_on_stack[2]);
    sem_post(&reply);
  }
  return NULL;
}

static void set_up(void) {
  sem_init(&leave, 0, 0);
  sem_init(&left, 0, 0);
  sem_init(&inside, 0, 0);
  sem_init(&reply, 0, 0);
  sem_init(&request[2], 0, 0);
  struct sigaction action = {.sa_handler = short_handler, .sa_flags = SA_ONSTACK};
  SYS(sigaction(SIGUSR1, &action, NULL));
  action.sa_handler = long_handler;
  SYS(sigaction(SIGUSR2, &action, NULL));
  id = 0;
  set_stack(0);
  start_thread(on_stack_thread, NULL);
  start_thread(autodisarm_thread, NULL);
  wait_semaphore(&inside);
}

static void verify(void) {
  stack_t now;
  SYS(sigaltstack(NULL, &now));
  CHECK(now.ss_flags == 0 && now.ss_sp == stacks[0] && now.ss_size == SIZE, "flags 0x%x", now.ss_flags);
  ran_on_stack[0] = false;
  SYS(raise(SIGUSR1));
  CHECK(ran_on_stack[0]);
  sem_post(&request[2]);
  wait_semaphore(&reply);
}

static void after_restore(void) {
  sem_post(&leave);
  wait_semaphore(&left);
  wait_semaphore(&inside);
}
