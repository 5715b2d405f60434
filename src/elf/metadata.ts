import { resolve } from 'node:path';
import { ImageError, Failure } from '../failure.js';
import { hex } from '../hex.js';
import { environmentBlock, environmentOf } from './environment.js';
import type { Image } from './image.js';
import { decodeKernelNote, kernelNoteKey, kernelNoteName } from './kernel-notes/index.js';
import { encodeNote, notesOfSegment, type Note } from './notes.js';
import {
  ANCHOR_OFFSET,
  anchorFields,
  IMAGE_COMPRESSED,
  IMAGE_DELTA,
  IMAGE_ENCRYPTED,
  IMAGE_FOREIGN,
  LARGEST_METADATA,
  layoutOf,
  NOTE_OWNER,
  projectNotes,
  shapeOf,
  TABLE_HEADER_SIZE,
  type Fields,
  type NoteName,
} from './schema.js';
import { decodeRecord, encodeRecord, writeField } from './table.js';
import { xxh64 } from './xxh64.js';

/** Bytes as text where that is faithful, else in hexadecimal. */
export type BytesValue = string | { hex: string };
/** A field of a record: numbers up to 32 bits as they are, u64 as `0x…`, i64 in decimal, byte arrays in hexadecimal, slices as BytesValue. */
export type FieldJson = number | BytesValue | FieldJson[];
export type RecordJson = Record<string, FieldJson>;

/** How a table's heap was laid out, where it is not the way encodeTableJson would do it. */
export interface HeapLayout {
  /** Offset and length of every slice, in the order of records and fields. */
  slices: [number, number][];
  /** The heap and what follows it in the note, hexadecimal. */
  heap: string;
  tail: string;
}

export interface NoteJson {
  owner: string;
  type: string;
  name: string | null;
  /** The descriptor in hexadecimal, or a table of this project. */
  bytes?: string;
  record_size?: number;
  records?: RecordJson[];
  layout?: HeapLayout;
  /** What the bytes of a kernel's note say: for the reader, encode takes `bytes`. */
  meaning?: unknown;
}

export interface NoteSegmentJson {
  /** Index into segments. */
  segment: number;
  /** Null where the bytes are not laid out as notes usually are; then `bytes` has them. */
  notes: NoteJson[] | null;
  bytes: string | null;
}

const headerFields = {
  ident: '16 bytes',
  type: 'u16',
  machine: 'u16',
  version: 'u32',
  entry: 'u64',
  phoff: 'u64',
  shoff: 'u64',
  flags: 'u32',
  ehsize: 'u16',
  phentsize: 'u16',
  phnum: 'u16',
  shentsize: 'u16',
  shnum: 'u16',
  shstrndx: 'u16',
} as const satisfies Fields;

const segmentFields = {
  type: 'u32',
  flags: 'u32',
  offset: 'u64',
  address: 'u64',
  physical: 'u64',
  file_size: 'u64',
  memory_size: 'u64',
  align: 'u64',
} as const satisfies Fields;

const HEADER_SIZE = layoutOf(headerFields).size;
const SEGMENT_SIZE = layoutOf(segmentFields).size;
const ANCHOR_SIZE = layoutOf(anchorFields).size;

export interface MetadataJson {
  /** Of this document. */
  format: 'warp-tool metadata 1';
  /** The image that holds the content. `hash`: XXH64 of its metadata, to know it again. */
  source: { path: string; size: string; hash: string };
  header: RecordJson;
  anchor: RecordJson | null;
  segments: RecordJson[];
  /** Section headers, hexadecimal. */
  sections: string;
  notes: NoteSegmentJson[];
  /** Entries of the environment as memory holds them; null where the image does not tell. */
  environment: BytesValue[] | null;
  /** Bytes of the metadata of our images that belong to nothing above. */
  residue: { offset: string; bytes: string }[];
}

/** The JSON Schema types of what is in a MetadataJson, from the same tables as the format itself. */
export const metadataRecords = { header: headerFields, anchor: anchorFields, segment: segmentFields };

/** Bytes that encode writes at a place of the image. */
export interface Placed {
  offset: bigint;
  bytes: Buffer;
}

