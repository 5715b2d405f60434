/** run, checkpoint, restore, ps and the inspecting commands on images that the engine has just written. */
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Image } from '../src/elf/image.js';
import { schemas } from '../src/schemas/index.js';
import { compile, missing, ordinaryUser, removeDirectory, root, scratchDirectory } from './support/cores.js';

const directory = scratchDirectory();
const children: ChildProcess[] = [];

/**
 * Three named threads that sleep in different calls, a pipe with unread bytes, a listening socket, a file at an offset, a handler for SIGUSR1; the
 * leader answers every line it reads with the next number.
 */
const PROGRAM = String.raw`
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static sem_t never;
static void on_usr1(int number) { (void)number; }
__attribute__((noinline)) static void sleep_in_pause(void) { for (;;) pause(); }
__attribute__((noinline)) static void sleep_in_futex(void) { for (;;) sem_wait(&never); }
__attribute__((noinline)) static void sleep_in_read(int fd) { char c; for (;;) if (read(fd, &c, 1) < 0) {} }
static int nothing[2];

static void *worker(void *argument) {
  char name[16];
  snprintf(name, sizeof name, "worker-%ld", (long)argument);
  pthread_setname_np(pthread_self(), name);
  if ((long)argument == 0) sleep_in_pause();
  if ((long)argument == 1) sleep_in_futex();
  sleep_in_read(nothing[0]);
  return NULL;
}

int main(int argc, char **argv) {
  sem_init(&never, 0, 0);
  int full[2];
  if (pipe(nothing) || pipe(full) || write(full[1], "unread", 6) != 6) return 1;
  int file = open(argv[1], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (write(file, "0123456789", 10) != 10 || lseek(file, 4, SEEK_SET) != 4) return 1;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 17)) return 1;
  eventfd(42, EFD_NONBLOCK);
  signal(SIGUSR1, on_usr1);
  signal(SIGUSR2, SIG_IGN);
  strcpy(mmap((void *)0x510000000000, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), "known text");
  for (long number = 0; number < 3; number++) {
    pthread_t thread;
    pthread_create(&thread, NULL, worker, (void *)number);
  }
  usleep(100000);
  char line[100];
  for (int number = argc; fgets(line, sizeof line, stdin) != NULL; number++) {
    printf("%d\n", number);
    fflush(stdout);
  }
  return 7;
}
`;

/** A program that answers each line with a line. */
class Talker {
  private readonly lines: AsyncIterator<string>;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;

  constructor(readonly child: ChildProcess) {
    children.push(child);
    this.lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    this.ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
    child.stdin!.on('error', () => {});
  }

  async ask(): Promise<number> {
    this.child.stdin!.write('\n');
    return Number((await this.lines.next()).value);
  }
}

const bin = join(root, 'bin/run.js');
const { LD_PRELOAD: _, ...environment } = process.env;

/** The command line as the ordinary user, with pipes as standard streams. */
function start(...argv: string[]): Talker {
  return new Talker(spawn(process.execPath, [bin, ...argv], { cwd: directory, stdio: 'pipe', env: environment, ...ordinaryUser }));
}

function tool(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [bin, ...argv], {
    cwd: directory,
    encoding: 'utf8',
    env: environment,
    timeout: 60_000,
    ...ordinaryUser,
  });
}

const json = <T>(...argv: string[]): T => {
  const { stdout, stderr } = tool(...argv, '--json');
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as T;
};

let running: Talker;
let image: string;
/** What /proc said just before the checkpoint. */
let maps: string[];
let tasks: Map<number, string>;
let backtraces: Map<number, string[]>;

/** Function names of every thread, by tid. */
function functions(text: string): Map<number, string[]> {
  const found = new Map<number, string[]>();
  for (const part of text.split(/^Thread /m).slice(1)) {
    const tid = Number(/LWP (\d+)/.exec(part)?.[1]);
    found.set(
      tid,
      [...part.matchAll(/^#\d+ +(?:0x[0-9a-f]+ in )?([\w.]+)/gm)].map((match) => match[1]!),
    );
  }
  return found;
}

beforeAll(async () => {
  compile(directory, 'program', PROGRAM);
  running = start('run', '--', './program', join(directory, 'file'));
  expect(await running.ask()).toBe(2);
  expect(await running.ask()).toBe(3);
  const pid = running.child.pid!;
  maps = readFileSync(`/proc/${pid}/maps`, 'utf8').trim().split('\n');
  tasks = new Map(
    execFileSync('ls', [`/proc/${pid}/task`], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map((tid) => [Number(tid), readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim()]),
  );
  if (!missing('gdb'))
    backtraces = functions(
      execFileSync('gdb', ['-nx', '-batch', '-p', String(pid), '-ex', 'thread apply all bt'], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      }),
    );
  image = join(directory, 'image');
});

afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  removeDirectory(directory);
});

