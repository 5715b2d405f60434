/** The image model on images that are built in code: what no real program writes on demand, and damage of every kind. */
import { openSync, ftruncateSync, writeSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Image } from '../src/elf/image.js';
import { encodeNote } from '../src/elf/notes.js';
import { FORMAT_MINOR, NOTE_OWNER, projectNotes, TABLE_HEADER_SIZE, type Fields } from '../src/elf/schema.js';
import { BufferSource, FileSource, type ByteSource } from '../src/elf/source.js';
import { Table } from '../src/elf/table.js';
import { validateImage, type Finding } from '../src/elf/validate.js';
import { removeDirectory, scratchDirectory } from './support/cores.js';
import {
  auxvNote,
  fileNote,
  foreignCore,
  PAGE,
  prpsinfoNote,
  prstatusNote,
  record,
  table,
  warpImage,
  type SegmentPlan,
} from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const open = (content: Buffer): Promise<Image> => Image.from(new BufferSource('test.img', content));

async function findings(content: Buffer): Promise<Finding[]> {
  const found: Finding[] = [];
  const checked = { segments: 0, notes: 0, records: 0, chunks: 0, content: 0n };
  for await (const finding of validateImage(await open(content), checked, () => {})) found.push(finding);
  return found;
}

const page = (fill: number): Buffer => Buffer.alloc(PAGE, fill);
const segments: SegmentPlan[] = [
  { address: 0x10000n, size: 2n * 4096n, content: Buffer.concat([page(1), page(2)]) },
  { address: 0x20000n, size: 4096n },
  { address: 0x7fff_0000_0000n, size: 4096n, content: page(3), flags: 4 },
];

describe('segments', () => {
  it.each([0xfffd, 0xfffe, 0xffff, 70_000])('are read when there are %i', async (count) => {
    const many = Array.from({ length: count - 1 }, (_, index) => ({ address: BigInt(index + 1) * 8192n, size: 4096n, flags: index % 8 }));
    const image = await open(foreignCore({ segments: many, notes: [prstatusNote(1)] }));
    expect(image.segments.length).toBe(count);
    const last = image.segments.at(-1)!;
    expect(last.address).toBe(BigInt(count - 1) * 8192n);
    expect([last.readable, last.writable, last.executable]).toEqual([4, 2, 1].map((bit) => (((count - 2) % 8) & bit) !== 0));
    expect(image.segments.every((segment, index) => segment.index === index)).toBe(true);
  });

  it('are read with PN_XNUM also when there are few', async () => {
    const image = await open(foreignCore({ segments, notes: [prstatusNote(1)], extendedCount: true }));
    expect(image.segments.map((segment) => segment.typeName)).toEqual(['note', 'load', 'load', 'load']);
  });

  it('keep numbers that a double cannot hold', async () => {
    const address = 0xffff_ffff_ff60_0001n;
    const image = await open(foreignCore({ segments: [{ address, size: 0x123n }], notes: [prstatusNote(1)] }));
    expect(image.segments[1]).toMatchObject({ address, memorySize: 0x123n });
  });

  it('keep the number of a type without a name', async () => {
    const core = foreignCore({ segments, notes: [prstatusNote(1)] });
    core.writeUInt32LE(0x12345678, 64 + 56);
    expect((await open(core)).segments[1]).toMatchObject({ type: 0x12345678, typeName: '0x12345678' });
  });
});

it('reads content behind 4 GiB of a sparse file', async () => {
  const path = join(directory, 'large');
  const at = (5n << 30n) + 12_345n;
  const file = openSync(path, 'w');
  ftruncateSync(file, Number(at) + 100);
  writeSync(file, 'far away', Number(at));
  closeSync(file);
  const source = await FileSource.open(path);
  expect((await source.read(at, 8)).toString()).toBe('far away');
  await expect(source.read(at + 90n, 20)).rejects.toThrow(/large: at offset 0x1400030.*: 20 bytes are needed, but the file ends at/);
  await source.close();
});

