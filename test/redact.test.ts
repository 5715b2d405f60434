/** `redact`: a secret planted wherever a program can put one is nowhere in the result, which still tells the structure. */
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { schemas } from '../src/schemas/index.js';
import {
  compile,
  gcore,
  imageDirectory,
  kernelCore,
  ordinaryUser,
  removeDirectory,
  scratchDirectory,
  startTarget,
  endTarget,
  warpTool,
  type Target,
} from './support/cores.js';
import { Conversation, toolAsUser } from './support/engine.js';
import { fileNote, foreignCore, PAGE, prstatusNote, sealMetadata, warpImage } from './support/synthesise.js';

const SECRET = 'hunter2Secret';
const directory = scratchDirectory();
const place = join(directory, `dir-${SECRET}`);
const images: Record<string, string | { skip: string }> = {};

/** Puts its only argument wherever it can, prints `ready`, and waits. */
const PROGRAM = String.raw`
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[4096];
static const char *secret;
static volatile int started;

static void *worker(void *unused) {
  (void)unused;
  unsigned long word;
  memcpy(&word, secret, 8);
  pthread_setname_np(pthread_self(), secret);
  __asm__ volatile("movq %0, %%xmm7\n movq %0, %%r12\n movq %0, %%mm3\n lock incl %2\n 1: movl %1, %%eax\n syscall\n jmp 1b"
                   : : "r"(word), "i"(34), "m"(started) : "rax", "rcx", "r11", "r12", "xmm7", "memory");
  return NULL;
}

static int unix_socket(int abstract, const char *text) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path + abstract, sizeof address.sun_path - 1, "%s", text);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  return bind(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + abstract + strlen(text)) || listen(fd, 1);
}

int main(int argc, char **argv) {
  char text[500];
  secret = argv[1];
  prctl(PR_SET_DUMPABLE, 1);
  strcpy(buffer, secret);
  strcpy(malloc(10000) + 5000, secret);
  sprintf(text, "file-%s", secret);
  int file = open(text, O_RDWR | O_CREAT, 0600);
  if (argc != 2 || write(file, buffer, 4096) != 4096) return 1;
  mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  int watch = inotify_init();
  inotify_add_watch(watch, text, IN_MODIFY);
  char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ({ int fd = memfd_create(secret, 0); ftruncate(fd, 4096); fd; }), 0);
  strcpy(shared + 100, secret);
  sprintf(text, "socket-%s", secret);
  if (unix_socket(0, text) || unix_socket(1, secret)) return 1;
  int tcp = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f090807)};
  if (bind(tcp, (void *)&address, sizeof address) || listen(tcp, 1)) return 1;
  int ends[2], pair[2];
  if (pipe(ends) || write(ends[1], secret, strlen(secret)) < 0) return 1;
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) || write(pair[0], secret, strlen(secret)) < 0) return 1;
  struct epoll_event event = {.events = EPOLLIN};
  memcpy(&event.data, secret, 8);
  epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, ends[0], &event);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGRTMIN + 5);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  union sigval value;
  memcpy(&value, secret, 8);
  sigqueue(getpid(), SIGRTMIN + 5, value);
  pthread_t thread;
  pthread_create(&thread, NULL, worker, NULL);
  while (!started) usleep(1000);
  usleep(20000);
  printf("%d\nready\n", getpid());
  fflush(stdout);
  getchar();
  abort();
}
`;

beforeAll(async () => {
  mkdirSync(place);
  chmodSync(place, 0o777);
  const executable = compile(place, `prog-${SECRET}`, PROGRAM);
  const environment = { PATH: process.env['PATH'], [`VARIABLE_${SECRET}`]: `value ${SECRET}` };
  const child = spawn('sh', ['-c', 'ulimit -c unlimited; exec "$0" "$@"', executable, SECRET], {
    cwd: place,
    stdio: ['pipe', 'pipe', 'inherit'],
    env: environment,
    ...ordinaryUser,
  });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const target: Target = { pid: Number((await lines.next()).value), avx: false, avx512: false, child, executable };
  await lines.next();
  images['gcore'] = gcore(target, place);
  images['kernel'] = await kernelCore(target, place);
  await endTarget(target);
  for (const name of [`socket-${SECRET}`, `file-${SECRET}`]) rmSync(join(place, name), { force: true });
  const ours = Conversation.start(place, ['run', '--', executable, SECRET], { [`VARIABLE_${SECRET}`]: `value ${SECRET}` });
  await ours.line();
  await ours.line();
  images['engine'] = ours.checkpoint(directory, 'engine');
  await ours.ended;
});

afterAll(() => removeDirectory(directory));

const coreOf = (path: string): string => (statSync(path).isDirectory() ? join(path, 'core.img') : path);

/** Whether the secret, or enough of it to be one, is in a file, in any of the forms that programs hold text in. */
function places(content: Buffer): string[] {
  const part = SECRET.slice(0, 7);
  const forms = { text: Buffer.from(part), utf16: Buffer.from(part, 'utf16le'), reversed: Buffer.from([...part].toReversed().join('')) };
  return Object.entries(forms)
    .filter(([, bytes]) => content.includes(bytes))
    .map(([name]) => name);
}

