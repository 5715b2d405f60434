import { Failure } from '../failure.js';
import { metadataRecords, sealMetadata } from './metadata.js';
import { encodeNote } from './notes.js';
import { ANCHOR_MAGIC, ANCHOR_OFFSET, anchorFields, FORMAT_MAJOR, LARGEST_METADATA, layoutOf, NOTE_OWNER, type Fields } from './schema.js';
import { ET_CORE, PT_NOTE, PT_WARP_ANCHOR, type Segment } from './segments.js';
import { encodeRecord } from './table.js';

/** What the metadata of an image is made of, where it is not made by the engine. */
export interface MetadataPlan {
  machine: number;
  formatMinor: number;
  /** Of the image, as in the anchor. */
  flags: number;
  /** Memory, in the order of the program header table. */
  segments: readonly Segment[];
  /** Notes of others: the content of whole PT_NOTE segments, and their alignment. */
  foreignNotes: readonly { content: Buffer; align: bigint }[];
  /** The project's notes: type and payload. */
  notes: readonly { type: number; descriptor: Buffer }[];
  contentSize: bigint;
  fileSize: bigint;
  /** Bytes that the metadata takes at least; a multiple of the page size. */
  leastSize: bigint;
}

const PAGE = 4096;
const PN_XNUM = 0xffff;
const HEADER_SIZE = 64;
const SEGMENT_SIZE = 56;
const SECTION_SIZE = 64;
const SEGMENTS_OFFSET = ANCHOR_OFFSET + layoutOf(anchorFields).size;

/** All bytes before the content, with their hash. How many there are depends on the sizes in the plan only, not on values. */
export async function composeMetadata(plan: MetadataPlan): Promise<Buffer> {
  const own = Buffer.concat(plan.notes.map(({ type, descriptor }) => encodeNote(NOTE_OWNER, type, padded(descriptor), 8)));
  const count = 2 + plan.foreignNotes.length + plan.segments.length;
  const extended = count >= PN_XNUM;
  const sectionOffset = SEGMENTS_OFFSET + count * SEGMENT_SIZE;
  let at = sectionOffset + (extended ? SECTION_SIZE : 0);
  const place = (content: Buffer, align: bigint): { offset: number; content: Buffer; align: bigint } => {
    const offset = up(at, 8);
    at = offset + content.length;
    return { offset, content, align };
  };
  const notes = [...plan.foreignNotes.map(({ content, align }) => place(content, align)), place(own, 4n)];
  const last = notes.at(-1)!;
  const size = Math.max(up(at, PAGE), Number(plan.leastSize));
  if (size > LARGEST_METADATA)
    throw new Failure(
      `the image would have ${size} bytes of metadata, and may have ${LARGEST_METADATA}: with larger chunks there are fewer of them`,
    );
  const metadata = Buffer.alloc(size);

  encodeRecord(metadataRecords.header as Fields, {
    ident: Buffer.from('7f454c46020101000000000000000000', 'hex'),
    type: ET_CORE,
    machine: plan.machine,
    version: 1,
    entry: 0n,
    phoff: BigInt(SEGMENTS_OFFSET),
    shoff: extended ? BigInt(sectionOffset) : 0n,
    flags: 0,
    ehsize: HEADER_SIZE,
    phentsize: SEGMENT_SIZE,
    phnum: extended ? PN_XNUM : count,
    shentsize: extended ? SECTION_SIZE : 0,
    shnum: extended ? 1 : 0,
    shstrndx: 0,
  }).copy(metadata);
  encodeRecord(anchorFields, {
    magic: Buffer.from(ANCHOR_MAGIC),
    format_major: FORMAT_MAJOR,
    format_minor: plan.formatMinor,
    flags: plan.flags,
    metadata_size: BigInt(metadata.length),
    metadata_hash: 0n,
    file_size: plan.fileSize,
    content_size: plan.contentSize,
    notes_offset: BigInt(last.offset),
    notes_size: BigInt(last.content.length),
    reserved: Array.from({ length: 8 }, () => 0n),
  }).copy(metadata, ANCHOR_OFFSET);

  const segment = (index: number, type: number, flags: number, numbers: [bigint, bigint, bigint, bigint, bigint]): void => {
    const entry = SEGMENTS_OFFSET + index * SEGMENT_SIZE;
    const [offset, address, fileSize, memorySize, align] = numbers;
    metadata.writeUInt32LE(type, entry);
    metadata.writeUInt32LE(flags, entry + 4);
    for (const [field, value] of [offset, address, 0n, fileSize, memorySize, align].entries())
      // A damaged core file can have segments that reach around the end of all addresses.
      metadata.writeBigUInt64LE(BigInt.asUintN(64, value), entry + 8 + field * 8);
  };
  segment(0, PT_WARP_ANCHOR, 0, [BigInt(ANCHOR_OFFSET), 0n, BigInt(SEGMENTS_OFFSET - ANCHOR_OFFSET), 0n, 8n]);
  for (const [index, { offset, content, align }] of notes.entries()) {
    segment(1 + index, PT_NOTE, 0, [BigInt(offset), 0n, BigInt(content.length), 0n, align]);
    content.copy(metadata, offset);
  }
  for (const [index, one] of plan.segments.entries()) {
    const flags = (one.readable ? 4 : 0) | (one.writable ? 2 : 0) | (one.executable ? 1 : 0);
    const { offset, address, fileSize, memorySize, align } = one;
    segment(1 + notes.length + index, one.type, flags, [offset, address, fileSize, memorySize, align]);
  }
  if (extended) {
    metadata.writeBigUInt64LE(1n, sectionOffset + 32); // sh_size: sections, as elf(5) has it
    metadata.writeUInt32LE(count, sectionOffset + 44); // sh_info
  }
  await sealMetadata(metadata);
  return metadata;
}

function up(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

/** The payload of a note as it stands in the file. Readers step over notes by 4 or by 8 bytes: both must come to the same place. */
export function padded(descriptor: Buffer): Buffer {
  const missing = -descriptor.length & 7;
  return missing === 0 ? descriptor : Buffer.concat([descriptor, Buffer.alloc(missing)]);
}