it('costs the same reads however much memory an image holds', async () => {
  const reads = async (pages: number): Promise<number> => {
    const content = await warpImage({
      segments: [{ address: 0x10000n, size: BigInt(pages) * 4096n, content: Buffer.alloc(Math.min(pages, 256) * PAGE, 7) }],
    });
    const inner = new BufferSource('counted', content);
    let read = 0;
    const counted: ByteSource = {
      name: 'counted',
      size: inner.size,
      read: (offset, length) => {
        read += length;
        return inner.read(offset, length);
      },
      readInto: (offset, buffer) => {
        read += buffer.length;
        return inner.readInto(offset, buffer);
      },
      close: () => inner.close(),
    };
    const image = await Image.from(counted);
    image.threads();
    image.vmas();
    return read;
  };
  expect(await reads(256)).toBe(await reads(1));
});

describe('damage', () => {
  const core = foreignCore({ segments, notes: [prstatusNote(1), prpsinfoNote(1, 'x')] });
  const damaged = (change: (copy: Buffer) => void): Buffer => {
    const copy = Buffer.from(core);
    change(copy);
    return copy;
  };

  it.each<[string, Buffer, RegExp]>([
    ['an empty file', Buffer.alloc(0), /at offset 0x0: the file has 0 bytes/],
    ['text', Buffer.from('#!/bin/sh\n'.repeat(20)), /at offset 0x0: this is not an ELF file/],
    ['a 32-bit file', damaged((copy) => copy.writeUInt8(1, 4)), /at offset 0x4: ELF class 1 is not 64-bit/],
    ['a big-endian file', damaged((copy) => copy.writeUInt8(2, 5)), /at offset 0x5: .* not little-endian/],
    ['an executable', damaged((copy) => copy.writeUInt16LE(2, 16)), /at offset 0x10: this ELF file is of type exec/],
    ['another machine', damaged((copy) => copy.writeUInt16LE(183, 18)), /at offset 0x12: the image is of machine AArch64/],
    ['program headers of 0 bytes', damaged((copy) => copy.writeUInt16LE(0, 54)), /at offset 0x36: program headers have 0 bytes/],
    ['a table behind the end', damaged((copy) => copy.writeUInt16LE(60_000, 56)), /the table of 60000 program headers reaches behind/],
    ['PN_XNUM without a section', damaged((copy) => copy.writeUInt16LE(0xffff, 56)), /there is no section header/],
    ['notes behind the end', damaged((copy) => copy.writeBigUInt64LE(1n << 40n, 64 + 8)), /at offset 0x10000000000: .* bytes are needed/],
    ['huge notes', damaged((copy) => copy.writeBigUInt64LE(1n << 50n, 64 + 32)), /1125899906842624 bytes of notes are more than 268435456/],
    [
      'a note that is too long',
      damaged((copy) => copy.writeUInt32LE(1 << 20, 64 + 4 * 56 + 4)),
      /a note of type 0x1 with 1048576 bytes reaches behind/,
    ],
    ['a header only', core.subarray(0, 64), /program headers reaches behind/],
  ])('of %s gives one line with file, place and mend', async (_, content, message) => {
    const error = await open(content).then(
      () => null,
      (reason: Error) => reason,
    );
    expect(error?.message).toMatch(message);
    expect(error?.message).toMatch(/^test\.img: at offset 0x[0-9a-f]+: [^\n]+; [^\n]+$/);
  });

  it('is found at every length of a truncated image', async () => {
    const image = await warpImage({ segments });
    const lengths = Array.from({ length: 60 }, (_, index) => Math.floor((image.length * index) / 60));
    for (const length of [...lengths, image.length - 1]) {
      const outcome = await findings(image.subarray(0, length)).catch((error: Error) => error);
      if (outcome instanceof Error) expect(outcome.name).toBe('ImageError');
      else expect(outcome.length, `${length} bytes`).toBeGreaterThan(0);
    }
  });

  it('of any byte of the metadata is found', async () => {
    const image = await warpImage({ segments });
    const metadata = Number(image.readBigUInt64LE(64 + 16));
    expect(await findings(image)).toEqual([]);
    for (let at = 0; at < metadata; at += 61) {
      const copy = Buffer.from(image);
      copy[at]! ^= 0x40;
      const outcome = await findings(copy).catch((error: Error) => error);
      if (outcome instanceof Error) expect(outcome.name, `byte ${at}: ${outcome.message}`).toBe('ImageError');
      else expect(outcome.length, `byte ${at}`).toBeGreaterThan(0);
    }
  });
});

