import { randomBytes } from 'node:crypto';
import { packChunks, unpackChunks, type OpenFile, type Verdicts, type Work } from '../engine/chunk-work.js';
import { Failure, ImageError } from '../failure.js';
import { hex } from '../hex.js';
import { ChunkIndex } from './chunk-index.js';
import { chunkError, DAMAGED, OverlaySource } from './content.js';
import { unknownFlags, type Image } from './image.js';
import { ImageWriter } from './image-writer.js';
import { hashOfMetadata, METADATA_HASH_OFFSET } from './metadata.js';
import { composeMetadata, type MetadataPlan } from './compose-metadata.js';
import { notesOfSegment } from './notes.js';
import {
  FORMAT_MINOR,
  IMAGE_COMPRESSED,
  IMAGE_DELTA,
  IMAGE_ENCRYPTED,
  IMAGE_FOREIGN,
  IMAGE_KNOWN,
  layoutOf,
  NOTE_OWNER,
  projectNotes,
  TABLE_HEADER_SIZE,
  type NoteName,
} from './schema.js';
import { PT_LOAD, PT_WARP_CHUNKED, type Segment } from './segments.js';
import { FileSource, type ByteSource } from './source.js';
import { encodeTable, recordWith } from './table.js';

export interface Repacked {
  /** Bytes of the new file. */
  size: bigint;
  chunks: number;
}

/** The file of an image, for native code. */
function fileOf({ source }: Image): OpenFile {
  if (!(source instanceof FileSource)) throw new Failure(`${source.name} is no local file: copy it here first`);
  return source;
}

const IN_PARENT_REFUSED = 'is a delta of a parent, which this version does not read; take the image without --parent';

/** Fails where the image's file has one of the flags, or one that is not known here: nobody knows what it would have to become. */
export function refuseFlags({ outermost }: Image, flags: number, problem: string): void {
  const found = outermost.ours ? outermost.anchor!.flags : 0;
  if ((found & flags) !== 0) throw new Failure(`${outermost.source.name} ${problem}`);
  if ((found & ~IMAGE_KNOWN) !== 0) throw new Failure(`${outermost.source.name} ${unknownFlags(found)}`);
}

/** A new image of a damaged one would have good hashes of bad content. */
async function checkIntact(image: Image, work: Work): Promise<void> {
  await checkMetadata(image);
  throwBadChunk(image, await unpackChunks(image.chunks, fileOf(image), null, 0, work));
}

/** Of an image of ours: that the metadata has its hash, and the file its size. */
export async function checkMetadata(image: Image): Promise<void> {
  const { source, anchor } = image;
  const found = await hashOfMetadata(image);
  if (found !== anchor!.metadata_hash) {
    const problem = `the hash of the metadata is ${hex(found)}, the anchor says ${hex(anchor!.metadata_hash)}`;
    throw new ImageError(source.name, BigInt(METADATA_HASH_OFFSET), problem, 'copy the image again, or take a new checkpoint');
  }
  if (anchor!.file_size !== source.size) {
    throw new ImageError(
      source.name,
      undefined,
      `the file has ${source.size} of ${anchor!.file_size} bytes`,
      `the file is truncated: ${DAMAGED}`,
    );
  }
}

function throwBadChunk(image: Image, verdicts: Verdicts): void {
  for (const chunk of verdicts.bad()) {
    throw chunkError(image.source.name, image.chunks, chunk, image.addressOfChunk(chunk), verdicts.problem(chunk)!);
  }
}

export interface CompressOptions extends Work {
  /** 1 (fast) to 9 (small). */
  level: number;
  /** Bytes of content in one chunk. */
  chunkSize: number;
}

/** Writes a compressed image of a plain one, or around a core file of another writer. */
export async function compressImage(image: Image, path: string, options: CompressOptions): Promise<Repacked> {
  const { source } = image;
  refuseFlags(image, IMAGE_COMPRESSED, 'is compressed already; decompress it first to compress it in another way');
  refuseFlags(image, IMAGE_ENCRYPTED, 'is encrypted, and what is encrypted does not shrink: decrypt it, compress it, and encrypt it then');
  refuseFlags(image, IMAGE_DELTA, 'is a delta of a parent, which this version does not compress');
  if (image.ours) await checkIntact(image, options);
  const metadataSize = image.ours ? image.metadataSize : 0;
  const index = ChunkIndex.planned(pieces(metadataSize, Number(source.size), options.chunkSize));
  const plan: MetadataPlan = {
    machine: image.header.machine,
    formatMinor: image.ours ? image.anchor!.format_minor : FORMAT_MINOR,
    flags: (image.ours ? image.anchor!.flags : IMAGE_FOREIGN) | IMAGE_COMPRESSED,
    segments: image.segments.filter(isMemory).flatMap(chunkedSegments),
    foreignNotes: await foreignNotes(image),
    notes: [],
    contentSize: source.size,
    fileSize: 0n,
    leastSize: 0n,
  };
  const notes = (): MetadataPlan['notes'] =>
    image.ours ? ownNotes(image, plan.flags, { chunks: chunkTable(index) }) : containerNotes(image, plan.flags, index);
  const { length: start } = await composeMetadata({ ...plan, notes: notes() });
  return ImageWriter.write(path, async (writer) => {
    const end = BigInt(await packChunks(index, fileOf(image), { name: path, fd: writer.fd }, start, options.level, options));
    await writer.truncate(end);
    await writer.write(0n, await composeMetadata({ ...plan, notes: notes(), fileSize: end }));
    return { size: end, chunks: index.length };
  });
}

