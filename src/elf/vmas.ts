import type { Image } from './image.js';
import { ADDRESS_END, max, min } from './memory.js';
import { bitNames, nameOf, names, NONE } from './schema.js';
import type { Segment } from './segments.js';

/** A memory area of the process and what the image holds of it. Sizes are bytes; stored + zero + fromFile + absent = end - start. */
export interface Vma {
  start: bigint;
  end: bigint;
  /** In the mapped file or object, bytes. */
  offset: bigint;
  kind: string;
  /** Bits: 1 read, 2 write, 4 execute. Null where the image does not tell (areas that a foreign core only names). */
  protection: number | null;
  /** Null where the image does not tell (foreign core files). */
  shared: boolean | null;
  flags: string[];
  /** Path of the mapped file, `[heap]`, a memory file's name …; empty for nameless memory. */
  name: string;
  /** Index into the note `files`, null for none. */
  file: number | null;
  object: number | null;
  /** Present in memory or swap at the capture; null where the image does not tell. */
  resident: bigint | null;
  /** Content is in this image (plain, compressed or in its parent). */
  stored: bigint;
  /** Known to be zeros without being stored. */
  zero: bigint;
  /** To be taken from the mapped file. */
  fromFile: bigint;
  /** Not in the image and not known. */
  absent: bigint;
  /** Bytes that the stored content takes in the file; equals `stored` without compression. */
  packed: bigint;
  /** What memory of this area that is not stored holds. */
  absence: 'zero' | 'file' | 'unknown';
  /** Thread whose stack pointer is here. */
  stackOf: number | null;
}

export function protectionText(vma: Pick<Vma, 'protection' | 'shared'>): string {
  const { protection, shared } = vma;
  if (protection === null) return '???';
  const sharing = shared === null ? '' : shared ? 's' : 'p';
  return `${protection & 1 ? 'r' : '-'}${protection & 2 ? 'w' : '-'}${protection & 4 ? 'x' : '-'}${sharing}`;
}

/** What an area is; what the image holds of it comes with its content. */
type Area = Omit<Vma, 'stored' | 'zero' | 'fromFile' | 'absent' | 'packed' | 'stackOf'>;

/** `recorded`: what the note `vmas` says is stored, without the holes that bridge gaps; null in foreign core files. */
interface Areas {
  vmas: Vma[];
  recorded: readonly bigint[] | null;
}

export function buildVmas(image: Image): Vma[] {
  const found = image.ours ? ourAreas(image) : foreignAreas(image);
  const { vmas, recorded } = disjoint(found);
  const lost = found.vmas.length - vmas.length;
  if (vmas !== found.vmas) {
    image.warnings.push(
      `memory areas overlap or end before they start${lost > 0 ? `, and ${lost} of them are left out` : ''}: see \`warp-tool validate\``,
    );
  }
  addContent(vmas, recorded, image);
  markStacks(vmas, image);
  return vmas;
}

/** The areas by ascending address; of those that overlap, the first has the memory. What is in order is given back as it is. */
function disjoint(areas: Areas): Areas {
  const { vmas, recorded } = areas;
  const inOrder = vmas.every(
    ({ start, end }, index) => start < end && end <= ADDRESS_END && (index === 0 || vmas[index - 1]!.end <= start),
  );
  if (inOrder) return areas;
  const sorted = vmas
    .map((vma, index) => ({ vma, limit: recorded?.[index] ?? 0n }))
    .toSorted((a, b) => (a.vma.start < b.vma.start ? -1 : 1));
  const kept: typeof sorted = [];
  for (const { vma, limit } of sorted) {
    const start = max(vma.start, kept.at(-1)?.vma.end ?? 0n);
    const end = min(vma.end, ADDRESS_END);
    if (start < end) kept.push({ vma: { ...vma, start, end, offset: vma.offset + (start - vma.start) }, limit });
  }
  return { vmas: kept.map(({ vma }) => vma), recorded: recorded && kept.map(({ limit }) => limit) };
}

/** Spelled out: spreading objects takes seconds for the areas of a large core file. */
function emptyVma(area: Area): Vma {
  const { start, end, offset, kind, protection, shared, flags, name, file, object, resident, absence } = area;
  return {
    start,
    end,
    offset,
    kind,
    protection,
    shared,
    flags,
    name,
    file,
    object,
    resident,
    stored: 0n,
    zero: 0n,
    fromFile: 0n,
    absent: 0n,
    packed: 0n,
    absence,
    stackOf: null,
  };
}

/** An area of a core file that tells no more than this. */
function foreignVma(start: bigint, end: bigint, offset: bigint, kind: string, protection: number | null, name: string): Vma {
  return emptyVma({
    start,
    end,
    offset,
    kind,
    protection,
    shared: null,
    flags: [],
    name,
    file: null,
    object: null,
    resident: null,
    // The kernel leaves out what a file has, and what coredump_filter or MADV_DONTDUMP excludes.
    absence: kind === 'file' ? 'file' : 'unknown',
  });
}

