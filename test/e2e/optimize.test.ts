/** `optimize`: images in the order in which their programs need them. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { optimisationOf } from '../../src/elf/accesses.js';
import { type Image, withImage } from '../../src/elf/image.js';
import { schemas } from '../../src/schemas/index.js';
import { firstVariant, restoreProgram, startProgram } from './support/c-programs.js';
import { makeDirectory, node, projectFile } from './support/host.js';
import { writeKey } from './support/keys.js';
import { checkpointAndEnd, killAll, type Program, restore, run, start, warpTool } from './support/program.js';

afterEach(killAll);

const compressed = ['--compression', 'lz4', '--chunk-size', '64'];

interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

async function finished(program: Program): Promise<Ran> {
  const { code } = await program.ended;
  return { code, stdout: program.stdout, stderr: program.stderr };
}

const optimize = (...args: string[]): Promise<Ran> => finished(warpTool(['optimize', ...args]));

/** A copy of an image that a test may change. */
async function copyOf(image: string): Promise<string> {
  const directory = makeDirectory();
  expect(await run('/bin/cp', ['-r', image, directory]).ended).toMatchObject({ code: 0 });
  return join(directory, 'image');
}

/** The content offset of an address. */
function contentOffset(image: Image, address: bigint): bigint {
  const segment = image.memory.segments.find((one) => one.address <= address && address < one.address + one.memorySize)!;
  return segment.offset + (address - segment.address);
}

/** What of an image must stay: its content, cut as it was. */
const contentOf = (path: string): Promise<unknown[]> =>
  withImage(path, (image) =>
    [...image.table('chunks')].map(({ content_offset: offset, content_size: size, content_hash: hash }) => ({ offset, size, hash })),
  );

/** How chunks are stored, wherever that is. */
const storageOf = (path: string): Promise<unknown[]> =>
  withImage(path, (image) => [...image.table('chunks')].map(({ file_offset: _, ...rest }) => rest));

interface Statistics {
  direct_bytes: number;
  direct_mappings: number;
}

/** What a restore with `args` tells of how memory came. */
async function statisticsOf(image: string, ...args: string[]): Promise<Statistics> {
  const path = join(makeDirectory(), 'statistics');
  await (await restoreProgram(image, undefined, [...args, '--stats', path])).kill();
  return JSON.parse(readFileSync(path, 'utf8')) as Statistics;
}