const check = new Ajv2020({ strict: false }).compile(schemas['redact']!.json);

describe.each(['engine', 'gcore', 'kernel'])('redact of an image of %s', (writer) => {
  it('leaves the secret nowhere, and the structure as it was', (context) => {
    const image = images[writer]!;
    if (typeof image !== 'string') return context.skip(image.skip);
    expect(places(readFileSync(coreOf(image)))).toContain('text');
    const out = join(directory, `redacted-${writer}`);
    const { stdout, status, stderr } = warpTool('redact', image, '-o', out, '--json');
    expect([status, stderr]).toEqual([0, '']);
    const document = JSON.parse(stdout) as { image: string; removed: { what: string; bytes: number | null }[] };
    check(document);
    expect(check.errors).toBeNull();
    expect(document.removed.find(({ what }) => what.startsWith('memory'))!.bytes).toBeGreaterThan(10_000);
    const content = readFileSync(document.image);
    expect(places(content)).toEqual([]);
    expect(content.length).toBe(statSync(coreOf(image)).size);
    expect(content.includes(Buffer.from([0x7f, 9, 8, 7]))).toBe(false);

    expect(warpTool('validate', document.image)).toMatchObject({ status: 0 });
    expect(warpTool('show', document.image)).toMatchObject({ status: 0, stderr: '' });
    const json = (command: string, of: string): Record<string, Record<string, unknown>[]> =>
      JSON.parse(warpTool(command, of, '--json').stdout) as Record<string, Record<string, unknown>[]>;
    const [before, after] = [image, document.image].map((of) => ({
      maps: json('maps', of)['maps']!,
      threads: json('threads', of)['threads']!,
    }));
    const shape = ({ start, end, protection, kind, stored }: Record<string, unknown>): unknown => ({
      start,
      end,
      protection,
      kind,
      stored,
    });
    expect(after!.maps.map(shape)).toEqual(before!.maps.map(shape));
    expect(after!.maps.map(({ build_id: id }) => id).filter(Boolean).length).toBeGreaterThan(writer === 'engine' ? 2 : -1);
    const thread = ({ tid, system_call: call, stack_pointer: stack, leader }: Record<string, unknown>): unknown => ({
      tid,
      call,
      stack,
      leader,
    });
    expect(after!.threads.map(thread)).toEqual(before!.threads.map(thread));
    for (const command of ['fds', 'signals', 'env', 'auxv', 'notes', 'mem']) {
      const { stdout: text, stderr: errors } = warpTool(command, document.image, ...(command === 'mem' ? ['--strings'] : []));
      expect(`${text}${errors}`).not.toContain(SECRET);
    }
  });

  it('keeps what is asked for, and nothing else', (context) => {
    const image = images[writer]!;
    if (typeof image !== 'string') return context.skip(image.skip);
    const out = join(directory, `kept-${writer}.img`);
    expect(warpTool('redact', image, '-o', out, '--keep', 'paths')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/kept +paths/),
    });
    const maps = warpTool('maps', out).stdout;
    expect(maps).toContain(`prog-${SECRET}`);
    expect(warpTool('threads', out).stdout).not.toMatch(new RegExp(`^ *\\d+ +${SECRET}`, 'm'));
    expect(warpTool('show', out).stdout).not.toMatch(new RegExp(`^command .*${SECRET}`, 'm'));
    expect(warpTool('mem', out, '--text', SECRET, '--in', 'anon', '--in', 'heap', '--in', 'stack').status).toBe(1);
  });
});

it('keeps environment and arguments in memory, with the right checksums', (context) => {
  const image = images['engine']!;
  if (typeof image !== 'string') return context.skip(image.skip);
  const out = join(directory, 'environment');
  expect(warpTool('redact', image, '-o', out, '--keep', 'environment', '--keep', 'arguments')).toMatchObject({ status: 0 });
  expect(warpTool('validate', out).status).toBe(0);
  expect(warpTool('env', out).stdout).toContain(`VARIABLE_${SECRET}=value ${SECRET}`);
  expect(warpTool('show', out).stdout).toMatch(new RegExp(`^command .* ${SECRET}$`, 'm'));
  expect(warpTool('mem', out, '--text', SECRET, '--in', 'heap').status).toBe(1);
});

it('blanks vector registers and those that are no addresses', async () => {
  const target = await startTarget(directory);
  const ours = Conversation.start(directory, ['run', '--', target.executable]);
  await endTarget(target);
  await ours.line();
  await ours.line();
  const image = ours.checkpoint(directory, 'registers');
  await ours.ended;
  const out = join(directory, 'registers-out');
  expect(toolAsUser(directory, 'redact', image, '-o', out).status).toBe(0);
  interface Row {
    registers: { general: Record<string, string>; vectors: Record<string, string> };
  }
  const rows = (of: string): Row[] => (JSON.parse(warpTool('threads', of, '--registers', '--json').stdout) as { threads: Row[] }).threads;
  expect(rows(image).some(({ registers }) => registers.general['r12'] === '0x2')).toBe(true);
  for (const { registers } of rows(out)) {
    expect(registers.general['rip']).not.toBe('0x0');
    expect(registers.general['r12']).toMatch(/^0x0$|^0x[5-7]/);
    for (const value of Object.values(registers.vectors)) expect(value).toMatch(/^0+$/);
  }
});

