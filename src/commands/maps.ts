import { Flags } from '@oclif/core';
import { isCriuDirectory } from '../criu/image.js';
import { AddressSpace } from '../elf/address-space.js';
import type { Image } from '../elf/image.js';
import { labelsIn, labelsOf, type Label } from '../elf/labels.js';
import { Modules } from '../elf/modules.js';
import { protectionText, type Vma } from '../elf/vmas.js';
import { type criuMaps, maps } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { columns, type Column } from '../terminal/columns.js';
import { hex } from '../hex.js';
import { bytes, count, printable } from '../terminal/format.js';
import { ImageCommand, imageArgument } from './base.js';
import { criuMapsView } from './criu-views.js';

type Document = Static<typeof maps>;
type Row = Document['maps'][number];

const SOURCES = { image: 'stored', zero: 'zero', file: 'in its file', absent: 'absent' } as const;

export default class Maps extends ImageCommand {
  static override summary = 'Show memory areas, and what the image holds of each.';
  static override description =
    'Range, protection, kind and file of every area; how much of it was resident, is stored, is known to be zero, comes from its file.';
  static override examples = [
    '<%= config.bin %> maps /tmp/image --sort size',
    '<%= config.bin %> maps /tmp/image --ranges',
    '<%= config.bin %> maps core.1234 --json',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    ranges: Flags.boolean({ description: 'Show under each area where its bytes come from, range by range.' }),
    sort: Flags.string({ options: ['size', 'rss', 'addr'] as const, default: 'addr', description: 'Largest first, or by address.' }),
  };

  async run(): Promise<Document | Static<typeof criuMaps>> {
    const { args, flags } = await this.parse(Maps);
    if (isCriuDirectory(args.image)) return this.presentCriu(criuMapsView(args.image), flags.json);
    return this.inspect(
      args.image,
      flags,
      async (image) => {
        const space = new AddressSpace(image);
        const labels = await labelsOf(space).finally(() => space.close());
        const document = await collectMaps(image, { ranges: flags.ranges ?? false, labels });
        if (flags.sort === 'size') document.maps.sort((a, b) => descending(a.mapped, b.mapped));
        // Foreign cores do not tell what was resident: what they hold of an area comes nearest.
        if (flags.sort === 'rss') document.maps.sort((a, b) => descending(a.resident ?? a.stored, b.resident ?? b.stored));
        return document;
      },
      (document) => this.render(document),
    );
  }

  private *render({ maps: rows, total }: Document): Generator<string> {
    const { style } = this;
    const packed = rows.some((row) => row.packed !== row.stored);
    // The content of [vvar] is the kernel's: that it is not here is no news.
    const known = (key: 'resident' | 'zero' | 'from_file' | 'absent'): boolean =>
      rows.some((row) => row.kind !== 'vvar' && row[key] !== null && row[key] !== 0);
    const dim = (text: string): string => style.dim(text);
    const size = (title: string, key: 'mapped' | 'resident' | 'stored' | 'zero' | 'from_file' | 'absent' | 'packed'): Column<Row> => ({
      title,
      align: 'right',
      cell: (row) => (row[key] === null ? '?' : row[key] === 0 ? '-' : bytes(row[key])),
      style: (text, row) => (row[key] === 0 ? dim(text) : text),
    });
    const layout: Column<Row>[] = [
      { title: 'address', cell: (row) => `${row.start.slice(2).padStart(12, '0')}-${row.end.slice(2).padStart(12, '0')}` },
      {
        title: 'prot',
        cell: (row) => row.protection,
        style: (text, row) => (row.protection.includes('x') ? style.red(text) : row.protection.includes('w') ? style.yellow(text) : text),
      },
      { title: 'kind', cell: (row) => row.kind, style: (text, row) => (row.kind === 'file' ? style.cyan(text) : text) },
      size('size', 'mapped'),
      ...(known('resident') ? [size('resident', 'resident')] : []),
      size('stored', 'stored'),
      ...(packed ? [size('packed', 'packed')] : []),
      ...(known('zero') ? [size('zero', 'zero')] : []),
      ...(known('from_file') ? [size('in file', 'from_file')] : []),
      ...(known('absent') ? [size('absent', 'absent')] : []),
      { title: 'what', cell: describe },
    ];
    const lines = columns(rows, layout, (text) => style.bold(text));
    yield lines.next().value as string;
    let index = 0;
    for (const line of lines) {
      yield line;
      const ranges = rows[index++]!.ranges ?? [];
      // One range is what the columns say.
      for (const { start, end, from } of ranges.length > 1 ? ranges : []) {
        yield dim(
          `  ${start.slice(2).padStart(12, '0')}-${end.slice(2).padStart(12, '0')}  ${bytes(BigInt(end) - BigInt(start))} ${SOURCES[from]}`,
        );
      }
    }
    const parts = [`${bytes(total.mapped)} mapped`];
    if (total.resident !== null) parts.push(`${bytes(total.resident)} resident`);
    parts.push(`${bytes(total.stored)} stored`);
    if (packed) parts.push(`${bytes(total.packed)} packed`);
    if (total.zero !== 0) parts.push(`${bytes(total.zero)} zero`);
    if (total.from_file !== 0) parts.push(`${bytes(total.from_file)} in files`);
    if (known('absent')) parts.push(`${bytes(total.absent)} absent`);
    yield dim(`${count(total.areas, 'area')}: ${parts.join(', ')}`);
  }
}

