import { ImageError } from '../failure.js';
import { CHUNK_CODEC_MASK, CHUNK_ENCRYPTED, CHUNK_IN_PARENT, layoutOf, projectNotes } from './schema.js';
import type { Table } from './table.js';

const { fields } = projectNotes.chunks;
const layout = layoutOf(fields);
/** Where a field is in a record, in words of 4 bytes. */
const wordOf = (name: keyof typeof fields): number => layout.places.find((place) => place.name === name)!.offset / 4;
const CONTENT_OFFSET = wordOf('content_offset');
const FILE_OFFSET = wordOf('file_offset');
const CONTENT_SIZE = wordOf('content_size');
const STORED_SIZE = wordOf('stored_size');
const CONTENT_HASH = wordOf('content_hash');
const STORED_HASH = wordOf('stored_hash');
const FLAGS = wordOf('flags');

/** Bytes of one record. */
export const CHUNK_RECORD_SIZE = layout.size;
const WORDS = CHUNK_RECORD_SIZE / 4;

interface Totals {
  /** Flags that occur. */
  kinds: number[];
  /** Bytes in the file; equal content that is stored once counts each time. */
  packed: number;
  inParent: number;
  /** Bytes in the file for the content of the chunks before each, and of all. */
  storedBefore: Float64Array;
}

/**
 * The records of the note `chunks` as they stand in memory: an index can have hundreds of thousands, so none of them becomes an object, and they are
 * read as an array of numbers. Offsets are numbers; a damaged one past 2^53 is rounded, and lies behind the end of every file.
 */
export class ChunkIndex {
  readonly length: number;
  /** As native/include/warp_image.h has them, at a multiple of 8; shared with what was given where that is so already. */
  readonly records: Buffer;
  private readonly words: Uint32Array;
  private passed: Totals | undefined;

  /** Of records without anything else around them. */
  constructor(records: Buffer, recordSize = CHUNK_RECORD_SIZE) {
    this.length = Math.floor(records.length / recordSize);
    this.records = recordSize === CHUNK_RECORD_SIZE && records.byteOffset % 8 === 0 ? records : this.copyOf(records, recordSize);
    this.words = new Uint32Array(this.records.buffer, this.records.byteOffset, this.length * WORDS);
  }

  private copyOf(records: Buffer, recordSize: number): Buffer {
    const copy = Buffer.alloc(this.length * CHUNK_RECORD_SIZE);
    for (let index = 0; index < this.length; index++)
      records.copy(copy, index * CHUNK_RECORD_SIZE, index * recordSize, index * recordSize + CHUNK_RECORD_SIZE);
    return copy;
  }

  static of(table: Table<typeof fields>, file: string): ChunkIndex {
    if (table.length > 0 && table.recordSize < CHUNK_RECORD_SIZE) {
      const problem = `note chunks: records of ${table.recordSize} bytes instead of ${CHUNK_RECORD_SIZE}`;
      throw new ImageError(file, undefined, problem, 'the metadata is damaged: copy the image again or take a new checkpoint');
    }
    return new ChunkIndex(table.records, table.recordSize || CHUNK_RECORD_SIZE);
  }

  /** An index of chunks that are still to be stored. `pieces`: content offset and size, ascending. */
  static planned(pieces: Iterable<[number, number]>): ChunkIndex {
    const list = [...pieces];
    // Not from Node.js's pool of small buffers: native code wants it aligned.
    const records = Buffer.alloc(list.length * CHUNK_RECORD_SIZE);
    const index = new ChunkIndex(records);
    for (const [chunk, [offset, size]] of list.entries()) {
      index.setU64(chunk, CONTENT_OFFSET, BigInt(offset));
      index.words[chunk * WORDS + CONTENT_SIZE] = size;
    }
    return index;
  }

  contentOffset(index: number): number {
    return this.u64(index, CONTENT_OFFSET);
  }

  contentSize(index: number): number {
    return this.words[index * WORDS + CONTENT_SIZE]!;
  }

  contentEnd(index: number): number {
    return this.contentOffset(index) + this.contentSize(index);
  }

  fileOffset(index: number): number {
    return this.u64(index, FILE_OFFSET);
  }

  storedSize(index: number): number {
    return this.words[index * WORDS + STORED_SIZE]!;
  }

  contentHash(index: number): bigint {
    return this.records.readBigUInt64LE(index * CHUNK_RECORD_SIZE + CONTENT_HASH * 4);
  }

  storedHash(index: number): bigint {
    return this.records.readBigUInt64LE(index * CHUNK_RECORD_SIZE + STORED_HASH * 4);
  }

