import { codec } from '../engine/codec.js';
import { areaName, type AddressSpace, type Run } from './address-space.js';
import { categories, categoryOf, type Category } from './categories.js';
import { labelsIn, labelsOf, type Label } from './labels.js';
import { arenasOf } from './malloc.js';
import { RunReader } from './memory-diff.js';
import type { Vma } from './vmas.js';
import { xxh64Function } from './xxh64.js';

/**
 * What a cell of an area is, by most of its bytes: `s` stored; `d` stored, a copy of an earlier page; `n` stored, nothing but zeros; `z` zeros
 * that are not stored; `f` in the mapped file; `a` absent.
 */
export type CellState = 's' | 'd' | 'n' | 'z' | 'f' | 'a';
const STATES: readonly CellState[] = ['s', 'd', 'n', 'z', 'f', 'a'];

/** What was found in the stored content of an area or of a category of areas; bytes. */
export interface Content {
  /** Pages that hold nothing but zeros. */
  zero: number;
  /** Pages equal to a page at a lower address, zeros left out. */
  duplicate: number;
  /** Stored, but not to be read: the image is truncated, or compressed in a way that this version does not know. */
  unread: number;
}

export interface AreaComposition extends Content {
  vma: Vma;
  category: Category;
  /** What to call it in a word or path. */
  label: string;
  /** Its cells from its start, as runs: `s12z3`. Each is `Composition.cell` bytes, the last one what is left. */
  cells: string;
}

export interface CategoryComposition extends Content {
  category: Category;
  areas: Vma[];
  /** Bytes read: the stored content, and holes of the file between its pieces. */
  read: number;
  /** Of these, bytes that LZ4 was tried on, and what it made of them. */
  sampled: number;
  packed: number;
}

export interface Composition {
  areas: AreaComposition[];
  /** Those that there are, in the order of `categories`. */
  categories: CategoryComposition[];
  /** Bytes of address space that a cell stands for. */
  cell: number;
  /** Of how many pages one was looked up for duplicates: 1, but for images of more than MOST_PAGES different pages. */
  duplicatesFrom: number;
}

/** Compresses one block; null when it would become no smaller. */
export type Compressor = (block: Buffer) => Promise<Buffer | null>;

const PAGE = 4096;
const WINDOW = 4 << 20;
/** What LZ4 is tried on at once; larger blocks give no better ratio. */
const BLOCK = 256 << 10;
/** Content of each category that LZ4 is tried on at most, spread evenly: bytes. */
const SAMPLE = 64 << 20;
const MOST_CELLS = 16_384;
const ZEROS = Buffer.alloc(PAGE);

/**
 * What an image is made of: areas by purpose, and their stored content page by page. Reads all stored content once; memory stays bounded (two
 * windows, and 8 bytes for each of at most MOST_PAGES different pages, twice). `progress` is told bytes read and to be read.
 */
