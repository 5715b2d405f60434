/** Images of later versions of the format: every command says that it met one and shows what it can, never zeros or packed bytes as if they were memory. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeNote } from '../src/elf/notes.js';
import { NOTE_OWNER, projectNotes } from '../src/elf/schema.js';
import { removeDirectory, scratchDirectory, warpTool } from './support/cores.js';
import { PAGE, sealMetadata, warpImage } from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const HEAP = 0x5000_0000n;
const HOLE = 0x6000_0000n;
const TEXT = 'memory of the process';
const ANCHOR = 64;
const NEW_TYPE = 0x574152f0;
const output = join(directory, 'output.img');

/** Calls of every command that prints what is in an image. */
const LOOKING: string[][] = [
  ['show'], ['threads'], ['maps'], ['fds'], ['env'], ['signals'], ['notes'], ['auxv'], ['mem', '--strings'], ['diff'], ['decode'], ['report'], ['gdb-script'],
]; // prettier-ignore

interface Answer {
  status: number | null;
  stdout: string;
  stderr: string;
}

function call([command, ...flags]: string[], path: string): Answer {
  const further = { diff: [path], report: ['-o', join(directory, 'report.html')] }[command!] ?? [];
  const answer = warpTool(command!, path, ...further, ...flags);
  if (command === 'report') answer.stderr = readFileSync(further[1]!, 'utf8');
  if (command === 'mem') answer.stderr = answer.stderr.replace(/^\d+ strings? in [^\n]*\n/m, '');
  return answer;
}

let plain: Buffer;
let compressed: Buffer;

beforeAll(async () => {
  const content = Buffer.alloc(64 * PAGE, 'some text of no interest; ');
  content.write(TEXT, 5 * PAGE);
  const area = { file: 0xffffffff, object: 0xffffffff, protection: 3, kind: 1 };
  const path = join(directory, 'plain.img');
  plain = await warpImage({
    segments: [
      { address: HEAP, size: BigInt(content.length), content },
      { address: HOLE, size: BigInt(PAGE) },
    ],
    tables: {
      vmas: [
        { ...area, start: HEAP, end: HEAP + BigInt(content.length), stored: BigInt(content.length) },
        { ...area, start: HOLE, end: HOLE + BigInt(PAGE) },
      ],
    },
    extraNotes: [encodeNote(NOTE_OWNER, NEW_TYPE, Buffer.from('what a later version added'), 8)],
  });
  // As the present version writes it: the note of a later one is switched on by its type.
  retype(plain, NEW_TYPE, projectNotes.guards.type, (at) => plain.fill(0, at, at + 16));
  await sealMetadata(plain);
  writeFileSync(path, plain);
  const { status, stderr } = warpTool('compress', path, '-o', output, '--chunk-size', '65536');
  expect([status, stderr]).toEqual([0, '']);
  compressed = readFileSync(output);
});

/** Visits the payload of the project's note of a type, and gives the note another one. */
function retype(image: Buffer, from: number, to: number, visit: (payload: number) => void = () => {}): void {
  const start = Number(image.readBigUInt64LE(ANCHOR + 48));
  const end = start + Number(image.readBigUInt64LE(ANCHOR + 56));
  for (let at = start; at < end;) {
    const payload = at + 12 + Math.ceil(image.readUInt32LE(at) / 4) * 4;
    if (image.readUInt32LE(at + 8) === from) {
      image.writeUInt32LE(to, at + 8);
      return visit(payload);
    }
    at = payload + Math.ceil(image.readUInt32LE(at + 4) / 8) * 8;
  }
  throw new Error(`no note of type ${from}`);
}

async function edited(image: Buffer, edit: (copy: Buffer) => void): Promise<string> {
  const copy = Buffer.from(image);
  edit(copy);
  await sealMetadata(copy);
  const path = join(directory, 'edited.img');
  writeFileSync(path, copy);
  return path;
}