describe('a program that needs eight blocks of 256', () => {
  let image: string;
  let needed: bigint[];
  let scratch: string;
  let until: string[];

  beforeAll(async () => {
    const started = await startProgram('memory_accesses', firstVariant());
    ({ scratch } = started);
    image = await checkpointAndEnd(started.target, compressed);
    needed = [...started.target.stdout.matchAll(/^needs (0x[0-9a-f]+)$/gm)].map(([, address]) => BigInt(address!));
    expect(needed).toHaveLength(8);
    // Succeeds once for each time that the program has come so far.
    until = ['--until', `rm ${join(scratch, 'done')} 2>/dev/null`];
  });

  // Restores of earlier tests leave it behind.
  beforeEach(() => rmSync(join(scratch, 'done'), { force: true }));

  it('has them first in the file, in that order; all else is as it was', async () => {
    const optimised = join(makeDirectory(), 'optimised');
    const before = readFileSync(join(image, 'core.img'));
    const { code, stdout, stderr } = await optimize(image, '--runs', '2', ...until, '-o', optimised, '--json');
    expect([code, stderr]).toEqual([0, '']);
    const document = JSON.parse(stdout) as { hot_chunks: number; ended_by: string[] };
    const check = new Ajv2020({ strict: false }).compile(schemas['optimize']!.json);
    expect(check(document), JSON.stringify(check.errors)).toBe(true);
    expect(document).toMatchObject({ image: join(optimised, 'core.img'), runs: 2, ended_by: ['condition', 'condition'] });
    expect(readFileSync(join(image, 'core.img')).equals(before)).toBe(true);
    expect(await contentOf(optimised)).toEqual(await contentOf(image));

    await withImage(optimised, (opened) => {
      const chunks = [...opened.table('chunks')];
      const offsets = needed.map((address) => contentOffset(opened, address));
      const places = offsets.map((offset) =>
        chunks.find((one) => one.content_offset <= offset && offset < one.content_offset + BigInt(one.content_size))!,
      );
      expect(places.map((one) => one.file_offset)).toEqual(places.map((one) => one.file_offset).toSorted((a, b) => Number(a - b)));
      const accesses = [...opened.table('accesses')];
      expect(accesses.length).toBe(document.hot_chunks);
      expect(accesses.length).toBeLessThan(chunks.length / 2);
      // The hot ones are in front of all others.
      const hot = new Set(accesses.map(({ chunk }) => chunk));
      const hotPlaces = new Set(accesses.map(({ chunk }) => chunks[chunk]!.file_offset));
      const lastHot = [...hotPlaces].reduce((a, b) => (a > b ? a : b));
      for (const [index, chunk] of chunks.entries())
        if (!hot.has(index) && !hotPlaces.has(chunk.file_offset)) expect(chunk.file_offset).toBeGreaterThan(lastHot);
      expect([...hotPlaces]).toEqual([...hotPlaces].toSorted((a, b) => Number(a - b)));
      for (const place of places) expect(accesses.find(({ chunk }) => chunks[chunk] === place)?.runs).toBe(2);
      const first = [...hotPlaces][0]!;
      expect(first).toBe(opened.anchor!.metadata_size);
      const times = accesses.filter(({ runs }) => runs === 2).map(({ median_ns: time }) => time);
      expect(times).toEqual(times.toSorted((a, b) => Number(a - b)));
      expect(optimisationOf(opened)).toMatchObject({ runs: 2, chunks: accesses.length });
    });
    const show = await finished(warpTool(['show', optimised]));
    expect(show.stdout).toMatch(/^optimised +2 runs needed \d+ chunks, /m);
    expect(JSON.parse((await finished(warpTool(['show', optimised, '--json']))).stdout)).toMatchObject({
      content: { optimisation: { runs: 2 } },
    });
    expect(JSON.parse((await finished(warpTool(['show', image, '--json']))).stdout)).toMatchObject({ content: { optimisation: null } });
  });

  it('comes back in every way of restoring, and is optimised again in place', async () => {
    const copy = await copyOf(image);
    const { mode, uid } = statSync(join(copy, 'core.img'));
    for (let round = 0; round < 2; round++) {
      const { code, stderr } = await optimize(copy, '--runs', '1', ...until);
      expect([code, stderr]).toEqual([0, '']);
      expect(readdirSync(copy)).toEqual(['core.img']);
      expect(statSync(join(copy, 'core.img'))).toMatchObject({ mode, uid });
      expect(await contentOf(copy)).toEqual(await contentOf(image));
      expect(await withImage(copy, (opened) => optimisationOf(opened)?.runs)).toBe(1);
    }
    for (const args of [
      ['--no-concurrent', '--verify'],
      ['--concurrent', '--load-faults', 'signals'],
      ['--concurrent', '--load-faults', 'userfaultfd-user'],
      ['--concurrent', '--load-faults', 'auto', '--load-concurrency', '0'],
    ])
      await (await restoreProgram(copy, undefined, args)).kill();
  });

  it('asks for these blocks in the order of the file then', async () => {
    const copy = await copyOf(image);
    expect(await optimize(copy, '--runs', '1', ...until, '--load-faults', 'signals')).toMatchObject({ code: 0, stderr: '' });
    const trace = join(makeDirectory(), 'trace');
    const restored = await restoreProgram(copy, undefined, [
      '--concurrent',
      '--no-direct-map',
      '--load-faults',
      'signals',
      '--load-concurrency',
      '0',
      '--load-trace',
      trace,
    ]);
    await restored.kill();
    const events = readFileSync(trace);
    const asked: [bigint, bigint][] = [];
    for (let at = 0; at + 24 <= events.length; at += 24) asked.push([events.readBigUInt64LE(at), events.readBigUInt64LE(at + 8)]);
    await withImage(copy, (opened) => {
      // The engine's own threads ask for some too, in an order that varies: the program's eight blocks have one.
      const chunks = [...opened.table('chunks')];
      const holding = needed.map((address) => {
        const offset = contentOffset(opened, address);
        return chunks.find((one) => one.content_offset <= offset && offset < one.content_offset + BigInt(one.content_size))!;
      });
      const places = new Map(holding.map((chunk) => [chunk.content_offset, chunk.file_offset]));
      const inOrder = asked
        .filter(([offset, time]) => time !== 0n && places.has(offset))
        .toSorted((a, b) => Number(a[1] - b[1]))
        .map(([offset]) => places.get(offset)!);
      expect(inOrder).toHaveLength(places.size);
      expect(inOrder).toEqual(inOrder.toSorted((a, b) => Number(a - b)));
    });
  });

  it('has them mapped by a restore', async () => {
    const copy = await copyOf(image);
    expect(await optimize(copy, '--runs', '1', ...until)).toMatchObject({ code: 0, stderr: '' });
    const mapped = await withImage(copy, (opened) => {
      const chunks = opened.table('chunks');
      for (const { chunk } of opened.table('accesses')) {
        const record = chunks.get(chunk);
        expect(record).toMatchObject({ flags: 0, stored_size: record.content_size, stored_hash: record.content_hash });
        expect(record.file_offset % 4096n).toBe(0n);
      }
      return needed.reduce((sum, address) => {
        const record = chunks.get(opened.chunks.find(Number(contentOffset(opened, address))));
        return sum + record.content_size;
      }, 0);
    });
    for (const mode of ['signals', 'userfaultfd-user']) {
      const statistics = await statisticsOf(copy, '--concurrent', '--load-faults', mode);
      expect(statistics.direct_bytes).toBeGreaterThanOrEqual(mapped);
    }
    expect(await statisticsOf(copy, '--concurrent', '--no-direct-map')).toMatchObject({ direct_bytes: 0, direct_mappings: 0 });
    // Memory that came that way can be checkpointed again, and given back.
    const restored = await restoreProgram(copy, undefined, ['--concurrent']);
    const second = await checkpointAndEnd(restored, compressed);
    await (await restoreProgram(second, undefined, ['--no-concurrent', '--verify'])).kill();
  });

  it('has them compressed where that is asked for', async () => {
    const copy = await copyOf(image);
    expect(await optimize(copy, '--runs', '1', ...until, '--keep-compressed')).toMatchObject({ code: 0, stderr: '' });
    expect(await storageOf(copy)).toEqual(await storageOf(image));
    expect(await withImage(copy, (opened) => optimisationOf(opened)?.runs)).toBe(1);
  });

  it('is left alone, with nothing beside it, when the time is over, the program cannot be restored or somebody interrupts', async () => {
    const copy = await copyOf(image);
    const path = join(copy, 'core.img');
    const before = readFileSync(path);
    const unharmed = (): void => {
      expect(readFileSync(path).equals(before)).toBe(true);
      expect(readdirSync(copy)).toEqual(['core.img']);
    };
    expect(await optimize(copy, '--runs', '2', '--until', 'false', '--timeout', '1')).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(/^warp-tool: training run 1 of 2: --until false did not hold within 1 seconds; [^\n]+\n$/),
    });
    unharmed();

    const stuck = join(makeDirectory(), 'pid');
    const tool = warpTool(['optimize', copy, '--runs', '1', '--timeout', '600', '--until', `echo $PPID $$ >${stuck}; sleep 1000`]);
    while (!existsSync(stuck) || readFileSync(stuck, 'utf8') === '') await new Promise((resolve) => setTimeout(resolve, 10));
    const left = processesOf(tool.pid);
    expect(left.length).toBeGreaterThanOrEqual(2);
    tool.child.kill('SIGTERM');
    expect(await tool.ended).toMatchObject({ signal: 'SIGTERM' });
    expect(tool.stderr).toBe('warp-tool: interrupted; nothing was left behind\n');
    // All have been killed; the last of them go when the kernel gets to it.
    while (left.some(isAlive)) await new Promise((resolve) => setTimeout(resolve, 10));
    unharmed();
  });
});