export async function compositionOf(
  space: AddressSpace,
  progress: (done: number, total: number) => void = () => {},
  compress: Compressor = (block) => codec().compress(block, 1),
): Promise<Composition> {
  const { image } = space;
  const arenas = await arenasOf(image);
  const labels = await labelsOf(space);
  const vmas = image.vmas();
  const totals = new Map<Category, CategoryComposition>();
  const stored = new Map<Category, number>();
  let visible = 0;
  const areas = vmas.map((vma): AreaComposition => {
    const label = arenas.has(vma) ? 'malloc arena' : (nameIn(labels, vma) ?? areaName(vma));
    const category = label === 'malloc arena' || label === 'Java heap' ? 'heap' : categoryOf(vma);
    const total = totals.get(category) ?? { category, areas: [], zero: 0, duplicate: 0, unread: 0, read: 0, sampled: 0, packed: 0 };
    total.areas.push(vma);
    totals.set(category, total);
    stored.set(category, (stored.get(category) ?? 0) + Number(vma.stored));
    visible += Number(vma.stored + vma.fromFile);
    return { vma, category, label, cells: '', zero: 0, duplicate: 0, unread: 0 };
  });
  let cell = PAGE;
  while (visible / cell > MOST_CELLS) cell *= 2;

  const census = new Census(await xxh64Function());
  const samples = new Map([...stored].map(([category, bytes]) => [category, new Sample(Math.min(1, SAMPLE / bytes), compress)]));
  const total = [...stored.values()].reduce((sum, bytes) => sum + bytes, 0);
  let done = 0;
  const reader = new RunReader(space);
  try {
    await reader.next();
    for (const area of areas) {
      const cells = new Cells(cell);
      const sample = samples.get(area.category)!;
      let read = 0;
      while (reader.run && reader.run.vma === area.vma) {
        const { run } = reader;
        if (run.from === 'image') {
          const pages = await readPages(reader, run);
          census.count(pages, area, cells);
          await sample.offer(pages);
          read += pages.length;
          done += pages.length;
          progress(Math.min(done, total), total);
          await reader.advance(reader.at + BigInt(pages.length));
        } else {
          cells.add(unstoredState(run), Number(run.end - reader.at));
          await reader.advance(run.end);
        }
      }
      // Holes of the file that bridge gaps were read as zeros, but are not stored.
      const bridged = Math.max(0, read - Number(area.vma.stored));
      area.zero = Math.max(0, area.zero - bridged);
      area.unread = Math.max(0, Number(area.vma.stored) - read);
      area.cells = area.zero === 0 ? cells.text().replaceAll('n', 'z') : cells.text();
      const sum = totals.get(area.category)!;
      sum.zero += area.zero;
      sum.duplicate += area.duplicate;
      sum.unread += area.unread;
      sum.read += read;
    }
    for (const [category, sample] of samples) Object.assign(totals.get(category)!, sample.result());
  } finally {
    await reader.close();
  }
  return { areas, categories: categories.flatMap((one) => totals.get(one) ?? []), cell, duplicatesFrom: census.divisor };
}

/** What nameless memory is for, where most of it is for one thing. */
function nameIn(labels: readonly Label[], vma: Vma): string | null {
  if (vma.kind !== 'anonymous' || vma.stackOf !== null) return null;
  const parts = new Map<string, bigint>();
  for (const { part, bytes } of labelsIn(labels, vma)) parts.set(part, (parts.get(part) ?? 0n) + bytes);
  const most = [...parts].reduce((best, one) => (one[1] > best[1] ? one : best), ['', 0n]);
  return most[1] * 2n > vma.end - vma.start ? most[0] : null;
}

function unstoredState({ from, vma }: Run): CellState {
  // What is stored but cannot be read still counts as stored.
  if (vma.absence === 'file') return 'f';
  if (from === 'absent') return vma.absence === 'zero' ? 's' : 'a';
  return 'z';
}

/** Whole pages from where the reader is, as many as are at hand; at the end of a run what is left of it. */
async function readPages(reader: RunReader, run: Run): Promise<Buffer> {
  const left = Number(run.end - reader.at);
  const bytes = await reader.bytes(reader.at, Math.min(left, WINDOW));
  if (bytes.length >= left || bytes.length % PAGE === 0) return bytes;
  if (bytes.length > PAGE) return bytes.subarray(0, bytes.length - (bytes.length % PAGE));
  // A page of a file that is not aligned, on both sides of a window's end.
  const page = Buffer.alloc(Math.min(PAGE, left));
  for (let at = bytes.copy(page); at < page.length;) at += (await reader.bytes(reader.at + BigInt(at), page.length - at)).copy(page, at);
  return page;
}

/** Different pages that are kept to be recognised; what is above is estimated. 8 GiB of them. */
export const MOST_PAGES = 1 << 21;

/**
 * Tells pages apart by their hash. Past `most` of them it keeps only hashes with some bits zero: of such a class it knows every page, so each
 * duplicate found in it stands for `divisor` of them.
 */
export class Census {
  divisor = 1;
  /** Open addressing; low and high half of each hash, 0 for none. */
  private slots = new Uint32Array(2 * 4096);
  private used = 0;
  private readonly scratch = new BigUint64Array(1);
  private readonly halves = new Uint32Array(this.scratch.buffer);

  constructor(
    private readonly hash: (page: Uint8Array) => bigint,
    private readonly most = MOST_PAGES,
  ) {}

  /** Counts the pages of `bytes`, and tells `cells` what they are. */
  count(bytes: Buffer, content: Content, cells: { add(state: CellState, bytes: number): void }): void {
    for (let at = 0; at < bytes.length; at += PAGE) {
      const end = Math.min(at + PAGE, bytes.length);
      let state: CellState = 's';
      if (bytes.compare(ZEROS, 0, end - at, at, end) === 0) {
        state = 'n';
        content.zero += end - at;
      } else if (this.seen(bytes.subarray(at, end))) {
        state = 'd';
        content.duplicate += (end - at) * this.divisor;
      }
      cells.add(state, end - at);
    }
  }