/** Writes the plain image that a compressed one was made of, or its like where the engine made it compressed. */
export async function decompressImage(image: Image, path: string, work: Work): Promise<Repacked> {
  const packed = image.container ?? image;
  refuseFlags(image, IMAGE_ENCRYPTED, 'is encrypted: decrypt it first');
  refuseFlags(image, IMAGE_DELTA, IN_PARENT_REFUSED);
  if (packed.packing === null) throw new Failure(`${packed.source.name} is not compressed`);
  return ImageWriter.write(path, (writer) => unpack(packed, writer, path, work));
}

/** Writes the plain form of an image, which will be at `path`: by native code where its chunks are in a local file. */
export async function writePlain(image: Image, writer: ImageWriter, path: string, work: Work): Promise<void> {
  const packed = image.container ?? image;
  if (packed.source instanceof FileSource && packed.packing !== null && !image.encrypted) {
    refuseFlags(image, IMAGE_DELTA, IN_PARENT_REFUSED);
    await unpack(packed, writer, path, work);
    return;
  }
  const source = await plainSource(image);
  await writer.copyAll(source, work.progress);
}

async function unpack(packed: Image, writer: ImageWriter, path: string, work: Work): Promise<Repacked> {
  const { chunks } = packed;
  const contentSize = packed.anchor!.content_size;
  const metadata = chunks.find(0) >= 0 ? null : await plainMetadata(packed);
  const moved = metadata?.moved ?? 0n;
  await writer.truncate(contentSize + moved);
  const verdicts = await unpackChunks(chunks, fileOf(packed), { name: path, fd: writer.fd }, Number(moved), work);
  throwBadChunk(packed, verdicts);
  if (metadata) await writer.write(0n, metadata.bytes);
  return { size: contentSize + moved, chunks: chunks.length };
}

/**
 * The metadata that the plain form of a compressed image has when that does not hold it. Content moves by `moved` bytes where it would not fit before
 * the content.
 */
async function plainMetadata(packed: Image): Promise<{ bytes: Buffer; moved: bigint }> {
  const { chunks } = packed;
  const contentSize = packed.anchor!.content_size;
  const start = chunks.length > 0 ? BigInt(chunks.contentOffset(0)) : contentSize;
  const build = async (moved: bigint): Promise<Buffer> => {
    const index = ChunkIndex.planned(contentPieces(chunks, Number(moved)));
    for (let chunk = 0; chunk < chunks.length; chunk++) {
      const hash = chunks.contentHash(chunk);
      const place = { fileOffset: index.contentOffset(chunk), size: index.contentSize(chunk) };
      index.setStored(chunk, { ...place, contentHash: hash, storedHash: hash, flags: 0 });
    }
    const flags = packed.anchor!.flags & ~IMAGE_COMPRESSED;
    const extents = [...packed.table('extents')].map((extent) => ({ ...extent, content_offset: extent.content_offset + moved }));
    return composeMetadata({
      machine: packed.header.machine,
      formatMinor: packed.anchor!.format_minor,
      flags,
      segments: packed.segments.filter(isMemory).map((segment) => plainSegment(segment, moved)),
      foreignNotes: await foreignNotes(packed),
      notes: ownNotes(packed, flags, {
        chunks: chunkTable(index),
        ...(extents.length > 0 && { extents: encodeTable(projectNotes.extents.fields, extents) }),
      }),
      contentSize: contentSize + moved,
      fileSize: contentSize + moved,
      leastSize: start + moved,
    });
  };
  const bytes = await build(0n);
  if (BigInt(bytes.length) === start) return { bytes, moved: 0n };
  const moved = BigInt(bytes.length) - start;
  return { bytes: await build(moved), moved };
}

