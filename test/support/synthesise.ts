import { encodeNote } from '../../src/elf/notes.js';
import {
  ANCHOR_MAGIC,
  ANCHOR_OFFSET,
  anchorFields,
  LARGEST_CHUNK,
  layoutOf,
  NOTE_OWNER,
  projectNotes,
  type Fields,
  type NoteName,
  type NoteRecord,
  type RecordOf,
} from '../../src/elf/schema.js';
import { PT_LOAD, PT_NOTE, PT_WARP_ANCHOR } from '../../src/elf/segments.js';
import { encodeRecord, encodeTable, recordWith as record } from '../../src/elf/table.js';
import { xxh64 } from '../../src/elf/xxh64.js';

export { record };
export const PAGE = 4096;

export interface SegmentPlan {
  address: bigint;
  /** Bytes in memory. */
  size: bigint;
  /** What is in the file; shorter than `size` only in a foreign core. */
  content?: Buffer;
  /** Bits as in p_flags: 4 read, 2 write, 1 execute. Default 6. */
  flags?: number;
}

export interface ForeignPlan {
  segments?: SegmentPlan[];
  notes?: Buffer[];
  /** Writes e_phnum as PN_XNUM whatever the number. */
  extendedCount?: boolean;
}

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

function elfHeader(phoff: number, phnum: number, shoff: number, extended: boolean): Buffer {
  const header = Buffer.alloc(64);
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]).copy(header);
  header.writeUInt16LE(4, 16); // ET_CORE
  header.writeUInt16LE(62, 18); // EM_X86_64
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(phoff), 32);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(extended ? 0xffff : phnum, 56);
  if (extended) {
    header.writeBigUInt64LE(BigInt(shoff), 40);
    header.writeUInt16LE(64, 58);
    header.writeUInt16LE(1, 60);
  }
  return header;
}

function countSection(phnum: number): Buffer {
  const section = Buffer.alloc(64);
  section.writeUInt32LE(phnum, 44); // sh_info
  return section;
}

export function programHeader(
  type: number,
  flags: number,
  offset: number,
  address: bigint,
  fileSize: number,
  memorySize: bigint,
  pageAlign: number,
): Buffer {
  const entry = Buffer.alloc(56);
  entry.writeUInt32LE(type, 0);
  entry.writeUInt32LE(flags, 4);
  entry.writeBigUInt64LE(BigInt(offset), 8);
  entry.writeBigUInt64LE(address, 16);
  entry.writeBigUInt64LE(BigInt(fileSize), 32);
  entry.writeBigUInt64LE(memorySize, 40);
  entry.writeBigUInt64LE(BigInt(pageAlign), 48);
  return entry;
}

/** NT_PRSTATUS with these registers, indices as in struct user_regs_struct. */
export function prstatusNote(tid: number, registers: Record<number, bigint> = {}): Buffer {
  const raw = Buffer.alloc(336);
  raw.writeInt32LE(tid, 32);
  raw.writeBigInt64LE(-1n, 112 + 15 * 8); // orig_rax
  for (const [index, value] of Object.entries(registers)) raw.writeBigUInt64LE(value, 112 + Number(index) * 8);
  return encodeNote('CORE', 1, raw);
}

export function prpsinfoNote(pid: number, name: string): Buffer {
  const raw = Buffer.alloc(136);
  raw[1] = 'S'.codePointAt(0)!;
  raw.writeInt32LE(pid, 24);
  raw.write(name, 40);
  raw.write(`${name} argument `, 56);
  return encodeNote('CORE', 3, raw);
}

export function auxvNote(entries: [number, bigint][]): Buffer {
  const raw = Buffer.alloc((entries.length + 1) * 16);
  for (const [index, [type, value]] of entries.entries()) {
    raw.writeBigUInt64LE(BigInt(type), index * 16);
    raw.writeBigUInt64LE(value, index * 16 + 8);
  }
  return encodeNote('CORE', 6, raw);
}

export function fileNote(entries: { start: bigint; end: bigint; offset: bigint; path: string }[]): Buffer {
  const head = Buffer.alloc(16 + entries.length * 24);
  head.writeBigUInt64LE(BigInt(entries.length), 0);
  head.writeBigUInt64LE(BigInt(PAGE), 8);
  for (const [index, { start, end, offset }] of entries.entries()) {
    head.writeBigUInt64LE(start, 16 + index * 24);
    head.writeBigUInt64LE(end, 24 + index * 24);
    head.writeBigUInt64LE(offset / BigInt(PAGE), 32 + index * 24);
  }
  return encodeNote('CORE', 0x46494c45, Buffer.concat([head, ...entries.map(({ path }) => Buffer.from(`${path}\0`))]));
}

