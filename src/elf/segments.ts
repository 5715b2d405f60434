import elfy from 'elfy';
import { ImageError } from '../failure.js';
import type { ByteSource } from './source.js';

/** Program header types that this project adds, in the range for operating systems (docs/image-format.md). */
export const PT_LOAD = 1;
export const PT_NOTE = 4;
export const PT_WARP_ANCHOR = 0x6a770001;
export const PT_WARP_CHUNKED = 0x6a770002;

export const EM_X86_64 = 62;
export const ET_CORE = 4;

const HEADER_SIZE = 64;
const ENTRY_SIZE = 56;
const SECTION_SIZE = 64;
const PN_XNUM = 0xffff;
/** Sixty-four times what Linux allows unless told otherwise (vm.max_map_count). */
const MOST_SEGMENTS = 1 << 22;

/** An ELF64 file header; names as elf(5) without the `e_`. */
export interface ElfHeader {
  type: number;
  typeName: string;
  machine: number;
  machineName: string;
  phoff: bigint;
  /** The true number of program headers, also where e_phnum is PN_XNUM. */
  phnum: number;
}

/** A program header. Addresses and sizes are exact at any value. */
export interface Segment {
  index: number;
  type: number;
  /** elfy's name in lower case (`load`, `note`), or the number. */
  typeName: string;
  readable: boolean;
  writable: boolean;
  executable: boolean;
  offset: bigint;
  address: bigint;
  fileSize: bigint;
  memorySize: bigint;
  align: bigint;
}

const NAMES_OF_OUR_TYPES: Record<number, string> = { [PT_WARP_ANCHOR]: 'warp_anchor', [PT_WARP_CHUNKED]: 'warp_chunked' };

/** Checks and reads the ELF header at the start of `source`. Only 64-bit little-endian files are accepted. */
export async function readHeader(source: ByteSource): Promise<ElfHeader> {
  const fail = (offset: bigint, problem: string, mend: string): never => {
    throw new ImageError(source.name, offset, problem, mend);
  };
  if (source.size < BigInt(HEADER_SIZE)) {
    fail(0n, `the file has ${source.size} bytes, an ELF header has ${HEADER_SIZE}`, 'give a core file or a directory that holds core.img');
  }
  const raw = await source.read(0n, HEADER_SIZE);
  if (raw.readUInt32BE(0) !== 0x7f454c46) {
    fail(0n, 'this is not an ELF file (no magic number)', 'give a core file or a directory that holds core.img');
  }
  if (raw[4] !== 2) fail(4n, `ELF class ${raw[4]} is not 64-bit`, 'only images of 64-bit processes can be read');
  if (raw[5] !== 1) fail(5n, `ELF data encoding ${raw[5]} is not little-endian`, 'only images of little-endian machines can be read');

  const phoff = raw.readBigUInt64LE(32);
  let phnum = raw.readUInt16LE(56);
  const phentsize = raw.readUInt16LE(54);
  if (phnum !== 0 && phentsize !== ENTRY_SIZE) {
    fail(54n, `program headers have ${phentsize} bytes instead of ${ENTRY_SIZE}`, 'the header is damaged: copy the file again');
  }
  if (phnum === PN_XNUM) {
    const shoff = raw.readBigUInt64LE(40);
    if (shoff === 0n) fail(56n, 'e_phnum is PN_XNUM, but there is no section header with the real count', 'the header is damaged');
    phnum = (await source.read(shoff, SECTION_SIZE)).readUInt32LE(44);
  }
  if (phnum > MOST_SEGMENTS)
    fail(56n, `${phnum} program headers are more than ${MOST_SEGMENTS}`, 'the header is damaged: copy the file again');
  if (phoff + BigInt(phnum) * BigInt(ENTRY_SIZE) > source.size) {
    fail(
      phoff,
      `the table of ${phnum} program headers reaches behind the file's end (${source.size})`,
      'the file is truncated: copy it again',
    );
  }
  const named = elfy.parse(forElfy(raw, Buffer.alloc(0)));
  return {
    type: raw.readUInt16LE(16),
    typeName: named.type ?? String(raw.readUInt16LE(16)),
    machine: raw.readUInt16LE(18),
    machineName: named.machine ?? String(raw.readUInt16LE(18)),
    phoff,
    phnum,
  };
}

const ENTRY_WORDS = ENTRY_SIZE / 8;

/** Memory whose content is stored, by ascending address: addresses, and offsets of the content. */
export interface StoredColumns {
  length: number;
  starts: Float64Array;
  ends: Float64Array;
  offsets: Float64Array;
}

/** Room for so many segments. */
export function storedColumns(length: number): StoredColumns {
  return { length, starts: new Float64Array(length), ends: new Float64Array(length), offsets: new Float64Array(length) };
}

/** The program headers of a file as they stand in it. Sparse images have thousands, so an entry becomes a Segment only when it is asked for. */
export class SegmentTable {
  readonly length: number;
  /** Entries in words of 8 bytes; of each, the first is its type and, in the upper half, its flags. */
  private readonly words: BigUint64Array;
  private readonly halves: Uint32Array;
  private readonly named = new Map<number, Pick<Segment, 'typeName' | 'readable' | 'writable' | 'executable'>>();
  private list: Segment[] | undefined;

  private constructor(
    private readonly header: Buffer,
    entries: Buffer,
  ) {
    const aligned = entries.byteOffset % 8 === 0 ? entries : Buffer.from(new Uint8Array(entries).buffer);
    this.length = aligned.length / ENTRY_SIZE;
    this.words = new BigUint64Array(aligned.buffer, aligned.byteOffset, this.length * ENTRY_WORDS);
    this.halves = new Uint32Array(aligned.buffer, aligned.byteOffset, this.length * ENTRY_WORDS * 2);
  }

