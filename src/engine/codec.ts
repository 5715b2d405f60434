import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { nativeFile, nativePath } from './native.js';

/** What native/src/node/codec.c does with chunks on threads of its own. A Buffer must not change until its promise is settled. */
export interface Codec {
  /** An LZ4 block, null when it would be no smaller. Levels 1 (fast) to 9 (small). */
  compress(buffer: Buffer, level: number): Promise<Buffer | null>;
  /** The `size` bytes that an LZ4 block holds. */
  decompress(buffer: Buffer, size: number): Promise<Buffer>;
  /** XXH64 with seed 0. */
  hash(buffer: Buffer): Promise<bigint>;
  /** Where in `buffer` a pattern of 1 to 4096 bytes begins: u32 each, ascending, overlapping; null for nowhere. */
  find(pattern: Buffer, buffer: Buffer): Promise<Buffer | null>;
  /** The same in `size` bytes from `offset` of the file `input`, counted from there. */
  findInFile(pattern: Buffer, input: number, offset: number, size: number): Promise<Buffer | null>;
  /**
   * Compares stretches of two files: three u64 each, the offset in `a`, that in `b` (2^64-1 for zeros) and the size, aligned to 8. Resolves to pairs of
   * u32 for each 4096 bytes that differ: which stretch, and where in it they begin; null where nothing differs.
   */
  compare(stretches: Buffer, a: number, b: number): Promise<Buffer | null>;
  /** Reads, decodes and checks the chunk of a record, which is aligned to 8; resolves to an `enum chunk_status`, see chunk-work.ts. */
  load(record: Buffer, buffer: Buffer, input: number): Promise<number>;
  /** Whole files of chunks: see chunk-work.ts. */
  pack(records: Buffer, state: Buffer, input: number, output: number, threads: number, end: number, level: number): Promise<number>;
  unpack(records: Buffer, state: Buffer, input: number, output: number, threads: number, moved: number, unused: 0): Promise<null>;
}

let loaded: Codec | undefined;
let built: boolean | undefined;

export function codec(): Codec {
  loaded ??= createRequire(import.meta.url)(nativeFile('codec.node')) as Codec;
  return loaded;
}

/** The same where it was built; without it, images are read by what every Node.js has. */
export function codecIfBuilt(): Codec | null {
  built ??= existsSync(nativePath('codec.node'));
  return built ? codec() : null;
}
