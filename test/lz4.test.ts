/** The LZ4 codec: the C code under sanitizers beside liblz4, and the addon that gives it to JavaScript beside lz4js. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import xxhash from 'xxhash-wasm';
import { nativeFile } from '../src/engine/native.js';

interface Codec {
  compress(buffer: Buffer, level: number): Promise<Buffer | null>;
  decompress(buffer: Buffer, size: number): Promise<Buffer>;
  hash(buffer: Buffer): Promise<bigint>;
}

const require = createRequire(import.meta.url);
const codec = require(nativeFile('codec.node')) as Codec;
const lz4js = require('lz4js') as {
  decompressBlock(from: Uint8Array, to: Uint8Array, start: number, length: number, at: number): number;
};
const root = fileURLToPath(new URL('..', import.meta.url));

it('round trips, fits, and never leaves its buffers, as liblz4 has it', ({ skip }) => {
  const directory = mkdtempSync(join(tmpdir(), 'warp-tool-lz4-'));
  try {
    const program = join(directory, 'lz4_check');
    const compiled = spawnSync(
      process.env['CC'] ?? 'cc',
      ['-std=gnu17', '-Wall', '-Wextra', '-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-o', program]
        .concat(join(root, 'test/native/lz4_check.c'), join(root, 'native/src/base/lz4.c'))
        .concat('-ldl'),
      { encoding: 'utf8' },
    );
    if (/cannot find -l(?:a|ub)san|libasan|libubsan/.test(compiled.stderr)) skip('this compiler has no sanitizers installed');
    expect(compiled.stderr).toBe('');
    const result = spawnSync(program, ['20000'], { encoding: 'utf8', env: { UBSAN_OPTIONS: 'print_stacktrace=1' }, timeout: 240_000 });
    if (result.stdout === 'no liblz4\n') skip('liblz4 is not installed');
    expect(`${result.stdout}${result.stderr}`).toMatch(
      /^\d{4} round trips, 20000 damaged blocks, [1-9]\d{3} of them taken as liblz4 takes them\n$/,
    );
    expect(result.status).toBe(0);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}, 300_000);

/** Of every size around the format's own borders, and of the kinds that memory is made of. */
const samples: Buffer[] = [
  ...[2, 11, 12, 13, 14, 64, 4096, 65_535, 65_536, 262_144].map((size) => Buffer.alloc(size)),
  ...[20, 300, 4096, 70_000, 1 << 20].map((size) => readFileSync(process.execPath).subarray(1 << 20, (1 << 20) + size)),
  Buffer.from('checkpoint and restore '.repeat(20_000)),
  Buffer.concat([randomBytes(5000), Buffer.alloc(5000, 'abc'), randomBytes(70_000), Buffer.alloc(70_000, 1)]),
];

it('gives blocks that lz4js decodes, at each level', async () => {
  for (const level of [1, 2, 5, 9]) {
    for (const content of samples) {
      const block = await codec.compress(content, level);
      if (block === null) {
        expect(content.length).toBeLessThan(21);
        continue;
      }
      expect(block.length).toBeLessThan(content.length);
      const decoded = Buffer.alloc(content.length);
      expect(lz4js.decompressBlock(block, decoded, 0, block.length, 0)).toBe(content.length);
      expect(decoded.equals(content)).toBe(true);
      expect((await codec.decompress(block, content.length)).equals(content)).toBe(true);
    }
  }
});

it('says what does not shrink, and refuses what is no block of that size', async () => {
  expect(await codec.compress(randomBytes(100_000), 1)).toBeNull();
  expect(await codec.compress(Buffer.alloc(0), 1)).toBeNull();
  const block = (await codec.compress(Buffer.alloc(1000, 'ab'), 1))!;
  await expect(codec.decompress(block, 999)).rejects.toThrow('damaged LZ4 block');
  await expect(codec.decompress(block, 1001)).rejects.toThrow('damaged LZ4 block');
  await expect(codec.decompress(block.subarray(0, -1), 1000)).rejects.toThrow('damaged LZ4 block');
  await expect(codec.decompress(Buffer.alloc(0), 0)).rejects.toThrow('damaged LZ4 block');
  expect(() => codec.decompress(block, -1)).toThrow(TypeError);
  expect(() => codec.compress(block, 0)).toThrow(TypeError);
  expect(() => codec.compress('text' as unknown as Buffer, 1)).toThrow(TypeError);
  expect(() => codec.hash(undefined as unknown as Buffer)).toThrow(TypeError);
});

it('hashes as XXH64 does', async () => {
  const { h64Raw } = await xxhash();
  for (const content of [Buffer.alloc(0), Buffer.from('a'), ...samples]) expect(await codec.hash(content)).toBe(h64Raw(content, 0n));
});