describe('validate', () => {
  it('finds a changed byte of the content and says which address it is', async () => {
    const image = await warpImage({ segments });
    const at = Number((await open(image)).segments[3]!.offset) + PAGE + 77;
    image[at]! ^= 1;
    const found = await findings(image);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ check: 'chunk-content', address: 0x10000n });
    expect(found[0]!.problem).toContain('chunk 0');
  });

  const noIndex = { file: 0xffffffff, object: 0xffffffff };
  it.each<[string, Parameters<typeof warpImage>[0], string, RegExp]>([
    [
      'an area without segments',
      { segments, tables: { vmas: [{ start: 0x10000n, end: 0x14000n, kind: 1, protection: 3, ...noIndex }] } },
      'areas-tiled',
      /no segment covers/,
    ],
    [
      'areas in the wrong order',
      {
        segments,
        tables: {
          vmas: [
            { start: 0x20000n, end: 0x21000n, kind: 1, protection: 3, ...noIndex },
            { start: 0x10000n, end: 0x12000n, kind: 1, protection: 3, ...noIndex },
          ],
        },
      },
      'areas-ascend',
      /area 1 is 0x10000/,
    ],
    [
      'another protection',
      { segments: [segments[1]!], tables: { vmas: [{ start: 0x20000n, end: 0x21000n, kind: 1, protection: 7, ...noIndex }] } },
      'area-protection',
      /has protection 3, its area 7/,
    ],
    [
      'a descriptor of no description',
      { segments, tables: { descriptors: [{ number: 3, description: 5 }] } },
      'references',
      /description 5 is not among the 0 records/,
    ],
    [
      'a pipe that is not there',
      { segments, tables: { descriptions: [{ kind: 5, detail: 2 }] } },
      'references',
      /detail 2 is not among the 0 records of pipes/,
    ],
    [
      'two threads where there is one',
      { segments, tables: { threads: [{ tid: 100, flags: 1 }, { tid: 101 }] } },
      'threads',
      /1 NT_PRSTATUS notes, 2 records/,
    ],
    ['another thread id', { segments, tables: { threads: [{ tid: 7, flags: 1 }] } }, 'threads', /thread 0 is 100 in NT_PRSTATUS and 7/],
    ['memory without a chunk', { segments, tables: { chunks: [] } }, 'chunk-index', /no chunk covers content offset/],
    ['a missing note', { segments, tables: { process: [] } }, 'note', /the note process is missing or empty/],
    ['bytes behind the end', { segments, anchor: { file_size: 4096n } }, 'anchor', /file_size: the file has \d+ bytes behind its end/],
    ['overlapping segments', { segments: [segments[0]!, { address: 0x11000n, size: 4096n }] }, 'segments-ascend', /overlaps or precedes/],
  ])('finds %s', async (_, plan, check, problem) => {
    const found = await findings(await warpImage(plan));
    expect(found.map((finding) => finding.check)).toContain(check);
    expect(found.map((finding) => finding.problem).join('\n')).toMatch(problem);
    for (const finding of found) expect(finding.mend).not.toBe('');
  });

  it('accepts a foreign core and finds that it is truncated', async () => {
    const core = foreignCore({ segments, notes: [prstatusNote(1)] });
    expect(await findings(core)).toEqual([]);
    const found = await findings(core.subarray(0, core.length - 1));
    expect(found.map(({ check, mend }) => [check, mend])).toEqual([['segment-in-file', expect.stringContaining('truncated')]]);
  });
});

