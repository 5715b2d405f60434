/** compress and decompress, and every command on compressed images: of our own and of other writers, made in code and by a real process. */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import xxhash from 'xxhash-wasm';
import { AddressSpace } from '../src/elf/address-space.js';
import { ChunkIndex } from '../src/elf/chunk-index.js';
import { ContentSource } from '../src/elf/content.js';
import { Image } from '../src/elf/image.js';
import { CHUNK_IN_PARENT } from '../src/elf/schema.js';
import { BufferSource, FileSource, type ByteSource } from '../src/elf/source.js';
import { encodeNote } from '../src/elf/notes.js';
import { validateImage, type Finding } from '../src/elf/validate.js';
import { imageDirectory, missing, removeDirectory, root, scratchDirectory, warpTool } from './support/cores.js';
import { CountingSource } from './support/counting-source.js';
import { auxvNote, fileNote, foreignCore, PAGE, prpsinfoNote, prstatusNote, warpImage, type SegmentPlan } from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const MIB = 1 << 20;
const TEXT = Buffer.from('the quick brown fox jumps over the lazy dog, and so on; '.repeat(20_000)).subarray(0, MIB - 3 * PAGE);
const NOISE = randomBytes(MIB / 2);
const words = (size: number, of: number): Buffer => {
  const content = Buffer.alloc(size);
  for (let at = 0; at + 8 <= size; at += 8) content.writeBigUInt64LE(BigInt(at * of) & 0xffff_ffffn, at);
  return content;
};
const withSecret = (content: Buffer): Buffer => {
  const copy = Buffer.from(content);
  copy.write('needle in a haystack', 300_000);
  return copy;
};
const segments: SegmentPlan[] = [
  { address: 0x10_0000n, size: BigInt(TEXT.length), content: withSecret(TEXT) },
  { address: 0x20_0000n, size: 0x8000n },
  { address: 0x40_0000n, size: BigInt(NOISE.length), content: NOISE, flags: 4 },
  // The same content twice, in whole chunks.
  { address: 0x7f00_0000_0000n, size: BigInt(MIB), content: words(MIB, 3) },
  { address: 0x7f10_0000_0000n, size: BigInt(MIB), content: words(MIB, 3) },
  { address: 0x7f20_0000_0000n, size: BigInt(MIB), content: Buffer.alloc(MIB) },
];
const notes = [
  prstatusNote(100, { 19: 0x10_0100n, 16: 0x10_0200n }),
  prpsinfoNote(100, 'packed'),
  auxvNote([[6, BigInt(PAGE)]]),
  fileNote([{ start: 0x40_0000n, end: 0x48_0000n, offset: 0n, path: '/nowhere/noise.so' }]),
];

function succeed(...argv: string[]): string {
  const { status, stdout, stderr } = warpTool(...argv);
  expect([status, stderr.replace(/^[^\n]* in [^\n]*\n$/, '')], argv.join(' ')).toEqual([0, '']);
  return stdout;
}

const json = (...argv: string[]): unknown => JSON.parse(warpTool(...argv, '--json').stdout);
const read = (image: string): Buffer => readFileSync(statSync(image).isDirectory() ? join(image, 'core.img') : image);

let ours: string;
let foreign: string;
/** Segments where gcore puts them: at any offset, and with less in the file than in memory. */
let unaligned: string;

beforeAll(async () => {
  ours = imageDirectory(directory, 'ours', await warpImage({ segments, kernelNotes: notes }));
  foreign = join(directory, 'foreign.core');
  writeFileSync(foreign, foreignCore({ segments, notes }));
  unaligned = join(directory, 'unaligned.core');
  const cut = segments.map((segment) => ({ ...segment, size: segment.size + 0x1000n }));
  writeFileSync(unaligned, foreignCore({ segments: cut, notes: [...notes, encodeNote('OTHER', 7, randomBytes(1237))] }));
});

const images = (): Record<string, string> => ({ ours, foreign, unaligned });

function compressed(name: string, ...flags: string[]): string {
  const path = join(directory, `${name}-compressed${flags.join('')}${name === 'ours' ? '' : '.img'}`);
  succeed('compress', images()[name]!, '-o', path, ...flags);
  return path;
}

