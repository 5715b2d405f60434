import { GOOD } from '../engine/chunk-work.js';
import { codecIfBuilt, type Codec } from '../engine/codec.js';
import { ImageError } from '../failure.js';
import { hex } from '../hex.js';
import type { ChunkIndex } from './chunk-index.js';
import { CHUNK_KNOWN, CODEC_LZ4, CODEC_PLAIN, LARGEST_CHUNK, nameOf, names } from './schema.js';
import { FileSource, type ByteSource } from './source.js';
import { xxh64 } from './xxh64.js';

/** Bytes of decoded pieces that one source keeps. */
const CACHE = 32 << 20;
/** Pieces of one read that are fetched at once. */
const AHEAD = 4;
/** A stored chunk is never larger than this: LZ4 in its worst case, and an authentication tag. */
const LARGEST_STORED = LARGEST_CHUNK + LARGEST_CHUNK / 255 + 64;

export const DAMAGED = 'the content is damaged: copy the image again, or take a new checkpoint';

/** Bytes that come in pieces which must be fetched whole. Pieces ascend and do not overlap; the last ones used are kept. */
export abstract class PieceSource implements ByteSource {
  abstract readonly name: string;
  abstract readonly size: bigint;
  private readonly cache = new Map<number, Promise<Buffer>>();
  private cached = 0;

  /** The piece that holds an offset; where none does, the bitwise complement of the first piece behind it. */
  protected abstract find(offset: number): number;
  protected abstract startOf(piece: number): number;
  protected abstract lengthOf(piece: number): number;
  protected abstract fetch(piece: number): Promise<Buffer>;
  /** How to fill `target` with a whole piece, where that needs no copy of it: what is read in one go is not kept. */
  protected readonly fetchInto?: (piece: number, target: Buffer) => Promise<void>;
  /** Fills bytes that no piece has; `end` is where the next one starts. */
  protected abstract fillGap(offset: number, end: number, buffer: Buffer): void;
  abstract close(): Promise<void>;

  async read(offset: bigint, length: number): Promise<Buffer> {
    this.checkRange(offset, length);
    const buffer = Buffer.allocUnsafe(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    this.checkRange(offset, buffer.length);
    const end = Number(offset) + buffer.length;
    const direct: Promise<void>[] = [];
    try {
      for (let at = Number(offset), done = 0; at < end;) {
        const index = this.find(at);
        let take: number;
        if (index < 0) {
          const next = this.find(end - 1) === index ? end : Math.min(end, this.startOf(~index));
          take = next - at;
          this.fillGap(at, next, buffer.subarray(done, done + take));
        } else {
          const from = at - this.startOf(index);
          take = Math.min(end - at, this.lengthOf(index) - from);
          const whole = take === this.lengthOf(index) && !this.cache.has(index);
          if (this.fetchInto && whole) {
            const filled = this.fetchInto(index, buffer.subarray(done, done + take));
            filled.catch(() => {}); // shows where it is awaited
            direct.push(filled);
          } else {
            const ahead = this.fetchInto ? 1 : AHEAD;
            for (let next = index + 1; next < index + ahead && this.find(end - 1) >= next; next++) this.piece(next);
            const piece = await this.piece(index);
            piece.copy(buffer, done, from, from + take);
          }
        }
        at += take;
        done += take;
      }
    } finally {
      await Promise.allSettled(direct);
    }
    await Promise.all(direct);
  }

  private piece(index: number): Promise<Buffer> {
    let piece = this.cache.get(index);
    if (piece) {
      this.cache.delete(index);
    } else {
      piece = this.fetch(index);
      piece.catch(() => {}); // shows where it is awaited
      this.cached += this.lengthOf(index);
    }
    this.cache.set(index, piece);
    for (const oldest of this.cache.keys()) {
      if (this.cached <= CACHE || oldest === index) break;
      this.cache.delete(oldest);
      this.cached -= this.lengthOf(oldest);
    }
    return piece;
  }

  private checkRange(offset: bigint, length: number): void {
    if (offset >= 0n && offset + BigInt(length) <= this.size) return;
    const problem = `${length} bytes are needed, but the content ends at ${this.size}`;
    throw new ImageError(this.name, offset, problem, 'the metadata is damaged: copy the image again or take a new checkpoint');
  }
}

/** One line for a chunk that cannot be read: which, where it is in the file, and which memory is in it. */
export function chunkError(
  file: string,
  index: ChunkIndex,
  chunk: number,
  address: bigint | null,
  problem: string,
  mend = DAMAGED,
): ImageError {
  const where = address === null ? '' : ` (memory at ${hex(address)})`;
  return new ImageError(file, BigInt(index.fileOffset(chunk)), `chunk ${chunk}${where} ${problem}`, mend);
}

/** The content space of an image whose content is stored in chunks: the plain image as far as chunks hold it. */
export class ContentSource extends PieceSource {
  readonly name: string;

