import { count, printable } from '../../terminal/format.js';
import { tableOf, wrapLine, type Table } from '../rows.js';

interface Variable {
  name: string;
  value: string;
}

export function environmentRows(variables: readonly Variable[]): Table<Variable> {
  return tableOf(variables, {
    summary: count(variables.length, 'variable'),
    columns: [
      { title: 'name', width: { most: 28 }, cell: ({ name }) => printable(name), look: () => ({ colour: 'cyan' }) },
      { title: 'value', width: 'rest', cell: ({ value }) => printable(value) },
    ],
    detail: ({ value }, width) => wrapLine([printable(value)], width).slice(0, 2),
    target: ({ name, value }) => ({ to: 'text', text: { title: printable(name), paragraphs: valueLines(value) } }),
  });
}

/** A list of paths is read one by one. */
function valueLines(value: string): [string][] {
  const parts = /^[^:]*\/[^:]*(:[^:]*)+$/.test(value) && !value.includes('://') ? value.split(':') : [value];
  return parts.map((part) => [printable(part)]);
}
