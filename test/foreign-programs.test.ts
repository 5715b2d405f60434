/** Core files of real programs that crash, and of a JVM by gcore: every command that looks into an image, and each value against binutils, elfutils and GDB. */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { signalNames } from '../src/elf/signals.js';
import { schemas } from '../src/schemas/index.js';
import { missing, ordinaryUser, removeDirectory, scratchDirectory, warpTool } from './support/cores.js';
import { crashOfManyAreas, crashOfNode, crashOfPython, crashOfThreads, gcoreOfJava, type Core } from './support/crashes.js';
import { euReadelfNotes, readelfSegments, signalSet, type EuNote } from './support/readelf.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

interface Program {
  make: (directory: string) => Promise<Core>;
  process: string;
  /** What it died of; null when it went on. */
  signal: string | null;
  /** At least so many. */
  threads: number;
  /** Somewhere in its memory, made at run time. */
  text: string;
  /** Functions or modules that stacks must show. */
  frames: RegExp[];
}

const MANY = 70_000;
let possibleAreas = 0;

const programs: Record<string, Program> = {
  'a C program with threads': {
    make: crashOfThreads,
    process: 'threads',
    signal: 'SIGSEGV',
    threads: 4,
    text: 'text in shared anonymous memory',
    frames: [/^store$/, /^crasher$/, /^sleep_for_ever$/, /^sleeper$/, /^main$/],
  },
  Python: {
    make: crashOfPython,
    process: 'python3',
    signal: 'SIGABRT',
    threads: 3,
    text: 'text of the Python process',
    frames: [/^_?Py/, /abort/],
  },
  'Node.js': {
    make: crashOfNode,
    process: 'node',
    signal: 'SIGABRT',
    threads: 4,
    text: 'text of the Node process',
    frames: [/node::|uv_|v8::/, /abort/],
  },
  'a JVM (gcore)': {
    make: gcoreOfJava,
    process: 'java',
    signal: null,
    threads: 8,
    text: 'text of the Java process',
    frames: [/^VMThread::run|libjvm\.so/, /JavaThread|libjvm\.so/],
  },
  'more than 65,535 areas': {
    make: async (place) => {
      const { core, areas } = await crashOfManyAreas(place, MANY);
      possibleAreas = areas;
      return core;
    },
    process: 'areas',
    signal: 'SIGABRT',
    threads: 1,
    text: 'text in one of many areas',
    frames: [/^main$/, /abort/],
  },
};

const ajv = new Ajv2020({ strict: false });

function json<T>(command: string, ...argv: string[]): T {
  const { stdout, stderr, status } = warpTool(command, ...argv, '--json');
  expect([stderr, status]).toEqual(['', 0]);
  const document = JSON.parse(stdout) as T;
  const check = ajv.getSchema(command) ?? ajv.addSchema(schemas[command]!.json, command).getSchema(command)!;
  check(document);
  expect(check.errors, command).toBeNull();
  return document;
}

interface Meaning {
  [name: string]: unknown;
}

interface Decoded {
  segments: { type: number; flags: number; offset: string; address: string; file_size: string; memory_size: string }[];
  notes: { notes: { owner: string; name: string; bytes: string; meaning?: Meaning | Meaning[] }[] }[];
}

function decoded(core: string): Decoded {
  return JSON.parse(warpTool('decode', core).stdout) as Decoded;
}

/** A number in whichever way it is printed; unsigned. */
const number = (text: unknown): bigint => BigInt.asUintN(64, BigInt(text as string));

/** Bytes of a register, as eu-readelf prints wide ones. */
const wide = (bytes: unknown): bigint => BigInt(`0x${(bytes as string).match(/../g)!.toReversed().join('')}`);

/** Seconds with six digits, in microseconds. */
const microseconds = (text: string): bigint => BigInt(text.replace('.', ''));