describe.each(['ours', 'foreign', 'unaligned'])('an image: %s', (name) => {
  it.each([
    ['--threads', '1'],
    ['--threads', '3', '--level', '9'],
    ['--chunk-size', '4K'],
    ['--chunk-size', '1M'],
  ])('is the same after compress %s %s and decompress', (...flags) => {
    const packed = compressed(name, ...flags);
    const plain = images()[name]!;
    expect(read(packed).length).toBeLessThan(read(plain).length);
    expect(warpTool('validate', packed)).toMatchObject({ status: 0, stdout: expect.stringContaining('valid') });
    const back = join(directory, `${name}-back${name === 'ours' ? '' : '.core'}`);
    succeed('decompress', packed, '-o', back, '--threads', '2');
    expect(read(back).equals(read(plain))).toBe(true);
    expect(statSync(packed).isDirectory() ? readdirSync(packed) : ['core.img']).toEqual(['core.img']);
  });

  it('is shown as the plain one is by every command', () => {
    const packed = compressed(name);
    const plain = images()[name]!;
    const without = (document: unknown, ...keys: string[]): unknown =>
      JSON.parse(JSON.stringify(document, (key, value: unknown) => (keys.includes(key) ? undefined : value)));
    const same = (keys: string[], ...argv: string[]): void => {
      const [command, ...rest] = argv as [string, ...string[]];
      const expected = json(command, plain, ...rest);
      expect(without(json(command, packed, ...rest), 'image', ...keys), argv.join(' ')).toEqual(without(expected, 'image', ...keys));
    };
    same(['size', 'packed', 'content', 'flags'], 'show');
    same([], 'threads', '--registers');
    same(['packed'], 'maps');
    same([], 'auxv');
    if (name === 'ours') for (const command of ['fds', 'signals', 'env']) same([], command);
    same([], 'mem', '100000:64');
    same([], 'mem', '--text', 'needle in a haystack');
    same([], 'mem', '--search', '0300000000000000', '--limit', '5');
    same([], 'mem', '--strings', '--min-length', '30', '--range', '100000:300000');
    same([], 'mem', '--in', 'stack');
    const [one, other] = ['plain.part', 'packed.part'].map((file) => join(directory, file)) as [string, string];
    succeed('mem', plain, '--extract', '7f0000000000:1M', '-o', one);
    succeed('mem', packed, '--extract', '7f0000000000:1M', '-o', other);
    expect(readFileSync(other).equals(readFileSync(one))).toBe(true);
    expect(json('diff', plain, packed, '--memory')).toMatchObject({ different: false, memory: { pages: 0 } });
  }, 300_000);

  it('says how it is compressed', () => {
    const packed = compressed(name);
    const { content, memory } = json('show', packed) as {
      content: { codecs: string[]; chunks: number };
      memory: { packed: number; stored: number };
    };
    expect(content).toMatchObject({ codecs: expect.arrayContaining(['lz4', 'plain']), encrypted: false, in_parent: 0 });
    expect(memory.packed).toBeLessThan(memory.stored / 2);
    const { maps } = json('maps', packed) as { maps: { start: string; stored: number; packed: number }[] };
    const noise = maps.find(({ start }) => start === '0x400000')!;
    expect(noise.packed).toBeGreaterThan(noise.stored * 0.9);
    const zeros = maps.find(({ start }) => start === '0x7f2000000000')!;
    expect(zeros.packed).toBeLessThan(zeros.stored / 100);
  });

  it('is decoded and encoded without a change', () => {
    const packed = compressed(name);
    const [document, again] = [join(directory, 'document.json'), join(directory, `${name}-again.img`)];
    succeed('decode', packed, '-o', document);
    succeed('encode', document, '-o', again);
    expect(read(again).equals(read(packed))).toBe(true);
  });

  it('is redacted to the same bytes', () => {
    const packed = compressed(name);
    const [one, other] = ['redacted-plain.img', 'redacted-packed.img'].map((file) => join(directory, `${name}-${file}`)) as [
      string,
      string,
    ];
    succeed('redact', images()[name]!, '-o', one);
    succeed('redact', packed, '-o', other);
    expect(read(other).equals(read(one))).toBe(true);
    expect(read(other).includes('needle')).toBe(false);
  });

  it('has headers and notes that other readers understand', ({ skip }) => {
    const absent = missing('readelf', 'eu-readelf');
    if (absent) skip(absent);
    const packed = join(compressed(name), name === 'ours' ? 'core.img' : '');
    const plain = join(images()[name]!, name === 'ours' ? 'core.img' : '');
    for (const reader of ['readelf', 'eu-readelf']) {
      const result = spawnSync(reader, ['-W', '-l', packed], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
      expect([result.status, result.stderr], reader).toEqual([0, '']);
      expect(result.stdout).toMatch(/LOOS\+(0xa770002|175570946)/);
      // Memory that is there under no ordinary type: a reader says that it lacks it rather than showing wrong bytes.
      expect(result.stdout).not.toMatch(/LOAD\s+0x\w+ 0x0*100000 0x\w+ 0x0*[1-9a-f]/);
    }
    const notesOf = (file: string): string[] => {
      const { stdout } = spawnSync('eu-readelf', ['-n', file], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
      return stdout
        .split('\n')
        .filter((line) => line !== '' && !/^Note segment|^ {2}Owner|^ {2}warp-tool|^ {4}description data/.test(line));
    };
    expect(notesOf(packed)).toEqual(notesOf(plain));
    expect(notesOf(packed).join('\n')).toContain('PRSTATUS');
  });
});

it('reads the chunks that are needed, each once, and no others', async () => {
  const packed = join(compressed('ours'), 'core.img');
  const source = new CountingSource(await FileSource.open(packed));
  const image = await Image.from(source);
  const space = new AddressSpace(image);
  const largest = Math.max(...[...image.table('chunks')].map(({ stored_size: size }) => size));
  const opened = source.bytes;
  expect((await image.memory.read(0x10_0000n + 300_000n, 6)).toString()).toBe('needle');
  const one = source.bytes - opened;
  expect(one).toBeGreaterThan(0);
  expect(one).toBeLessThanOrEqual(largest);
  // From the cache, and from the chunk behind it.
  await space.read(0x10_0000n + 290_000n, 5000);
  expect(source.bytes - opened).toBe(one);
  await space.read(0x10_0000n + 520_000n, 8000);
  expect(source.bytes - opened).toBeLessThanOrEqual(3 * largest);
  await space.close();
  await image.close();
});

it('stores equal chunks once', async () => {
  const image = await Image.open(compressed('ours'));
  const { chunks } = image;
  const places = new Map<number, number[]>();
  for (let chunk = 0; chunk < chunks.length; chunk++)
    places.set(chunks.fileOffset(chunk), [...(places.get(chunks.fileOffset(chunk)) ?? []), chunks.contentOffset(chunk)]);
  const shared = [...places.values()].filter((offsets) => offsets.length > 1);
  // Chunks of zeros, and those of the two equal areas.
  expect(shared.length).toBeGreaterThanOrEqual(2);
  await image.close();
});

it('gives blocks that lz4 decodes', async ({ skip }) => {
  const absent = missing('lz4');
  if (absent) skip(absent);
  const { h32Raw } = await xxhash();
  for (const flags of [[], ['--level', '9', '--chunk-size', '1M']]) {
    const image = await Image.open(compressed('ours', ...flags));
    const { chunks } = image;
    const frames: Buffer[] = [];
    const contents: Buffer[] = [];
    for (let chunk = 0; chunk < chunks.length; chunk++) {
      if (chunks.codec(chunk) !== 1) continue;
      // doc/lz4_Frame_format.md: independent blocks of at most 4 MiB, no checksums.
      const descriptor = Buffer.from([0x60, 0x70]);
      const stored = await image.source.read(BigInt(chunks.fileOffset(chunk)), chunks.storedSize(chunk));
      const size = Buffer.alloc(4);
      size.writeUInt32LE(stored.length);
      frames.push(
        Buffer.from([0x04, 0x22, 0x4d, 0x18]),
        descriptor,
        Buffer.from([(h32Raw(descriptor) >>> 8) & 0xff]),
        size,
        stored,
        Buffer.alloc(4),
      );
      contents.push(await image.content.read(BigInt(chunks.contentOffset(chunk)), chunks.contentSize(chunk)));
    }
    await image.close();
    const result = spawnSync('lz4', ['-d', '-c'], { input: Buffer.concat(frames), maxBuffer: 1 << 28 });
    expect([result.status, result.stderr.toString()]).toEqual([0, '']);
    expect(contents.length).toBeGreaterThan(2);
    expect(result.stdout.equals(Buffer.concat(contents))).toBe(true);
  }
});

it('is searched, compared and read without native code as with it', () => {
  const tool = join(directory, 'tool');
  for (const part of ['bin', 'dist', 'package.json', 'oclif.manifest.json'])
    cpSync(join(root, part), join(tool, part), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(tool, 'node_modules'));
  const plainly = (...argv: string[]): unknown => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(tool, 'bin/run.js'), ...argv], { encoding: 'utf8' });
    return { status, stdout, stderr };
  };
  const needs = plainly('compress', ours, '-o', join(directory, 'nothing'));
  expect(needs).toMatchObject({ status: 2, stderr: expect.stringContaining('codec.node is not there') });
  for (const image of [foreign, compressed('ours')])
    for (const argv of [
      ['mem', image, '--text', 'needle in a haystack', '--json'],
      ['mem', image, '--search', '1800000000000000', '--limit', '3'],
      ['diff', ours, image, '--memory', '--json'],
      ['mem', image, '7f0000000000:16K', '--all-rows'],
    ]) {
      const expected = warpTool(...argv);
      expect(expected.stdout, argv.join(' ')).not.toBe('');
      expect(plainly(...argv), argv.join(' ')).toEqual(expected);
    }
}, 300_000);