it('run becomes the program: same process, its name and arguments', () => {
  const pid = running.child.pid!;
  expect(readFileSync(`/proc/${pid}/comm`, 'utf8').trim()).toBe('program');
  expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toBe(`./program\0${join(directory, 'file')}\0`);
  // Nothing of Node.js is left: no descriptor, no blocked or ignored signal.
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  expect(BigInt(`0x${/^SigIgn:\s*(\w+)/m.exec(status)![1]}`)).toBe(1n << 11n); // its own SIGUSR2
  const flags = (fd: number): number => Number.parseInt(/^flags:\s*(\w+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))![1]!, 8);
  for (const fd of [0, 1, 2]) expect(flags(fd) & 0o4000, `fd ${fd} is non-blocking`).toBe(0);
});

it('ps lists the program', () => {
  const { processes } = json<{ processes: { pid: number }[] }>('ps');
  expect(processes.find((one) => one.pid === running.child.pid)).toMatchObject({
    name: 'program',
    command: ['./program', join(directory, 'file')],
    threads: 4,
  });
});

it('checkpoint --leave-running captures and lets the program go on', async () => {
  const left = join(directory, 'left-running');
  const result = json<{ image: string; bytes: number; generation: number }>(
    'checkpoint',
    String(running.child.pid),
    '--to',
    left,
    '--leave-running',
  );
  expect(new Ajv2020({ strict: false }).validate(schemas['checkpoint']!.json, result)).toBe(true);
  expect(result).toEqual({
    image: expect.stringMatching(/left-running\/core\.img$/),
    bytes: statSync(join(left, 'core.img')).size,
    generation: 0,
  });
  expect(json<{ flags: string[] }>('show', left).flags).toContain('left-running');
  expect(await running.ask()).toBe(4);
});

it('checkpoint ends the program with SIGKILL after its image is there, private to its owner', async () => {
  const { status, stdout, stderr } = tool('checkpoint', String(running.child.pid), '--to', image);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toContain(join(image, 'core.img'));
  expect(await running.ended).toEqual({ code: null, signal: 'SIGKILL' });
  expect(statSync(join(image, 'core.img')).mode & 0o777).toBe(0o600);
});

