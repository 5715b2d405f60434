import { closeSync, fstatSync, openSync, read, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Failure, ImageError, systemErrorReason } from '../failure.js';

// FileHandle.read of Node.js 20 silently takes a bigint position for "here"; fs.read does not.
const pread = promisify(read) as (
  fd: number,
  buffer: Buffer,
  at: number,
  length: number,
  position: bigint,
) => Promise<{ bytesRead: number }>;

/** Where an image's bytes come from. Offsets are bytes from the image's start and may pass 4 GiB and 2^53. */
export interface ByteSource {
  /** What to call it in messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: bigint;
  /** Exactly `length` bytes at `offset`; an ImageError when the source ends before. */
  read(offset: bigint, length: number): Promise<Buffer>;
  /** Like read, into memory that the caller uses again and again: fresh pages for each piece would cost more than reading. */
  readInto(offset: bigint, buffer: Buffer): Promise<void>;
  close(): Promise<void>;
}

/** A regular file, read with pread(2): opening it costs the same whatever its size. */
export class FileSource implements ByteSource {
  private constructor(
    readonly name: string,
    readonly size: bigint,
    private readonly fd: number,
  ) {}

  static async open(path: string): Promise<FileSource> {
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch (error) {
      throw new Failure(`cannot open ${path}: ${systemErrorReason(error)}`, { cause: error });
    }
    const status = fstatSync(fd, { bigint: true });
    if (!status.isFile()) {
      closeSync(fd);
      throw new Failure(`cannot read ${path}: it is not a regular file; give a core file or a directory that holds core.img`);
    }
    return new FileSource(path, status.size, fd);
  }

  async read(offset: bigint, length: number): Promise<Buffer> {
    this.checkRange(offset, length);
    const buffer = Buffer.allocUnsafe(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    const { length } = buffer;
    this.checkRange(offset, length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await pread(this.fd, buffer, done, length - done, offset + BigInt(done));
      if (bytesRead === 0) {
        throw new ImageError(
          this.name,
          offset + BigInt(done),
          'the file became shorter while it was read',
          'let its writer finish, then try again',
        );
      }
      done += bytesRead;
    }
  }

  // Before the buffer is made: a damaged file asks for lengths that no memory has.
  private checkRange(offset: bigint, length: number): void {
    if (offset >= 0n && offset + BigInt(length) <= this.size) return;
    throw new ImageError(
      this.name,
      offset,
      `${length} bytes are needed, but the file ends at ${this.size}`,
      'the file is truncated or damaged: copy it again or take a new checkpoint',
    );
  }

  async close(): Promise<void> {
    closeSync(this.fd);
  }
}

/** Whole content in memory: what tests build, and parts that were fetched. */
export class BufferSource implements ByteSource {
  readonly size: bigint;

  constructor(
    readonly name: string,
    private readonly content: Buffer,
  ) {
    this.size = BigInt(content.length);
  }

  async read(offset: bigint, length: number): Promise<Buffer> {
    if (offset < 0n || offset + BigInt(length) > this.size) {
      throw new ImageError(
        this.name,
        offset,
        `${length} bytes are needed, but the file ends at ${this.size}`,
        'the file is truncated or damaged',
      );
    }
    return this.content.subarray(Number(offset), Number(offset) + length);
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    (await this.read(offset, buffer.length)).copy(buffer);
  }

  async close(): Promise<void> {}
}

/** The core file that an IMAGE argument means: the file itself, or `core.img` in a directory (the CRaC convention). */
export async function resolveImage(argument: string): Promise<string> {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(argument);
  if (scheme) {
    throw new Failure(
      `${argument}: images in object storage (${scheme[1]}://) cannot be read by this version; copy the image to a local file first`,
    );
  }
  let isDirectory: boolean;
  try {
    isDirectory = statSync(argument).isDirectory();
  } catch (error) {
    throw new Failure(`cannot open ${argument}: ${systemErrorReason(error)}`, { cause: error });
  }
  if (!isDirectory) return argument;
  const path = join(argument, 'core.img');
  try {
    statSync(path);
  } catch (error) {
    throw new Failure(`${argument} holds no core.img; give a directory that \`warp-tool checkpoint PID --to DIR\` wrote, or a core file`, {
      cause: error,
    });
  }
  return path;
}
