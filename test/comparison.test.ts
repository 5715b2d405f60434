/** Every row of docs/comparison.md on an image of a real program, beside the other program where that is installed. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it, vi, type TestContext } from 'vitest';
import { FORMAT_MAJOR, FORMAT_MINOR } from '../src/elf/schema.js';
import { collectMaps } from '../src/commands/maps.js';
import { collectThreads } from '../src/commands/threads.js';
import { Image } from '../src/elf/image.js';
import { decodeMetadata } from '../src/elf/metadata.js';
import { FileSource } from '../src/elf/source.js';
import { callsIn, parseCall } from './support/calls.js';
import { capture, PLACES, SHARED_TEXT, TEXT, WORKERS, type Compared } from './support/compared.js';
import { imageDirectory, missing, removeDirectory, root, scratchDirectory, warpTool } from './support/cores.js';
import { compileJava, JAVA_PROGRAM, javaArguments } from './support/crashes.js';
import { criuImage } from './support/criu.js';
import { Conversation } from './support/engine.js';
import { euReadelfNotes, readelfSegments } from './support/readelf.js';
import { foreignCore, PAGE, prpsinfoNote, prstatusNote, warpImage } from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const SECRET = 'a value = with spaces';
let made: Compared;

beforeAll(async () => {
  made = await capture(directory, { COMPARED: SECRET });
});

// What our commands say.

function tool(...argv: string[]): string {
  const { status, stdout, stderr } = warpTool(...argv);
  expect([0, 1], `${argv.join(' ')}: ${stderr}`).toContain(status);
  return stdout;
}

/** The document of a command on the first image. */
function json<T = Record<string, unknown>>(command: string, ...argv: string[]): T {
  return JSON.parse(tool(command, made.before, ...argv, '--json')) as T;
}

interface Shown {
  image: string;
  size: number;
  format: string;
  engine: string;
  captured_at: string;
  flags: string[];
  process: Record<string, unknown>;
  labels: unknown[];
  signal: unknown;
  threads: { count: number };
  memory: { by_kind: { kind: string; mapped: number; stored: number }[] };
  files: { path: string; build_id: string | null }[];
}
interface Area {
  start: string;
  end: string;
  protection: string;
  kind: string;
  name: string;
  offset: string;
  resident: number;
  stored: number;
  build_id: string | null;
  ranges: { start: string; end: string; from: string }[] | null;
}
interface ThreadRow {
  tid: number;
  name: string;
  state: string;
  leader: boolean;
  system_call: string;
  stack_pointer: string;
  signal: string | null;
  registers: { general: Record<string, string>; vectors: Record<string, string>; mxcsr: string } | null;
  frames: { function: string | null; module: string | null; file: string | null; line: number | null }[];
}
interface Fd {
  fd: number;
  kind: string;
  path: string;
  offset: number | null;
  detail: Record<string, unknown>;
}
interface Mem {
  dump: { start: string; end: string; bytes: string | null; symbol: string | null }[];
  values: { value: string; target: { symbol: string | null; area: { name: string } } | null }[];
  search: {
    matches: { address: string; bytes: string; context: { bytes: string } | null; at: { symbol: string | null; area: { name: string } } }[];
  };
}
interface Decoded {
  header: Record<string, unknown>;
  segments: { type: number; address: string; memory_size: string }[];
  notes: { notes: { owner: string; name: string; records?: Record<string, unknown>[]; meaning?: unknown }[] }[];
}

const show = (): Shown => json<Shown>('show');
const maps = (...argv: string[]): Area[] => json<{ maps: Area[] }>('maps', ...argv).maps;
const threads = (...argv: string[]): ThreadRow[] => json<{ threads: ThreadRow[] }>('threads', ...argv).threads;
const fds = (): Fd[] => json<{ descriptors: Fd[] }>('fds').descriptors;
const mem = (...argv: string[]): Mem => json<Mem>('mem', ...argv);
const found = (...argv: string[]): string[] => mem(...argv).search.matches.map(({ address }) => address);
const bytesOf = ({ dump }: Mem): Buffer => Buffer.concat(dump.map(({ bytes }) => Buffer.from(bytes!, 'hex')));
const decoded = (): Decoded => JSON.parse(tool('decode', made.before)) as Decoded;
const notes = (): Decoded['notes'][number]['notes'] => decoded().notes.flatMap((part) => part.notes);
const text = (address: bigint): string => `0x${address.toString(16)}`;
const core = (): string => join(made.before, 'core.img');

interface Diff {
  different: boolean;
  changes: { section: string; key: string; kind: string; fields: { field: string; a: string; b: string }[] }[];
  memory: {
    pages: number;
    areas: { area: { start: string }; ranges: { start: string; end: string }[]; rows: unknown; more_rows: boolean }[];
  } | null;
}
const diff = (...argv: string[]): Diff => JSON.parse(tool('diff', made.before, made.after, ...argv, '--json')) as Diff;

// What the others say.

function needs(context: TestContext, ...programs: string[]): void {
  const reason = missing(...programs);
  if (reason) context.skip(reason);
}

/** GDB on the image, with the program's file and nothing of ours. */
function gdb(context: TestContext, ...commands: string[]): string {
  needs(context, 'gdb');
  const argv = commands.flatMap((command) => ['-ex', command]);
  const output = execFileSync('gdb', ['-nx', '-batch', made.executable, core(), '-ex', 'set width 0', '-ex', 'echo opened\\n', ...argv], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return output.slice(output.indexOf('\nopened\n') + '\nopened\n'.length);
}

/** GDB through `warp-tool gdb`. */
function ourGdb(context: TestContext, ...commands: string[]): string {
  needs(context, 'gdb');
  return tool('gdb', made.before, '--', '-nx', '-batch', ...commands.flatMap((command) => ['-ex', command]));
}

/** What a script for drgn prints, on the image as it is; skips the test where drgn is not installed. */
function drgn(context: TestContext, script: string): string {
  needs(context, 'drgn');
  const path = join(directory, 'script.py');
  writeFileSync(path, `import drgn\n${script}\n`);
  return execFileSync('drgn', ['-q', '-c', core(), path], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
}

/** The numbers in a text, in their order. */
const numbers = (output: string): bigint[] => [...output.matchAll(/\b(?:0x[0-9a-f]+|\d+)\b/g)].map(([one]) => BigInt(one));

/** Writes the memory of a range to a file and reads it. */
function extract(range: string): Buffer {
  const path = join(directory, 'extracted');
  tool('mem', made.before, '--extract', range, '-o', path);
  return readFileSync(path);
}

function roundTrip(input: string[], stdin?: string): void {
  const out = join(directory, 'encoded');
  removeDirectory(out);
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'bin/run.js'), 'encode', ...input, '-o', out], {
    encoding: 'utf8',
    input: stdin,
  });
  expect([status, stderr]).toEqual([0, '']);
  expect(readFileSync(join(out, 'core.img')).equals(readFileSync(core()))).toBe(true);
}

