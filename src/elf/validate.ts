import { availableParallelism } from 'node:os';
import { unpackChunks, type Verdicts } from '../engine/chunk-work.js';
import { ImageError } from '../failure.js';
import { hex } from '../hex.js';
import { readChunk, readStored, type ChunkProblem } from './content.js';
import { OPEN_NOTES, type Anchor, type Image } from './image.js';
import { hashOfMetadata, metadataSizeProblem, METADATA_HASH_OFFSET } from './metadata.js';
import { decodeKernelNote, kernelNoteKey, kernelNotes } from './kernel-notes/index.js';
import {
  CHUNK_KNOWN,
  ANCHOR_OFFSET,
  anchorFields,
  CODEC_PLAIN,
  FORMAT_MAJOR,
  LARGEST_CHUNK,
  layoutOf,
  names,
  NONE,
  NOTE_OWNER,
  projectNotes,
  type NoteName,
} from './schema.js';
import { PT_LOAD, PT_NOTE, PT_WARP_ANCHOR, PT_WARP_CHUNKED, type Segment } from './segments.js';
import { FileSource } from './source.js';

/** One fault of an image. */
export interface Finding {
  /** Which rule it breaks. */
  check: string;
  problem: string;
  /** In the file, bytes. */
  offset: bigint | null;
  /** Of the process. */
  address: bigint | null;
  mend: string;
}

export interface Checked {
  segments: number;
  notes: number;
  records: number;
  chunks: number;
  /** Bytes whose hash was compared. */
  content: bigint;
}

const COPY = 'copy the image again, or take a new checkpoint';
const WRITER = 'the writer was wrong: take a new checkpoint with this version of warp-tool and report it';

/**
 * Everything that docs/image-format.md demands of an image of ours, and what any core file must fulfil. Findings come as they are found; `checked`
 * counts what was looked at, and `progress` is told the content bytes hashed so far and in all.
 */
export async function* validateImage(
  image: Image,
  checked: Checked = { segments: 0, notes: 0, records: 0, chunks: 0, content: 0n },
  progress: (done: bigint, total: bigint) => void = () => {},
): AsyncGenerator<Finding> {
  const levels: Image[] = [];
  for (let level: Image | null = image; level; level = level.container) levels.unshift(level);
  for (const level of levels) {
    checked.segments += level.segments.length;
    checked.notes += level.notes.length;
    const content = ContentCheck.start(level, progress);
    try {
      yield* checkSegments(level);
      if (!isAround(level)) yield* checkKernelNotes(level);
      if (!level.anchor) continue;
      yield* checkAnchor(level, level.anchor);
      if (!level.ours) continue;
      yield* checkMetadataHash(level, level.anchor);
      const broken = yield* checkTables(level, checked);
      // What refers to a broken table cannot be judged.
      if (broken) return;
      if (!isAround(level)) {
        yield* checkThreads(level);
        yield* checkAreas(level);
        yield* checkReferences(level);
      }
      yield* checkChunkIndex(level, level.anchor);
      if (content) yield* content.findings();
      else yield* checkChunkContent(level, progress);
      const { chunks } = level;
      for (let chunk = 0; chunk < chunks.length; chunk++) {
        if (chunks.isInParent(chunk)) continue;
        checked.chunks++;
        checked.content += BigInt(chunks.storedSize(chunk));
      }
    } finally {
      await content?.end();
    }
  }
}

/** Whether an image only holds another one: what is encrypted, or a core file of another writer. */
function isAround(image: Image): boolean {
  return image.foreignInside || image.encryptedItself;
}

/** What made an image unreadable, as a finding. */
export function findingOf(error: ImageError): Finding {
  return { check: 'readable', problem: error.problem, offset: error.offset ?? null, address: null, mend: error.mend };
}

