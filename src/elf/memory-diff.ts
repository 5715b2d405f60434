import { readRun, type AddressSpace, type Range, type Run } from './address-space.js';
import { max, min } from './memory.js';
import type { ByteSource } from './source.js';
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

/** Compares the memory of two images page by page, by address. `progress` is told bytes of address space that were passed. */
export async function diffMemory(a: AddressSpace, b: AddressSpace, progress: (done: bigint) => void = () => {}): Promise<MemoryDifference> {
  const result: MemoryDifference = { areas: [], onlyA: 0n, onlyB: 0n };
  const left = new RunReader(a);
  const right = new RunReader(b);
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
        to = await compareRuns(left, right, from, to, area);
      } else if (here[0] === left) result.onlyA += to - from;
      else result.onlyB += to - from;
      done += to - from;
      progress(done);
      for (const side of here) await side.advance(to);
    }
  } finally {
    await Promise.all([left.close(), right.close()]);
  }
  return result;
}

/** Compares from `from` up to `to` or the end of a window; returns how far it came. */
async function compareRuns(left: RunReader, right: RunReader, from: bigint, to: bigint, area: AreaDifference): Promise<bigint> {
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
  const want = Number(min(to - from, BigInt(WINDOW)));
  const [before, after] = await Promise.all([left.bytes(from, want), right.bytes(from, want)]);
  const length = Math.min(before.length, after.length);
  for (let block = 0; block < length; block += BLOCK) {
    const end = Math.min(length, block + BLOCK);
    if (before.compare(after, block, end, block, end) === 0) continue;
    for (let page = block; page < end; page += PAGE) {
      const pageEnd = Math.min(end, page + PAGE);
      if (before.compare(after, page, pageEnd, page, pageEnd) !== 0) addPage(area, (from + BigInt(page)) & -BigInt(PAGE));
    }
  }
  area.compared += BigInt(length);
  return from + BigInt(length);
}

function addPage(area: AreaDifference, address: bigint): void {
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
