import { Flags } from '@oclif/core';
import type { ChalkInstance } from 'chalk';
import { isCriuDirectory } from '../criu/image.js';
import { cpuFeatureNames } from '../elf/cpu-features.js';
import { policiesOf } from '../elf/descriptors.js';
import { argumentsOf } from '../elf/environment.js';
import { timestamp, uuid } from '../elf/identity.js';
import { SEALED, type Image } from '../elf/image.js';
import { xstateFeatureNames } from '../elf/kernel-notes/xstate.js';
import { Modules } from '../elf/modules.js';
import { bitNames, nameOf, names } from '../elf/schema.js';
import { signalName } from '../elf/signals.js';
import type { Vma } from '../elf/vmas.js';
import { type criuShow, show } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { columns, type Column } from '../terminal/columns.js';
import { bytes, count, duration, printable } from '../terminal/format.js';
import { ImageCommand, imageArgument } from './base.js';
import { criuShowView } from './criu-views.js';
import { collectComposition, compositionLines } from './composition.js';
import { kindsText } from './fds.js';
import { amountsOf } from './maps.js';
import { optimisationJson, optimisationText } from './optimisation.js';
import { collectJava, javaLines } from './show-java.js';
import { systemCallOf } from './threads.js';

type Document = Static<typeof show>;
type Memory = NonNullable<Document['memory']>;
type KindRow = Memory['by_kind'][number];

const LABEL_WIDTH = 13;

export default class Show extends ImageCommand {
  static override summary = 'Show what an image is: process, origin, memory, needs.';
  static override description = [
    'One screen: what was captured, when, where from, by which engine; threads, memory by kind, files, and what a host must have to',
    'restore it.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> show /tmp/image',
    '<%= config.bin %> show /tmp/image --composition',
    '<%= config.bin %> show core.1234 --json',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    composition: Flags.boolean({ description: 'Read all stored memory, too: purposes, zeros, copies, what LZ4 saves, advice.' }),
  };

  async run(): Promise<Document | Static<typeof criuShow>> {
    const { args, flags } = await this.parse(Show);
    if (isCriuDirectory(args.image)) return this.presentCriu(criuShowView(args.image), flags.json);
    const collect = async (image: Image): Promise<Document> => {
      const document = await collectShow(image);
      if (flags.composition) document.composition = await summary(image, document.java);
      return document;
    };
    return this.inspect(args.image, flags, collect, (document) => {
      for (const problem of document.java?.problems ?? []) this.warnUser(printable(problem));
      return new ShowText(this.style).lines(document);
    });
  }
}

async function summary(image: Image, java: Document['java']): Promise<Document['composition']> {
  const { composition, advice } = await collectComposition(image, java);
  const { duplicates_from, total, categories } = composition;
  return { duplicates_from, total, categories, advice };
}

/** The screen of `show`, line by line. */
export class ShowText {
  constructor(
    private readonly style: ChalkInstance,
    private readonly bars = true,
  ) {}

