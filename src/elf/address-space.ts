import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import type { Image } from './image.js';
import { max, min } from './memory.js';
import { Modules } from './modules.js';
import { ContentSource } from './content.js';
import { FileSource, type ByteSource } from './source.js';
import { findVma, vmaIndex, type Vma } from './vmas.js';

/** A stretch of one memory area whose bytes come from one place. */
export interface Run {
  start: bigint;
  end: bigint;
  vma: Vma;
  /** `file`: from the mapped file as it is on this machine, which was found to be the one that was mapped. */
  from: 'image' | 'zero' | 'file' | 'absent';
  /** What to read, and where in it `start` is; only for `image` and `file`. */
  source: ByteSource | null;
  offset: bigint;
  /** Why the bytes cannot be had; null unless `absent`. */
  reason: string | null;
}

/** Bytes of a run without another place for them. */
type Unstored = Pick<Run, 'start' | 'end' | 'vma'>;

const PAGE = 4096n;

/** Part of the address space: from `start` up to `end`. */
export interface Range {
  start: bigint;
  end: bigint;
}

const EVERYTHING: Range = { start: 0n, end: 1n << 64n };

/**
 * A process's memory as it was: what the image stores, zeros where it says so, and for the rest the mapped files, each only when it is still the
 * file that was mapped. Close it after use.
 */
export class AddressSpace {
  readonly modules: Modules;
  private readonly files = new Map<string, Promise<FileSource | string>>();

  constructor(readonly image: Image) {
    this.modules = new Modules(image);
  }

  async close(): Promise<void> {
    for (const file of this.files.values()) {
      const opened = await file;
      if (typeof opened !== 'string') await opened.close();
    }
  }

  /** Runs of the areas that `selects` accepts, cut to `range`, by ascending address. They cover these areas without gaps. */
  async *runs(range: Range = EVERYTHING, selects: (vma: Vma) => boolean = () => true): AsyncGenerator<Run> {
    const vmas = this.image.vmas();
    for (let index = vmaIndex(vmas, range.start); index < vmas.length; index++) {
      const vma = vmas[index]!;
      if (vma.start >= range.end) return;
      if (vma.end <= range.start || !selects(vma)) continue;
      yield* this.runsOf(vma, max(vma.start, range.start), min(vma.end, range.end));
    }
  }

  private async *runsOf(vma: Vma, start: bigint, end: bigint): AsyncGenerator<Run> {
    const { segments } = this.image.memory;
    let at = start;
    for (let index = max0(this.image.memory.indexAt(start)); index < segments.length && at < end; index++) {
      const segment = segments[index]!;
      if (segment.address >= end) break;
      if (segment.address + segment.memorySize <= at) continue;
      if (segment.address > at) {
        yield* this.unstored({ start: at, end: segment.address, vma });
        at = segment.address;
      }
      const source = this.image.memory.sourceOf(segment);
      const size = this.image.memory.storedSize(segment);
      const present = segment.offset >= source.size ? 0n : min(size, source.size - segment.offset);
      const storedEnd = min(end, segment.address + present);
      while (at < storedEnd) {
        const offset = segment.offset + (at - segment.address);
        const { end: pieceEnd, reason } = availability(source, offset, segment.offset + (storedEnd - segment.address));
        const to = segment.address + (pieceEnd - segment.offset);
        if (reason === null) yield { start: at, end: to, vma, from: 'image', source, offset, reason };
        else yield { start: at, end: to, vma, from: 'absent', source: null, offset: 0n, reason };
        at = to;
      }
      const cutEnd = min(end, segment.address + size);
      if (at < cutEnd) {
        const reason = 'the image is truncated before it; copy it again';
        yield { start: at, end: cutEnd, vma, from: 'absent', source: null, offset: 0n, reason };
        at = cutEnd;
      }
      const limit = min(end, segment.address + segment.memorySize);
      if (at < limit) {
        yield* this.unstored({ start: at, end: limit, vma });
        at = limit;
      }
    }
    if (at < end) yield* this.unstored({ start: at, end, vma });
  }

