import { basename } from 'node:path';
import { Flags } from '@oclif/core';
import { isCriuDirectory } from '../criu/image.js';
import { AddressSpace } from '../elf/address-space.js';
import type { Image, Thread } from '../elf/image.js';
import { openJvm } from '../elf/java.js';
import type { JavaThread } from '../elf/jvm/threads.js';
import { type X86Register } from '../elf/kernel-notes/prstatus.js';
import { xstateFeatureNames } from '../elf/kernel-notes/xstate.js';
import { Modules } from '../elf/modules.js';
import { signalName, signalNames } from '../elf/signals.js';
import { MOST_FRAMES, stacksOf, withJavaFrames, type StackFrame, type Stacks } from '../elf/stacks.js';
import { systemCallName } from '../elf/system-calls.js';
import { type criuThreads, threads } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { columns, type Column } from '../terminal/columns.js';
import { hex } from '../hex.js';
import { printable } from '../terminal/format.js';
import { ImageCommand, imageArgument } from './base.js';
import { criuThreadsView } from './criu-views.js';
import { withLocalFile } from './local-file.js';
import { frameOf, frameText } from './locations.js';

type Document = Static<typeof threads>;
type Row = Document['threads'][number];
type Frame = NonNullable<Row['frames']>[number];
type Registers = NonNullable<Row['registers']>;
type JavaFrame = NonNullable<Frame['java']>;

/** The way in which the Java frames of most threads end: no news. */
const ORDINARY_END = /first Java method|no Java frame/;

/** Integer registers in the order in which they are shown. */
export const GENERAL_REGISTERS: X86Register[] = [
  'rip', 'eflags', 'rsp', 'rbp', 'rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15',
  'orig_rax', 'fs_base', 'gs_base', 'cs', 'ss', 'ds', 'es', 'fs', 'gs',
]; // prettier-ignore

const POLICIES: Record<number, string> = { 0: 'other', 1: 'fifo', 2: 'round-robin', 3: 'batch', 5: 'idle', 6: 'deadline', 7: 'ext' };

export default class Threads extends ImageCommand {
  static override summary = 'Show threads: where they were, registers, stacks.';
  static override description = [
    'Per thread: id, name, state, system call, place in the code, signal mask. Stacks are unwound by gdb or eu-stack, whichever is',
    'installed.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> threads /tmp/image',
    '<%= config.bin %> threads core.1234 --registers',
    '<%= config.bin %> threads /tmp/image --stack',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    registers: Flags.boolean({ char: 'r', description: 'All registers: integer, x87, SSE, AVX and AVX-512.' }),
    stack: Flags.boolean({ char: 's', description: 'The frames of each stack, unwound by gdb or eu-stack, whichever is installed.' }),
  };

  async run(): Promise<Document | Static<typeof criuThreads>> {
    const { args, flags } = await this.parse(Threads);
    if (isCriuDirectory(args.image)) return this.presentCriu(criuThreadsView(args.image), flags.json);
    return this.inspect(
      args.image,
      flags,
      async (image) => {
        const document = await collectAll(image, flags);
        const problems = [...(document.stacks?.problem ? [document.stacks.problem] : []), ...(document.java?.problems ?? [])];
        if (!flags.json) for (const problem of problems) this.warnUser(printable(problem));
        return document;
      },
      (document) => this.render(document, flags.registers ?? false),
    );
  }

  private frameLine({ pc, function: name, module, module_offset: offset, file, line, generated, java }: Frame): string {
    const { style } = this;
    if (java) return this.javaFrameLine(pc, name, file, line, java);
    const where = sourceText({ file, line });
    const inside = module === null ? '' : ` (${printable(basename(module))})`;
    const what = functionText({ function: name, generated, module, module_offset: offset });
    return `${pc === null ? style.dim('inlined'.padEnd(14)) : address(pc)} ${style.cyan(what)}${where}${name === null ? '' : style.dim(inside)}`;
  }

  private javaFrameLine(pc: string | null, name: string | null, file: string | null, line: number | null, java: JavaFrame): string {
    const { style } = this;
    if (java.kind === 'frozen') return `${address(pc)} ${style.dim('[frames of the virtual thread that are in the heap]')}`;
    if (java.kind === 'entry') return `${address(pc)} ${style.dim(JAVA_ENTRY)}`;
    const place = pc === null ? style.dim('inlined'.padEnd(14)) : address(pc);
    return `${place} ${style.cyan(printable(name ?? '?'))}${sourceText({ file, line })}${style.dim(` (${javaHow(java)})`)}`;
  }

