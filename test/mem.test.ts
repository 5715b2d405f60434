/** `mem` on images of the engine, of gcore and of the kernel, and the search itself where bytes lie in every awkward place. */
import { copyFileSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { AddressSpace } from '../src/elf/address-space.js';
import { Image } from '../src/elf/image.js';
import {
  bytesScanner,
  LONGEST,
  pointerScanner,
  regexScanner,
  scanMemory,
  stringsScanner,
  textScanner,
  type Match,
  type Scanner,
} from '../src/elf/scan.js';
import { BufferSource } from '../src/elf/source.js';
import { schemas } from '../src/schemas/index.js';
import { endTarget, gcore, imageDirectory, kernelCore, removeDirectory, scratchDirectory, startTarget, warpTool } from './support/cores.js';
import { Conversation } from './support/engine.js';
import { fileNote, foreignCore, PAGE, prstatusNote, warpImage, type SegmentPlan } from './support/synthesise.js';

const directory = scratchDirectory();
const images: Record<string, string | { skip: string }> = {};
const KNOWN = 0x510000003011n;
const TEXT = 'known text in known memory';

beforeAll(async () => {
  const target = await startTarget(directory);
  images['gcore'] = gcore(target, directory);
  images['kernel'] = await kernelCore(target, directory);
  await endTarget(target);
  const ours = Conversation.start(directory, ['run', '--', target.executable, 'first', 'second argument']);
  await ours.line();
  await ours.line();
  images['engine'] = ours.checkpoint(directory, 'engine');
  await ours.ended;
});

afterAll(() => removeDirectory(directory));

function imageOf(context: TestContext, writer: string): string {
  const image = images[writer]!;
  return typeof image === 'string' ? image : context.skip(image.skip);
}

interface MemDocument {
  dump: { start: string; end: string; from: string; bytes: string | null; reason: string | null; symbol: string | null }[] | null;
  values: { address: string; value: string; target: { symbol: string | null; area: { name: string; kind: string } } | null }[] | null;
  search: {
    complete: boolean;
    matches: {
      address: string;
      text: string | null;
      bytes: string | null;
      context: { start: string; bytes: string } | null;
      at: { area: { kind: string; name: string } };
    }[];
  } | null;
  extract: { bytes: number } | null;
}

const ajv = new Ajv2020({ strict: false });
const check = ajv.compile(schemas['mem']!.json);

function json(...argv: string[]): MemDocument {
  const { stdout, stderr } = warpTool('mem', ...argv, '--json');
  const document = JSON.parse(stdout) as MemDocument;
  check(document);
  expect(check.errors, `${argv.join(' ')} ${stderr}`).toBeNull();
  return document;
}

describe.each(['engine', 'gcore', 'kernel'])('mem on an image of %s', (writer) => {
  it('shows bytes, and counts the rows that it does not print', (context) => {
    const image = imageOf(context, writer);
    const { stdout, status } = warpTool('mem', image, '510000003000:4096');
    expect(status).toBe(0);
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toContain('0x510000000000-0x510000008000');
    expect(lines[1]).toBe(`0x510000003000  ${'00 '.repeat(8)} ${'00 '.repeat(8)} |${'.'.repeat(16)}|`);
    expect(lines[2]).toBe('0x510000003010  00 6b 6e 6f 77 6e 20 74  65 78 74 20 69 6e 20 6b  |.known text in k|');
    expect(lines[5]).toBe(`${' '.repeat(16)}252 more rows like this, up to 0x510000003fff`);
    expect(lines).toHaveLength(6);
    expect(warpTool('mem', image, '510000003000:4096', '--all-rows').stdout.trimEnd().split('\n')).toHaveLength(257);
  });

  it('shows exactly the bytes of an unaligned range', (context) => {
    const { dump } = json(imageOf(context, writer), `${KNOWN.toString(16)}:${TEXT.length}`);
    expect(Buffer.concat(dump!.map(({ bytes }) => Buffer.from(bytes!, 'hex'))).toString()).toBe(TEXT);
    const { stdout } = warpTool('mem', imageOf(context, writer), `0x${KNOWN.toString(16)}:5`);
    expect(stdout.split('\n')[1]).toBe(`0x510000003010     6b 6e 6f 77 6e${'   '.repeat(10)}   | known          |`);
  });

  it('reads typed values', (context) => {
    const image = imageOf(context, writer);
    expect(json(image, '510000003011', '--as', 'cstr').values).toMatchObject([{ address: '0x510000003011', value: TEXT }]);
    expect(json(image, '510000003011:4', '--as', 'u8').values!.map(({ value }) => value)).toEqual(['107', '110', '111', '119']);
    expect(json(image, '510000003011', '--as', 'u32').values).toMatchObject([{ value: String(Buffer.from(TEXT).readUInt32LE()) }]);
    expect(json(image, '510000003011', '--as', 'f64').values).toMatchObject([{ value: String(Buffer.from(TEXT).readDoubleLE()) }]);
    expect(warpTool('mem', image, '510000003011:5', '--as', 'u32')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('multiple of 4'),
    });
  });

  it('tells what pointers point to', (context) => {
    const image = imageOf(context, writer);
    const { threads } = JSON.parse(warpTool('threads', image, '--json').stdout) as {
      threads: { stack_pointer: string; leader: boolean }[];
    };
    const worker = threads.find(({ leader }) => !leader)!;
    const { values } = json(image, `${worker.stack_pointer}:512`, '--as', 'ptr');
    expect(values!.map(({ target }) => target?.symbol)).toContain('worker');
    expect(warpTool('mem', image, `${worker.stack_pointer}:512`, '--as', 'ptr').stdout).toMatch(
      /0x[0-9a-f]+ {2}worker\+0x[0-9a-f]+ \(target\)/,
    );
  });

  it('finds text, bytes and regular expressions where they are, and only there', (context) => {
    const image = imageOf(context, writer);
    const found = (...argv: string[]): string[] => json(image, ...argv).search!.matches.map(({ address }) => address);
    const at = `0x${KNOWN.toString(16)}`;
    expect(found('--text', TEXT, '--in', 'anon')).toEqual([at]);
    expect(found('--text', TEXT.toUpperCase(), '-i', '--in', 'anon')).toEqual([at]);
    expect(found('--search', Buffer.from(TEXT).toString('hex'), '--prot', 'rw-')).toEqual([at]);
    expect(found('--regex', 'known (text|word) in known memor[xyz]', '--range', '510000000000-520000000000')).toEqual([at]);
    expect(found('--regex', 'known (text|word) in known memor[xyz]', '--range', '510000003012-520000000000')).toEqual([]);
    expect(found('--text', 'worker-%lu', '--in', 'target').length).toBeGreaterThan(0);
    expect(warpTool('mem', image, '--text', 'no such text anywhere here')).toMatchObject({ status: 1, stdout: '' });
  });

  it('takes symbols for addresses', (context) => {
    const image = imageOf(context, writer);
    const { dump } = json(image, 'worker');
    expect(dump![0]).toMatchObject({ symbol: 'worker', symbol_offset: 0 });
    // As much as the symbol names, or as much as is asked for.
    const size = Number(BigInt(dump!.at(-1)!.end) - BigInt(dump![0]!.start));
    expect(size).toBeGreaterThan(8);
    expect(json(image, 'worker+2:4').dump![0]).toMatchObject({ symbol: 'worker', symbol_offset: 2, bytes: dump![0]!.bytes!.slice(4, 12) });
    expect(json(image, 'started', '--as', 'i32').values).toMatchObject([{ value: '3' }]);
    expect(json(image, 'environ', '--as', 'ptr').values).toMatchObject([{ target: { area: { kind: 'stack' } } }]);
    expect(warpTool('mem', image, 'no_such_symbol')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('no symbol no_such_symbol'),
    });
  });

  it('finds pointers, and numbers of a type', (context) => {
    const image = imageOf(context, writer);
    const worker = json(image, 'worker:1').dump![0]!.start;
    const pointers = json(image, '--points-to', worker, '--in', 'stack').search!.matches;
    expect(pointers.length).toBeGreaterThanOrEqual(3); // the argument of each pthread_create
    for (const { address, bytes } of pointers) {
      expect(BigInt(address) % 8n).toBe(0n);
      expect(Buffer.from(bytes!, 'hex').readBigUInt64LE()).toBe(BigInt(worker));
    }
    const inside = json(image, '--points-to', 'worker', '--in', 'stack').search!.matches;
    expect(inside.length).toBeGreaterThan(pointers.length); // return addresses too
    expect(warpTool('mem', image, '--points-to', worker, '--in', 'stack').stdout).toContain(`-> ${worker}  worker (target)`);
    const text = Buffer.from(TEXT);
    const found = (...argv: string[]): string[] => json(image, ...argv, '--in', 'anon').search!.matches.map(({ address }) => address);
    const at = `0x${KNOWN.toString(16)}`;
    expect(found('--value', String(text.readUInt32LE()), '--as', 'u32')).toContain(at);
    expect(found('--value', `0x${text.readBigUInt64LE().toString(16)}`)).toEqual([at]);
    expect(found('--value', String(text.readDoubleLE()), '--as', 'f64')).toEqual([at]);
    expect(warpTool('mem', image, '--value', '256', '--as', 'u8')).toMatchObject({ status: 2, stderr: expect.stringContaining('8 bits') });
    expect(warpTool('mem', image, '--value', '-1', '--as', 'u8').status).toBe(2);
  });

  it('shows what is around a match', (context) => {
    const image = imageOf(context, writer);
    const { search } = json(image, '--text', TEXT, '--in', 'anon', '--context', '20');
    const expected = Buffer.alloc(20 + TEXT.length + 20);
    expected.write(TEXT, 20);
    expect(search!.matches).toMatchObject([{ context: { start: `0x${(KNOWN - 20n).toString(16)}`, bytes: expected.toString('hex') } }]);
    const lines = warpTool('mem', image, '--text', TEXT, '--in', 'anon', '-c', '1').stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[1]).toMatch(/^ {2}0x510000003010  00 6b 6e 6f/);
    // No more than there is: the area begins here.
    const first = json(image, '--search', '00', '--range', '510000000000:1', '--context', '64').search!.matches[0]!;
    expect(first.context).toMatchObject({ start: '0x510000000000' });
  });

  it('lists strings', (context) => {
    const image = imageOf(context, writer);
    const { search } = json(image, '--strings', '--range', '510000000000-510000008000');
    expect(search!.matches).toMatchObject([{ address: `0x${KNOWN.toString(16)}`, text: TEXT }]);
    const everywhere = warpTool('mem', image, '--strings', '-n', '10', '--in', 'stack').stdout;
    expect(everywhere).toContain('second argument');
  });

  it('extracts memory into a private file', (context) => {
    const image = imageOf(context, writer);
    const output = join(directory, `${writer}.bin`);
    expect(json(image, '--extract', '510000000000', '-o', output).extract).toMatchObject({ bytes: 8 * PAGE });
    const expected = Buffer.alloc(8 * PAGE);
    expected.write(TEXT, 3 * PAGE + 17);
    expect(readFileSync(output)).toEqual(expected);
    expect(statSync(output).mode & 0o777).toBe(0o600);
  });

  it('takes what is not stored from the mapped file while it is the same, and says so', (context) => {
    const image = imageOf(context, writer);
    const executable = join(directory, 'target');
    const { maps } = JSON.parse(warpTool('maps', image, '--json').stdout) as {
      maps: { name: string; start: string; end: string; offset: string; from_file: number; protection: string; build_id: string }[];
    };
    const area = maps.find(({ name, from_file: part, protection }) => name === executable && part > 0 && !protection.includes('w'))!;
    const address = `${area.start}-${area.end}`;
    const before = readFileSync(executable);
    const { dump } = json(image, address);
    const part = dump!.find(({ from }) => from === 'file')!;
    const offset = Number(BigInt(area.offset) + BigInt(part.start) - BigInt(area.start));
    expect(part.bytes).toBe(before.subarray(offset, offset + part.bytes!.length / 2).toString('hex'));
    expect(warpTool('mem', image, address).stdout).toContain('from the mapped file');
    try {
      copyFileSync(executable, `${executable}.kept`);
      const changed = Buffer.from(before);
      changed[before.indexOf(Buffer.from(area.build_id, 'hex'))]! ^= 0xff;
      writeFileSync(executable, changed);
      const { status, stderr } = warpTool('mem', image, part.start.slice(2));
      expect(status).toBe(2);
      expect(stderr.trimEnd()).toMatch(/not in the image, and its file .*target has changed since$/);
      expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    } finally {
      writeFileSync(executable, before);
    }
  });

  it('says for an address that is not mapped what is near', (context) => {
    const { status, stderr } = warpTool('mem', imageOf(context, writer), '510000008000');
    expect(status).toBe(2);
    expect(stderr).toMatch(
      /address 0x510000008000 is not mapped \(the area before it ends at 0x510000008000, the next one starts at 0x[0-9a-f]+\)/,
    );
  });
});