/** The image that a document is about: the file as it stands, decrypted, and not what is packed in it. */
export function describedImage(image: Image): Image {
  const { container } = image;
  return container?.foreignInside && !container.encryptedItself ? container : image;
}

/** All metadata of an image. `path` is what the document will call the image, where encodeImage's caller finds it again. */
export async function decodeMetadata(
  image: Image,
  path = image.file.path ? resolve(image.file.path) : image.file.name,
): Promise<MetadataJson> {
  const { source, header } = image;
  const raw = await source.read(0n, HEADER_SIZE);
  const head = recordJson(headerFields, raw);
  const table = await source.read(header.phoff, header.phnum * SEGMENT_SIZE);
  const segments = image.segments.map((_, index) =>
    recordJson(segmentFields, table.subarray(index * SEGMENT_SIZE, (index + 1) * SEGMENT_SIZE)),
  );
  const sections = await sectionBytes(image, raw);
  const notes: NoteSegmentJson[] = [];
  for (const { segment, content, notes: found } of await noteSegments(image)) {
    const own = found.map((note) => noteJson(image, note));
    const same = encodeNotes(own, segment.align === 8n ? 8 : 4, `notes of segment ${segment.index}`).equals(content);
    notes.push({ segment: segment.index, notes: same ? own : null, bytes: same ? null : content.toString('hex') });
  }
  const document: MetadataJson = {
    format: 'warp-tool metadata 1',
    source: { path, size: String(source.size), hash: hex(await metadataHash(image)) },
    header: head,
    anchor: image.anchor ? recordJson(anchorFields, await source.read(BigInt(ANCHOR_OFFSET), ANCHOR_SIZE)) : null,
    segments,
    sections: sections.toString('hex'),
    notes,
    environment: await environmentJson(image),
    residue: [],
  };
  if (image.ours) document.residue = await residueOf(image, placeMetadata(document));
  return document;
}

export async function environmentJson(image: Image): Promise<BytesValue[] | null> {
  try {
    const block = await environmentBlock(image);
    if (block) return block.entries.map(({ at, length }) => bytesJson(block.bytes.subarray(at, at + length)));
    return await environmentOf(image);
  } catch (error) {
    if (error instanceof Failure) return null;
    throw error;
  }
}

/** XXH64 of header, segment table, notes and sections: what a document of this image describes. */
export async function metadataHash(image: Image): Promise<bigint> {
  const { source, header } = image;
  const raw = await source.read(0n, HEADER_SIZE);
  const parts = [raw];
  if (image.anchor) parts.push(await source.read(BigInt(ANCHOR_OFFSET), ANCHOR_SIZE));
  parts.push(await source.read(header.phoff, header.phnum * SEGMENT_SIZE), await sectionBytes(image, raw));
  for (const { content } of await noteSegments(image)) parts.push(content);
  return xxh64(Buffer.concat(parts));
}

/** Where each part of the metadata goes when nothing has changed its size. */
export function placeMetadata(document: MetadataJson): Placed[] {
  const header = encodeRecordJson(headerFields, document.header, 'header');
  const placed: Placed[] = [{ offset: 0n, bytes: header }];
  if (document.anchor) placed.push({ offset: BigInt(ANCHOR_OFFSET), bytes: encodeRecordJson(anchorFields, document.anchor, 'anchor') });
  placed.push({ offset: header.readBigUInt64LE(32), bytes: encodeSegments(document) });
  const sections = bytesFromHex(document.sections, 'sections');
  if (sections.length > 0) placed.push({ offset: header.readBigUInt64LE(40), bytes: sections });
  for (const part of document.notes) {
    placed.push({
      offset: numberOf(segmentOf(document, part)['offset'], 'offset of a note segment'),
      bytes: encodeNoteSegment(document, part),
    });
  }
  return placed;
}

function encodeSegments(document: MetadataJson): Buffer {
  return Buffer.concat(document.segments.map((segment, index) => encodeRecordJson(segmentFields, segment, `segments[${index}]`)));
}

function segmentOf(document: MetadataJson, part: NoteSegmentJson): RecordJson {
  const segment = document.segments[part.segment];
  if (!segment) throw new Failure(`notes: there is no segment ${part.segment}`);
  return segment;
}

