/** encrypt and decrypt: nothing of a process is readable without the key, everything is with it, and nothing can be changed unnoticed. */
import { spawnSync } from 'node:child_process';
import { createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ChunkIndex } from '../src/elf/chunk-index.js';
import { Image } from '../src/elf/image.js';
import { sealMetadata } from '../src/elf/metadata.js';
import { projectNotes } from '../src/elf/schema.js';
import { xxh64 } from '../src/elf/xxh64.js';
import { nativeFile } from '../src/engine/native.js';
import { imageDirectory, missing, removeDirectory, root, scratchDirectory } from './support/cores.js';
import { auxvNote, fileNote, foreignCore, PAGE, prpsinfoNote, prstatusNote, warpImage, type SegmentPlan } from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const KEY = randomBytes(32);
const key = join(directory, 'key');
const withKey = ['--encryption-key-file', key];

/** Each of another place of an image: none may be found in an encrypted one. */
const SECRETS = ['memory', 'environment', 'argument', 'pipe', 'socket', 'thread', 'path', 'mapped', 'label', 'host', 'working', 'comm'].map(
  (place) => `Geheim-${place}`,
);
const [MEMORY, ENVIRONMENT, ARGUMENT, PIPE, SOCKET, THREAD, PATH, MAPPED, LABEL, HOST, WORKING, COMM] = SECRETS as string[];
const text = (value: string): Buffer => Buffer.from(value);
const queued = (value: string): Buffer => {
  const raw = Buffer.alloc(8 + Math.ceil(value.length / 8) * 8);
  raw.writeUInt32LE(value.length, 0);
  raw.write(value, 8);
  return raw;
};

const HEAP = 0x5123_4567_8000n;
const GAP = 0x6123_4567_8000n;
const STACK = 0x7fff_0123_4000n;
const content = Buffer.alloc(3 << 20, 'something ordinary, and again ');
for (const place of [10, 300_000, 2_000_000]) content.write(MEMORY!, place);
const stack = Buffer.alloc(PAGE);
stack.write(`ORDINARY=1\0TOKEN=${ENVIRONMENT}\0`, 100);
const segments: SegmentPlan[] = [
  { address: HEAP, size: BigInt(content.length), content },
  { address: GAP, size: 0x3000n },
  { address: STACK, size: BigInt(PAGE), content: stack },
];
const notes = [
  prstatusNote(100, { 19: STACK + 0x200n, 16: HEAP + 16n }),
  prpsinfoNote(100, COMM!),
  auxvNote([[6, BigInt(PAGE)]]),
  fileNote([{ start: HEAP, end: HEAP + 4096n, offset: 0n, path: `/srv/${MAPPED}` }]),
];

function tool(argv: string[], env: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string } {
  const { NO_COLOR: _, FORCE_COLOR: __, ...own } = process.env;
  const result = spawnSync(process.execPath, [join(root, 'bin/run.js'), ...argv], {
    encoding: 'utf8',
    env: { ...own, ...env },
    maxBuffer: 1 << 28,
  });
  return { status: result.status, stdout: result.stdout, stderr: result.stderr };
}

function succeed(...argv: string[]): string {
  const { status, stdout, stderr } = tool(argv);
  expect([status, stderr], argv.join(' ')).toEqual([0, '']);
  return stdout;
}

const json = (...argv: string[]): Record<string, unknown> => JSON.parse(tool([...argv, '--json']).stdout) as Record<string, unknown>;
const read = (image: string): Buffer => readFileSync(statSync(image).isDirectory() ? join(image, 'core.img') : image);

const images: Record<string, string> = {};
const sealed: Record<string, string> = {};
const kinds = ['ours', 'ours, compressed', 'foreign', 'foreign, compressed'];

