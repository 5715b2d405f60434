/** Core files of other people's making: programs that crash, and gcore of one that runs. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { compile, missing, ordinaryUser } from './cores.js';

/** A core file, or why there is none here. */
export type Core = string | { skip: string };

/** Lasts while `work` does: a setting of the kernel's as the test needs it, where this process may change it. False when it may not. */
async function withSetting<T>(
  path: string,
  value: string,
  good: (now: string) => boolean,
  work: (isSet: boolean) => Promise<T>,
): Promise<T> {
  const before = readFileSync(path, 'utf8').trim();
  if (good(before)) return work(true);
  try {
    writeFileSync(path, value);
  } catch {
    return work(false);
  }
  try {
    return await work(true);
  } finally {
    writeFileSync(path, before);
  }
}

/** Runs a program that crashes in a directory of its own and gives the core file that the kernel writes there. */
async function crash(directory: string, argv: string[], env: Record<string, string> = {}): Promise<Core> {
  mkdirSync(directory, { recursive: true });
  chmodSync(directory, 0o777);
  const pattern = '/proc/sys/kernel/core_pattern';
  return withSetting(
    pattern,
    'core',
    (now) => !now.startsWith('|') && !now.includes('/'),
    async (isSet) => {
      if (!isSet) return { skip: `kernel.core_pattern is "${readFileSync(pattern, 'utf8').trim()}" and cannot be set` };
      const child = spawn('sh', ['-c', 'ulimit -c unlimited && exec "$0" "$@"', ...argv], {
        cwd: directory,
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { PATH: process.env['PATH'], ...env },
        ...ordinaryUser,
      });
      let complaint = '';
      child.stderr.on('data', (text) => (complaint += text));
      const signal = await new Promise((resolve) => child.once('close', (_, name) => resolve(name)));
      const core = readdirSync(directory).find((name) => name.startsWith('core'));
      if (core) return join(directory, core);
      if (signal === null) throw new Error(`${argv.join(' ')} did not crash: ${complaint}`);
      return { skip: `the kernel wrote no core file (limits, or the file system): ${complaint.trim()}` };
    },
  );
}

/** Four threads, one of which writes to an address that is not mapped while the others sleep; known text in shared anonymous memory. */
const THREADS = String.raw`
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static sem_t asleep;

__attribute__((noinline)) static void sleep_for_ever(void) {
  sem_post(&asleep);
  for (;;)
    pause();
}

static void *sleeper(void *argument) {
  prctl(PR_SET_NAME, argument);
  sleep_for_ever();
  return NULL;
}

__attribute__((noinline)) static void store(volatile int *place) { *place = 42; }

static void *crasher(void *argument) {
  (void)argument;
  for (int i = 0; i < 2; i++)
    sem_wait(&asleep);
  store((int *)0xdead000);
  return NULL;
}

int main(void) {
  pthread_t threads[3];
  char *shared = mmap((void *)0x520000000000, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  strcpy(shared + 2 * 4096 + 100, "text in shared anonymous memory");
  sem_init(&asleep, 0, 0);
  pthread_create(&threads[0], NULL, sleeper, "sleeper-1");
  pthread_create(&threads[1], NULL, sleeper, "sleeper-2");
  pthread_create(&threads[2], NULL, crasher, NULL);
  pthread_join(threads[2], NULL);
}
`;

export function crashOfThreads(directory: string): Promise<Core> {
  mkdirSync(directory, { recursive: true });
  return crash(join(directory, 'run'), [compile(directory, 'threads', THREADS)]);
}

export async function crashOfPython(directory: string): Promise<Core> {
  const python = '/usr/bin/python3'; // not a version of the caller's home, which the ordinary user cannot read
  if (!existsSync(python)) return { skip: 'python3 is not installed' };
  const source = `
import os, threading
kept = ' '.join(['text', 'of', 'the', 'Python', 'process'])
started = threading.Barrier(3)
for number in range(2):
    threading.Thread(target=lambda: (started.wait(), threading.Event().wait()), daemon=True).start()
started.wait()
os.abort()
`;
  return crash(directory, [python, '-c', source]);
}

