/** What is read of large images: headers and notes to open them, and then the chunks that are asked for. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ChunkIndex } from '../src/elf/chunk-index.js';
import { composeMetadata } from '../src/elf/compose-metadata.js';
import { descriptorsOf } from '../src/elf/descriptors.js';
import { Image } from '../src/elf/image.js';
import { chunkTable } from '../src/elf/pack.js';
import { CODEC_LZ4, IMAGE_COMPRESSED, NONE, projectNotes } from '../src/elf/schema.js';
import { PT_LOAD, PT_WARP_CHUNKED, type Segment } from '../src/elf/segments.js';
import { FileSource } from '../src/elf/source.js';
import { xxh64 } from '../src/elf/xxh64.js';
import { codec } from '../src/engine/codec.js';
import { removeDirectory, scratchDirectory, warpTool } from './support/cores.js';
import { CountingSource } from './support/counting-source.js';
import { auxvNote, prpsinfoNote, prstatusNote, table } from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const GIB = 2 ** 30;
const CHUNK = 256 << 10;
/** Room in the file for each chunk: much more than the few that are there take. */
const PLACE = 128 << 10;
const CONTENT = 8 * GIB;
const START = 0x7000_0000_0000n;
const STACK = START + BigInt(CONTENT) - 8192n;

/** What one chunk holds. */
function contentOf(chunk: number): Buffer {
  const content = Buffer.alloc(CHUNK);
  for (let at = 0; at < CHUNK; at += 8) content.writeBigUInt64LE(BigInt(chunk) * 0x1_0000n + BigInt((at * 7919) % 1009), at);
  return content;
}

/**
 * A compressed image of 8 GiB of memory, of which only the chunks named are really in the file: all others are holes, so that reading any of them
 * fails its hash. `stretches`: how many separate segments the memory is in, with as much empty memory behind each.
 */
async function largeImage(
  path: string,
  real: readonly number[],
  stretches: number,
): Promise<{ size: number; metadata: number; chunks: number }> {
  const content = (metadataSize: number): ChunkIndex =>
    ChunkIndex.planned(Array.from({ length: CONTENT / CHUNK }, (_, chunk) => [metadataSize + chunk * CHUNK, CHUNK] as [number, number]));
  const segments = (metadataSize: number): Segment[] => {
    const length = BigInt(CONTENT / stretches);
    const base = {
      index: 0,
      typeName: '',
      readable: true,
      writable: true,
      executable: false,
      fileSize: 0n,
      memorySize: length,
      align: 4096n,
    };
    return Array.from({ length: stretches }, (_, index): Segment[] => {
      const address = START + 2n * length * BigInt(index);
      const offset = BigInt(metadataSize) + length * BigInt(index);
      return [
        { ...base, type: PT_WARP_CHUNKED, offset, address },
        ...(stretches > 1 ? [{ ...base, type: PT_LOAD, offset: 0n, address: address + length }] : []),
      ];
    }).flat();
  };
  const end = START + BigInt(stretches > 1 ? 2 * CONTENT : CONTENT);
  const area = { start: START, end, kind: 1, protection: 3, file: NONE, object: NONE, resident: BigInt(CONTENT), stored: BigInt(CONTENT) };
  const compose = (index: ChunkIndex, metadataSize: number): Promise<Buffer> =>
    composeMetadata({
      machine: 62,
      formatMinor: 0,
      flags: IMAGE_COMPRESSED,
      segments: segments(metadataSize),
      foreignNotes: [
        { content: Buffer.concat([prstatusNote(100, { 19: STACK }), prpsinfoNote(100, 'large'), auxvNote([[6, 4096n]])]), align: 4n },
      ],
      notes: [
        { type: projectNotes.image.type, descriptor: table('image', [{ machine: 62, page_size: 4096, flags: IMAGE_COMPRESSED }]) },
        { type: projectNotes.process.type, descriptor: table('process', [{ pid: 100 }]) },
        {
          type: projectNotes.threads.type,
          descriptor: table('threads', [{ tid: 100, flags: 1, system_call: -1, name: Buffer.from('large') }]),
        },
        { type: projectNotes.vmas.type, descriptor: table('vmas', [area]) },
        { type: projectNotes.chunks.type, descriptor: chunkTable(index) },
      ],
      contentSize: BigInt(metadataSize + CONTENT),
      fileSize: BigInt(metadataSize + (CONTENT / CHUNK) * PLACE),
      leastSize: 0n,
    });
  const metadata = (await compose(content(0), 0)).length;
  const index = content(metadata);
  const file = openSync(path, 'w', 0o600);
  try {
    const size = metadata + index.length * PLACE;
    ftruncateSync(file, size);
    for (let chunk = 0; chunk < index.length; chunk++)
      index.setStored(chunk, { fileOffset: metadata + chunk * PLACE, size: PLACE, contentHash: 1n, storedHash: 1n, flags: CODEC_LZ4 });
    for (const chunk of real) {
      const plain = contentOf(chunk);
      const block = (await codec().compress(plain, 1))!;
      expect(block.length).toBeLessThan(PLACE);
      const [contentHash, storedHash] = [await xxh64(plain), await xxh64(block)];
      index.setStored(chunk, { fileOffset: metadata + chunk * PLACE, size: block.length, contentHash, storedHash, flags: CODEC_LZ4 });
      writeSync(file, block, 0, block.length, metadata + chunk * PLACE);
    }
    writeSync(file, await compose(index, metadata), 0, metadata, 0);
    return { size, metadata, chunks: index.length };
  } finally {
    closeSync(file);
  }
}

