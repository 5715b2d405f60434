import { ImageError } from '../failure.js';
import type { Access } from './accesses.js';
import type { Image } from './image.js';
import { metadataRecords, sealMetadata } from './metadata.js';
import { encodeNote, notesOfSegment } from './notes.js';
import {
  ANCHOR_OFFSET,
  anchorFields,
  CHUNK_IN_PARENT,
  CODEC_PLAIN,
  layoutOf,
  NOTE_OWNER,
  projectNotes,
  TABLE_HEADER_SIZE,
  type Fields,
  type NoteRecord,
} from './schema.js';
import { BufferSource, type ByteSource } from './source.js';
import { encodeTable } from './table.js';

/** A stretch of bytes of another source, and its place in the new file. */
interface Move {
  source: ByteSource;
  from: bigint;
  to: bigint;
  size: bigint;
}

/** A file put together from stretches of others, by ascending place; what is between them is zeros. It closes none of them. */
class RearrangedSource implements ByteSource {
  constructor(
    readonly name: string,
    readonly size: bigint,
    private readonly moves: readonly Move[],
  ) {}

  async read(offset: bigint, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    const end = offset + BigInt(buffer.length);
    let low = 0;
    let high = this.moves.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.moves[middle]!.to + this.moves[middle]!.size <= offset) low = middle + 1;
      else high = middle;
    }
    const reads: Promise<void>[] = [];
    let filled = 0;
    for (; low < this.moves.length && this.moves[low]!.to < end; low++) {
      const { source, from, to, size } = this.moves[low]!;
      const start = offset > to ? offset : to;
      const [first, last] = [Number(start - offset), Number((end < to + size ? end : to + size) - offset)];
      buffer.fill(0, filled, first);
      reads.push(source.readInto(from + (start - to), buffer.subarray(first, last)));
      filled = last;
    }
    buffer.fill(0, filled);
    const ended = await Promise.allSettled(reads);
    for (const one of ended) if (one.status === 'rejected') throw one.reason;
  }

  async close(): Promise<void> {}
}

/** Where and how a chunk is stored in the new file: what changes in its record. */
type Place = Pick<NoteRecord<'chunks'>, 'file_offset' | 'stored_size' | 'stored_hash' | 'flags'>;

/**
 * A compressed image with its stored bytes in another order, and the timeline that led to it, as a file that is written nowhere: first the chunks of
 * `accesses`, then the others by content offset, last what only `decompress` reads. With `mappable` the chunks of `accesses` are stored as they are in
 * memory, at page boundaries, so that a restore maps them. Content space and all other notes stay as they are. `image` must stay open.
 */
export async function rearranged(image: Image, accesses: readonly Access[], mappable: boolean): Promise<ByteSource> {
  const chunks = image.table('chunks');
  const note = encodeTable(projectNotes.accesses.fields, accesses);
  const notes = await projectNoteSegment(image);
  const metadataSize = notes.sizeWith(note);
  const pageSize = BigInt(image.single('image')!.page_size);
  const hot = new Set(mappable ? accesses.map(({ chunk }) => chunk) : []);
  const places = new Map<bigint, Place>();
  const moves: Move[] = [];
  let end = metadataSize;
  for (const chunk of fileOrder(image, accesses)) {
    const record = chunks.get(chunk);
    // Equal content is stored once, and needed when the first of its chunks is.
    if (places.has(record.file_offset)) continue;
    let move: Move = { source: image.source, from: record.file_offset, to: end, size: BigInt(record.stored_size) };
    let place: Place = { ...record, file_offset: end };
    if (hot.has(chunk)) {
      const to = ((end + pageSize - 1n) / pageSize) * pageSize;
      move = { source: image.content, from: record.content_offset, to, size: BigInt(record.content_size) };
      place = { file_offset: to, stored_size: record.content_size, stored_hash: record.content_hash, flags: CODEC_PLAIN };
    }
    const last = moves.at(-1);
    if (last && last.source === move.source && last.from + last.size === move.from && last.to + last.size === move.to)
      last.size += move.size;
    else moves.push(move);
    places.set(record.file_offset, place);
    end = move.to + move.size;
  }
  const metadata = new BufferSource(image.source.name, await notes.metadataWith(note, places, metadataSize, end));
  return new RearrangedSource(image.source.name, end, [{ source: metadata, from: 0n, to: 0n, size: metadataSize }, ...moves]);
}