describe('damage', () => {
  const findings = async (source: ByteSource): Promise<Finding[]> => {
    const found: Finding[] = [];
    const image = await Image.from(source);
    const checked = { segments: 0, notes: 0, records: 0, chunks: 0, content: 0n };
    for await (const finding of validateImage(image, checked, () => {})) found.push(finding);
    await image.close();
    return found;
  };

  it.each(['ours', 'foreign'])('of any chunk is found by validate, with its place (%s)', async (name) => {
    const packed = compressed(name);
    const bytes = read(packed);
    const image = await Image.open(packed);
    const { chunks } = image.outermost;
    const places = new Map<number, number>();
    for (let chunk = 0; chunk < chunks.length; chunk++) places.set(chunks.fileOffset(chunk), chunk);
    await image.close();
    for (const [offset, chunk] of places) {
      const damaged = Buffer.from(bytes);
      damaged[offset + (chunks.storedSize(chunk) >> 1)]! ^= 0x20;
      const path = join(directory, 'damaged.img');
      writeFileSync(path, damaged);
      for (const source of [await FileSource.open(path), new BufferSource(path, damaged)]) {
        // A core file whose notes are in the damaged chunk cannot be opened: the line says which chunk.
        const found = await findings(source).catch((error: Error) => [
          { check: 'chunk-content', problem: error.message, offset: BigInt(offset) },
        ]);
        expect(found.length).toBeGreaterThan(0);
        for (const finding of found) expect(finding).toMatchObject({ check: 'chunk-content', offset: BigInt(offset) });
        expect(found[0]!.problem).toMatch(/chunk \d+.* has (the|another) hash/);
      }
    }
    expect(places.size).toBeGreaterThan(10);
  });

  it('is one line with file, offset, address and mend wherever the memory is read, and leaves no file behind', async () => {
    const packed = compressed('ours');
    const image = await Image.open(packed);
    const { chunks } = image;
    const chunk = chunks.find(Number(image.memory.segmentAt(0x10_0000n)!.offset) + 300_000);
    const [offset, address] = [chunks.fileOffset(chunk), image.addressOfChunk(chunk)!];
    const bytes = read(packed);
    bytes[offset + 5]! ^= 1;
    await image.close();
    const path = imageDirectory(directory, 'damaged', bytes);
    const line = new RegExp(
      `^warp-tool: ${join(path, 'core.img')}: at offset 0x${offset.toString(16)}: chunk ${chunk} \\(memory at 0x${address.toString(16)}\\) has [^\n]*; [^\n]*(copy|take)[^\n]*\n$`,
    );
    const output = join(directory, 'nothing');
    for (const argv of [
      ['mem', path, (address + 100n).toString(16)],
      ['mem', path, '--text', 'needle'],
      ['mem', path, '--extract', '100000', '-o', output],
      ['diff', path, ours, '--memory'],
      ['decompress', path, '-o', output],
    ]) {
      const { status, stderr } = warpTool(...argv);
      expect([status, stderr], argv.join(' ')).toEqual([2, expect.stringMatching(line)]);
      expect(readdirSync(directory)).not.toContain('nothing');
    }
    // What lies in other chunks is there.
    expect(succeed('mem', path, '7f0000000000:16')).toContain('0x7f0000000000');
  });

  it.each(['content', 'metadata'])('of the %s keeps an image from being compressed', (where) => {
    const bytes = read(ours);
    bytes[where === 'content' ? bytes.length - 2 * MIB - 5 : Number(bytes.readBigUInt64LE(64 + 48)) + 30]! ^= 1;
    const path = imageDirectory(directory, 'damaged-plain', bytes);
    const output = join(directory, 'nothing');
    const { status, stderr } = warpTool('compress', path, '-o', output);
    expect([status, stderr]).toEqual([2, expect.stringMatching(/^warp-tool: [^\n]*core\.img: at offset 0x[0-9a-f]+: [^\n]*hash[^\n]*\n$/)]);
    expect(readdirSync(directory)).not.toContain('nothing');
  });

  it('whatever the index says: a result or one line', async () => {
    const bytes = read(compressed('ours'));
    const record = Number(bytes.readBigUInt64LE(64 + 48));
    const end = Number(bytes.readBigUInt64LE(64 + 48)) + Number(bytes.readBigUInt64LE(64 + 56));
    let [lines, results] = [0, 0];
    for (let round = 0; round < 400; round++) {
      const damaged = Buffer.from(bytes);
      // The last note is the index.
      const at = record + Math.floor(((end - record) * (round * 7919)) % (end - record));
      damaged[Math.max(record, end - ((round * 97) % 3000) - 1)] = round & 0xff;
      damaged[at]! ^= 1 << (round % 8);
      try {
        const image = await Image.from(new BufferSource('damaged', damaged));
        await image.memory.read(0x10_0000n + BigInt(round * 1000), 100);
        results++;
      } catch (error) {
        expect((error as Error).name, (error as Error).stack).toMatch(/^(ImageError|Failure)$/);
        expect((error as Error).message).not.toContain('\n');
        lines++;
      }
    }
    expect([lines > 0, results > 0]).toEqual([true, true]);
  });
});

