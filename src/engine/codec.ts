import { createRequire } from 'node:module';
import { nativeFile } from './native.js';

/** What native/src/node/codec.c does with chunks on threads of its own. A Buffer must not change until its promise is settled. */
export interface Codec {
  /** An LZ4 block, null when it would be no smaller. Levels 1 (fast) to 9 (small). */
  compress(buffer: Buffer, level: number): Promise<Buffer | null>;
  /** The `size` bytes that an LZ4 block holds. */
  decompress(buffer: Buffer, size: number): Promise<Buffer>;
  /** XXH64 with seed 0. */
  hash(buffer: Buffer): Promise<bigint>;
  /** Whole files of chunks: see chunk-work.ts. */
  pack(records: Buffer, state: Buffer, input: number, output: number, threads: number, end: number, level: number): Promise<number>;
  unpack(records: Buffer, state: Buffer, input: number, output: number, threads: number, moved: number, unused: 0): Promise<null>;
}

let loaded: Codec | undefined;

export function codec(): Codec {
  loaded ??= createRequire(import.meta.url)(nativeFile('codec.node')) as Codec;
  return loaded;
}