beforeAll(async () => {
  writeFileSync(key, KEY, { mode: 0o600 });
  const noIndex = { file: 0xffffffff, object: 0xffffffff, protection: 3 };
  images['ours'] = imageDirectory(
    directory,
    'ours',
    await warpImage({
      segments,
      kernelNotes: notes,
      tables: {
        image: [
          {
            image_id: randomBytes(16),
            machine: 62,
            page_size: PAGE,
            generation: 4,
            engine_version: text('0.1.0'),
            kernel_release: text('6.1.0'),
            cpu_model: text('Some CPU'),
            hostname: text(HOST!),
            executable: text(`/srv/${PATH}`),
            command: text(`program\0${ARGUMENT}\0`),
          },
        ],
        process: [{ pid: 100, cwd: text(`/home/${WORKING}`), env_start: STACK + 100n, env_end: STACK + 100n + 35n }],
        threads: [{ tid: 100, flags: 1, name: text(THREAD!), state: 83, system_call: -1 }],
        vmas: [
          {
            ...noIndex,
            start: HEAP,
            end: HEAP + 0x30_0000n,
            kind: 2,
            file: 0,
            name: text(`/srv/${MAPPED}`),
            stored: BigInt(content.length),
          },
          { ...noIndex, start: GAP, end: GAP + 0x3000n, kind: 1 },
          { ...noIndex, start: STACK, end: STACK + BigInt(PAGE), kind: 5, name: text('[stack]'), stored: BigInt(PAGE) },
        ],
        files: [{ path: text(`/srv/${MAPPED}`), size: 5n }],
        descriptors: [
          { number: 3, description: 0 },
          { number: 4, description: 1 },
        ],
        descriptions: [
          { kind: 5, detail: 0, path: text('pipe:[1]') },
          { kind: 7, detail: 0, path: text('socket:[2]') },
        ],
        pipes: [{ inode: 1n, capacity: 65536, data: queued(PIPE!) }],
        sockets: [{ family: 1, type: 1, state: 4, peer: 0xffffffff, data: queued(SOCKET!) }],
        tags: [{ kind: 1, name: text('label'), value: text(LABEL!) }],
      },
    }),
  );
  images['foreign'] = join(directory, 'foreign.core');
  writeFileSync(images['foreign'], foreignCore({ segments, notes }));
  for (const name of ['ours', 'foreign']) {
    images[`${name}, compressed`] = join(directory, `${name}-small.img`);
    succeed('compress', images[name]!, '-o', images[`${name}, compressed`]!);
  }
  for (const name of kinds) {
    sealed[name] = join(directory, `${name.replace(', ', '-')}-sealed.img`);
    succeed('encrypt', images[name]!, '-o', sealed[name], ...withKey);
  }
});

it('the image that is encrypted is a good one, and holds all the secrets', () => {
  for (const name of kinds)
    expect(tool(['validate', images[name]!]), name).toMatchObject({ status: 0, stdout: expect.stringContaining('valid') });
  const bytes = read(images['ours']!);
  for (const secret of SECRETS) expect(bytes.includes(secret), secret).toBe(true);
});

