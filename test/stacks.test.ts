/** `threads --stack` with each of the debuggers, and with none. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseEuStack, parseGdb } from '../src/elf/stacks.js';
import { schemas } from '../src/schemas/index.js';
import { endTarget, gcore, kernelCore, missing, removeDirectory, root, scratchDirectory, startTarget } from './support/cores.js';
import { Conversation } from './support/engine.js';

const directory = scratchDirectory();
const images: Record<string, string | { skip: string }> = {};

beforeAll(async () => {
  const target = await startTarget(directory);
  images['gcore'] = gcore(target, directory);
  images['kernel'] = await kernelCore(target, directory);
  await endTarget(target);
  const ours = Conversation.start(directory, ['run', '--', target.executable]);
  await ours.line();
  await ours.line();
  images['engine'] = ours.checkpoint(directory, 'engine');
  await ours.ended;
});

afterAll(() => removeDirectory(directory));

interface Document {
  stacks: { tool: string | null; problem: string | null };
  threads: { tid: number; leader: boolean; frames: { function: string | null; file: string | null; module: string | null }[] | null }[];
}

/** The command line on a machine where only these programs are installed. */
function threadsWith(programs: string[], ...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  const path = join(directory, `bin-${programs.join('-')}`);
  mkdirSync(path, { recursive: true });
  for (const program of programs) {
    const found = spawnSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).stdout.trim();
    try {
      symlinkSync(found, join(path, program));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
  return spawnSync(process.execPath, [join(root, 'bin/run.js'), 'threads', '--stack', ...argv], {
    encoding: 'utf8',
    env: { ...process.env, PATH: path },
    maxBuffer: 1 << 28,
  });
}

const check = new Ajv2020({ strict: false }).compile(schemas['threads']!.json);

describe.each(['engine', 'gcore', 'kernel'])('threads --stack on an image of %s', (writer) => {
  it.each([['gdb'], ['eu-stack']])('unwinds every thread with %s', (tool) => {
    const image = images[writer]!;
    if (typeof image !== 'string' || missing(tool)) return;
    const { stdout, stderr } = threadsWith([tool], image, '--json');
    expect(stderr).toBe('');
    const { stacks, threads } = JSON.parse(stdout) as Document;
    check(JSON.parse(stdout));
    expect(check.errors).toBeNull();
    expect(stacks).toEqual({ tool, problem: null });
    expect(threads).toHaveLength(4);
    for (const { leader, frames } of threads) {
      const functions = frames!.map((frame) => frame.function);
      if (leader) {
        expect(functions).toContain('main');
        continue;
      }
      expect(functions.slice(0, 3)).toEqual(['sleep_with_registers', 'outer', 'worker']);
      expect(frames![0]!.module).toBe(join(directory, 'target'));
      if (tool === 'gdb') expect(frames![0]!.file).toBe(join(directory, 'target.c'));
    }
    const text = threadsWith([tool], image).stdout;
    expect(text).toMatch(
      tool === 'gdb' ? /^ {2}#1 {3}0x[0-9a-f]{12} outer at target\.c:\d+ \(target\)$/m : /^ {2}#1 {3}0x[0-9a-f]{12} outer \(target\)$/m,
    );
  });

  it('shows what it can and says in one line what is missing where there is no debugger', () => {
    const image = images[writer]!;
    if (typeof image !== 'string') return;
    const { status, stdout, stderr } = threadsWith([], image);
    expect(status).toBe(0);
    expect(stdout.trimEnd().split('\n')).toHaveLength(5);
    expect(stderr.trimEnd()).toMatch(/^warp-tool: warning: stacks need gdb or eu-stack, and neither is installed; install one/);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    const document = JSON.parse(threadsWith([], image, '--json').stdout) as Document;
    expect(document.stacks).toMatchObject({ tool: null, problem: expect.stringContaining('neither is installed') });
    expect(document.threads.every(({ frames }) => frames === null)).toBe(true);
  });
});

it('knows the forms in which GDB prints frames', () => {
  const text = [
    '[Current thread is 1 (Thread 0x7f0000000740 (LWP 12))]',
    'Thread 2 (Thread 0x7f00000006c0 (LWP 13) "name (LWP 99)"):',
    '#0  0x00007f0000000010 in operator() (this=...) at /src/a b.cc:17',
    '@pc 7f0000000010',
    '#1  inner (n=...) at /src/c.c:5',
    '@pc 7f0000000020',
    '#2  outer () at /src/c.c:9',
    '@pc 7f0000000020',
    '#3  0x00007f0000000030 in std::vector<int, std::allocator<int> >::at (this=...) from /lib/libx.so',
    '@pc 7f0000000030',
    '#4  0x00007f0000000040 in ?? ()',
    '@pc 7f0000000040',
  ].join('\n');
  const frames = parseGdb(text).get(13)!;
  expect(frames.map((frame) => [frame.pc, frame.function, frame.file, frame.line])).toEqual([
    [0x7f0000000010n, 'operator()', '/src/a b.cc', 17],
    [0x7f0000000020n, 'inner', '/src/c.c', 5],
    [null, 'outer', '/src/c.c', 9],
    [0x7f0000000030n, 'std::vector<int, std::allocator<int> >::at', null, null],
    [0x7f0000000040n, null, null, null],
  ]);
});

it('knows the forms in which eu-stack prints frames', () => {
  const text = [
    'PID 1 - core',
    'TID 12:',
    '#0  0x0000000000000010 read@@GLIBC_2.2.5 - libc.so.6',
    '#1  0x0000000000000020 - 1',
    '#2  0x0000000000000030 main - prog',
  ].join('\n');
  expect(
    parseEuStack(text)
      .get(12)!
      .map((frame) => [frame.pc, frame.function]),
  ).toEqual([
    [16n, 'read'],
    [32n, null],
    [48n, 'main'],
  ]);
});
