import { frameText } from '../../commands/locations.js';
import type { signals } from '../../schemas/index.js';
import type { Static } from '../../schemas/builder.js';
import { count, printable } from '../../terminal/format.js';
import { tableOf, wrapLine, type Table } from '../rows.js';

type Document = Static<typeof signals>;

interface Row {
  number: number;
  name: string;
  what: string;
  flags: string;
  /** What more there is to say. */
  detail: string;
  handler: bigint | null;
}

/** Dispositions that are not the default, then queued signals. */
export function signalRows({ actions, pending }: Pick<Document, 'actions' | 'pending'>): Table<Row> {
  const rows: Row[] = [
    ...pending.map((one) => ({
      number: one.signal,
      name: one.name,
      what: `queued for ${one.tid === null ? 'the process' : `thread ${one.tid}`}`,
      flags: '',
      detail: `code ${one.code}${one.value === null ? '' : `, value ${one.value}`}`,
      handler: null,
    })),
    ...actions.map((action) => ({
      number: action.signal,
      name: action.name,
      what: action.handler ? frameText(action.handler) : action.disposition,
      flags: action.flags.map((flag) => flag.replace(/^SA_/, '').toLowerCase()).join(' '),
      detail: `${action.flags.join(' ')}  blocks ${blocked(action.mask)}`.trim(),
      handler: action.handler ? BigInt(action.handler.pc) : null,
    })),
  ];
  return tableOf(rows, {
    summary: `${count(actions.length, 'disposition')}, ${pending.length} queued`,
    columns: [
      { title: 'nr', align: 'right', width: 2, cell: (row) => String(row.number) },
      { title: 'signal', width: 11, cell: (row) => row.name, look: () => ({ colour: 'cyan' }) },
      {
        title: 'action',
        width: 'rest',
        cell: (row) => row.what,
        look: (row) => (row.what.startsWith('queued') ? { colour: 'yellow' } : {}),
      },
      { title: 'flags', width: { most: 32 }, cell: (row) => row.flags },
    ],
    detail: (row, width) => wrapLine([printable(row.detail)], width).slice(0, 2),
    target: ({ handler }) => (handler === null ? null : { to: 'address', address: handler }),
  });
}

function blocked(mask: readonly string[]): string {
  return mask.length > 0 ? mask.map((name) => name.replace(/^SIG/, '')).join(' ') : 'nothing more';
}