  /** Memory without content in the image. */
  private async *unstored(piece: Unstored): AsyncGenerator<Run> {
    const { start, end, vma } = piece;
    const absent = (reason: string, from = start): Run => ({ ...piece, start: from, from: 'absent', source: null, offset: 0n, reason });
    if (vma.absence === 'zero') {
      yield { ...piece, from: 'zero', source: null, offset: 0n, reason: null };
      return;
    }
    if (vma.absence === 'unknown') {
      const kernels = vma.kind === 'vvar' || vma.kind === 'vsyscall';
      const leftOut =
        this.image.anchor && !this.image.ours
          ? 'it is stored in a way that this version does not know, if at all'
          : "the image's writer left it out";
      yield absent(kernels ? 'it belongs to the kernel, which no image holds' : leftOut);
      return;
    }
    const file = await this.fileOf(vma);
    if (typeof file === 'string') {
      yield absent(file);
      return;
    }
    const offset = vma.offset + (start - vma.start);
    // The rest of a file's last page is zeros; pages behind it are none.
    const contentEnd = min(end, max(start, start + file.size - offset));
    const pageEnd = min(end, max(start, start + ((file.size + PAGE - 1n) & -PAGE) - offset));
    if (start < contentEnd) yield { ...piece, end: contentEnd, from: 'file', source: file, offset, reason: null };
    if (contentEnd < pageEnd) yield { ...piece, start: contentEnd, end: pageEnd, from: 'zero', source: null, offset: 0n, reason: null };
    if (pageEnd < end) yield absent(`it is behind the end of ${vma.name}`, pageEnd);
  }

  /** The mapped file of an area, or why it cannot be used. */
  private fileOf(vma: Vma): Promise<FileSource | string> {
    let file = this.files.get(vma.name);
    if (!file) {
      file = this.openFile(vma);
      this.files.set(vma.name, file);
    }
    return file;
  }

  private async openFile(vma: Vma): Promise<FileSource | string> {
    const state = await this.modules.state(vma);
    if (state === 'missing') return `it is not in the image, and its file ${vma.name} is missing here`;
    if (state === 'changed') return `it is not in the image, and its file ${vma.name} has changed since`;
    if (state === 'unknown')
      return `it is not in the image, and the image does not tell whether ${vma.name} is still the file that was mapped`;
    try {
      return await FileSource.open(vma.name);
    } catch (error) {
      return `it is not in the image, and its file cannot be read: ${(error as Error).message}`;
    }
  }

  /** `length` bytes at `address`; fails where one of them is not mapped or cannot be had. */
  async read(address: bigint, length: number): Promise<Buffer> {
    const result = Buffer.alloc(length);
    const end = address + BigInt(length);
    let at = address;
    for await (const run of this.runs({ start: address, end })) {
      if (run.start > at) break;
      if (run.from === 'absent') throw new Failure(this.absence(run));
      await readRun(run, result.subarray(Number(at - address), Number(run.end - address)));
      at = run.end;
    }
    if (at < end) throw new Failure(this.unmapped(at));
    return result;
  }

  /** One line that tells why the bytes of an absent run cannot be shown. */
  absence(run: Run): string {
    return `${this.image.source.name}: no memory for ${hex(run.start)}: ${run.reason}`;
  }

  /** One line for an address that no area covers. */
  unmapped(address: bigint): string {
    const { name } = this.image.source;
    const vmas = this.image.vmas();
    const next = vmas.find((vma) => vma.start > address);
    const previous = vmas.findLast((vma) => vma.end <= address);
    const near = [
      previous && `the area before it ends at ${hex(previous.end)}`,
      next && `the next one starts at ${hex(next.start)}`,
    ].filter(Boolean);
    return `${name}: address ${hex(address)} is not mapped${near.length > 0 ? ` (${near.join(', ')})` : ''}; see \`warp-tool maps\``;
  }

  /** Where a pointer points: a symbol, or an offset in a named area; null when it points nowhere. */
  async describe(address: bigint): Promise<PointerTarget | null> {
    const vma = findVma(this.image.vmas(), address);
    if (!vma) return null;
    const location = await this.modules.locate(address);
    return { vma, offset: address - vma.start, symbol: location.symbol, symbolOffset: location.symbolOffset };
  }
}

export interface PointerTarget {
  vma: Vma;
  /** From the area's start, bytes. */
  offset: bigint;
  symbol: string | null;
  /** From the symbol's start, bytes. */
  symbolOffset: number | null;
}

/** Fills `buffer` from the start of a run that is not absent. */
export async function readRun(run: Run, buffer: Buffer, from = run.start): Promise<void> {
  if (run.source) await run.source.readInto(run.offset + (from - run.start), buffer);
  else buffer.fill(0);
}

/** How far content can be had from an offset on, or cannot and why; chunks of a delta may be in its parent. */
function availability(source: ByteSource, offset: bigint, limit: bigint): { end: bigint; reason: string | null } {
  return source instanceof ContentSource ? source.availability(offset, limit) : { end: limit, reason: null };
}

/** What to call an area in one word or path. */
export function areaName(vma: Vma): string {
  if (vma.name !== '') return vma.name;
  return vma.stackOf === null ? vma.kind : `stack of thread ${vma.stackOf}`;
}

function max0(index: number): number {
  return index < 0 ? 0 : index;
}
