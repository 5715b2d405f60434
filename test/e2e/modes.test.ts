/** How a restore brings memory back, chosen by itself, and what `--stats` says of it. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { fileSchemas } from '../../src/schemas/index.js';
import { refuseCalls } from '../support/container-filter.js';
import { firstVariant, startProgram } from './support/c-programs.js';
import { makeDirectory, projectFile } from './support/host.js';
import { Program, checkpointAndEnd, killAll, launcher, run, warpTool } from './support/program.js';

interface RestoreStats {
  mode: string;
  reason: string;
  explanation: string;
  faults: string | null;
  faults_reason: string | null;
  direct_bytes: number;
  eager_bytes: number;
  object_bytes: number;
  deferred_bytes: number;
  memory_us: number;
  engine_us: number | null;
  total_us: number;
  system_calls: number;
  page_faults: number;
  memory_areas: number;
  prefetched_bytes: number;
  [phase: `${string}_us`]: number | null;
}

const check = new Ajv2020({ strict: false }).compile(fileSchemas['restore-stats']!.json);
let confine: string;
let cached: string;

beforeAll(() => {
  const compiled = (name: string): string => {
    const path = join(makeDirectory(), name);
    const built = spawnSync('cc', ['-Wall', '-Werror', projectFile(`test/support/${name}.c`), '-o', path], { encoding: 'utf8' });
    if (built.status !== 0) throw new Error(built.stderr);
    return path;
  };
  [confine, cached] = [compiled('confine'), compiled('cached')];
});
afterEach(killAll);

/** System calls that a host may refuse, each with the value of an argument where only some are refused. */
const refusals = {
  dispatch: { name: 'prctl', argument: 0, value: 59, errno: 22 },
  userfaultfd: { name: 'userfaultfd', errno: 1 },
  // Only the restorer maps a page of a file for reading at no certain place.
  mapping: { name: 'mmap', argument: 3, value: 2, errno: 19 },
};

/** Restores an image, with some system calls refused; the program has to go on, and the stats have to follow their schema. */
async function statsOf(image: string, flags: string[] = [], refused: (keyof typeof refusals)[] = []): Promise<RestoreStats> {
  const directory = makeDirectory();
  const stats = join(directory, 'stats.json');
  const filter = join(directory, 'filter');
  writeFileSync(filter, refuseCalls(refused.map((name) => refusals[name])));
  const restored = run(launcher(), ['', confine, filter, projectFile('native/build/warp-restore'), image, '--stats', stats, ...flags]);
  await restored.goesOn();
  expect(restored.stdout).not.toContain('FAIL');
  await restored.kill();
  const document = JSON.parse(readFileSync(stats, 'utf8')) as RestoreStats;
  check(document);
  expect(check.errors).toBeNull();
  return document;
}

/**
 * Restores an image where a file of the kernel's says something else: for this one process, in a mount namespace of its own. Resolves to the stats, or to
 * why that cannot be had here.
 */
async function statsWhere(path: string, content: string, image: string): Promise<RestoreStats | string> {
  const [other, stats] = [join(makeDirectory(), 'other'), join(makeDirectory(), 'stats.json')];
  writeFileSync(other, content);
  const script = 'mount --bind "$1" "$2" || exit 77; shift 2; exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"';
  const command = [launcher(), '', projectFile('native/build/warp-restore'), image, '--stats', stats];
  const restored = new Program(
    spawn('unshare', ['--mount', 'sh', '-c', script, 'sh', other, path, ...command], { stdio: ['ignore', 'pipe', 'pipe'] }),
  );
  const refused = await Promise.race([
    restored.ended,
    restored.output(/^tick \d+$/m).then(
      () => undefined,
      () => restored.ended,
    ),
  ]);
  if (refused) return `no mount namespace here: ${restored.stderr}`;
  await restored.kill();
  return JSON.parse(readFileSync(stats, 'utf8')) as RestoreStats;
}

async function imageOf(program: string, flags: string[] = [], environment: Record<string, string> = {}): Promise<string> {
  const { target } = await startProgram(program, firstVariant(), { environment });
  return checkpointAndEnd(target, flags);
}

