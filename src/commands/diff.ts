import { Args, Flags } from '@oclif/core';
import { AddressSpace } from '../elf/address-space.js';
import { compareItems, type Change, type Items } from '../elf/changes.js';
import { argumentsOf, environmentOf } from '../elf/environment.js';
import { timestamp, uuid } from '../elf/identity.js';
import { withImage, type Image } from '../elf/image.js';
import { differingRows, diffMemory, type MemoryDifference } from '../elf/memory-diff.js';
import { IMAGE_COMPRESSED, IMAGE_DELTA, IMAGE_ENCRYPTED, type NoteName } from '../elf/schema.js';
import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import { diff } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { bytes, count, printable } from '../terminal/format.js';
import { hexdump } from '../terminal/hexdump.js';
import { Output } from '../terminal/output.js';
import { Progress } from '../terminal/progress.js';
import { areaOf } from './areas.js';
import { DocumentCommand, imageArgument } from './base.js';
import { keyFlags } from './keys.js';
import { collectFds } from './fds.js';
import { collectMaps } from './maps.js';
import { collectSignals } from './signals.js';
import { collectThreads } from './threads.js';

type Document = Static<typeof diff>;
type Memory = NonNullable<Document['memory']>;

/** What the image holds of an area is no property of the process. */
const AMOUNTS = ['mapped', 'resident', 'stored', 'zero', 'from_file', 'absent', 'packed'];
const SHOWN_AREAS = 20;
const SHOWN_RANGES = 8;
const SHOWN_CHANGES = 40;
/** Rows of bytes for each area, and with --details. */
const SHOWN_ROWS = 16;
const MOST_ROWS = 65_536;

