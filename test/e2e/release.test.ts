/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Memory that programs give back after it was mapped from the image: it reads as zeros, whoever makes the system call. The C programs memory_release_* have more. */
import { copyFileSync, existsSync, readFileSync, renameSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { withImage } from '../../src/elf/image.js';
import { executable, firstVariant, lastTick, restoreProgram, startProgram } from './support/c-programs.js';
import { makeDirectory, node } from './support/host.js';
import { checkpointAndEnd, killAll, type Program, restore, runCheckpoint, start } from './support/program.js';

afterEach(killAll);

function library(name: string): string | undefined {
  return ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib'].map((directory) => join(directory, name)).find((path) => existsSync(path));
}

async function restoredMode(image: string, stoppedAfter: number): Promise<string> {
  const stats = join(makeDirectory(), 'stats.json');
  await (await restoreProgram(image, stoppedAfter, ['--stats', stats])).kill();
  const { mode, reason } = JSON.parse(readFileSync(stats, 'utf8')) as { mode: string; reason: string };
  return `${mode}: ${reason}`;
}

/** Each set to give memory back as soon as it is free: calloc then relies on the kernel's zeros. The whole of tcmalloc has system calls in other code that cannot be redirected. */
const allocators: { name: string; file: string; environment: Record<string, string>; mode: string }[] = [
  { name: 'jemalloc', file: 'libjemalloc.so.2', environment: { MALLOC_CONF: 'dirty_decay_ms:0,muzzy_decay_ms:0' }, mode: 'direct: plain' },
  {
    name: 'tcmalloc, minimal',
    file: 'libtcmalloc_minimal.so.4',
    environment: { TCMALLOC_AGGRESSIVE_DECOMMIT: '1' },
    mode: 'direct: plain',
  },
  {
    name: 'tcmalloc',
    file: 'libtcmalloc.so.4',
    environment: { TCMALLOC_AGGRESSIVE_DECOMMIT: '1' },
    mode: '(eager: small|concurrent: fixed-calls)',
  },
];

describe('allocators', () => {
  for (const { name, file, environment, mode } of allocators)
    it.skipIf(!library(file))(`${name}: threads that allocate go on, and calloc gives zeros`, async () => {
      const target = start(executable('memory_busy', firstVariant()), [makeDirectory()], { preload: library(file)!, environment });
      await target.output(/^tick 5$/m);
      const image = await checkpointAndEnd(target);
      for (let i = 0; i < 3; i++) expect(await restoredMode(image, lastTick(target.stdout))).toMatch(new RegExp(`^${mode}$`));
    });
});

describe('changed pages of a file', () => {
  /** The areas of the program's files, as the image has them. */
  async function areasOf(image: string): Promise<unknown[]> {
    const areas = await withImage(image, (opened) => opened.vmas());
    return areas
      .filter(({ name }) => /\/(?:plain|read-only|to-the-end)$/.test(name))
      .map(({ kind, name, offset, flags, stored, fromFile, ...area }) => [
        area.start,
        area.end,
        kind,
        name,
        offset,
        flags,
        stored,
        fromFile,
      ]);
  }

  it("are mapped, and are the file's in the next image", async () => {
    const { target } = await startProgram('memory_file_pages', firstVariant());
    const files = (pid: number): number =>
      readFileSync(`/proc/${pid}/maps`, 'utf8')
        .split('\n')
        .filter((line) => line.endsWith('/core.img')).length;
    let image = await checkpointAndEnd(target);
    const areas = await areasOf(image);
    expect(areas).toHaveLength(3);
    for (let generation = 1; generation <= 3; generation++) {
      const stats = join(makeDirectory(), 'stats.json');
      const restored = restore(image, ['--stats', stats]);
      await restored.output(/^restored ok$/m);
      const { mode, direct_bytes: direct } = JSON.parse(readFileSync(stats, 'utf8')) as { mode: string; direct_bytes: number };
      expect(mode).toBe('direct');
      expect(direct).toBeGreaterThanOrEqual(304 * 4096);
      expect(files(restored.pid)).toBeGreaterThan(0);
      image = await checkpointAndEnd(restored);
      expect(await areasOf(image)).toEqual(areas);
    }
  });
});

describe('an image that a running program is mapped from', () => {
  async function mapped(): Promise<{ restored: Program; file: string }> {
    const { target } = await startProgram('memory_large', firstVariant(), { environment: { WARP_TEST_MEBIBYTES: '16' } });
    const image = await checkpointAndEnd(target);
    const stats = join(makeDirectory(), 'stats.json');
    const restored = await restoreProgram(image, lastTick(target.stdout), ['--stats', stats]);
    expect(JSON.parse(readFileSync(stats, 'utf8'))).toMatchObject({ mode: 'direct', reason: 'plain' });
    return { restored, file: join(image, 'core.img') };
  }

  it.each(['stored as it is', '--compression lz4', '--leave-running'])(
    'truncated: a checkpoint is refused, and the program goes on, %s',
    async (how) => {
      const { restored, file } = await mapped();
      const size = statSync(file).size;
      truncateSync(file, Math.floor(size / 2));
      for (let attempt = 0; attempt < 2; attempt++) {
        const { code, stderr } = await runCheckpoint(
          restored.pid,
          join(makeDirectory(), 'image'),
          how.startsWith('--') ? how.split(' ') : [],
        );
        expect(stderr.trimEnd().split('\n')).toHaveLength(1);
        expect(stderr).toMatch(
          /core\.img: the file has become shorter than what is mapped of it \(memory at 0x[0-9a-f]+, offset 0x[0-9a-f]+\): /,
        );
        expect(code).toBe(2);
        await restored.goesOn();
      }
    },
  );

  it('replaced by another: its next generation has the memory as it was', async () => {
    const { restored, file } = await mapped();
    const other = join(makeDirectory(), 'other');
    copyFileSync(file, other);
    truncateSync(other, 4096);
    renameSync(other, file);
    const image = await checkpointAndEnd(restored);
    await restoreProgram(image, lastTick(restored.stdout));
  });
});

describe('Node.js', () => {
  it('collects garbage that was mapped from the image, and new arrays are zero', async () => {
    const script = `
      const keep = Array.from({ length: 400 }, (_, i) => ({ name: 'object ' + i, list: Array.from({ length: 2000 }, (_, k) => i * k) }));
      let garbage = [];
      const makeGarbage = () => { garbage = Array.from({ length: 60 }, () => [new Uint8Array(1 << 20).fill(7), Array.from({ length: 20000 }, (_, k) => ({ k }))]); };
      makeGarbage();
      let ticks = 0;
      setInterval(() => {
        console.log('tick ' + ticks++);
        if (ticks < 4) return;
        garbage = [];
        globalThis.gc();
        for (let i = 0; i < 60; i++) if (new Uint8Array((1 << 20) + i).includes(7)) throw new Error('an array has old content');
        if (keep.some(({ name, list }, i) => name !== 'object ' + i || list[1999] !== i * 1999)) throw new Error('an object has changed');
        makeGarbage();
        console.log('collected');
      }, 50);`;
    const target = start(node(), ['--expose-gc', '-e', script]);
    await target.output(/^tick 2$/m);
    const image = await checkpointAndEnd(target);
    const restored = restore(image);
    await restored.goesOn(/^collected$/gm, 4);
    expect(restored.stderr).toBe('');
  });
});