function ourAreas(image: Image): Areas {
  const vmas: Vma[] = [];
  const recorded: bigint[] = [];
  for (const record of image.table('vmas')) {
    const kind = nameOf(names.vmaKind, record.kind);
    recorded.push(record.stored);
    vmas.push(
      emptyVma({
        start: record.start,
        end: record.end,
        offset: record.offset,
        kind,
        protection: record.protection,
        shared: (record.flags & 1) !== 0,
        flags: bitNames(names.vmaFlags, record.flags & ~1),
        name: record.name.toString(),
        file: record.file === NONE ? null : record.file,
        object: record.object === NONE ? null : record.object,
        resident: record.resident,
        // What a kind that a later format brought has where nothing is stored is not known to be zeros.
        absence: kind === 'file' ? 'file' : kind === 'vvar' || !(record.kind in names.vmaKind) ? 'unknown' : 'zero',
      }),
    );
  }
  return { vmas, recorded };
}

/** What the kernel calls files that exist in memory only: shared anonymous memory, memfd_create(2), shmget(2). */
export const MEMORY_FILE = /^\/(?:dev\/zero|memfd:.*|SYSV[0-9a-f]{8}) \(deleted\)$/s;

/** Core files of the kernel and of gcore: one PT_LOAD for each area, paths from NT_FILE, kinds as far as registers and AT_ values tell. */
function foreignAreas(image: Image): Areas {
  const files = image.mappedFiles().toSorted((a, b) => (a.start < b.start ? -1 : 1));
  const vdso = image.auxvValue('AT_SYSINFO_EHDR');
  const leader = image.threads().find((thread) => thread.leader) ?? image.threads()[0];
  const stackPointer = leader?.status.registers.rsp;
  const inside = (address: bigint | null | undefined, segment: Segment): boolean =>
    address !== null && address !== undefined && address >= segment.address && address < segment.address + segment.memorySize;
  let next = 0;
  const vmas = image.memory.segments.map((segment) => {
    while (next < files.length && files[next]!.end <= segment.address) next++;
    const file = files[next] && files[next]!.start <= segment.address ? files[next] : undefined;
    let kind = file ? (MEMORY_FILE.test(file.path) ? 'object' : 'file') : 'anonymous';
    let name = file?.path ?? '';
    if (inside(vdso, segment)) [kind, name] = ['vdso', '[vdso]'];
    else if (segment.address >= 0xffff_8000_0000_0000n) [kind, name] = ['vsyscall', '[vsyscall]'];
    else if (!file && inside(stackPointer, segment)) [kind, name] = ['stack', '[stack]'];
    const protection = (segment.readable ? 1 : 0) | (segment.writable ? 2 : 0) | (segment.executable ? 4 : 0);
    const offset = file ? file.offset + (segment.address - file.start) : 0n;
    return foreignVma(segment.address, segment.address + segment.memorySize, offset, kind, protection, name);
  });
  // gcore gives unmodified file memory no segment at all; NT_FILE still names it.
  const unlisted = files.filter((file) => image.memory.segmentAt(file.start) === undefined);
  for (const { start, end, offset, path } of unlisted) {
    vmas.push(foreignVma(start, end, offset, MEMORY_FILE.test(path) ? 'object' : 'file', null, path));
  }
  return { vmas: unlisted.length > 0 ? vmas.toSorted((a, b) => (a.start < b.start ? -1 : 1)) : vmas, recorded: null };
}

/**
 * What the image holds of each area. In numbers, not bigint: there can be tens of thousands of segments, and all of these are multiples of a page or
 * small, so that nothing is rounded.
 */
function addContent(vmas: Vma[], recorded: Areas['recorded'], image: Image): void {
  const { length, starts, ends, offsets } = image.memory.columns;
  const { packing } = image;
  let next = 0;
  for (const [at, vma] of vmas.entries()) {
    const [start, end] = [Number(vma.start), Number(vma.end)];
    let stored = 0;
    let inFile = 0;
    // Content of one piece: what is adjacent in memory or has zeros between it mostly is.
    let contentStart = 0;
    let contentEnd = 0;
    while (next < length && ends[next]! <= start) next++;
    for (let index = next; index < length && starts[index]! < end; index++) {
      const from = Math.max(starts[index]!, start);
      const size = Math.min(ends[index]!, end) - from;
      if (size <= 0) continue;
      stored += size;
      const offset = offsets[index]! + (from - starts[index]!);
      if (offset !== contentEnd) {
        if (packing) inFile += packing.storedBytes(contentStart, contentEnd);
        contentStart = offset;
      }
      contentEnd = offset + size;
    }
    inFile = packing ? inFile + packing.storedBytes(contentStart, contentEnd) : stored;
    vma.stored = min(BigInt(stored), vma.end - vma.start);
    vma.packed = BigInt(inFile);
    const limit = recorded?.[at] ?? vma.stored;
    if (limit < vma.stored) {
      vma.stored = limit;
      if (!packing) vma.packed = limit;
    }
    const rest = vma.end - vma.start - vma.stored;
    if (vma.absence === 'zero') vma.zero = rest;
    else if (vma.absence === 'file') vma.fromFile = rest;
    else vma.absent = rest;
  }
}

function markStacks(vmas: Vma[], image: Image): void {
  for (const thread of image.threads()) {
    const vma = findVma(vmas, thread.status.registers.rsp);
    if (vma) vma.stackOf ??= thread.tid;
  }
}

/** The area that covers `address`; `vmas` ascend. */
export function findVma(vmas: readonly Vma[], address: bigint): Vma | undefined {
  const found = vmas[vmaIndex(vmas, address)];
  return found && found.start <= address ? found : undefined;
}

/** Index of the first area that ends behind `address`: the one that covers it, or the next; `vmas` ascend. */
export function vmaIndex(vmas: readonly Vma[], address: bigint): number {
  let low = 0;
  let high = vmas.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (vmas[middle]!.end <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}