function* checkSegments(image: Image): Generator<Finding> {
  const { source, anchor } = image;
  let previous: Segment | undefined;
  const outside: Segment[] = [];
  const pageSize = 4096n;
  for (const segment of image.segments) {
    const { index, type, offset, address, fileSize, memorySize } = segment;
    const place = { offset, address: type === PT_LOAD || type === PT_WARP_CHUNKED ? address : null };
    if (type !== PT_WARP_CHUNKED && fileSize > 0n && offset + fileSize > source.size) outside.push(segment);
    if (type !== PT_LOAD && type !== PT_WARP_CHUNKED) continue;
    if (previous && address < previous.address + previous.memorySize) {
      yield {
        check: 'segments-ascend',
        problem: `segment ${index} at ${hex(address)} overlaps or precedes segment ${previous.index}, which ends at ${hex(previous.address + previous.memorySize)}`,
        ...place,
        mend: WRITER,
      };
    }
    previous = segment;
    if (type === PT_LOAD && fileSize > memorySize) {
      yield {
        check: 'segment-size',
        problem: `segment ${index} has ${fileSize} bytes in the file for ${memorySize} in memory`,
        ...place,
        mend: COPY,
      };
    }
    if (!anchor || isAround(image)) continue;
    if (address % pageSize !== 0n || memorySize % pageSize !== 0n || (fileSize > 0n && offset % pageSize !== 0n)) {
      yield {
        check: 'segment-aligned',
        problem: `segment ${index} is not aligned to pages, so it cannot be mapped`,
        ...place,
        mend: WRITER,
      };
    }
    if (type === PT_LOAD ? fileSize !== 0n && fileSize !== memorySize : fileSize !== 0n) {
      yield { check: 'segment-size', problem: `segment ${index} stores ${fileSize} of ${memorySize} bytes`, ...place, mend: WRITER };
    }
    if (type === PT_LOAD && fileSize > 0n && offset < anchor.metadata_size) {
      yield { check: 'segment-in-content', problem: `segment ${index} lies in the metadata`, ...place, mend: WRITER };
    }
  }
  // A truncated file has one fault, not one for each of its segments.
  if (outside.length > 0) {
    const first = outside.reduce((lowest, segment) => (segment.offset < lowest.offset ? segment : lowest));
    const others = outside.length > 1 ? `, and ${outside.length - 1} more segments` : '';
    yield {
      check: 'segment-in-file',
      problem: `segment ${first.index} (${first.typeName}) ends at ${hex(first.offset + first.fileSize)}, the file at ${hex(source.size)}${others}`,
      offset: first.offset,
      address: first.type === PT_LOAD ? first.address : null,
      mend: `the file is truncated: ${COPY}`,
    };
  }
}

function* checkKernelNotes(image: Image): Generator<Finding> {
  let threads = 0;
  for (const note of image.notes) {
    const key = kernelNoteKey(note);
    if (!key) continue;
    if (key === 'prstatus') threads++;
    try {
      decodeKernelNote(key, note, image.source.name);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      yield { check: 'kernel-note', problem: error.problem, offset: note.offset, address: null, mend: error.mend };
    }
    if (key === 'file') yield* checkFileNote(image, note.descriptor, note.offset);
  }
  if (threads === 0)
    yield { check: 'kernel-note', problem: 'there is no NT_PRSTATUS, so no thread', offset: null, address: null, mend: COPY };
  for (const key of ['prpsinfo', 'auxv'] as const) {
    if (image.anchor && !image.notes.some((note) => kernelNoteKey(note) === key)) {
      yield { check: 'kernel-note', problem: `${kernelNotes[key].name} is missing`, offset: null, address: null, mend: WRITER };
    }
  }
}

function* checkFileNote(image: Image, descriptor: Buffer, offset: bigint): Generator<Finding> {
  const expected = descriptor.readBigUInt64LE(0);
  const found = image.mappedFiles().length;
  if (expected !== BigInt(found)) {
    yield { check: 'kernel-note', problem: `NT_FILE announces ${expected} mappings and holds ${found}`, offset, address: null, mend: COPY };
  }
}