function showsProcess(): void {
  expect(show().process).toMatchObject({
    pid: made.pid,
    name: 'compared',
    command: [made.executable, made.file],
    executable: made.executable,
  });
}

function showsDescriptors(): void {
  const rows = fds();
  expect(rows.find(({ fd }) => fd === 3)).toMatchObject({ kind: 'file', path: made.file, offset: 5, detail: { size: 5 } });
  expect(rows.filter(({ kind }) => kind === 'pipe').map(({ detail }) => detail['unread'])).toEqual([6, 6]);
  expect(show().process).toMatchObject({ cwd: made.directory, root: '/' });
}

function showsSockets(): void {
  const sockets = fds().filter(({ kind }) => kind === 'socket');
  const [one, other] = sockets.filter(({ detail }) => detail['family'] === 'unix');
  expect([one!.detail['peer'], other!.detail['peer']]).toEqual([[other!.fd], [one!.fd]]);
  expect(sockets.find(({ detail }) => detail['family'] === 'ipv4')!.detail).toMatchObject({
    type: 'stream',
    state: 'listening',
    local: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    backlog: 7,
    options: { SO_REUSEADDR: '1', SO_RCVBUF: '65536' },
  });
  expect(tool('fds', made.before)).toMatch(/tcp listening, 127\.0\.0\.1:\d+, reuseaddr, receive buffer 64\.0 KiB, backlog 7/);
}

function showsEnvironment(): void {
  const { environment } = json<{ environment: { name: string; value: string }[] }>('env');
  expect(environment).toContainEqual({ name: 'COMPARED', value: SECRET });
}

function showsOverview(): void {
  const shown = show();
  expect(shown).toMatchObject({
    format: `${FORMAT_MAJOR}.${FORMAT_MINOR}`,
    engine: expect.stringMatching(/^warp \d/),
    flags: ['left-running'],
    size: statSync(core()).size,
  });
  expect(Date.parse(shown.captured_at)).toBeLessThanOrEqual(Date.now());
  const screen = tool('show', made.before);
  for (const part of ['compared', String(made.pid), made.executable, 'Linux', 'threads', 'memory', 'descriptors', 'needs'])
    expect(screen).toContain(part);
}

/** Registers of every thread as GDB's `info registers` has them. */
function comparesRegisters(context: TestContext): void {
  const output = gdb(context, 'thread apply all info registers');
  const rows = new Map(threads('--registers').map((row) => [row.tid, row.registers!.general]));
  const parts = output.split(/^Thread /m).slice(1);
  expect(parts).toHaveLength(rows.size);
  for (const part of parts) {
    const general = rows.get(Number(/LWP (\d+)/.exec(part)![1]))!;
    let compared = 0;
    for (const [, name, value] of part.matchAll(/^(\w+) +(0x[0-9a-f]+) /gm)) {
      if (general[name!] === undefined) continue;
      expect(BigInt.asUintN(64, BigInt(general[name!]!)), name).toBe(BigInt(value!));
      compared++;
    }
    expect(compared).toBeGreaterThanOrEqual(24);
  }
}

/** Ranges and protection against the segments that readelf prints: content lies in areas of the same protection. */
function comparesSegments(context: TestContext): void {
  needs(context, 'readelf');
  const areas = maps();
  const loads = readelfSegments(core()).filter(({ type, memorySize }) => type === 'LOAD' && memorySize > 0n);
  expect(loads.length).toBeGreaterThan(20);
  for (const { address, memorySize, protection } of loads) {
    const area = areas.find(({ start, end }) => BigInt(start) <= address && address + memorySize <= BigInt(end));
    expect(area?.protection.slice(0, 3), text(address)).toBe(protection);
  }
}

function listsMappings(): void {
  const rows = maps();
  const code = rows.find(({ name, protection }) => name === made.executable && protection.startsWith('r-x'))!;
  expect(code).toMatchObject({ kind: 'file', offset: '0x1000' });
  expect(rows.find(({ start }) => start === text(PLACES.memory))).toMatchObject({
    end: text(PLACES.memory + 0x10000n),
    protection: 'rw-p',
    kind: 'anonymous',
  });
  expect(rows.find(({ start }) => start === text(PLACES.shared))).toMatchObject({ protection: 'rw-s', kind: 'object' });
}

function showsStacks(): void {
  const rows = threads('--stack');
  for (const row of rows) {
    const names = row.frames.map((frame) => frame.function);
    if (row.leader) expect(names).toContain('main');
    else expect(names).toEqual(expect.arrayContaining(['sleep_for_ever', 'worker', 'start_thread']));
    const own = row.frames.find((frame) => frame.function === (row.leader ? 'main' : 'worker'))!;
    expect([own.file, own.line]).toEqual([`${made.executable}.c`, expect.any(Number)]);
  }
}

function findsText(): void {
  expect(found('--text', TEXT, '--in', 'anon')).toEqual([text(PLACES.text)]);
}

function showsPointers(): void {
  const { values } = mem(`${text(PLACES.pointers)}:24`, '--as', 'ptr');
  expect(values).toMatchObject([
    { target: { symbol: 'worker' } },
    { value: text(PLACES.text), target: { symbol: null } },
    { value: '0x0', target: null },
  ]);
}

