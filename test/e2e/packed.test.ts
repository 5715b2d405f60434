/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Compressed images of real programs, made by `compress`, by `checkpoint --compression` and by `optimize`: restored, unpacked, edited, looked into. */
import { readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { withImage } from '../../src/elf/image.js';
import type { MetadataJson } from '../../src/elf/metadata.js';
import { timelineOf } from '../../src/elf/timeline.js';
import { PLACES, startCompared, TEXT, WORKERS } from '../support/compared.js';
import { missing, removeDirectory, root, scratchDirectory } from '../support/cores.js';
import { Conversation } from '../support/engine.js';
import { Screen } from '../support/screen.js';
import { firstVariant, lastTick, restoreProgram, startProgram } from './support/c-programs.js';
import { makeDirectory } from './support/host.js';
import { checkpointAndEnd, killAll, warpTool } from './support/program.js';

afterEach(killAll);

interface Difference {
  changes: { section: string; fields: { field: string; a: string | null; b: string | null }[] }[];
  memory: { areas: { area: { start: string; end: string; kind: string; name: string }; pages: number; unknown: number }[] };
}

const variant = firstVariant();
const core = (image: string): Buffer => readFileSync(join(image, 'core.img'));

/** Runs a command that succeeds; gives what it printed. */
async function tool(args: string[], environment: Record<string, string> = {}): Promise<string> {
  const program = warpTool(args, { environment });
  const { code } = await program.ended;
  expect([code, program.stderr], args.join(' ')).toEqual([0, expect.stringMatching(/^(?:warp-tool: [^\n]*\n)*$/)]);
  return program.stdout;
}

/** Runs a command that makes an image of another; gives its directory. */
async function made(command: string, image: string, ...flags: string[]): Promise<string> {
  const output = join(makeDirectory(), command);
  await tool([command, image, '-o', output, ...flags]);
  return output;
}

describe('an image made by compress', () => {
  it.each(['memory_kinds', 'memory_memfd', 'memory_shared', 'fd_pipes', 'threads_registers', 'mutex_owner'])(
    '%s: comes back, read at once or while it runs, and from what decompress makes of it',
    async (program) => {
      const { target } = await startProgram(program, variant);
      const plain = await checkpointAndEnd(target);
      const stoppedAfter = lastTick(target.stdout);
      const packed = await made('compress', plain);
      expect(core(packed).length).toBeLessThan(core(plain).length);
      for (const flags of [['--no-concurrent', '--verify'], ['--concurrent'], ['--concurrent', '--load-faults', 'signals']])
        await (await restoreProgram(packed, stoppedAfter, flags)).kill();
      const back = await made('decompress', packed);
      expect(core(back).equals(core(plain))).toBe(true);
      await (await restoreProgram(back, stoppedAfter)).kill();
      // And a generation further.
      const again = await restoreProgram(packed, stoppedAfter, ['--concurrent']);
      const next = await made('compress', await checkpointAndEnd(again));
      await restoreProgram(next, lastTick(again.stdout), ['--concurrent']);
    },
  );
});

describe('one stopped state, captured plain and compressed', () => {
  const directory = scratchDirectory();
  const cache = join(directory, 'cache');
  const temporary = scratchDirectory();
  const environment = { XDG_CACHE_HOME: cache, TMPDIR: temporary };
  let plain: string;
  let captured: string;
  let compressed: string;
  let decompressed: string;

  beforeAll(async () => {
    const { program } = await startCompared(directory, { COLOUR: 'green' });
    try {
      plain = program.checkpoint(directory, 'plain', '--leave-running');
      captured = program.checkpoint(directory, 'captured', '--leave-running', '--compression', 'lz4');
    } finally {
      await program.kill();
    }
    compressed = await made('compress', plain);
    decompressed = await made('decompress', captured);
  });
  afterAll(() => [directory, temporary].forEach(removeDirectory));

  const kinds = (): Record<string, string> => ({ captured, compressed, decompressed });

  /** What GDB prints of stacks, registers and memory. */
  async function gdb(image: string): Promise<string[]> {
    const commands = [
      'thread apply all bt',
      'thread apply all info registers rip rsp rbp rbx r12',
      'thread apply all x/32gx $rsp',
      `x/64xb ${PLACES.text}`,
      `x/s ${PLACES.text}`,
      'print answer',
      'print origin',
    ];
    // GDB complains of source files that are not installed.
    const program = warpTool(['gdb', image, '--', '-batch', ...commands.flatMap((one) => ['-ex', one])], { environment });
    expect((await program.ended).code).toBe(0);
    return program.stdout.split('\n').filter((line) => /^(?:#|Thread |r\w\w |0x|\$)/.test(line));
  }

  it.each(['captured', 'compressed', 'decompressed'])('%s: GDB prints the same stacks and memory', async (kind) => {
    const lack = missing('gdb');
    if (lack) return expect(lack).toMatch(/gdb/);
    const expected = await gdb(plain);
    expect(expected.filter((line) => /^#\d+ .*\bworker\b/.test(line))).toHaveLength(WORKERS);
    expect(expected.some((line) => line.includes(TEXT))).toBe(true);
    expect(expected).toContain('$1 = 42');
    expect(await gdb(kinds()[kind]!)).toEqual(expected);
    expect(readdirSync(temporary)).toEqual([]);
  });

  it('GDB gets a plain copy that only this user can read, is used again, and goes when nobody has used it for a week', async () => {
    const lack = missing('gdb');
    if (lack) return expect(lack).toMatch(/gdb/);
    rmSync(cache, { recursive: true, force: true });
    const copies = join(cache, 'warp-tool');
    const script = await tool(['gdb-script', captured], environment);
    const [name] = readdirSync(copies) as [string];
    expect(script).toContain(join(copies, name));
    const { ino, mode } = statSync(join(copies, name));
    expect([mode & 0o777, statSync(copies).mode & 0o777]).toEqual([0o600, 0o700]);
    await gdb(captured);
    expect(readdirSync(copies)).toEqual([name]);
    expect(statSync(join(copies, name)).ino).toBe(ino);
    const longAgo = Date.now() / 1000 - 8 * 24 * 3600;
    utimesSync(join(copies, name), longAgo, longAgo);
    await gdb(compressed);
    expect(readdirSync(copies)).toHaveLength(1);
    expect(readdirSync(copies)).not.toContain(name);
  });

  it.each(['captured', 'compressed', 'decompressed'])('%s: is the same process to diff, and goes on when it is restored', async (kind) => {
    const image = kinds()[kind]!;
    const diff = warpTool(['diff', plain, image, '--memory', '--json']);
    await diff.ended;
    const { changes, memory } = JSON.parse(diff.stdout) as Difference;
    // What the engine has in the process is not the same in two captures.
    const engine = (fields: Difference['changes'][number]['fields']): boolean =>
      fields.some(({ field, a, b }) => field === 'kind' && (a ?? b) === 'engine');
    expect(changes.filter(({ section, fields }) => !(section === 'maps' && engine(fields)))).toEqual([]);
    // Below the stack pointers is the frame of the signal that stops threads for a capture; what is above GDB has compared.
    // Where the kernel notes the processor that a thread runs on, it may be another one.
    const notes = await withImage(plain, (opened) => [...opened.table('threads')].map(({ rseq_address: address }) => address));
    const expected = memory.areas.filter(
      ({ area }) =>
        area.kind !== 'engine' &&
        area.kind !== 'stack' &&
        !area.name.startsWith('stack of ') &&
        !notes.some((address) => BigInt(area.start) <= address && address < BigInt(area.end)),
    );
    expect(expected.filter(({ pages, unknown }) => pages + unknown > 0)).toEqual([]);
    expect(await tool(['validate', image])).toContain('valid');
    const restored = Conversation.start(directory, ['restore', image]);
    expect(await restored.ask('change')).toBe('changed');
    await restored.kill();
  });

  it('explore shows a compressed one on a terminal', async () => {
    const screen = new Screen(directory, [process.execPath, join(root, 'bin/run.js'), 'explore', captured], { env: environment });
    try {
      await screen.until(/^process +compared +pid \d+/m);
      await screen.type('2', /^ *\d+ +worker-1 +pause /m);
      await screen.type('3', /^510000000000 {2}rw-p +64\.0 KiB/m);
      await screen.type('g51000000100b<enter>', /^51000000100\w .*needl/m);
      await screen.type('/needle across<enter>', /^0x510000001008 .*match 1 of \d+/m);
      await screen.type('5/colour<enter>', /^COLOUR +green$/m);
      await screen.type('q', () => screen.child.exitCode !== null);
      expect(await screen.ended).toBe(0);
      expect(screen.alternate).toBe(false);
    } finally {
      await screen.kill();
    }
  });
});

describe.each(['captured compressed', 'made by compress'])('an optimised image, %s', (origin) => {
  let plain: string;
  let optimised: string;
  let stoppedAfter: number;
  let scratch: string;

  /** What the timeline tells: by address, so that it can be compared between images of other chunks. */
  const timeline = (image: string): Promise<unknown[]> =>
    withImage(image, (opened) => timelineOf(opened).map(({ address, runs, askedNs, content }) => ({ address, runs, askedNs, content })));

  beforeAll(async () => {
    const started = await startProgram('memory_accesses', variant, { environment: { COLOUR: 'green' } });
    scratch = started.scratch;
    let packed: string;
    if (origin === 'made by compress') {
      plain = await checkpointAndEnd(started.target);
      packed = await made('compress', plain, '--chunk-size', '64K');
    } else packed = await checkpointAndEnd(started.target, ['--compression', 'lz4', '--chunk-size', '64']);
    stoppedAfter = lastTick(started.target.stdout);
    optimised = await made('optimize', packed, '--runs', '2', '--until', `rm ${join(scratch, 'done')} 2>/dev/null`);
    expect((await timeline(optimised)).length).toBeGreaterThan(4);
  });
  afterEach(() => rmSync(join(scratch, 'done'), { force: true }));

  it('is decoded and encoded byte for byte', async () => {
    const directory = makeDirectory();
    await tool(['decode', optimised, '-o', join(directory, 'document.json')]);
    await tool(['encode', join(directory, 'document.json'), '-o', join(directory, 'again')]);
    expect(core(join(directory, 'again')).equals(core(optimised))).toBe(true);
  });

  it('keeps its timeline when it is edited, and the edit takes effect', async () => {
    const directory = makeDirectory();
    const document = JSON.parse(await tool(['decode', optimised])) as MetadataJson;
    const threads = document.notes.flatMap(({ notes }) => notes ?? []).find(({ name }) => name === 'threads')!.records!;
    expect(threads.map(({ name }) => name)).toEqual(['memory_accesses']);
    threads[0]!['name'] = 'edited';
    const file = join(directory, 'document.json');
    writeFileSync(file, JSON.stringify(document), { mode: 0o644 });
    const edited = join(directory, 'edited');
    await tool(['encode', file, '-o', edited]);
    expect(await tool(['validate', edited])).toContain('valid');
    expect(await timeline(edited)).toEqual(await timeline(optimised));
    for (const flags of [['--no-concurrent'], ['--concurrent']]) {
      const restored = await restoreProgram(edited, stoppedAfter, flags);
      expect(readFileSync(`/proc/${restored.pid}/comm`, 'latin1')).toBe('edited\n');
      await restored.kill();
    }
  });

  it('is edited in its memory: another environment', async () => {
    const directory = makeDirectory();
    const document = JSON.parse(await tool(['decode', optimised])) as MetadataJson;
    // One that has to move, so that pointers to it change too, into the room that another leaves.
    document.environment = document.environment!.map((entry) => {
      if (entry === 'COLOUR=green') return `COLOUR=${'blue'.repeat(4)}`;
      return typeof entry === 'string' && entry.startsWith('PATH=') ? 'PATH=/bin' : entry;
    });
    const file = join(directory, 'document.json');
    writeFileSync(file, JSON.stringify(document), { mode: 0o644 });
    const edited = join(directory, 'edited');
    await tool(['encode', file, '-o', edited]);
    expect(await tool(['validate', edited])).toContain('valid');
    expect(core(edited).includes('COLOUR=green')).toBe(false);
    expect(JSON.parse(await tool(['env', edited, '--json']))).toMatchObject({
      environment: expect.arrayContaining([expect.objectContaining({ name: 'COLOUR', value: 'blue'.repeat(4) })]),
    });
    for (const flags of [['--no-concurrent'], ['--concurrent']]) {
      const restored = await restoreProgram(edited, stoppedAfter, flags);
      expect(readFileSync(`/proc/${restored.pid}/environ`, 'latin1')).toContain(`COLOUR=${'blue'.repeat(4)}\0`);
      await restored.kill();
    }
  });

  it('is redacted: what is left is a valid image', async () => {
    const redacted = await made('redact', optimised);
    expect(await tool(['validate', redacted])).toContain('valid');
    expect(core(redacted).includes('COLOUR=green')).toBe(false);
  });

  it('is decompressed to an image that is valid and comes back', async () => {
    const back = await made('decompress', optimised);
    expect(await tool(['validate', back])).toContain('valid');
    if (origin === 'made by compress') expect(core(back).equals(core(plain))).toBe(true);
    else expect(await timeline(back)).toEqual(await timeline(optimised));
    await restoreProgram(back, stoppedAfter);
  });
});
