/** What `show`, `threads`, `maps` and `fds` tell of an image that CRIU made: the same of each process of its tree. */
import type { ChalkInstance } from 'chalk';
import { CriuImage, type CriuArea, type CriuProcess } from '../criu/image.js';
import { signalNames } from '../elf/signals.js';
import { hex } from '../hex.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import type { criuFds, criuMaps, criuShow, criuThreads } from '../schemas/index.js';
import { type Column, columns } from '../terminal/columns.js';
import { bytes, count, duration, printable } from '../terminal/format.js';

type Show = Static<typeof criuShow>;
type Threads = Static<typeof criuThreads>;
type Maps = Static<typeof criuMaps>;
type Fds = Static<typeof criuFds>;

interface View<Document> {
  document: Document;
  lines: (document: Document, style: ChalkInstance) => Iterable<string>;
}

const head = (image: CriuImage) => ({ image: image.directory, engine: 'criu' as const, dumped_at: new Date(image.dumpedAt).toISOString() });
const named = ({ pid, name }: CriuProcess) => ({ pid, name });

/** The rows of each process below its name, and what `below` says of them. */
function* tables<Process extends { pid: number; name: string }, Row>(
  processes: readonly Process[],
  rows: (process: Process) => readonly Row[],
  layout: Column<Row>[],
  style: ChalkInstance,
  below: (process: Process) => string[] = () => [],
): Generator<string> {
  for (const process of processes) {
    yield style.bold(`${process.pid} ${printable(process.name)}`);
    yield* columns(rows(process), layout, (text) => style.bold(text));
    yield* below(process);
  }
}

function amounts(areas: readonly CriuArea[]): Show['processes'][number]['memory']['total'] {
  const sum = (value: (area: CriuArea) => bigint): number | string => byteCountOf(areas.reduce((total, area) => total + value(area), 0n));
  return {
    areas: areas.length,
    mapped: sum((area) => area.end - area.start),
    stored: sum((area) => area.dumped),
    in_parent: sum((area) => area.inParent),
  };
}

/** How often each word stands in the list, most frequent first. */
function tally(words: readonly string[]): { kind: string; count: number }[] {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([kind, number]) => ({ kind, count: number })).toSorted((a, b) => b.count - a.count);
}

export function criuShowView(directory: string): View<Show> {
  const image = new CriuImage(directory);
  const document: Show = {
    ...head(image),
    size: image.size,
    processes: image.processes.map((process) => ({
      ...named(process),
      parent_pid: process.parent,
      process_group: process.group,
      session: process.session,
      state: process.state,
      command: process.command,
      executable: process.executable,
      cwd: process.cwd,
      uid: process.uid,
      gid: process.gid,
      threads: process.threads.length,
      descriptors: { count: process.descriptors.length, by_kind: tally(process.descriptors.map(({ kind }) => kind)) },
      memory: {
        total: amounts(process.areas),
        by_kind: [...new Set(process.areas.map(({ kind }) => kind))].map((kind) => ({
          kind,
          ...amounts(process.areas.filter((area) => area.kind === kind)),
        })),
      },
    })),
  };
  return { document, lines: showLines };
}

function* showLines(document: Show, style: ChalkInstance): Generator<string> {
  const row = (label: string, text: string): string => `${style.cyan(label.padEnd(13))}${text}`;
  const age = Date.now() - Date.parse(document.dumped_at);
  yield `${style.bold(printable(document.image))}  ${style.dim(`image of CRIU, ${bytes(document.size)}`)}`;
  yield row('captured', `${document.dumped_at.slice(0, 19).replace('T', ' ')} UTC${age >= 0 ? style.dim(` (${duration(age)} ago)`) : ''}`);
  yield row('restore', `warp-tool restore ${printable(document.image)} --engine criu`);
  for (const process of document.processes) {
    const { memory, descriptors } = process;
    yield '';
    yield row(
      'process',
      `${style.bold(printable(process.name))}  pid ${process.pid}, parent ${process.parent_pid}, group ${process.process_group}, session ${process.session}, ${process.state}`,
    );
    if (process.command) yield row('command', printable(process.command.join(' ')).slice(0, 300));
    if (process.executable !== '') yield row('executable', printable(process.executable));
    if (process.cwd !== '') yield row('directory', printable(process.cwd));
    yield row('identity', `uid ${process.uid}, gid ${process.gid}`);
    yield row('threads', String(process.threads));
    yield row(
      'descriptors',
      `${descriptors.count}  ${descriptors.by_kind.map(({ kind, count: number }) => `${number} ${kind}`).join(', ')}`,
    );
    const layout = [
      { title: 'memory', cell: (kind: (typeof memory.by_kind)[number]) => kind.kind },
      { title: 'areas', align: 'right' as const, cell: (kind: (typeof memory.by_kind)[number]) => String(kind.areas) },
      { title: 'size', align: 'right' as const, cell: (kind: (typeof memory.by_kind)[number]) => bytes(kind.mapped) },
      { title: 'in image', align: 'right' as const, cell: (kind: (typeof memory.by_kind)[number]) => bytes(kind.stored) },
    ];
    yield* columns([...memory.by_kind, { kind: 'all', ...memory.total }], layout, (text) => style.bold(text));
  }
}

