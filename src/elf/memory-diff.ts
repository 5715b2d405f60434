import { codecIfBuilt, type Codec } from '../engine/codec.js';
import { readRun, type AddressSpace, type Range, type Run } from './address-space.js';
import { max, min } from './memory.js';
import { FileSource, type ByteSource } from './source.js';
import type { Vma } from './vmas.js';

/** What comparing found in one memory area of B (of A where B has none). */
export interface AreaDifference {
  vma: Vma;
  /** Bytes that both have and that could be compared. */
  compared: bigint;
  /** Pages with at least one different byte. */
  pages: number;
  /** Stretches of such pages, ascending. */
  ranges: Range[];
  /** Bytes that both have mapped, but that one of them cannot show. */
  unknown: bigint;
}

export interface MemoryDifference {
  areas: AreaDifference[];
  /** Bytes mapped in one of them only. */
  onlyA: bigint;
  onlyB: bigint;
}

const PAGE = 4096;
const WINDOW = 4 << 20;
const BLOCK = 64 << 10;
const ZEROS = Buffer.alloc(WINDOW);
/** Of struct compared in native/src/node/search.h: zeros. */
const ZERO_OFFSET = (1n << 64n) - 1n;
/** Batches that are being compared while another is put together. */
const AHEAD = 3;
const LARGEST_BATCH = 4096;

interface Stretch {
  area: AreaDifference;
  from: bigint;
  offsets: [bigint, bigint];
  size: bigint;
}

/** What one call of native code compares; its two files, where there are any but zeros. */
interface Batch {
  a?: FileSource;
  b?: FileSource;
  stretches: Stretch[];
  bytes: bigint;
}

/** Compares the memory of two images page by page, by address. `progress` is told bytes of address space that were passed. */
export async function diffMemory(a: AddressSpace, b: AddressSpace, progress: (done: bigint) => void = () => {}): Promise<MemoryDifference> {
  const result: MemoryDifference = { areas: [], onlyA: 0n, onlyB: 0n };
  const left = new RunReader(a);
  const right = new RunReader(b);
  const native = codecIfBuilt();
  const files = native && new FileComparison(native);
  let area: AreaDifference | undefined;
  let done = 0n;
  try {
    await Promise.all([left.next(), right.next()]);
    while (left.run || right.run) {
      const from = left.run && right.run ? min(left.at, right.at) : left.run ? left.at : right.at;
      const here = [left, right].filter((side) => side.run && side.at === from);
      const limits = [left, right].filter((side) => side.run).map((side) => (side.at === from ? side.run!.end : side.at));
      let to = limits.reduce((least, limit) => min(least, limit));
      if (here.length === 2) {
        const { vma } = right.run!;
        if (area?.vma !== vma) {
          area = { vma, compared: 0n, pages: 0, ranges: [], unknown: 0n };
          result.areas.push(area);
        }
        to = await compareRuns(left, right, from, to, area, files);
      } else if (here[0] === left) result.onlyA += to - from;
      else result.onlyB += to - from;
      done += to - from;
      progress(done);
      for (const side of here) await side.advance(to);
    }
    await files?.finish();
  } finally {
    await files?.settle();
    await Promise.all([left.close(), right.close()]);
  }
  return result;
}

/** Compares from `from` up to `to` or the end of a window; returns how far it came. */
async function compareRuns(
  left: RunReader,
  right: RunReader,
  from: bigint,
  to: bigint,
  area: AreaDifference,
  files: FileComparison | null,
): Promise<bigint> {
  const [one, other] = [left.run!, right.run!];
  if (one.from === 'absent' || other.from === 'absent') {
    // What is the kernel's is not the process's to differ.
    if (area.vma.kind !== 'vvar') area.unknown += to - from;
    return to;
  }
  const sameFile = one.from === 'file' && other.from === 'file' && one.vma.name === other.vma.name;
  const sameBytes = sameFile && one.offset + (from - one.start) === other.offset + (from - other.start);
  if (sameBytes || (one.from === 'zero' && other.from === 'zero')) {
    area.compared += to - from;
    return to;
  }
  const end = min(to, from + BigInt(WINDOW));
  if (await files?.take(left, right, from, end, area)) return end;
  await files?.finish(); // pages are added in their order
  const want = Number(end - from);
  const [before, after] = await Promise.all([left.bytes(from, want), right.bytes(from, want)]);
  const length = Math.min(before.length, after.length);
  comparePages(area, from, before.subarray(0, length), after.subarray(0, length));
  area.compared += BigInt(length);
  return from + BigInt(length);
}