describe('tables of other versions', () => {
  const { fields } = projectNotes.guards;
  const payload = table('guards', [
    { start: 1n, end: 2n },
    { start: 3n, end: 4n },
  ]);

  it('with longer records are read up to what is known', () => {
    const longer = Buffer.alloc(TABLE_HEADER_SIZE + 2 * 24);
    longer.writeUInt32LE(24, 0);
    longer.writeUInt32LE(2, 4);
    for (const index of [0, 1]) {
      payload.copy(longer, TABLE_HEADER_SIZE + index * 24, TABLE_HEADER_SIZE + index * 16, TABLE_HEADER_SIZE + index * 16 + 16);
      longer.writeBigUInt64LE(99n, TABLE_HEADER_SIZE + index * 24 + 16);
    }
    expect([...new Table('guards', fields, longer, 'f', 0n)]).toEqual([
      { start: 1n, end: 2n },
      { start: 3n, end: 4n },
    ]);
  });

  it('with shorter records give zero for what is absent', () => {
    const shorter = Buffer.alloc(TABLE_HEADER_SIZE + 8);
    shorter.writeUInt32LE(8, 0);
    shorter.writeUInt32LE(1, 4);
    shorter.writeBigUInt64LE(7n, TABLE_HEADER_SIZE);
    expect([...new Table('guards', fields, shorter, 'f', 0n)]).toEqual([{ start: 7n, end: 0n }]);
  });

  it('name the note, the record and the field whose slice is outside the heap', () => {
    const broken = table('tags', [{ name: Buffer.from('a'), value: Buffer.from('b') }]);
    broken.writeUInt32LE(50, TABLE_HEADER_SIZE + 20); // length of `value`
    expect(() => new Table('tags', projectNotes.tags.fields, broken, 'f', 0x100n).get(0)).toThrow(
      'f: at offset 0x120: note tags, record 0: value is 50 bytes at 1 of a heap of 2; ',
    );
  });

  it('are encoded and decoded without a change', () => {
    for (const [name, { fields: all }] of Object.entries(projectNotes)) {
      const filled = record(all as Fields, {});
      for (const key of Object.keys(filled))
        if (Buffer.isBuffer(filled[key]) && filled[key].length === 0) filled[key] = Buffer.from(`${name}.${key}`);
      const encoded = table(name as 'tags', [filled as never, filled as never]);
      expect([...new Table(name, all as Fields, encoded, 'f', 0n)], name).toEqual([filled, filled]);
    }
  });
});

