import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { argumentsOf, environmentOf } from '../src/elf/environment.js';
import { Image } from '../src/elf/image.js';
import { X86_64_REGISTERS } from '../src/elf/kernel-notes/prstatus.js';
import { systemCallOf } from '../src/commands/threads.js';
import {
  endTarget,
  gcore,
  kernelCore,
  missing,
  removeDirectory,
  scratchDirectory,
  startTarget,
  warpTool,
  type Target,
} from './support/cores.js';
import { euReadelfNotes, readelfSegments } from './support/readelf.js';

const directory = scratchDirectory();
let target: Target | undefined;
/** Of the process while it ran: tid to name. */
const names = new Map<number, string>();
let areas: string[];
const cores: Record<string, string | { skip: string }> = {};

beforeAll(async () => {
  target = await startTarget(directory);
  for (const tid of execFileSync('ls', [`/proc/${target!.pid}/task`], { encoding: 'utf8' })
    .trim()
    .split('\n')) {
    names.set(Number(tid), readFileSync(`/proc/${target!.pid}/task/${tid}/comm`, 'utf8').trim());
  }
  areas = readFileSync(`/proc/${target!.pid}/maps`, 'utf8').trim().split('\n');
  cores['gcore'] = gcore(target, directory);
  cores['kernel'] = await kernelCore(target, directory);
});

afterAll(async () => {
  if (target) await endTarget(target);
  removeDirectory(directory);
});

async function opened(context: TestContext, writer: string): Promise<Image> {
  const core = cores[writer]!;
  if (typeof core !== 'string') return context.skip(core.skip);
  const image = await Image.open(core);
  context.onTestFinished(() => image.close());
  return image;
}

function needs(context: TestContext, ...programs: string[]): void {
  const reason = missing(...programs);
  if (reason) context.skip(reason);
}

describe.each(['gcore', 'kernel'])('a core file of %s', (writer) => {
  it('has the threads and registers that eu-readelf finds', async (context) => {
    needs(context, 'eu-readelf');
    const image = await opened(context, writer);
    const expected = euReadelfNotes(image.source.name).filter(({ type }) => type === 'PRSTATUS');
    const threads = image.threads();
    expect(threads.length).toBe(4);
    expect(expected.length).toBe(4);
    for (const [index, thread] of threads.entries()) {
      const { fields } = expected[index]!;
      expect(thread.tid).toBe(Number(fields['pid']));
      for (const name of X86_64_REGISTERS) {
        const theirs = fields[name === 'eflags' ? 'rflags' : name.replace('_base', '.base')];
        expect(theirs, `eu-readelf shows ${name}`).toBeDefined();
        expect(BigInt.asUintN(64, thread.status.registers[name]), name).toBe(BigInt.asUintN(64, BigInt(theirs!)));
      }
    }
  });

  it('has the segments that readelf finds', async (context) => {
    needs(context, 'readelf');
    const image = await opened(context, writer);
    const expected = readelfSegments(image.source.name);
    expect(expected.length).toBeGreaterThan(10);
    expect(
      image.segments.map((segment) => ({
        type: segment.typeName.toUpperCase(),
        offset: segment.offset,
        address: segment.address,
        fileSize: segment.fileSize,
        memorySize: segment.memorySize,
        protection: `${segment.readable ? 'r' : '-'}${segment.writable ? 'w' : '-'}${segment.executable ? 'x' : '-'}`,
      })),
    ).toEqual(expected);
  });

  it('has the integer registers and vector registers that the threads had set', async (context) => {
    const image = await opened(context, writer);
    const workers = image.threads().filter((thread) => !thread.leader);
    expect(workers.map((thread) => Number(thread.status.registers.r12)).toSorted()).toEqual([1, 2, 3]);
    for (const thread of workers) {
      const number = thread.status.registers.r12;
      expect(names.get(thread.tid)).toBe(`worker-${number}`);
      expect(systemCallOf(thread)).toBe('pause');
      const state = image.xstate(thread)!;
      const lane = Buffer.alloc(8);
      lane.writeBigUInt64LE(0x1111111111111111n * number);
      if (target!.avx) expect(state.ymm![7], 'ymm7').toEqual(Buffer.concat(Array.from({ length: 4 }, () => lane)));
      // GDB 13 copies AVX-512 state to and from the wrong places on AMD processors, so gcore's is not to be believed.
      if (target!.avx512 && writer === 'kernel') {
        expect(state.zmm![21], 'zmm21').toEqual(Buffer.concat(Array.from({ length: 8 }, () => lane)));
        expect(state.opmask![3], 'k3').toBe(0x1230n + number);
      }
    }
  });

  it('gives the arguments, the environment and the executable', async (context) => {
    const image = await opened(context, writer);
    expect(image.executable()).toBe(target!.executable);
    expect(await argumentsOf(image)).toEqual([target!.executable, 'first', 'second argument']);
    expect(await environmentOf(image)).toContain('WARP_TEST_VARIABLE=a value = with spaces');
  });

  it('reads memory by address', async (context) => {
    const image = await opened(context, writer);
    expect(await image.memory.readString(0x510000000000n + 3n * 4096n + 17n)).toBe('known text in known memory');
    expect(await image.memory.read(0x510000000000n + 4096n, 4096)).toEqual(Buffer.alloc(4096));
    await expect(image.memory.read(0x520000000000n, 1)).rejects.toThrow('address 0x520000000000 is not mapped');
  });

  it('has every readable area of /proc/PID/maps', async (context) => {
    const image = await opened(context, writer);
    const known = new Set(image.vmas().map((vma) => `${vma.start.toString(16)}-${vma.end.toString(16)}`));
    for (const line of areas) {
      const [range, protection, , , , name] = line.split(/\s+/);
      // The kernel's own pages have no content to dump, and the heap and stacks can have grown since.
      if (!protection!.startsWith('r') || name?.startsWith('[')) continue;
      expect(known, line).toContain(range);
    }
  });

  it('blocks the signals that the program blocked', async (context) => {
    if (writer === 'gcore') context.skip('gcore writes no signal masks');
    const image = await opened(context, writer);
    const { threads } = JSON.parse(warpTool('threads', image.source.name, '--json').stdout) as { threads: { signal_mask: string[] }[] };
    for (const thread of threads) expect(thread.signal_mask).toEqual(expect.arrayContaining(['SIGUSR2', 'SIGRTMIN+32']));
  });

  it('opens in GDB through gdb-script with every thread and its frames', async (context) => {
    needs(context, 'gdb');
    const image = await opened(context, writer);
    const result = warpTool('gdb', image.source.name, '--', '-batch', '-nx', '-ex', 'thread apply all bt');
    expect(result.status).toBe(0);
    for (const thread of image.threads()) expect(result.stdout).toContain(`LWP ${thread.tid}`);
    expect(result.stdout.match(/ in outer \(/g)).toHaveLength(3);
    expect(result.stdout.match(/ in worker \(/g)).toHaveLength(3);
    expect(result.stdout.match(/\bmain \(\) at /g)).toHaveLength(1);
  });
});

it('says which signal ended a process that the kernel dumped', async (context) => {
  const image = await opened(context, 'kernel');
  const shown = JSON.parse(warpTool('show', image.source.name, '--json').stdout) as { signal: { name: string; thread: number } };
  expect(shown.signal).toMatchObject({ name: 'SIGABRT', thread: target!.pid });
});