  flags(index: number): number {
    return this.words[index * WORDS + FLAGS]!;
  }

  codec(index: number): number {
    return this.flags(index) & CHUNK_CODEC_MASK;
  }

  isEncrypted(index: number): boolean {
    return (this.flags(index) & CHUNK_ENCRYPTED) !== 0;
  }

  isInParent(index: number): boolean {
    return (this.flags(index) & CHUNK_IN_PARENT) !== 0;
  }

  /** How the content is stored: bytes in the file, codecs in the order in which they come, chunks whose content the parent has. */
  summary(): { packed: number; codecs: number[]; encrypted: boolean; inParent: number } {
    const { kinds, packed, inParent } = this.totals();
    const codecs = new Set(kinds.map((flags) => flags & CHUNK_CODEC_MASK));
    return { packed, codecs: [...codecs], encrypted: kinds.some((flags) => (flags & CHUNK_ENCRYPTED) !== 0), inParent };
  }

  /** Whether the parent has content of this image. */
  get hasParent(): boolean {
    return this.totals().inParent > 0;
  }

  /** What takes a pass over all of a finished index, which can have hundreds of thousands of records: one pass, for all who ask. */
  private totals(): Totals {
    if (this.passed) return this.passed;
    const { words, length } = this;
    const kinds = new Set<number>();
    const storedBefore = new Float64Array(length + 1);
    let packed = 0;
    let inParent = 0;
    let stored = 0;
    let last = -1;
    for (let index = 0, at = 0; index < length; index++, at += WORDS) {
      const flags = words[at + FLAGS]!;
      if ((flags & CHUNK_IN_PARENT) !== 0) inParent++;
      else {
        const size = words[at + STORED_SIZE]!;
        packed += size;
        if (words[at + CONTENT_SIZE] !== 0) stored += size;
        if (flags !== last) kinds.add((last = flags));
      }
      storedBefore[index + 1] = stored;
    }
    return (this.passed = { kinds: [...kinds], packed, inParent, storedBefore });
  }

  /** Bytes in the file for the content from `offset` up to `end`; a chunk that only begins or ends in it counts by the length that it has there. */
  storedBytes(offset: number, end: number): number {
    const found = this.find(offset);
    const first = found < 0 ? ~found : found;
    if (first === this.length) return 0;
    const behind = this.find(end);
    const last = behind < 0 ? ~behind : behind;
    let total = this.partOf(first, offset, end) + (last > first ? this.partOf(last, offset, end) : 0);
    // Those that are in it whole.
    const { storedBefore } = this.totals();
    if (last > first) total += storedBefore[last]! - storedBefore[first + 1]!;
    return Math.round(total);
  }

  /** Bytes in the file for what of a chunk is inside a stretch of content. */
  private partOf(index: number, from: number, to: number): number {
    if (index >= this.length || this.isInParent(index)) return 0;
    const size = this.contentSize(index);
    const inside = Math.min(this.contentEnd(index), to) - Math.max(this.contentOffset(index), from);
    return inside > 0 ? (inside * this.storedSize(index)) / size : 0;
  }

  /** Where the bytes of a chunk are, and what they are. `records` must be this index's own. */
  setStored(index: number, stored: { fileOffset: number; size: number; contentHash: bigint; storedHash: bigint; flags: number }): void {
    this.setU64(index, FILE_OFFSET, BigInt(stored.fileOffset));
    this.words[index * WORDS + STORED_SIZE] = stored.size;
    this.setU64(index, CONTENT_HASH, stored.contentHash);
    this.setU64(index, STORED_HASH, stored.storedHash);
    this.words[index * WORDS + FLAGS] = stored.flags;
  }

  /** The chunk that holds a content offset; where none does, the bitwise complement of the first chunk behind it. */
  find(offset: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.contentEnd(middle) <= offset) low = middle + 1;
      else high = middle;
    }
    return low < this.length && this.contentOffset(low) <= offset ? low : ~low;
  }

  /** Bytes of content in all chunks. */
  contentBytes(): number {
    let total = 0;
    for (let index = 0; index < this.length; index++) total += this.contentSize(index);
    return total;
  }

  /** One record of `records`. */
  record(index: number): Buffer {
    return this.records.subarray(index * CHUNK_RECORD_SIZE, (index + 1) * CHUNK_RECORD_SIZE);
  }

  private u64(index: number, field: number): number {
    const place = index * WORDS + field;
    return this.words[place]! + this.words[place + 1]! * 2 ** 32;
  }

  private setU64(index: number, field: number, value: bigint): void {
    this.records.writeBigUInt64LE(value, index * CHUNK_RECORD_SIZE + field * 4);
  }
}