it('compresses a large sparse file to little, and makes a sparse file of it again', () => {
  const path = join(directory, 'sparse.core');
  const size = 1 << 30;
  const at = size - 4096;
  const head = foreignCore({ segments: [{ address: 0x10000n, size: BigInt(size) }], notes: [prstatusNote(1)] });
  const start = Math.ceil(head.length / PAGE) * PAGE;
  head.writeBigUInt64LE(BigInt(start), 64 + 56 + 8);
  head.writeBigUInt64LE(BigInt(size), 64 + 56 + 32);
  const file = openSync(path, 'w');
  writeSync(file, head, 0, head.length, 0);
  ftruncateSync(file, start + size);
  writeSync(file, 'far away', start + at);
  closeSync(file);
  const packed = join(directory, 'sparse.img');
  succeed('compress', path, '-o', packed, '--chunk-size', '1M');
  expect(statSync(packed).size).toBeLessThan(400_000);
  expect(succeed('mem', packed, `${(0x10000 + at).toString(16)}:16`)).toContain('far away');
  const back = join(directory, 'sparse-back.core');
  succeed('decompress', packed, '-o', back);
  expect(statSync(back).size).toBe(start + size);
  expect(statSync(back).blocks * 512).toBeLessThan(4 * MIB);
  expect(spawnSync('cmp', [path, back], { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '' });
});

it('keeps more segments than e_phnum can count', async () => {
  const many: SegmentPlan[] = Array.from({ length: 70_000 }, (_, index) => ({
    address: BigInt(0x10000 + index * 2 * PAGE),
    size: BigInt(PAGE),
    ...(index % 23_000 === 0 && { content: Buffer.alloc(PAGE, 1 + index / 23_000) }),
  }));
  const path = imageDirectory(directory, 'many', await warpImage({ segments: many }));
  const packed = join(directory, 'many-compressed');
  succeed('compress', path, '-o', packed);
  const image = await Image.open(packed);
  expect(image.segments.length).toBe(70_003);
  expect(image.vmas().length).toBe(70_000);
  expect(await image.memory.read(BigInt(0x10000 + 69_000 * 2 * PAGE), 2)).toEqual(Buffer.from([4, 4]));
  await image.close();
  succeed('decompress', packed, '-o', join(directory, 'many-back'));
  expect(read(join(directory, 'many-back')).equals(read(path))).toBe(true);
});

it('takes edits of a compressed image over into the plain one', () => {
  const packed = compressed('ours');
  const document = join(directory, 'edited.json');
  succeed('decode', packed, '-o', document);
  const longer = `a much longer name of a program ${'x'.repeat(9000)}`;
  writeFileSync(document, readFileSync(document, 'utf8').replaceAll('/bin/synthetic', longer));
  const [edited, plain] = [join(directory, 'edited'), join(directory, 'edited-plain')];
  succeed('encode', document, '-o', edited);
  succeed('decompress', edited, '-o', plain);
  for (const image of [edited, plain]) {
    expect(warpTool('validate', image)).toMatchObject({ status: 0, stdout: expect.stringContaining('valid') });
    expect((json('show', image) as { process: { executable: string } }).process.executable).toBe(longer);
    expect(json('diff', packed, image, '--memory')).toMatchObject({ memory: { pages: 0, unknown: 0 } });
  }
});

describe('refusals', () => {
  it.each<[string, () => string[], RegExp]>([
    ['compress twice', () => ['compress', compressed('ours'), '-o', join(directory, 'no')], /is compressed already; decompress it first/],
    ['decompress what is plain', () => ['decompress', ours, '-o', join(directory, 'no')], /core\.img is not compressed/],
    ['write over the image', () => ['compress', ours, '-o', ours], /core\.img is the image itself; give another output/],
    [
      'odd chunks',
      () => ['compress', ours, '-o', join(directory, 'no'), '--chunk-size', '5000'],
      /--chunk-size 5000 is no multiple of 4K from 4K to 1M/,
    ],
    ['large chunks', () => ['compress', ours, '-o', join(directory, 'no'), '--chunk-size', '2M'], /--chunk-size 2M is no multiple of 4K/],
    ['no place', () => ['compress', ours, '-o', '/proc/no/place.img'], /cannot write \/proc\/no\/place\.img: /],
  ])('%s', (_, argv, message) => {
    const { status, stderr } = warpTool(...argv());
    expect([status, stderr]).toEqual([2, expect.stringMatching(message)]);
    expect(stderr.trim()).not.toContain('\n');
    expect(readdirSync(directory)).not.toContain('no');
  });
});

it('leaves nothing behind when it is ended half-way', async () => {
  const path = join(directory, 'huge.core');
  const head = foreignCore({ segments: [{ address: 0x10000n, size: 1n << 36n }], notes: [prstatusNote(1)] });
  head.writeBigUInt64LE(1n << 36n, 64 + 56 + 32);
  const file = openSync(path, 'w');
  writeSync(file, head);
  ftruncateSync(file, 2 ** 36 + 8192);
  closeSync(file);
  const place = join(directory, 'interrupted');
  const child = spawn(process.execPath, [join(root, 'bin/run.js'), 'compress', path, '-o', join(place, 'x.img')], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve([code, signal])));
  const begun = (): boolean => {
    try {
      return readdirSync(place).some((name) => name.endsWith('.tmp'));
    } catch {
      return false;
    }
  };
  while (!begun() && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 5));
  child.kill('SIGTERM');
  expect(await ended).toEqual([null, 'SIGTERM']);
  expect(readdirSync(directory)).not.toContain('interrupted');
});