/** The plain form of an image as a source: nothing is written. */
export async function plainSource(image: Image): Promise<ByteSource> {
  image.requireKey();
  refuseFlags(image, IMAGE_DELTA, IN_PARENT_REFUSED);
  if (image.content === image.source) return image.source;
  if (image.chunks.find(0) >= 0) return image.content;
  const { bytes, moved } = await plainMetadata(image);
  return new OverlaySource(bytes, image.content, moved);
}

const isMemory = ({ type }: Segment): boolean => type === PT_LOAD || type === PT_WARP_CHUNKED;

/** The same memory, as it stands in a compressed image. What of a segment of other writers has no content stays without. */
function chunkedSegments(segment: Segment): Segment[] {
  const { fileSize, memorySize, address } = segment;
  if (fileSize === 0n) return [segment];
  const chunked = { ...segment, type: PT_WARP_CHUNKED, fileSize: 0n, memorySize: fileSize };
  if (fileSize >= memorySize) return [chunked];
  return [chunked, { ...segment, address: address + fileSize, fileSize: 0n, memorySize: memorySize - fileSize }];
}

function plainSegment(segment: Segment, moved: bigint): Segment {
  if (segment.type !== PT_WARP_CHUNKED) return segment;
  return { ...segment, type: PT_LOAD, fileSize: segment.memorySize, offset: segment.offset + moved };
}

/** Content from 0 to `size` in pieces: metadata by itself, so that it can be left out. */
export function* pieces(metadataSize: number, size: number, chunkSize: number): Generator<[number, number]> {
  for (const [from, to] of [
    [0, Math.min(metadataSize, size)],
    [Math.min(metadataSize, size), size],
  ] as const) {
    for (let at = from; at < to; at += chunkSize) yield [at, Math.min(chunkSize, to - at)];
  }
}

function* contentPieces(chunks: ChunkIndex, moved: number): Generator<[number, number]> {
  for (let chunk = 0; chunk < chunks.length; chunk++) yield [chunks.contentOffset(chunk) + moved, chunks.contentSize(chunk)];
}

/** The payload of a note whose records are already bytes. */
export function chunkTable(index: ChunkIndex): Buffer {
  const header = Buffer.alloc(TABLE_HEADER_SIZE);
  header.writeUInt32LE(layoutOf(projectNotes.chunks.fields).size, 0);
  header.writeUInt32LE(index.length, 4);
  return Buffer.concat([header, index.records]);
}

/** PT_NOTE segments that are not the project's. */
async function foreignNotes(image: Image): Promise<MetadataPlan['foreignNotes']> {
  const found: { content: Buffer; align: bigint }[] = [];
  for (const segment of image.segments) {
    const part = await notesOfSegment(image.source, segment);
    if (part && !part.notes.some(({ owner }) => owner === NOTE_OWNER)) found.push({ content: part.content, align: segment.align });
  }
  return found;
}

/** The project's notes of an image, some with another payload, and the image's flags changed. */
function ownNotes(image: Image, flags: number, changed: { [N in NoteName]?: Buffer }): MetadataPlan['notes'] {
  const place = layoutOf(projectNotes.image.fields).places.find(({ name }) => name === 'flags')!;
  const flagsAt = TABLE_HEADER_SIZE + place.offset;
  const { length, recordSize } = image.table('image');
  if (length === 0 || recordSize < place.offset + place.size)
    throw new ImageError(image.source.name, undefined, 'the note image has no flags', 'copy the image again, or take a new checkpoint');
  const payloads = new Map(Object.entries(changed).map(([name, payload]) => [projectNotes[name as NoteName].type as number, payload]));
  return image.notes
    .filter(({ owner }) => owner === NOTE_OWNER)
    .map(({ type, descriptor }) => {
      if (type !== projectNotes.image.type) return { type, descriptor: payloads.get(type) ?? descriptor };
      const copy = Buffer.from(descriptor);
      copy.writeUInt32LE(flags, flagsAt);
      return { type, descriptor: copy };
    });
}

/** The notes of an image around a core file of another writer. */
function containerNotes(image: Image, flags: number, index: ChunkIndex): MetadataPlan['notes'] {
  const { type, fields } = projectNotes.image;
  const record = recordWith(fields, { image_id: randomId(), flags, page_size: 4096, machine: image.header.machine });
  return [
    { type, descriptor: encodeTable(fields, [record]) },
    { type: projectNotes.chunks.type, descriptor: chunkTable(index) },
  ];
}

/** The bytes of a random UUID, version 4. */
export function randomId(): Buffer {
  const id = randomBytes(16);
  id[6] = (id[6]! & 0x0f) | 0x40;
  id[8] = (id[8]! & 0x3f) | 0x80;
  return id;
}
