import { describe as descriptorText, flagsText } from '../../commands/fds.js';
import type { fds } from '../../schemas/index.js';
import type { Static } from '../../schemas/builder.js';
import { count, printable } from '../../terminal/format.js';
import type { Line } from '../line.js';
import { tableOf, wrapLine, type Table } from '../rows.js';

type Row = Static<typeof fds>['descriptors'][number];

export function descriptorRows(rows: readonly Row[]): Table<Row> {
  return tableOf(rows, {
    summary: count(rows.length, 'descriptor'),
    columns: [
      { title: 'fd', align: 'right', width: { most: 8 }, cell: (row) => String(row.fd) },
      { title: 'kind', width: { most: 9 }, cell: (row) => row.kind, look: () => ({ colour: 'cyan' }) },
      { title: 'access', width: 6, cell: (row) => ({ read: 'r', write: 'w', 'read-write': 'rw', path: 'path' })[row.access] },
      { title: 'offset', align: 'right', width: { most: 14 }, cell: (row) => (row.offset === null ? '-' : String(row.offset)) },
      { title: 'flags', width: { most: 24 }, from: 100, cell: flagsText },
      { title: 'what', width: 'rest', cell: (row) => printable(descriptorText(row)) },
    ],
    detail: (row, width) => wrapLine([printable(descriptorText(row))], width).slice(0, 2),
    target: (row) => ({ to: 'text', text: { title: `descriptor ${row.fd}`, paragraphs: fieldsOf(row) } }),
  });
}

/** All fields of a document, one to a line. */
function fieldsOf(value: object, indent = ''): Line[] {
  return Object.entries(value).flatMap(([name, field]: [string, unknown]): Line[] => {
    const label = `${indent}${name.replaceAll('_', ' ')}`;
    if (Array.isArray(field) && typeof field[0] === 'object') {
      return field.flatMap((one: object, index) => [
        [[`${label} ${index + 1}`, { colour: 'cyan' }]] as Line,
        ...fieldsOf(one, `${indent}  `),
      ]);
    }
    if (typeof field === 'object' && field !== null && !Array.isArray(field)) return fieldsOf(field, indent);
    const text = Array.isArray(field) ? field.join(' ') : field === null ? '-' : String(field);
    return [[[label.padEnd(18), { colour: 'cyan' }], ` ${printable(text)}`]];
  });
}