export default class Diff extends DocumentCommand {
  static override summary = 'Show what differs between two images.';
  static override description = [
    'Compares threads, registers, areas, descriptors, environment, signals, timers and labels; memory too with --memory. Exits with 0',
    'when nothing differs, 1 when something does. What tells images apart by nature (id, generation, time) is shown, not compared.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> diff before after',
    '<%= config.bin %> diff before after --memory --details',
    '<%= config.bin %> diff before after --bytes',
    '<%= config.bin %> diff core.1234 core.5678 --json',
  ];
  static override args = {
    a: imageArgument,
    b: Args.string({ description: 'The image to compare it with.', required: true, ignoreStdin: true }),
  };
  static override flags = {
    ...keyFlags,
    memory: Flags.boolean({ char: 'm', description: 'Compare memory too, page by page.' }),
    bytes: Flags.boolean({ char: 'b', description: 'Like --memory, and show the bytes that differ, in rows of 16.' }),
    details: Flags.boolean({
      char: 'd',
      description: 'Every change in full: all registers, all ranges of pages, up to 65,536 rows for each area.',
    }),
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Diff);
    const options = await this.openOptions(flags);
    const withBoth = (work: (a: Image, b: Image) => Promise<Document>): Promise<Document> =>
      withImage(args.a, (a) => withImage(args.b, (b) => work(a, b), options), options);
    return withBoth(async (a, b) => {
      const rows = flags.bytes ? (flags.details ? MOST_ROWS : SHOWN_ROWS) : 0;
      const document = await this.compare(a, b, flags.memory || flags.bytes, rows);
      if (document.different) process.exitCode = 1;
      if (flags.json) this.print([JSON.stringify(document, null, 2)]);
      else {
        for (const warning of document.warnings) this.warnUser(warning);
        const output = new Output();
        for (const line of this.render(document, flags.details ?? false)) await output.line(line);
        await output.flush();
      }
      return document;
    });
  }

  private async compare(a: Image, b: Image, withMemory: boolean, rows: number): Promise<Document> {
    const document = await compareMetadata(a, b);
    if (withMemory) {
      document.memory = await this.compareMemory(a, b, rows);
      document.different ||= document.memory.pages > 0;
    }
    return document;
  }

  private async compareMemory(a: Image, b: Image, rows: number): Promise<Memory> {
    const left = new AddressSpace(a);
    const right = new AddressSpace(b);
    const total = a.vmas().reduce((sum, vma) => sum + Number(vma.end - vma.start), 0);
    const bar = new Progress('comparing');
    try {
      const difference = await diffMemory(left, right, (done) => bar.update(Number(done), total));
      const document = memoryDocument(difference);
      if (rows === 0) return document;
      const ranges = new Map(difference.areas.map((area) => [hex(area.vma.start), area.ranges]));
      for (const area of document.areas) {
        const found = await differingRows(left, right, ranges.get(area.area.start)!, rows);
        area.more_rows = found.more;
        area.rows = found.rows.map((row) => ({ address: hex(row.address), a: row.a.toString('hex'), b: row.b.toString('hex') }));
      }
      return document;
    } finally {
      bar.end();
      await Promise.all([left.close(), right.close()]);
    }
  }

  private *render({ a, b, summary, changes, memory, different }: Document, details: boolean): Generator<string> {
    const { style } = this;
    const sides = [
      { sign: style.red('---'), side: a },
      { sign: style.green('+++'), side: b },
    ];
    for (const { sign, side } of sides) {
      const facts = side.id === null ? '' : `  ${style.dim(`${side.id}, generation ${side.generation}, ${side.captured_at}`)}`;
      yield `${sign} ${printable(side.image)}${facts}`;
    }
    for (const { section, added, removed, changed } of summary) {
      const parts = [added && `${added} added`, removed && `${removed} removed`, changed && `${changed} changed`].filter(Boolean);
      yield `${style.bold(section.padEnd(12))} ${parts.join(', ')}`;
    }
    if (memory) {
      const parts = [`${count(memory.pages, 'page')} of ${bytes(memory.compared)} differ`];
      if (memory.only_a !== 0) parts.push(`${bytes(memory.only_a)} only in the first`);
      if (memory.only_b !== 0) parts.push(`${bytes(memory.only_b)} only in the second`);
      if (memory.unknown !== 0) parts.push(`${bytes(memory.unknown)} could not be compared`);
      yield `${style.bold('memory'.padEnd(12))} ${parts.join(', ')}`;
    }
    if (!different) yield style.green(memory ? 'no difference' : 'no difference in metadata; --memory compares memory too');
    for (const { section } of summary) {
      yield '';
      yield style.bold(section);
      const own = changes.filter((change) => change.section === section);
      for (const change of details ? own : own.slice(0, SHOWN_CHANGES)) yield* this.changeLines(change, details);
      if (!details && own.length > SHOWN_CHANGES) yield style.dim(`  and ${own.length - SHOWN_CHANGES} more; see --details`);
    }
    if (memory && memory.areas.length > 0) yield* this.memoryLines(memory, details);
  }

  private *changeLines({ section, key, kind, fields }: Change, details: boolean): Generator<string> {
    const { style } = this;
    if (kind !== 'changed') {
      const [sign, colour] = kind === 'added' ? ['+', style.green] : ['-', style.red];
      const what = fields
        .filter(({ field }) => details || !field.startsWith('registers.'))
        .map(({ field, a, b }) => (field === 'value' ? `= ${a ?? b}` : `${field} ${a ?? b}`))
        .filter((text) => !text.endsWith(' '));
      yield colour(`  ${sign} ${printable(key)}  ${printable(what.join(', '))}`);
      return;
    }
    const registers = details ? [] : fields.filter(({ field }) => field.startsWith('registers.'));
    const shown = fields.filter((field) => !registers.includes(field));
    yield `  ${style.yellow('~')} ${section === 'process' || section === 'image' ? '' : `${printable(key)}  `}${shown.length === 1 ? this.fieldText(shown[0]!) : ''}`.trimEnd();
    if (shown.length > 1) for (const field of shown) yield `      ${this.fieldText(field)}`;
    if (registers.length > 0) yield `      registers ${style.dim(registers.map(({ field }) => field.split('.').at(-1)).join(' '))}`;
  }

  private fieldText({ field, a, b }: Change['fields'][number]): string {
    const { style } = this;
    const side = (text: string | null): string => (text === null ? 'none' : text === '' ? "''" : printable(text));
    return `${field} ${style.red(side(a))} -> ${style.green(side(b))}`;
  }

  private *memoryLines({ areas }: Memory, details: boolean): Generator<string> {
    const { style } = this;
    yield '';
    yield style.bold('memory');
    // The engine's own memory changes with every capture.
    const rank = ({ area, pages }: Memory['areas'][number]): number => (area.kind === 'engine' ? -1 / (pages + 1) : pages);
    const ordered = details ? areas : areas.toSorted((one, other) => rank(other) - rank(one)).slice(0, SHOWN_AREAS);
    const dim = (text: string): string => style.dim(text);
    const row = (sign: string, address: string, digits: string): string => {
      const [line] = hexdump(BigInt(address), Buffer.from(digits, 'hex'), { allRows: true, dim });
      return `      ${sign} ${line}`;
    };
    for (const { area, pages, compared, ranges, unknown, rows, more_rows: moreRows } of ordered) {
      const parts = pages === 0 ? [] : [`${count(pages, 'page')} of ${bytes(compared)}`];
      if (unknown !== 0) parts.push(`${bytes(unknown)} could not be compared`);
      yield `  ${style.yellow('~')} ${area.start}-${area.end} ${area.protection} ${style.cyan(printable(area.name))}  ${parts.join(', ')}`;
      for (const { start, end } of details ? ranges : ranges.slice(0, SHOWN_RANGES)) yield `      ${start}-${end}`;
      if (!details && ranges.length > SHOWN_RANGES) yield style.dim(`      and ${ranges.length - SHOWN_RANGES} more ranges; see --details`);
      for (const { address, a, b } of rows ?? []) {
        yield style.red(row('-', address, a));
        yield style.green(row('+', address, b));
      }
      if (moreRows) yield style.dim(`      and more rows${details ? '' : '; see --details'}`);
    }
    if (areas.length > ordered.length) yield style.dim(`  and ${areas.length - ordered.length} more areas; see --details`);
  }
}