describe('versions', () => {
  it('of a later minor number are read with a warning', async () => {
    const image = await open(await warpImage({ segments, anchor: { format_minor: 7 } }));
    expect(image.warnings).toEqual([expect.stringContaining(`1.7 is newer than 1.${FORMAT_MINOR}`)]);
    expect(image.vmas().length).toBe(3);
  });

  it('of another major number show what every core file tells', async () => {
    const image = await open(await warpImage({ segments, anchor: { format_major: 2 } }));
    expect(image.ours).toBe(false);
    expect(image.warnings).toEqual([expect.stringContaining('2.0 is not known')]);
    expect(image.threads().map((thread) => thread.tid)).toEqual([100]);
    expect(image.vmas().map((vma) => vma.start)).toEqual([0x10000n, 0x20000n, 0x7fff_0000_0000n]);
  });

  it('of a later minor number: memory of a kind that is not known is absent where it is not stored, never zeros', async () => {
    const area = { protection: 3, file: 0xffffffff, object: 0xffffffff };
    const vmas = [
      { ...area, start: 0x10000n, end: 0x12000n, kind: 1, stored: 8192n },
      { ...area, start: 0x20000n, end: 0x21000n, kind: 99 },
      { ...area, start: 0x7fff_0000_0000n, end: 0x7fff_0000_1000n, kind: 1, protection: 1, stored: 4096n },
    ];
    const image = await open(await warpImage({ segments, tables: { vmas }, anchor: { format_minor: 7 } }));
    expect(image.vmaAt(0x20000n)).toMatchObject({ kind: 'unknown-99', zero: 0n, absent: 4096n });
    await expect(image.memory.read(0x20000n, 16)).rejects.toThrow(/not stored in this image/);
  });

  it('of a later minor number: fields behind those that are known are passed over', () => {
    const { fields } = projectNotes.threads;
    const known = table('threads', [{ tid: 7, name: Buffer.from('seven') }]);
    const size = known.readUInt32LE(0);
    const longer = Buffer.concat([
      known.subarray(0, TABLE_HEADER_SIZE + size),
      Buffer.alloc(24, 0xee),
      known.subarray(TABLE_HEADER_SIZE + size),
    ]);
    longer.writeUInt32LE(size + 24, 0);
    expect(new Table('threads', fields, longer, 'f', 0n).get(0)).toMatchObject({ tid: 7, name: Buffer.from('seven') });
  });

  it('ignores notes that it does not know', async () => {
    const image = await warpImage({ segments, extraNotes: [encodeNote(NOTE_OWNER, 0x574152ff, Buffer.from('later'), 8)] });
    expect(await findings(image)).toEqual([]);
  });
});

it('gives foreign areas the names of NT_FILE and the kinds that AT_ values tell', async () => {
  const core = foreignCore({
    segments: [
      { address: 0x400000n, size: 8192n, content: page(1), flags: 5 },
      { address: 0x7000_0000n, size: 4096n, content: page(2) },
      { address: 0x7100_0000n, size: 4096n, content: page(3), flags: 5 },
    ],
    notes: [
      prstatusNote(5, { 19: 0x7000_0800n }),
      prpsinfoNote(5, 'program'),
      auxvNote([
        [33, 0x7100_0000n],
        [9, 0x400100n],
      ]),
      fileNote([
        { start: 0x400000n, end: 0x402000n, offset: 0n, path: '/usr/bin/program' },
        { start: 0x600000n, end: 0x601000n, offset: 4096n, path: '/usr/lib/left-out.so' },
      ]),
    ],
  });
  const image = await open(core);
  expect(
    image.vmas().map(({ start, kind, name, stored, fromFile, stackOf }) => ({ start, kind, name, stored, fromFile, stackOf })),
  ).toEqual([
    { start: 0x400000n, kind: 'file', name: '/usr/bin/program', stored: 4096n, fromFile: 4096n, stackOf: null },
    { start: 0x600000n, kind: 'file', name: '/usr/lib/left-out.so', stored: 0n, fromFile: 4096n, stackOf: null },
    { start: 0x7000_0000n, kind: 'stack', name: '[stack]', stored: 4096n, fromFile: 0n, stackOf: 5 },
    { start: 0x7100_0000n, kind: 'vdso', name: '[vdso]', stored: 4096n, fromFile: 0n, stackOf: null },
  ]);
  expect(image.executable()).toBe('/usr/bin/program');
  expect(image.threads()[0]).toMatchObject({ tid: 5, leader: true, name: 'program' });
});

it('has zeros where an image of ours stores nothing', async () => {
  const image = await open(await warpImage({ segments }));
  expect(await image.memory.read(0x20ff0n, 16)).toEqual(Buffer.alloc(16));
  expect(await image.memory.read(0x10ffcn, 8)).toEqual(Buffer.from([1, 1, 1, 1, 2, 2, 2, 2]));
});