describe.each(kinds)('%s', (name) => {
  it('shows nothing of the process', async () => {
    const bytes = read(sealed[name]!);
    for (const secret of [...SECRETS, 'ordinary', 'pipe:[1]', '[stack]', 'program']) expect(bytes.includes(secret), secret).toBe(false);
    // Nor hashes by which content could be guessed, nor addresses.
    const image = await Image.open(images[name]!);
    const { chunks } = image.outermost;
    const forbidden = [HEAP, GAP, STACK];
    for (let chunk = 0; chunk < chunks.length; chunk++) forbidden.push(chunks.contentHash(chunk), chunks.storedHash(chunk));
    await image.close();
    const word = Buffer.alloc(8);
    for (const value of forbidden.filter((one) => one !== 0n)) {
      word.writeBigUInt64LE(value);
      expect(bytes.indexOf(word), value.toString(16)).toBe(-1);
    }
  });

  it('is the same again after decrypt, byte for byte', () => {
    const back = join(directory, 'back.img');
    succeed('decrypt', sealed[name]!, '-o', back, ...withKey);
    expect(read(back).equals(read(images[name]!))).toBe(true);
    expect(statSync(sealed[name]!).mode & 0o777).toBe(0o600);
    expect(statSync(back).mode & 0o777).toBe(0o600);
  });

  it('is shown with the key as it was before', () => {
    const without = (document: unknown, ...keys: string[]): unknown =>
      JSON.parse(JSON.stringify(document, (member, value: unknown) => (keys.includes(member) ? undefined : value)));
    const same = (ignored: string[], ...argv: string[]): void => {
      const [command, ...rest] = argv as [string, ...string[]];
      const expected = without(json(command, images[name]!, ...rest), 'image', ...ignored);
      expect(without(json(command, sealed[name]!, ...rest, ...withKey), 'image', ...ignored), argv.join(' ')).toEqual(expected);
    };
    same(['size', 'flags', 'content', 'packed'], 'show');
    same(['packed'], 'maps');
    same([], 'threads', '--registers');
    if (name.startsWith('ours')) for (const command of ['fds', 'env', 'signals']) same([], command);
    same([], 'mem', '--text', MEMORY!);
    same([], 'mem', `${HEAP.toString(16)}:100`);
    expect(json('show', sealed[name]!, ...withKey)).toMatchObject({
      content: { encrypted: true },
      flags: expect.arrayContaining(['encrypted']),
    });
    expect(json('diff', images[name]!, sealed[name]!, '--memory', ...withKey)).toMatchObject({ different: false, memory: { pages: 0 } });
  }, 300_000);

  it('says without the key what is open, and what is missing', () => {
    const line = /^warp-tool: [^\n]*it is encrypted, and [^\n]* --encryption-key-file or --encryption-key-env\n$/;
    for (const argv of [
      ['threads'],
      ['maps'],
      ['env'],
      ['auxv'],
      ['fds'],
      ['signals'],
      ['mem', '--text', 'x'],
      ['redact', '-o', join(directory, 'no')],
    ]) {
      const [command, ...rest] = argv as [string, ...string[]];
      const { status, stdout, stderr } = tool([command, sealed[name]!, ...rest]);
      expect([status, stdout], argv.join(' ')).toEqual([2, '']);
      expect(stderr).toMatch(line);
    }
    const shown = tool(['show', sealed[name]!]);
    expect(shown.status).toBe(0);
    expect(shown.stderr).toMatch(/^warp-tool: warning: [^\n]*it is encrypted[^\n]*\n$/);
    expect(shown.stdout).toContain('encrypted');
    if (name.startsWith('ours')) expect(shown.stdout).toMatch(/Linux 6\.1\.0, Some CPU[\s\S]*content/);
    expect(json('show', sealed[name]!)).toMatchObject({ threads: null, memory: null, process: { name: null, command: null } });
    expect(json('notes', sealed[name]!)).toMatchObject({ notes: [{ name: 'image' }, { name: 'encryption' }, { name: 'chunks' }] });
    expect(json('validate', sealed[name]!)).toMatchObject({ valid: true, unchecked: expect.stringContaining('encrypted') });
    expect(json('validate', sealed[name]!, ...withKey)).toMatchObject({ valid: true, unchecked: null });
  }, 300_000);

  it('is decoded and encoded, sealed and with its key', () => {
    const [document, again] = [join(directory, 'sealed.json'), join(directory, 'again.img')];
    expect(tool(['decode', sealed[name]!, '-o', document]).status).toBe(0);
    expect(tool(['encode', document, '-o', again]).status).toBe(0);
    expect(read(again).equals(read(sealed[name]!))).toBe(true);
    succeed('decode', sealed[name]!, '-o', document, ...withKey);
    succeed('encode', document, '-o', again, ...withKey);
    expect(read(again).equals(read(images[name]!))).toBe(true);
  });

  it('is a file that readers of ELF files accept', ({ skip }) => {
    const absent = missing('readelf', 'eu-readelf');
    if (absent) skip(absent);
    for (const reader of ['readelf', 'eu-readelf'])
      expect(spawnSync(reader, ['-W', '-l', '-n', sealed[name]!], { encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' });
  });
});

it('the document says how to decrypt', async () => {
  const image = await Image.open(sealed['ours']!);
  const { image_id: id } = image.single('image')!;
  const record = image.table('encryption').get(0);
  const derived = Buffer.from(hkdfSync('sha256', KEY, record.salt, 'warp-tool image encryption', 32));
  const open = (nonce: Buffer, additional: Buffer, bytes: Buffer): Buffer => {
    const decipher = createDecipheriv('aes-256-gcm', derived, nonce).setAAD(additional);
    decipher.setAuthTag(bytes.subarray(-16));
    return Buffer.concat([decipher.update(bytes.subarray(0, -16)), decipher.final()]);
  };
  const plain = read(images['ours']!);
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32LE(1, 0);
  const parts = [image.notes.find(({ type }) => type === projectNotes.image.type)!.descriptor, Buffer.alloc(8)];
  parts[1]!.writeBigUInt64LE(image.anchor!.content_size);
  for (const chunk of image.table('chunks')) {
    const facts = Buffer.alloc(16);
    facts.writeBigUInt64LE(chunk.content_offset, 0);
    facts.writeUInt32LE(chunk.content_size, 8);
    facts.writeUInt32LE(chunk.flags, 12);
    parts.push(facts);
  }
  expect(open(nonce, Buffer.concat(parts), record.sealed).equals(plain.subarray(0, Number(plain.readBigUInt64LE(64 + 16))))).toBe(true);
  expect(image.chunks.length).toBe(4);
  for (const chunk of image.table('chunks')) {
    nonce.writeUInt32LE(0, 0);
    nonce.writeBigUInt64LE(chunk.content_offset, 4);
    const additional = Buffer.alloc(24);
    id.copy(additional);
    additional.writeUInt32LE(chunk.content_size, 16);
    additional.writeUInt32LE(chunk.flags, 20);
    const stored = await image.source.read(chunk.file_offset, chunk.stored_size);
    const at = Number(chunk.content_offset);
    expect(open(nonce, additional, stored).equals(plain.subarray(at, at + chunk.content_size))).toBe(true);
    expect(chunk).toMatchObject({ content_hash: 0n, flags: 0x100, stored_size: chunk.content_size + 16 });
  }
  await image.close();
});

it('no two encryptions use the same key: the same image becomes other bytes, and equal chunks do too', async () => {
  const again = join(directory, 'sealed-again.img');
  succeed('encrypt', images['ours, compressed']!, '-o', again, ...withKey);
  const [one, other] = [await Image.open(sealed['ours, compressed']!), await Image.open(again)];
  const seen = new Set<string>();
  for (const image of [one, other]) {
    for (let chunk = 0; chunk < image.chunks.length; chunk++) {
      const bytes = await image.source.read(BigInt(image.chunks.fileOffset(chunk)), image.chunks.storedSize(chunk));
      seen.add(bytes.toString('latin1', 0, 48));
    }
  }
  expect(seen.size).toBe(2 * one.chunks.length);
  await one.close();
  await other.close();
});

describe('damage and forgery', () => {
  const CHANGED = /^warp-tool: [^\n]*: it was encrypted with another key, or changed on purpose; give the right key\n$/;

  /** Changes an encrypted image, with all its hashes made right again. */
  async function forge(change: (bytes: Buffer, index: ChunkIndex, records: number) => void, name = 'ours'): Promise<string> {
    const image = await Image.open(sealed[name]!);
    const note = image.notes.find(({ type }) => type === projectNotes.chunks.type)!;
    const bytes = read(sealed[name]!);
    const at = Number(note.offset) + 16;
    const records = Buffer.alloc(image.chunks.records.length);
    bytes.copy(records, 0, at, at + records.length);
    const index = new ChunkIndex(records);
    change(bytes, index, at);
    for (let chunk = 0; chunk < index.length; chunk++) {
      const [fileOffset, size] = [index.fileOffset(chunk), index.storedSize(chunk)];
      const storedHash = await xxh64(bytes.subarray(fileOffset, fileOffset + size));
      index.setStored(chunk, { fileOffset, size, contentHash: 0n, storedHash, flags: index.flags(chunk) });
    }
    records.copy(bytes, at);
    await sealMetadata(bytes.subarray(0, Number(bytes.readBigUInt64LE(64 + 16))));
    await image.close();
    return imageDirectory(directory, 'forged', bytes);
  }

  it('of a chunk is found by its tag, with its place, though all hashes fit', async () => {
    const path = await forge((bytes, index) => void (bytes[index.fileOffset(1) + 1000]! ^= 1));
    expect(tool(['validate', path])).toMatchObject({ status: 0 });
    const { status, stdout } = tool(['validate', path, ...withKey]);
    expect([status, stdout]).toEqual([
      1,
      expect.stringMatching(/chunk-content offset 0x[0-9a-f]+, address 0x[0-9a-f]+: .*chunk 1.*authentication tag/),
    ]);
    for (const argv of [
      ['mem', path, '--text', MEMORY!],
      ['decrypt', path, '-o', join(directory, 'no')],
    ]) {
      const answer = tool([...argv, ...withKey]);
      expect([answer.status, answer.stderr]).toEqual([
        2,
        expect.stringMatching(/^warp-tool: [^\n]*offset 0x[0-9a-f]+: chunk 1 \(memory at 0x[0-9a-f]+\)[^\n]*\n$/),
      ]);
    }
    expect(readdirSync(directory)).not.toContain('no');
  });

  it('a chunk in the place of another is refused', async () => {
    const path = await forge((_, index) => {
      const places = [index.fileOffset(1), index.fileOffset(0)];
      for (const [chunk, fileOffset] of places.entries())
        index.setStored(chunk, { fileOffset, size: index.storedSize(0), contentHash: 0n, storedHash: 0n, flags: 0x100 });
    });
    const { status, stderr } = tool(['decrypt', path, '-o', join(directory, 'no'), ...withKey]);
    expect([status, stderr]).toEqual([2, expect.stringMatching(/chunk \d \(memory at 0x[0-9a-f]+\) has a wrong authentication tag/)]);
    expect(readdirSync(directory)).not.toContain('no');
  });

  const answers = (path: string): [number | null, string, boolean][] =>
    [['show'], ['validate'], ['decrypt', '-o', join(directory, 'no')]].map(([command, ...rest]) => {
      const { status, stderr } = tool([command!, path, ...rest, ...withKey]);
      return [status, stderr, readdirSync(directory).includes('no')];
    });
  const refused = Array.from({ length: 3 }, () => [2, expect.stringMatching(CHANGED), false]);

  it('a chunk with another codec is refused', async () => {
    expect(
      answers(
        await forge((_, index) =>
          index.setStored(0, { fileOffset: index.fileOffset(0), size: index.storedSize(0), contentHash: 0n, storedHash: 0n, flags: 0x101 }),
        ),
      ),
    ).toEqual(refused);
  });

  it.each(kinds)('a chunk that was left out is missed: %s', async (name) => {
    expect(answers(await forge((bytes, { length }, at) => void bytes.writeUInt32LE(length - 1, at - 16 + 4), name))).toEqual(refused);
  });

  it.each(kinds)('what is open is proven by the key: %s', async (name) => {
    const image = await Image.open(sealed[name]!);
    const { offset } = image.notes.find(({ type }) => type === projectNotes.image.type)!;
    await image.close();
    const generation = Number(offset) + 16 + 32;
    expect(answers(await forge((bytes) => void bytes.writeUInt32LE(77, generation), name))).toEqual(refused);
    const CONTENT_SIZE = 64 + 40;
    expect(
      answers(await forge((bytes) => void bytes.writeBigUInt64LE(bytes.readBigUInt64LE(CONTENT_SIZE) - 4096n, CONTENT_SIZE), name)),
    ).toEqual(refused);
  });

  it('of the sealed metadata is told from a wrong key', async () => {
    const image = await Image.open(sealed['ours']!);
    const note = image.notes.find(({ type }) => type === projectNotes.encryption.type)!;
    await image.close();
    const bytes = read(sealed['ours']!);
    bytes[Number(note.offset) + 500]! ^= 1;
    const path = imageDirectory(directory, 'damaged', bytes);
    expect(tool(['threads', path, ...withKey])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/the metadata is damaged, so the key cannot be judged; copy/),
    });
    const wrong = join(directory, 'wrong-key');
    writeFileSync(wrong, randomBytes(32), { mode: 0o600 });
    expect(tool(['threads', sealed['ours']!, '--encryption-key-file', wrong])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(CHANGED),
    });
  });
});