/** How each note of eu-readelf's is compared: every field that it prints. */
const comparisons: Record<string, (meaning: never, note: EuNote) => void> = {
  PRSTATUS(meaning: Meaning & { registers: Record<string, string> }, { fields }) {
    const { registers, ...rest } = meaning;
    const seen = { ...fields };
    const take = (name: string): string => {
      const value = seen[name]!;
      expect(value, name).toBeDefined();
      delete seen[name];
      return value;
    };
    expect(rest).toMatchObject({
      infoSignal: Number(take('info.si_signo')),
      signalCode: Number(take('info.si_code')),
      signalErrno: Number(take('info.si_errno')),
      signal: Number(take('cursig')),
      tid: Number(take('pid')),
      parentPid: Number(take('ppid')),
      processGroup: Number(take('pgrp')),
      session: Number(take('sid')),
      fpValid: take('fpvalid') === '1',
    });
    for (const [name, theirs] of [
      ['userTime', 'utime'],
      ['systemTime', 'stime'],
      ['childrenUserTime', 'cutime'],
      ['childrenSystemTime', 'cstime'],
    ] as const) {
      expect(number(rest[name]), name).toBe(microseconds(take(theirs)));
    }
    const bits = (value: unknown): string[] => signalNames(number(value));
    expect(bits(rest['pendingSignals'])).toEqual(signalSet(take('sigpend')));
    expect(bits(rest['blockedSignals'])).toEqual(signalSet(take('sighold')));
    for (const [name, value] of Object.entries(registers)) {
      const theirs = take({ eflags: 'rflags', fs_base: 'fs.base', gs_base: 'gs.base' }[name] ?? name);
      expect(number(value), name).toBe(number(theirs));
    }
    expect(Object.keys(seen), 'compared').toEqual([]);
  },
  PRPSINFO(meaning: Meaning, { fields }) {
    // eu-readelf prints line ends as they are.
    expect({ ...meaning, arguments: (meaning['arguments'] as string).split('\n')[0]!.trimEnd() }).toEqual({
      stateNumber: Number(fields['state']),
      state: fields['sname'],
      zombie: fields['zomb'] === '1',
      nice: Number(fields['nice']),
      flags: `0x${number(fields['flag']).toString(16)}`,
      uid: Number(fields['uid']),
      gid: Number(fields['gid']),
      pid: Number(fields['pid']),
      parentPid: Number(fields['ppid']),
      processGroup: Number(fields['pgrp']),
      session: Number(fields['sid']),
      name: fields['fname'],
      arguments: fields['psargs']!.trimEnd(),
    });
  },
  SIGINFO(meaning: Meaning, { fields }) {
    expect(meaning).toMatchObject({
      signal: Number(fields['si_signo']),
      errno: Number(fields['si_errno']),
      code: Number(fields['si_code']),
    });
    expect(meaning['address'] === null ? undefined : number(meaning['address'])).toBe(
      fields['fault address'] === undefined ? undefined : number(fields['fault address']),
    );
  },
  AUXV(meaning: { type: number; name: string; value: string }[], { lines }) {
    const theirs = lines.flatMap((line) => [/^(\w+): (\w+)/.exec(line) ?? []]).filter(([, name]) => name !== undefined && name !== 'NULL');
    expect(meaning).toHaveLength(theirs.length);
    for (const [index, [, name, value]] of theirs.entries()) {
      expect([`AT_${name}`, name]).toContain(/^\d+$/.test(name!) ? String(meaning[index]!.type) : meaning[index]!.name);
      expect(number(meaning[index]!.value), name).toBe(number(value));
    }
  },
  FILE(meaning: { start: string; end: string; offset: string; path: string }[], { lines }) {
    const theirs = lines.slice(1).map((line) => /^([0-9a-f]+)-([0-9a-f]+) ([0-9a-f]+) \d+ +(.*)$/.exec(line)!);
    expect(lines[0]).toBe(`${theirs.length} files:`);
    expect(meaning.map(({ start, end, offset, path }) => [number(start), number(end), number(offset), path])).toEqual(
      theirs.map(([, start, end, offset, path]) => [number(`0x${start}`), number(`0x${end}`), number(`0x${offset}`), path]),
    );
  },
  FPREGSET(meaning: Meaning & { st: string[]; xmm: string[] }, { fields }) {
    expect([meaning['controlWord'], meaning['statusWord']]).toEqual([Number(fields['fcw']), Number(fields['fsw'])]);
    expect(number(fields['mxcsr'])).toBe((BigInt(meaning['mxcsrMask'] as number) << 32n) | BigInt(meaning['mxcsr'] as number));
    for (const [index, value] of meaning.xmm.entries()) expect(wide(value), `xmm${index}`).toBe(BigInt(fields[`xmm${index}`]!));
    for (const [index, value] of meaning.st.entries()) expect(wide(value), `st${index}`).toBe(BigInt(fields[`st${index}`]!));
  },
};