/** What differs between two images beside their memory. */
export async function compareMetadata(a: Image, b: Image): Promise<Document> {
  const warnings: string[] = [];
  for (const image of [a, b]) warnings.push(...image.warnings.map((warning) => `${image.source.name}: ${warning}`));
  const before = await sectionsOf(a);
  const after = await sectionsOf(b);
  const changes: Change[] = [];
  for (const name of Object.keys(before)) {
    const [one, other] = [before[name]!, after[name]!];
    if (typeof one === 'string' || typeof other === 'string') {
      // What neither holds is no difference, and no news.
      if (typeof one !== typeof other) warnings.push(`${name} not compared: ${typeof one === 'string' ? one : (other as string)}`);
      continue;
    }
    for (const change of compareItems(name, one, other)) changes.push(change);
  }
  const sections = [...new Set(changes.map(({ section }) => section))];
  const number = (section: string, kind: Change['kind']): number =>
    changes.reduce((sum, change) => sum + (change.section === section && change.kind === kind ? 1 : 0), 0);
  return {
    a: identityOf(a),
    b: identityOf(b),
    warnings,
    different: changes.length > 0,
    summary: sections.map((section) => ({
      section,
      added: number(section, 'added'),
      removed: number(section, 'removed'),
      changed: number(section, 'changed'),
    })),
    changes,
    memory: null,
  };
}

function identityOf(image: Image): Document['a'] {
  const record = image.single('image');
  return {
    image: image.source.name,
    id: record ? uuid(record.image_id) : null,
    generation: record?.generation ?? null,
    captured_at: record ? timestamp(record.realtime_ns) : null,
  };
}

function memoryDocument({ areas, onlyA, onlyB }: MemoryDifference): Memory {
  const sum = (of: (area: MemoryDifference['areas'][number]) => bigint): number | string =>
    byteCountOf(areas.reduce((total, area) => total + of(area), 0n));
  return {
    compared: sum(({ compared }) => compared),
    pages: areas.reduce((total, { pages }) => total + pages, 0),
    only_a: byteCountOf(onlyA),
    only_b: byteCountOf(onlyB),
    unknown: sum(({ unknown }) => unknown),
    areas: areas
      .filter(({ pages, unknown }) => pages > 0 || unknown > 0n)
      .map(({ vma, compared, pages, unknown, ranges }) => ({
        area: areaOf(vma),
        compared: byteCountOf(compared),
        pages,
        unknown: byteCountOf(unknown),
        ranges: ranges.map(({ start, end }) => ({ start: hex(start), end: hex(end) })),
        rows: null,
        more_rows: null,
      })),
  };
}

/** What is compared, by section; a text where an image does not hold it says why. */
type Sections = Record<string, Items | string>;