  private *render({ threads: rows }: Document, registers: boolean): Generator<string> {
    const { style } = this;
    const names = rows.some((row) => nameOf(row) !== '');
    const states = rows.some((row) => row.state !== null);
    const layout: Column<Row>[] = [
      { title: 'tid', align: 'right', cell: (row) => String(row.tid), style: (text, row) => (row.leader ? style.bold(text) : text) },
      ...(names ? [{ title: 'name', cell: (row: Row) => printable(nameOf(row)), style: (text: string) => style.cyan(text) }] : []),
      ...(states ? [{ title: 'state', cell: (row: Row) => printable(row.state ?? '') }] : []),
      { title: 'system call', cell: (row) => row.system_call ?? '-' },
      { title: 'pc', cell: (row) => row.location.pc },
      { title: 'fs base', cell: (row) => row.fs_base },
      {
        title: 'location',
        cell: (row) => `${frameText(row.location)}${threadDetails(row)}`,
        style: (text, row) => (row.signal ? style.red(text) : text),
      },
    ];
    const lines = columns(rows, layout, (text) => style.bold(text));
    yield lines.next().value as string;
    let index = 0;
    for (const line of lines) {
      yield line;
      const row = rows[index++]!;
      for (const [number, frame] of (row.frames ?? []).entries()) yield `  ${style.dim(`#${number}`.padEnd(4))} ${this.frameLine(frame)}`;
      const end = row.java?.frames_end ?? null;
      if (end !== null && !ORDINARY_END.test(end)) yield `  ${style.dim(`the Java frames end here: ${printable(end)}`)}`;
      if (row.frames && !row.registers) yield '';
      if (registers && row.registers) yield* registerLines(row.registers, (text) => style.dim(text));
    }
  }
}

const JAVA_ENTRY = '[native code calls Java]';

function javaHow({ kind, compiler }: JavaFrame): string {
  return kind === 'native' ? 'native method' : [kind, compiler].filter(Boolean).join(', ');
}

function functionText({ function: name, generated, module, module_offset: offset }: Omit<Frame, 'pc' | 'file' | 'line' | 'java'>): string {
  if (name !== null) return printable(name);
  return generated ? '[generated code]' : module === null ? '??' : `${printable(basename(module))}+${offset}`;
}

function sourceText({ file, line }: Pick<Frame, 'file' | 'line'>): string {
  return file === null ? '' : ` at ${printable(basename(file))}${line === null ? '' : `:${line}`}`;
}

/** A frame in words without its address: the function, and where that is. */
export function frameWords(frame: Frame): { what: string; where: string } {
  const { java, module } = frame;
  if (java?.kind === 'entry') return { what: JAVA_ENTRY, where: '' };
  const source = sourceText(frame).replace(/^ at /, '');
  if (java) return { what: printable(frame.function ?? '?'), where: `${source} (${javaHow(java)})`.trim() };
  return { what: functionText(frame), where: source === '' && module !== null ? printable(basename(module)) : source };
}

interface Ask {
  registers?: boolean;
  stack?: boolean;
  /** Ends a debugger, which is an error. */
  signal?: AbortSignal;
  /** Gives debuggers a file. */
  withFile?: typeof withLocalFile;
}

/** Threads with what is asked for, and what the Java virtual machine says where there is one. */
export async function collectAll(
  image: Image,
  { registers = false, stack = false, signal, withFile = withLocalFile }: Ask,
): Promise<Document> {
  const document = await collectThreads(image, registers);
  const stacks = stack ? await withFile(image, (local) => stacksOf(local, signal)) : null;
  if (stacks) addStacks(document, stacks);
  await addJava(image, document, stacks);
  return document;
}

/** Adds what a debugger says of the stacks. */
function addStacks(document: Document, { tool, problem, frames }: Stacks): void {
  document.stacks = { tool, problem };
  for (const row of document.threads) row.frames = frames.get(row.tid)?.map(frameRow) ?? null;
}

/** Adds what the Java virtual machine's own tables say of its threads and, where stacks are asked for, of their Java frames. */
export async function addJava(image: Image, document: Document, stacks: Stacks | null): Promise<void> {
  const space = new AddressSpace(image);
  try {
    const jvm = await openJvm(space);
    if (jvm === null) return;
    document.java = { problems: typeof jvm === 'string' ? [jvm] : jvm.problems };
    if (typeof jvm === 'string') return;
    for (const [index, thread] of image.threads().entries()) {
      const row = document.threads[index]!;
      const java = await jvm.threadAt(fsBaseOf(thread));
      if (!java) continue;
      row.java = javaRow(java);
      if (!stacks) continue;
      const native = stacks.frames.get(thread.tid) ?? [];
      const stack = await jvm.stack(java, thread.status.registers, MOST_FRAMES);
      row.java.frames_end = stack?.end ?? null;
      if (stack && stack.frames.length > 0) row.frames = withJavaFrames(native, stack).map(frameRow);
    }
  } finally {
    await space.close();
  }
}