function* checkAnchor(image: Image, anchor: Anchor): Generator<Finding> {
  const at = (field: keyof typeof anchorFields): bigint => {
    const place = layoutOf(anchorFields).places.find((candidate) => candidate.name === field)!;
    return BigInt(ANCHOR_OFFSET + place.offset);
  };
  const finding = (field: keyof typeof anchorFields, problem: string, mend: string): Finding => ({
    check: 'anchor',
    problem: `${field}: ${problem}`,
    offset: at(field),
    address: null,
    mend,
  });
  if (anchor.format_major !== FORMAT_MAJOR) {
    yield finding(
      'format_major',
      `version ${anchor.format_major} is not known`,
      'use the version of warp-tool that wrote the image, or a newer one',
    );
    return;
  }
  if (anchor.file_size > image.source.size) {
    yield finding('file_size', `the file has ${image.source.size} of ${anchor.file_size} bytes`, `the file is truncated: ${COPY}`);
  } else if (anchor.file_size < image.source.size) {
    yield finding('file_size', `the file has ${image.source.size - anchor.file_size} bytes behind its end`, COPY);
  }
  const problem = metadataSizeProblem(anchor.metadata_size);
  if (problem !== null) yield finding('metadata_size', problem, COPY);
  else if (anchor.metadata_size % 4096n !== 0n) {
    yield finding('metadata_size', `${anchor.metadata_size} is not a multiple of the page size`, COPY);
  }
  if (image.header.phoff !== 192n) yield finding('magic', `the program headers are at ${image.header.phoff}, not at 192`, WRITER);
  const own = image.segments.find((segment) => segment.type === PT_WARP_ANCHOR);
  if (!own || own.offset !== BigInt(ANCHOR_OFFSET)) yield finding('magic', 'no PT_WARP_ANCHOR segment leads to the anchor', WRITER);
  const inSegment = image.segments.some(
    ({ type, offset, fileSize }) =>
      type === PT_NOTE && offset <= anchor.notes_offset && anchor.notes_offset + anchor.notes_size <= offset + fileSize,
  );
  if (!inSegment) yield finding('notes_offset', 'the notes are in no PT_NOTE segment', WRITER);
  if (anchor.notes_offset + anchor.notes_size > anchor.metadata_size)
    yield finding('notes_size', 'the notes reach behind the metadata', COPY);
}

async function* checkMetadataHash(image: Image, anchor: Anchor): AsyncGenerator<Finding> {
  // Reported already.
  if (anchor.metadata_size > image.source.size || metadataSizeProblem(anchor.metadata_size) !== null) return;
  const found = await hashOfMetadata(image);
  if (found === anchor.metadata_hash) return;
  yield {
    check: 'metadata-hash',
    problem: `the hash of the metadata is ${hex(found)}, the anchor says ${hex(anchor.metadata_hash)}`,
    offset: BigInt(METADATA_HASH_OFFSET),
    address: null,
    mend: COPY,
  };
}

function requiredNotes(image: Image): NoteName[] {
  if (image.encryptedItself) return ['image', 'encryption', 'chunks'];
  return image.foreignInside ? ['image', 'chunks'] : ['image', 'process', 'threads', 'vmas'];
}