/** The bytes of one note segment. */
export function encodeNoteSegment(document: MetadataJson, part: NoteSegmentJson): Buffer {
  if (part.notes === null) return bytesFromHex(part.bytes ?? '', `notes of segment ${part.segment}`);
  const align = numberOf(segmentOf(document, part)['align'], 'align of a note segment') === 8n ? 8 : 4;
  return encodeNotes(part.notes, align, `notes of segment ${part.segment}`);
}

/**
 * The metadata of an image of ours when notes have another size than before: the notes one after the other behind the segment table, and all that is
 * stored moved by a whole number of pages when they need the room. Changes `document`; returns by how many bytes. Offsets in the content space of an
 * image whose content is packed stay.
 */
export function layOutMetadata(document: MetadataJson, pageSize: bigint): bigint {
  const anchor = document.anchor!;
  const before = numberOf(anchor['metadata_size'], 'anchor.metadata_size');
  let at = 0n;
  for (const part of document.notes) {
    const segment = segmentOf(document, part);
    const offset = numberOf(segment['offset'], 'offset of a note segment');
    const start = at === 0n || offset >= at ? offset : (at + 7n) & -8n;
    const size = BigInt(encodeNoteSegment(document, part).length);
    segment['offset'] = hex(start);
    segment['file_size'] = hex(size);
    // The last note segment is the project's.
    anchor['notes_offset'] = hex(start);
    anchor['notes_size'] = hex(size);
    at = start + size;
  }
  const needed = ((at + pageSize - 1n) / pageSize) * pageSize;
  if (needed <= before) return 0n;
  const moved = needed - before;
  const move = (record: RecordJson, ...fields: string[]): void => {
    for (const field of fields) {
      const value = numberOf(record[field], field);
      if (value >= before) record[field] = hex(value + moved);
    }
  };
  const packed = (Number(anchor['flags']) & (IMAGE_COMPRESSED | IMAGE_ENCRYPTED | IMAGE_DELTA | IMAGE_FOREIGN)) !== 0;
  for (const record of recordsOf(document, 'chunks')) move(record, 'file_offset');
  if (!packed) {
    for (const segment of document.segments) move(segment, 'offset');
    for (const record of recordsOf(document, 'chunks')) move(record, 'content_offset');
    for (const record of recordsOf(document, 'extents')) move(record, 'content_offset');
    move(anchor, 'content_size');
  }
  anchor['metadata_size'] = hex(needed);
  move(anchor, 'file_size');
  return moved;
}

/** Records of a project note in the document; none when it is not there. */
export function recordsOf(document: MetadataJson, name: NoteName): RecordJson[] {
  const type = hex(projectNotes[name].type);
  for (const part of document.notes) {
    const note = part.notes?.find((one) => one.owner === NOTE_OWNER && one.type === type);
    if (note?.records) return note.records;
  }
  return [];
}

/** The bytes of the metadata of an image of ours: all that is placed, and zeros between. */
export function assembleMetadata(document: MetadataJson): Buffer {
  const size = Number(numberOf(document.anchor!['metadata_size'], 'anchor.metadata_size'));
  const problem = metadataSizeProblem(BigInt(size));
  if (problem !== null) throw new Failure(`anchor.metadata_size: ${problem}`);
  const result = Buffer.alloc(size);
  const residue = document.residue.map(({ offset, bytes }) => ({ offset: BigInt(offset), bytes: bytesFromHex(bytes, 'residue') }));
  for (const { offset, bytes } of [...residue, ...placeMetadata(document)]) {
    if (offset + BigInt(bytes.length) > BigInt(size))
      throw new Failure(`${bytes.length} bytes of metadata at ${hex(offset)} are behind its end (${size})`);
    bytes.copy(result, Number(offset));
  }
  return result;
}

/** What is wrong with a size of metadata; null when it is possible. */
export function metadataSizeProblem(size: bigint): string | null {
  const least = ANCHOR_OFFSET + ANCHOR_SIZE;
  return size >= least && size <= LARGEST_METADATA ? null : `metadata has ${least} to ${LARGEST_METADATA} bytes, not ${size}`;
}

/** Where the anchor has the hash of the metadata, bytes from the file's start. */
export const METADATA_HASH_OFFSET = ANCHOR_OFFSET + layoutOf(anchorFields).places.find(({ name }) => name === 'metadata_hash')!.offset;