  /** With native code where it was built and the file is a local one. */
  static of(source: ByteSource, ...rest: [ChunkIndex, bigint, (chunk: number) => bigint | null]): ContentSource {
    const native = source instanceof FileSource ? codecIfBuilt() : null;
    return native ? new LocalContentSource(native, source as FileSource, ...rest) : new ContentSource(source, ...rest);
  }

  constructor(
    private readonly source: ByteSource,
    protected readonly index: ChunkIndex,
    readonly size: bigint,
    /** The first address of a chunk's memory, for messages. */
    private readonly addressOf: (chunk: number) => bigint | null,
  ) {
    super();
    this.name = source.name;
  }

  /** How far from `offset` on content can be had, at most up to `limit`; or cannot be had, and why. */
  availability(offset: bigint, limit: bigint): { end: bigint; reason: string | null } {
    if (!this.index.hasParent) return { end: limit, reason: null };
    const first = this.index.find(Number(offset));
    const missing = first >= 0 && this.index.isInParent(first);
    let chunk = first;
    while (chunk >= 0 && chunk < this.index.length && this.index.isInParent(chunk) === missing) chunk++;
    const end = chunk >= 0 && chunk < this.index.length ? BigInt(this.index.contentOffset(chunk)) : limit;
    // Chunks of a damaged index may be in any order: something is always told of `offset` itself.
    return { end: offset < end && end < limit ? end : limit, reason: missing ? IN_PARENT : null };
  }

  async close(): Promise<void> {
    await this.source.close();
  }

  protected find(offset: number): number {
    return this.index.find(offset);
  }

  protected startOf(chunk: number): number {
    return this.index.contentOffset(chunk);
  }

  protected lengthOf(chunk: number): number {
    return this.index.contentSize(chunk);
  }

  protected fillGap(offset: number): void {
    throw new ImageError(this.name, undefined, `no chunk holds content offset ${hex(offset)}`, DAMAGED);
  }

  protected async fetch(chunk: number): Promise<Buffer> {
    const content = await readChunk(this.source, this.index, chunk);
    if (Buffer.isBuffer(content)) return content;
    throw chunkError(this.name, this.index, chunk, this.addressOf(chunk), content.problem, content.mend);
  }
}

/** The same in a local file, of which native code reads, decodes and checks chunks on other threads. */
class LocalContentSource extends ContentSource {
  constructor(
    private readonly native: Codec,
    private readonly file: FileSource,
    ...rest: [ChunkIndex, bigint, (chunk: number) => bigint | null]
  ) {
    super(file, ...rest);
  }

  protected override readonly fetchInto = async (chunk: number, target: Buffer): Promise<void> => {
    const status = await this.native.load(this.index.record(chunk), target, this.file.fd).catch(() => null);
    // The ordinary way tells why it cannot be had.
    if (status !== GOOD) (await super.fetch(chunk)).copy(target);
  };

