import { displayWidth, fit } from '../terminal/width.js';
import type { Line, Look, Span } from './line.js';
import type { Text } from './state.js';

/** What enter leads to. */
export type Target =
  | { to: 'address'; address: bigint }
  | { to: 'thread'; index: number }
  | { to: 'text'; text: Text }
  | { to: 'toggle'; key: string };

/** The lines of one view. They are made one by one when the screen needs them: the number of rows costs nothing. */
export interface Rows {
  readonly count: number;
  /** What there is to say of all of them. */
  readonly summary: string;
  /** Column titles. */
  header(width: number): Line;
  row(index: number, width: number): Line;
  /** At most two lines on the row with the cursor. */
  detail?(index: number, width: number): Line[];
  /** What enter does on a row; null: nothing. */
  target?(index: number): Target | null;
  /** There is no cursor; the whole text scrolls. */
  readonly scrolls?: boolean;
}

export interface TableColumn<Item> {
  title: string;
  align?: 'left' | 'right';
  /** Columns on the screen; `rest`: what the others leave (one column of a table); a range: as its cells need. */
  width: number | 'rest' | { most: number };
  /** Which end of a text that is too long remains. */
  keep?: 'start' | 'end';
  /** Shown on screens of at least so many columns. */
  from?: number;
  /** Printable text. */
  cell: (item: Item) => string;
  look?: (item: Item) => Look;
}

const GAP = '  ';
const MEASURED = 2000;
const LEAST_REST = 12;

interface TableParts<Item> {
  count: number;
  item: (index: number) => Item;
  summary: string;
  columns: TableColumn<Item>[];
  detail?: (item: Item, width: number) => Line[];
  target?: (item: Item, index: number) => Target | null;
}

/** Items as a table. Widths come from the titles, the given numbers and the first cells. */
export class Table<Item> implements Rows {
  readonly count: number;
  readonly summary: string;
  private readonly widths: number[];

  constructor(private readonly parts: TableParts<Item>) {
    this.count = parts.count;
    this.summary = parts.summary;
    this.widths = parts.columns.map(({ width, title, cell }) => {
      if (width === 'rest') return 0;
      if (typeof width === 'number') return Math.max(width, title.length);
      let widest = title.length;
      for (let index = 0; index < Math.min(parts.count, MEASURED) && widest < width.most; index++) {
        widest = Math.max(widest, displayWidth(cell(parts.item(index))));
      }
      return Math.min(widest, Math.max(width.most, title.length));
    });
  }

  header(width: number): Line {
    return this.line(width, ({ title }) => [title, { bold: true }]);
  }

  row(index: number, width: number): Line {
    const item = this.parts.item(index);
    return this.line(width, ({ cell, look }) => [cell(item), look ? look(item) : {}]);
  }

  detail(index: number, width: number): Line[] {
    return this.parts.detail?.(this.parts.item(index), width) ?? [];
  }

  target(index: number): Target | null {
    return this.parts.target?.(this.parts.item(index), index) ?? null;
  }

  private line(width: number, content: (column: TableColumn<Item>) => readonly [string, Look]): Line {
    const shown = this.parts.columns
      .map((column, index) => ({ column, own: this.widths[index]! }))
      .filter(({ column }) => width >= (column.from ?? 0));
    const taken = shown.reduce((sum, { own }) => sum + own, 0) + GAP.length * (shown.length - 1);
    const spans: Span[] = [];
    for (const { column, own } of shown) {
      const [text, look] = content(column);
      const columns = column.width === 'rest' ? Math.max(LEAST_REST, width - taken) : own;
      if (spans.length > 0) spans.push(GAP);
      spans.push([fit(text, columns, column.align, column.keep), look]);
    }
    return spans;
  }
}

/** A table of an array. */
export function tableOf<Item>(items: readonly Item[], parts: Omit<TableParts<Item>, 'count' | 'item'>): Table<Item> {
  return new Table<Item>({ ...parts, count: items.length, item: (index) => items[index]! });
}

/** Lines to read; they scroll as a whole. */
export class TextRows implements Rows {
  readonly scrolls = true;
  readonly count: number;

  constructor(
    readonly summary: string,
    private readonly lines: readonly Line[],
  ) {
    this.count = lines.length;
  }

  header(): Line {
    return [];
  }

  row(index: number): Line {
    return this.lines[index]!;
  }
}

/** Breaks a line into lines of at most `width` columns. */
export function wrapLine(line: Line, width: number): Line[] {
  const lines: Span[][] = [[]];
  let used = 0;
  for (const span of line) {
    const [text, look] = typeof span === 'string' ? [span, {}] : span;
    let piece = '';
    for (const character of text) {
      const columns = displayWidth(character);
      if (used + columns > width) {
        lines.at(-1)!.push([piece, look]);
        lines.push([]);
        piece = '';
        used = 0;
      }
      piece += character;
      used += columns;
    }
    lines.at(-1)!.push([piece, look]);
  }
  return lines;
}