  static async read(source: ByteSource, { phoff, phnum }: ElfHeader): Promise<SegmentTable> {
    return new SegmentTable(await source.read(0n, HEADER_SIZE), await source.read(phoff, phnum * ENTRY_SIZE));
  }

  type(index: number): number {
    return this.halves[index * ENTRY_WORDS * 2]!;
  }

  /**
   * The segments of memory in numbers, for passes over all of it; null where they do not ascend, overlap, have more in the file than in memory, or
   * have numbers that would be rounded. `chunked`: whether it is known where chunked content is. Each step is plain arithmetic on arrays: this runs
   * before the compiler has warmed up.
   */
  stored(chunked: boolean): StoredColumns | null {
    const { halves, length } = this;
    const columns = storedColumns(length);
    const { starts, ends, offsets } = columns;
    let last = 0;
    let count = 0;
    for (let index = 0, at = 0; index < length; index++, at += ENTRY_WORDS * 2) {
      const type = halves[at]!;
      if (type !== PT_LOAD && type !== PT_WARP_CHUNKED) continue;
      const size = halves[at + 10]! + halves[at + 11]! * 2 ** 32;
      if (size === 0) continue;
      const start = halves[at + 4]! + halves[at + 5]! * 2 ** 32;
      const fileSize = halves[at + 8]! + halves[at + 9]! * 2 ** 32;
      const end = start + size;
      if (start < last || fileSize > size || end > 2 ** 64) return null;
      // Multiples of a page are exact as doubles, up to the last address.
      if (end > Number.MAX_SAFE_INTEGER && ((halves[at + 4]! | halves[at + 8]! | halves[at + 10]!) & 4095) !== 0) return null;
      if (halves[at + 3]! >= 2 ** 21) return null;
      last = end;
      const stored = type === PT_LOAD ? fileSize : chunked ? size : 0;
      if (stored === 0) continue;
      starts[count] = start;
      ends[count] = start + stored;
      offsets[count] = halves[at + 2]! + halves[at + 3]! * 2 ** 32;
      count++;
    }
    columns.length = count;
    return columns;
  }

  /** All segments, in file order. */
  all(): readonly Segment[] {
    this.list ??= Array.from({ length: this.length }, (_, index) => this.segment(index));
    return this.list;
  }

  has(type: number): boolean {
    for (let index = 0; index < this.length; index++) if (this.type(index) === type) return true;
    return false;
  }

  /** Segments of one type, in file order. */
  ofType(type: number): Segment[] {
    const found: Segment[] = [];
    for (let index = 0; index < this.length; index++) if (this.type(index) === type) found.push(this.list?.[index] ?? this.segment(index));
    return found;
  }

  private segment(index: number): Segment {
    const type = this.type(index);
    const at = index * ENTRY_WORDS;
    const { typeName, readable, writable, executable } = this.namesOf(type, this.halves[at * 2 + 1]!);
    return {
      index,
      type,
      typeName,
      readable,
      writable,
      executable,
      offset: this.words[at + 1]!,
      address: this.words[at + 2]!,
      fileSize: this.words[at + 4]!,
      memorySize: this.words[at + 5]!,
      align: this.words[at + 6]!,
    };
  }

  /** What elfy says of a type and flags: asked once for each kind of entry. */
  private namesOf(type: number, flags: number): Pick<Segment, 'typeName' | 'readable' | 'writable' | 'executable'> {
    const key = type * 8 + (flags & 7);
    let found = this.named.get(key);
    if (!found) {
      const entry = Buffer.alloc(ENTRY_SIZE);
      entry.writeUInt32LE(type, 0);
      entry.writeUInt32LE(flags & 7, 4);
      const { type: name, flags: set } = elfy.parse(forElfy(this.header, entry)).body.programs[0]!;
      found = {
        typeName: name ?? NAMES_OF_OUR_TYPES[type] ?? `0x${type.toString(16)}`,
        readable: set['r'] === true,
        writable: set['w'] === true,
        executable: set['x'] === true,
      };
      this.named.set(key, found);
    }
    return found;
  }
}

/** All program headers, in file order. */
export async function readSegments(source: ByteSource, header: ElfHeader): Promise<readonly Segment[]> {
  return (await SegmentTable.read(source, header)).all();
}

/**
 * elfy parses whole files in memory, insists on a string table (core files have none) and holds 64-bit values as doubles. It gets a small
 * file made of this header, these entries and one empty string table; names and flags come from it, numbers from the raw bytes.
 */
function forElfy(header: Buffer, table: Buffer): Buffer {
  const buffer = Buffer.alloc(HEADER_SIZE + table.length + SECTION_SIZE);
  header.copy(buffer, 0, 0, HEADER_SIZE);
  table.copy(buffer, HEADER_SIZE);
  const section = HEADER_SIZE + table.length;
  buffer.writeBigUInt64LE(BigInt(HEADER_SIZE), 32); // e_phoff
  buffer.writeBigUInt64LE(BigInt(section), 40); // e_shoff
  buffer.writeUInt16LE(ENTRY_SIZE, 54); // e_phentsize
  buffer.writeUInt16LE(table.length / ENTRY_SIZE, 56); // e_phnum
  buffer.writeUInt16LE(SECTION_SIZE, 58); // e_shentsize
  buffer.writeUInt16LE(1, 60); // e_shnum
  buffer.writeUInt16LE(0, 62); // e_shstrndx
  buffer.writeUInt32LE(3, section + 4); // sh_type = SHT_STRTAB
  return buffer;
}
