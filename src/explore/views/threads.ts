import { frameText } from '../../commands/locations.js';
import { frameWords, GENERAL_REGISTERS, nameOf, registersOf, threadDetails } from '../../commands/threads.js';
import { findVma } from '../../elf/vmas.js';
import { hex } from '../../hex.js';
import type { threads } from '../../schemas/index.js';
import type { Static } from '../../schemas/builder.js';
import { count, printable } from '../../terminal/format.js';
import { tableOf, TextRows, wrapLine, type Rows, type Table } from '../rows.js';
import type { Side } from '../side.js';
import type { Pane } from '../state.js';

type Document = Static<typeof threads>;
type Row = Document['threads'][number];

/** The list of threads. */
export function threadRows(rows: readonly Row[]): Table<Row> {
  return tableOf(rows, {
    summary: count(rows.length, 'thread'),
    columns: [
      { title: 'tid', align: 'right', width: { most: 10 }, cell: (row) => String(row.tid), look: (row) => ({ bold: row.leader }) },
      { title: 'name', width: { most: 24 }, cell: (row) => printable(nameOf(row)), look: () => ({ colour: 'cyan' }) },
      { title: 'state', width: 5, from: 100, cell: (row) => row.state ?? '' },
      { title: 'system call', width: { most: 18 }, cell: (row) => row.system_call ?? '-' },
      { title: 'location', width: 'rest', cell: (row) => frameText(row.location), look: (row) => (row.signal ? { colour: 'red' } : {}) },
    ],
    detail: (row, width) => [
      [`pc ${row.location.pc}  sp ${row.stack_pointer}  fs base ${row.fs_base}`],
      ...wrapLine([printable(threadDetails(row)).trim()], width).slice(0, 1),
    ],
    target: (_, index) => ({ to: 'thread', index }),
  });
}

/** One thread: its registers, its vector registers, or its stack. */
export function threadPane(side: Side, index: number, pane: Pane): Rows {
  if (pane === 'registers') return registerRows(side, index);
  return pane === 'vectors' ? vectorRows(side, index) : stackRows(side, index);
}

export function threadTitle(side: Side, index: number): string {
  const thread = side.image.threads()[index];
  return thread ? `thread ${thread.tid}${thread.name ? ` ${printable(thread.name)}` : ''}` : 'no thread';
}

function registerRows(side: Side, index: number): Rows {
  const { registers } = side.image.threads()[index]!.status;
  const mapped = (value: bigint): boolean => findVma(side.image.vmas(), value) !== undefined;
  return tableOf(GENERAL_REGISTERS, {
    summary: 'registers',
    columns: [
      { title: 'register', align: 'right', width: 8, cell: (name) => name, look: () => ({ colour: 'cyan' }) },
      { title: 'value', width: 18, cell: (name) => hex(registers[name]), look: (name) => ({ bold: mapped(registers[name]) }) },
      { title: 'points to', width: 'rest', cell: (name) => side.describe(registers[name]) ?? '' },
    ],
    target: (name) => ({ to: 'address', address: registers[name] }),
  });
}

function vectorRows(side: Side, index: number): Rows {
  const all = registersOf(side.image, side.image.threads()[index]!);
  const control = { mxcsr: all.mxcsr, fctrl: all.control_word, fstat: all.status_word, ftag: all.tag_word, pkru: all.pkru };
  const entries = Object.entries({ ...control, 'in use': all.in_use?.join(' ') ?? null, ...all.st, ...all.opmask, ...all.vectors });
  const known = entries.filter((entry): entry is [string, string] => entry[1] !== null);
  return tableOf(known, {
    summary: 'x87 and vector registers, most significant byte first',
    columns: [
      { title: 'register', align: 'right', width: 8, cell: ([name]) => name, look: () => ({ colour: 'cyan' }) },
      { title: 'value', width: 'rest', cell: ([, value]) => value, look: ([, value]) => ({ dim: /^(0x)?0*$/.test(value) }) },
    ],
    detail: ([, value], width) => wrapLine([value], width),
  });
}

/** Stacks come from a debugger, which takes seconds: they are loaded when this is first looked at. */
function stackRows(side: Side, index: number): Rows {
  const document = side.stacks.get();
  const text = (line: string): Rows => new TextRows('stack', [[line]]);
  if (document.status === 'loading') return text('gdb or eu-stack unwinds the stacks of all threads …');
  return document.status === 'failed' ? text(printable(document.reason)) : frameRows(document.value, index);
}

function frameRows({ stacks, java, threads: rows }: Document, index: number): Rows {
  const frames = rows[index]?.frames ?? [];
  const by = [stacks?.tool, java && 'the tables of the Java virtual machine'].filter(Boolean).join(' and ');
  if (frames.length === 0) return new TextRows('stack', [[printable(stacks?.problem ?? `${by} gave no frames for this thread`)]]);
  const numbered = frames.map((frame, number) => ({ ...frameWords(frame), pc: frame.pc, number, module: frame.module ?? '' }));
  return tableOf(numbered, {
    summary: `stack, ${count(frames.length, 'frame')} by ${by}`,
    columns: [
      { title: '#', align: 'right', width: 3, cell: ({ number }) => String(number) },
      { title: 'pc', width: 14, cell: ({ pc }) => pc ?? 'inlined', look: ({ pc }) => ({ dim: pc === null }) },
      { title: 'function', width: { most: 40 }, cell: ({ what }) => what, look: () => ({ colour: 'cyan' }) },
      { title: 'where', width: 'rest', cell: ({ where }) => where },
    ],
    detail: ({ what, where, module }, width) =>
      [...wrapLine([what], width), ...wrapLine([`${where}  ${printable(module)}`], width)].slice(0, 2),
    target: ({ pc }) => (pc === null ? null : { to: 'address', address: BigInt(pc) }),
  });
}
