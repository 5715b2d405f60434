import { hex } from '../../hex.js';
import { count, printable } from '../../terminal/format.js';
import { Table } from '../rows.js';
import type { Matches } from '../search.js';
import type { Side } from '../side.js';

/** What a search found, as a list. */
export function matchRows(matches: Matches, side: Side): Table<number> {
  const soFar = matches.state === 'running' ? ' so far' : '';
  return new Table({
    count: matches.count,
    item: (index) => index,
    summary: `${count(matches.count, 'match', 'matches')} of ${matches.mode} ${printable(matches.pattern)}${soFar}`,
    columns: [
      { title: 'address', width: 14, cell: (index) => hex(matches.at(index).address) },
      { title: 'match', width: { most: 34 }, cell: (index) => shownBytes(matches.at(index).bytes), look: () => ({ colour: 'yellow' }) },
      { title: 'where', width: 'rest', cell: (index) => side.describe(matches.at(index).address) ?? '' },
    ],
    target: (index) => ({ to: 'address', address: matches.at(index).address }),
  });
}

function shownBytes(bytes: Buffer): string {
  // oxlint-disable-next-line no-control-regex
  return bytes.toString('latin1').replaceAll(/[^\x20-\x7e]/g, '.');
}