/** All flags of the first chunks, all but the one with the metadata, to be changed. */
const flagChunks =
  (change: (flags: number) => number) =>
  (image: Buffer): void =>
    retype(image, projectNotes.chunks.type, projectNotes.chunks.type, (payload) => {
      const [size, count] = [image.readUInt32LE(payload), image.readUInt32LE(payload + 4)];
      for (let index = 1; index < count; index++) {
        const at = payload + 16 + index * size + 40;
        image.writeUInt32LE(change(image.readUInt32LE(at)), at);
      }
    });

/** In the anchor and in the note `image`. */
const addFlag = (image: Buffer): void =>
  retype(image, projectNotes.image.type, projectNotes.image.type, (payload) => {
    image.writeUInt32LE(0x80, ANCHOR + 12);
    image.writeUInt32LE(0x80, payload + 16 + 36);
  });

const ONE_LINE = /^warp-tool: [^\n]*\n$/;

it('the image of now has nothing new', async () => {
  const path = await edited(plain, () => {});
  for (const argv of LOOKING) {
    const { status, stderr } = call(argv, path);
    expect([status, argv[0] === 'report' ? '' : stderr], argv[0]).toEqual([0, '']);
  }
  expect(warpTool('validate', path)).toMatchObject({ status: 0, stderr: '' });
});

describe.each<[string, (image: Buffer) => void, RegExp]>([
  [
    'a newer minor version',
    (image) => void image.writeUInt16LE(7, ANCHOR + 10),
    /format version 1\.7 is newer than 1\.\d; parts that are new/,
  ],
  ['flags of a later version', addFlag, /has flags that this version does not know \(0x80\): use/],
  [
    'notes of a later version',
    (image) => retype(image, projectNotes.guards.type, NEW_TYPE),
    /notes of types that this version does not know are not shown: 0x574152f0/,
  ],
])('%s', (_, edit, warning) => {
  it('is told of by every command, which shows all that it knows', async () => {
    const path = await edited(plain, () => {});
    const known = LOOKING.map((argv) => call(argv, path).stdout);
    await edited(plain, edit);
    for (const [index, argv] of LOOKING.entries()) {
      const { status, stdout, stderr } = call(argv, path);
      expect(status, argv[0]).toBe(0);
      expect(stderr, argv[0]).toMatch(warning);
      if (!['show', 'notes', 'decode', 'report', 'gdb-script'].includes(argv[0]!)) expect(stdout, argv[0]).toBe(known[index]);
    }
    expect((JSON.parse(warpTool('maps', path, '--json').stdout) as { warnings: string[] }).warnings).toEqual([
      expect.stringMatching(warning),
    ]);
    expect(warpTool('mem', path, `${(HEAP + BigInt(5 * PAGE)).toString(16)}:32`).stdout).toContain('memory of the p');
    expect(warpTool('validate', path)).toMatchObject({ status: 0, stdout: expect.stringMatching(warning) });
  });

  it('comes through decode and encode unchanged', async () => {
    const path = await edited(plain, edit);
    const document = join(directory, 'document.json');
    expect(warpTool('decode', path, '-o', document).status).toBe(0);
    expect(warpTool('encode', document, '-o', output).status).toBe(0);
    expect(readFileSync(output).equals(readFileSync(path))).toBe(true);
  });
});

it.each([0x80, 0xffff_f000])('an image with the flags %i of a later version is not made into another one', async (flags) => {
  writeFileSync(join(directory, 'key'), Buffer.alloc(32, 1), { mode: 0o600 });
  for (const [command, image, ...further] of [
    ['compress', plain],
    ['decompress', compressed],
    ['encrypt', plain, '--encryption-key-file', join(directory, 'key')],
    ['redact', plain],
  ] as [string, Buffer, ...string[]][]) {
    const path = await edited(image, (copy) => void copy.writeUInt32LE((copy.readUInt32LE(ANCHOR + 12) | flags) >>> 0, ANCHOR + 12));
    const { status, stderr } = warpTool(command, path, '-o', join(directory, 'none.img'), ...further);
    const refusal = new RegExp(`edited\\.img has flags that this version does not know \\(0x${flags.toString(16)}\\): use`);
    expect([status, stderr], command).toEqual([2, expect.stringMatching(refusal)]);
    expect(readdirSync(directory)).not.toContain('none.img');
  }
});

