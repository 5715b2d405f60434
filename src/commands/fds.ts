import { isCriuDirectory } from '../criu/image.js';
import type { Image } from '../elf/image.js';
import { descriptorsOf } from '../elf/descriptors.js';
import { type criuFds, fds } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { columns } from '../terminal/columns.js';
import { bytes, count, duration, printable } from '../terminal/format.js';
import { ImageCommand, imageArgument } from './base.js';
import { criuFdsView } from './criu-views.js';

type Document = Static<typeof fds>;
type Row = Document['descriptors'][number];

export default class Fds extends ImageCommand {
  static override summary = 'Show file descriptors: kinds, offsets, peers, unread data.';
  static override description = [
    'Also status flags, watches of epoll and inotify, timers, locks, policies, and which descriptors share an offset. Core files of the kernel and',
    'of gcore hold no descriptors.',
  ].join(' ');
  static override examples = ['<%= config.bin %> fds /tmp/image', '<%= config.bin %> fds /tmp/image --json'];
  static override args = { image: imageArgument };

  async run(): Promise<Document | Static<typeof criuFds>> {
    const { args, flags } = await this.parse(Fds);
    if (isCriuDirectory(args.image)) return this.presentCriu(criuFdsView(args.image), flags.json);
    return this.inspect(args.image, flags, collectFds, (document) =>
      columns(
        document.descriptors,
        [
          { title: 'fd', align: 'right', cell: (row) => String(row.fd) },
          { title: 'kind', cell: (row) => row.kind, style: (text) => this.style.cyan(text) },
          { title: 'access', cell: (row) => ({ read: 'r', write: 'w', 'read-write': 'rw', path: 'path' })[row.access] },
          { title: 'offset', align: 'right', cell: (row) => (row.offset === null ? '-' : String(row.offset)) },
          { title: 'flags', cell: (row) => flagsText(row) },
          { title: 'what', cell: (row) => printable(describe(row)) },
        ],
        (text) => this.style.bold(text),
      ),
    );
  }
}

export function flagsText(row: Row): string {
  return (
    [...(row.close_on_exec ? ['cloexec'] : []), ...row.status_flags.map((flag) => flag.replace(/^O_/, '').toLowerCase())].join(' ') || '-'
  );
}

/** What a person wants to know of a descriptor, in one line. */
export function describe(row: Row): string {
  const { detail } = row;
  const parts: string[] = [];
  const unread = (): void => {
    if (detail.unread && row.access !== 'write') parts.push(`${bytes(detail.unread)} unread`);
  };
  switch (row.kind) {
    case 'caller':
      parts.push(`${detail.stream} of whoever restores`);
      break;
    case 'file':
      parts.push(row.path, bytes(detail.size ?? 0));
      break;
    case 'pipe':
    case 'fifo':
      parts.push(row.path);
      if (detail.ends?.length) parts.push(`other end ${fdList(detail.ends)}`);
      if (detail.no_reader) parts.push('nobody reads');
      if (detail.no_writer) parts.push('nobody writes');
      unread();
      break;
    case 'socket':
      parts.push(`${protocolName(detail)} ${detail.state}`);
      if (detail.local) parts.push(detail.local);
      if (detail.remote) parts.push(`to ${detail.remote}`);
      if (detail.peer?.length) parts.push(`peer ${fdList(detail.peer)}`);
      parts.push(...optionTexts(detail.options ?? {}));
      if (detail.state === 'listening') parts.push(`backlog ${detail.backlog}`);
      unread();
      break;
    case 'eventfd':
      parts.push(`count ${detail.count}${detail.semaphore ? ', semaphore' : ''}`);
      break;
    case 'timerfd':
      parts.push(`${detail.clock}, ${detail.left_ns === '0' ? 'disarmed' : `due in ${duration(Number(detail.left_ns) / 1e6)}`}`);
      if (detail.interval_ns !== undefined && detail.interval_ns !== '0') parts.push(`every ${duration(Number(detail.interval_ns) / 1e6)}`);
      break;
    case 'signalfd':
      parts.push((detail.signals ?? []).join(' '));
      break;
    case 'epoll':
      parts.push(`watches ${(detail.watches ?? []).map((watch) => `${watch.fd}(${watch.events?.join('|')})`).join(' ') || 'nothing'}`);
      break;
    case 'inotify':
      parts.push(`watches ${(detail.watches ?? []).map((watch) => watch.path).join(' ') || 'nothing'}`);
      break;
    case 'object':
      parts.push(`${detail.object} ${detail.name}`, bytes(detail.size ?? 0));
      break;
    default:
      parts.push(row.path);
  }
  for (const lock of detail.locks ?? []) parts.push(`${lock.exclusive ? 'exclusive' : 'shared'} ${lock.kind} lock`);
  if (row.policy) parts.push(`policy ${row.policy.action}`);
  if (row.shared_with.length > 0) parts.push(`same as ${fdList(row.shared_with)}`);
  return parts.filter((part) => part !== '').join(', ');
}

/** Options that somebody has set and that matter to whoever looks for the reason of something. */
function optionTexts(options: Record<string, string>): string[] {
  const on = ['SO_REUSEADDR', 'SO_REUSEPORT', 'SO_KEEPALIVE', 'SO_BROADCAST', 'TCP_NODELAY'].filter(
    (name) => Number(options[name] ?? 0) !== 0,
  );
  const texts = on.map((name) => name.replace(/^[A-Z]+_/, '').toLowerCase());
  if (options['SO_SNDBUF'] !== undefined) texts.push(`send buffer ${bytes(options['SO_SNDBUF'])}`);
  if (options['SO_RCVBUF'] !== undefined) texts.push(`receive buffer ${bytes(options['SO_RCVBUF'])}`);
  return texts;
}

function fdList(list: readonly number[]): string {
  return `${list.length === 1 ? 'fd' : 'fds'} ${list.join(' ')}`;
}

function protocolName({ family, type }: Row['detail']): string {
  if (family === 'ipv4' || family === 'ipv6') {
    const name = { stream: 'tcp', datagram: 'udp' }[type ?? ''] ?? type;
    return family === 'ipv6' ? `${name}6` : `${name}`;
  }
  return `${family} ${type}`;
}

export function collectFds(image: Image): Document {
  image.requireOurs('file descriptors');
  return {
    image: image.source.name,
    warnings: image.warnings,
    descriptors: descriptorsOf(image).map((one) => ({
      fd: one.fd,
      kind: one.kind,
      close_on_exec: one.closeOnExec,
      access: one.access,
      status_flags: one.statusFlags,
      offset: one.offset === null || one.offset < 0n ? null : byteCountOf(one.offset),
      path: one.path,
      description: one.description,
      shared_with: one.sharedWith,
      policy: one.policy,
      detail: one.detail,
    })),
  };
}

/** `3 files, 1 socket` for a summary. */
export function kindsText(kinds: readonly { kind: string; count: number }[]): string {
  return kinds
    .map((one) => {
      if (one.kind === 'not-kept') return `${one.count} not kept`;
      return one.kind === 'caller' ? count(one.count, 'standard stream') : count(one.count, one.kind, plural(one.kind));
    })
    .join(', ');
}

function plural(kind: string): string {
  if (kind === 'directory') return 'directories';
  if (kind.endsWith('fd') || kind === 'epoll' || kind === 'inotify') return kind;
  return `${kind}s`;
}