/** Whether a process is more than an entry that nobody has fetched yet. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Children of a process, and theirs. */
function processesOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  return children.flatMap((child) => [child, ...processesOf(child)]);
}

describe('an encrypted image', () => {
  const variable = ['--encryption-key-env', 'IMAGE_KEY'];
  const environment = { IMAGE_KEY: randomBytes(32).toString('hex') };
  let keyFlags: string[];
  let image: string;
  let scratch: string;
  let marker: Buffer;

  beforeAll(async () => {
    const key = Buffer.from(environment.IMAGE_KEY, 'hex');
    keyFlags = ['--encryption-key-file', writeKey(key)];
    const started = await startProgram('memory_accesses', firstVariant());
    ({ scratch } = started);
    image = await checkpointAndEnd(started.target, [...compressed, ...keyFlags]);
    marker = Buffer.from(scratch);
  });

  const opened = <T>(path: string, work: (image: Image) => T): Promise<T> =>
    withImage(path, work, { key: Buffer.from(environment.IMAGE_KEY, 'hex') });
  const salt = (path: string): Promise<Buffer> => withImage(path, (file) => file.table('encryption').get(0).salt);

  it('needs its key, and the right one; it is left alone without', async () => {
    const copy = await copyOf(image);
    const before = readFileSync(join(copy, 'core.img'));
    expect(await optimize(copy, '--runs', '1')).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^warp-tool: [^\n]*it is encrypted[^\n]*give its key with --encryption-key-file[^\n]*\n$/),
    });
    expect(await optimize(copy, '--runs', '1', '--encryption-key-file', writeKey(randomBytes(32)))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^warp-tool: [^\n]*it was encrypted with another key[^\n]*give the right key\n$/),
    });
    expect(readFileSync(join(copy, 'core.img')).equals(before)).toBe(true);
    expect(readdirSync(copy)).toEqual(['core.img']);
  });

  it('that is not compressed is refused: its chunks must lie as they do in memory', async () => {
    const { target } = await startProgram('memory_private', firstVariant());
    const plain = await checkpointAndEnd(target, keyFlags);
    expect(await optimize(plain, '--runs', '1', ...keyFlags)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^warp-tool: [^\n]*is not compressed; decrypt it, compress it [^\n]*and encrypt that\n$/),
    });
  });

  it('is encrypted anew with the same key, in the order of need, again and again', async () => {
    const copy = await copyOf(image);
    const salts = [await salt(copy)];
    // What a shell makes of `<(cat key)`: a pipe, which can be read once.
    const once = ['-c', 'exec "$@" --encryption-key-file <(cat "$0")', keyFlags[1]!, node(), projectFile('bin/run.js')];
    for (const flags of [keyFlags, variable, null]) {
      rmSync(join(scratch, 'done'), { force: true });
      const until = ['--until', `rm ${join(scratch, 'done')} 2>/dev/null`];
      const argv = ['optimize', copy, '--runs', flags ? '1' : '2', ...until, ...(flags ?? []), '--json'];
      const ran = flags ? warpTool(argv, { environment }) : run('/bin/bash', [...once, ...argv]);
      const { code, stdout, stderr } = await finished(ran);
      expect([code, stderr]).toEqual([0, '']);
      salts.push(await salt(copy));
      const validated = await finished(warpTool(['validate', copy, ...keyFlags]));
      expect([validated.code, validated.stderr]).toEqual([0, '']);
      const { hot_chunks: hot } = JSON.parse(stdout) as { hot_chunks: number };
      await opened(copy, (file) => {
        const accesses = [...file.table('accesses')];
        expect(accesses).toHaveLength(hot);
        // In the file as it is, encrypted, they are in front of all others, in their order.
        const { chunks } = file.outermost;
        const places = accesses.map(({ chunk }) => chunks.fileOffset(chunk));
        const others = Array.from({ length: chunks.length }, (_, chunk) => chunks.fileOffset(chunk)).filter(
          (place) => !places.includes(place),
        );
        expect(places).toEqual(places.toSorted((a, b) => a - b));
        expect(Math.min(...others)).toBeGreaterThan(places.at(-1)!);
      });
      expect(readFileSync(join(copy, 'core.img')).includes(marker)).toBe(false);
      expect(readdirSync(copy)).toEqual(['core.img']);
    }
    expect(new Set(salts.map((one) => one.toString('hex'))).size).toBe(4);
    const contents = await Promise.all(
      [copy, image].map((path) => opened(path, (file) => [...file.table('chunks')].map((one) => one.content_hash))),
    );
    expect(contents[0]).toEqual(contents[1]);
    for (const args of [
      ['--no-concurrent', '--verify'],
      ['--concurrent', '--load-faults', 'signals'],
      ['--concurrent', '--load-faults', 'userfaultfd-user'],
    ])
      await (await restoreProgram(copy, undefined, [...args, ...keyFlags])).kill();
  });
});