function javaRow({ name, id, daemon, priority, state, vmState, virtual, blocker }: JavaThread): NonNullable<Row['java']> {
  return {
    name,
    id: id === null ? null : String(id),
    daemon,
    priority,
    state,
    vm_state: vmState,
    virtual_thread: virtual,
    waits_for: blocker && { how: blocker.how, address: hex(blocker.address), class: blocker.className, held_by: blocker.heldBy },
    frames_end: null,
  };
}

function frameRow({ pc, function: name, file, line, location, generated, java }: StackFrame): Frame {
  return {
    pc: pc === null ? null : hex(pc),
    function: name,
    module: location?.module ?? null,
    module_offset: location?.moduleOffset ? hex(location.moduleOffset) : null,
    file,
    line,
    generated,
    java: java && {
      kind: java.kind,
      class: java.method?.className ?? null,
      method: java.method?.name ?? null,
      signature: java.method?.signature ?? null,
      bytecode_index: java.bci,
      compiler: java.compiler,
    },
  };
}
function address(pc: string | null): string {
  return pc === null ? ' '.repeat(14) : `0x${pc.slice(2).padStart(12, '0')}`;
}

/** The Java name in full where there is one; the kernel has the first 15 bytes of it, or a name of its own. */
export function nameOf({ name, java }: Pick<Row, 'name' | 'java'>): string {
  if (java?.name === null || java?.name === undefined) return name ?? '';
  const same = name !== null && java.name.startsWith(name.replace(/\uFFFD+$/, ''));
  return same || name === null ? java.name : `${java.name} (${name})`;
}

/** What is unusual about a thread, in brackets; empty when nothing is. */
export function threadDetails(row: Row): string {
  const parts: string[] = [];
  if (row.java) {
    const { state, waits_for: object, virtual_thread: virtual } = row.java;
    const holder = object?.held_by ? ` held by ${object.held_by}` : '';
    const blocker = object === null ? '' : ` for ${object.class} ${object.address}${holder}`;
    if (state !== null && state !== 'RUNNABLE') parts.push(printable(`${state}${blocker}`));
    if (virtual !== null) parts.push(printable(`carries virtual thread ${virtual}`));
  }
  if (row.signal) parts.push(`died of ${row.signal}`);
  if (row.signal_mask.length > 0) parts.push(`blocks ${maskText(row.signal_mask)}`);
  if (row.pending_signals.length > 0) parts.push(`pending ${row.pending_signals.join(' ')}`);
  if (row.nice) parts.push(`nice ${row.nice}`);
  if (row.scheduling_policy && row.scheduling_policy !== 'other') parts.push(row.scheduling_policy);
  return parts.length > 0 ? `  [${parts.join(', ')}]` : '';
}

/** A long mask is told by what it leaves out. */
function maskText(mask: readonly string[]): string {
  if (mask.length <= 32) return mask.map((name) => name.replace(/^SIG/, '')).join(' ');
  const open = signalNames((1n << 64n) - 1n).filter((name) => !mask.includes(name) && name !== 'SIGKILL' && name !== 'SIGSTOP');
  return open.length === 0 ? 'all' : `all but ${open.map((name) => name.replace(/^SIG/, '')).join(' ')}`;
}

function* registerLines(registers: Registers, dim: (text: string) => string): Generator<string> {
  const line = (entries: [string, string][], perLine: number, nameWidth: number, valueWidth: number): string[] => {
    const lines: string[] = [];
    for (let at = 0; at < entries.length; at += perLine) {
      const cells = entries.slice(at, at + perLine).map(([name, value]) => `${dim(name.padStart(nameWidth))} ${value.padEnd(valueWidth)}`);
      lines.push(`  ${cells.join('  ').trimEnd()}`);
    }
    return lines;
  };
  yield* line(Object.entries(registers.general), 4, 8, 18);
  const control = [
    ['mxcsr', registers.mxcsr],
    ['fctrl', registers.control_word],
    ['fstat', registers.status_word],
    ['ftag', registers.tag_word],
    ['pkru', registers.pkru],
  ].filter((entry): entry is [string, string] => entry[1] !== null);
  yield* line(control, 5, 8, 10);
  if (registers.in_use) yield `  ${dim('  in use')} ${registers.in_use.join(' ')} ${dim(`(enabled: ${registers.xcr0?.join(' ')})`)}`;
  const used = (entries: Record<string, string>): [string, string][] =>
    Object.entries(entries)
      .filter(([, value]) => !/^0*$/.test(value))
      .map(([name, value]) => [name, value.replace(/^0+/, '0x')]);
  yield* line(used(registers.st), 4, 8, 20);
  yield* line(
    Object.entries(registers.opmask).filter(([, value]) => value !== '0x0'),
    4,
    8,
    18,
  );
  yield* line(used(registers.vectors), 1, 8, 0);
  yield '';
}