/** A core file as the kernel lays it out: header, segment table, notes, content. */
export function foreignCore({ segments = [], notes = [], extendedCount = false }: ForeignPlan): Buffer {
  const extended = extendedCount || segments.length + 1 >= 0xffff;
  const phnum = segments.length + 1;
  const noteBytes = Buffer.concat(notes);
  const sectionAt = 64 + phnum * 56;
  const notesAt = sectionAt + (extended ? 64 : 0);
  let at = align(notesAt + noteBytes.length, PAGE);
  const headers = [programHeader(PT_NOTE, 0, notesAt, 0n, noteBytes.length, 0n, 4)];
  const content: Buffer[] = [Buffer.alloc(at - notesAt - noteBytes.length)];
  for (const segment of segments) {
    const stored = segment.content?.length ?? 0;
    headers.push(programHeader(PT_LOAD, segment.flags ?? 6, at, segment.address, stored, segment.size, PAGE));
    if (segment.content) content.push(segment.content);
    at += stored;
  }
  return Buffer.concat([
    elfHeader(64, phnum, sectionAt, extended),
    ...headers,
    ...(extended ? [countSection(phnum)] : []),
    noteBytes,
    ...content,
  ]);
}

export type Tables = { [N in NoteName]?: Partial<NoteRecord<N>>[] };

/** The payload of a project note. */
export function table<N extends NoteName>(name: N, records: Partial<NoteRecord<N>>[]): Buffer {
  const { fields } = projectNotes[name];
  return encodeTable(
    fields as Fields,
    records.map((given) => record(fields as Fields, given as never)),
  );
}

export interface ImagePlan {
  segments: SegmentPlan[];
  tables?: Tables;
  /** Kernel notes; by default those of one thread, 100. */
  kernelNotes?: Buffer[];
  /** Further notes of any owner, already encoded with 8-byte alignment. */
  extraNotes?: Buffer[];
  anchor?: Partial<RecordOf<typeof anchorFields>>;
}

/** A valid image of ours (docs/image-format.md) around the given segments; `tables` replaces what follows from them. */
export async function warpImage(plan: ImagePlan): Promise<Buffer> {
  const { segments } = plan;
  const kernel = Buffer.concat(plan.kernelNotes ?? [prstatusNote(100), prpsinfoNote(100, 'synthetic'), auxvNote([[6, BigInt(PAGE)]])]);
  const phnum = segments.length + 3;
  const extended = phnum >= 0xffff;
  const sectionAt = 192 + phnum * 56;
  const kernelAt = sectionAt + (extended ? 64 : 0);
  const notesAt = align(kernelAt + kernel.length, 8);

  const layOut = (metadataSize: number): { projectNotes: Buffer; offsets: number[]; size: number } => {
    let at = metadataSize;
    const offsets = segments.map(({ content }) => {
      const offset = at;
      at += align(content?.length ?? 0, PAGE);
      return offset;
    });
    return { projectNotes: Buffer.concat([...notesOf(plan, offsets), ...(plan.extraNotes ?? [])]), offsets, size: at };
  };
  // Chunk offsets are in the metadata whose size they depend on; their number is not, so a first pass gives the size.
  const metadataSize = align(notesAt + layOut(0).projectNotes.length, PAGE);
  const { projectNotes: own, offsets, size } = layOut(metadataSize);
  await fillHashes(own, chunksOf(segments, offsets));

  const file = Buffer.alloc(size);
  elfHeader(192, phnum, sectionAt, extended).copy(file);
  const headers = [
    programHeader(PT_WARP_ANCHOR, 0, ANCHOR_OFFSET, 0n, 128, 0n, 8),
    programHeader(PT_NOTE, 0, kernelAt, 0n, kernel.length, 0n, 4),
    programHeader(PT_NOTE, 0, notesAt, 0n, own.length, 0n, 8),
    ...segments.map(({ address, size: memory, content, flags }, index) =>
      programHeader(PT_LOAD, flags ?? 6, offsets[index]!, address, content?.length ?? 0, memory, PAGE),
    ),
  ];
  Buffer.concat(headers).copy(file, 192);
  if (extended) countSection(phnum).copy(file, sectionAt);
  kernel.copy(file, kernelAt);
  own.copy(file, notesAt);
  for (const [index, { content }] of segments.entries()) content?.copy(file, offsets[index]!);
  const anchor = record(anchorFields, {
    magic: Buffer.from(ANCHOR_MAGIC),
    format_major: 1,
    metadata_size: BigInt(metadataSize),
    file_size: BigInt(size),
    content_size: BigInt(size),
    notes_offset: BigInt(notesAt),
    notes_size: BigInt(own.length),
    ...plan.anchor,
  });
  encodeRecord(anchorFields, anchor).copy(file, ANCHOR_OFFSET);
  return sealMetadata(file);
}

