import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm, rmdir, stat, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Failure, systemErrorReason } from '../failure.js';
import type { ByteSource } from './source.js';

const WINDOW = 4 << 20;
const BLOCK = 64 << 10;
const ZEROS = Buffer.alloc(BLOCK);

/**
 * The file that an output argument means: images of ours go into a directory as core.img, unless the name ends in `.img`; foreign cores are files.
 */
export async function outputPath(argument: string, ours: boolean): Promise<string> {
  const isDirectory = (await stat(argument).catch(() => null))?.isDirectory() ?? false;
  if (isDirectory || (ours && !argument.endsWith('.img'))) return join(argument, 'core.img');
  return argument;
}

/** Fails where `path` is the file of `source` itself. */
export async function refuseSameFile(path: string, source: ByteSource): Promise<void> {
  if (source.path === undefined) return;
  const [output, input] = await Promise.all([path, source.path].map((name) => stat(name).catch(() => null)));
  if (output && input && output.dev === input.dev && output.ino === input.ino)
    throw new Failure(`${path} is the image itself; give another output`);
}

/** A file that is there in full or not at all, readable by its owner only: images hold secrets. */
export class ImageWriter {
  private constructor(
    private readonly handle: FileHandle,
    /** The file that is being written, under the name that it has until it is complete. */
    readonly path: string,
  ) {}

  /** Gives a writer to `work` and puts the file in its place when that has succeeded. */
  static async write<T>(path: string, work: (writer: ImageWriter) => Promise<T>): Promise<T> {
    const existing = await stat(path).catch(() => null);
    // A device or a pipe must not be replaced by a file of its name.
    if (existing && !existing.isFile()) throw new Failure(`cannot write ${path}: it is there and no regular file; choose another place`);
    const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
    let writer: ImageWriter | undefined;
    let made: string | undefined;
    try {
      made = await makeDirectory(dirname(path));
      writer = new ImageWriter(await open(temporary, 'wx', 0o600), temporary);
      const result = await work(writer);
      await writer.handle.sync();
      await writer.handle.close();
      await rename(temporary, path);
      await syncDirectory(dirname(path));
      return result;
    } catch (error) {
      await writer?.handle.close().catch(() => {});
      await rm(temporary, { force: true }).catch(() => {});
      if (made !== undefined) await rmdir(dirname(path)).catch(() => {});
      if (error instanceof Failure || !(error as NodeJS.ErrnoException).code) throw error;
      throw new Failure(`cannot write ${path}: ${systemErrorReason(error)}`, { cause: error });
    }
  }

  /** For native code that writes many pieces at once. */
  get fd(): number {
    return this.handle.fd;
  }

  async write(offset: bigint, bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.handle.write(bytes, done, bytes.length - done, Number(offset) + done);
      done += bytesWritten;
    }
  }

  /** Like write, but blocks of zeros are left out: holes, where the file is as long as it will be and nothing was there before. */
  async writeSparse(offset: bigint, piece: Buffer): Promise<void> {
    for (let from = 0; from < piece.length;) {
      let to = from;
      while (to < piece.length && !isZero(piece, to)) to = Math.min(piece.length, to + BLOCK);
      if (to > from) await this.write(offset + BigInt(from), piece.subarray(from, to));
      from = to;
      while (from < piece.length && isZero(piece, from)) from = Math.min(piece.length, from + BLOCK);
    }
  }

  async truncate(size: bigint): Promise<void> {
    await this.handle.truncate(Number(size));
  }

  /** Makes the file a copy of `source`. `progress` is told bytes. */
  async copyAll(source: ByteSource, progress: (done: number, total: number) => void): Promise<void> {
    await this.truncate(source.size);
    await this.copy(source, 0n, source.size, 0n, (done) => progress(done, Number(source.size)));
  }

  /** Copies bytes from `start` up to `end` of `source`, to places that are `moved` bytes further on. Blocks of zeros become holes. */
  async copy(source: ByteSource, start: bigint, end: bigint, moved: bigint, progress: (done: number) => void): Promise<void> {
    const buffer = Buffer.allocUnsafe(WINDOW);
    for (let at = start; at < end;) {
      const piece = buffer.subarray(0, Number(end - at < BigInt(WINDOW) ? end - at : BigInt(WINDOW)));
      await source.readInto(at, piece);
      await this.writeSparse(at + moved, piece);
      at += BigInt(piece.length);
      progress(Number(at - start));
    }
  }
}

/**
 * Makes a directory and those above it that are missing; returns the highest that was made. (Node.js's own way of doing so never ends in /proc, where
 * a directory is missing, and so is one that was just made.)
 */
export async function makeDirectory(path: string, mode = 0o777): Promise<string | undefined> {
  const there = await stat(path).catch(() => null);
  if (there?.isDirectory()) return undefined;
  const above = dirname(path) === path ? undefined : await makeDirectory(dirname(path), mode);
  await mkdir(path, mode).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  return above ?? path;
}

/** Makes a rename durable. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  await handle.sync().finally(() => handle.close());
}

function isZero(piece: Buffer, at: number): boolean {
  const length = Math.min(BLOCK, piece.length - at);
  return piece.compare(ZEROS, 0, length, at, at + length) === 0;
}
