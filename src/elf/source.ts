import { closeSync, constants, existsSync, fstatSync, openSync, read, readSync, statSync } from 'node:fs';
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
  /** The local file that has these bytes, where there is one. */
  readonly path?: string;
  /** Exactly `length` bytes at `offset`; an ImageError when the source ends before. */
  read(offset: bigint, length: number): Promise<Buffer>;
  /** Like read, into memory that the caller uses again and again: fresh pages for each piece would cost more than reading. */
  readInto(offset: bigint, buffer: Buffer): Promise<void>;
  close(): Promise<void>;
}

/** Bytes that are read faster than another thread is asked to read them. */
const SMALL = 2 << 20;

/** A regular file, read with pread(2): opening it costs the same whatever its size. */
export class FileSource implements ByteSource {
  private closed = false;

  private constructor(
    readonly name: string,
    readonly size: bigint,
    /** For native code that reads many pieces at once, too. */
    readonly fd: number,
  ) {}

  static async open(path: string): Promise<FileSource> {
    let fd: number;
    try {
      // Not to wait for a writer where the path leads to a FIFO, whatever an image says about its files.
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
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

  get path(): string {
    return this.name;
  }

  /** Changes when the file's content does: size and time of the last write. */
  version(): string {
    const { size, mtimeNs } = fstatSync(this.fd, { bigint: true });
    return `${size} ${mtimeNs}`;
  }

  async read(offset: bigint, length: number): Promise<Buffer> {
    checkRange(this, offset, length);
    const buffer = Buffer.allocUnsafe(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    const { length } = buffer;
    checkRange(this, offset, length);
    let done = 0;
    while (done < length) {
      const position = offset + BigInt(done);
      const bytesRead =
        length <= SMALL
          ? readSync(this.fd, buffer, done, length - done, position)
          : (await pread(this.fd, buffer, done, length - done, position)).bytesRead;
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

  /** Of several that have it open as theirs, the first closes it. */
  async close(): Promise<void> {
    if (!this.closed) closeSync(this.fd);
    this.closed = true;
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
    checkRange(this, offset, length);
    return this.content.subarray(Number(offset), Number(offset) + length);
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    (await this.read(offset, buffer.length)).copy(buffer);
  }

  async close(): Promise<void> {}
}

/** For sources, before they make a buffer: a damaged file asks for lengths that no memory has. */
export function checkRange({ name, size }: ByteSource, offset: bigint, length: number): void {
  if (offset >= 0n && offset + BigInt(length) <= size) return;
  throw new ImageError(
    name,
    offset,
    `${length} bytes are needed, but the file ends at ${size}`,
    'the file is truncated or damaged: copy it again or take a new checkpoint',
  );
}

const openers = new Map<string, (url: string) => Promise<ByteSource>>();

/** Lets IMAGE arguments be URLs of a scheme (`s3`). The model reads local files only; what else there is comes from outside. */
export function registerScheme(scheme: string, opener: (url: string) => Promise<ByteSource>): void {
  openers.set(scheme, opener);
}

/** The scheme of a URL in lower case; null for a path. */
export function schemeOf(argument: string): string | null {
  return /^([a-z][a-z0-9+.-]*):\/\//i.exec(argument)?.[1]!.toLowerCase() ?? null;
}

/** Opens what an IMAGE argument means. */
export async function openSource(argument: string): Promise<ByteSource> {
  const scheme = schemeOf(argument);
  if (scheme === null) return FileSource.open(await resolveImage(argument));
  const opener = openers.get(scheme);
  if (!opener) throw new Failure(`${argument}: ${scheme}:// is not known; give a directory, a core file, or an s3:// or gs:// URL`);
  return opener(argument);
}

/** What is in a directory that another engine's checkpoint filled, and what to do about it; null when that is nothing known. */
function withoutImage(directory: string): string | null {
  const holds = (name: string): boolean => existsSync(join(directory, name));
  if (holds('inventory.img'))
    return "an image that CRIU made: `show`, `threads`, `maps` and `fds` tell what is in it, CRIU's `crit` the rest";
  if (holds('pid')) return 'no image: pauseengine has paused a process, which `warp-tool restore DIR --engine pauseengine` lets go on';
  if (holds('tags') && holds('score')) return 'no image: simengine only simulated a checkpoint; take one with --engine warp';
  return null;
}

/** The core file that an IMAGE argument means: the file itself, or `core.img` in a directory (the CRaC convention). URLs stay as they are. */
export async function resolveImage(argument: string): Promise<string> {
  if (schemeOf(argument) !== null) return argument;
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
    const other = withoutImage(argument);
    if (other !== null) throw new Failure(`${argument}: ${other}`, { cause: error });
    throw new Failure(`${argument} holds no core.img; give a directory that \`warp-tool checkpoint PID --to DIR\` wrote, or a core file`, {
      cause: error,
    });
  }
  return path;
}
