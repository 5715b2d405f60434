/** A program with something of everything, captured twice: for comparing what tools say of it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { compile, gcore } from './cores.js';
import { Conversation } from './engine.js';

/** Addresses at which the program keeps what is looked for. */
export const PLACES = {
  /** Private anonymous memory of 16 pages. */
  memory: 0x510000000000n,
  /** Text that begins 5 bytes before a row of 16 ends. */
  text: 0x51000000100bn,
  /** Rows of 16 bytes that print alike but differ, then rows that are equal. */
  rows: 0x510000002000n,
  /** 0xc0ffee42 as u32, and 2.5 as a double. */
  numbers: 0x510000003000n,
  /** Addresses of worker(), of `text`, and nothing. */
  pointers: 0x510000004000n,
  /** The byte that changes between the captures. */
  changed: 0x510000005123n,
  /** Shared anonymous memory of 4 pages. */
  shared: 0x520000000000n,
};
export const TEXT = 'needle across a row of a dump';
export const SHARED_TEXT = 'text in shared anonymous memory';
export const WORKERS = 3;

const SOURCE = String.raw`
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct point {
  int x, y;
};
int answer = 42;
struct point origin = {3, 4};
static sem_t asleep;

__attribute__((noinline)) static void sleep_for_ever(void) {
  sem_post(&asleep);
  for (;;)
    pause();
}

static void *worker(void *argument) {
  char name[16];
  snprintf(name, sizeof name, "worker-%ld", (long)argument);
  prctl(PR_SET_NAME, name);
  sleep_for_ever();
  return NULL;
}

static void on_usr1(int number) { (void)number; }

int main(int argc, char **argv) {
  (void)argc;
  prctl(PR_SET_DUMPABLE, 1);
  char *memory = mmap((void *)${PLACES.memory}, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  strcpy((char *)${PLACES.text}, "needle across a row of a dump");
  for (int row = 0; row < 4; row++)
    memset((char *)${PLACES.rows} + row * 16, 1 + row, 16);
  memset((char *)${PLACES.rows} + 64, 'A', 16 * 16);
  *(uint32_t *)${PLACES.numbers} = 0xc0ffee42;
  *(double *)(${PLACES.numbers} + 8) = 2.5;
  void **pointers = (void **)${PLACES.pointers};
  pointers[0] = (void *)worker;
  pointers[1] = (void *)${PLACES.text};
  memory[0] = 'x';
  char *shared = mmap((void *)${PLACES.shared}, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  strcpy(shared + 2 * 4096 + 100, "text in shared anonymous memory");

  int file = open(argv[1], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (write(file, "hello", 5) != 5)
    return 1;
  int ends[2], pair[2];
  if (pipe(ends) != 0 || write(ends[1], "unread", 6) != 6 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
    return 1;
  int server = socket(AF_INET, SOCK_STREAM, 0), one = 1, size = 65536;
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(server, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  if (bind(server, (struct sockaddr *)&address, sizeof address) != 0 || listen(server, 7) != 0)
    return 1;
  signal(SIGUSR1, on_usr1);
  signal(SIGPIPE, SIG_IGN);

  sem_init(&asleep, 0, 0);
  for (long number = 1; number <= ${WORKERS}; number++) {
    pthread_t thread;
    pthread_create(&thread, NULL, worker, (void *)number);
  }
  for (int i = 0; i < ${WORKERS}; i++)
    sem_wait(&asleep);
  puts("ready");
  fflush(stdout);
  char line[16];
  while (fgets(line, sizeof line, stdin)) {
    *(char *)${PLACES.changed} = 1;
    dup2(file, 50);
    answer++;
    puts("changed");
    fflush(stdout);
  }
}
`;

export interface Compared {
  pid: number;
  executable: string;
  file: string;
  directory: string;
  /** Images before and after one byte, one variable and one descriptor changed. */
  before: string;
  after: string;
  /** Of --stats. */
  stats: string;
  /** By gcore of the process before the first capture; why there is none. */
  core: string | { skip: string };
}

/** Runs it as the ordinary user with these variables, until it waits for a line. */
export async function startCompared(
  directory: string,
  environment: Record<string, string>,
): Promise<{ program: Conversation; executable: string; file: string }> {
  const executable = join(directory, 'compared');
  if (!existsSync(executable)) compile(directory, 'compared', SOURCE.replaceAll(/\b(\d{10,})\b/g, '$1ul'));
  const file = join(directory, 'a file');
  const program = Conversation.start(directory, ['run', '--', executable, file], environment);
  await program.line();
  return { program, executable, file };
}

/** Runs it with these variables, and captures it. */
export async function capture(directory: string, environment: Record<string, string>): Promise<Compared> {
  const { program, executable, file } = await startCompared(directory, environment);
  try {
    const core = gcore({ pid: program.child.pid! }, directory);
    const stats = join(directory, 'stats.json');
    const before = program.checkpoint(directory, 'before', '--leave-running', '--stats', stats);
    await program.ask('change');
    const after = program.checkpoint(directory, 'after');
    return { pid: program.child.pid!, executable, file, directory, before, after, stats, core };
  } finally {
    await program.kill();
  }
}