/** Writes the metadata's hash into an image whose metadata was changed. */
export async function sealMetadata(file: Buffer): Promise<Buffer> {
  const at = ANCHOR_OFFSET + layoutOf(anchorFields).places.find(({ name }) => name === 'metadata_hash')!.offset;
  const size = Number(file.readBigUInt64LE(ANCHOR_OFFSET + 16));
  file.writeBigUInt64LE(0n, at);
  file.writeBigUInt64LE(await xxh64(file.subarray(0, size)), at);
  return file;
}

/** The content of each segment, in pieces of at most 1 MiB. */
function chunksOf(segments: readonly SegmentPlan[], offsets: readonly number[]): { offset: number; content: Buffer }[] {
  const chunks: { offset: number; content: Buffer }[] = [];
  for (const [index, { content = Buffer.alloc(0) }] of segments.entries()) {
    for (let at = 0; at < content.length; at += LARGEST_CHUNK)
      chunks.push({ offset: offsets[index]! + at, content: content.subarray(at, at + LARGEST_CHUNK) });
  }
  return chunks;
}

function notesOf(plan: ImagePlan, offsets: number[]): Buffer[] {
  const { segments, tables = {} } = plan;
  const chunks = chunksOf(segments, offsets).map(({ offset, content }) => ({
    content_offset: BigInt(offset),
    file_offset: BigInt(offset),
    content_size: content.length,
    stored_size: content.length,
  }));
  const protection = (flags: number): number => ((flags & 4) >> 2) | (flags & 2) | ((flags & 1) << 2);
  const all: Tables = {
    image: [{ machine: 62, page_size: PAGE, engine_version: Buffer.from('0.0.1'), executable: Buffer.from('/bin/synthetic') }],
    process: [{ pid: 100 }],
    threads: [{ tid: 100, flags: 1, system_call: -1, name: Buffer.from('synthetic') }],
    vmas: segments.map(({ address, size, content, flags }) => ({
      start: address,
      end: address + size,
      kind: 1,
      protection: protection(flags ?? 6),
      file: 0xffffffff,
      object: 0xffffffff,
      resident: BigInt(content?.length ?? 0),
      stored: BigInt(content?.length ?? 0),
    })),
    chunks,
    ...tables,
  };
  return Object.entries(all).map(([name, records]) =>
    encodeNote(NOTE_OWNER, projectNotes[name as NoteName].type, table(name as NoteName, records as never), 8),
  );
}

/** Fills the hashes of the chunk table inside encoded notes: hashes of content do not change where anything is. */
async function fillHashes(notes: Buffer, chunks: readonly { offset: number; content: Buffer }[]): Promise<void> {
  const { places, size } = layoutOf(projectNotes.chunks.fields);
  const at = (name: string): number => places.find((place) => place.name === name)!.offset;
  const hashOf = new Map<bigint, bigint>();
  for (const { offset, content } of chunks) hashOf.set(BigInt(offset), await xxh64(content));
  for (let note = 0; note + 12 <= notes.length;) {
    const length = notes.readUInt32LE(note + 4);
    const payload = note + 24; // 12 bytes of header, "warp-tool" and its NUL, aligned to 8
    if (notes.readUInt32LE(note + 8) === projectNotes.chunks.type) {
      for (let index = 0; index < notes.readUInt32LE(payload + 4); index++) {
        const chunk = payload + 16 + index * size;
        const hash = hashOf.get(notes.readBigUInt64LE(chunk));
        if (hash === undefined) continue;
        notes.writeBigUInt64LE(hash, chunk + at('content_hash'));
        notes.writeBigUInt64LE(hash, chunk + at('stored_hash'));
      }
    }
    note = align(payload + length, 8);
  }
}