/** All chunks that are stored in this file. */
function fileOrder(image: Image, accesses: readonly Access[]): number[] {
  const chunks = image.table('chunks');
  const hot = accesses.map(({ chunk }) => chunk);
  const listed = new Set(hot);
  let contentStart = image.anchor!.content_size;
  for (const { offset, memorySize } of image.memory.segments) if (memorySize > 0n && offset < contentStart) contentStart = offset;
  for (const { content_offset: offset } of image.table('extents')) if (offset < contentStart) contentStart = offset;
  const cold: number[] = [];
  const metadataOfPlain: number[] = [];
  for (let chunk = 0; chunk < chunks.length; chunk++) {
    if (listed.has(chunk)) continue;
    const chunkEnd = chunks.field(chunk, 'content_offset') + BigInt(chunks.field(chunk, 'content_size'));
    (chunkEnd <= contentStart ? metadataOfPlain : cold).push(chunk);
  }
  return [...hot, ...cold, ...metadataOfPlain].filter((chunk) => (chunks.field(chunk, 'flags') & CHUNK_IN_PARENT) === 0);
}

/** The project's notes, which are the last of the metadata. */
async function projectNoteSegment(image: Image) {
  const { source, header } = image;
  const anchor = image.anchor!;
  const segment = image.segments.find(({ type, offset }) => type === 4 && offset === anchor.notes_offset);
  const original = await source.read(0n, image.metadataSize);
  const start = Number(anchor.notes_offset);
  const found = segment && (await notesOfSegment(source, segment));
  if (!found || original.subarray(start + Number(anchor.notes_size)).some((byte) => byte !== 0)) {
    throw new ImageError(
      source.name,
      anchor.notes_offset,
      'the project’s notes are not the last of the metadata',
      'see `warp-tool validate`',
    );
  }
  const pageSize = BigInt(image.single('image')!.page_size);
  const encode = (accesses: Buffer, places?: ReadonlyMap<bigint, Place>): Buffer => {
    const parts = found.notes
      .filter(({ owner, type }) => owner !== NOTE_OWNER || type !== projectNotes.accesses.type)
      .map(({ owner, type, descriptor }) =>
        encodeNote(
          owner,
          type,
          places && owner === NOTE_OWNER && type === projectNotes.chunks.type ? moved(descriptor, places) : descriptor,
          8,
        ),
      );
    return Buffer.concat([...parts, encodeNote(NOTE_OWNER, projectNotes.accesses.type, accesses, 8)]);
  };
  return {
    sizeWith(accesses: Buffer): bigint {
      const end = anchor.notes_offset + BigInt(encode(accesses).length);
      return end <= anchor.metadata_size ? anchor.metadata_size : ((end + pageSize - 1n) / pageSize) * pageSize;
    },
    async metadataWith(accesses: Buffer, places: ReadonlyMap<bigint, Place>, metadataSize: bigint, fileSize: bigint): Promise<Buffer> {
      const notes = encode(accesses, places);
      const metadata = Buffer.alloc(Number(metadataSize));
      original.copy(metadata, 0, 0, start);
      notes.copy(metadata, start);
      const size = BigInt(notes.length);
      const anchorValue = (name: keyof typeof anchorFields, value: bigint): void =>
        void metadata.writeBigUInt64LE(value, ANCHOR_OFFSET + offsetIn(anchorFields, name));
      anchorValue('metadata_size', metadataSize);
      anchorValue('file_size', fileSize);
      anchorValue('notes_size', size);
      const { segment: fields } = metadataRecords;
      metadata.writeBigUInt64LE(size, Number(header.phoff) + segment!.index * layoutOf(fields).size + offsetIn(fields, 'file_size'));
      await sealMetadata(metadata);
      return metadata;
    },
  };
}

/** The note `chunks` for chunks that are stored elsewhere; `places` by their file offset until now. */
function moved(descriptor: Buffer, places: ReadonlyMap<bigint, Place>): Buffer {
  const copy = Buffer.from(descriptor);
  const recordSize = copy.readUInt32LE(0);
  const recordsEnd = TABLE_HEADER_SIZE + copy.readUInt32LE(4) * recordSize;
  const { fields } = projectNotes.chunks;
  for (let at = TABLE_HEADER_SIZE; at < recordsEnd; at += recordSize) {
    const place = places.get(copy.readBigUInt64LE(at + offsetIn(fields, 'file_offset')));
    if (!place) continue;
    copy.writeBigUInt64LE(place.file_offset, at + offsetIn(fields, 'file_offset'));
    copy.writeBigUInt64LE(place.stored_hash, at + offsetIn(fields, 'stored_hash'));
    copy.writeUInt32LE(place.stored_size, at + offsetIn(fields, 'stored_size'));
    copy.writeUInt32LE(place.flags, at + offsetIn(fields, 'flags'));
  }
  return copy;
}

function offsetIn(fields: Fields, name: string): number {
  return layoutOf(fields).places.find((place) => place.name === name)!.offset;
}