describe('what cannot be optimised', () => {
  it('is a plain image: the message names the command that compresses', async () => {
    const { target } = await startProgram('memory_private', firstVariant());
    const image = await checkpointAndEnd(target);
    expect(await optimize(image, '--runs', '1')).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^warp-tool: [^\n]*it is not compressed[^\n]*warp-tool compress[^\n]*\n$/),
    });
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

it('a Node.js server, until it answers', async () => {
  const port = await freePort();
  const server = start(node(), [
    '-e',
    `require('http').createServer((_, response) => response.end('here')).listen(${port}, '127.0.0.1', () => console.log('listening'))`,
  ]);
  await server.output(/^listening$/m);
  const image = await checkpointAndEnd(server, ['--compression', 'lz4', '--chunk-size', '16']);
  const get = `fetch('http://127.0.0.1:${port}').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))`;
  const { code, stdout, stderr } = await optimize(image, '--runs', '2', '--timeout', '300', '--until', `${node()} -e "${get}"`, '--json');
  expect([code, stderr]).toEqual([0, '']);
  expect(JSON.parse(stdout)).toMatchObject({ runs: 2, ended_by: ['condition', 'condition'] });
  await withImage(image, (opened) => {
    const { stored } = optimisationOf(opened)!;
    expect(stored).toBeLessThan(opened.source.size - opened.anchor!.metadata_size);
  });
  restore(image);
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}`).catch(() => null);
    if (answer?.ok) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});