describe('mem', () => {
  it.each<[string[], RegExp]>([
    [[], /nothing to show/],
    [['10000', '--text', 'x'], /ADDRESS and --text exclude each other/],
    [['xyz'], /there is no symbol xyz in the mapped files/],
    [['10000:0'], /0 is not a number of bytes above 0/],
    [['20000-10000'], /ends before it starts/],
    [['--search', 'abc'], /--search abc is not made of pairs/],
    [['--regex', '('], /--regex \(: /],
    [['--regex', 'x*'], /matches the empty text/],
    [['--text', ''], /the pattern is empty/],
    [['--text', 'x', '--in', 'no-such-file'], /no memory area is selected/],
    [['--text', 'x', '--prot', 'q'], /--prot q is not made of/],
    [['--extract', '10000'], /--extract RANGE and --output FILE go together/],
    [['--extract', '10000-90000', '-o', '/tmp/never'], /address 0x12000 is not mapped/],
    [['--as', 'u8'], /--as needs an ADDRESS/],
  ])('%j is refused with one line', async (argv, message) => {
    const image = imageDirectory(
      directory,
      'plain',
      await warpImage({ segments: [{ address: 0x10000n, size: 8192n, content: Buffer.alloc(2 * PAGE, 5) }] }),
    );
    const { status, stderr } = warpTool('mem', image, ...argv);
    expect(status).toBe(2);
    expect(stderr.trimEnd()).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it('says when it stopped at the limit', async () => {
    const image = imageDirectory(
      directory,
      'plain',
      await warpImage({ segments: [{ address: 0x10000n, size: 8192n, content: Buffer.alloc(2 * PAGE, 5) }] }),
    );
    const { stdout, stderr } = warpTool('mem', image, '--search', '05', '--limit', '3');
    expect(stdout.trimEnd().split('\n')).toHaveLength(3);
    expect(stderr).toContain('stopped at the limit of 3');
    expect(json(image, '--search', '05', '--limit', '3').search!.complete).toBe(false);
    expect(json(image, '--search', '0505').search!.matches).toHaveLength(2 * PAGE - 1);
  });

  it('shows a range with a hole up to the hole and behind it, and says what is missing', () => {
    const core = join(directory, 'hole.core');
    const page = Buffer.alloc(PAGE, 7);
    writeFileSync(
      core,
      foreignCore({
        segments: [
          { address: 0x10000n, size: 4096n, content: page },
          { address: 0x12000n, size: 4096n, content: page },
          { address: 0x13000n, size: 4096n },
        ],
        notes: [prstatusNote(1)],
      }),
    );
    const { stdout } = warpTool('mem', core, '10000-14000');
    expect(stdout).toMatch(/^0x11000-0x12000: not mapped$/m);
    expect(stdout).toMatch(/^0x13000-0x14000: the image's writer left it out$/m);
    expect(json(core, '10000-14000').dump!.map(({ from }) => from)).toEqual(['image', 'absent', 'image', 'absent']);
    expect(json(core, '--search', '07').search).toMatchObject({ absent: 4096, complete: true });
  });
});

const WINDOW = 4 << 20;
const addresses = (matches: Match[]): bigint[] => matches.map(({ address }) => address);

async function scan(image: Image, scanner: Scanner): Promise<Match[]> {
  const space = new AddressSpace(image);
  const found: Match[] = [];
  for await (const some of scanMemory(space.runs(), scanner, { searched: 0n, absent: 0n, reason: null }))
    for (const match of some) found.push(match);
  await space.close();
  return found;
}

async function openFile(content: Buffer): Promise<Image> {
  const path = join(directory, 'scanned.img');
  writeFileSync(path, content);
  return Image.open(path);
}

describe.each(['in memory', 'in a file'])('the search %s', (where) => {
  const open = async (plan: SegmentPlan[]): Promise<Image> => {
    const content = await warpImage({ segments: plan });
    return where === 'in a file' ? openFile(content) : Image.from(new BufferSource('test.img', content));
  };

  it('finds what lies across the windows in which memory is read', async () => {
    const content = Buffer.alloc(2 * WINDOW + 3 * PAGE, 0x2e);
    const places = [0, WINDOW - 6, WINDOW - 1, WINDOW + 5, 2 * WINDOW - 3, 2 * WINDOW + 100, content.length - 6];
    for (const place of places) content.write('needle', place);
    const overwritten = places.filter((place) => content.toString('latin1', place, place + 6) === 'needle');
    const image = await open([{ address: 0x100000n, size: BigInt(content.length), content }]);
    const expected = overwritten.map((place) => 0x100000n + BigInt(place));
    expect(addresses(await scan(image, bytesScanner(Buffer.from('needle'))))).toEqual(expected);
    expect(addresses(await scan(image, regexScanner('needl[aeiou]')))).toEqual(expected);
    expect(addresses(await scan(image, regexScanner('(?<=\\.)needle')))).toEqual(
      overwritten.filter((place) => content[place - 1] === 0x2e).map((place) => 0x100000n + BigInt(place)),
    );
    expect(addresses(await scan(image, textScanner('NEEDLE', 'ascii', true)))).toEqual(expected);
  });

  it('finds pointers at addresses that are multiples of 8, also across windows and behind what cannot be had', async () => {
    const content = Buffer.alloc(2 * WINDOW + 3 * PAGE, 0x11);
    const target = 0x7fff_1234_5678n;
    const places = [0, 8, WINDOW - 8, WINDOW, 2 * WINDOW - 8, 2 * WINDOW + 16, content.length - 8];
    for (const place of places) content.writeBigUInt64LE(target, place);
    content.writeBigUInt64LE(target, 1004); // not aligned
    content.writeBigUInt64LE(target - 1n, 2000);
    content.writeBigUInt64LE(target + 16n, 2008);
    const image = await open([{ address: 0x100000n, size: BigInt(content.length), content }]);
    const found = addresses(await scan(image, pointerScanner({ start: target, end: target + 16n })));
    expect(found).toEqual(places.map((place) => 0x100000n + BigInt(place)));
    const high = await scan(image, pointerScanner({ start: 0x7fff_0000_0000n, end: 0x8000_0000_0000n }));
    expect(high).toHaveLength(places.length + 2);
  });

  it('takes adjacent areas as one text whatever their order in the file, and never joins what is apart', async () => {
    const end = (text: string): Buffer => Buffer.concat([Buffer.alloc(PAGE - text.length, 1), Buffer.from(text)]);
    const begin = (text: string): Buffer => Buffer.concat([Buffer.from(text), Buffer.alloc(PAGE - text.length, 1)]);
    const image = await open([
      { address: 0x10000n, size: 4096n, content: end('nee') },
      { address: 0x11000n, size: 4096n, content: begin('dle'), flags: 4 },
      { address: 0x20000n, size: 4096n, content: end('nee') },
      { address: 0x30000n, size: 4096n, content: begin('dle') },
    ]);
    expect(addresses(await scan(image, bytesScanner(Buffer.from('needle'))))).toEqual([0x10ffdn]);
    expect(addresses(await scan(image, regexScanner('ne+dle')))).toEqual([0x10ffdn]);
    expect((await scan(image, stringsScanner(6, 'ascii'))).map(({ bytes }) => bytes.toString('latin1', 0, 6))).toEqual(['needle']);
  });

  it('takes adjacent segments as one text when the file has them the other way round', async () => {
    const low = Buffer.concat([Buffer.alloc(PAGE - 3, 1), Buffer.from('nee')]);
    const high = Buffer.concat([Buffer.from('dle'), Buffer.alloc(PAGE - 3, 1)]);
    const content = foreignCore({
      segments: [
        { address: 0x11000n, size: 4096n, content: high },
        { address: 0x10000n, size: 4096n, content: low },
      ],
      notes: [prstatusNote(1)],
    });
    const image = await Image.from(new BufferSource('test.core', content));
    expect(addresses(await scan(image, bytesScanner(Buffer.from('needle'))))).toEqual([0x10ffdn]);
    expect(addresses(await scan(image, regexScanner('ne+dle')))).toEqual([0x10ffdn]);
  });

  it('knows zeros that are not stored, before and behind what is', async () => {
    const content = Buffer.alloc(PAGE, 1);
    content.write('tail', PAGE - 4);
    content.write('head', 0);
    const image = await open([
      { address: 0x10000n, size: 4096n },
      { address: 0x11000n, size: 4096n, content },
      { address: 0x12000n, size: 1n << 36n },
    ]);
    expect(addresses(await scan(image, bytesScanner(Buffer.from('tail\0\0'))))).toEqual([0x11ffcn]);
    expect(addresses(await scan(image, bytesScanner(Buffer.from('\0\0head'))))).toEqual([0x10ffen]);
    expect(addresses(await scan(image, regexScanner('tail\\x00{8}')))).toEqual([0x11ffcn]);
    expect(addresses(await scan(image, regexScanner('\\x00head')))).toEqual([0x10fffn]);
    expect(addresses(await scan(image, stringsScanner(4, 'ascii')))).toEqual([0x11000n, 0x11ffcn]);
  });

  it('finds zeros in memory that is not stored', async () => {
    const image = await open([
      { address: 0x10000n, size: 4096n, content: Buffer.alloc(PAGE, 1) },
      { address: 0x11000n, size: 4096n },
    ]);
    expect(await scan(image, bytesScanner(Buffer.alloc(8)))).toHaveLength(PAGE - 7);
    expect(addresses(await scan(image, regexScanner('\\x01\\x00{200}')))).toEqual([0x10fffn]);
  });

  it('keeps few of the matches where each byte is one', async () => {
    const image = await open([{ address: 0x10000n, size: BigInt(WINDOW) }]);
    const space = new AddressSpace(image);
    let next = 0x10000n;
    for await (const some of scanMemory(space.runs(), bytesScanner(Buffer.alloc(3)))) {
      expect(some.length).toBeLessThanOrEqual(4096);
      expect(some[0]?.address ?? next).toBe(next);
      next += BigInt(some.length);
    }
    expect(next).toBe(0x10000n + BigInt(WINDOW) - 2n);
    await space.close();
  });

  it('finds UTF-16 at even and odd addresses, also across windows', async () => {
    const content = Buffer.alloc(WINDOW + PAGE, 0xff);
    for (const place of [100, 1001, WINDOW - 7]) Buffer.from('sixteen', 'utf16le').copy(content, place);
    const image = await open([{ address: 0x100000n, size: BigInt(content.length), content }]);
    const expected = [100, 1001, WINDOW - 7].map((place) => 0x100000n + BigInt(place));
    expect(addresses(await scan(image, stringsScanner(7, 'utf-16')))).toEqual(expected);
    expect(addresses(await scan(image, textScanner('sixteen', 'utf-16', false)))).toEqual(expected);
  });

  it('gives a longer string than it can hold in pieces that together are all of it', async () => {
    const length = 3 * LONGEST + 17;
    const content = Buffer.alloc(WINDOW + 2 * LONGEST);
    content.fill(0x61, WINDOW - 2 * LONGEST, WINDOW - 2 * LONGEST + length);
    const image = await open([{ address: 0x100000n, size: BigInt(content.length), content }]);
    const found = await scan(image, stringsScanner(4, 'ascii'));
    expect(found[0]!.address).toBe(0x100000n + BigInt(WINDOW - 2 * LONGEST));
    for (const [index, match] of found.entries()) {
      if (index > 0) expect(match.address).toBe(found[index - 1]!.address + BigInt(found[index - 1]!.length));
    }
    expect(found.reduce((sum, match) => sum + match.length, 0)).toBe(length);
  });

  it('reads a foreign core up to where it is cut', async () => {
    const content = foreignCore({
      segments: [{ address: 0x10000n, size: 8192n, content: Buffer.alloc(2 * PAGE, 0x62) }],
      notes: [prstatusNote(1), fileNote([])],
    });
    const image = await Image.from(new BufferSource('cut.core', content.subarray(0, content.length - PAGE)));
    expect(await scan(image, bytesScanner(Buffer.from('bb')))).toHaveLength(PAGE - 1);
  });
});

describe('the search', () => {
  const open = async (plan: SegmentPlan[]): Promise<Image> => Image.from(new BufferSource('test.img', await warpImage({ segments: plan })));

  it('reads each of 20,000 small areas', async () => {
    const plan = Array.from({ length: 20_000 }, (_, index) => {
      const content = Buffer.alloc(PAGE);
      content.write(`number ${index};`, index % (PAGE - 16));
      return { address: BigInt(index + 16) * 8192n, size: 4096n, content };
    });
    const image = await open(plan);
    expect(await scan(image, regexScanner('number [0-9]+;'))).toHaveLength(20_000);
    expect(await scan(image, stringsScanner(9, 'ascii'))).toHaveLength(20_000);
  });

  it('gives what strings(1) would give, for any bytes', async () => {
    const content = Buffer.alloc(WINDOW + PAGE);
    let state = 12345;
    for (let at = 0; at < content.length; at++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      // Mostly printable, so that strings of all lengths come up.
      content[at] = (state >>> 16) % 7 === 0 ? (state >>> 24) & 0xff : 0x20 + ((state >>> 20) % 95);
    }
    content.fill(0x41, WINDOW - 5, WINDOW + 5);
    const image = await open([{ address: 0x100000n, size: BigInt(content.length), content }]);
    for (const least of [1, 4, 9]) {
      const expected = [...content.toString('latin1').matchAll(new RegExp(`[\\t\\x20-\\x7e]{${least},}`, 'g'))].map(
        (match) => [0x100000n + BigInt(match.index), match[0].length] as const,
      );
      const found = (await scan(image, stringsScanner(least, 'ascii'))).map(({ address, length }) => [address, length] as const);
      expect(found.length).toBe(expected.length);
      expect(found).toEqual(expected);
    }
  });
});

it('finds bytes with native code where the search without it does, whatever is next to what', async () => {
  let state = 7;
  const random = (limit: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 16) % limit;
  };
  const long = Buffer.from('n'.repeat(700) + 'eedle');
  const patterns = ['needle', 'n', '\0\0needle', 'needle\0\0', 'lene', 'nn'].map((text) => Buffer.from(text)).concat(long);
  for (let round = 0; round < 3; round++) {
    const segments: SegmentPlan[] = [];
    let address = 0x10000n;
    while (segments.length < 20) {
      const size = PAGE * (1 + random(round === 0 ? 3 : 40));
      const stored = random(4) > 0;
      const content = Buffer.alloc(size, random(2) === 0 ? 0 : 0x2e);
      for (let count = random(20); count > 0; count--) content.write('needle', random(size));
      for (const edge of ['needle', 'edle', 'dle', 'e', long.toString().slice(random(705))]) if (random(3) === 0) content.write(edge, 0);
      for (const edge of ['nee', 'n', 'needl', long.toString().slice(0, random(705))])
        if (random(3) === 0) content.write(edge, size - edge.length);
      segments.push({ address, size: BigInt(size), ...(stored && { content }), ...(random(2) === 0 && { flags: 4 }) });
      address += BigInt(size) + (random(3) === 0 ? BigInt(PAGE) : 0n);
    }
    const content = await warpImage({ segments });
    const [inMemory, inFile] = [await Image.from(new BufferSource('test.img', content)), await openFile(content)];
    for (const pattern of patterns) {
      const expected = await scan(inMemory, { ...bytesScanner(pattern), pattern: undefined });
      expect(await scan(inMemory, bytesScanner(pattern))).toEqual(expected);
      expect(await scan(inFile, bytesScanner(pattern)), `round ${round}, ${pattern.toString('latin1')}`).toEqual(expected);
      if (pattern.equals(patterns[0]!)) expect(expected.length).toBeGreaterThan(0);
    }
    await inFile.close();
  }
});

it('says that a file became shorter while it was searched', async () => {
  const content = await warpImage({ segments: [{ address: 0x10000n, size: 1n << 20n, content: Buffer.alloc(1 << 20, 1) }] });
  const image = await openFile(content);
  truncateSync(join(directory, 'scanned.img'), content.length - PAGE);
  await expect(scan(image, bytesScanner(Buffer.from('needle')))).rejects.toThrow(
    /scanned\.img: at offset 0x[0-9a-f]+: the file became shorter/,
  );
  await image.close();
});