  private seen(page: Uint8Array): boolean {
    this.scratch[0] = this.hash(page);
    const low = (this.halves[0]! | 1) >>> 0; // 0 marks a free slot
    const high = this.halves[1]!;
    if (high % this.divisor !== 0) return false;
    if (this.insert(low, high)) return true;
    this.used++;
    while (this.used > this.most) this.thin();
    if (this.used * 4 > this.slots.length) this.rebuild(this.slots.length * 2);
    return false;
  }

  /** Whether it was there before. */
  private insert(low: number, high: number): boolean {
    const { slots } = this;
    const mask = slots.length / 2 - 1;
    let at = ((low >>> 1) ^ (high >>> 16)) & mask;
    for (; slots[2 * at] !== 0; at = (at + 1) & mask) if (slots[2 * at] === low && slots[2 * at + 1] === high) return true;
    slots[2 * at] = low;
    slots[2 * at + 1] = high;
    return false;
  }

  private thin(): void {
    this.divisor *= 2;
    this.rebuild(this.slots.length);
  }

  private rebuild(length: number): void {
    const old = this.slots;
    this.slots = new Uint32Array(length);
    this.used = 0;
    for (let at = 0; at < old.length; at += 2) {
      if (old[at] === 0 || old[at + 1]! % this.divisor !== 0) continue;
      this.insert(old[at]!, old[at + 1]!);
      this.used++;
    }
  }
}

/** Evenly spread blocks of content, compressed. */
class Sample {
  private sampled = 0;
  private packed = 0;
  private passed = 0;
  private windows = 0;
  private next = 0;
  private random = 1;

  /** `share` of the content is taken. */
  constructor(
    private readonly share: number,
    private readonly compress: Compressor,
  ) {}

  async offer(bytes: Buffer): Promise<void> {
    const blocks: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += BLOCK) {
      const block = bytes.subarray(at, at + BLOCK);
      if (this.share >= 1 || this.passed >= this.next) {
        blocks.push(block);
        // Somewhere in the next window: content that repeats itself must not be met in step.
        this.random = (Math.imul(this.random, 1_664_525) + 1_013_904_223) >>> 0;
        this.next = ((++this.windows + this.random / 2 ** 32) * BLOCK) / this.share;
      }
      this.passed += block.length;
    }
    const packed = await Promise.all(blocks.map(async (block) => (await this.compress(block))?.length ?? block.length));
    for (const [index, block] of blocks.entries()) {
      this.sampled += block.length;
      this.packed += packed[index]!;
    }
  }

  result(): Pick<CategoryComposition, 'sampled' | 'packed'> {
    return { sampled: this.sampled, packed: this.packed };
  }
}

/** Runs of equal cells; each cell is what most of its bytes are. */
export class Cells {
  private readonly counts = new Map<CellState, number>();
  private filled = 0;
  private readonly runs: { state: CellState; length: number }[] = [];

  constructor(private readonly cell: number) {}

  add(state: CellState, bytes: number): void {
    let left = bytes;
    while (left > 0) {
      if (this.filled === 0 && left >= this.cell) {
        const whole = Math.floor(left / this.cell);
        this.emit(state, whole);
        left -= whole * this.cell;
        continue;
      }
      const take = Math.min(left, this.cell - this.filled);
      this.counts.set(state, (this.counts.get(state) ?? 0) + take);
      this.filled += take;
      left -= take;
      if (this.filled === this.cell) this.close();
    }
  }

  text(): string {
    if (this.filled > 0) this.close();
    return this.runs.map(({ state, length }) => `${state}${length}`).join('');
  }

  private close(): void {
    const most = STATES.reduce((best, state) => ((this.counts.get(state) ?? 0) > (this.counts.get(best) ?? 0) ? state : best));
    this.emit(most, 1);
    this.counts.clear();
    this.filled = 0;
  }

  private emit(state: CellState, length: number): void {
    const last = this.runs.at(-1);
    if (last?.state === state) last.length += length;
    else this.runs.push({ state, length });
  }
}