export async function collectThreads(image: Image, registers: boolean): Promise<Document> {
  const modules = new Modules(image);
  const rows: Row[] = [];
  const leaderState = image.kernelNote('prpsinfo')?.state ?? null;
  for (const [index, thread] of image.threads().entries()) {
    const { status, record } = thread;
    const state = record ? stateLetter(record.state) : thread.leader ? leaderState : null;
    rows.push({
      tid: thread.tid,
      name: thread.name,
      java: null,
      leader: thread.leader,
      state,
      system_call: systemCallOf(thread),
      location: frameOf(await modules.locate(status.registers.rip)),
      stack_pointer: hex(status.registers.rsp),
      // The kernel writes the signal into every thread's note, and the thread that it hit first.
      signal: index > 0 || status.signal === 0 ? null : signalName(status.signal),
      signal_mask: signalNames(record?.signal_mask ?? status.blockedSignals),
      pending_signals: signalNames(status.pendingSignals),
      fs_base: hex(fsBaseOf(thread)),
      gs_base: hex(record?.gs_base ?? status.registers.gs_base),
      nice: record?.nice ?? null,
      scheduling_policy: record ? (POLICIES[record.scheduling_policy] ?? String(record.scheduling_policy)) : null,
      registers: registers ? registersOf(image, thread) : null,
      frames: null,
    });
  }
  return { image: image.source.name, warnings: image.warnings, stacks: null, java: null, threads: rows };
}

function fsBaseOf({ record, status }: Thread): bigint {
  return record?.fs_base ?? status.registers.fs_base;
}

/** The system call that a thread was in, by name. */
export function systemCallOf(thread: Thread): string | null {
  const { record, status } = thread;
  const original = BigInt.asIntN(64, status.registers.orig_rax);
  const number = record && record.system_call >= 0 ? record.system_call : Number(original);
  return number < 0 ? null : systemCallName(number);
}

/** All registers of a thread as text. */
export function registersOf(image: Image, thread: Thread): Registers {
  const extended = image.xstate(thread);
  const legacy = extended?.legacy ?? image.threadNote('fpregset', thread);
  const vectors = extended?.zmm ?? extended?.ymm ?? legacy?.xmm ?? [];
  const prefix = extended?.zmm ? 'zmm' : extended?.ymm ? 'ymm' : 'xmm';
  const numbered = <T>(name: string, values: readonly T[], text: (value: T) => string): Record<string, string> =>
    Object.fromEntries(values.map((value, index) => [`${name}${index}`, text(value)]));
  return {
    general: Object.fromEntries(GENERAL_REGISTERS.map((name) => [name, hex(thread.status.registers[name])])),
    mxcsr: legacy ? hex(legacy.mxcsr) : null,
    control_word: legacy ? hex(legacy.controlWord) : null,
    status_word: legacy ? hex(legacy.statusWord) : null,
    tag_word: legacy ? hex(legacy.tagWord) : null,
    xcr0: extended ? xstateFeatureNames(extended.xcr0) : null,
    in_use: extended ? xstateFeatureNames(extended.xstateBv) : null,
    vectors: numbered(prefix, vectors, bigEndianText),
    st: numbered('st', legacy?.st ?? [], bigEndianText),
    opmask: numbered('k', extended?.opmask ?? [], (value) => hex(value)),
    pkru: extended?.pkru === null || extended?.pkru === undefined ? null : hex(extended.pkru),
  };
}

/** ASCII; null where the capture did not know it. */
function stateLetter(code: number): string | null {
  return code > 0x20 && code < 0x7f ? String.fromCharCode(code) : null;
}

/** A register's bytes as one number: hexadecimal, most significant byte first. */
function bigEndianText(register: Buffer): string {
  return Buffer.from(register.toReversed()).toString('hex');
}
