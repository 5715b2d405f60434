import type { ChalkInstance } from 'chalk';
import { AddressSpace } from '../elf/address-space.js';
import type { Image } from '../elf/image.js';
import { protectionText } from '../elf/vmas.js';
import { hex } from '../hex.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import type { advice as adviceList, composition as compositionSchema, show } from '../schemas/index.js';
import { columns, type Column } from '../terminal/columns.js';
import { bytes, printable } from '../terminal/format.js';
import { Progress } from '../terminal/progress.js';
import { amountsOf } from './maps.js';

type Document = Static<typeof compositionSchema>;
type Summary = NonNullable<Static<typeof show>['composition']>;

/** What an image is made of, from all of its stored memory, and what follows from that. `java`: what is known of a Java virtual machine. */
export async function collectComposition(
  image: Image,
  java: Static<typeof show>['java'],
): Promise<{ composition: Document; advice: Static<typeof adviceList> }> {
  const { compositionOf } = await import('../elf/composition.js');
  const { adviceOf, packedEstimate, RUNTIME_TOPICS } = await import('../elf/advice.js');
  const space = new AddressSpace(image);
  const progress = new Progress('reading');
  try {
    const composition = await compositionOf(space, (done, total) => progress.update(done, total));
    const content = (one: { zero: number; duplicate: number; unread: number }) => ({
      stored_zero: one.zero,
      stored_duplicate: one.duplicate,
      unread: one.unread,
    });
    const total = { zero: 0, duplicate: 0, unread: 0 };
    for (const { zero, duplicate, unread } of composition.categories) {
      total.zero += zero;
      total.duplicate += duplicate;
      total.unread += unread;
    }
    const vmas = composition.areas.map(({ vma }) => vma);
    const document: Document = {
      cell: composition.cell,
      duplicates_from: composition.duplicatesFrom,
      total: { areas: vmas.length, ...amountsOf(vmas), ...content(total) },
      categories: composition.categories.map((one) => ({
        category: one.category,
        areas: one.areas.length,
        ...amountsOf(one.areas),
        ...content(one),
        read: one.read,
        sampled: one.sampled,
        lz4: packedEstimate(one),
      })),
      areas: composition.areas.map((area) => ({
        start: hex(area.vma.start),
        end: hex(area.vma.end),
        protection: protectionText(area.vma),
        kind: area.vma.kind,
        category: area.category,
        label: area.label,
        flags: area.vma.flags,
        offset: hex(area.vma.offset),
        ...amountsOf([area.vma]),
        ...content(area),
        cells: area.cells,
      })),
    };
    const general = adviceOf(image, composition, java?.heap ? RUNTIME_TOPICS : undefined);
    const advice = [
      ...general.map((one) => ({ ...one, bytes: byteCountOf(BigInt(one.bytes)) })),
      ...(java?.advice ?? []).map(({ part, bytes: amount, problem, mend }) => ({
        topic: part,
        bytes: amount,
        saves: false,
        observation: sentence(problem),
        mend: sentence(mend),
      })),
    ];
    advice.sort((a, b) => Number(b.saves) - Number(a.saves) || Number(b.bytes) - Number(a.bytes));
    return { composition: document, advice };
  } finally {
    progress.end();
    await space.close();
  }
}

function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
}

/** The table of `show --composition`, and the advice. */
export function* compositionLines({ categories, total, advice }: Summary, style: ChalkInstance): Generator<string> {
  type Row = Omit<Summary['categories'][number], 'category'> & { category: string };
  const sum = (key: 'read' | 'sampled' | 'lz4'): number => categories.reduce((all, row) => all + Number(row[key]), 0);
  const rows: Row[] = [
    ...categories.filter(({ stored }) => Number(stored) > 0).toSorted((a, b) => Number(b.stored) - Number(a.stored)),
    { category: 'all', ...total, read: sum('read'), sampled: sum('sampled'), lz4: sum('lz4') },
  ];
  const amount = (title: string, key: 'stored' | 'stored_zero' | 'stored_duplicate' | 'unread' | 'lz4'): Column<Row>[] =>
    rows.every((row) => Number(row[key]) === 0)
      ? []
      : [{ title, align: 'right', cell: (row) => (Number(row[key]) === 0 ? '-' : bytes(row[key])) }];
  const layout: Column<Row>[] = [
    { title: 'composition', cell: ({ category }) => category, style: (text) => style.cyan(text) },
    { title: 'areas', align: 'right', cell: (row) => String(row.areas) },
    ...amount('stored', 'stored'),
    ...amount('zeros', 'stored_zero'),
    ...amount('copies', 'stored_duplicate'),
    ...amount('unread', 'unread'),
    ...amount('with lz4', 'lz4'),
  ];
  yield* columns(rows, layout, (text) => style.bold(text));
  const [read, sampled] = [sum('read'), sum('sampled')];
  if (sampled < read) yield style.dim(`lz4 was tried on ${bytes(sampled)} of ${bytes(read)}, spread evenly`);
  for (const { bytes: size, saves, observation, mend } of advice) {
    yield `${style.yellow(bytes(size))}${saves ? ' could be saved' : ''}: ${printable(observation)} ${printable(mend)}`;
  }
}
