/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Images that are compressed at the capture: what is in them, that programs come back from them, and that damage is found. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { withImage } from '../../src/elf/image.js';
import { firstVariant, lastTick, programs, restoreProgram, startProgram } from './support/c-programs.js';
import { makeDirectory } from './support/host.js';
import { checkpoint, checkpointAndEnd, killAll, restore, runCheckpoint } from './support/program.js';

afterEach(killAll);

const compressed = ['--compression', 'lz4'];
const variant = firstVariant();
const chunksOf = (image: string) => withImage(image, (opened) => [...opened.table('chunks')]);

describe('each program, compressed', () => {
  const chosen = /^(?:memory_(?!large)|mutex_|fd_(?:pipes|epoll|files)|threads_(?:registers|control)|tls|vdso|signals_altstack)/;
  it.each(programs.filter((program) => chosen.test(program)))('%s goes on, and comes back', async (program) => {
    const { target } = await startProgram(program, variant);
    const running = await checkpoint(target, [...compressed, '--leave-running']);
    await target.goesOn();
    const image = await checkpointAndEnd(target, compressed);
    expect(target.stdout).not.toContain('FAIL');
    const stoppedAfter = lastTick(target.stdout);
    await (await restoreProgram(running)).kill();
    await (await restoreProgram(image, stoppedAfter)).kill();
    await (await restoreProgram(image, stoppedAfter, ['--no-concurrent', '--verify'])).kill();
  });
});

describe('generations', () => {
  it.each(['memory_private', 'memory_memfd', 'memory_kinds'])('%s: compressed and plain ones by turns', async (program) => {
    let { target } = await startProgram(program, variant);
    for (const args of [compressed, [], [...compressed, '--compression-level', '9'], compressed]) {
      const image = await checkpointAndEnd(target, args);
      target = await restoreProgram(image, lastTick(target.stdout), ['--no-concurrent']);
    }
  });
});

describe('memory of every kind', () => {
  let image: string;
  let plain: string;
  let statistics: Record<string, number | string>;

  beforeAll(async () => {
    const { target } = await startProgram('memory_kinds', variant);
    plain = await checkpoint(target, ['--leave-running']);
    const file = join(makeDirectory(), 'statistics.json');
    image = await checkpointAndEnd(target, [...compressed, '--stats', file]);
    statistics = JSON.parse(readFileSync(file, 'utf8')) as typeof statistics;
  });

  it('is stored as it shrinks: LZ4, plain, once for all', async () => {
    const chunks = await chunksOf(image);
    const places = new Map(chunks.map((chunk) => [chunk.file_offset, chunk]));
    const stored = [...places.values()].reduce((sum, chunk) => sum + chunk.stored_size, 0);
    const content = chunks.reduce((sum, chunk) => sum + chunk.content_size, 0);
    expect(new Set(chunks.map((chunk) => chunk.flags))).toEqual(new Set([0, 1]));
    // 4 MiB of noise stay as they are, 8 MiB of equal pages become little more than one chunk, 4 MiB of words shrink.
    expect(chunks.filter((chunk) => chunk.flags === 0).length).toBeGreaterThanOrEqual(14);
    expect(chunks.length - places.size).toBeGreaterThanOrEqual(29);
    const metadata = Number(readFileSync(join(image, 'core.img')).readBigUInt64LE(64 + 16));
    expect(statSync(join(image, 'core.img')).size).toBe(metadata + stored);
    expect(stored).toBeLessThan(content / 2);
    expect(statistics).toMatchObject({ compression: 'lz4', content_bytes: content, stored_bytes: stored });
    expect(statistics['image_bytes']).toBe(metadata + stored);
    expect(statistics['repeated_bytes']).toBeGreaterThanOrEqual(29 * 256 * 1024);
    expect(statistics['ratio']).toBeCloseTo(content / stored, 1);
  });

  it('has the same content as a plain image of the same process', async () => {
    const areas = (path: string): Promise<bigint[][]> =>
      withImage(path, (opened) => [...opened.table('vmas')].map((vma) => [vma.start, vma.end, vma.stored]));
    const large = (all: bigint[][]): bigint[][] => all.filter(([start, end]) => end! - start! >= 4n << 20n);
    expect(large(await areas(image))).toEqual(large(await areas(plain)));
  });

  it('is smaller at a higher level', async () => {
    const restored = await restoreProgram(plain);
    const small = await checkpointAndEnd(restored, [...compressed, '--compression-level', '9']);
    expect(statSync(join(small, 'core.img')).size).toBeLessThan(statSync(join(image, 'core.img')).size);
    await restoreProgram(small, lastTick(restored.stdout));
  });

  it('damaged in any chunk is refused with one line that says where', async () => {
    const bytes = readFileSync(join(image, 'core.img'));
    const chunks = await chunksOf(image);
    const kinds = [
      chunks.find((chunk) => chunk.flags === 0)!,
      chunks.find((chunk) => chunk.flags === 1)!,
      chunks.findLast((chunk) => chunk.flags === 1)!,
    ];
    for (const chunk of kinds) {
      for (const part of [0, 0.5, 1]) {
        const damaged = Buffer.from(bytes);
        const at = Number(chunk.file_offset) + Math.floor((chunk.stored_size - 1) * part);
        damaged[at] = damaged[at]! ^ 0x10;
        const directory = makeDirectory();
        writeFileSync(join(directory, 'core.img'), damaged, { mode: 0o644 });
        const refused = restore(directory, ['--no-concurrent']);
        expect(await refused.ended).toEqual({ code: 2, signal: null });
        expect(refused.stdout).toBe('');
        expect(refused.stderr).toMatch(
          /^warp-restore: \S+\/core\.img: chunk \d+ \(offset 0x[0-9a-f]+, \d+ bytes, memory at 0x[0-9a-f]+\) .*: take it from its source again\n$/,
        );
        expect(refused.stderr).toContain(`${directory}/core.img`);
        expect(refused.stderr).toContain(`offset 0x${chunk.file_offset.toString(16)},`);
      }
    }
  });
});

it('the client says which compressions and levels there are', async () => {
  for (const [args, words] of [
    [['--compression', 'zip'], /--compression zip: choose none or lz4/],
    [['--compression', 'lz4', '--compression-level', '10'], /--compression-level 10: choose 1 to 9/],
    [['--compression-level', '3'], /no meaning without --compression lz4/],
  ] as const) {
    const result = await runCheckpoint(1, makeDirectory(), [...args]);
    expect(result.code).toBe(2);
    expect(result.stderr).toMatch(words);
  }
});