function comparePages(area: AreaDifference, from: bigint, before: Buffer, after: Buffer): void {
  const { length } = before;
  for (let block = 0; block < length; block += BLOCK) {
    const end = Math.min(length, block + BLOCK);
    if (before.compare(after, block, end, block, end) === 0) continue;
    for (let page = block; page < end; page += PAGE) {
      const pageEnd = Math.min(end, page + PAGE);
      if (before.compare(after, page, pageEnd, page, pageEnd) !== 0) addPage(area, from + BigInt(page));
    }
  }
}

/** Memory of two files, or of one and zeros, that native code compares on other threads while the walk goes on. */
class FileComparison {
  private batch: Batch | undefined;
  private readonly running: { batch: Batch; found: Promise<Buffer | null> }[] = [];

  constructor(private readonly native: Codec) {}

  /** Takes over what is to be compared; false when it is not in two files. */
  async take(left: RunReader, right: RunReader, from: bigint, to: bigint, area: AreaDifference): Promise<boolean> {
    const [a, b] = [placeOf(left, from, to), placeOf(right, from, to)];
    if (!a || !b || (!a.file && !b.file)) return false;
    if (this.batch && ((a.file && this.batch.a && a.file !== this.batch.a) || (b.file && this.batch.b && b.file !== this.batch.b)))
      await this.begin();
    this.batch ??= { stretches: [], bytes: 0n };
    const { batch } = this;
    batch.a ??= a.file;
    batch.b ??= b.file;
    batch.stretches.push({ area, from, offsets: [a.offset, b.offset], size: to - from });
    batch.bytes += to - from;
    if (batch.bytes >= BigInt(WINDOW) || batch.stretches.length === LARGEST_BATCH) await this.begin();
    return true;
  }

  /** Waits until all that was taken is in the areas. */
  async finish(): Promise<void> {
    await this.begin();
    while (this.running.length > 0) await this.collect();
  }

  /** Waits for what is under way. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.running.map(({ found }) => found));
  }

  private async begin(): Promise<void> {
    const { batch } = this;
    if (!batch) return;
    this.batch = undefined;
    const table = new BigUint64Array(3 * batch.stretches.length);
    for (const [index, { offsets, size }] of batch.stretches.entries()) {
      table[3 * index] = offsets[0];
      table[3 * index + 1] = offsets[1];
      table[3 * index + 2] = size;
    }
    const found = this.native.compare(Buffer.from(table.buffer), batch.a?.fd ?? -1, batch.b?.fd ?? -1);
    found.catch(() => {}); // shows when it is awaited
    this.running.push({ batch, found });
    if (this.running.length > AHEAD) await this.collect();
  }

  private async collect(): Promise<void> {
    const { batch, found } = this.running[0]!;
    const differing = await found.catch(() => undefined);
    this.running.shift();
    if (differing === undefined) {
      // The ordinary way tells why.
      for (const stretch of batch.stretches) await readAndCompare(batch, stretch);
    }
    for (let at = 0; at < (differing?.length ?? 0); at += 8) {
      const { area, from } = batch.stretches[differing!.readUInt32LE(at)]!;
      addPage(area, from + BigInt(differing!.readUInt32LE(at + 4)));
    }
    for (const { area, size } of batch.stretches) area.compared += size;
  }
}

async function readAndCompare({ a, b }: Batch, { area, from, offsets, size }: Stretch): Promise<void> {
  const read = async (file: FileSource | undefined, offset: bigint): Promise<Buffer> =>
    file ? file.read(offset, Number(size)) : ZEROS.subarray(0, Number(size));
  const [before, after] = await Promise.all([read(a, offsets[0]), read(b, offsets[1])]);
  comparePages(area, from, before, after);
}

/** Where the bytes of a walk's next stretch are: in a file, or nowhere because they are zeros; null for elsewhere. */
function placeOf({ run }: RunReader, from: bigint, to: bigint): { file?: FileSource; offset: bigint } | null {
  if (run!.from === 'zero') return { offset: ZERO_OFFSET };
  if (!(run!.source instanceof FileSource)) return null;
  const offset = run!.offset + (from - run!.start);
  return offset + (to - from) <= run!.source.size ? { file: run!.source, offset } : null;
}

function addPage(area: AreaDifference, at: bigint): void {
  const address = at & -BigInt(PAGE);
  const last = area.ranges.at(-1);
  // A page can come in two parts where a file's content ends inside it.
  if (last && address < last.end) return;
  area.pages++;
  if (last && last.end === address) last.end += BigInt(PAGE);
  else area.ranges.push({ start: address, end: address + BigInt(PAGE) });
}

export const ROW = 16;

/** Rows of 16 bytes in which two images differ. */
export interface RowDifference {
  address: bigint;
  a: Buffer;
  b: Buffer;
}

/** The first `limit` rows that differ in these stretches of pages, which both can show, and whether there are more. */
export async function differingRows(
  a: AddressSpace,
  b: AddressSpace,
  ranges: readonly Range[],
  limit: number,
): Promise<{ rows: RowDifference[]; more: boolean }> {
  const rows: RowDifference[] = [];
  for (const { start, end } of ranges) {
    for (let page = start; page < end; page += BigInt(PAGE)) {
      const [before, after] = await Promise.all([readShown(a, page), readShown(b, page)]);
      for (let at = 0; at < Math.min(before.length, after.length); at += ROW) {
        const [one, other] = [before.subarray(at, at + ROW), after.subarray(at, at + ROW)];
        if (one.equals(other)) continue;
        if (rows.length === limit) return { rows, more: true };
        rows.push({ address: page + BigInt(at), a: one, b: other });
      }
    }
  }
  return { rows, more: false };
}

/** A page up to the first byte that is not mapped or cannot be had. */
async function readShown(space: AddressSpace, page: bigint): Promise<Buffer> {
  const bytes = Buffer.alloc(PAGE);
  let at = page;
  for await (const run of space.runs({ start: page, end: page + BigInt(PAGE) })) {
    if (run.start > at || run.from === 'absent') break;
    await readRun(run, bytes.subarray(Number(run.start - page), Number(run.end - page)));
    at = run.end;
  }
  return bytes.subarray(0, Number(at - page));
}

/** Walks the runs of one image and gives their bytes; the image's file is read ahead in large windows. */
export class RunReader {
  run: Run | null = null;
  /** How far the walk is. */
  at = 0n;
  private readonly runs: AsyncGenerator<Run>;
  private ahead: ReadAhead | undefined;
  /** For what is not in the image. */
  private piece: Buffer | undefined;