export function criuThreadsView(directory: string): View<Threads> {
  const image = new CriuImage(directory);
  const address = (value: bigint | null): string | null => (value === null ? null : hex(value));
  const document: Threads = {
    ...head(image),
    processes: image.processes.map((process) => ({
      ...named(process),
      threads: process.threads.map(({ tid, name, pc, sp, mask }) => {
        const area = process.areas.find(({ start, end }) => pc !== null && start <= pc && pc < end);
        return {
          tid,
          name,
          pc: address(pc),
          module: area && area.name !== '' ? area.name : null,
          stack_pointer: address(sp),
          signal_mask: signalNames(mask),
        };
      }),
    })),
  };
  return { document, lines: threadLines };
}

const threadLines = ({ processes }: Threads, style: ChalkInstance): Iterable<string> =>
  tables(
    processes,
    ({ threads }) => threads,
    [
      { title: 'tid', align: 'right', cell: (thread) => String(thread.tid) },
      { title: 'name', cell: (thread) => printable(thread.name) },
      { title: 'pc', cell: (thread) => thread.pc ?? '?' },
      { title: 'stack', cell: (thread) => thread.stack_pointer ?? '?' },
      { title: 'in', cell: (thread) => printable(thread.module ?? '') },
    ],
    style,
  );

export function criuMapsView(directory: string): View<Maps> {
  const image = new CriuImage(directory);
  const document: Maps = {
    ...head(image),
    processes: image.processes.map((process) => ({
      ...named(process),
      total: amounts(process.areas),
      maps: process.areas.map((area) => ({
        start: hex(area.start),
        end: hex(area.end),
        protection: `${area.protection & 1 ? 'r' : '-'}${area.protection & 2 ? 'w' : '-'}${area.protection & 4 ? 'x' : '-'}${area.shared ? 's' : 'p'}`,
        kind: area.kind,
        offset: hex(area.offset),
        name: area.name,
        mapped: byteCountOf(area.end - area.start),
        stored: byteCountOf(area.dumped),
        in_parent: byteCountOf(area.inParent),
      })),
    })),
  };
  return { document, lines: mapLines };
}

const mapLines = ({ processes }: Maps, style: ChalkInstance): Iterable<string> =>
  tables(
    processes,
    ({ maps }) => maps,
    [
      { title: 'address', cell: ({ start, end }) => `${start.slice(2).padStart(12, '0')}-${end.slice(2).padStart(12, '0')}` },
      { title: 'prot', cell: ({ protection }) => protection },
      { title: 'kind', cell: ({ kind }) => kind },
      { title: 'size', align: 'right', cell: ({ mapped }) => bytes(mapped) },
      { title: 'in image', align: 'right', cell: ({ stored }) => (stored === 0 ? '-' : bytes(stored)) },
      { title: 'what', cell: ({ name, offset }) => `${printable(name)}${offset === '0x0' ? '' : ` +${offset}`}` },
    ],
    style,
    ({ total }) => [style.dim(`${count(total.areas, 'area')}: ${bytes(total.mapped)} mapped, ${bytes(total.stored)} in the image`)],
  );

export function criuFdsView(directory: string): View<Fds> {
  const image = new CriuImage(directory);
  const document: Fds = {
    ...head(image),
    processes: image.processes.map((process) => ({ ...named(process), descriptors: process.descriptors })),
  };
  return { document, lines: fdLines };
}

const fdLines = ({ processes }: Fds, style: ChalkInstance): Iterable<string> =>
  tables(
    processes,
    ({ descriptors }) => descriptors,
    [
      { title: 'fd', align: 'right', cell: ({ fd }) => String(fd) },
      { title: 'kind', cell: ({ kind }) => kind },
      { title: 'what', cell: ({ path }) => printable(path) },
    ],
    style,
  );