function describe(row: Row): string {
  const parts: string[] = [];
  if (row.name !== '') parts.push(printable(row.name));
  if (row.kind === 'file' && row.offset !== '0x0') parts.push(`+${row.offset}`);
  const stack = row.stack_of !== null && row.kind !== 'stack' ? `stack of thread ${row.stack_of}` : null;
  if (row.labels.length > 0) parts.push(labelText(row.labels, stack));
  else if (stack !== null) parts.push(stack);
  if (row.flags.length > 0) parts.push(`(${row.flags.join(', ')})`);
  return parts.join(' ');
}

/** `Java heap: old 13.0 MiB, eden 4.58 MiB`: sizes where an area has several labels of one part. */
export function labelText(
  labels: readonly { part: string; detail: string; bytes: number | string | bigint }[],
  stack: string | null,
): string {
  const parts = [...new Set(labels.map(({ part }) => part))].map((part) => {
    const own = labels.filter((label) => label.part === part);
    const details = own
      .map(({ detail, bytes: size }) => (own.length > 1 ? `${detail} ${bytes(size)}` : detail))
      .filter((text) => text !== '');
    const shown = details.length > 5 ? [...details.slice(0, 4), `${details.length - 4} more`] : details;
    const name = part === 'thread stack' ? (stack ?? part) : part;
    return shown.length > 0 ? `${name}: ${shown.join(', ')}` : name;
  });
  return printable(parts.join('; '));
}

function descending(a: number | string, b: number | string): number {
  return Number(b) - Number(a);
}

/** `ranges`: with what each area holds, piece by piece; `labels`: what knows the program says of its memory. */
export async function collectMaps(
  image: Image,
  { ranges = false, labels = [] }: { ranges?: boolean; labels?: readonly Label[] } = {},
): Promise<Document> {
  const modules = new Modules(image);
  const vmas = image.vmas();
  const rows: Row[] = [];
  for (const vma of vmas) {
    rows.push({
      start: hex(vma.start),
      end: hex(vma.end),
      protection: protectionText(vma),
      kind: vma.kind,
      flags: vma.flags,
      offset: hex(vma.offset),
      name: vma.name,
      build_id: vma.kind === 'file' ? await modules.buildId(vma) : null,
      stack_of: vma.stackOf,
      labels: labelsIn(labels, vma).map(({ part, detail, bytes: size }) => ({ part, detail, bytes: byteCountOf(size) })),
      ...amountsOf([vma]),
      ranges: ranges ? [] : null,
    });
  }
  if (ranges) await addRanges(image, rows);
  return { image: image.source.name, warnings: image.warnings, total: { areas: vmas.length, ...amountsOf(vmas) }, maps: rows };
}

/** Adds to each area, in the order of addresses, where its bytes come from. */
async function addRanges(image: Image, rows: readonly Row[]): Promise<void> {
  const space = new AddressSpace(image);
  try {
    let index = 0;
    for await (const { start, end, from } of space.runs()) {
      while (BigInt(rows[index]!.end) <= start) index++;
      const ranges = rows[index]!.ranges!;
      const last = ranges.at(-1);
      if (last?.from === from && last.end === hex(start)) last.end = hex(end);
      else ranges.push({ start: hex(start), end: hex(end), from });
    }
  } finally {
    await space.close();
  }
}

/** Sums over areas, in the shape that JSON documents use. */
export function amountsOf(vmas: readonly Vma[]): Omit<Document['total'], 'areas'> {
  let [mapped, resident, stored, zero, fromFile, absent, packed] = [0n, 0n, 0n, 0n, 0n, 0n, 0n];
  let residentKnown = vmas.length > 0;
  for (const vma of vmas) {
    mapped += vma.end - vma.start;
    if (vma.resident === null) residentKnown = false;
    else resident += vma.resident;
    stored += vma.stored;
    zero += vma.zero;
    fromFile += vma.fromFile;
    absent += vma.absent;
    packed += vma.packed;
  }
  return {
    mapped: byteCountOf(mapped),
    resident: residentKnown ? byteCountOf(resident) : null,
    stored: byteCountOf(stored),
    zero: byteCountOf(zero),
    from_file: byteCountOf(fromFile),
    absent: byteCountOf(absent),
    packed: byteCountOf(packed),
  };
}