/** The phases of a restore, in their order. */
const phases = [
  'metadata',
  'place',
  'content',
  'files',
  'descriptors',
  'clear',
  'map',
  'defer',
  'load',
  'areas',
  'process',
  'threads',
  'engine',
];

describe('an image that is stored as it is', () => {
  let image: string;
  beforeAll(async () => void (image = await imageOf('memory_large', [], { WARP_TEST_MEBIBYTES: '16' })));

  it('is mapped', async () => {
    const stats = await statsOf(image);
    expect(stats).toMatchObject({ mode: 'direct', reason: 'plain', faults: null, faults_reason: null, deferred_bytes: 0 });
    expect(stats.direct_bytes).toBeGreaterThanOrEqual(16 << 20);
  });

  it('has its restore told in phases that are all of the time', async () => {
    const stats = await statsOf(image);
    const sum = (names: string[]) => names.reduce((total, name) => total + stats[`${name}_us`]!, 0);
    expect(sum(phases)).toBe(stats.total_us);
    expect(sum(['clear', 'map', 'defer', 'load', 'areas'])).toBe(stats.memory_us);
    // One for each memory area at least.
    expect(stats.system_calls).toBeGreaterThan(stats.memory_areas);
    expect(stats.page_faults).toBeGreaterThan(0);
  });

  it('is read where that is asked for', async () => {
    const stats = await statsOf(image, ['--no-direct-map']);
    expect(stats).toMatchObject({ mode: 'eager', reason: 'no-direct-map', direct_bytes: 0, deferred_bytes: 0 });
    expect(stats.eager_bytes).toBeGreaterThanOrEqual(16 << 20);
  });

  it('is loaded while the program runs where that is asked for, or its file system cannot map it', async () => {
    expect(await statsOf(image, ['--concurrent'])).toMatchObject({ mode: 'concurrent', reason: 'concurrent', direct_bytes: 0 });
    expect(await statsOf(image, [], ['mapping'])).toMatchObject({ mode: 'concurrent', reason: 'not-mappable', direct_bytes: 0 });
    expect(await statsOf(image, ['--no-concurrent'], ['mapping'])).toMatchObject({ mode: 'eager', reason: 'no-concurrent' });
  });

  it('is read before the program goes on where the kernel cannot hold up system calls', async () => {
    expect(await statsOf(image, [], ['mapping', 'dispatch'])).toMatchObject({ mode: 'eager', reason: 'no-dispatch' });
  });
});

describe('a compressed image', () => {
  let image: string;
  beforeAll(async () => void (image = await imageOf('memory_large', ['--compression', 'lz4'], { WARP_TEST_MEBIBYTES: '16' })));

  it('is loaded while the program runs, or before', async () => {
    const stats = await statsOf(image);
    expect(stats).toMatchObject({ mode: 'concurrent', reason: 'compressed', direct_bytes: 0 });
    expect(stats.deferred_bytes).toBeGreaterThan(8 << 20);
    expect(await statsOf(image, ['--no-concurrent'])).toMatchObject({ mode: 'eager', reason: 'no-concurrent', faults: null });
    expect(await statsOf(image, ['--verify'])).toMatchObject({ mode: 'eager', reason: 'verify' });
    expect(await statsOf(image, [], ['dispatch'])).toMatchObject({ mode: 'eager', reason: 'no-dispatch', deferred_bytes: 0 });
  });

  it('has absent memory noticed in the way that the host allows', async () => {
    const everybody = readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').trim() === '1';
    expect(await statsOf(image)).toMatchObject(
      everybody ? { faults: 'userfaultfd', faults_reason: 'kernel-faults' } : { faults: 'userfaultfd-user', faults_reason: 'user-faults' },
    );
    expect(await statsOf(image, [], ['userfaultfd'])).toMatchObject({ faults: 'signals', faults_reason: 'no-userfaultfd' });
    expect(await statsOf(image, ['--load-faults', 'signals'])).toMatchObject({ faults: 'signals', faults_reason: 'load-faults' });
  });

  it('of few bytes is loaded before the program goes on', async () => {
    const small = await imageOf('process_identity', ['--compression', 'lz4']);
    expect(await statsOf(small)).toMatchObject({ mode: 'eager', reason: 'small' });
  });
});