it('a core file with a segment around the end of all addresses is compressed, and is the same again', () => {
  const path = join(directory, 'around.core');
  const core = foreignCore({
    segments: [{ address: 0xffff_ffff_ffff_f000n, size: BigInt(4 * PAGE), content: Buffer.alloc(2 * PAGE, 'odd') }],
  });
  writeFileSync(path, core);
  succeed('compress', path, '-o', join(directory, 'around.img'));
  succeed('decompress', join(directory, 'around.img'), '-o', join(directory, 'around-again.core'));
  expect(readFileSync(join(directory, 'around-again.core')).equals(core)).toBe(true);
});

it('the share of a stretch of content in a damaged index is a number', () => {
  const index = ChunkIndex.planned([
    [0, 0],
    [8192, 4096],
    [4096, 0],
  ]);
  for (let chunk = 0; chunk < 3; chunk++) index.setStored(chunk, { fileOffset: 0, size: 100, contentHash: 0n, storedHash: 0n, flags: 1 });
  expect(index.storedBytes(0, 12_288)).toBe(100);
  expect(index.storedBytes(8192, 10_240)).toBe(50);
});

it('always tells of the content that is asked for, whatever the order of damaged chunks', () => {
  const index = ChunkIndex.planned([
    [4096, 4096],
    [0, 4096],
  ]);
  index.setStored(0, { fileOffset: 0, size: 4096, contentHash: 0n, storedHash: 0n, flags: CHUNK_IN_PARENT });
  const source = new ContentSource({ name: 'damaged' } as ByteSource, index, 1n << 20n, () => null);
  for (const offset of [0n, 5000n, 10000n]) expect(source.availability(offset, 20000n).end).toBeGreaterThan(offset);
});
