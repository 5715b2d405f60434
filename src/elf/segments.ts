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

/** All program headers, in file order. */
export async function readSegments(source: ByteSource, header: ElfHeader): Promise<Segment[]> {
  const raw = await source.read(0n, HEADER_SIZE);
  const segments: Segment[] = [];
  // elfy takes e_phnum as it stands, so a table of any length goes through it in pieces that fit below PN_XNUM.
  const step = PN_XNUM - 1;
  for (let first = 0; first < header.phnum; first += step) {
    const length = Math.min(step, header.phnum - first);
    const table = await source.read(header.phoff + BigInt(first * ENTRY_SIZE), length * ENTRY_SIZE);
    const programs = elfy.parse(forElfy(raw, table)).body.programs;
    for (let index = 0; index < length; index++) {
      const at = index * ENTRY_SIZE;
      const type = table.readUInt32LE(at);
      const { type: name, flags } = programs[index]!;
      segments.push({
        index: first + index,
        type,
        typeName: name ?? NAMES_OF_OUR_TYPES[type] ?? `0x${type.toString(16)}`,
        readable: flags['r'] === true,
        writable: flags['w'] === true,
        executable: flags['x'] === true,
        offset: table.readBigUInt64LE(at + 8),
        address: table.readBigUInt64LE(at + 16),
        fileSize: table.readBigUInt64LE(at + 32),
        memorySize: table.readBigUInt64LE(at + 40),
        align: table.readBigUInt64LE(at + 48),
      });
    }
  }
  return segments;
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
