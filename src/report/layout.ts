import type { Category } from '../elf/categories.js';
import type { CellState } from '../elf/composition.js';

/** Columns that a row is divided into. */
export const COLUMNS = 1000;
/** Rows that a map has at most, as far as the number of areas allows. */
const ROWS = 28;
const LEAST_ROW = 64 << 10;
/** Address space without any area that starts a new block of rows, at least: bytes; and how many blocks there may be. */
const BLOCK_GAP = 1n << 30n;
const BLOCKS = 6;
/** Columns of a break, where there are not too many of them. */
const BREAK = 56;

/** What the map needs to know of a memory area. */
export interface MapArea {
  start: bigint;
  end: bigint;
  category: Category;
  /** As in `Composition`: `s12z3`. */
  cells: string;
  /** Areas with the same key that follow each other are one region. */
  region: string;
}

/** What a column shows: memory of a category in a state, or `-` for address space without memory. */
export interface Fill {
  category: Category | null;
  state: CellState | '-';
}

export interface Stripe extends Fill {
  row: number;
  /** Columns. */
  from: number;
  to: number;
}

/** A stretch that is not drawn to scale. */
export interface Break extends Fill {
  row: number;
  /** Columns, not whole. */
  from: number;
  to: number;
  /** Of address space. */
  bytes: number;
}

/** Where a region is in a row. */
export interface Extent {
  row: number;
  /** Columns, not whole. */
  from: number;
  to: number;
  /** Indices of its areas, the last one included. */
  first: number;
  last: number;
}

/** Areas that are near each other. */
export interface Block {
  start: bigint;
  end: bigint;
  first: number;
  last: number;
  /** Address at which each row starts. */
  rows: bigint[];
  stripes: Stripe[];
  breaks: Break[];
  extents: Extent[];
}

export interface Layout {
  /** Bytes that a whole row stands for. */
  row: number;
  blocks: Block[];
}

interface Piece extends Fill {
  /** Null for address space between areas. */
  area: number | null;
  start: bigint;
  bytes: number;
}

/**
 * Lays memory out in rows, all to one scale: address space runs from left to right and from row to row. Long stretches with nothing in the image
 * (unmapped, untouched, in a file) become breaks of equal width, and very long unmapped ones start a new block.
 */
export function layOut(areas: readonly MapArea[], cell: number): Layout {
  const blocks = piecesOf(areas, cell);
  let row = LEAST_ROW;
  const total = (): { columns: number; breaks: number; rows: number } => {
    let [columns, breaks, rows] = [0, 0, 0];
    for (const pieces of blocks) {
      let inBlock = 0;
      for (const piece of joined(pieces, areas, row)) {
        if (isLong(piece, row)) breaks++;
        else inBlock += piece.bytes / row;
      }
      columns += inBlock * COLUMNS;
      rows += Math.ceil(inBlock);
    }
    return { columns, breaks, rows };
  };
  let size = total();
  while (size.rows > Math.max(ROWS, blocks.length)) {
    row *= 2;
    size = total();
  }
  // Breaks may take half of the map.
  const breakWidth = Math.min(BREAK, Math.max(1, (Math.max(ROWS, size.rows) * COLUMNS) / 2 / Math.max(1, size.breaks)));
  return { row, blocks: blocks.map((pieces) => drawBlock(joined(pieces, areas, row), areas, row, breakWidth)) };
}

function isLong({ state, bytes }: Piece, row: number): boolean {
  return bytes > row / 4 && (state === '-' || state === 'z' || state === 'f' || state === 'a');
}

/** Least gap between blocks: V8 strews its pages over terabytes, which must not make a block of each. */
function blockGap(areas: readonly MapArea[]): bigint {
  const gaps = areas.slice(1).map(({ start }, index) => start - areas[index]!.end);
  let least = BLOCK_GAP;
  while (gaps.filter((gap) => gap >= least).length >= BLOCKS) least *= 2n;
  return least;
}

function piecesOf(areas: readonly MapArea[], cell: number): Piece[][] {
  const blocks: Piece[][] = [];
  const least = blockGap(areas);
  let end: bigint | null = null;
  for (const [index, area] of areas.entries()) {
    if (end === null || area.start - end >= least) blocks.push([]);
    else if (area.start > end) {
      blocks.at(-1)!.push({ area: null, category: null, state: '-', start: end, bytes: Number(area.start - end) });
    }
    const pieces = blocks.at(-1)!;
    let at = area.start;
    for (const [, state, length] of area.cells.matchAll(/([sdnzfa])(\d+)/g)) {
      const size = BigInt(length!) * BigInt(cell);
      const bytes = Number(at + size < area.end ? size : area.end - at);
      pieces.push({ area: index, category: area.category, state: state as CellState, start: at, bytes });
      at += size;
    }
    if (end === null || area.end > end) end = area.end;
  }
  return blocks;
}

