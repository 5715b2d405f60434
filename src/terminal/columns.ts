import { displayWidth } from './width.js';

export interface Column<Row> {
  title: string;
  /** Plain text of the cell. */
  cell: (row: Row) => string;
  align?: 'left' | 'right';
  /** Colours the padded cell; must not change its width. */
  style?: (text: string, row: Row) => string;
}

/**
 * Lines of a table whose length is not bounded. Widths come from one pass over the cells, then lines are made one at a time: time and memory
 * are linear in the number of rows. The last column is never padded, so that it may be long.
 */
export function* columns<Row>(
  rows: readonly Row[],
  layout: readonly Column<Row>[],
  headerStyle: (text: string) => string,
): Generator<string> {
  const widths = layout.map((column) => displayWidth(column.title));
  for (const row of rows) {
    for (const [index, column] of layout.entries()) widths[index] = Math.max(widths[index]!, displayWidth(column.cell(row)));
  }
  const last = layout.length - 1;
  const pad = (text: string, index: number): string => {
    const fill = ' '.repeat(widths[index]! - displayWidth(text));
    if (layout[index]!.align === 'right') return fill + text;
    return index === last ? text : text + fill;
  };
  yield headerStyle(layout.map((column, index) => pad(column.title, index)).join('  ')).trimEnd();
  for (const row of rows) {
    const cells = layout.map((column, index) => {
      const text = pad(column.cell(row), index);
      return column.style ? column.style(text, row) : text;
    });
    yield cells.join('  ').trimEnd();
  }
}
