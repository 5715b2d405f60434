/** Sizes in a file decide what is read at once: large ones that only a damaged or hostile file has are answered by one line, and cost no memory. */
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nativeFile } from '../src/engine/native.js';
import { removeDirectory, root, scratchDirectory } from './support/cores.js';
import { foreignCore, PAGE, sealMetadata, warpImage } from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const GIB = 1n << 30n;
/** Bytes that a command takes to say no: Node.js alone needs a third of it. */
const MOST = 200 << 20;
const hook = join(directory, 'hook.cjs');
const key = join(directory, 'key');
const peaks = join(directory, 'peaks');
const segments = [{ address: 0x5000_0000n, size: BigInt(PAGE), content: Buffer.alloc(PAGE, 'content') }];

beforeAll(() => {
  writeFileSync(key, Buffer.alloc(32, 1), { mode: 0o600 });
  writeFileSync(
    hook,
    "process.on('exit', () => require('node:fs').writeFileSync(process.env.PEAK_FILE, String(process.resourceUsage().maxRSS * 1024)));",
  );
});

/** A file of `size` bytes that begins with `start` and holds nothing else. */
function sparse(start: Buffer, size: bigint): string {
  const path = join(directory, 'large.img');
  const fd = openSync(path, 'w');
  ftruncateSync(fd, Number(size));
  writeSync(fd, start, 0, start.length, 0);
  closeSync(fd);
  return path;
}

interface Answer {
  status: number | null;
  stderr: string;
  stdout: string;
  peak: number;
}

function measured(command: string, ...argv: string[]): Answer {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--require', hook, join(root, 'bin/run.js'), command, ...argv], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], PEAK_FILE: peaks },
  });
  return { status, stdout, stderr, peak: Number(readFileSync(peaks, 'utf8')) };
}

const SEGMENT = 56;
const ofType = (image: Buffer, wanted: number): number => {
  for (let at = Number(image.readBigUInt64LE(32)); ; at += SEGMENT) if (image.readUInt32LE(at) === wanted) return at;
};

const HOSTILE: [string, () => Promise<string> | string, RegExp][] = [
  [
    'a note segment of 16 GiB in a core file of another writer',
    () => {
      const image = foreignCore({ segments });
      image.writeBigUInt64LE(16n * GIB, ofType(image, 4) + 32);
      return sparse(image, 17n * GIB);
    },
    /17179869184 bytes of notes are more than 268435456/,
  ],
  [
    'a note segment of 16 GiB in an image',
    async () => {
      const image = await warpImage({ segments });
      image.writeBigUInt64LE(16n * GIB, ofType(image, 4) + 32);
      return sparse(await sealMetadata(image), 17n * GIB);
    },
    /17179869184 bytes of notes are more than 268435456/,
  ],
  [
    'eighty note segments of 200 MiB',
    () => {
      const image = Buffer.alloc(2 * PAGE);
      foreignCore({}).copy(image, 0, 0, 64);
      image.writeUInt16LE(80, 56);
      for (let index = 0; index < 80; index++) {
        const at = 64 + index * SEGMENT;
        image.writeUInt32LE(4, at);
        image.writeBigUInt64LE(BigInt(2 * PAGE), at + 8);
        image.writeBigUInt64LE(200n << 20n, at + 32);
        image.writeBigUInt64LE(4n, at + 48);
      }
      // Each is one note, so that it is read and not searched for others.
      const path = sparse(image, GIB);
      const note = Buffer.alloc(16);
      note.writeUInt32LE(1, 0);
      note.writeUInt32LE((200 << 20) - 16, 4);
      const fd = openSync(path, 'r+');
      writeSync(fd, note, 0, note.length, 2 * PAGE);
      closeSync(fd);
      return path;
    },
    /419430400 bytes of notes are more than 268435456/,
  ],
  [
    'two thousand million segments',
    () => {
      const image = foreignCore({ extendedCount: true });
      image.writeUInt32LE(0x7fff_ffff, Number(image.readBigUInt64LE(40)) + 44);
      return sparse(image, 128n * GIB);
    },
    /2147483647 program headers are more than 4194304/,
  ],
];

describe.each(HOSTILE)('%s', (_, make, problem) => {
  it('is refused in one line, at no cost', async () => {
    const path = await make();
    for (const argv of [['show'], ['decode'], ['redact', '-o', join(directory, 'no')], ['compress', '-o', join(directory, 'no')]]) {
      const [command, ...flags] = argv as [string, ...string[]];
      const { status, stdout, stderr, peak } = measured(command, path, ...flags);
      expect([status, stdout], command).toEqual([2, '']);
      expect(stderr, command).toMatch(/^warp-tool: [^\n]*\n$/);
      expect(stderr, command).toMatch(problem);
      expect(peak, command).toBeLessThan(problem.source.startsWith('419') ? MOST + (200 << 20) : MOST);
    }
    const { status, stdout, peak } = measured('validate', path);
    expect([status, stdout]).toEqual([1, expect.stringMatching(problem)]);
    expect(peak).toBeLessThan(problem.source.startsWith('419') ? MOST + (200 << 20) : MOST);
    expect(readdirSync(directory)).not.toContain('no');
  });
});

describe.each([
  ['16 GiB', 16n * GIB],
  ['1 byte', 1n],
])('metadata of %s', (_, size) => {
  it('is refused by what reads all of it at once, and all else is shown', async () => {
    const image = await warpImage({ segments });
    image.writeBigUInt64LE(size, 64 + 16);
    const path = sparse(image, 17n * GIB);
    const problem = new RegExp(`metadata has 192 to 268435456 bytes, not ${size}`);
    for (const argv of [
      ['decode'],
      ['redact', '-o', join(directory, 'no')],
      ['compress', '-o', join(directory, 'no')],
      ['encrypt', '-o', join(directory, 'no'), '--encryption-key-file', key],
    ]) {
      const [command, ...flags] = argv as [string, ...string[]];
      const { status, stdout, stderr, peak } = measured(command, path, ...flags);
      expect([status, stdout], command).toEqual([2, '']);
      expect(stderr.replaceAll(/^warp-tool: warning: [^\n]*\n/gm, ''), command).toMatch(/^warp-tool: [^\n]*\n$/);
      expect(stderr, command).toMatch(problem);
      expect(peak, command).toBeLessThan(MOST);
    }
    const validated = measured('validate', path);
    expect([validated.status, validated.stdout]).toEqual([1, expect.stringMatching(problem)]);
    expect(validated.peak).toBeLessThan(MOST);
    expect(measured('show', path)).toMatchObject({ status: 0 });
    expect(readdirSync(directory)).not.toContain('no');
    const restored = spawnSync(nativeFile('warp-restore'), [path], { encoding: 'utf8' });
    expect([restored.status, restored.stderr]).toEqual([
      2,
      expect.stringMatching(/^warp-restore: [^\n]*metadata size \d+ is impossible[^\n]*\n$/),
    ]);
  });
});
