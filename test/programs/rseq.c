/*
 * Restartable sequences: the kernel keeps the CPU number up to date in each thread's registered area (glibc's own where it registers
 * one, else one that the program registers), and sched_getcpu is right after moving to each CPU.
 */
#include "check.h"
#include <dlfcn.h>

struct area {
  uint32_t cpu_id_start, cpu_id;
  uint64_t rseq_cs;
  uint32_t flags;
  uint32_t padding[3];
} __attribute__((aligned(32)));

#define SIGNATURE 0x53053053
#define THREADS 4

static cpu_set_t allowed;
static sem_t request[THREADS], reply;

static volatile struct area *find_area(void) {
  static __thread struct area own;
  const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
  const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
  if (offset && size && *size) return (struct area *)((char *)__builtin_thread_pointer() + *offset);
  if (syscall(SYS_rseq, &own, sizeof own, 0, SIGNATURE)) FAIL("rseq: errno %d", errno);
  return &own;
}

static void check_area(volatile struct area *area) {
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    SYS(sched_setaffinity(0, sizeof one, &one));
    unsigned now;
    SYS(syscall(SYS_getcpu, &now, NULL, NULL));
    CHECK(now == (unsigned)cpu);
    CHECK(area->cpu_id == now, "the rseq area says CPU %d, the thread runs on %u", (int)area->cpu_id, now);
    CHECK(sched_getcpu() == cpu, "sched_getcpu says %d, the thread runs on %d", sched_getcpu(), cpu);
  }
  SYS(sched_setaffinity(0, sizeof allowed, &allowed));
}

static void *thread(void *index) {
  volatile struct area *area = find_area();
  for (;;) {
    check_area(area);
    sem_post(&reply);
    wait_semaphore(&request[(long)index]);
  }
  return NULL;
}

static volatile struct area *main_area;

static void set_up(void) {
  SYS(sched_getaffinity(0, sizeof allowed, &allowed));
  main_area = find_area();
  sem_init(&reply, 0, 0);
  for (long i = 0; i < THREADS; i++) {
    sem_init(&request[i], 0, 0);
    start_thread(thread, (void *)i);
    wait_semaphore(&reply);
  }
}

static void verify(void) {
  check_area(main_area);
  for (int i = 0; i < THREADS; i++) {
    sem_post(&request[i]);
    wait_semaphore(&reply);
  }
}

static void after_restore(void) { verify(); }