/** Decodes every field of every record. Returns whether a table is unreadable. */
function* checkTables(image: Image, checked: Checked): Generator<Finding, boolean> {
  let broken = false;
  for (const name of Object.keys(projectNotes) as NoteName[]) {
    if (image.encryptedItself && !OPEN_NOTES.has(name)) continue;
    const own = image.notes.filter((note) => note.owner === NOTE_OWNER && note.type === projectNotes[name].type);
    if (own.length > 1) {
      yield {
        check: 'note',
        problem: `the note ${name} is there ${own.length} times`,
        offset: own[1]!.offset,
        address: null,
        mend: WRITER,
      };
    }
    try {
      const table = image.table(name);
      for (let index = 0; index < table.length; index++) table.get(index);
      checked.records += table.length;
      const required = requiredNotes(image);
      if (required.includes(name) && table.length === 0) {
        broken = true;
        yield { check: 'note', problem: `the note ${name} is missing or empty`, offset: null, address: null, mend: WRITER };
      }
      if ((name === 'image' || name === 'process') && table.length > 1) {
        yield {
          check: 'note',
          problem: `the note ${name} has ${table.length} records instead of one`,
          offset: own[0]!.offset,
          address: null,
          mend: WRITER,
        };
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      broken = true;
      yield { check: 'note', problem: error.problem, offset: error.offset ?? null, address: null, mend: error.mend };
    }
  }
  return broken;
}

function* checkThreads(image: Image): Generator<Finding> {
  const finding = (problem: string): Finding => ({ check: 'threads', problem, offset: null, address: null, mend: WRITER });
  const records = [...image.table('threads')];
  const threads = image.threads();
  if (records.length !== threads.length)
    yield finding(`${threads.length} NT_PRSTATUS notes, ${records.length} records in the note threads`);
  for (const [index, { status }] of threads.entries()) {
    const record = records[index];
    if (record && record.tid !== status.tid)
      yield finding(`thread ${index} is ${status.tid} in NT_PRSTATUS and ${record.tid} in the note threads`);
  }
  const leaders = records.filter((record) => (record.flags & 1) !== 0);
  if (leaders.length !== 1) yield finding(`${leaders.length} threads are marked as the leader`);
  const pid = image.single('process')!.pid;
  if (leaders.length === 1 && leaders[0]!.tid !== pid) yield finding(`the leader is ${leaders[0]!.tid}, the process ${pid}`);
  const tids = new Set(records.map((record) => record.tid));
  if (tids.size !== records.length) yield finding('a thread id is there twice');
  const record = image.single('image')!;
  if (record.machine !== image.header.machine)
    yield finding(`the note image is of machine ${record.machine}, the ELF header of ${image.header.machine}`);
  if (record.flags !== image.anchor!.flags)
    yield finding(`flags are ${hex(record.flags)} in the note image and ${hex(image.anchor!.flags)} in the anchor`);
}

/** VMAs ascend, and segments tile every one of them. */
function* checkAreas(image: Image): Generator<Finding> {
  const segments = image.memory.segments;
  let previousEnd = 0n;
  let next = 0;
  const table = image.table('vmas');
  for (const [index, vma] of [...table].entries()) {
    const finding = (check: string, problem: string, address: bigint): Finding => ({ check, problem, offset: null, address, mend: WRITER });
    if (vma.start >= vma.end || vma.start < previousEnd) {
      yield finding(
        'areas-ascend',
        `area ${index} is ${hex(vma.start)}-${hex(vma.end)}, the one before ends at ${hex(previousEnd)}`,
        vma.start,
      );
    }
    previousEnd = vma.end;
    if (!(vma.kind in names.vmaKind)) yield finding('area-kind', `area ${index} is of unknown kind ${vma.kind}`, vma.start);
    while (next < segments.length && segments[next]!.address + segments[next]!.memorySize <= vma.start) next++;
    let covered = vma.start;
    let stored = 0n;
    for (let at = next; at < segments.length && segments[at]!.address < vma.end; at++) {
      const segment = segments[at]!;
      const end = segment.address + segment.memorySize;
      if (segment.address > covered) break;
      covered = end;
      stored += segment.type === PT_WARP_CHUNKED ? segment.memorySize : segment.fileSize;
      const protection = (segment.readable ? 1 : 0) | (segment.writable ? 2 : 0) | (segment.executable ? 4 : 0);
      if (protection !== vma.protection) {
        yield finding(
          'area-protection',
          `segment ${segment.index} has protection ${protection}, its area ${vma.protection}`,
          segment.address,
        );
      }
    }
    const isVvar = vma.kind === 7;
    if (covered < vma.end && !isVvar) yield finding('areas-tiled', `no segment covers ${hex(covered)}-${hex(vma.end)}`, covered);
    else if (covered > vma.end) yield finding('areas-tiled', `a segment reaches behind its area's end ${hex(vma.end)}`, vma.end);
    // Fewer are right: segments also hold the holes that bridge gaps between stored pages.
    else if (vma.stored > stored && !isVvar) {
      yield finding('area-stored', `the area says ${vma.stored} bytes stored, its segments have ${stored}`, vma.start);
    }
    if (vma.resident > vma.end - vma.start) {
      yield finding('area-resident', `the area of ${vma.end - vma.start} bytes says ${vma.resident} bytes resident`, vma.start);
    }
  }
  const last = segments.at(-1);
  if (last && last.address >= previousEnd) {
    yield {
      check: 'areas-tiled',
      problem: `segment ${last.index} belongs to no area`,
      offset: last.offset,
      address: last.address,
      mend: WRITER,
    };
  }
}

/** Index fields: [note, field, note that it refers to, whether "none" is allowed]. */
const REFERENCES: [NoteName, string, NoteName, boolean][] = [
  ['vmas', 'file', 'files', true],
  ['vmas', 'object', 'objects', true],
  ['extents', 'object', 'objects', false],
  ['descriptors', 'description', 'descriptions', false],
  ['sockets', 'peer', 'sockets', true],
  ['epoll_watches', 'description', 'descriptions', false],
  ['epoll_watches', 'target', 'descriptions', true],
  ['inotify_watches', 'description', 'descriptions', false],
  ['accesses', 'chunk', 'chunks', false],
];

const DETAIL_TABLES: Record<number, NoteName> = {
  5: 'pipes',
  6: 'pipes',
  7: 'sockets',
  8: 'eventfds',
  10: 'timerfds',
  11: 'signalfds',
  13: 'objects',
};

function* checkReferences(image: Image): Generator<Finding> {
  const finding = (problem: string, address: bigint | null = null): Finding => ({
    check: 'references',
    problem,
    offset: null,
    address,
    mend: WRITER,
  });
  for (const [note, field, target, optional] of REFERENCES) {
    const size = image.table(target).length;
    for (const [index, record] of [...image.table(note)].entries()) {
      const value = (record as unknown as Record<string, number>)[field]!;
      if (value < size || (optional && value === NONE)) continue;
      yield finding(`note ${note}, record ${index}: ${field} ${value} is not among the ${size} records of ${target}`);
    }
  }
  const policies = image.table('policies').length;
  for (const { number, policy } of image.table('descriptors'))
    if (policy > policies) yield finding(`descriptor ${number}: policy ${policy} is not among the ${policies} records of policies`);
  for (const [index, vma] of [...image.table('vmas')].entries()) {
    if (vma.kind === 2 && vma.file === NONE) yield finding(`note vmas, record ${index}: an area of kind file without a file`, vma.start);
    if (vma.kind === 3 && vma.object === NONE)
      yield finding(`note vmas, record ${index}: an area of kind object without an object`, vma.start);
  }
  for (const [index, { kind, detail }] of [...image.table('descriptions')].entries()) {
    const target = DETAIL_TABLES[kind];
    if (!(kind in names.descriptionKind)) yield finding(`note descriptions, record ${index}: unknown kind ${kind}`);
    if (target && detail >= image.table(target).length) {
      yield finding(
        `note descriptions, record ${index}: detail ${detail} is not among the ${image.table(target).length} records of ${target}`,
      );
    }
  }
  const numbers = new Set<number>();
  for (const { number } of image.table('descriptors')) {
    if (numbers.has(number)) yield finding(`note descriptors: descriptor ${number} is there twice`);
    numbers.add(number);
  }
  const contentSize = image.anchor!.content_size;
  for (const [index, extent] of [...image.table('extents')].entries()) {
    if (extent.content_offset + extent.length > contentSize) yield finding(`note extents, record ${index}: reaches behind the content`);
  }
}

/** Order, sizes and places of chunks, and that all stored memory has one. */
function* checkChunkIndex(image: Image, anchor: Anchor): Generator<Finding> {
  const { chunks } = image;
  const finding = (chunk: number, problem: string): Finding => ({
    check: 'chunk-index',
    problem: `chunk ${chunk}: ${problem}`,
    offset: BigInt(chunks.fileOffset(chunk)),
    address: image.addressOfChunk(chunk),
    mend: COPY,
  });
  const contentSize = Number(anchor.content_size);
  let end = 0;
  const stored: number[] = [];
  for (let chunk = 0; chunk < chunks.length; chunk++) {
    const [offset, size, storedSize, codec] = [
      chunks.contentOffset(chunk),
      chunks.contentSize(chunk),
      chunks.storedSize(chunk),
      chunks.codec(chunk),
    ];
    if (size === 0 || size > LARGEST_CHUNK) yield finding(chunk, `${size} bytes of content`);
    if (offset < end) yield finding(chunk, `content offset ${hex(offset)} is before the end of the chunk before it`);
    end = offset + size;
    if (end > contentSize) yield finding(chunk, `reaches behind the content of ${contentSize} bytes`);
    if (chunks.isInParent(chunk)) continue;
    if (codec === CODEC_PLAIN && !chunks.isEncrypted(chunk)) {
      if (storedSize !== size) yield finding(chunk, `plain, but ${storedSize} bytes for ${size}`);
      if (chunks.storedHash(chunk) !== chunks.contentHash(chunk)) yield finding(chunk, 'plain, but its two hashes differ');
    }
    if (image.encryptedItself) {
      if (!chunks.isEncrypted(chunk)) yield finding(chunk, 'not encrypted, in an encrypted image');
      if (chunks.contentHash(chunk) !== 0n) yield finding(chunk, 'encrypted, but the hash of its content tells what it is');
    }
    if (!(codec in names.codec)) yield finding(chunk, `unknown codec ${codec}`);
    const unknown = chunks.flags(chunk) & ~CHUNK_KNOWN;
    if (unknown !== 0) yield finding(chunk, `unknown flags ${hex(unknown >>> 0)}`);
    stored.push(chunk);
  }
  const places = Uint32Array.from(stored).sort((a, b) => chunks.fileOffset(a) - chunks.fileOffset(b));
  for (let at = 1; at < places.length; at++) {
    const [before, chunk] = [places[at - 1]!, places[at]!];
    const same = chunks.fileOffset(chunk) === chunks.fileOffset(before) && chunks.storedSize(chunk) === chunks.storedSize(before);
    // Equal content may be stored once.
    if (!same && chunks.fileOffset(chunk) < chunks.fileOffset(before) + chunks.storedSize(before))
      yield finding(chunk, `overlaps chunk ${before} in the file`);
  }
  const uncovered = (from: number, to: number): number => {
    let at = from;
    const first = chunks.find(at);
    for (let chunk = first < 0 ? ~first : first; at < to && chunk < chunks.length && chunks.contentOffset(chunk) <= at; chunk++)
      at = chunks.contentEnd(chunk);
    return at;
  };
  for (const segment of image.memory.segments) {
    const limit = Number(segment.offset + image.memory.storedSize(segment));
    const at = uncovered(Number(segment.offset), limit);
    if (at >= limit) continue;
    yield {
      check: 'chunk-index',
      problem: `no chunk covers content offset ${hex(at)} of segment ${segment.index}`,
      offset: BigInt(at),
      address: segment.address + (BigInt(at) - segment.offset),
      mend: WRITER,
    };
  }
  if (image.foreignInside && uncovered(0, contentSize) < contentSize)
    yield {
      check: 'chunk-index',
      problem: `no chunk covers content offset ${hex(uncovered(0, contentSize))}`,
      offset: null,
      address: null,
      mend: WRITER,
    };
}

/** Compares the chunks of a local file with their hashes, in native code on threads of its own, while the metadata is checked here. */
class ContentCheck {
  private readonly abort = new AbortController();
  private readonly verdicts: Promise<Verdicts>;

  private constructor(
    private readonly image: Image,
    source: FileSource,
    progress: (done: bigint, total: bigint) => void,
  ) {
    const work = {
      threads: availableParallelism(),
      signal: this.abort.signal,
      progress: (done: number, total: number) => progress(BigInt(done), BigInt(total)),
    };
    this.verdicts = unpackChunks(image.chunks, source, null, 0, work);
    this.verdicts.catch(() => {}); // shows when it is awaited
  }

  /** Null where the image is no local file, or its chunks cannot be told. */
  static start(image: Image, progress: (done: bigint, total: bigint) => void): ContentCheck | null {
    if (!image.ours || !(image.source instanceof FileSource)) return null;
    try {
      if (image.chunks.length === 0) return null;
    } catch (error) {
      // The check of the tables says why.
      if (error instanceof ImageError) return null;
      throw error;
    }
    return new ContentCheck(image, image.source, progress);
  }

  async *findings(): AsyncGenerator<Finding> {
    const verdicts = await this.verdicts;
    for (const chunk of verdicts.bad()) yield contentFinding(this.image, chunk, { problem: verdicts.problem(chunk)! });
  }

  /** Waits until the file is no longer read; what is not done yet is left. */
  async end(): Promise<void> {
    this.abort.abort();
    await this.verdicts.catch(() => {});
  }
}

/** Every chunk of what is no local file against its hashes. */
async function* checkChunkContent(image: Image, progress: (done: bigint, total: bigint) => void): AsyncGenerator<Finding> {
  const { chunks, source } = image;
  const total = BigInt(chunks.contentBytes());
  let done = 0n;
  for (let chunk = 0; chunk < chunks.length; chunk++) {
    if (!chunks.isInParent(chunk)) {
      try {
        const content = chunks.isEncrypted(chunk) ? await readStored(source, chunks, chunk) : await readChunk(source, chunks, chunk);
        if (!Buffer.isBuffer(content)) yield contentFinding(image, chunk, content);
      } catch (error) {
        // What it is encrypted in is damaged.
        if (!(error instanceof ImageError)) throw error;
        const { problem, mend, offset } = error;
        yield { check: 'chunk-content', problem, offset: offset ?? null, address: image.addressOfChunk(chunk), mend };
      }
    }
    done += BigInt(chunks.contentSize(chunk));
    progress(done, total);
  }
}

function contentFinding(image: Image, chunk: number, { problem, mend = `the content is damaged: ${COPY}` }: ChunkProblem): Finding {
  const { chunks } = image;
  const address = image.addressOfChunk(chunk);
  const vma = address === null || image.foreignInside ? undefined : image.vmaAt(address);
  const where = vma ? ` (${vma.name === '' ? vma.kind : vma.name}, ${chunks.contentSize(chunk)} bytes from ${hex(address!)})` : '';
  return { check: 'chunk-content', problem: `chunk ${chunk}${where} ${problem}`, offset: BigInt(chunks.fileOffset(chunk)), address, mend };
}