  *lines(document: Document): Generator<string> {
    const { style } = this;
    const row = (label: string, text: string): string => `${style.cyan(label.padEnd(LABEL_WIDTH))}${text}`;
    const dim = (text: string): string => style.dim(text);
    const { process, host, signal, threads, memory, content, needs } = document;

    const writer = document.format === null ? 'ELF core file of another writer' : `warp-tool image, format ${document.format}`;
    yield `${style.bold(printable(document.image))}  ${dim(`${writer}, ${bytes(document.size)}`)}`;
    yield '';
    const command = process.command?.map(quoted).join(' ') ?? null;
    const ids = [
      process.pid !== null && `pid ${process.pid}`,
      process.parent_pid && `parent ${process.parent_pid}`,
      process.process_group && `group ${process.process_group}`,
      process.session && `session ${process.session}`,
    ].filter((text) => typeof text === 'string');
    if (threads) yield row('process', `${style.bold(process.name ? printable(process.name) : '?')}  ${ids.join(', ')}`.trimEnd());
    if (command !== null) yield row('command', shorten(command, 300));
    if (process.executable !== null) yield row('executable', printable(process.executable));
    const root = process.root === null || process.root === '/' ? '' : `, root ${printable(process.root)}`;
    if (process.cwd !== null) yield row('directory', `${printable(process.cwd)}${root}`);
    if (process.uid !== null) yield row('identity', `uid ${process.uid}, gid ${process.gid}`);
    if (signal) {
      const at = signal.address === null ? '' : ` at ${signal.address}`;
      yield row('died of', style.red(`${signal.name}${at}`) + dim(` (code ${signal.code}, thread ${signal.thread})`));
    }
    if (document.captured_at !== null) {
      const age = Date.now() - Date.parse(document.captured_at);
      const when = `${document.captured_at.slice(0, 19).replace('T', ' ')} UTC`;
      const fate = document.flags.includes('left-running') ? 'left running' : 'ended after the capture';
      yield row('captured', `${when}${age >= 0 ? dim(` (${duration(age)} ago)`) : ''}, ${fate}`);
      yield row('image', `${document.id}, generation ${document.generation}${flagText(document.flags)}`);
      if (document.parent_id !== null) yield row('parent', `${document.parent_id} ${printable(document.parent_location ?? '')}`.trimEnd());
    }
    if (document.engine !== null) yield row('engine', printable(document.engine));
    if (host)
      yield row(
        'host',
        printable([host.hostname, `Linux ${host.kernel_release}`, host.cpu_model].filter((part) => part !== '').join(', ')),
      );

    for (const { kind, name, value } of document.labels) yield row(kind, printable(`${name} = ${shorten(value, 200)}`));

    if (threads) yield* this.threadLines(threads, row);
    if (document.descriptors) yield row('descriptors', `${document.descriptors.count}  ${kindsText(document.descriptors.by_kind)}`);
    if (document.policies.length > 0) yield row('policies', shorten(policiesText(document.policies), 300));

    if (memory) {
      yield '';
      yield* this.memoryTable(memory);
    }
    if (content) {
      const ratio = Number(content.packed) > 0 ? Number(content.size) / Number(content.packed) : 1;
      const how = content.codecs.filter((codec) => codec !== 'plain');
      const packing = how.length > 0 ? `, ${how.join(' and ')} ${bytes(content.packed)} (${ratio.toFixed(2)} to 1)` : ', not compressed';
      const encryption = content.encrypted ? ', encrypted' : '';
      const parent = content.in_parent > 0 ? `, ${content.in_parent} in the parent` : '';
      yield '';
      yield row('content', `${bytes(content.size)} in ${count(content.chunks, 'chunk')}${packing}${encryption}${parent}`);
      if (content.optimisation) yield row('optimised', optimisationText(content.optimisation));
    }
    if (document.java) {
      yield '';
      // The composition has its advice among its own.
      yield* javaLines(document.composition ? { ...document.java, advice: [] } : document.java, row, style);
      yield '';
    }
    if (document.composition) {
      if (!document.java) yield '';
      yield* compositionLines(document.composition, style);
      yield '';
    }
    yield* this.fileList(document, row);
    if (needs) {
      const registers = needs.xstate_features.join(' ');
      yield row(
        'needs',
        `${needs.machine} with ${registers} ${dim(`(${bytes(needs.xstate_size)} of state)`)}, pages of ${bytes(needs.page_size)}`,
      );
      if (needs.files > 0) yield row('', `${count(needs.files, 'file')} unchanged; see \`warp-tool maps\``);
    }
  }

  private *threadLines(threads: NonNullable<Document['threads']>, row: (label: string, text: string) => string): Generator<string> {
    const { style } = this;
    const named = threads.names.filter((entry) => entry.name !== null);
    yield row('threads', `${threads.count}${named.length > 0 ? `  ${tally(named, style.bold)}` : ''}`);
    const calls = threads.system_calls.map((entry) => ({ name: entry.name ?? 'user code', count: entry.count }));
    if (calls.length > 0)
      yield row(
        '  were in',
        tally(calls, (text) => text),
      );
  }

  private *memoryTable(memory: Memory): Generator<string> {
    const { style } = this;
    const rows: KindRow[] = [...memory.by_kind, { kind: 'all', ...memory }];
    const packed = rows.some((row) => row.packed !== row.stored);
    const cell = (title: string, key: 'mapped' | 'resident' | 'stored' | 'packed' | 'zero' | 'from_file' | 'absent'): Column<KindRow>[] =>
      // The content of [vvar] is the kernel's: that it is not here is no news.
      memory.by_kind.every((row) => row[key] === null || row[key] === 0 || (key === 'absent' && row.kind === 'vvar'))
        ? []
        : [{ title, align: 'right', cell: (row) => (row[key] === null ? '?' : row[key] === 0 ? '-' : bytes(row[key])) }];
    const layout: Column<KindRow>[] = [
      { title: 'memory', cell: (row) => row.kind.padEnd(LABEL_WIDTH - 2), style: (text) => style.cyan(text) },
      { title: 'areas', align: 'right', cell: (row) => String(row.areas) },
      ...cell('mapped', 'mapped'),
      ...cell('resident', 'resident'),
      ...cell('stored', 'stored'),
      ...(packed ? cell('packed', 'packed') : []),
      ...cell('zero', 'zero'),
      ...cell('in files', 'from_file'),
      ...cell('absent', 'absent'),
    ];
    if (this.bars) {
      const share = (row: KindRow): string =>
        bar(
          row,
          memory,
          (text) => style.green(text),
          (text) => style.dim(text),
        );
      layout.push({ title: '', cell: share });
    }
    yield* columns(rows, layout, (text) => style.bold(text));
  }

