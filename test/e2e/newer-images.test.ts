/** What the restorer does with real images of which a later version of the format would have changed something: it refuses what it does not know by name. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { layoutOf, projectNotes, type NoteName } from '../../src/elf/schema.js';
import { sealMetadata } from '../support/synthesise.js';
import { firstVariant, lastTick, restoreProgram, startProgram } from './support/c-programs.js';
import { makeDirectory } from './support/host.js';
import { checkpoint, checkpointAndEnd, killAll, restore } from './support/program.js';

afterEach(killAll);

const ANCHOR = 64;
const MINOR = ANCHOR + 10;
const FLAGS = ANCHOR + 12;
const NOTES_OFFSET = ANCHOR + 48;
const NOTES_SIZE = ANCHOR + 56;

let plain: Buffer;
let compressed: Buffer;
let ticks: number;

beforeAll(async () => {
  const { target } = await startProgram('fd_socketpairs', firstVariant());
  const small = await checkpoint(target, ['--compression', 'lz4', '--leave-running']);
  const image = await checkpointAndEnd(target);
  ticks = lastTick(target.stdout);
  plain = readFileSync(join(image, 'core.img'));
  compressed = readFileSync(join(small, 'core.img'));
});

/** Where a field of a record of the project's note is. */
function placeOf(image: Buffer, note: NoteName, field: string, record = 0): number {
  const { type, fields } = projectNotes[note];
  const start = Number(image.readBigUInt64LE(NOTES_OFFSET));
  const end = start + Number(image.readBigUInt64LE(NOTES_SIZE));
  for (let at = start; at < end;) {
    const payload = at + 12 + Math.ceil(image.readUInt32LE(at) / 4) * 4;
    if (image.readUInt32LE(at + 8) === type)
      return payload + 16 + record * image.readUInt32LE(payload) + layoutOf(fields).places.find(({ name }) => name === field)!.offset;
    at = payload + Math.ceil(image.readUInt32LE(at + 4) / 4) * 4;
  }
  throw new Error(`no note ${note}`);
}

async function edited(image: Buffer, edit: (copy: Buffer) => void): Promise<string> {
  const copy = Buffer.from(image);
  edit(copy);
  await sealMetadata(copy);
  const directory = makeDirectory();
  writeFileSync(join(directory, 'core.img'), copy, { mode: 0o644 });
  return directory;
}

const set =
  (note: NoteName, field: string, value: number, record = 0) =>
  (image: Buffer): void =>
    void image.writeUInt32LE(value, placeOf(image, note, field, record));

describe('the restorer refuses in one line', () => {
  it.each<[string, () => Buffer, (image: Buffer) => void, RegExp]>([
    [
      'a newer major version',
      () => plain,
      (image) => void image.writeUInt16LE(2, ANCHOR + 8),
      /image format 2\.\d, this restorer knows 1\.x: use warp-tool of the version/,
    ],
    [
      'flags of the image',
      () => plain,
      (image) => void image.writeUInt32LE(image.readUInt32LE(FLAGS) | 0x80, FLAGS),
      /flags 0x80 of the image are not known to this restorer/,
    ],
    ['a kind of memory area', () => plain, set('vmas', 'kind', 77), /note vmas, record 0: kind 0x4d is not known to this restorer/],
    ['flags of a memory area', () => plain, set('vmas', 'flags', 0x10000, 1), /note vmas, record 1: flags 0x10000 is not known/],
    ['flags of a thread', () => plain, set('threads', 'flags', 0x11), /note threads, record 0: flags 0x11 is not known/],
    [
      'a kind of descriptor',
      () => plain,
      set('descriptions', 'kind', 99),
      /descriptor \d+ is of kind 99, which this restorer does not know/,
    ],
    ['the state of a socket', () => plain, set('sockets', 'state', 6), /note sockets, record 0: state 0x6 is not known/],
    ['the flags of a socket', () => plain, set('sockets', 'flags', 4), /note sockets, record 0: flags 0x4 is not known/],
    [
      'the codec of a chunk',
      () => compressed,
      set('chunks', 'flags', 9, 1),
      /chunk 1 \(offset 0x[0-9a-f]+\) is stored in a way that this version cannot read \(flags 0x9\)/,
    ],
    ['the codec zstd', () => compressed, set('chunks', 'flags', 2, 1), /is stored in a way that this version cannot read \(flags 0x2\)/],
    [
      'flags of a chunk',
      () => compressed,
      set('chunks', 'flags', 0x401, 1),
      /is stored in a way that this version cannot read \(flags 0x401\)/,
    ],
  ])('%s', async (_, image, edit, problem) => {
    const directory = await edited(image(), edit);
    const refused = restore(directory);
    expect(await refused.ended).toEqual({ code: 2, signal: null });
    expect(refused.stdout).toBe('');
    expect(refused.stderr).toMatch(/^warp-restore: [^\n]*\n$/);
    expect(refused.stderr).toMatch(problem);
    expect(refused.stderr).toContain(directory);
  });
});

it('the unedited images are restored without a word', async () => {
  for (const image of [plain, compressed]) {
    const restored = await restoreProgram(await edited(image, () => {}), image === plain ? ticks : undefined);
    expect(restored.stderr).toBe('');
    await restored.kill();
  }
});

it('an image of a newer minor version is restored, with a warning', async () => {
  const directory = await edited(plain, (image) => void image.writeUInt16LE(3, MINOR));
  const restored = await restoreProgram(directory, ticks);
  expect(restored.stderr).toMatch(
    /^warp-restore: warn: [^\n]*image format 1\.3 is newer than 1\.\d[^\n]*: what is new in it does not come back\n$/,
  );
});

it('a note of a later version does not keep an image from being restored', async () => {
  const directory = await edited(plain, (image) => {
    const size = Number(image.readBigUInt64LE(NOTES_SIZE));
    const end = Number(image.readBigUInt64LE(NOTES_OFFSET)) + size;
    const note = Buffer.alloc(32);
    note.writeUInt32LE(10, 0);
    note.writeUInt32LE(8, 4);
    note.writeUInt32LE(0x574152f0, 8);
    note.write('warp-tool', 12);
    expect(image.subarray(end, end + note.length).every((byte) => byte === 0)).toBe(true);
    note.copy(image, end);
    image.writeBigUInt64LE(BigInt(size + note.length), NOTES_SIZE);
  });
  await restoreProgram(directory, ticks);
});