it('an image of shared memory and small pieces has nothing to map, and nothing that can wait', async () => {
  const image = await imageOf('memory_shared');
  const stats = await statsOf(image);
  expect(stats).toMatchObject({ mode: 'eager', reason: 'nothing-to-map', direct_bytes: 0, deferred_bytes: 0 });
  expect(stats.object_bytes).toBeGreaterThan(0);
  expect(await statsOf(image, ['--concurrent'])).toMatchObject({ mode: 'eager', reason: 'nothing-can-wait', deferred_bytes: 0 });
});

describe('an image of a program whose system calls cannot be redirected', () => {
  it.each(['memory_release_fixed', 'memory_release_made'])('%s is not mapped', async (program) => {
    expect(await statsOf(await imageOf(program))).toMatchObject({ mode: 'eager', reason: 'small', direct_bytes: 0 });
  });

  it('is mapped where code that the program has made only looks so', async () => {
    expect(await statsOf(await imageOf('memory_made'))).toMatchObject({ mode: 'direct', reason: 'plain' });
  });
});

it('an image that might need too many memory areas is not mapped', async ({ skip }) => {
  const image = await imageOf('memory_large', [], { WARP_TEST_MEBIBYTES: '16' });
  const stats = await statsWhere('/proc/sys/vm/max_map_count', '100\n', image);
  if (typeof stats === 'string') return skip(stats);
  expect(stats).toMatchObject({ mode: 'concurrent', reason: 'area-limit' });
});

describe('on a cold page cache', () => {
  /** Restores an image that is not cached, from a device that the kernel does not read far ahead by itself. */
  async function coldStats(image: string): Promise<RestoreStats | string> {
    const path = join(image, 'core.img');
    const evicted = spawnSync(cached, [path, 'evict'], { encoding: 'utf8' });
    if (evicted.stdout !== '0\n') return `the image cannot be put out of the page cache here: ${evicted.stdout || evicted.stderr}`;
    const device = BigInt(statSync(path).dev);
    const numbers = `${(device >> 8n) & 0xfffn}:${(device & 0xffn) | ((device >> 12n) & 0xfff00n)}`;
    const settings = ['', '../'].map((part) => `/sys/dev/block/${numbers}/${part}queue/read_ahead_kb`);
    const setting = settings.find((one) => existsSync(one));
    return setting ? statsWhere(realpathSync(setting), '128\n', image) : statsOf(image);
  }

  it('what is read of a plain image is asked for at once, and nothing when it is cached', async ({ skip }) => {
    const image = await imageOf('memory_large', [], { WARP_TEST_MEBIBYTES: '16' });
    const cold = await coldStats(image);
    if (typeof cold === 'string') return skip(cold);
    // What is read, but for what the kernel has read behind the metadata by itself, and small pieces that are mapped.
    expect(cold.prefetched_bytes).toBeGreaterThan(0);
    expect(cold.prefetched_bytes).toBeLessThan(cold.direct_bytes);
    expect((await statsOf(image)).prefetched_bytes).toBe(0);
  });

  it('what training needed is asked for first', async ({ skip }) => {
    const started = await startProgram('memory_accesses', firstVariant());
    const image = await checkpointAndEnd(started.target, ['--compression', 'lz4']);
    const until = ['--until', `rm ${join(started.scratch, 'done')} 2>/dev/null`];
    const trained = warpTool(['optimize', image, '--runs', '1', ...until]);
    expect(await trained.ended).toEqual({ code: 0, signal: null });
    const cold = await coldStats(image);
    if (typeof cold === 'string') return skip(cold);
    expect(cold.prefetched_bytes).toBeGreaterThan(0);
    expect(cold.prefetched_bytes).toBeLessThan(cold.direct_bytes + cold.deferred_bytes);
  });
});

it('warp-tool prints the schema of what --stats writes', async () => {
  const printed = warpTool(['schema', 'restore-stats']);
  expect(await printed.ended).toEqual({ code: 0, signal: null });
  expect(JSON.parse(printed.stdout)).toMatchObject({ title: 'warp-tool restore --stats', ...fileSchemas['restore-stats']!.json });
});