  private *fileList({ files }: Document, row: (label: string, text: string) => string): Generator<string> {
    const shown = 6;
    for (const [index, file] of files.slice(0, shown).entries()) {
      const identity = file.build_id === null ? (file.size === null ? '' : bytes(file.size)) : `build-id ${file.build_id.slice(0, 16)}…`;
      const deleted = file.deleted ? this.style.yellow(' deleted') : '';
      yield row(index === 0 ? 'files' : '', `${printable(file.path)}${deleted}  ${this.style.dim(identity)}`.trimEnd());
    }
    if (files.length > shown) yield row('', this.style.dim(`and ${files.length - shown} more; see \`warp-tool maps\``));
  }
}

/** Share of all stored content. */
function bar(row: KindRow, memory: Memory, full: (text: string) => string, empty: (text: string) => string): string {
  if (row.kind === 'all' || Number(memory.stored) === 0) return '';
  const width = 20;
  const share = Math.round((Number(row.stored) / Number(memory.stored)) * width);
  return full('█'.repeat(share)) + empty('·'.repeat(width - share));
}

function flagText(flags: readonly string[]): string {
  const shown = flags.filter((flag) => flag !== 'left-running');
  return shown.length > 0 ? `, ${shown.join(', ')}` : '';
}

export function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${printable(argument).replaceAll("'", "'\\''")}'`;
}

export function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function tally(entries: readonly { name: string | null; count: number }[], style: (text: string) => string): string {
  const shown = entries.slice(0, 8).map((entry) => `${style(printable(entry.name ?? '?'))}${entry.count > 1 ? ` ×${entry.count}` : ''}`);
  const rest = entries.length - shown.length;
  return `${shown.join('  ')}${rest > 0 ? `  and ${rest} more` : ''}`;
}

/** Counts equal names, most frequent first. */
function counted<T extends string | null>(values: readonly T[]): { name: T; count: number }[] {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].map(([name, amount]) => ({ name, count: amount })).toSorted((a, b) => b.count - a.count);
}

export async function collectShow(image: Image): Promise<Document> {
  const { outermost } = image;
  const record = image.single('image');
  const flags = outermost.ours ? outermost.anchor!.flags | (record?.flags ?? 0) : 0;
  const files = image.sealed ? [] : await filesOf(image);
  return {
    image: image.source.name,
    size: byteCountOf(image.file.size),
    warnings: image.sealed ? [...image.warnings, SEALED] : image.warnings,
    format: image.anchor ? `${image.anchor.format_major}.${image.anchor.format_minor}` : null,
    id: record ? uuid(record.image_id) : null,
    parent_id: record && record.parent_id.some((byte) => byte !== 0) ? uuid(record.parent_id) : null,
    parent_location: record && record.parent_location.length > 0 ? record.parent_location.toString() : null,
    generation: record?.generation ?? null,
    flags: bitNames(names.imageFlags, flags),
    captured_at: record ? timestamp(record.realtime_ns) : null,
    engine: record ? `warp ${record.engine_version.toString()}` : null,
    process: await processOf(image),
    labels: image.sealed ? [] : labelsOf(image),
    signal: image.sealed ? null : signalOf(image),
    host: record && {
      hostname: record.hostname.toString(),
      kernel_release: record.kernel_release.toString(),
      kernel_version: record.kernel_version.toString(),
      cpu_model: record.cpu_model.toString().replaceAll('\0', '').trim(),
      boot_id: record.boot_id.toString().trim(),
    },
    threads: image.sealed ? null : threadsOf(image),
    memory: image.sealed ? null : memoryOf(image.vmas()),
    content: contentOf(image),
    descriptors: image.sealed ? null : descriptorKinds(image),
    policies: image.sealed || !image.ours ? [] : policyUses(image),
    files,
    java: image.sealed ? null : await collectJava(image),
    composition: null,
    needs: record && {
      machine: image.header.machineName === 'amd64' ? 'x86-64' : image.header.machineName,
      page_size: record.page_size,
      xstate_features: xstateFeatureNames(record.xstate_features),
      xstate_size: record.xstate_size,
      cpu_features: cpuFeatureNames(record.cpu_features),
      files: files.length,
    },
  };
}