describe('keys', () => {
  it.each<[string, () => string | Buffer]>([
    ['32 bytes', () => KEY],
    ['hexadecimal digits', () => KEY.toString('hex')],
    ['hexadecimal digits and a line end', () => `${KEY.toString('hex').toUpperCase()}\n`],
    ['base64', () => `${KEY.toString('base64')}\n`],
    ['base64url', () => KEY.toString('base64url')],
  ])('are taken from a file as %s', (_, value) => {
    const file = join(directory, 'some-key');
    writeFileSync(file, value(), { mode: 0o600 });
    expect(succeed('threads', sealed['ours']!, '--encryption-key-file', file)).toContain(THREAD);
  });

  it('are taken from the environment and from a pipe', () => {
    for (const value of [KEY.toString('hex'), KEY.toString('base64')]) {
      const { status, stdout } = tool(['threads', sealed['ours']!, '--encryption-key-env', 'IMAGE_KEY'], { IMAGE_KEY: value });
      expect([status, stdout]).toEqual([0, expect.stringContaining(THREAD!)]);
    }
    const piped = spawnSync(
      'sh',
      [
        '-c',
        `cat "$1" | "$0" "$2" threads "$3" --encryption-key-file /dev/stdin`,
        process.execPath,
        key,
        join(root, 'bin/run.js'),
        sealed['ours']!,
      ],
      { encoding: 'utf8' },
    );
    expect([piped.status, piped.stdout]).toEqual([0, expect.stringContaining(THREAD!)]);
  });

  it.each<[string, string[], RegExp, Record<string, string>?]>([
    [
      'too short',
      ['--encryption-key-file', 'short'],
      /short holds no key: it has 31 bytes, and needed are 32 bytes, 64 hexadecimal digits or base64/,
    ],
    ['a password', ['--encryption-key-file', 'password'], /password holds no key: it has 21 bytes/],
    ['a long file', ['--encryption-key-file', 'long'], /long holds no key: it has more than 4096 bytes/],
    ['a device without end', ['--encryption-key-file', '/dev/zero'], /zero holds no key: it has more than 4096 bytes/],
    ['a directory', ['--encryption-key-file', 'folder'], /cannot read the key in \S+folder: is a directory/],
    ['no file', ['--encryption-key-file', 'missing'], /cannot read the key in \S+missing: no such file/],
    ['no variable', ['--encryption-key-env', 'NO_SUCH_KEY'], /--encryption-key-env NO_SUCH_KEY: there is no such environment variable/],
    [
      'an odd variable',
      ['--encryption-key-env', 'IMAGE_KEY'],
      /the environment variable IMAGE_KEY holds no key: it has 7 bytes/,
      { IMAGE_KEY: 'hunter2' },
    ],
    [
      'two of them',
      ['--encryption-key-file', 'key', '--encryption-key-env', 'IMAGE_KEY'],
      /--encryption-key-env/,
      { IMAGE_KEY: KEY.toString('hex') },
    ],
  ])('that are none are refused: %s', (_, flags, problem, env = {}) => {
    writeFileSync(join(directory, 'short'), randomBytes(31));
    writeFileSync(join(directory, 'password'), 'correct horse battery');
    writeFileSync(join(directory, 'long'), randomBytes(5000));
    mkdirSync(join(directory, 'folder'), { recursive: true });
    for (const file of ['short', 'password', 'long']) chmodSync(join(directory, file), 0o600);
    const argv = flags.map((flag, index) => (flags[index - 1] === '--encryption-key-file' ? resolve(directory, flag) : flag));
    for (const command of [
      ['threads', sealed['ours']!],
      ['encrypt', images['ours']!, '-o', join(directory, 'no')],
    ]) {
      const { status, stdout, stderr } = tool([...command, ...argv], env);
      expect([status, stdout], stderr).toEqual([2, '']);
      expect(stderr).toMatch(problem);
      expect(stderr).toMatch(/^warp-tool: [^\n]*\n$/);
      for (const value of ['hunter2', 'horse']) expect(stderr).not.toContain(value);
    }
    expect(readdirSync(directory)).not.toContain('no');
  });

  it('that others can read are warned of', () => {
    const open = join(directory, 'open-key');
    writeFileSync(open, KEY);
    chmodSync(open, 0o644);
    const { status, stderr } = tool(['threads', sealed['ours']!, '--encryption-key-file', open]);
    expect([status, stderr]).toEqual([0, `warp-tool: warning: ${open} can be read by others, who can then decrypt; \`chmod 600\` it\n`]);
  });

  it('are needed to encrypt', () => {
    const { status, stderr } = tool(['encrypt', images['ours']!, '-o', join(directory, 'no')]);
    expect([status, stderr]).toEqual([
      2,
      expect.stringMatching(/^warp-tool: no key: give --encryption-key-file FILE or --encryption-key-env NAME/),
    ]);
  });
});

