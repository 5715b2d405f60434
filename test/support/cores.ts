/** Real core files of a real program: from the kernel and from gcore. */
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export const root = new URL('../..', import.meta.url).pathname;

/** Ids of `nobody` when the tests run as root: no target program runs as root. */
export const ordinaryUser = process.getuid!() === 0 ? { uid: 65534, gid: 65534 } : {};

/** A directory that the target programs may write to. */
export function scratchDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'warp-tool-test-'));
  chmodSync(directory, 0o777);
  return directory;
}

export function removeDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

/** Why a program that a test needs is not there; undefined when it is. */
export function missing(...programs: string[]): string | undefined {
  const absent = programs.filter((program) => spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status !== 0);
  return absent.length > 0 ? `${absent.join(' and ')} not installed` : undefined;
}

/**
 * Threads that keep known values in vector registers while they sleep in pause(2); the leader is called `leader`, the others `worker-N`.
 * Prints a line `MAIN-TID has-avx has-avx512`, then `ready`. Ends by SIGABRT when it reads a line.
 */
const PROGRAM = String.raw`
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int has_avx, has_avx512;
static volatile int started;

/* Sleeps for ever with 0x1111…1 × number in every lane of a vector register, and number in r12. */
__attribute__((noinline)) static void sleep_with_registers(unsigned long number) {
  unsigned long pattern = 0x1111111111111111ul * number;
  if (has_avx512)
    __asm__ volatile("vpbroadcastq %0, %%zmm21\n kmovw %k1, %%k3" : : "r"(pattern), "r"(0x1230u + (unsigned)number));
  if (has_avx)
    __asm__ volatile("movq %0, %%xmm7\n vpbroadcastq %%xmm7, %%ymm7" : : "r"(pattern) : "xmm7");
  __asm__ volatile("movq %0, %%r12\n lock incl %2\n 1: movl %1, %%eax\n syscall\n jmp 1b"
                   : : "r"(number), "i"(SYS_pause), "m"(started) : "rax", "rcx", "r11", "r12", "memory");
}

__attribute__((noinline)) static void outer(unsigned long number) {
  sleep_with_registers(number);
  __asm__ volatile("");
}

static void *worker(void *argument) {
  char name[16];
  snprintf(name, sizeof name, "worker-%lu", (unsigned long)argument);
  pthread_setname_np(pthread_self(), name);
  outer((unsigned long)argument);
  return NULL;
}

int main(void) {
  has_avx = __builtin_cpu_supports("avx2");
  has_avx512 = __builtin_cpu_supports("avx512f");
  prctl(PR_SET_DUMPABLE, 1);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  sigaddset(&blocked, SIGRTMAX);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  unsigned char *memory = mmap((void *)0x510000000000, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  memset(memory, 0, 8 * 4096);
  strcpy((char *)memory + 3 * 4096 + 17, "known text in known memory");
  for (unsigned long number = 1; number <= 3; number++) {
    pthread_t thread;
    pthread_create(&thread, NULL, worker, (void *)number);
  }
  while (started < 3)
    usleep(1000);
  usleep(20000); /* the threads are a few instructions before their system call */
  printf("%d %d %d\n", getpid(), has_avx, has_avx512);
  puts("ready");
  fflush(stdout);
  getchar();
  abort();
}
`;

export interface Target {
  pid: number;
  avx: boolean;
  avx512: boolean;
  child: ChildProcess;
  executable: string;
}

/** Compiles a C program into `directory`. */
export function compile(directory: string, name: string, source: string, flags: string[] = []): string {
  const path = join(directory, name);
  writeFileSync(`${path}.c`, source);
  execFileSync('cc', ['-std=gnu17', '-g', '-O1', '-pthread', '-o', path, `${path}.c`, ...flags]);
  return path;
}

/** Starts the program above as an ordinary user, with one known variable in its environment, and waits until its threads sleep. */
export async function startTarget(directory: string): Promise<Target> {
  const executable = join(directory, 'target');
  if (!existsSync(executable)) compile(directory, 'target', PROGRAM);
  const child = spawn('sh', ['-c', 'ulimit -c unlimited; exec "$0" "$@"', executable, 'first', 'second argument'], {
    cwd: directory,
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: process.env['PATH'], WARP_TEST_VARIABLE: 'a value = with spaces' },
    ...ordinaryUser,
  });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const [pid, avx, avx512] = String((await lines.next()).value)
    .split(' ')
    .map(Number);
  await lines.next();
  return { pid: pid!, avx: avx === 1, avx512: avx512 === 1, child, executable };
}

export function endTarget(target: Target): Promise<void> {
  return new Promise((resolve) => {
    if (target.child.exitCode !== null || target.child.signalCode !== null) return resolve();
    target.child.once('exit', () => resolve());
    target.child.kill('SIGKILL');
  });
}

/** A core file by gcore; the process goes on. A reason instead when that is not possible here. */
export function gcore(target: { pid: number }, directory: string): string | { skip: string } {
  const reason = missing('gcore');
  if (reason) return { skip: reason };
  const prefix = join(directory, 'gcore');
  const result = spawnSync('gcore', ['-o', prefix, String(target.pid)], { encoding: 'utf8' });
  const path = `${prefix}.${target.pid}`;
  return existsSync(path) ? path : { skip: `gcore is not possible here: ${result.stderr.trim().split('\n').at(-1)}` };
}

/** Makes the process abort and gives the core file that the kernel writes, or the reason why it wrote none. */
export async function kernelCore(target: Target, directory: string): Promise<string | { skip: string }> {
  const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8').trim();
  if (pattern.startsWith('|') || pattern.includes('/'))
    return { skip: `kernel.core_pattern is "${pattern}", not a file name in the working directory` };
  const ended = new Promise((resolve) => target.child.once('exit', resolve));
  target.child.stdin!.write('\n');
  await ended;
  const name = readdirSync(directory).find((file) => file.startsWith(pattern.split('%')[0]!) && file.startsWith('core'));
  return name ? join(directory, name) : { skip: 'the kernel wrote no core file (the limit, or the file system)' };
}

/** Runs the command line as a user would; needs the bundle (`npm run build:ts`). */
export function warpTool(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  const { NO_COLOR: _, FORCE_COLOR: __, ...env } = process.env;
  const result = spawnSync(process.execPath, [join(root, 'bin/run.js'), ...argv], { encoding: 'utf8', env, maxBuffer: 1 << 28 });
  return { status: result.status, stdout: result.stdout, stderr: result.stderr };
}

/** Writes an image into a directory of its own and gives that directory. */
export function imageDirectory(directory: string, name: string, image: Buffer): string {
  const path = join(directory, name);
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, 'core.img'), image);
  return path;
}