/** Of the process all that is known: of a sealed image nothing. */
async function processOf(image: Image): Promise<Document['process']> {
  const process = image.sealed ? null : image.single('process');
  const information = image.sealed ? null : image.kernelNote('prpsinfo');
  const leader = image.sealed ? null : (image.threads().find((thread) => thread.leader) ?? null);
  const command = image.sealed ? null : await argumentsOf(image);
  return {
    pid: process?.pid ?? information?.pid ?? null,
    parent_pid: process?.parent_pid ?? information?.parentPid ?? null,
    process_group: process?.process_group ?? information?.processGroup ?? null,
    session: process?.session ?? information?.session ?? null,
    name: leader?.name ?? information?.name ?? null,
    command: command ?? (information ? information.arguments.split(' ') : null),
    executable: image.sealed ? null : image.executable(),
    cwd: process?.cwd.toString() ?? null,
    root: process?.root.toString() ?? null,
    uid: process?.uid[0] ?? information?.uid ?? null,
    gid: process?.gid[0] ?? information?.gid ?? null,
  };
}

function labelsOf(image: Image): Document['labels'] {
  return [...image.table('tags')].map(({ kind, name, value }) => ({
    kind: nameOf(names.tagKind, kind),
    name: name.toString(),
    value: value.toString(),
  }));
}

function threadsOf(image: Image): Document['threads'] {
  const threads = image.threads();
  return {
    count: threads.length,
    names: counted(threads.map((thread) => thread.name)),
    system_calls: counted(threads.map((thread) => systemCallOf(thread))),
  };
}

function memoryOf(vmas: readonly Vma[]): Memory {
  return {
    areas: vmas.length,
    ...amountsOf(vmas),
    by_kind: [...new Set(vmas.map((vma) => vma.kind))]
      .map((kind) => {
        const some = vmas.filter((vma) => vma.kind === kind);
        return { kind, areas: some.length, ...amountsOf(some) };
      })
      .toSorted((a, b) => Number(b.stored) - Number(a.stored) || Number(b.mapped) - Number(a.mapped)),
  };
}

function signalOf(image: Image): Document['signal'] {
  const thread = image.threads()[0];
  if (!thread || thread.status.signal === 0) return null;
  const information = image.threadNote('siginfo', thread);
  const number = thread.status.signal;
  const same = information?.signal === number ? information : null;
  return {
    number,
    name: signalName(number),
    code: same?.code ?? thread.status.signalCode,
    address: same?.address === null || same?.address === undefined ? null : `0x${same.address.toString(16)}`,
    thread: thread.tid,
  };
}

/** How content is stored, in the file as it stands. */
function contentOf(image: Image): Document['content'] {
  const { outermost } = image;
  if (!outermost.ours) return null;
  const { chunks } = outermost;
  const { packed, encrypted, inParent, codecs } = chunks.summary();
  return {
    size: byteCountOf(outermost.anchor!.content_size),
    chunks: chunks.length,
    packed: byteCountOf(BigInt(packed)),
    codecs: codecs.map((codec) => nameOf(names.codec, codec)),
    encrypted,
    in_parent: inParent,
    optimisation: image.sealed ? null : optimisationJson(image),
  };
}

function policyUses(image: Image): Document['policies'] {
  const uses = policiesOf(image).map((policy) => ({ ...policy, descriptors: [] as number[] }));
  for (const { number, policy } of image.table('descriptors')) uses[policy - 1]?.descriptors.push(number);
  return uses;
}

/** `3 rules: close fd 4, ignore fd 5 6`. */
function policiesText(policies: Document['policies']): string {
  const used = policies.filter(({ descriptors }) => descriptors.length > 0);
  const uses = used.map(({ action, descriptors }) => `${action} fd ${descriptors.join(' ')}`);
  return `${count(policies.length, 'rule')}: ${uses.join(', ') || 'no descriptor is under one'}`;
}

function descriptorKinds(image: Image): Document['descriptors'] {
  if (!image.ours) return null;
  const descriptions = image.table('descriptions');
  const kinds = [...image.table('descriptors')].map(({ description }) =>
    nameOf(names.descriptionKind, descriptions.field(description, 'kind')),
  );
  return { count: kinds.length, by_kind: counted(kinds).map(({ name, count: amount }) => ({ kind: name, count: amount })) };
}

async function filesOf(image: Image): Promise<Document['files']> {
  if (image.ours) {
    return [...image.table('files')].map((file) => ({
      path: file.path.toString(),
      size: byteCountOf(file.size),
      build_id: file.build_id.length > 0 ? file.build_id.toString('hex') : null,
      deleted: (file.flags & 1) !== 0,
    }));
  }
  const modules = new Modules(image);
  const paths = [...new Set(image.vmas().flatMap((vma) => (vma.kind === 'file' ? [vma.name] : [])))];
  return Promise.all(
    paths.map(async (path) => ({ path, size: null, build_id: await modules.buildId({ name: path, file: null }), deleted: null })),
  );
}
