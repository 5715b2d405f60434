import type { compareMetadata } from '../../commands/diff.js';
import { areaName, type Range } from '../../elf/address-space.js';
import type { Change } from '../../elf/changes.js';
import type { AreaDifference, MemoryDifference } from '../../elf/memory-diff.js';
import { protectionText } from '../../elf/vmas.js';
import { hex } from '../../hex.js';
import { bytes, count, printable } from '../../terminal/format.js';
import type { Line, Span } from '../line.js';
import { wrapLine, type Rows, type Target } from '../rows.js';

type Document = Awaited<ReturnType<typeof compareMetadata>>;

interface Item {
  line: Line;
  /** Opens and closes with enter. */
  key?: string;
  address?: bigint;
}

/** Sections with more changes than this begin closed. */
const SHOWN_CHANGES = 40;

/** The changes between two images as a tree, and the pages that differ where memory has been compared. */
export class DiffRows implements Rows {
  readonly count: number;
  readonly summary: string;
  private readonly items: Item[];

  constructor(document: Document, memory: MemoryDifference | null, toggled: ReadonlySet<string>) {
    const pages = memory?.areas.reduce((sum, area) => sum + area.pages, 0) ?? 0;
    const parts = [count(document.changes.length, 'change')];
    parts.push(memory ? `${count(pages, 'page')} of memory differ` : 'memory not compared yet');
    this.summary = parts.join(', ');
    this.items = [...itemsOf(document, memory, toggled)];
    this.count = this.items.length;
  }

  header(): Line {
    return [];
  }

  row(index: number): Line {
    return this.items[index]!.line;
  }

  detail(index: number, width: number): Line[] {
    return wrapLine(this.items[index]!.line, width).slice(0, 2);
  }

  target(index: number): Target | null {
    const { key, address } = this.items[index]!;
    if (address !== undefined) return { to: 'address', address };
    return key === undefined ? null : { to: 'toggle', key };
  }
}

function* itemsOf(
  { a, b, changes, warnings, summary }: Document,
  memory: MemoryDifference | null,
  toggled: ReadonlySet<string>,
): Generator<Item> {
  for (const { side, sign, colour } of [
    { side: a, sign: '---', colour: 'red' as const },
    { side: b, sign: '+++', colour: 'green' as const },
  ]) {
    const facts = side.id === null ? '' : `  generation ${side.generation}, ${side.captured_at?.slice(0, 19).replace('T', ' ')} UTC`;
    yield { line: [[sign, { colour }], ` ${printable(side.image)}`, [facts, { dim: true }]] };
  }
  for (const warning of warnings) yield { line: [[printable(warning), { colour: 'yellow' }]] };
  if (changes.length === 0) yield { line: [['no difference in metadata', { colour: 'green' }]] };
  for (const { section, added, removed, changed } of summary) {
    const own = changes.filter((change) => change.section === section);
    const open = own.length <= SHOWN_CHANGES !== toggled.has(section);
    const parts = [added && `${added} added`, removed && `${removed} removed`, changed && `${changed} changed`].filter(Boolean);
    yield { line: [marker(open), [section, { bold: true }], `  ${parts.join(', ')}`], key: section };
    if (open) for (const change of own) yield* changeItems(change, toggled);
  }
  yield* memory ? memoryItems(memory, toggled) : [{ line: [['memory', { bold: true }], '  m compares it page by page'] as Line }];
}

function* changeItems(change: Change, toggled: ReadonlySet<string>): Generator<Item> {
  const { section, key, kind, fields } = change;
  const id = `${section}/${key}`;
  const open = toggled.has(id);
  const look = ({ added: ['+', 'green'], removed: ['-', 'red'], changed: ['~', 'yellow'] } as const)[kind];
  const [only] = fields;
  const short: Span[] = fields.length === 1 ? fieldSpans(only!) : [[fields.map(({ field }) => field).join(' '), { dim: true }]];
  const name = section === 'process' || section === 'image' ? '' : `${printable(key)}  `;
  yield { line: ['  ', marker(open), [look[0], { colour: look[1] }], ' ', name, ...(open ? [] : short)], key: id };
  if (open) for (const field of fields) yield { line: ['        ', ...fieldSpans(field)] };
}

function fieldSpans({ field, a, b }: Change['fields'][number]): Span[] {
  const side = (text: string | null): string => (text === null ? 'none' : text === '' ? "''" : printable(text));
  const values: Span[] =
    a === null
      ? [[side(b), { colour: 'green' }]]
      : b === null
        ? [[side(a), { colour: 'red' }]]
        : [[side(a), { colour: 'red' }], ' -> ', [side(b), { colour: 'green' }]];
  return [`${printable(field)} `, ...values];
}

function* memoryItems({ areas, onlyA, onlyB }: MemoryDifference, toggled: ReadonlySet<string>): Generator<Item> {
  const sum = (of: (area: AreaDifference) => bigint): bigint => areas.reduce((total, area) => total + of(area), 0n);
  const pages = areas.reduce((total, area) => total + area.pages, 0);
  const unknown = sum((area) => area.unknown);
  const parts = [`${count(pages, 'page')} of ${bytes(sum((area) => area.compared))} differ`];
  if (onlyA > 0n) parts.push(`${bytes(onlyA)} only in the first`);
  if (onlyB > 0n) parts.push(`${bytes(onlyB)} only in the second`);
  if (unknown > 0n) parts.push(`${bytes(unknown)} could not be compared`);
  yield { line: [['memory', { bold: true }], `  ${parts.join(', ')}`] };
  const different = areas.filter((area) => area.pages > 0 || area.unknown > 0n);
  for (const area of different.toSorted((one, other) => other.pages - one.pages)) {
    const { vma, ranges } = area;
    const key = `memory/${vma.start}`;
    const open = toggled.has(key);
    const amounts = area.pages > 0 ? [`${count(area.pages, 'page')} of ${bytes(area.compared)}`] : [];
    if (area.unknown > 0n) amounts.push(`${bytes(area.unknown)} not compared`);
    const place = `${hex(vma.start)} ${protectionText(vma)} `;
    yield {
      line: [
        '  ',
        marker(open),
        ['~', { colour: 'yellow' }],
        ` ${place}`,
        `${amounts.join(', ')}  `,
        [printable(areaName(vma)), { colour: 'cyan' }],
      ],
      ...(ranges.length > 0 && { key }),
    };
    if (open) for (const range of ranges) yield rangeItem(range);
  }
}

function rangeItem({ start, end }: Range): Item {
  return { line: [`        ${hex(start)}-${hex(end)}  ${count(Number((end - start) / 4096n), 'page')}`], address: start };
}

function marker(open: boolean): string {
  return open ? '▾ ' : '▸ ';
}