  protected override async fetch(chunk: number): Promise<Buffer> {
    const size = this.lengthOf(chunk);
    if (size > LARGEST_CHUNK) return super.fetch(chunk);
    const content = Buffer.allocUnsafe(size);
    await this.fetchInto(chunk, content);
    return content;
  }
}

/** Why the content of a chunk cannot be had. */
export interface ChunkProblem {
  problem: string;
  mend?: string;
}

/** The content of a chunk, checked against its hashes. */
export async function readChunk(source: ByteSource, index: ChunkIndex, chunk: number): Promise<Buffer | ChunkProblem> {
  if (index.isInParent(chunk)) return { problem: `cannot be read: ${IN_PARENT}`, mend: 'take the image without --parent' };
  const stored = await readStored(source, index, chunk);
  if (!Buffer.isBuffer(stored)) return stored;
  const unknown = index.flags(chunk) & ~CHUNK_KNOWN;
  if (unknown !== 0) return { problem: `is stored in a way that this version does not know (flags ${hex(unknown >>> 0)})`, mend: NEWER };
  if (index.isEncrypted(chunk)) return { problem: 'is encrypted, but the image does not say how' };
  const content = await decode(stored, index.codec(chunk), index.contentSize(chunk));
  if (content !== stored && Buffer.isBuffer(content) && (await xxh64(content)) !== index.contentHash(chunk))
    return { problem: 'does not decode to the content that its index tells of' };
  return content;
}

/** The bytes of a chunk as they stand in the file, checked against `stored_hash`. */
export async function readStored(source: ByteSource, index: ChunkIndex, chunk: number): Promise<Buffer | ChunkProblem> {
  const [offset, size, contentSize] = [index.fileOffset(chunk), index.storedSize(chunk), index.contentSize(chunk)];
  if (contentSize === 0 || contentSize > LARGEST_CHUNK || size > LARGEST_STORED)
    return { problem: `has impossible sizes (${size} bytes for ${contentSize})` };
  if (offset + size > Number(source.size)) return { problem: "reaches behind the file's end", mend: `the file is truncated: ${DAMAGED}` };
  const stored = await source.read(BigInt(offset), size);
  const found = await xxh64(stored);
  return found === index.storedHash(chunk) ? stored : { problem: `has the hash ${hex(found)} instead of ${hex(index.storedHash(chunk))}` };
}

/** Other bytes in place of the first ones of a source, and `moved` bytes more between them and the rest. */
export class OverlaySource implements ByteSource {
  readonly name: string;
  readonly size: bigint;

  constructor(
    private readonly start: Buffer,
    private readonly source: ByteSource,
    private readonly moved: bigint,
  ) {
    this.name = source.name;
    this.size = source.size + moved;
  }

  async read(offset: bigint, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    const inStart = offset < BigInt(this.start.length) ? this.start.copy(buffer, 0, Number(offset)) : 0;
    if (inStart < buffer.length) await this.source.readInto(offset + BigInt(inStart) - this.moved, buffer.subarray(inStart));
  }

  async close(): Promise<void> {
    await this.source.close();
  }
}

const NEWER = 'use the version of warp-tool that wrote it, or a newer one';
const IN_PARENT = 'it is kept in the parent image, which this version does not read';

async function decode(stored: Buffer, codec: number, size: number): Promise<Buffer | ChunkProblem> {
  if (codec === CODEC_PLAIN) return stored.length === size ? stored : { problem: `has ${stored.length} bytes for ${size} of content` };
  if (codec !== CODEC_LZ4)
    return { problem: `is packed with ${nameOf(names.codec, codec)}, which this version does not know`, mend: NEWER };
  const { default: lz4 } = await import('lz4js');
  const content = Buffer.allocUnsafe(size);
  const length = lz4.decompressBlock(stored, content, 0, stored.length, 0);
  return length === size ? content : { problem: `decodes to ${length} bytes instead of ${size}` };
}