/** Writes the hash of the metadata into its anchor. */
export async function sealMetadata(metadata: Buffer): Promise<void> {
  metadata.writeBigUInt64LE(0n, METADATA_HASH_OFFSET);
  metadata.writeBigUInt64LE(await xxh64(metadata), METADATA_HASH_OFFSET);
}

/** The hash that the metadata of an image of ours has, whatever its anchor says. */
export async function hashOfMetadata(image: Image): Promise<bigint> {
  const metadata = Buffer.from(await image.source.read(0n, image.metadataSize));
  metadata.writeBigUInt64LE(0n, METADATA_HASH_OFFSET);
  return xxh64(metadata);
}

async function noteSegments(image: Image) {
  const found = [];
  for (const segment of image.segments) {
    const notes = await notesOfSegment(image.source, segment);
    if (notes) found.push({ segment, ...notes });
  }
  return found;
}

async function sectionBytes(image: Image, header: Buffer): Promise<Buffer> {
  const offset = header.readBigUInt64LE(40);
  const size = header.readUInt16LE(60) * header.readUInt16LE(58);
  if (offset === 0n || size === 0) return Buffer.alloc(0);
  if (size > LARGEST_METADATA)
    throw new ImageError(
      image.source.name,
      58n,
      `${size} bytes of section headers are too many`,
      'the header is damaged: copy the file again',
    );
  return image.source.read(offset, size);
}

async function residueOf(image: Image, placed: readonly Placed[]): Promise<MetadataJson['residue']> {
  const size = image.metadataSize;
  const rest = Buffer.from(await image.source.read(0n, size));
  for (const { offset, bytes } of placed) if (offset < size) rest.fill(0, Number(offset), Math.min(size, Number(offset) + bytes.length));
  const found: MetadataJson['residue'] = [];
  for (let at = 0; at < size; at++) {
    if (rest[at] === 0) continue;
    const start = at;
    while (at < size && rest[at] !== 0) at++;
    found.push({ offset: hex(start), bytes: rest.toString('hex', start, at) });
  }
  return found;
}

function noteJson(image: Image, note: Note): NoteJson {
  const { owner, type, descriptor } = note;
  const known =
    owner === NOTE_OWNER ? (Object.keys(projectNotes) as NoteName[]).find((name) => projectNotes[name].type === type) : undefined;
  const head = { owner, type: hex(type), name: known ?? kernelNoteName(note) ?? null };
  if (known && image.ours) {
    const table = tableJson(projectNotes[known].fields, descriptor);
    if (table) return { ...head, ...table };
  }
  const bytes = descriptor.toString('hex');
  const meaning = meaningOf(note, image.source.name);
  return meaning === undefined ? { ...head, bytes } : { ...head, bytes, meaning };
}

/** What a kernel's note says; undefined where it is not understood. */
function meaningOf(note: Note, file: string): unknown {
  const key = kernelNoteKey(note);
  if (!key) return undefined;
  try {
    return plain(decodeKernelNote(key, note, file));
  } catch (error) {
    if (error instanceof ImageError) return undefined;
    throw error;
  }
}

function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value < 0n ? value.toString() : hex(value);
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (Array.isArray(value)) return value.map((item) => plain(item));
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
  return value;
}

function bytesJson(bytes: Buffer): BytesValue {
  const text = bytes.toString();
  // oxlint-disable-next-line no-control-regex
  return Buffer.from(text).equals(bytes) && !/[\u0001-\u0008\u000b-\u001f\u007f]/.test(text) ? text : { hex: bytes.toString('hex') };
}

function recordJson(fields: Fields, raw: Buffer): RecordJson {
  return fieldsJson(decodeRecord(fields, raw));
}

function fieldsJson(record: Record<string, unknown>): RecordJson {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, fieldJson(value)]));
}

function fieldJson(value: unknown): FieldJson {
  if (typeof value === 'number') return value;
  if (typeof value === 'bigint') return value < 0n ? value.toString() : hex(value);
  if (Array.isArray(value)) return value.map((item) => fieldJson(item));
  return (value as Buffer).toString('hex');
}