const shows: Record<string, (context: TestContext) => void | Promise<void>> = {
  'criu-dump': () => {
    expect(show()).toMatchObject({ engine: expect.stringMatching(/\d/), process: { pid: made.pid } });
    expect(show().process['uid']).not.toBe(0);
  },
  'criu-dump-leave-running': () => {
    // The same process, captured twice.
    expect(JSON.parse(tool('diff', made.before, made.after, '--json'))).toMatchObject({ different: true });
    expect((JSON.parse(tool('show', made.after, '--json')) as Shown).process['pid']).toBe(made.pid);
  },
  'criu-check': () => {
    const { checks } = JSON.parse(tool('doctor', '--json')) as { checks: { name: string; status: string }[] };
    expect(checks.find(({ name }) => name === 'trial')).toMatchObject({ status: 'ok' });
    expect(tool('engines')).toMatch(/^warp +yes/m);
  },
  'criu-images': () => {
    const dumped = join(directory, 'criu');
    mkdirSync(dumped);
    for (const [name, bytes] of Object.entries(criuImage)) writeFileSync(join(dumped, name), bytes);
    expect(tool('show', dumped)).toMatch(/image of CRIU[^]*program --flag[^]*\/srv/);
    expect(tool('threads', dumped)).toMatch(/101 +worker/);
    expect(tool('maps', dumped)).toMatch(/\/usr\/bin\/program/);
    expect(tool('fds', dumped)).toMatch(/127\.0\.0\.1:8080/);
  },

  'crit-decode': () => {
    const path = join(directory, 'image.json');
    tool('decode', made.before, '-o', path);
    const names = (JSON.parse(readFileSync(path, 'utf8')) as Decoded).notes.flatMap((part) => part.notes.map(({ name }) => name));
    expect(names).toEqual(
      expect.arrayContaining(['image', 'process', 'threads', 'vmas', 'files', 'descriptors', 'sockets', 'NT_PRSTATUS']),
    );
    expect(JSON.parse(tool('schema', 'decode'))).toMatchObject({ type: 'object' });
  },
  'crit-encode': () => {
    const path = join(directory, 'image.json');
    tool('decode', made.before, '-o', path);
    roundTrip([path]);
    roundTrip(['-'], tool('decode', made.before));
  },
  'crit-show': () => {
    showsOverview();
    for (const command of ['threads', 'maps', 'fds', 'env', 'signals', 'auxv', 'notes'])
      expect(tool(command, made.before).split('\n').length).toBeGreaterThan(3);
  },
  'crit-show-nopl': () => {
    expect(tool('notes', made.before)).not.toContain('unread');
    expect(JSON.stringify(notes().find(({ name }) => name === 'pipes'))).toContain('unread');
  },
  'crit-info': () => {
    const rows = json<{ notes: { name: string; records: number | null; size: number; type: string }[] }>('notes').notes;
    expect(rows.find(({ name }) => name === 'threads')).toMatchObject({ records: 1 + WORKERS, type: '0x57415203' });
    expect(rows.find(({ name }) => name === 'vmas')!.records).toBe(maps().length);
  },
  'crit-x-ps': () => {
    const { process: shown } = show();
    expect(shown).toMatchObject({ pid: made.pid, name: 'compared', process_group: expect.any(Number), session: expect.any(Number) });
    expect(tool('show', made.before)).toContain(
      `compared  pid ${made.pid}, parent ${shown['parent_pid']}, group ${shown['process_group']}`,
    );
  },
  'crit-x-fds': () => {
    showsDescriptors();
    showsSockets();
  },
  'crit-x-mems': () => {
    listsMappings();
    showsProcess();
  },
  'crit-x-rss': () => {
    const area = maps('--ranges').find(({ start }) => start === text(PLACES.memory))!;
    // Pages 0 to 4 have been written to, and page 2 in part only; the rest has never been touched.
    expect(area.ranges).toEqual([
      { start: text(PLACES.memory), end: text(PLACES.memory + 0x5000n), from: 'image' },
      { start: text(PLACES.memory + 0x5000n), end: text(PLACES.memory + 0x10000n), from: 'zero' },
    ]);
    expect([area.resident, area.stored]).toEqual([5 * PAGE, 5 * PAGE]);
    const sorted = maps('--sort', 'rss').map(({ resident }) => resident);
    expect(sorted).toEqual(sorted.toSorted((a, b) => b - a));
  },

  'coredump-convert': (context) => {
    expect(gdb(context, 'info threads').match(/LWP \d+/g)!.length).toBeGreaterThanOrEqual(1 + WORKERS);
    expect(ourGdb(context, 'bt')).toMatch(/ main \(/);
  },
  'coredump-pid': showsProcess,

  'checkpointctl-show': showsOverview,
  'checkpointctl-inspect': showsOverview,
  'checkpointctl-inspect-stats': () => {
    const stats = JSON.parse(readFileSync(made.stats, 'utf8')) as Record<string, number>;
    for (const name of ['paused_us', 'scan_us', 'write_us', 'total_us', 'bytes_written', 'stored_bytes', 'memory_areas', 'threads']) {
      expect(stats[name], name).toBeGreaterThan(0);
    }
    expect(tool('restore', '--help')).toContain('--stats=FILE');
  },
  'checkpointctl-inspect-pid': showsProcess,
  'checkpointctl-inspect-ps-tree': () => {
    const rows = threads();
    expect(rows.map(({ name }) => name)).toEqual(['compared', ...Array.from({ length: WORKERS }, (_, index) => `worker-${index + 1}`)]);
    expect(rows.map(({ state }) => state)).toEqual(Array.from({ length: 1 + WORKERS }, () => 'S'));
  },
  'checkpointctl-inspect-ps-tree-cmd': () => {
    showsProcess();
    expect(tool('show', made.before)).toContain(`${made.executable} '${made.file}'`);
  },
  'checkpointctl-inspect-ps-tree-env': showsEnvironment,
  'checkpointctl-inspect-files': showsDescriptors,
  'checkpointctl-inspect-sockets': showsSockets,
  'checkpointctl-inspect-all': () => {
    const everything = tool('decode', made.before);
    for (const part of [made.file, SECRET, 'worker-2', 'unread', '/lib/']) expect(everything, part).toContain(part);
  },
  'checkpointctl-inspect-format': () => {
    const { anyOf } = JSON.parse(tool('schema', 'show')) as { anyOf: { required: string[] }[] };
    expect(anyOf.map(({ required }) => required.toSorted())).toContainEqual(Object.keys(show()).toSorted());
  },
  'checkpointctl-inspect-metadata': async () => {
    const labelled = await warpImage({
      segments: [],
      tables: { tags: [{ kind: 1, name: Buffer.from('pod'), value: Buffer.from('search-0') }] },
    });
    const image = imageDirectory(directory, 'labelled', labelled);
    expect((JSON.parse(tool('show', image, '--json')) as Shown).labels).toEqual([{ kind: 'label', name: 'pod', value: 'search-0' }]);
  },
  'checkpointctl-memparse': () => {
    const kinds = new Map(show().memory.by_kind.map((row) => [row.kind, row]));
    expect(kinds.get('object')).toMatchObject({ mapped: 4 * PAGE, stored: PAGE });
    expect(kinds.get('anonymous')!.stored).toBeGreaterThanOrEqual(5 * PAGE);
  },
  'checkpointctl-memparse-pid': () => {
    const all = tool('mem', made.before, '--range', '0-7fffffffffff');
    expect(all).toContain('|..........');
    expect(all).toMatch(/^0x510000001000 .*\|\.{11}needl\|$/m);
    const narrow = tool('mem', made.before, '--in', 'anon', '--prot', 'rw', '--range', `${text(PLACES.memory)}:65536`);
    expect(all).toContain(narrow.split('\n')[1]);
    expect(narrow.length).toBeLessThan(all.length / 4);
  },
  'checkpointctl-memparse-output': () => {
    const bytes = extract(`${text(PLACES.memory)}:65536`);
    expect(bytes.length).toBe(65536);
    expect(bytes.indexOf(TEXT)).toBe(Number(PLACES.text - PLACES.memory));
  },
  'checkpointctl-memparse-search': () => {
    findsText();
    const [match] = mem('--text', SHARED_TEXT, '--in', 'zero*').search.matches;
    expect(match!.at.area.name).toContain('zero');
  },
  'checkpointctl-memparse-search-regex': () => {
    expect(found('--regex', 'needle .{1,20} dump', '--in', 'anon')).toEqual([text(PLACES.text)]);
  },
  'checkpointctl-memparse-context': () => {
    const [match] = mem('--text', TEXT, '--in', 'anon', '--context', '64').search.matches;
    expect(Buffer.from(match!.context!.bytes, 'hex').indexOf(TEXT)).toBe(64);
  },
  'checkpointctl-diff': () => {
    const { different, changes } = diff();
    expect(different).toBe(true);
    expect(changes.filter(({ section }) => section === 'threads').map(({ key }) => key)).toEqual([expect.stringContaining('compared')]);
  },
  'checkpointctl-diff-memory': () => {
    const { memory } = diff('--memory');
    const area = memory!.areas.find((one) => one.area.start === text(PLACES.memory))!;
    const page = PLACES.changed - (PLACES.changed % BigInt(PAGE));
    expect(area.ranges).toEqual([{ start: text(page), end: text(page + BigInt(PAGE)) }]);
  },
  'checkpointctl-diff-ps-tree': async () => {
    const image = async (name: string, argument: string, value: string): Promise<string> => {
      const environment = Buffer.from(`NAME=${value}\0`);
      const content = await warpImage({
        segments: [
          { address: 0x10000n, size: BigInt(PAGE), content: Buffer.concat([environment, Buffer.alloc(PAGE - environment.length)]) },
        ],
        tables: {
          image: [{ command: Buffer.from(`a\0${argument}\0`) }],
          process: [{ env_start: 0x10000n, env_end: 0x10000n + BigInt(environment.length) }],
        },
      });
      return imageDirectory(directory, name, content);
    };
    const [one, other] = [await image('one', 'first', 'red'), await image('other', 'second', 'green')];
    const { changes } = JSON.parse(tool('diff', one, other, '--json')) as Diff;
    expect(changes).toContainEqual(
      expect.objectContaining({ section: 'environment', key: 'NAME', fields: [{ field: 'value', a: 'red', b: 'green' }] }),
    );
    expect(changes.find(({ section }) => section === 'process')!.fields).toContainEqual({
      field: 'arguments',
      a: 'a first',
      b: 'a second',
    });
  },
  'checkpointctl-diff-files': () => {
    const { changes } = diff();
    expect(changes).toContainEqual(expect.objectContaining({ section: 'descriptors', key: 'fd 50', kind: 'added' }));
  },
  'checkpointctl-diff-format': () => {
    expect(Object.keys(diff())).toEqual(expect.arrayContaining(['a', 'b', 'different', 'summary', 'changes', 'memory']));
  },
  'checkpointctl-completion': () => {
    expect(tool('completion', 'bash')).toContain('complete -o filenames -F _warp_tool warp-tool');
    expect(tool('completion', 'zsh')).toContain('#compdef warp-tool');
    expect(tool('completion', 'fish')).toContain('complete -c warp-tool');
  },

  'crit-compress': () => {
    const small = join(directory, 'small');
    tool('compress', made.before, '-o', small, '--level', '9', '--chunk-size', '64K');
    expect(statSync(join(small, 'core.img')).size).toBeLessThan(statSync(core()).size);
    expect(tool('mem', small, text(PLACES.text), '--as', 'cstr')).toContain(TEXT);
    expect(tool('threads', small, '--registers')).toBe(tool('threads', made.before, '--registers'));
  },
  'crit-decompress': () => {
    const [small, plain] = [join(directory, 'small-again'), join(directory, 'plain-again')];
    tool('compress', made.before, '-o', small);
    tool('decompress', small, '-o', plain);
    expect(readFileSync(join(plain, 'core.img')).equals(readFileSync(core()))).toBe(true);
  },
  'checkpointctl-list': () => {
    const listed = [made.before, made.after].map((image) => JSON.parse(tool('show', image, '--json')) as Shown);
    expect(listed.map(({ process }) => process['name'])).toEqual(['compared', 'compared']);
    for (const { engine, captured_at: time, size } of listed) {
      expect([engine, time]).toEqual([expect.stringMatching(/^warp \d/), expect.stringMatching(/^20\d\d-/)]);
      expect(size).toBeGreaterThan(0);
    }
    expect(warpTool('list', directory)).toMatchObject({ status: 2, stderr: expect.stringContaining('s3://BUCKET/KEY') });
  },
  'readable-by-all': () => {
    const [key, sealed, again] = ['key', 'sealed', 'unsealed'].map((name) => join(directory, name)) as [string, string, string];
    writeFileSync(key, randomBytes(32), { mode: 0o600 });
    expect(readFileSync(core()).includes(TEXT)).toBe(true);
    tool('encrypt', made.before, '-o', sealed, '--encryption-key-file', key);
    for (const secret of [TEXT, 'worker-1', made.executable])
      expect(readFileSync(join(sealed, 'core.img')).includes(secret), secret).toBe(false);
    expect(tool('mem', sealed, text(PLACES.text), '--as', 'cstr', '--encryption-key-file', key)).toContain(TEXT);
    tool('decrypt', sealed, '-o', again, '--encryption-key-file', key);
    expect(readFileSync(join(again, 'core.img')).equals(readFileSync(core()))).toBe(true);
  },

  'readelf-header': (context) => {
    needs(context, 'readelf');
    const { header, segments } = decoded();
    const output = execFileSync('readelf', ['-hW', core()], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
    const field = (name: string): bigint => BigInt(new RegExp(`${name}: +(\\S+)`).exec(output)![1]!);
    expect(BigInt(header['phoff'] as string)).toBe(field('Start of program headers'));
    expect([header['phnum'], header['ehsize'], header['phentsize']].map((value) => BigInt(value as number))).toEqual([
      field('Number of program headers'),
      field('Size of this header'),
      field('Size of program headers'),
    ]);
    expect(segments).toHaveLength(Number(header['phnum']));
  },
  'readelf-segments': (context) => {
    comparesSegments(context);
    expect(decoded().segments.map(({ address, memory_size: size }) => [BigInt(address), BigInt(size)])).toEqual(
      readelfSegments(core()).map(({ address, memorySize }) => [address, memorySize]),
    );
  },
  'readelf-notes': (context) => {
    needs(context, 'readelf');
    const output = execFileSync('readelf', ['-nW', core()], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
    const theirs = [...output.matchAll(/^  (\S+) +(0x[0-9a-f]{8})\t(\S+)/gm)];
    const ours = json<{ notes: { owner: string; size: number; name: string }[] }>('notes').notes;
    expect(theirs.map(([, owner, size]) => [owner, Number(size)])).toEqual(ours.map(({ owner, size }) => [owner, size]));
    for (const [index, [, , , name]] of theirs.entries()) if (name!.startsWith('NT_')) expect(ours[index]!.name).toBe(name);
    listsMappings();
  },
  'eu-readelf-notes': (context) => {
    needs(context, 'eu-readelf');
    // test/foreign-programs.test.ts compares every field of every note, on five other core files.
    const theirs = euReadelfNotes(core());
    const rows = threads('--registers');
    const statuses = theirs.filter(({ type }) => type === 'PRSTATUS');
    expect(statuses).toHaveLength(rows.length);
    for (const { fields } of statuses) {
      const row = rows.find(({ tid }) => tid === Number(fields['pid']))!;
      for (const name of ['rip', 'rsp', 'r12', 'rax', 'rdi'])
        expect(BigInt.asUintN(64, BigInt(row.registers!.general[name]!)), name).toBe(BigInt.asUintN(64, BigInt(fields[name]!)));
    }
    const vector = theirs.find(({ type }) => type === 'AUXV')!;
    const { auxv } = json<{ auxv: { name: string; value: string }[] }>('auxv');
    for (const name of ['PHDR', 'ENTRY', 'BASE', 'SYSINFO_EHDR', 'EXECFN'])
      expect(BigInt(auxv.find((entry) => entry.name === `AT_${name}`)!.value)).toBe(BigInt(vector.fields[name]!));
  },
  'readelf-hex-dump': () => {
    expect(tool('mem', made.before, `${text(PLACES.text)}:5`)).toContain('6e 65 65 64 6c');
    expect(tool('mem', made.before, '--strings', '--in', 'anon')).toContain(TEXT);
  },
  'readelf-opens-ours': (context) => {
    needs(context, 'readelf', 'eu-readelf');
    for (const [program, option] of [
      ['readelf', '-lW'],
      ['eu-readelf', '-n'],
      ['eu-readelf', '-l'],
    ] as const) {
      const { status, stderr, stdout } = spawnSync(program, [option, core()], { encoding: 'utf8', maxBuffer: 1 << 28 });
      expect([program, status, stderr]).toEqual([program, 0, '']);
      expect(stdout).toMatch(/LOAD|PRSTATUS/);
    }
  },

  'gdb-core': (context) => {
    const output = ourGdb(context, 'info threads');
    for (let number = 1; number <= WORKERS; number++) expect(output).toContain(`"worker-${number}"`);
    expect(output).toMatch(/sleep_for_ever|pause/);
  },
  'gdb-batch': (context) => {
    needs(context, 'gdb');
    const script = join(directory, 'image.gdb');
    tool('gdb-script', made.before, '-o', script);
    const output = execFileSync('gdb', ['-nx', '-batch', '-x', script, '-ex', 'bt'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    expect(output).toMatch(/ main \(/);
    expect(ourGdb(context, 'bt')).toMatch(/ main \(/);
  },
  'gdb-info-threads': (context) => {
    const theirs = [...gdb(context, 'info threads').matchAll(/LWP (\d+)\)/g)].map(([, tid]) => Number(tid));
    const rows = threads();
    expect(rows.map(({ tid }) => tid).toSorted()).toEqual([...new Set(theirs)].toSorted());
    expect(rows.map(({ system_call: call }) => call)).toEqual(['read', ...Array.from({ length: WORKERS }, () => 'pause')]);
  },
  'gdb-info-registers': (context) => {
    comparesRegisters(context);
    const [leader] = threads('--registers');
    const theirs = gdb(context, 'p $mxcsr', 'p/x $ymm0.v2_int128');
    expect(Number(leader!.registers!.mxcsr)).toBe(0x1f80);
    expect(theirs).toMatch(/IM DM ZM OM UM PM/);
    const lanes = [...theirs.matchAll(/0x([0-9a-f]+)/g)].map(([, digits]) => digits!.padStart(32, '0')).toReversed();
    const ours = leader!.registers!.vectors['zmm0'] ?? leader!.registers!.vectors['ymm0']!;
    expect(ours.slice(-64)).toBe(lanes.join(''));
  },
  'gdb-bt': (context) => {
    needs(context, 'gdb');
    showsStacks();
  },
  'gdb-bt-full': (context) => {
    const output = ourGdb(context, 'thread apply all bt full');
    expect(output).toMatch(/name = "worker-1/);
    expect(ourGdb(context, 'frame function main', 'info locals')).toMatch(/memory = |file = /);
  },
  'gdb-disassemble': (context) => {
    expect(ourGdb(context, 'disassemble main')).toMatch(/<\+\d+>:\s+call/);
    expect(ourGdb(context, 'list worker')).toContain('PR_SET_NAME');
  },
  'gdb-info-files': (context) => {
    const output = gdb(context, 'info files');
    const areas = maps();
    const loads = [...output.matchAll(/(0x[0-9a-f]+) - (0x[0-9a-f]+) is load/g)];
    expect(loads.length).toBeGreaterThan(20);
    for (const [, start, end] of loads)
      expect(
        areas.some((area) => BigInt(area.start) <= BigInt(start!) && BigInt(end!) <= BigInt(area.end)),
        start,
      ).toBe(true);
  },
  'gdb-info-proc-mappings': (context) => {
    const theirs = [
      ...gdb(context, 'info proc mappings').matchAll(/^ +(0x[0-9a-f]+) +(0x[0-9a-f]+) +0x[0-9a-f]+ +(0x[0-9a-f]+) +(\/.*)$/gm),
    ];
    const areas = maps();
    expect(theirs.length).toBeGreaterThan(10);
    for (const [, start, end, offset, path] of theirs) {
      const area = areas.find((one) => BigInt(one.start) === BigInt(start!))!;
      expect([BigInt(area.end), BigInt(area.offset)]).toEqual([BigInt(end!), BigInt(offset!)]);
      expect(path!.replace(' (deleted)', '')).toBe(area.kind === 'object' ? '/dev/zero' : area.name);
    }
  },
  'gdb-info-proc': (context) => {
    showsProcess();
    expect(show().process).toMatchObject({ cwd: made.directory });
    expect(gdb(context, 'info proc')).toContain(made.executable);
  },
  'gdb-info-auxv': (context) => {
    const output = gdb(context, 'info auxv');
    const { auxv } = json<{ auxv: { type: number; name: string; value: string; text: string | null }[] }>('auxv');
    for (const [, type, name, value] of output.matchAll(/^(\d+) +(AT_\w+|\?\?\?) .* (0x[0-9a-f]+|\d+)(?: ".*")?$/gm)) {
      if (name === 'AT_NULL') continue;
      const entry = auxv.find((one) => one.type === Number(type))!;
      expect(BigInt(entry.value), name).toBe(BigInt(value!));
    }
    expect(auxv.find(({ name }) => name === 'AT_EXECFN')!.text).toBe(made.executable);
  },
  'gdb-info-sharedlibrary': (context) => {
    const output = gdb(context, 'info sharedlibrary');
    const libraries = [...output.matchAll(/^(0x[0-9a-f]+) +(0x[0-9a-f]+) .*\/([^/\s]+)$/gm)];
    expect(libraries.length).toBeGreaterThanOrEqual(2);
    const areas = maps();
    for (const [, start, , name] of libraries) {
      const area = areas.find((one) => BigInt(one.start) <= BigInt(start!) && BigInt(start!) < BigInt(one.end))!;
      expect([area.name.endsWith(`/${name}`), area.protection]).toEqual([true, 'r-xp']);
    }
    expect(areas.find(({ name }) => name.endsWith('/libc.so.6'))!.build_id).toMatch(/^[0-9a-f]{40}$/);
  },
  'gdb-siginfo': () => {
    // A process that was captured died of nothing; test/foreign-programs.test.ts has one that did.
    expect(show().signal).toBeNull();
    const raw = Buffer.from(prstatusNote(7));
    raw.writeInt16LE(11, 20 + 12); // pr_cursig, behind the note's header and name
    const information = foreignCore({
      segments: [{ address: 0x10000n, size: 4096n, content: Buffer.alloc(PAGE) }],
      notes: [raw, prpsinfoNote(7, 'crashed')],
    });
    const path = join(directory, 'crashed.core');
    writeFileSync(path, information);
    expect((JSON.parse(tool('show', path, '--json')) as Shown).signal).toMatchObject({ name: 'SIGSEGV', thread: 7 });
    expect(tool('threads', path)).toContain('died of SIGSEGV');
  },
  'gdb-info-signals': () => {
    const { actions } = json<{ actions: { name: string; disposition: string; handler: { symbol: string } | null }[] }>('signals');
    expect(actions.find(({ name }) => name === 'SIGUSR1')).toMatchObject({ disposition: 'handler', handler: { symbol: 'on_usr1' } });
    expect(actions.find(({ name }) => name === 'SIGPIPE')).toMatchObject({ disposition: 'ignore' });
  },
  'gdb-x': (context) => {
    const theirs = numbers(gdb(context, `x/8xb ${text(PLACES.text)}`).replaceAll(/^.*:/gm, ''));
    expect([...bytesOf(mem(`${text(PLACES.text)}:8`))].map(BigInt)).toEqual(theirs);
    expect(mem(text(PLACES.numbers), '--as', 'u32').values).toMatchObject([{ value: String(0xc0ffee42) }]);
    expect(mem(text(PLACES.numbers + 8n), '--as', 'f64').values).toMatchObject([{ value: '2.5' }]);
    expect(gdb(context, `x/uw ${text(PLACES.numbers)}`, `x/fg ${text(PLACES.numbers + 8n)}`)).toMatch(/3237998146\n.*2\.5/s);
  },
  'gdb-x-string': (context) => {
    expect(mem(text(PLACES.text), '--as', 'cstr').values).toMatchObject([{ value: TEXT }]);
    expect(gdb(context, `x/s ${text(PLACES.text)}`)).toContain(`"${TEXT}"`);
  },
  'gdb-x-symbol': (context) => {
    expect(mem('answer', '--as', 'i32').values).toMatchObject([{ value: '42' }]);
    expect(mem('origin', '--as', 'i32').values).toMatchObject([{ value: '3' }, { value: '4' }]);
    expect(numbers(gdb(context, 'print &main'))).toContain(BigInt(mem('main').dump[0]!.start));
  },
  'gdb-info-symbol': (context) => {
    showsPointers();
    expect(gdb(context, `x/a ${text(PLACES.pointers)}`)).toContain('<worker>');
  },
  'gdb-find': (context) => {
    const range = `${text(PLACES.memory)}:65536`;
    expect(found('--text', TEXT, '--range', range)).toEqual([text(PLACES.text)]);
    expect(gdb(context, `find ${text(PLACES.memory)}, +65536, "${TEXT}"`)).toContain(text(PLACES.text));
    const theirs = gdb(context, `find /w ${text(PLACES.memory)}, +65536, 0xc0ffee42`);
    expect(theirs).toContain(text(PLACES.numbers));
    expect(found('--value', '0xc0ffee42', '--as', 'u32', '--range', range)).toEqual([text(PLACES.numbers)]);
  },
  'gdb-dump-memory': (context) => {
    const path = join(directory, 'dumped');
    gdb(context, `dump memory ${path} ${text(PLACES.memory)} ${text(PLACES.memory + 0x10000n)}`);
    expect(extract(`${text(PLACES.memory)}-${text(PLACES.memory + 0x10000n)}`).equals(readFileSync(path))).toBe(true);
  },
  'gdb-compare-sections': (context) => {
    needs(context, 'gdb');
    const { host } = json<{ host: { checks: { check: string; state: string }[] } | null }>('validate', '--host');
    expect(JSON.stringify(host)).not.toContain('build-id');
    const changed = join(directory, 'kept');
    writeFileSync(changed, readFileSync(made.executable));
    try {
      execFileSync('cc', ['-g', '-O0', '-pthread', '-o', `${made.executable}.new`, `${made.executable}.c`]);
      execFileSync('mv', [`${made.executable}.new`, made.executable]);
      const { status, stdout } = warpTool('validate', made.before, '--host');
      expect(status).toBe(1);
      expect(stdout).toMatch(/compared.*(changed|build-id)/);
    } finally {
      execFileSync('cp', [changed, `${made.executable}.old`]);
      execFileSync('chmod', ['755', `${made.executable}.old`]);
      execFileSync('mv', [`${made.executable}.old`, made.executable]);
    }
  },
  'gdb-gcore': (context) => {
    expect(readelfSegments(core()).some(({ type }) => type === 'LOAD')).toBe(true);
    expect(ourGdb(context, `x/s ${text(PLACES.text)}`)).toContain(TEXT);
  },

  'drgn-core': (context) => {
    expect(drgn(context, 'print(prog.flags, prog.platform.arch)')).toContain('X86_64');
    if (typeof made.core === 'string') expect(JSON.parse(tool('show', made.core, '--json'))).toMatchObject({ process: { pid: made.pid } });
  },
  'drgn-threads': (context) => {
    const theirs = numbers(drgn(context, 'for thread in prog.threads(): print(thread.tid)\nprint(prog.main_thread().tid)')).map(Number);
    const rows = threads();
    expect(rows.map(({ tid }) => tid).toSorted()).toEqual(theirs.slice(0, -1).toSorted());
    expect(rows.find(({ leader }) => leader)!.tid).toBe(theirs.at(-1));
    expect(rows.every(({ name }) => name !== '')).toBe(true);
  },
  'drgn-stack-trace': (context) => {
    needs(context, 'gdb');
    showsStacks();
    const theirs = drgn(context, 'print(prog.stack_trace(prog.main_thread().tid))');
    expect(theirs).toMatch(/ main \(.*compared\.c:\d+/);
  },
  'drgn-frame': (context) => {
    expect(ourGdb(context, 'frame function main', 'info locals')).toMatch(/memory = |file = /);
  },
  'drgn-registers': (context) => {
    const theirs = drgn(
      context,
      'r = prog.stack_trace(prog.main_thread().tid)[0].registers()\nprint("\\n".join(f"{n} {hex(v)}" for n, v in r.items()))',
    );
    const [leader] = threads('--registers');
    let compared = 0;
    for (const [, name, value] of theirs.matchAll(/^(r\w+) (0x[0-9a-f]+)$/gm)) {
      const own = leader!.registers!.general[name!];
      if (own === undefined) continue;
      expect(BigInt.asUintN(64, BigInt(own)), name).toBe(BigInt(value!));
      compared++;
    }
    expect(compared).toBeGreaterThanOrEqual(16);
  },
  'drgn-read': (context) => {
    const theirs = drgn(context, `print(prog.read(${PLACES.memory}, 8192).hex())`);
    expect(bytesOf(mem(`${text(PLACES.memory)}:8192`)).toString('hex')).toBe(theirs);
  },
  'drgn-read-typed': (context) => {
    const at = PLACES.numbers;
    const theirs = drgn(
      context,
      `print(prog.read_u8(${at}), prog.read_u16(${at}), prog.read_u32(${at}), prog.read_u64(${at}), prog.read_word(${at}))\nprint(drgn.Object(prog, 'char *', value=${PLACES.text}).string_().decode())`,
    );
    const ours = ['u8', 'u16', 'u32', 'u64', 'u64'].map((type) => mem(text(at), '--as', type).values[0]!.value);
    expect(`${ours.join(' ')}\n${mem(text(PLACES.text), '--as', 'cstr').values[0]!.value}`).toBe(theirs);
  },
  'drgn-search-memory': () => {
    findsText();
    expect(found('--search', Buffer.from(TEXT).toString('hex'), '--in', 'anon')).toEqual([text(PLACES.text)]);
  },
  'drgn-search-memory-words': () => {
    expect(found('--value', String(0xc0ffee42), '--as', 'u32', '--in', 'anon')).toEqual([text(PLACES.numbers)]);
    expect(found('--points-to', `${text(PLACES.text)}:${TEXT.length}`, '--in', 'anon')).toContain(text(PLACES.pointers + 8n));
    expect(found('--points-to', 'worker', '--in', 'anon')).toContain(text(PLACES.pointers));
  },
  'drgn-search-memory-regex': () => {
    expect(found('--regex', 'n[e]+dle across', '--in', 'anon')).toEqual([text(PLACES.text)]);
  },
  'drgn-search-range': () => {
    expect(found('--text', TEXT, '--range', `${text(PLACES.memory)}:8192`)).toEqual([text(PLACES.text)]);
    expect(warpTool('mem', made.before, '--text', TEXT, '--range', `${text(PLACES.memory + 8192n)}:8192`).status).toBe(1);
  },
  'drgn-symbol': (context) => {
    const theirs = numbers(drgn(context, 's = prog.symbol("worker")\nprint(hex(s.address), s.size)'));
    const { dump } = mem('worker');
    expect([BigInt(dump[0]!.start), BigInt(dump.at(-1)!.end) - BigInt(dump[0]!.start)]).toEqual(theirs);
    showsPointers();
  },
  'drgn-modules': () => {
    const areas = maps();
    for (const name of [made.executable, '/libc.so.6', '/ld-linux-x86-64.so.2']) {
      const area = areas.find((one) => one.name.endsWith(name))!;
      expect([area.start, area.build_id]).toEqual([expect.stringMatching(/^0x/), expect.stringMatching(/^[0-9a-f]{40}$/)]);
    }
    expect(areas.some(({ kind }) => kind === 'vdso')).toBe(true);
  },
  'drgn-annotated': () => {
    showsPointers();
    const worker = threads().find(({ leader }) => !leader)!;
    const { values } = mem(`${worker.stack_pointer}:1024`, '--as', 'ptr');
    expect(values.map(({ target }) => target?.symbol)).toContain('sleep_for_ever');
  },
  'drgn-types': (context) => {
    const output = ourGdb(context, 'print answer', 'print origin', 'ptype origin');
    expect(output).toMatch(/= 42\n.*\{x = 3, y = 4\}\n.*struct point \{/s);
  },
  'drgn-debug-info': () => {
    const script = tool('gdb-script', made.before);
    expect(script).toContain(`file ${made.executable}`);
    expect(script).toContain('set sysroot /');
  },
  'drgn-scripts': () => {
    const program =
      "let text = ''; process.stdin.on('data', (part) => (text += part)).on('end', () => console.log(JSON.parse(text).threads.length));";
    const { stdout } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', input: tool('threads', made.before, '--json') });
    expect(stdout.trim()).toBe(String(1 + WORKERS));
  },

  'frames-in-gdb': (context) => {
    for (const output of [gdb(context, 'thread apply all bt'), ourGdb(context, 'thread apply all bt')]) {
      expect(output.match(/ in worker \(/g)).toHaveLength(WORKERS);
      expect(output.match(/ in main \(/g)).toHaveLength(1);
      expect(output).not.toContain('?? ()');
    }
  },
  'shared-anonymous-memory': (context) => {
    const at = PLACES.shared + 2n * 4096n + 100n;
    expect(found('--text', SHARED_TEXT, '--range', `${text(PLACES.shared)}:16384`)).toEqual([text(at)]);
    expect(gdb(context, `x/s ${text(at)}`)).toContain(SHARED_TEXT);
  },
  'large-image': async (context) => {
    needs(context, 'java', 'javac');
    const place = scratchDirectory();
    compileJava(place);
    const java = execFileSync('sh', ['-c', 'command -v java'], { encoding: 'utf8' }).trim();
    const program = Conversation.start(place, ['run', '--', java, ...javaArguments(place), JAVA_PROGRAM]);
    const spy = vi.spyOn(FileSource.prototype, 'readInto');
    try {
      expect(await program.line()).toBe('ready');
      const image = await Image.open(program.checkpoint(place, 'image'));
      await decodeMetadata(image, image.source.name);
      await collectMaps(image);
      const { threads: rows } = await collectThreads(image, true);
      await image.close();
      expect(rows.length).toBeGreaterThan(8);
      const own = spy.mock.calls.filter((_, index) => (spy.mock.contexts[index] as unknown as FileSource).name === image.source.name);
      const read = own.reduce((sum, [, buffer]) => sum + BigInt(buffer.length), 0n);
      expect(image.source.size).toBeGreaterThan(200n << 20n);
      expect(read).toBeLessThan(image.source.size / 100n);
    } finally {
      spy.mockRestore();
      await program.kill();
      removeDirectory(place);
    }
  },
  'content-not-size': () => {
    const { memory } = diff('--memory');
    expect(memory!.areas.map(({ area }) => area.start)).toContain(text(PLACES.memory));
    const { changes } = diff();
    expect(changes.some(({ section, key }) => section === 'maps' && key === text(PLACES.memory))).toBe(false); // its size is the same
    const area = diff('--bytes').memory!.areas.find((one) => one.area.start === text(PLACES.memory))!;
    const row = PLACES.changed & -16n;
    const [a, b] = [Buffer.alloc(16), Buffer.alloc(16)];
    b[Number(PLACES.changed - row)] = 1;
    expect(area).toMatchObject({ rows: [{ address: text(row), a: a.toString('hex'), b: b.toString('hex') }], more_rows: false });
    expect(tool('diff', made.before, made.after, '--bytes')).toContain(`+ ${text(row)}  00 00 00 01`);
  },
  'large-environment': async () => {
    const place = scratchDirectory();
    try {
      const big = Object.fromEntries(
        Array.from({ length: 16 }, (_, index) => [`BIG_${index}`, `${index}`.repeat(64 * 1024).slice(0, 64 * 1024)]),
      );
      const large = await capture(place, big);
      const { environment } = JSON.parse(tool('env', large.before, '--json')) as { environment: { name: string; value: string }[] };
      const size = environment.reduce((sum, { name, value }) => sum + name.length + value.length + 2, 0);
      expect(size).toBeGreaterThan(1 << 20);
      for (const [name, value] of Object.entries(big)) expect(environment.find((entry) => entry.name === name)!.value).toBe(value);
      const output = JSON.parse(tool('diff', large.before, large.after, '--memory', '--json')) as Diff;
      expect(output.changes.some(({ section }) => section === 'environment')).toBe(false);
      // Against an image that has none of it.
      const other = JSON.parse(tool('diff', made.before, large.before, '--json')) as Diff;
      expect(other.changes.filter(({ section, kind }) => section === 'environment' && kind === 'added')).toHaveLength(16);
      expect(tool('decode', large.before).length).toBeGreaterThan(1 << 20);
    } finally {
      removeDirectory(place);
    }
  },
  'hexdump-rows': () => {
    const lines = tool('mem', made.before, `${text(PLACES.rows)}:4096`)
      .trimEnd()
      .split('\n')
      .slice(1);
    // All of these print as sixteen points.
    for (let row = 0; row < 4; row++) expect(lines[row]).toContain(`${`0${row + 1} `.repeat(8)} ${`0${row + 1} `.repeat(8)}`);
    expect(lines[4]).toMatch(/^0x510000002040 .*\|A{16}\|$/);
    expect(lines[5]).toMatch(/^ +15 more rows like this, up to 0x51000000213f$/);
    const all = tool('mem', made.before, `${text(PLACES.rows)}:4096`, '--all-rows')
      .trimEnd()
      .split('\n')
      .slice(1);
    expect(all).toHaveLength(256);
  },
  'text-across-rows': () => {
    const dump = tool('mem', made.before, '--range', `${text(PLACES.memory)}:8192`);
    expect(dump).not.toContain(TEXT); // so grep does not find it
    findsText();
  },
  'many-segments': (context) => {
    needs(context, 'eu-readelf');
    const path = join(directory, 'many.core');
    const segments = Array.from({ length: 66_000 }, (_, index) => ({ address: BigInt(index + 16) * 8192n, size: 4096n }));
    writeFileSync(path, foreignCore({ segments, notes: [prstatusNote(1), prpsinfoNote(1, 'many')], extendedCount: true }));
    expect(euReadelfNotes(path)).toEqual([]);
    const named = JSON.parse(tool('notes', path, '--json')) as { notes: { name: string }[] };
    expect(named.notes.map(({ name }) => name)).toEqual(['NT_PRSTATUS', 'NT_PRPSINFO']);
    expect((JSON.parse(tool('threads', path, '--json')) as { threads: unknown[] }).threads).toHaveLength(1);
    expect((JSON.parse(tool('maps', path, '--json')) as { maps: unknown[] }).maps).toHaveLength(66_000);
  },

  'not-several-processes': async () => {
    showsProcess();
    const parent = Conversation.start(directory, ['run', '--', 'sh', '-c', 'sleep 1000 & echo ready; read line; kill $!']);
    try {
      await parent.line();
      expect(() => parent.checkpoint(directory, 'parent')).toThrow(/child process \d+ .* is running/);
      expect(existsSync(join(directory, 'parent', 'core.img'))).toBe(false);
    } finally {
      await parent.ask().catch(() => {});
      await parent.kill();
    }
  },
  'not-mounts': () => {
    const { status, stdout } = warpTool('validate', made.before, '--host', '--json');
    expect([0, 1]).toContain(status);
    expect(stdout).toContain('host');
  },
  'not-container': () => {
    expect(show().labels).toEqual([]);
  },
  'not-build': async () => {
    const child = spawn(join(root, 'native/build/warp-restore'), [made.after], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      child.stdin.write('again\n');
      const line = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
      expect(line.value).toBe('changed');
    } finally {
      child.kill('SIGKILL');
    }
  },
  'not-plugins': () => {
    expect(JSON.parse(tool('schema'))).toMatchObject({ $defs: { show: {}, mem: {}, diff: {} } });
  },
  'not-show-unchanged': () => {
    const { different, changes } = JSON.parse(tool('diff', made.before, made.before, '--json')) as Diff;
    expect([different, changes]).toEqual([false, []]);
    showsOverview();
  },
  'not-several-files': () => {
    const pids = [made.before, made.after].map((image) => (JSON.parse(tool('show', image, '--json')) as Shown).process['pid']);
    expect(pids).toEqual([made.pid, made.pid]);
  },
  'not-writing-memory': () => {
    const path = join(directory, 'image.json');
    tool('decode', made.before, '-o', path);
    writeFileSync(path, readFileSync(path, 'utf8').replaceAll('worker-2', 'worker-B'));
    const out = join(directory, 'edited');
    tool('encode', path, '-o', out);
    const { threads: rows } = JSON.parse(tool('threads', out, '--json')) as { threads: ThreadRow[] };
    expect(rows.map(({ name }) => name)).toContain('worker-B');
    expect(tool('mem', out, text(PLACES.text), '--as', 'cstr')).toContain(TEXT);
  },
};

const document = readFileSync(join(root, 'docs/comparison.md'), 'utf8');
const rows = [...document.matchAll(/^\| `([a-z0-9-]+)` \| (.*) \| (.*) \|$/gm)].map(([, id, what, here]) => ({
  id: id!,
  what: what!,
  here: here!,
}));

it('every row of docs/comparison.md has a test, and every test a row', () => {
  const tableLines = document.split('\n').filter((line) => line.startsWith('|') && !/^\| (row|---) /.test(line));
  expect(rows).toHaveLength(tableLines.length);
  expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
  expect(Object.keys(shows).toSorted()).toEqual(rows.map(({ id }) => id).toSorted());
});

describe('docs/comparison.md', () => {
  it.each(rows)('$id: names commands and flags that there are', async ({ here }) => {
    for (const [, code] of here.matchAll(/`(warp-tool [^`]*)`/g)) for (const call of callsIn(code!, 'warp-tool')) await parseCall(call);
    expect(here.length).toBeGreaterThan(10);
  });

  it.for(rows)('$id', async ({ id }, context) => {
    expect.hasAssertions();
    await shows[id]!(context);
  });
});