describe('a newer major version', () => {
  const major = (image: Buffer): void => void image.writeUInt16LE(2, ANCHOR + 8);
  const warning = /format version 2\.0 is not known to this version of warp-tool; only what every core file tells is shown/;

  const UNKNOWN = /^warp-tool: [^\n]* cannot be shown, as format version 2\.0 is not known; use the version of warp-tool that wrote it\n$/;

  it.each([
    ['plain', () => plain],
    ['compressed', () => compressed],
  ])('is told of by every command, which shows what every core file tells: %s', async (_, image) => {
    const path = await edited(image(), major);
    // There is no stack in it, so no environment either: only our notes tell where that is.
    for (const argv of LOOKING.filter(([command]) => command !== 'env')) {
      const { status, stderr } = call(argv, path);
      // Nothing found is status 1.
      if (status === 0 || status === 1) expect(stderr, argv[0]).toMatch(warning);
      else expect([argv[0], status, stderr]).toEqual([expect.stringMatching(/^(fds|signals)$/), 2, expect.stringMatching(UNKNOWN)]);
    }
    expect(JSON.parse(warpTool('threads', path, '--json').stdout)).toMatchObject({ threads: [{ tid: 100 }] });
    expect(warpTool('validate', path, '--host')).toMatchObject({
      status: 1,
      stdout: expect.stringMatching(/format that is not known here/),
    });
  });

  it('says of memory that it does not understand that it has none', async () => {
    for (const [image, address] of [
      [plain, HOLE],
      [compressed, HEAP],
      [compressed, HOLE],
    ] as const) {
      const path = await edited(image, major);
      const { status, stdout, stderr } = warpTool('mem', path, `${address.toString(16)}:32`);
      expect([status, stdout]).toEqual([2, '']);
      expect(stderr.replace(/^warp-tool: warning: [^\n]*\n/, '')).toMatch(ONE_LINE);
      expect(stderr).toContain('it is stored in a way that this version does not know, if at all');
    }
    const { maps } = JSON.parse(warpTool('maps', await edited(compressed, major), '--json').stdout) as { maps: Record<string, number>[] };
    expect(maps.map(({ stored, zero }) => [stored, zero])).toEqual(maps.map(() => [0, 0]));
    expect(warpTool('mem', await edited(plain, major), `${(HEAP + BigInt(5 * PAGE)).toString(16)}:32`).stdout).toContain('memory of the p');
  });
});

describe.each<[string, (flags: number) => number, string]>([
  ['an unknown codec', () => 9, 'is packed with unknown-9, which this version does not know'],
  ['a codec of later versions', () => 2, 'is packed with zstd, which this version does not know'],
  ['unknown flags', (flags) => flags | 0x8000, 'is stored in a way that this version does not know (flags 0x8000)'],
])('chunks with %s', (_, change, problem) => {
  it('are refused by name, and all else is shown', async () => {
    const path = await edited(compressed, flagChunks(change));
    for (const argv of LOOKING.filter(([command]) => !['mem', 'gdb-script', 'report'].includes(command!)))
      expect(call(argv, path), argv[0]).toMatchObject({ status: 0 });
    const refusals = [
      ['mem', path, `${HEAP.toString(16)}:32`],
      ['mem', path, '--text', TEXT],
      ['decompress', path, '-o', join(directory, 'none.img')],
    ].map((argv) => warpTool(...argv));
    for (const { status, stdout, stderr } of refusals) {
      expect([status, stdout]).toEqual([2, '']);
      expect(stderr).toMatch(/^warp-tool: [^\n]*: chunk 1 \(memory at 0x50000000\)[^\n]*\n$/);
    }
    expect(refusals[0]!.stderr).toContain(problem);
    expect(readdirSync(directory)).not.toContain('none.img');
    expect(warpTool('validate', path)).toMatchObject({ status: 1, stdout: expect.stringMatching(/chunk 1\b.*unknown|does not know/) });
  });
});

it('an image is left as it was by those who only look', () => {
  expect(statSync(join(directory, 'plain.img')).size).toBe(plain.length);
});