describe.each([1, 4096])('a compressed image of 8 GiB in %i segments', (stretches) => {
  const path = join(directory, `large-${stretches}.img`);
  const last = CONTENT / CHUNK - 1;
  const middle = 12_345;
  let made: Awaited<ReturnType<typeof largeImage>>;

  /** The address of a place in a chunk's content. */
  const addressOf = (chunk: number, inside: number): bigint => {
    const length = CONTENT / stretches;
    const at = chunk * CHUNK + inside;
    return START + BigInt((stretches > 1 ? 2 : 1) * Math.floor(at / length) * length + (at % length));
  };

  beforeAll(async () => {
    made = await largeImage(path, [0, middle, middle + 1, last], stretches);
    expect(made.size).toBeGreaterThan(4 * GIB);
  });

  it('is opened and listed with its metadata alone, read once', async () => {
    const source = new CountingSource(await FileSource.open(path));
    const image = await Image.from(source);
    // Header (twice), anchor, segment table, notes.
    expect(source.reads).toBeLessThanOrEqual(6);
    expect(source.bytes).toBeLessThanOrEqual(made.metadata + 512);
    const opened = source.bytes;
    expect(image.threads()).toHaveLength(1);
    expect(image.vmas()).toMatchObject([{ stored: BigInt(CONTENT), zero: stretches > 1 ? BigInt(CONTENT) : 0n }]);
    expect(image.vmas()[0]!.packed).toBeGreaterThan(BigInt(CONTENT / 2 - 4 * PLACE));
    expect(descriptorsOf(image)).toEqual([]);
    expect(image.chunks.summary()).toMatchObject({ codecs: [CODEC_LZ4], encrypted: false, inParent: 0 });
    expect(source.bytes).toBe(opened);
    await image.close();
  });

  it('gives memory for the chunks that it is in, as they are stored', async () => {
    const source = new CountingSource(await FileSource.open(path));
    const image = await Image.from(source);
    const stored = (...chunks: number[]): number => chunks.reduce((sum, chunk) => sum + image.chunks.storedSize(chunk), 0);
    let before = source.bytes;
    const expectRead = async (chunk: number, inside: number, length: number, needs: number[]): Promise<void> => {
      const expected = Buffer.concat([contentOf(chunk), contentOf(chunk + 1)]).subarray(inside, inside + length);
      expect((await image.memory.read(addressOf(chunk, inside), length)).equals(expected)).toBe(true);
      expect(source.bytes - before).toBe(stored(...needs));
      before = source.bytes;
    };
    await expectRead(0, 0, 16, [0]);
    await expectRead(0, 4096, 4096, []);
    await expectRead(last, CHUNK - 256, 256, [last]);
    await expectRead(middle, 100, 1000, [middle]);
    // Across two chunks where the memory goes on; the first is at hand.
    if (stretches === 1) await expectRead(middle, CHUNK - 100, 200, [middle + 1]);
    await expect(image.memory.read(addressOf(20_000, 0), 16)).rejects.toThrow(/chunk 20000/);
    await image.close();
  });

  it('is shown by the commands, which read none of the holes', () => {
    for (const argv of [['show'], ['threads'], ['maps'], ['fds'], ['mem', addressOf(last, CHUNK - 256).toString(16)]]) {
      const [command, ...rest] = argv as [string, ...string[]];
      expect(warpTool(command, path, ...rest), argv.join(' ')).toMatchObject({ status: 0, stderr: '' });
    }
  });
});