/** A project note as a table; null when it is damaged, so that its bytes are all there is to say. */
function tableJson(fields: Fields, payload: Buffer): Pick<NoteJson, 'record_size' | 'records' | 'layout'> | null {
  if (payload.length < TABLE_HEADER_SIZE) return null;
  const recordSize = payload.readUInt32LE(0);
  const length = payload.readUInt32LE(4);
  const heapSize = payload.readBigUInt64LE(8);
  const heapAt = TABLE_HEADER_SIZE + recordSize * length;
  const { places, size } = knownPart(fields, recordSize);
  if (BigInt(heapAt) + heapSize > BigInt(payload.length)) return null;
  const heap = payload.subarray(heapAt, heapAt + Number(heapSize));
  const slices: [number, number][] = [];
  const records: RecordJson[] = [];
  for (let index = 0; index < length; index++) {
    const raw = payload.subarray(TABLE_HEADER_SIZE + index * recordSize, TABLE_HEADER_SIZE + (index + 1) * recordSize);
    const padded = Buffer.alloc(Math.max(raw.length, layoutOf(fields).size));
    raw.copy(padded);
    const all = recordJson(fields, padded);
    const record: RecordJson = {};
    for (const { name, type, offset } of places) {
      record[name] = all[name]!;
      if (type !== 'slice') continue;
      const slice: [number, number] = [raw.readUInt32LE(offset), raw.readUInt32LE(offset + 4)];
      if (slice[0] + slice[1] > heap.length) return null;
      slices.push(slice);
      record[name] = bytesJson(heap.subarray(slice[0], slice[0] + slice[1]));
    }
    if (recordSize > size) record['_rest'] = raw.toString('hex', size);
    records.push(record);
  }
  const table = { record_size: recordSize, records };
  if (encodeTableJson(fields, table, '').equals(payload)) return table;
  const layout = { slices, heap: heap.toString('hex'), tail: payload.toString('hex', heapAt + heap.length) };
  return encodeTableJson(fields, { ...table, layout }, '').equals(payload) ? { ...table, layout } : null;
}

/** The fields that records of this size have: an older writer knew fewer. `size`: where the last of them ends. */
function knownPart(fields: Fields, recordSize: number): ReturnType<typeof layoutOf> {
  const places = layoutOf(fields).places.filter(({ offset, size }) => offset + size <= recordSize);
  const last = places.at(-1);
  return { places, size: last ? last.offset + last.size : 0 };
}

/** The payload of a table: slices one after the other, empty ones at 0, the whole a multiple of 8; or by `layout`, with changed slices at the end. */
function encodeTableJson(fields: Fields, table: Pick<NoteJson, 'record_size' | 'records' | 'layout'>, where: string): Buffer {
  const records = table.records ?? [];
  const recordSize = table.record_size ?? layoutOf(fields).size;
  const { places, size } = knownPart(fields, recordSize);
  const sliceCount = places.filter(({ type }) => type === 'slice').length * records.length;
  const layout = table.layout?.slices.length === sliceCount ? table.layout : undefined;
  const body = Buffer.alloc(recordSize * records.length);
  const heap: Buffer[] = layout ? [bytesFromHex(layout.heap, where)] : [];
  const original = heap[0] ?? Buffer.alloc(0);
  let heapSize = original.length;
  let slice = 0;
  for (const [index, record] of records.entries()) {
    const at = index * recordSize;
    for (const { name, type, offset } of places) {
      const place = `${where}.records[${index}].${name}`;
      const value = record[name];
      if (value === undefined) throw new Failure(`${place} is missing`);
      if (type !== 'slice') {
        writeField(body, at + offset, type, fieldFromJson(type, value, place));
        continue;
      }
      const bytes = bytesFromJson(value as BytesValue, place);
      const known = layout?.slices[slice++];
      if (known && original.subarray(known[0], known[0] + known[1]).equals(bytes)) writeField(body, at + offset, type, known);
      else if (bytes.length > 0) {
        writeField(body, at + offset, type, [heapSize, bytes.length]);
        heap.push(bytes);
        heapSize += bytes.length;
      }
    }
    const rest = record['_rest'];
    if (rest !== undefined) bytesFromHex(rest as string, `${where}.records[${index}]._rest`).copy(body, at + size);
  }
  const header = Buffer.alloc(TABLE_HEADER_SIZE);
  header.writeUInt32LE(recordSize, 0);
  header.writeUInt32LE(records.length, 4);
  header.writeBigUInt64LE(BigInt(heapSize), 8);
  const whole = TABLE_HEADER_SIZE + body.length + heapSize;
  const tail = layout && heap.length === 1 ? bytesFromHex(layout.tail, where) : Buffer.alloc(-whole & 7);
  return Buffer.concat([header, body, ...heap, tail]);
}