  constructor(space: AddressSpace) {
    this.runs = space.runs();
  }

  async next(): Promise<void> {
    const { value, done } = await this.runs.next();
    this.run = done ? null : value;
    // Areas of a damaged core may overlap: what was passed is not compared again.
    if (this.run) this.at = max(this.at, this.run.start);
    if (this.run && this.run.end <= this.at) await this.next();
  }

  async advance(to: bigint): Promise<void> {
    this.at = to;
    if (this.run && this.at >= this.run.end) await this.next();
  }

  /** Bytes at `address` of the current run: at least one, at most `length`. */
  async bytes(address: bigint, length: number): Promise<Buffer> {
    const run = this.run!;
    if (!run.source) return ZEROS.subarray(0, length);
    const offset = run.offset + (address - run.start);
    if (run.from === 'image') {
      if (this.ahead?.source !== run.source) {
        await this.ahead?.settle();
        this.ahead = new ReadAhead(run.source);
      }
      return this.ahead.bytes(offset, length);
    }
    const piece = (this.piece ??= Buffer.allocUnsafe(WINDOW)).subarray(0, length);
    await run.source.readInto(offset, piece);
    return piece;
  }

  async close(): Promise<void> {
    await this.ahead?.settle();
  }
}

interface Window {
  start: bigint;
  length: number;
  buffer: Buffer;
  ready: Promise<void>;
}

/** Reads a file that is used mostly in sequence: the next window is on its way while one is used. */
class ReadAhead {
  private current: Window | undefined;
  private following: Window | undefined;
  private readonly buffers: Buffer[];

  constructor(readonly source: ByteSource) {
    const size = Number(min(BigInt(WINDOW), source.size));
    this.buffers = [Buffer.allocUnsafe(size), Buffer.allocUnsafe(size)];
  }

  async bytes(offset: bigint, length: number): Promise<Buffer> {
    if (!this.current || !holds(this.current, offset)) {
      if (this.following && holds(this.following, offset)) this.current = this.following;
      else {
        await this.settle();
        this.current = this.begin(offset);
      }
      this.following = undefined;
      await this.current.ready;
      const end = this.current.start + BigInt(this.current.length);
      if (end < this.source.size) this.following = this.begin(end);
    }
    const { start, buffer } = this.current;
    const at = Number(offset - start);
    return buffer.subarray(at, Math.min(at + length, this.current.length));
  }

  /** Waits for reads under way. */
  async settle(): Promise<void> {
    await this.following?.ready.catch(() => {});
  }

  private begin(start: bigint): Window {
    const length = Number(min(BigInt(WINDOW), this.source.size - start));
    const buffer = this.buffers.find((one) => one !== this.current?.buffer)!;
    const ready = this.source.readInto(start, buffer.subarray(0, length));
    ready.catch(() => {}); // shows when it is awaited
    return { start, length, buffer, ready };
  }
}

function holds({ start, length }: Window, offset: bigint): boolean {
  return offset >= start && offset < start + BigInt(length);
}