it('two chunks of the same content offset, which would share a nonce, are not encrypted', async () => {
  const image = await Image.open(images['ours']!);
  const { offset } = image.notes.find(({ type }) => type === projectNotes.chunks.type)!;
  await image.close();
  const bytes = read(images['ours']!);
  const first = Number(offset) + 16;
  bytes.copyWithin(first + 48, first, first + 8);
  await sealMetadata(bytes.subarray(0, Number(bytes.readBigUInt64LE(64 + 16))));
  const path = imageDirectory(directory, 'repeated', bytes);
  expect(tool(['encrypt', path, '-o', join(directory, 'no'), ...withKey])).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/^warp-tool: [^\n]*chunk 1 of the chunk index is not behind the one before it[^\n]*\n$/),
  });
  expect(readdirSync(directory)).not.toContain('no');
});

describe('refusals', () => {
  it.each<[string, () => string[], RegExp]>([
    ['encrypt twice', () => ['encrypt', sealed['ours']!, '-o', join(directory, 'no'), ...withKey], /is encrypted already/],
    [
      'compress what is encrypted',
      () => ['compress', sealed['ours']!, '-o', join(directory, 'no')],
      /is encrypted, and what is encrypted does not shrink: decrypt it, compress it/,
    ],
    [
      'decompress what is encrypted',
      () => ['decompress', sealed['ours, compressed']!, '-o', join(directory, 'no')],
      /is encrypted: decrypt it first/,
    ],
    ['decrypt what is not', () => ['decrypt', images['ours']!, '-o', join(directory, 'no'), ...withKey], /core\.img is not encrypted/],
    ['decrypt without a key', () => ['decrypt', sealed['ours']!, '-o', join(directory, 'no')], /it is encrypted, and .* give its key/],
    [
      'a script that needs a copy',
      () => ['gdb-script', sealed['ours']!, ...withKey],
      /is encrypted, and no plain copy of it may stay: use `warp-tool gdb`, or decrypt it/,
    ],
  ])('%s', (_, argv, message) => {
    const { status, stderr } = tool(argv());
    expect([status, stderr]).toEqual([2, expect.stringMatching(message)]);
    expect(stderr).toMatch(/^warp-tool: [^\n]*\n$/);
    expect(readdirSync(directory)).not.toContain('no');
  });

  it.each<[string, () => { status: number | null; stderr: string }]>([
    ['warp-tool restore', () => tool(['restore', sealed['ours']!])],
    ['warp-restore', () => spawnSync(nativeFile('warp-restore'), [sealed['ours']!], { encoding: 'utf8' })],
  ])('%s asks for the key', (_, restore) => {
    const { status, stderr } = restore();
    expect([status, stderr]).toEqual([
      2,
      expect.stringMatching(/^warp-restore: [^\n]*: it is encrypted: give its key with --encryption-key-file or --encryption-key-env\n$/),
    ]);
  });
});