function encodeNotes(notes: readonly NoteJson[], align: 4 | 8, where: string): Buffer {
  return Buffer.concat(
    notes.map((note, index) => {
      const place = `${where}, note ${index} (${note.name ?? note.type})`;
      const type = Number(numberOf(note.type, `${place}: type`));
      const known = note.records && (Object.keys(projectNotes) as NoteName[]).find((name) => projectNotes[name].type === type);
      if (note.records && !known) throw new Failure(`${place} has records, but there is no table of that type`);
      const descriptor = known ? encodeTableJson(projectNotes[known].fields, note, place) : bytesFromHex(note.bytes, place);
      if (note.meaning !== undefined) {
        const meaning = meaningOf({ owner: note.owner, type, offset: 0n, descriptor }, place);
        if (JSON.stringify(meaning) !== JSON.stringify(note.meaning)) {
          throw new Failure(`${place}: "meaning" was edited, but it only explains "bytes": edit those, and remove "meaning"`);
        }
      }
      return encodeNote(note.owner, type, descriptor, align);
    }),
  );
}

function encodeRecordJson(fields: Fields, record: RecordJson, where: string): Buffer {
  const values = layoutOf(fields).places.map(({ name, type }) => {
    const value = record[name];
    if (value === undefined) throw new Failure(`${where}.${name} is missing`);
    return [name, fieldFromJson(type, value, `${where}.${name}`)];
  });
  return encodeRecord(fields, Object.fromEntries(values));
}

/** A value for writeField; says which field is wrong. */
function fieldFromJson(type: Fields[string], value: FieldJson, where: string): unknown {
  const { scalar, dimensions, size } = shapeOf(type);
  if (scalar === 'bytes') {
    const bytes = bytesFromHex(value as string, where);
    if (bytes.length !== size) throw new Failure(`${where} has ${bytes.length} bytes instead of ${size}`);
    return bytes;
  }
  const signed = scalar.startsWith('i');
  const width = BigInt(scalar.slice(1));
  const low = signed ? -(1n << (width - 1n)) : 0n;
  const high = signed ? 1n << (width - 1n) : 1n << width;
  const one = (item: FieldJson, place: string): bigint => {
    const number = numberOf(item, place);
    if (number < low || number >= high) throw new Failure(`${place}: ${number} is no ${scalar}`);
    return number;
  };
  const many = (item: FieldJson, [first, ...rest]: number[], place: string): unknown => {
    if (first === undefined) return one(item, place);
    if (!Array.isArray(item) || item.length !== first) throw new Failure(`${place} is not a list of ${first}`);
    return item.map((part, index) => many(part, rest, `${place}[${index}]`));
  };
  return many(value, dimensions, where);
}

/** A number as this document writes it: 5, "5", "-5" or "0x5". */
export function numberOf(value: unknown, where: string): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  if (typeof value === 'string' && /^(0x[0-9a-f]+|-?[0-9]+)$/i.test(value)) return BigInt(value);
  throw new Failure(`${where}: ${JSON.stringify(value)} is not a whole number (5, "5" or "0x5")`);
}

function bytesFromHex(value: unknown, where: string): Buffer {
  if (typeof value !== 'string' || !/^([0-9a-f]{2})*$/i.test(value))
    throw new Failure(`${where} is not made of pairs of hexadecimal digits`);
  return Buffer.from(value, 'hex');
}

export function bytesFromJson(value: BytesValue, where: string): Buffer {
  if (typeof value === 'string') return Buffer.from(value);
  if (typeof value === 'object' && value !== null && 'hex' in value) return bytesFromHex(value.hex, where);
  throw new Failure(`${where} is neither a text nor {"hex": "…"}`);
}
