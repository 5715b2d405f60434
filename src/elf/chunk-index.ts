import { ImageError } from '../failure.js';
import { CHUNK_CODEC_MASK, CHUNK_ENCRYPTED, CHUNK_IN_PARENT, layoutOf, projectNotes } from './schema.js';
import type { Table } from './table.js';

const { fields } = projectNotes.chunks;
const layout = layoutOf(fields);
const at = (name: keyof typeof fields): number => layout.places.find((place) => place.name === name)!.offset;
const CONTENT_OFFSET = at('content_offset');
const FILE_OFFSET = at('file_offset');
const CONTENT_SIZE = at('content_size');
const STORED_SIZE = at('stored_size');
const CONTENT_HASH = at('content_hash');
const STORED_HASH = at('stored_hash');
const FLAGS = at('flags');

/** Bytes of one record. */
export const CHUNK_RECORD_SIZE = layout.size;

/**
 * The records of the note `chunks` as they stand in memory: an index can have hundreds of thousands, so none of them becomes an object. Offsets
 * are numbers; a damaged one past 2^53 is rounded, and lies behind the end of every file.
 */
export class ChunkIndex {
  readonly length: number;

  /** Of records without anything else around them. */
  constructor(
    readonly records: Buffer,
    private readonly recordSize = CHUNK_RECORD_SIZE,
  ) {
    this.length = Math.floor(records.length / recordSize);
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
    for (const [index, [offset, size]] of list.entries()) {
      records.writeBigUInt64LE(BigInt(offset), index * CHUNK_RECORD_SIZE + CONTENT_OFFSET);
      records.writeUInt32LE(size, index * CHUNK_RECORD_SIZE + CONTENT_SIZE);
    }
    return new ChunkIndex(records);
  }

  contentOffset(index: number): number {
    return this.u64(index, CONTENT_OFFSET);
  }

  contentSize(index: number): number {
    return this.records.readUInt32LE(index * this.recordSize + CONTENT_SIZE);
  }

  contentEnd(index: number): number {
    return this.contentOffset(index) + this.contentSize(index);
  }

  fileOffset(index: number): number {
    return this.u64(index, FILE_OFFSET);
  }

  storedSize(index: number): number {
    return this.records.readUInt32LE(index * this.recordSize + STORED_SIZE);
  }

  contentHash(index: number): bigint {
    return this.records.readBigUInt64LE(index * this.recordSize + CONTENT_HASH);
  }

  storedHash(index: number): bigint {
    return this.records.readBigUInt64LE(index * this.recordSize + STORED_HASH);
  }

  flags(index: number): number {
    return this.records.readUInt32LE(index * this.recordSize + FLAGS);
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

  /** Where the bytes of a chunk are, and what they are. `records` must be this index's own. */
  setStored(index: number, stored: { fileOffset: number; size: number; contentHash: bigint; storedHash: bigint; flags: number }): void {
    const record = index * this.recordSize;
    this.records.writeBigUInt64LE(BigInt(stored.fileOffset), record + FILE_OFFSET);
    this.records.writeUInt32LE(stored.size, record + STORED_SIZE);
    this.records.writeBigUInt64LE(stored.contentHash, record + CONTENT_HASH);
    this.records.writeBigUInt64LE(stored.storedHash, record + STORED_HASH);
    this.records.writeUInt32LE(stored.flags, record + FLAGS);
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

  /** The records as native/include/warp_image.h has them, on an address that a processor likes; shared with this index where it is one of its own. */
  alignedRecords(): Buffer {
    if (this.recordSize === CHUNK_RECORD_SIZE && this.records.byteOffset % 8 === 0) return this.records;
    const records = Buffer.alloc(this.length * CHUNK_RECORD_SIZE);
    for (let index = 0; index < this.length; index++) {
      const from = index * this.recordSize;
      this.records.copy(records, index * CHUNK_RECORD_SIZE, from, from + CHUNK_RECORD_SIZE);
    }
    return records;
  }

  private u64(index: number, field: number): number {
    const place = index * this.recordSize + field;
    return this.records.readUInt32LE(place) + this.records.readUInt32LE(place + 4) * 2 ** 32;
  }
}
