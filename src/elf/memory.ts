import { Failure, ImageError } from '../failure.js';
import { PT_LOAD, PT_WARP_CHUNKED, storedColumns, type StoredColumns, type Segment, type SegmentTable } from './segments.js';
import type { ByteSource } from './source.js';
import { hex } from '../hex.js';

/** What the model reads at once is a header, a string, a block of variables: more is asked for by damaged images only. */
const LARGEST_READ = 64 << 20;

/** Behind the last address. */
export const ADDRESS_END = 1n << 64n;

/** The memory of an image by address: content is read from the source when it is asked for, never before. */
export class Memory {
  /** Null where segments have to be sorted or cut. */
  private readonly inOrder: StoredColumns | null;
  private list: readonly Segment[] | undefined;
  private byOffset: Segment[] | undefined;

  /** `content`: what chunked segments lie in; null where that is not known. `zeroFilled` tells whether memory without content in the file at an address is known to be zeros. */
  constructor(
    private readonly source: ByteSource,
    private readonly content: (() => ByteSource) | null,
    private readonly table: SegmentTable,
    private readonly zeroFilled: (address: bigint) => boolean,
  ) {
    this.inOrder = table.stored(content !== null);
  }

  /** PT_LOAD and PT_WARP_CHUNKED by ascending address. No two overlap, and none has more bytes in the file than in memory. */
  get segments(): readonly Segment[] {
    this.list ??= this.inOrder ? memorySegments(this.table) : disjoint(sorted(memorySegments(this.table)));
    return this.list;
  }

  /** Those whose content is stored, in numbers; only where a segment had to be cut can they be rounded. */
  get columns(): StoredColumns {
    if (this.inOrder) return this.inOrder;
    const stored = this.segments.filter((segment) => this.storedSize(segment) > 0n);
    const columns = storedColumns(stored.length);
    for (const [index, segment] of stored.entries()) {
      columns.starts[index] = Number(segment.address);
      columns.ends[index] = Number(segment.address + this.storedSize(segment));
      columns.offsets[index] = Number(segment.offset);
    }
    return columns;
  }

  /** How many segments had to be cut or left out for that. */
  get cut(): number {
    if (this.inOrder) return 0;
    const all = this.table.all();
    return memorySegments(this.table).length - this.segments.filter((segment) => segment === all[segment.index]).length;
  }

  /** The segment that covers `address`. */
  segmentAt(address: bigint): Segment | undefined {
    const index = this.indexAt(address);
    const segment = this.segments[index];
    return segment && address < segment.address + segment.memorySize ? segment : undefined;
  }

  /** Index of the last segment that starts at or below `address`, -1 for none. */
  indexAt(address: bigint): number {
    let low = 0;
    let high = this.segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.segments[middle]!.address <= address) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Bytes of [start, end) whose content the image holds. */
  stored(start: bigint, end: bigint): bigint {
    let total = 0n;
    for (let index = Math.max(0, this.indexAt(start)); index < this.segments.length; index++) {
      const segment = this.segments[index]!;
      const { address } = segment;
      if (address >= end) break;
      total += max(0n, min(end, address + this.storedSize(segment)) - max(start, address));
    }
    return total;
  }

  /** How much content the image has of a segment, bytes: fewer than it has in memory, or none. */
  storedSize({ type, memorySize, fileSize }: Segment): bigint {
    return type !== PT_WARP_CHUNKED ? fileSize : this.content ? memorySize : 0n;
  }

  /** What a segment's offset is in. */
  sourceOf({ type }: Segment): ByteSource {
    return type === PT_WARP_CHUNKED && this.content ? this.content() : this.source;
  }

  /** The first address whose byte is among `length` bytes at a content offset; null where none is: metadata, and objects that no area maps. */
  addressOf(contentOffset: bigint, length: bigint): bigint | null {
    this.byOffset ??= this.segments.filter((segment) => this.storedSize(segment) > 0n).toSorted((a, b) => (a.offset < b.offset ? -1 : 1));
    let low = 0;
    let high = this.byOffset.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.byOffset[middle]!.offset <= contentOffset) low = middle + 1;
      else high = middle;
    }
    const segment = this.byOffset[low - 1];
    if (segment && contentOffset < segment.offset + this.storedSize(segment)) return segment.address + (contentOffset - segment.offset);
    const next = this.byOffset[low];
    return next && next.offset < contentOffset + length ? next.address : null;
  }

  /** `length` bytes at `address`. Fails when a part is not in the image. */
  async read(address: bigint, length: number): Promise<Buffer> {
    if (length > LARGEST_READ) {
      throw new ImageError(this.source.name, undefined, `${length} bytes at ${hex(address)} are too many to be read at once`, DAMAGED);
    }
    const result = Buffer.alloc(length);
    let done = 0;
    while (done < length) {
      const at = address + BigInt(done);
      const segment = this.segmentAt(at);
      if (!segment) throw new Failure(`${this.source.name}: address ${hex(at)} is not mapped; see \`warp-tool maps\``);
      const inside = at - segment.address;
      const want = BigInt(length - done);
      const stored = this.storedSize(segment);
      if (inside < stored) {
        const size = Number(min(want, stored - inside));
        await this.sourceOf(segment).readInto(segment.offset + inside, result.subarray(done, done + size));
        done += size;
      } else if (this.zeroFilled(at)) {
        done += Number(min(want, segment.memorySize - inside));
      } else {
        throw new Failure(
          `${this.source.name}: memory at ${hex(at)} is not stored in this image; its file has it, or the writer left it out`,
        );
      }
    }
    return result;
  }

  /** Bytes from `address` up to a NUL, at most `limit`. */
  async readString(address: bigint, limit = 4096): Promise<string> {
    const pieces: Buffer[] = [];
    for (let done = 0; done < limit;) {
      // Up to the next page boundary: what is behind it may be missing.
      const step = Math.min(limit - done, 4096 - Number((address + BigInt(done)) & 4095n));
      const piece = await this.read(address + BigInt(done), step);
      const end = piece.indexOf(0);
      pieces.push(end < 0 ? piece : piece.subarray(0, end));
      if (end >= 0) return Buffer.concat(pieces).toString();
      done += step;
    }
    throw new ImageError(this.source.name, undefined, `the string at ${hex(address)} is longer than ${limit} bytes`, DAMAGED);
  }
}

const DAMAGED = 'the image is damaged: see `warp-tool validate`';

function memorySegments(table: SegmentTable): Segment[] {
  return table.all().filter(({ type, memorySize }) => (type === PT_LOAD || type === PT_WARP_CHUNKED) && memorySize > 0n);
}

function sorted(segments: readonly Segment[]): Segment[] {
  return segments.toSorted((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
}

/** Of segments that overlap, the one that starts first has the memory; `segments` ascend. */
function disjoint(segments: readonly Segment[]): Segment[] {
  const result: Segment[] = [];
  let free = 0n;
  for (const segment of segments) {
    const { address, offset, fileSize, memorySize } = segment;
    const start = max(address, free);
    const end = min(address + memorySize, ADDRESS_END);
    if (start >= end) continue;
    free = end;
    if (start === address && end === address + memorySize && fileSize <= memorySize) result.push(segment);
    else {
      const skipped = start - address;
      const stored = max(0n, min(fileSize, end - address) - skipped);
      result.push({ ...segment, address: start, offset: offset + skipped, fileSize: stored, memorySize: end - start });
    }
  }
  return result;
}

export function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

export function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