describe('the image', () => {
  it('is valid', () => {
    const { stdout, status } = tool('validate', image);
    expect(stdout).toMatch(/: valid /);
    expect(status).toBe(0);
  });

  it.each(['show', 'threads', 'maps', 'fds', 'env', 'signals', 'notes', 'auxv', 'validate'])(
    'gives %s --json as its schema says',
    (name) => {
      const ajv = new Ajv2020({ strict: false });
      ajv.validate(schemas[name]!.json, json(name, image));
      expect(ajv.errors).toBeNull();
    },
  );

  it('has the threads that were there, and not the engine', () => {
    const { threads } = json<{ threads: { tid: number; name: string; system_call: string; leader: boolean }[] }>('threads', image);
    const expected = [...tasks].filter(([, name]) => name !== 'warp-engine');
    expect(new Map(threads.map(({ tid, name }) => [tid, name]))).toEqual(new Map(expected));
    const calls = Object.fromEntries(threads.map(({ name, system_call: call }) => [name, call]));
    expect(calls).toEqual({ program: 'read', 'worker-0': 'pause', 'worker-1': 'futex', 'worker-2': 'read' });
    expect(threads[0]).toMatchObject({ leader: true, tid: running.child.pid });
  });

  it('has the areas that were there', () => {
    const document = json<{ maps: { start: string; end: string; protection: string; kind: string }[] }>('maps', image);
    const found = new Map(document.maps.map((row) => [`${row.start.slice(2)}-${row.end.slice(2)}`, row.protection]));
    // The engine's own memory may come and go; the program's may not.
    const own = maps.map((line) => line.split(/\s+/)).filter(([, , , , inode, name]) => inode !== '0' && !name?.includes('libwarp'));
    expect(own.length).toBeGreaterThan(8);
    for (const [range, protection] of own) expect(found.get(range!), range).toBe(protection);
    expect(found.get('510000000000-510000100000')).toBe('rw-p');
  });

  it('has the descriptors', () => {
    const { descriptors } = json<{ descriptors: { fd: number; kind: string; detail: Record<string, unknown>; offset: number | null }[] }>(
      'fds',
      image,
    );
    expect(descriptors).toMatchObject([
      { kind: 'caller', fd: 0 },
      { kind: 'caller', fd: 1 },
      { kind: 'caller', fd: 2 },
      { kind: 'pipe', detail: { unread: 0, ends: [4] } },
      { kind: 'pipe', detail: { ends: [3] } },
      { kind: 'pipe', detail: { unread: 6, ends: [6] } },
      { kind: 'pipe', detail: { ends: [5] } },
      { kind: 'file', offset: 4, close_on_exec: true, status_flags: ['O_APPEND'], path: join(directory, 'file') },
      { kind: 'socket', detail: { state: 'listening', backlog: 17, local: expect.stringMatching(/^127\.0\.0\.1:\d+$/) } },
      { kind: 'eventfd', detail: { count: '42' } },
    ]);
  });

  it('has the dispositions of signals', () => {
    const { actions } = json<{ actions: { name: string; disposition: string; handler: { symbol: string } | null }[] }>('signals', image);
    expect(actions.find(({ name }) => name === 'SIGUSR1')).toMatchObject({ disposition: 'handler', handler: { symbol: 'on_usr1' } });
    expect(actions.find(({ name }) => name === 'SIGUSR2')).toMatchObject({ disposition: 'ignore', handler: null });
  });

  it('has the memory', async () => {
    const opened = await Image.open(image);
    expect(await opened.memory.readString(0x510000000000n)).toBe('known text');
    expect(await opened.memory.read(0x510000080000n, 4096)).toEqual(Buffer.alloc(4096));
    await opened.close();
  });

  it('opens in GDB without a warning and with the backtraces that a live GDB gave', (context) => {
    const reason = missing('gdb');
    if (reason) context.skip(reason);
    const { stdout, stderr, status } = tool('gdb', image, '--', '-nx', '-batch', '-ex', 'thread apply all bt');
    expect(status).toBe(0);
    expect(`${stdout}${stderr}`).not.toMatch(/warning/i);
    const engine = [...tasks].find(([, name]) => name === 'warp-engine')?.[0];
    const expected = [...backtraces].filter(([tid]) => tid !== engine);
    expect(functions(stdout)).toEqual(new Map(expected));
    for (const [tid, name] of tasks) if (tid !== engine) expect(stdout).toContain(`(LWP ${tid}) "${name}"`);
  });

  it.each([
    ['readelf', '-aW'],
    ['eu-readelf', '-a'],
    ['objdump', '-p'],
  ])('is accepted by %s %s without a complaint', (name, flag) => {
    if (missing(name)) return;
    const { stderr, status } = spawnSync(name, [flag, join(image, 'core.img')], { encoding: 'utf8', maxBuffer: 1 << 28 });
    expect([status, stderr]).toEqual([0, '']);
  });
});

it('the image of a process that renamed itself opens in GDB without a warning', async (context) => {
  const reason = missing('gdb');
  if (reason) context.skip(reason);
  const source = String.raw`
#include <stdio.h>
#include <sys/prctl.h>
int main(void) {
  char line[100];
  prctl(PR_SET_NAME, "another name");
  while (fgets(line, sizeof line, stdin) != NULL) { puts("1"); fflush(stdout); }
}
`;
  const target = start('run', '--', compile(directory, 'renamed', source));
  expect(await target.ask()).toBe(1);
  const renamed = join(directory, 'renamed-image');
  expect(tool('checkpoint', String(target.child.pid), '--to', renamed)).toMatchObject({ status: 0, stderr: '' });
  const { stdout, stderr } = tool('gdb', renamed, '--', '-nx', '-batch', '-ex', 'thread apply all bt');
  expect(`${stdout}${stderr}`).not.toMatch(/warning/i);
  expect(stdout).toContain('"another name"');
  expect(functions(stdout).get(target.child.pid!)).toContain('main');
});