export async function crashOfNode(directory: string): Promise<Core> {
  const node = spawnSync('/usr/bin/test', ['-x', process.execPath], ordinaryUser).status === 0 ? process.execPath : '/usr/bin/node';
  if (!existsSync(node)) return { skip: 'no Node.js that the ordinary user can run' };
  const source = `
const { Worker } = require('node:worker_threads');
globalThis.kept = Buffer.from(['text', 'of', 'the', 'Node', 'process'].join(' '));
new Worker('setInterval(() => {}, 1000)', { eval: true }).once('online', () => process.abort());
`;
  return crash(directory, [node, '-e', source]);
}

/** A process of nothing but areas that alternate in protection, as many as `areas`; known text in one of the last. */
const AREAS = String.raw`
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
  (void)argc;
  long pairs = atol(argv[1]) / 2;
  char *base = mmap((void *)0x600000000000, pairs * 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  for (long i = 0; i < pairs; i++)
    if (mprotect(base + i * 8192, 4096, PROT_READ | PROT_WRITE) != 0)
      return 1;
  strcpy(base + (pairs - 1) * 8192, "text in one of many areas");
  abort();
}
`;

/** A core of `areas` areas, or of as many as the kernel lets a process have. */
export function crashOfManyAreas(directory: string, areas: number): Promise<{ core: Core; areas: number }> {
  const limit = '/proc/sys/vm/max_map_count';
  return withSetting(
    limit,
    String(areas + 1000),
    (now) => Number(now) >= areas + 1000,
    async (isSet) => {
      const possible = isSet ? areas : Math.min(areas, Number(readFileSync(limit, 'utf8')) - 100);
      mkdirSync(directory, { recursive: true });
      return { core: await crash(join(directory, 'run'), [compile(directory, 'areas', AREAS), String(possible)]), areas: possible };
    },
  );
}

const JAVA = `
public class Sleeper {
    static final byte[][] kept = new byte[200][];
    public static void main(String[] arguments) throws Exception {
        for (int i = 0; i < kept.length; i++) {
            kept[i] = new byte[1 << 20];
            new java.util.Random(i).nextBytes(kept[i]);
        }
        byte[] text = String.join(" ", "text", "of", "the", "Java", "process").getBytes();
        System.arraycopy(text, 0, kept[0], 4096, text.length);
        System.out.println("ready");
        Thread.sleep(Long.MAX_VALUE);
    }
}
`;

export const JAVA_PROGRAM = 'Sleeper';

/** Compiles a program that fills its heap, prints `ready` and sleeps. */
export function compileJava(directory: string): void {
  writeFileSync(join(directory, `${JAVA_PROGRAM}.java`), JAVA);
  execFileSync('javac', ['-d', directory, join(directory, `${JAVA_PROGRAM}.java`)], { stdio: 'ignore' });
}

/** A heap of 330 MiB, all of it touched, 200 MiB of it not zero, and little else. */
export function javaArguments(directory: string): string[] {
  const small = ['-XX:+UseSerialGC', '-XX:ReservedCodeCacheSize=16m', '-XX:CompressedClassSpaceSize=16m'];
  return [...small, '-Xms330m', '-Xmx330m', '-XX:+AlwaysPreTouch', '-cp', directory];
}

/** gcore of a JVM with such a heap. */
export async function gcoreOfJava(directory: string): Promise<Core> {
  const reason = missing('java', 'javac', 'gcore');
  if (reason) return { skip: reason };
  mkdirSync(directory, { recursive: true });
  chmodSync(directory, 0o777);
  compileJava(directory);
  const child = spawn('java', [...javaArguments(directory), JAVA_PROGRAM], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env['PATH'], MALLOC_ARENA_MAX: '1' }, // gcore writes 64 MiB for each arena
    ...ordinaryUser,
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  try {
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    if ((await lines.next()).value !== 'ready') throw new Error('the JVM did not start');
    const result = spawnSync('gcore', ['-o', join(directory, 'core'), String(child.pid)], { encoding: 'utf8' });
    const path = join(directory, `core.${child.pid}`);
    return existsSync(path) ? path : { skip: `gcore is not possible here: ${result.stderr.trim().split('\n').at(-1)}` };
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}
