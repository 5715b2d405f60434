/* oxlint-disable vitest/expect-expect -- many assertions are in restoreProgram and inEachWay */
/** Encrypted images of real programs: restored at once and while they run, without the key in their memory, and refused when anything was changed. */
import { hkdfSync, randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { withImage } from '../../src/elf/image.js';
import { xxh64 } from '../../src/elf/xxh64.js';
import { executable, firstVariant, lastTick, restoreProgram, startProgram } from './support/c-programs.js';
import { command, makeDirectory, projectFile } from './support/host.js';
import { writeKey } from './support/keys.js';
import { freePort, readAll, untilListening } from './support/network.js';
import { checkpointAndEnd, killAll, type Program, restore, run, start as startTarget, warpTool } from './support/program.js';

afterEach(killAll);

const variant = firstVariant();
const KEY = randomBytes(32);
let keyFile: string;

beforeAll(() => {
  keyFile = writeKey(KEY);
});

const withKey = (): string[] => ['--encryption-key-file', keyFile];
const core = (image: string): string => join(image, 'core.img');

/** Runs a command of warp-tool that succeeds in silence; gives what it printed. */
async function tool(...args: string[]): Promise<string> {
  const program = warpTool(args);
  const { code } = await program.ended;
  expect([code, program.stderr], args.join(' ')).toEqual([0, '']);
  return program.stdout;
}

async function encrypted(image: string): Promise<string> {
  const output = join(makeDirectory(), 'encrypted');
  await tool('encrypt', image, '-o', output, ...withKey());
  return output;
}

/** The image's own key. */
async function imageKey(image: string): Promise<Buffer> {
  const salt = await withImage(core(image), (file) => Promise.resolve(file.outermost.table('encryption').get(0).salt));
  return Buffer.from(hkdfSync('sha256', KEY, salt, 'warp-tool image encryption', 32));
}

/** Which of `needles` stand in the memory of a process, but for what it has mapped from files and cannot write. */
function inMemory(pid: number, needles: Record<string, Buffer>): string[] {
  const found = new Set<string>();
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  for (const line of readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')) {
    const area = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) /.exec(line);
    if (!area || /\[v(?:var|syscall)/.test(line) || (!area[3]!.includes('w') && line.includes('/'))) continue;
    const [from, to] = [BigInt(`0x${area[1]}`), BigInt(`0x${area[2]}`)];
    const step = 1 << 20;
    for (let at = from; at < to; at += BigInt(step)) {
      // What lies across a border is seen too.
      const bytes = Buffer.alloc(Math.min(step + 64, Number(to - at)));
      try {
        const size = readSync(memory, bytes, 0, bytes.length, at as unknown as number);
        for (const [name, needle] of Object.entries(needles)) if (bytes.subarray(0, size).includes(needle)) found.add(name);
      } catch {
        // no access rights, or not there
      }
    }
  }
  closeSync(memory);
  return [...found].toSorted();
}

/** A key as it is, in halves (as registers hold it), and as text. */
const forms = (name: string, key: Buffer): Record<string, Buffer> => ({
  [`${name}, first half`]: key.subarray(0, 16),
  [`${name}, second half`]: key.subarray(16),
  [`${name}, text`]: Buffer.from(key.toString('hex')),
});

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not so after a minute: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const loaders = ['userfaultfd-user', 'signals'].flatMap((faults) => [
  ['--concurrent', '--load-faults', faults, '--load-concurrency', '0'],
  ['--concurrent', '--load-faults', faults, '--load-concurrency', '2'],
]);
const eager = [['--no-concurrent'], ['--no-concurrent', '--verify']];

describe('an image made by encrypt', () => {
  it.each(['memory_kinds', 'memory_memfd', 'memory_shared', 'threads_registers', 'memory_fork', 'loading'])(
    '%s: comes back, read at once or while it runs',
    async (program) => {
      const { target } = await startProgram(program, variant);
      const plain = await checkpointAndEnd(target);
      const stoppedAfter = lastTick(target.stdout);
      const packed = join(makeDirectory(), 'packed');
      await tool('compress', plain, '-o', packed);
      for (const image of [await encrypted(plain), await encrypted(packed)])
        for (const flags of [...eager, ...loaders]) await (await restoreProgram(image, stoppedAfter, [...flags, ...withKey()])).kill();
    },
  );

  it.skipIf(!command('python3'))('python3: the program has neither the keys nor the variable when its memory is loaded', async () => {
    const target = startTarget(command('python3')!, [
      projectFile('test/e2e/fixtures/threads.py'),
      makeDirectory(),
      String(await freePort()),
    ]);
    const port = Number((await target.output(/^port (\d+)$/m))[1]);
    await target.output(/^tick 20$/m);
    const [state] = (await readAll(port)).split(' ');
    const image = await encrypted(await checkpointAndEnd(target));
    const needles = { ...forms('user', KEY), ...forms('image', await imageKey(image)) };
    const comesBack = async (program: Program): Promise<void> => {
      await untilListening(port);
      expect((await readAll(port)).split(' ')[0]).toBe(state);
      await program.goesOn();
    };

    const variable = ['--encryption-key-env', 'IMAGE_KEY'];
    const environment = { IMAGE_KEY: KEY.toString('base64') };
    const stats = join(makeDirectory(), 'stats.json');
    let restored = restore(image, [...variable, '--no-concurrent', '--stats', stats], { environment });
    await comesBack(restored);
    expect(inMemory(restored.pid, { ...needles, variable: Buffer.from(environment.IMAGE_KEY) })).toEqual([]);
    expect(readFileSync(`/proc/${restored.pid}/environ`, 'latin1')).not.toContain('IMAGE_KEY');
    expect(JSON.parse(readFileSync(stats, 'utf8'))).toMatchObject({
      mode: 'eager',
      encryption: 'aes-256-gcm',
      compression: 'none',
      direct_bytes: 0,
    });
    await restored.kill();

    restored = warpTool(['restore', image, ...variable, '--concurrent', '--load-concurrency', '1'], { environment });
    await comesBack(restored);
    await until(() => inMemory(restored.pid, needles).length === 0, 'the key is gone when all memory is loaded');
    await comesBack(restored);
    await restored.kill();
  });

  it('the key is in memory while there is something to be loaded, and no longer', async () => {
    const { target, scratch } = await startProgram('memory_accesses', variant);
    const image = await encrypted(await checkpointAndEnd(target));
    const needles = { ...forms('user', KEY), ...forms('image', await imageKey(image)) };
    // With nothing loaded but what is asked for, loading does not end: a key that is there is found.
    for (const faults of ['userfaultfd-user', 'signals']) {
      const flags = ['--concurrent', '--load-concurrency', '0', '--load-faults', faults];
      const restored = await restoreProgram(image, undefined, [...flags, ...withKey()]);
      expect(inMemory(restored.pid, needles)).toEqual(['image, first half', 'image, second half']);
      await restored.kill();
      rmSync(join(scratch, 'done'), { force: true });
    }
    const restored = await restoreProgram(image, undefined, ['--concurrent', '--load-concurrency', '1', ...withKey()]);
    await until(() => inMemory(restored.pid, needles).length === 0, 'the key is gone when all memory is loaded');
    await restored.goesOn();
  });
});

describe('an encrypted checkpoint', () => {
  const packings = [[], ['--compression', 'lz4'], ['--compression', 'lz4', '--chunk-size', '16', '--compression-level', '4']];

  /** All that the commands say of an image. */
  async function described(image: string, ...flags: string[]): Promise<unknown[]> {
    const documents: unknown[] = [];
    for (const name of ['threads', 'maps'])
      documents.push({ ...(JSON.parse(await tool(name, image, '--json', ...flags)) as object), image: '' });
    return documents;
  }

  it.each(['memory_kinds', 'memory_memfd', 'memory_shared', 'mutex_owner'])(
    '%s: has the form that encrypt gives, and comes back',
    async (program) => {
      for (const packing of packings) {
        const { target } = await startProgram(program, variant);
        const image = await checkpointAndEnd(target, [...packing, ...withKey()]);
        const stoppedAfter = lastTick(target.stdout);
        for (const flags of [['--no-concurrent', '--verify'], ['--concurrent']])
          await (await restoreProgram(image, stoppedAfter, [...flags, ...withKey()])).kill();
        await tool('validate', image);
        await tool('validate', image, ...withKey());
        const open = join(makeDirectory(), 'decrypted');
        await tool('decrypt', image, '-o', open, ...withKey());
        await tool('validate', open);
        expect(await described(image, ...withKey())).toEqual(await described(open));
        expect(readFileSync(core(open)).readUInt32LE(64 + 12) & 8).toBe(0);
        await (await restoreProgram(open, stoppedAfter)).kill();
        // Encrypted again by the command it differs in salt, and so in ciphertext, but in no size and place.
        const again = await encrypted(open);
        const layout = async (one: string): Promise<unknown> =>
          withImage(core(one), async ({ outermost: { chunks, metadataSize, file } }) => ({
            size: file.size,
            metadataSize,
            chunks: Array.from({ length: chunks.length }, (_, at) => [
              chunks.contentOffset(at),
              chunks.contentSize(at),
              chunks.fileOffset(at),
              chunks.storedSize(at),
              chunks.flags(at),
            ]),
          }));
        expect(await layout(again)).toEqual(await layout(image));
        for (const secret of ['memory_', 'PATH=', '/proc/', target.pid.toString().padStart(64)])
          expect(readFileSync(core(image)).includes(secret)).toBe(false);
      }
    },
  );

  it('with --leave-running, again and again, by the command line; the next generation too', async () => {
    const { target } = await startProgram('memory_kinds', variant);
    const images: string[] = [];
    for (const packing of packings) {
      const image = join(makeDirectory(), 'image');
      const text = await tool('checkpoint', String(target.pid), '--to', image, '--leave-running', ...packing, ...withKey());
      expect(text).toContain(core(image));
      images.push(image);
      await target.goesOn();
    }
    const salts = await Promise.all(images.map(imageKey));
    expect(new Set(salts.map((salt) => salt.toString('hex'))).size).toBe(images.length);
    await target.kill();
    const restored = await restoreProgram(images[1]!, undefined, [...withKey(), '--concurrent']);
    const next = await checkpointAndEnd(restored, withKey());
    await restoreProgram(next, lastTick(restored.stdout), withKey());
  });

  it('neither key is in the image or in the program, whichever way the image is made', async () => {
    for (const packing of [[], ['--compression', 'lz4'], ['--leave-running']]) {
      const { target } = await startProgram('memory_kinds', variant);
      const image = join(makeDirectory(), 'image');
      const client = run(
        projectFile('native/build/warp-checkpoint'),
        [String(target.pid), '--to', image, '--encryption-key-env', 'IMAGE_KEY', ...packing],
        {
          environment: { IMAGE_KEY: KEY.toString('hex') },
        },
      );
      expect([(await client.ended).code, client.stderr]).toEqual([0, '']);
      const needles = { ...forms('user', KEY), ...forms('image', await imageKey(image)), variable: Buffer.from('IMAGE_KEY') };
      if (packing[0] === '--leave-running') {
        expect(inMemory(target.pid, needles)).toEqual([]);
        await target.goesOn();
        await target.kill();
      }
      const open = join(makeDirectory(), 'decrypted');
      await tool('decrypt', image, '-o', open, ...withKey());
      const plain = join(makeDirectory(), 'plain');
      await tool(...(packing[0] === '--compression' ? ['decompress', open, '-o', plain] : ['compress', open, '-o', plain]));
      for (const file of [image, open, plain]) {
        const bytes = readFileSync(core(file));
        expect(
          Object.keys(needles).filter((name) => bytes.includes(needles[name as keyof typeof needles]!)),
          file,
        ).toEqual([]);
      }
    }
  });

  it('what is no key is refused before the program is touched, and nothing is left behind', async () => {
    const { target } = await startProgram('memory_kinds', variant);
    const image = join(makeDirectory(), 'image');
    for (const [flags, message] of [
      [['--encryption-key-file', '/nowhere/key'], /cannot read the key in \/nowhere\/key/],
      [['--encryption-key-env', 'NO_SUCH_KEY'], /variable NO_SUCH_KEY with the key is not set/],
      [['--encryption-key-file', writeKey('short')], /holds no key: it has 5 bytes/],
      [[...withKey(), '--encryption-key-env', 'K'], /give one/],
    ] as [string[], RegExp][]) {
      const client = run(projectFile('native/build/warp-checkpoint'), [String(target.pid), '--to', image, ...flags]);
      expect((await client.ended).code).toBe(2);
      expect(client.stderr).toMatch(message);
      expect(existsSync(image)).toBe(false);
    }
    await target.goesOn();
  });
});

describe('a key that `run` names', () => {
  it('with --checkpoint-when: the image is encrypted, the program never has the variable, --or-restore opens it', async () => {
    const image = join(makeDirectory(), 'image');
    const program = ['--', executable('fd_pipes', variant), makeDirectory()];
    const environment = { IMAGE_KEY: KEY.toString('hex') };
    const build = warpTool(['run', '--image', image, '--checkpoint-when', 'true', '--encryption-key-env', 'IMAGE_KEY', ...program], {
      environment,
    });
    expect([(await build.ended).code, build.stderr]).toEqual([137, expect.stringContaining('ready to restore')]);
    const open = join(makeDirectory(), 'decrypted');
    await tool('decrypt', image, '-o', open, ...withKey());
    const needles = { ...forms('user', KEY), ...forms('image', await imageKey(image)), variable: Buffer.from('IMAGE_KEY') };
    for (const file of [image, open])
      expect(
        Object.values(needles).some((needle) => readFileSync(core(file)).includes(needle)),
        file,
      ).toBe(false);
    for (const [flags, options] of [
      [withKey(), {}],
      [['--encryption-key-env', 'IMAGE_KEY'], { environment }],
    ] as [string[], object][]) {
      const restored = warpTool(['run', '--or-restore', image, ...flags, ...program], options);
      await restored.output(/^restored ok$/m);
      expect(restored.stderr).toBe('');
      await restored.kill();
    }
    const started = warpTool(['run', '--or-restore', image, ...program]);
    await started.output(/is started: .* is encrypted: give its key/, 'stderr');
  });

  it.skipIf(!command('python3'))(
    'holds for what the program asks for itself, generation after generation, and is in no memory',
    async () => {
      const directory = makeDirectory();
      const code = `
import ctypes, sys, time
for generation in range(3):
  result = ctypes.CDLL(None).warp_checkpoint(f"{sys.argv[1]}/{generation}".encode(), 1)
  print("generation", generation, "result", result, flush=True)
  while generation < 2 and result == 0: time.sleep(1)
time.sleep(600)`;
      let program = warpTool(['run', ...withKey(), '--', command('python3')!, '-c', code, directory]);
      for (const generation of [0, 1]) {
        await program.output(new RegExp(`^generation ${generation} result 0$`, 'm'));
        const image = join(directory, String(generation));
        const needles = { ...forms('user', KEY), ...forms('image', await imageKey(image)) };
        expect(inMemory(program.pid, needles)).toEqual([]);
        await program.kill();
        program = restore(image, withKey());
        await program.output(new RegExp(`^generation ${generation} result 1$`, 'm'));
      }
      await program.output(/^generation 2 result 0$/m);
      await tool('validate', join(directory, '2'), ...withKey());
    },
  );

  it('is refused at once where it is none, or would be in the program', async () => {
    for (const [flags, message] of [
      [['--encryption-key-file', '/nowhere/key'], /cannot read the key in \/nowhere\/key/],
      [['--encryption-key-file', writeKey('short')], /holds no key/],
      [['--encryption-key-file', '/dev/stdin'], /this is no regular file/],
      [['--encryption-key-env', 'IMAGE_KEY'], /a program that checkpoints itself would have the key in its memory/],
    ] as [string[], RegExp][]) {
      const program = warpTool(['run', ...flags, '--', '/bin/true'], { environment: { IMAGE_KEY: KEY.toString('hex') } });
      expect((await program.ended).code).toBe(2);
      expect(program.stderr).toMatch(message);
    }
  });
});

describe('refused, with one line', () => {
  let image: string;
  beforeAll(async () => {
    const { target } = await startProgram('memory_kinds', variant);
    const plain = await checkpointAndEnd(target);
    const packed = join(makeDirectory(), 'packed');
    await tool('compress', plain, '-o', packed);
    image = await encrypted(packed);
  });

  async function refusal(path: string, args: string[], environment: Record<string, string> = {}): Promise<string> {
    const restored = restore(path, args, { environment });
    // A program that comes back all the same would not end.
    void restored.output(/^restored ok$/m).then(
      () => restored.kill(),
      () => {},
    );
    const { code, signal } = await restored.ended;
    expect([code, signal, restored.stdout]).toEqual([2, null, '']);
    expect(restored.stderr).toMatch(/^warp-restore: [^\n]*\n$/);
    return restored.stderr;
  }

  it('no key, another key, no such file or variable, what is no key', async () => {
    expect(await refusal(image, [])).toMatch(/core\.img: it is encrypted: give its key with --encryption-key-file or --encryption-key-env/);
    expect(await refusal(image, ['--encryption-key-file', writeKey(randomBytes(32))])).toMatch(
      /encrypted with another key, or changed on purpose: give the right key/,
    );
    expect(await refusal(image, ['--encryption-key-file', '/nowhere/key'])).toMatch(/cannot read the key in \/nowhere\/key: No such file/);
    expect(await refusal(image, ['--encryption-key-env', 'IMAGE_KEY'])).toMatch(/variable IMAGE_KEY with the key is not set/);
    const wrong = 'Geheim'.repeat(8);
    for (const line of [
      await refusal(image, ['--encryption-key-env', 'IMAGE_KEY'], { IMAGE_KEY: wrong }),
      await refusal(image, ['--encryption-key-file', writeKey(wrong)]),
    ]) {
      expect(line).toMatch(/holds no key: it has 48 bytes, and needed are .*64 hexadecimal digits or base64 of 32 bytes/);
      expect(line).not.toContain('Geheim');
    }
    expect(await refusal(image, [...withKey(), '--encryption-key-env', 'X'])).toMatch(/name a key each: give one/);
  });

  it('every form of the key is taken that warp-tool takes', async () => {
    const base64 = KEY.toString('base64');
    for (const form of [
      KEY.toString('hex'),
      `\n ${KEY.toString('hex').toUpperCase()}\r\n`,
      base64,
      base64.slice(0, -1),
      KEY.toString('base64url'),
    ]) {
      await (await restoreProgram(image, undefined, ['--encryption-key-file', writeKey(form), '--no-concurrent'])).kill();
      await (await restoreProgram(image, undefined, ['--encryption-key-env', 'K', '--no-concurrent'], { environment: { K: form } })).kill();
    }
  });

  /** Where the payload of one of the open notes begins. */
  function payload(type: number): number {
    const bytes = readFileSync(core(image));
    for (let at = Number(bytes.readBigUInt64LE(64 + 48)); ;) {
      const begin = at + 12 + Math.ceil(bytes.readUInt32LE(at) / 4) * 4;
      if (bytes.readUInt32LE(at + 8) === type) return begin;
      at = begin + Math.ceil(bytes.readUInt32LE(at + 4) / 4) * 4;
    }
  }

  /** A copy with some bytes changed, and hashes made right where that can be done without the key. */
  async function changed(change: (bytes: Buffer) => void, rehashed: boolean): Promise<string> {
    const directory = makeDirectory();
    const bytes = readFileSync(core(image));
    change(bytes);
    if (rehashed) {
      bytes.writeBigUInt64LE(0n, 64 + 24);
      bytes.writeBigUInt64LE(await xxh64(bytes.subarray(0, Number(bytes.readBigUInt64LE(64 + 16)))), 64 + 24);
    }
    writeFileSync(core(directory), bytes);
    return directory;
  }

  it('changes of the metadata at any place, with its hash made right', async () => {
    const facts = { image: payload(0x57415201), encryption: payload(0x57415219), chunks: payload(0x57415217) };
    const flip = (at: number) => (bytes: Buffer) => void (bytes[at]! ^= 1);
    const places: [string, number][] = [
      ['content size of the anchor', 64 + 40],
      ['image id', facts.image + 16],
      ['time', facts.image + 16 + 40],
      ['salt', facts.encryption + 16 + 10],
      ['start of what is sealed', facts.encryption + 16 + 48],
      ['end of what is sealed', facts.encryption + 16 + 48 + 5000],
      ['content offset of a chunk', facts.chunks + 16 + 1],
      ['content size of a chunk', facts.chunks + 16 + 17],
      ['flags of a chunk', facts.chunks + 16 + 40],
    ];
    for (const [what, at] of places) {
      for (const flags of [['--no-concurrent'], ['--concurrent']]) {
        expect(await refusal(await changed(flip(at), true), [...withKey(), ...flags]), what).toMatch(/another key, or changed on purpose/);
      }
      expect(await refusal(await changed(flip(at), false), withKey()), what).toMatch(/the metadata .* has hash/);
    }
    for (const at of [8, 20])
      // file offset and stored size are not sealed: what stands elsewhere does not fit
      expect(await refusal(await changed(flip(facts.chunks + 16 + at), true), [...withKey(), '--verify'])).toMatch(
        /chunk 0 .*(?:does not fit|cut off|impossible)/,
      );
  });

  it('a changed chunk, at its start, its end and in its tag; exchanged chunks; a cut file', async () => {
    const chunks = await withImage(core(image), (file) => {
      const index = file.outermost.chunks;
      return Promise.resolve(Array.from({ length: index.length }, (_, at) => ({ at: index.fileOffset(at), size: index.storedSize(at) })));
    });
    const [first, last] = [chunks[0]!, chunks.at(-1)!];
    for (const at of [first.at, first.at + first.size - 17, first.at + first.size - 1, last.at + 3]) {
      const line = await refusal(await changed((bytes) => void (bytes[at]! ^= 0x80), false), [...withKey(), '--verify']);
      expect(line).toMatch(
        /chunk \d+ \(offset 0x[0-9a-f]+, \d+ bytes.*\) does not fit its tag: it was changed, or is of another image: the image is damaged/,
      );
    }
    // While the program runs, and whoever needs it: the process ends with one line, and never sees it.
    const damaged = await changed((bytes) => chunks.forEach(({ at }) => void (bytes[at]! ^= 4)), false);
    for (const faults of ['userfaultfd-user', 'signals']) {
      const line = await refusal(damaged, [...withKey(), '--concurrent', '--load-faults', faults]);
      expect(line).toMatch(/chunk \d+ .* does not fit its tag/);
    }
    expect(await refusal(await changed((bytes) => void bytes.fill(0, last.at), false), [...withKey(), '--verify'])).toMatch(
      /does not fit its tag/,
    );
    const cut = makeDirectory();
    writeFileSync(core(cut), readFileSync(core(image)).subarray(0, last.at + 5));
    expect(await refusal(cut, withKey())).toMatch(/truncated/);
  });
});