/** GDB's registers of the first thread. */
function gdbRegisters(core: string): Record<string, bigint> {
  const text = execFileSync('gdb', ['-nx', '-batch', '-ex', `core-file ${core}`, '-ex', 'info registers'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return Object.fromEntries([...text.matchAll(/^(\w+) +(0x[0-9a-f]+) /gm)].map(([, name, value]) => [name, BigInt(value!)]));
}

describe.each(Object.entries(programs))('a core file of %s', (_, program) => {
  let core: Core;
  const place = join(directory, program.process);
  beforeAll(async () => {
    core = await program.make(place);
  }, 300_000);

  const opened = (context: TestContext, ...needed: string[]): string => {
    const reason = missing(...needed);
    if (reason) return context.skip(reason);
    return typeof core === 'string' ? core : context.skip(core.skip);
  };

  it('has the notes that eu-readelf prints, field by field', (context) => {
    const path = opened(context, 'eu-readelf');
    const theirs = euReadelfNotes(path);
    const ours = decoded(path).notes.flatMap(({ notes }) => notes);
    if (theirs.length === 0) {
      // elfutils prints nothing of a file with extended numbering.
      expect(readelfSegments(path).length).toBeGreaterThan(65_535);
      return context.skip('eu-readelf prints no notes of a core file with so many segments; GDB has its registers below');
    }
    expect(theirs.map(({ owner, size }) => [owner, size])).toEqual(ours.map(({ owner, bytes }) => [owner, bytes.length / 2]));
    const compared = new Set<string>();
    for (const [index, note] of theirs.entries()) {
      const { name, meaning } = ours[index]!;
      if (!note.type.startsWith('<unknown>')) expect(name.replace(/^NT_/, '')).toBe(note.type);
      comparisons[note.type]?.(meaning as never, note);
      compared.add(note.type);
    }
    expect([...compared]).toEqual(expect.arrayContaining(Object.keys(comparisons)));
  });

  it('has the registers that GDB prints', (context) => {
    const path = opened(context, 'gdb');
    const theirs = gdbRegisters(path);
    const { threads } = json<{ threads: { tid: number; registers: { general: Record<string, string> } }[] }>(
      'threads',
      path,
      '--registers',
    );
    // GDB begins with the thread that died, as the kernel does; gcore with the one it stopped in.
    const ours = threads.find(({ registers }) => number(registers.general['rsp']) === theirs['rsp'])!.registers.general;
    for (const [name, value] of Object.entries(ours)) if (name in theirs) expect(number(value), name).toBe(theirs[name]);
    expect(Object.keys(theirs)).toEqual(expect.arrayContaining(['rax', 'r15', 'rip', 'rsp', 'eflags', 'gs']));
  });

  it('has the segments that readelf prints, and areas to match', (context) => {
    const path = opened(context, 'readelf');
    const theirs = readelfSegments(path);
    const { segments } = decoded(path);
    expect(
      segments.map(({ flags, offset, address, file_size: fileSize, memory_size: memorySize }) => ({
        offset: BigInt(offset),
        address: BigInt(address),
        fileSize: BigInt(fileSize),
        memorySize: BigInt(memorySize),
        protection: `${flags & 4 ? 'r' : '-'}${flags & 2 ? 'w' : '-'}${flags & 1 ? 'x' : '-'}`,
      })),
    ).toEqual(theirs.map(({ type: _type, ...rest }) => rest));
    const { maps } = json<{ maps: { start: string; end: string; protection: string; stored: number }[] }>('maps', path);
    const areas = new Map(maps.map((row) => [BigInt(row.start), row]));
    for (const { type, address, memorySize, fileSize, protection } of theirs) {
      if (type !== 'LOAD' || memorySize === 0n) continue;
      const area = areas.get(address)!;
      expect([area.end, area.protection, area.stored], area.start).toEqual([
        `0x${(address + memorySize).toString(16)}`,
        protection,
        Number(fileSize),
      ]);
    }
    if (program.process === 'areas') expect(theirs.length).toBeGreaterThanOrEqual(possibleAreas);
  });

  it('is shown: process, threads, and what it died of', (context) => {
    const path = opened(context);
    const shown = json<{
      process: { name: string; pid: number; uid: number; command: string[] };
      signal: { name: string; address: string | null; thread: number } | null;
      threads: { count: number };
      memory: { mapped: number };
      files: { path: string }[];
    }>('show', path);
    expect(shown.process).toMatchObject({ name: program.process, uid: ordinaryUser.uid ?? process.getuid!() });
    expect(basename(shown.process.command[0]!)).toBe(program.process);
    expect(shown.signal?.name ?? null).toBe(program.signal);
    const { threads } = json<{ threads: { tid: number; signal: string | null; leader: boolean }[] }>('threads', path);
    expect(threads).toHaveLength(shown.threads.count);
    expect(threads.length).toBeGreaterThanOrEqual(program.threads);
    expect(threads.find(({ leader }) => leader)?.tid).toBe(shown.process.pid);
    if (program.signal === 'SIGSEGV') {
      expect(shown.signal).toMatchObject({ address: '0xdead000', thread: threads.find(({ signal }) => signal)!.tid });
    }
    expect(shown.files.map((file) => file.path)).not.toContain('/dev/zero (deleted)');
  });

  it('has the memory that the process had', (context) => {
    const path = opened(context);
    type Match = { address: string; at: { area: { start: string; kind: string; name: string } } };
    const { search } = json<{ search: { matches: Match[] } }>('mem', path, '--text', program.text, '--prot', 'rw');
    expect(search.matches.length).toBeGreaterThanOrEqual(1);
    const { dump } = json<{ dump: { bytes: string }[] }>('mem', path, `${search.matches[0]!.address}:${program.text.length}`);
    expect(Buffer.from(dump[0]!.bytes, 'hex').toString()).toBe(program.text);
    if (program.process === 'threads') expect(search.matches.map(({ at }) => at.area.kind)).toContain('object');
    // The same bytes as at the place in the file that readelf names.
    const file = openSync(path, 'r');
    const stored = readelfSegments(path).filter(({ type, fileSize }) => type === 'LOAD' && fileSize > 0n);
    for (const { address, offset, fileSize } of [stored[0]!, stored[stored.length >> 1]!, stored.at(-1)!]) {
      const length = fileSize < 4096n ? Number(fileSize) : 4096;
      const expected = Buffer.alloc(length);
      readSync(file, expected, 0, length, Number(offset));
      const part = json<{ dump: { bytes: string }[] }>('mem', path, `${address.toString(16)}:${length}`);
      expect(part.dump.map(({ bytes }) => bytes).join('')).toBe(expected.toString('hex'));
    }
    closeSync(file);
  });

  it('equals itself, also in memory', (context) => {
    const path = opened(context);
    expect(json('diff', path, path, '--memory')).toMatchObject({ different: false, changes: [], memory: { pages: 0 } });
  });

  it('comes back byte by byte from its decoded metadata', (context) => {
    const path = opened(context);
    if (program.process === 'java') context.skip('half a gigabyte; the others show it');
    const document = join(place, 'decoded.json');
    expect(warpTool('decode', path, '-o', document).status).toBe(0);
    expect(warpTool('encode', document, '-o', join(place, 'again.img')).status).toBe(0);
    expect(spawnSync('cmp', [path, join(place, 'again.img')], { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '' });
  });

  it('opens in GDB through gdb-script with frames for every thread', (context) => {
    const path = opened(context, 'gdb');
    expect(warpTool('gdb-script', path).stdout).toMatch(/^core-file /m);
    type Frame = { function: string | null; module: string | null };
    const { stacks, threads } = json<{ stacks: { tool: string; problem: string | null }; threads: { frames: Frame[] }[] }>(
      'threads',
      path,
      '--stack',
    );
    expect(stacks).toEqual({ tool: 'gdb', problem: null });
    const names = threads.flatMap(({ frames }) => frames.map((frame) => frame.function ?? frame.module ?? '??'));
    for (const wanted of program.frames)
      expect(
        names.some((name) => wanted.test(name)),
        `${wanted} among ${[...new Set(names)].join(' ')}`,
      ).toBe(true);
    for (const { frames } of threads) expect(frames.length).toBeGreaterThan(0);
  });
});