it('blanks what stands between the parts, shared text in heaps, later fields and unknown notes', async () => {
  const content = await warpImage({
    segments: [{ address: 0x10000n, size: 4096n, content: Buffer.alloc(PAGE, SECRET) }],
    tables: {
      tags: [{ kind: 4, name: Buffer.from(SECRET), value: Buffer.from(SECRET) }],
      sockets: [{ family: 2, type: 1, state: 2, options: Buffer.from(`\x01\0\0\0\x02\0\0\0\x0d\0\0\0\0\0\0\0${SECRET}\0\0\0`) }],
    },
  });
  const metadataSize = Number(content.readBigUInt64LE(80));
  content.write(SECRET, metadataSize - 20);
  content.write(SECRET.slice(0, 7), 9);
  content.write(SECRET, 130);
  const image = imageDirectory(directory, 'built', content);
  const out = join(directory, 'built-out');
  expect(warpTool('redact', image, '-o', out)).toMatchObject({ status: 0 });
  expect(places(readFileSync(join(out, 'core.img')))).toEqual([]);
  expect(warpTool('validate', out)).toMatchObject({ status: 0 });
});

it('blanks text where a damaged note has it instead of numbers', () => {
  const word = Buffer.from(SECRET).readBigUInt64LE(0);
  const library = { start: 0x7f0000000000n, end: 0x7f0000002000n, offset: 4096n, path: '/usr/lib/libc.so.6' };
  const plan = (...notes: Buffer[]): Buffer =>
    foreignCore({ segments: [{ address: library.start, size: 8192n, content: Buffer.alloc(2 * PAGE, 1) }], notes });
  const sound = plan(prstatusNote(7, { 16: library.start, 21: library.start }), fileNote([library]));
  const cores: Record<string, Buffer> = { sound };
  // si_signo and the other small numbers cannot hold eight letters; from the times on a note can.
  const status = sound.indexOf('CORE\0') + 8;
  for (const at of [48, 56, 104, 112, 240, 112 + 16 * 8, 112 + 26 * 8]) {
    cores[`status-${at}`] = Buffer.from(sound);
    cores[`status-${at}`]!.writeBigUInt64LE(word, status + at);
  }
  const file = sound.lastIndexOf('CORE\0') + 8;
  for (const at of [0, 8, 16, 24, 32]) {
    cores[`file-${at}`] = Buffer.from(sound);
    cores[`file-${at}`]!.writeBigUInt64LE(word, file + at);
  }
  for (const [name, content] of Object.entries(cores)) {
    const core = join(directory, `${name}.core`);
    writeFileSync(core, content);
    const out = join(directory, `${name}-out.core`);
    expect(warpTool('redact', core, '-o', out), name).toMatchObject({ status: 0 });
    const result = readFileSync(out);
    expect(result.includes(SECRET.slice(0, 8)), name).toBe(false);
    if (name === 'sound') {
      expect(result.subarray(file, file + 40)).toEqual(sound.subarray(file, file + 40));
      expect(result.readBigUInt64LE(status + 112 + 16 * 8)).toBe(library.start);
    }
  }
});

it('refuses to write over the image itself, and images of a format that it does not know', async () => {
  const content = await warpImage({ segments: [{ address: 0x10000n, size: 4096n, content: Buffer.alloc(PAGE, 1) }] });
  const image = imageDirectory(directory, 'itself', content);
  expect(warpTool('redact', image, '-o', image)).toMatchObject({ status: 2, stderr: expect.stringContaining('is the image itself') });
  content.writeUInt16LE(9, 72);
  writeFileSync(join(image, 'core.img'), content);
  expect(warpTool('redact', image, '-o', join(directory, 'never'))).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('its format is not known'),
  });
});

it('refuses an image whose chunk records lack fields', async () => {
  const content = await warpImage({ segments: [{ address: 0x10000n, size: 4096n, content: Buffer.alloc(PAGE, 1) }] });
  const type = Buffer.alloc(4);
  type.writeUInt32LE(0x57415217);
  let table = content.indexOf(type) + type.length;
  while (content.readUInt32LE(table) !== 48) table += 4;
  const count = content.readUInt32LE(table + 4);
  content.writeUInt32LE(8, table);
  content.writeUInt32LE(count * 6, table + 4);
  const image = imageDirectory(directory, 'short-records', await sealMetadata(content));
  expect(warpTool('redact', image, '-o', join(directory, 'never'))).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/^warp-tool: [^\n]*note chunks: its records are too short; see `warp-tool validate`\n$/),
  });
});
