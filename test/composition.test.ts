/** What memory is made of: purposes, zeros, copies, what LZ4 saves, and the advice that follows. */
import { createCipheriv, createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { AddressSpace } from '../src/elf/address-space.js';
import { adviceOf } from '../src/elf/advice.js';
import { categoryOf } from '../src/elf/categories.js';
import { Cells, Census, compositionOf, type Composition } from '../src/elf/composition.js';
import { Image } from '../src/elf/image.js';
import { BufferSource, type ByteSource } from '../src/elf/source.js';
import type { Vma } from '../src/elf/vmas.js';
import { xxh64Function } from '../src/elf/xxh64.js';
import { fileNote, foreignCore, PAGE, prpsinfoNote, prstatusNote, warpImage, type SegmentPlan } from './support/synthesise.js';

const NONE = 0xffffffff;

/** Bytes that no compressor shrinks, the same for the same seed. */
function noise(size: number, seed: string): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

async function analyse(file: Buffer): Promise<{ image: Image; composition: Composition; progress: number[] }> {
  const image = await Image.from(new BufferSource('built', file));
  const space = new AddressSpace(image);
  const progress: number[] = [];
  const composition = await compositionOf(space, (done, total) => progress.push(done / total));
  await space.close();
  return { image, composition, progress };
}

const category = (composition: Composition, name: string): Composition['categories'][number] =>
  composition.categories.find((one) => one.category === name)!;

describe('the composition of an image', () => {
  it('counts zeros, copies and what LZ4 leaves, and shows where they are', async () => {
    const first = noise(PAGE, 'first');
    const content = Buffer.concat([first, Buffer.alloc(PAGE), noise(PAGE, 'second'), first, Buffer.alloc(PAGE, 'ab'), Buffer.alloc(PAGE)]);
    const { composition, progress } = await analyse(
      await warpImage({
        segments: [
          { address: 0x10000n, size: BigInt(content.length), content },
          { address: 0x100000n, size: 2n * BigInt(PAGE), content: Buffer.concat([first, noise(PAGE, 'third')]) },
          { address: 0x200000n, size: 8192n },
        ],
      }),
    );
    expect(composition.areas.map(({ cells, zero, duplicate, unread }) => ({ cells, zero, duplicate, unread }))).toEqual([
      { cells: 's1n1s1d1s1n1', zero: 2 * PAGE, duplicate: PAGE, unread: 0 },
      { cells: 'd1s1', zero: 0, duplicate: PAGE, unread: 0 },
      { cells: 'z2', zero: 0, duplicate: 0, unread: 0 },
    ]);
    expect(composition).toMatchObject({ cell: PAGE, duplicatesFrom: 1 });
    const anonymous = category(composition, 'anonymous');
    expect(anonymous).toMatchObject({ read: 8 * PAGE, sampled: 8 * PAGE, zero: 2 * PAGE, duplicate: 2 * PAGE });
    expect(anonymous.areas).toHaveLength(3);
    // Three pages of noise, one of them thrice but twice within a block: LZ4 finds that one again.
    expect(anonymous.packed).toBeGreaterThan(4 * PAGE);
    expect(anonymous.packed).toBeLessThan(5 * PAGE);
    expect(progress.at(-1)).toBe(1);
  });

  it('does not take holes that bridge gaps for stored zeros', async () => {
    const content = Buffer.concat([noise(PAGE, 'a'), Buffer.alloc(2 * PAGE), noise(PAGE, 'b')]);
    const { composition } = await analyse(
      await warpImage({
        segments: [{ address: 0x10000n, size: BigInt(content.length), content }],
        tables: {
          vmas: [{ start: 0x10000n, end: 0x14000n, kind: 1, protection: 3, file: NONE, object: NONE, resident: 8192n, stored: 8192n }],
        },
      }),
    );
    expect(composition.areas[0]).toMatchObject({ cells: 's1z2s1', zero: 0, duplicate: 0 });
    expect(category(composition, 'anonymous')).toMatchObject({ read: 4 * PAGE, zero: 0 });
  });

  it('knows the pages of a file that is not aligned, also at the ends of what is read at once', async () => {
    const size = 9 << 20;
    const page = noise(PAGE, 'same');
    const content = noise(size, 'different');
    for (const at of [0, 1023, 1024, 2047, 2048]) page.copy(content, at * PAGE);
    const aligned = foreignCore({ segments: [{ address: 0x40000000n, size: BigInt(size), content }], notes: [prstatusNote(1)] });
    const shift = 123;
    const file = Buffer.concat([aligned.subarray(0, -size), Buffer.alloc(shift), aligned.subarray(-size)]);
    file.writeBigUInt64LE(BigInt(aligned.length - size + shift), 64 + 56 + 8); // p_offset of the first PT_LOAD
    const { composition } = await analyse(file);
    expect(composition.areas[0]).toMatchObject({ zero: 0, duplicate: 4 * PAGE, unread: 0 });
    expect(composition.areas[0]!.cells).toBe('s1023d2s1022d2s255');
  });

  it('tries LZ4 on a fair sample of what is too much, also where content repeats itself', async () => {
    const period = 4 << 20;
    const half = noise(period / 2, 'half');
    const size = 192 << 20;
    const segments = [{ address: 0x40000000n, size: BigInt(size), content: Buffer.alloc(0) }];
    const head = foreignCore({ segments, notes: [prstatusNote(1)] });
    head.writeBigUInt64LE(BigInt(size), 64 + 56 + 32); // p_filesz of the first PT_LOAD
    const source: ByteSource = {
      name: 'periodic',
      size: BigInt(head.length + size),
      read: async (offset, length) => {
        const result = Buffer.alloc(length);
        await source.readInto(offset, result);
        return result;
      },
      readInto: async (offset, buffer) => {
        buffer.fill(0);
        if (offset < BigInt(head.length)) head.copy(buffer, 0, Number(offset));
        const from = Number(offset) - head.length;
        for (let start = Math.floor(from / period) * period; start < from + buffer.length; start += period) {
          const skipped = Math.max(0, from - start);
          if (skipped < half.length) half.copy(buffer, start + skipped - from, skipped);
        }
      },
      close: async () => {},
    };
    const image = await Image.from(source);
    const space = new AddressSpace(image);
    const composition = await compositionOf(space);
    const { sampled, packed, read } = category(composition, 'anonymous');
    expect(read).toBe(size);
    expect(sampled / (64 << 20)).toBeGreaterThan(0.9);
    expect(sampled / (64 << 20)).toBeLessThan(1.1);
    expect(packed / sampled).toBeGreaterThan(0.4);
    expect(packed / sampled).toBeLessThan(0.6);
  });

  it('says what it could not read', async () => {
    const content = noise(16 * PAGE, 'cut');
    const file = await warpImage({ segments: [{ address: 0x10000n, size: BigInt(content.length), content }] });
    const { composition } = await analyse(file.subarray(0, -4 * PAGE));
    expect(composition.areas[0]).toMatchObject({ cells: 's16', unread: 4 * PAGE });
  });

  it('tells malloc arenas by their heap_info, and nothing else', async () => {
    const start = 0x7f00_0000_0000n;
    const arena = (arenaPointer: bigint, size: bigint): Buffer => {
      const content = noise(2 * PAGE, `${arenaPointer} ${size}`);
      content.writeBigUInt64LE(arenaPointer, 0);
      content.writeBigUInt64LE(0n, 8);
      content.writeBigUInt64LE(size, 16);
      content.writeBigUInt64LE(0x21000n, 24);
      return content;
    };
    const at = (index: bigint, content: Buffer): SegmentPlan => ({ address: start + (index << 26n), size: 0x21000n, content });
    const { composition } = await analyse(
      await warpImage({
        segments: [
          at(0n, arena(start + 0x30n, 0x21000n)),
          at(1n, arena(start + 0x30n, 0x21000n)), // points into another heap, but says that it is the first of its arena
          at(2n, arena(start + (2n << 26n) + 0x30n, 0x21001n)), // no whole pages
          at(3n, noise(2 * PAGE, 'data')),
          { ...at(4n, arena(start + (4n << 26n) + 0x1030n, 0x21000n)), address: start + (4n << 26n) + 0x1000n }, // not aligned
        ],
      }),
    );
    expect(composition.areas.map(({ category: one, label }) => [one, label])).toEqual([
      ['heap', 'malloc arena'],
      ...Array.from({ length: 4 }, () => ['anonymous', 'anonymous']),
    ]);
  });

  it('draws the files of a core, whether they are here or not', async () => {
    const { composition } = await analyse(
      foreignCore({
        segments: [{ address: 0x400000n, size: 8192n, content: noise(PAGE, 'x'), flags: 5 }],
        notes: [prstatusNote(1), prpsinfoNote(1, 'p'), fileNote([{ start: 0x400000n, end: 0x402000n, offset: 0n, path: '/no/such/file' }])],
      }),
    );
    expect(composition.areas[0]).toMatchObject({ category: 'code', label: '/no/such/file', cells: 's1f1' });
  });
});

describe('purposes', () => {
  const area = (given: Partial<Vma>): Vma => ({ kind: 'anonymous', protection: 3, stored: 1n, stackOf: null, ...given }) as unknown as Vma;

  it.each<[Partial<Vma>, string]>([
    [{}, 'anonymous'],
    [{ protection: 7 }, 'generated'],
    [{ protection: 0, stored: 0n }, 'reserved'],
    [{ protection: 0 }, 'anonymous'],
    [{ protection: null }, 'anonymous'],
    [{ stackOf: 7 }, 'stack'],
    [{ kind: 'stack' }, 'stack'],
    [{ kind: 'heap' }, 'heap'],
    [{ kind: 'file', protection: 5 }, 'code'],
    [{ kind: 'file', protection: 1 }, 'file'],
    [{ kind: 'object' }, 'shared'],
    [{ kind: 'vdso', protection: 5 }, 'kernel'],
    [{ kind: 'vvar' }, 'kernel'],
    [{ kind: 'engine', protection: 5 }, 'engine'],
  ])('%o is %s', (given, expected) => expect(categoryOf(area(given))).toBe(expected));
});

describe('cells', () => {
  const cells = (size: number, ...parts: ['s' | 'd' | 'n' | 'z' | 'f' | 'a', number][]): string => {
    const made = new Cells(size);
    for (const [state, bytes] of parts) made.add(state, bytes);
    return made.text();
  };

  it('are what most of their bytes are', () => {
    expect(cells(4096, ['s', 4096], ['s', 8192], ['z', 4096])).toBe('s3z1');
    expect(cells(16_384, ['s', 4096], ['z', 12_288], ['s', 8192], ['n', 4096], ['d', 4096])).toBe('z1s1');
    expect(cells(16_384, ['z', 20_480], ['s', 1024])).toBe('z2');
    expect(cells(4096)).toBe('');
  });

  it('of terabytes cost nothing', () => expect(cells(4096, ['z', 2 ** 46], ['s', 1])).toBe(`z${2 ** 34}s1`));
});

it('estimates copies when there are more different pages than it keeps', async () => {
  const hash = await xxh64Function();
  const pages = Buffer.alloc(256 * PAGE);
  const count = (most: number): { duplicate: number; divisor: number } => {
    const census = new Census(hash, most);
    const content = { zero: 0, duplicate: 0, unread: 0 };
    // 80 × 256 pages, each of them twice but for the last 16 × 256.
    for (let round = 0; round < 80; round++) {
      const half = round < 32 ? round : round < 64 ? round - 32 : round;
      for (let page = 0; page < 256; page++) pages.writeUInt32LE(half * 256 + page + 1, page * PAGE);
      census.count(pages, content, { add() {} });
    }
    return { duplicate: content.duplicate / PAGE, divisor: census.divisor };
  };
  expect(count(1 << 20)).toEqual({ duplicate: 32 * 256, divisor: 1 });
  const estimate = count(1500);
  expect(estimate.divisor).toBeGreaterThan(4);
  expect(estimate.duplicate / (32 * 256)).toBeGreaterThan(0.85);
  expect(estimate.duplicate / (32 * 256)).toBeLessThan(1.15);
});

describe('advice', () => {
  const MIB = 1 << 20;
  const topics = async (file: Buffer): Promise<Record<string, number>> => {
    const { image, composition } = await analyse(file);
    return Object.fromEntries(adviceOf(image, composition).map(({ topic, bytes }) => [topic, bytes]));
  };

  it('tells what is copied, what is zeros and what LZ4 saves', async () => {
    const half = noise(2 * MIB, 'half');
    const content = Buffer.concat([half, half, Buffer.alloc(2 * MIB)]);
    const found = await topics(await warpImage({ segments: [{ address: 0x10000000n, size: BigInt(content.length), content }] }));
    expect(found).toMatchObject({ zeros: 2 * MIB, duplicates: 2 * MIB });
    expect(found['compression']).toBeGreaterThan(1.9 * MIB);
    expect(found['compression']).toBeLessThan(2 * MIB);
  });

  it('has none for an image that is what it must be', async () => {
    const content = noise(4 * MIB, 'all different');
    expect(await topics(await warpImage({ segments: [{ address: 0x10000000n, size: BigInt(content.length), content }] }))).toEqual({});
  });

  it('knows a JVM, a core with memory left out, and shared memory', async () => {
    const content = noise(4 * MIB, 'heap');
    const file = foreignCore({
      segments: [
        { address: 0x10000000n, size: BigInt(content.length), content },
        { address: 0x20000000n, size: 64n << 20n },
        { address: 0x400000n, size: 8192n, flags: 5 },
      ],
      notes: [prstatusNote(1), prpsinfoNote(1, 'java'), fileNote([{ start: 0x400000n, end: 0x402000n, offset: 0n, path: '/x/libjvm.so' }])],
    });
    expect(await topics(file)).toEqual({ garbage: 4 * MIB, absent: 64 * MIB });
    const shared = await warpImage({
      segments: [{ address: 0x10000000n, size: BigInt(content.length), content }],
      tables: {
        objects: [{ kind: 1, size: BigInt(content.length), name: Buffer.from('cache') }],
        vmas: [
          {
            start: 0x10000000n,
            end: 0x10000000n + BigInt(content.length),
            kind: 3,
            protection: 3,
            flags: 1,
            file: NONE,
            object: 0,
            resident: BigInt(content.length),
            stored: BigInt(content.length),
          },
        ],
      },
    });
    expect(await topics(shared)).toEqual({ 'shared-memory': 4 * MIB });
  });
});