async function sectionsOf(image: Image): Promise<Sections> {
  const orReason = async (collect: () => Promise<Items> | Items): Promise<Items | string> => {
    try {
      return await collect();
    } catch (error) {
      if (error instanceof Failure) return error.message;
      throw error;
    }
  };
  return {
    image: imageItems(image),
    process: await orReason(() => processItems(image)),
    threads: await orReason(() => threadItems(image)),
    maps: await orReason(async () =>
      items((await collectMaps(image)).maps, ({ start, kind }) => (kind === 'stack' || kind === 'heap' ? `[${kind}]` : start), [
        'stack_of',
        ...AMOUNTS,
      ]),
    ),
    files: tableItems(image, 'files', ({ path }) => String(path), []),
    descriptors: await orReason(() => items(collectFds(image).descriptors, ({ fd }) => `fd ${fd}`, ['fd', 'description'])),
    environment: await orReason(async () => environmentItems(await environmentOf(image))),
    signals: await orReason(async () => items((await collectSignals(image)).actions, ({ name }) => name, ['signal', 'name'])),
    pending: await orReason(async () =>
      items((await collectSignals(image)).pending, ({ name, tid }, index) => `${name} ${tid ?? 'process'} ${index}`, []),
    ),
    timers: tableItems(image, 'timers', ({ id }) => String(id), []),
    objects: tableItems(image, 'objects', (_, index) => String(index), []),
    tags: tableItems(image, 'tags', ({ kind, name }) => `${kind} ${name}`, ['reserved']),
    auxv: await orReason(() => items(image.auxv(), ({ name }) => name, ['type', 'name'])),
  };
}

function items<Row extends object>(rows: readonly Row[], keyOf: (row: Row, index: number) => string, without: readonly string[]): Items {
  const found: Items = new Map();
  for (const [index, row] of rows.entries()) {
    const fields = Object.entries(row).filter(([name]) => !without.includes(name));
    found.set(keyOf(row, index), Object.fromEntries(fields.map(([name, value]) => [name, typeof value === 'bigint' ? hex(value) : value])));
  }
  return found;
}

function tableItems(
  image: Image,
  name: NoteName,
  keyOf: (row: Record<string, unknown>, index: number) => string,
  without: readonly string[],
): Items {
  return items([...image.table(name)] as unknown as Record<string, unknown>[], keyOf, without);
}

function imageItems(image: Image): Items {
  const record = image.single('image');
  if (!record) return new Map([['image', { machine: image.header.machineName }]]);
  const { image_id: _, parent_id: __, generation: ___, realtime_ns: ____, monotonic_ns: _____, boottime_ns: ______, ...fields } = record;
  // How the image is stored is no property of the process.
  const flags = fields.flags & ~(IMAGE_COMPRESSED | IMAGE_ENCRYPTED | IMAGE_DELTA);
  return items([{ ...fields, flags: hex(flags) }], () => 'image', ['executable', 'reserved']);
}

async function processItems(image: Image): Promise<Items> {
  const record = image.single('process');
  const information = image.kernelNote('prpsinfo');
  const command = (await argumentsOf(image)) ?? information?.arguments.split(' ') ?? null;
  const common = { executable: image.executable(), arguments: command };
  if (!record) return items([{ ...common, pid: information?.pid, uid: information?.uid, gid: information?.gid }], () => 'process', []);
  return items([{ ...common, ...record }], () => 'process', ['control', 'resume_entry', 'helper_entry', 'helper_stack']);
}

function environmentItems(environment: readonly string[]): Items {
  return new Map(
    environment.map((entry) => {
      const equals = entry.indexOf('=');
      return equals < 0 ? [entry, { value: '' }] : [entry.slice(0, equals), { value: entry.slice(equals + 1) }];
    }),
  );
}

/** Threads by their thread pointer, which stays when a restored process has new ids. */
async function threadItems(image: Image): Promise<Items> {
  const { threads } = await collectThreads(image, true);
  const found: Items = new Map();
  for (const { location, ...thread } of threads) {
    const place = location.symbol ?? (location.module === null ? null : `${location.module}+${location.module_offset}`);
    const key = `thread ${thread.fs_base}${thread.name === null ? '' : ` ${thread.name}`}`;
    found.set(key, { ...thread, stack_pointer: null, frames: null, fs_base: null, gs_base: null, location: place });
  }
  return found;
}