/** Long pieces of one region that follow each other are one break. */
function* joined(pieces: readonly Piece[], areas: readonly MapArea[], row: number): Generator<Piece> {
  const regionOf = ({ area }: Piece): string | null => (area === null ? null : areas[area]!.region);
  let last: Piece | undefined;
  for (const piece of pieces) {
    if (last && isLong(last, row) && isLong(piece, row) && regionOf(last) === regionOf(piece)) {
      last.bytes += piece.bytes;
      continue;
    }
    if (last) yield last;
    last = { ...piece };
  }
  if (last) yield last;
}

function drawBlock(pieces: Iterable<Piece>, areas: readonly MapArea[], row: number, breakWidth: number): Block {
  const rows: bigint[] = [];
  const breaks: Break[] = [];
  const extents: Extent[] = [];
  const painter = new Painter();
  let [x, line] = [0, -1];
  let [first, last] = [-1, -1];
  let start: bigint | null = null;
  let end = 0n;
  for (const piece of pieces) {
    const { area, category, state, bytes } = piece;
    const isBreak = isLong(piece, row);
    const width = isBreak ? breakWidth : (bytes / row) * COLUMNS;
    start ??= piece.start;
    end = piece.start + BigInt(bytes);
    if (area !== null) {
      if (first < 0) first = area;
      last = area;
    }
    for (let done = 0; done < width;) {
      if (line < 0 || x >= COLUMNS - 1e-6) {
        line++;
        x = 0;
        rows.push((piece.start + BigInt(Math.floor((bytes * done) / width))) & -4096n);
      }
      const take = Math.min(width - done, COLUMNS - x);
      painter.paint(line, x, x + take, { category, state });
      if (isBreak && take > width / 2) breaks.push({ row: line, from: x, to: x + take, category, state, bytes });
      if (area !== null) {
        const previous = extents.at(-1);
        const same = previous && areas[previous.last]!.region === areas[area]!.region;
        if (same && previous.row === line && previous.to > x - 1e-6) {
          previous.to = x + take;
          previous.last = area;
        } else extents.push({ row: line, from: x, to: x + take, first: area, last: area });
      }
      x += take;
      done += take;
      // Rounding must not leave a sliver that never ends.
      if (width - done < 1e-6) break;
    }
  }
  return { start: start ?? 0n, end, first, last, rows, stripes: painter.finish(), breaks, extents };
}

/** Gives each column what takes most of it, and makes stripes of equal columns. */
class Painter {
  private readonly stripes: Stripe[] = [];
  private row = 0;
  private column = 0;
  private weights: { fill: Fill; weight: number }[] = [];

  paint(row: number, from: number, to: number, fill: Fill): void {
    for (let x = from; x < to - 1e-9;) {
      const column = Math.min(COLUMNS - 1, Math.floor(x + 1e-9));
      if (row !== this.row || column !== this.column) {
        this.close();
        this.row = row;
        this.column = column;
      }
      const whole = Math.floor(to + 1e-9);
      if (x <= column + 1e-9 && whole > column + 1) {
        // All of these columns show nothing else.
        this.weights = [];
        this.emit(column, whole, fill);
        x = whole;
        this.column = whole;
        continue;
      }
      const end = Math.min(to, column + 1);
      const known = this.weights.find((one) => one.fill.category === fill.category && one.fill.state === fill.state);
      if (known) known.weight += end - x;
      else this.weights.push({ fill, weight: end - x });
      x = end;
    }
  }

  finish(): Stripe[] {
    this.close();
    return this.stripes;
  }

  private close(): void {
    if (this.weights.length === 0) return;
    const most = this.weights.reduce((best, one) => (one.weight > best.weight ? one : best));
    this.weights = [];
    this.emit(this.column, this.column + 1, most.fill);
  }

  private emit(from: number, to: number, { category, state }: Fill): void {
    if (state === '-') return;
    const last = this.stripes.at(-1);
    if (last && last.row === this.row && last.to === from && last.category === category && last.state === state) last.to = to;
    else this.stripes.push({ row: this.row, from, to, category, state });
  }
}