describe('restore', () => {
  it('becomes the process that goes on, again and again from one image, with the exit status of the program', async () => {
    for (let round = 0; round < 3; round++) {
      const restored = start('restore', image);
      expect(await restored.ask()).toBe(5);
      expect(await restored.ask()).toBe(6);
      restored.child.stdin!.end();
      expect(await restored.ended).toEqual({ code: 7, signal: null });
    }
  });

  it('can be captured again, as the next generation', async () => {
    const restored = start('restore', image);
    expect(await restored.ask()).toBe(5);
    const next = join(directory, 'next');
    expect(json('checkpoint', String(restored.child.pid), '--to', next)).toMatchObject({ generation: 1 });
    expect((await restored.ended).signal).toBe('SIGKILL');
    expect(tool('validate', next)).toMatchObject({ status: 0 });
    // /proc/PID/exe of a restored process is not the program's.
    expect(json('show', next)).toMatchObject({ generation: 1, process: { executable: join(directory, 'program'), name: 'program' } });
    if (!missing('gdb')) {
      const { stdout, stderr } = tool('gdb', next, '--', '-nx', '-batch', '-ex', 'thread apply all bt');
      expect(`${stdout}${stderr}`).not.toMatch(/warning/i);
      expect(stdout.match(/ in worker \(/g)).toHaveLength(3);
    }
    const second = start('restore', next, '--no-direct-map');
    expect(await second.ask()).toBe(6);
    second.child.kill('SIGKILL');
  });

  it('refuses a truncated image with one line and status 2', () => {
    const broken = join(directory, 'broken');
    mkdirSync(broken);
    execFileSync('sh', ['-c', `head -c 40000 '${image}/core.img' > '${broken}/core.img'`]);
    if (ordinaryUser.uid !== undefined) chownSync(join(broken, 'core.img'), ordinaryUser.uid, ordinaryUser.gid);
    const { status, stderr } = tool('restore', broken);
    expect(status).toBe(2);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(tool('validate', broken).status).toBe(1);
  });
});

it('checkpoint of a process without the engine fails with one line, and nothing is written', () => {
  const other = spawn('sleep', ['1000'], { stdio: 'ignore', ...ordinaryUser });
  children.push(other);
  const to = join(directory, 'nothing');
  const { status, stderr } = tool('checkpoint', String(other.pid), '--to', to);
  expect(status).toBe(2);
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(stderr).toContain(String(other.pid));
  expect(existsSync(join(to, 'core.img'))).toBe(false);
});

it('checkpoint --log-level debug tells its steps on stderr, and --stats writes phases', async () => {
  const target = start('run', '--', './program', join(directory, 'file2'));
  expect(await target.ask()).toBe(2);
  const stats = join(directory, 'stats.json');
  const { status, stdout, stderr } = tool(
    'checkpoint',
    String(target.child.pid),
    '--to',
    join(directory, 'logged'),
    '--log-level',
    'debug',
    '--stats',
    stats,
  );
  expect(status).toBe(0);
  expect(stdout.trimEnd().split('\n')).toHaveLength(1);
  expect(stderr).toMatch(/^debug: /m);
  expect(Object.keys(JSON.parse(readFileSync(stats, 'utf8')) as object).length).toBeGreaterThan(2);
});

it('doctor tries the engine and finds that it works', () => {
  const { able, checks } = json<{ able: boolean; checks: { name: string; status: string; found: string }[] }>('doctor');
  expect(checks.filter((check) => check.status === 'unable')).toEqual([]);
  expect(checks.at(-1)).toMatchObject({ name: 'trial', status: 'ok' });
  expect(able).toBe(true);
});

it('run gives the exit status of the program, and 2 when it cannot start it', () => {
  expect(tool('run', '--', 'sh', '-c', 'exit 41').status).toBe(41);
  expect(tool('run', '--', join(directory, 'program.c')).status).toBe(2);
});
