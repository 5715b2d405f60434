import { ImageError } from '../failure.js';
import { hex } from '../hex.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import type { descriptorDetail } from '../schemas/index.js';
import type { Image } from './image.js';
import { nameOf, names, NONE, type NoteRecord } from './schema.js';
import { signalNames } from './signals.js';
import { decodeSocketOptions } from './socket-options.js';

export type DescriptorDetail = Static<typeof descriptorDetail>;

/** Open-file status flags (asm-generic/fcntl.h), without the access mode. */
const STATUS_FLAGS: [number, string][] = [
  [0o2000, 'O_APPEND'],
  [0o4000, 'O_NONBLOCK'],
  [0o20000, 'O_ASYNC'],
  [0o40000, 'O_DIRECT'],
  [0o200000, 'O_DIRECTORY'],
  [0o400000, 'O_NOFOLLOW'],
  [0o1000000, 'O_NOATIME'],
  [0o4010000, 'O_SYNC'],
  [0o10000, 'O_DSYNC'],
  [0o10000000, 'O_PATH'],
];
const O_LARGEFILE = 0o100000;
const O_PATH = 0o10000000;

const FAMILIES: Record<number, string> = { 1: 'unix', 2: 'ipv4', 10: 'ipv6', 16: 'netlink', 17: 'packet', 40: 'vsock' };
const SOCKET_TYPES: Record<number, string> = { 1: 'stream', 2: 'datagram', 3: 'raw', 5: 'seqpacket' };
const CLOCKS: Record<number, string> = { 0: 'realtime', 1: 'monotonic', 7: 'boottime', 8: 'realtime-alarm', 9: 'boottime-alarm' };
const EPOLL_EVENTS: [number, string][] = [
  [0x1, 'IN'],
  [0x2, 'PRI'],
  [0x4, 'OUT'],
  [0x8, 'ERR'],
  [0x10, 'HUP'],
  [0x2000, 'RDHUP'],
  [0x10000000, 'EXCLUSIVE'],
  [0x20000000, 'WAKEUP'],
  [0x40000000, 'ONESHOT'],
  [0x80000000, 'ET'],
];

function bits(table: readonly [number, string][], value: number): string[] {
  const found: string[] = [];
  for (const [mask, name] of table) {
    if ((value & mask) >>> 0 !== mask) continue;
    found.push(name);
    value &= ~mask;
  }
  if (value !== 0) found.push(`0x${(value >>> 0).toString(16)}`);
  return found;
}

export interface Descriptor {
  fd: number;
  kind: string;
  closeOnExec: boolean;
  access: 'read' | 'write' | 'read-write' | 'path';
  statusFlags: string[];
  /** Null where the kind has no offset. */
  offset: bigint | null;
  path: string;
  /** Index of the open file description. */
  description: number;
  /** Other descriptors of the same description. */
  sharedWith: number[];
  /** The rule of the checkpoint that it is under. */
  policy: Policy | null;
  /** What only this kind has. */
  detail: DescriptorDetail;
}

/** A rule that the checkpoint was under (docs/policies.md). */
export interface Policy {
  type: string;
  action: string;
  warn: boolean;
  /** Its lines. */
  rule: string;
  file: string;
  line: number;
}

/** The rules of an image of ours, in the order in which they were tried. */
export function policiesOf(image: Image): Policy[] {
  return [...image.table('policies')].map(({ type, action, flags, line, file, text }) => ({
    type: nameOf(names.policyType, type),
    action: nameOf(names.policyAction, action),
    warn: (flags & 1) === 0,
    rule: text.toString(),
    file: file.toString(),
    line,
  }));
}

/** The file descriptors of an image of ours, in ascending order. */
export function descriptorsOf(image: Image): Descriptor[] {
  const relations = relationsOf(image);
  const policies = policiesOf(image);
  const found = [...image.table('descriptors')].map(({ number, flags, description, policy }) => {
    const record = relations.descriptions[description]!;
    const kind = nameOf(names.descriptionKind, record.kind);
    const accessMode = record.status_flags & 3;
    const detail = detailOf(image, kind, record, description, relations);
    const held = relations.locks.get(number) ?? [];
    if (held.length > 0) {
      detail.locks = held.map((lock) => ({
        kind: nameOf(names.lockKind, lock.kind),
        exclusive: lock.exclusive === 1,
        start: byteCountOf(lock.start),
        end: lock.end === (1n << 64n) - 1n ? null : byteCountOf(lock.end),
      }));
    }
    return {
      fd: number,
      kind,
      closeOnExec: (flags & 1) !== 0,
      access: record.status_flags & O_PATH ? ('path' as const) : (['read', 'write', 'read-write', 'read-write'] as const)[accessMode]!,
      statusFlags: bits(STATUS_FLAGS, record.status_flags & ~3 & ~O_LARGEFILE),
      offset: ['file', 'directory', 'device', 'object'].includes(kind) ? record.offset : null,
      path: record.path.toString(),
      description,
      sharedWith: (relations.holders.get(description) ?? []).filter((other) => other !== number),
      policy: policies[policy - 1] ?? null,
      detail,
    };
  });
  return found.toSorted((a, b) => a.fd - b.fd);
}

/** What refers to what, looked up once: a server can have ten thousand descriptors. */
interface Relations {
  descriptions: NoteRecord<'descriptions'>[];
  /** Descriptors of an open file description. */
  holders: Map<number, number[]>;
  /** Descriptors of whatever stands behind `kind:detail`: both ends of a pipe have one `detail`. */
  behind: Map<string, number[]>;
  locks: Map<number, NoteRecord<'locks'>[]>;
  epollWatches: Map<number, NoteRecord<'epoll_watches'>[]>;
  inotifyWatches: Map<number, NoteRecord<'inotify_watches'>[]>;
}

function relationsOf(image: Image): Relations {
  const descriptions = [...image.table('descriptions')];
  const descriptors = [...image.table('descriptors')];
  for (const { number, description } of descriptors) {
    if (description < descriptions.length) continue;
    throw new ImageError(
      image.source.name,
      undefined,
      `descriptor ${number} refers to description ${description} of ${descriptions.length}`,
      'see `warp-tool validate`',
    );
  }
  const behindOf = (description: number): string => {
    const { kind, detail } = descriptions[description]!;
    return `${nameOf(names.descriptionKind, kind)}:${detail}`;
  };
  return {
    descriptions,
    holders: grouped(
      descriptors,
      (one) => one.description,
      (one) => one.number,
    ),
    behind: grouped(
      descriptors,
      (one) => behindOf(one.description),
      (one) => one.number,
    ),
    locks: grouped(
      image.table('locks'),
      (one) => one.fd,
      (one) => one,
    ),
    epollWatches: grouped(
      image.table('epoll_watches'),
      (one) => one.description,
      (one) => one,
    ),
    inotifyWatches: grouped(
      image.table('inotify_watches'),
      (one) => one.description,
      (one) => one,
    ),
  };
}

function grouped<T, K, V>(items: Iterable<T>, key: (item: T) => K, value: (item: T) => V): Map<K, V[]> {
  const groups = new Map<K, V[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group) group.push(value(item));
    else groups.set(key(item), [value(item)]);
  }
  return groups;
}

/** Bytes of the messages in a list as sockets and packet-mode pipes hold it: u32 length, u32 zero, the bytes, padded to 8. */
function messageBytes(data: Buffer): number {
  let total = 0;
  for (let at = 0; at + 8 <= data.length;) {
    const length = data.readUInt32LE(at);
    total += length;
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return total;
}

function detailOf(
  image: Image,
  kind: string,
  { detail, size, inode }: NoteRecord<'descriptions'>,
  description: number,
  relations: Relations,
): DescriptorDetail {
  switch (kind) {
    case 'file':
    case 'directory':
      return { size: byteCountOf(size), inode: inode.toString() };
    case 'caller':
      return { stream: ['stdin', 'stdout', 'stderr'][detail] ?? String(detail) };
    case 'pipe':
    case 'fifo': {
      if (detail === NONE) return {};
      const pipe = image.table('pipes').get(detail);
      const packets = (pipe.flags & 4) !== 0;
      const own = relations.holders.get(description) ?? [];
      return {
        unread: packets ? messageBytes(pipe.data) : pipe.data.length,
        capacity: pipe.capacity,
        no_reader: (pipe.flags & 1) !== 0,
        no_writer: (pipe.flags & 2) !== 0,
        packets,
        ends: (relations.behind.get(`${kind}:${detail}`) ?? []).filter((fd) => !own.includes(fd)),
      };
    }
    case 'socket': {
      if (detail === NONE) return {};
      const socket = image.table('sockets').get(detail);
      return {
        family: FAMILIES[socket.family] ?? String(socket.family),
        type: SOCKET_TYPES[socket.type] ?? String(socket.type),
        protocol: socket.protocol,
        state: nameOf(names.socketState, socket.state),
        local: socketAddress(socket.local),
        remote: socketAddress(socket.remote),
        backlog: socket.backlog,
        unread: messageBytes(socket.data),
        peer: relations.behind.get(`socket:${socket.peer}`) ?? [],
        options: decodeSocketOptions(socket.options),
        shutdown: [socket.flags & 1 ? 'read' : '', socket.flags & 2 ? 'write' : ''].filter((one) => one !== ''),
      };
    }
    case 'eventfd': {
      const { count, semaphore } = image.table('eventfds').get(detail);
      return { count: count.toString(), semaphore: semaphore === 1 };
    }
    case 'timerfd': {
      const timer = image.table('timerfds').get(detail);
      return {
        clock: CLOCKS[timer.clock] ?? String(timer.clock),
        left_ns: timer.value_ns.toString(),
        interval_ns: timer.interval_ns.toString(),
        ticks: timer.ticks.toString(),
      };
    }
    case 'signalfd':
      return { signals: signalNames(image.table('signalfds').get(detail).mask) };
    case 'epoll':
      return {
        watches: (relations.epollWatches.get(description) ?? []).map((watch) => ({
          fd: watch.fd,
          events: bits(EPOLL_EVENTS, watch.events),
          data: hex(watch.data),
        })),
      };
    case 'inotify':
      return {
        watches: (relations.inotifyWatches.get(description) ?? []).map((watch) => ({
          watch: watch.watch,
          mask: hex(watch.mask),
          path: watch.path.toString(),
        })),
      };
    case 'object': {
      const object = image.table('objects').get(detail);
      return {
        object: nameOf(names.objectKind, object.kind),
        name: object.name.toString(),
        size: byteCountOf(object.size),
        seals: object.seals,
      };
    }
    default:
      return {};
  }
}

/** A struct sockaddr in the usual notation: `127.0.0.1:80`, `[::1]:80`, a path, `@abstract`. Empty for none. */
export function socketAddress(raw: Buffer): string {
  if (raw.length < 2) return '';
  const family = raw.readUInt16LE(0);
  if (family === 1) {
    const name = raw.subarray(2);
    if (name.length === 0) return '';
    if (name[0] === 0) return `@${name.toString('utf8', 1)}`;
    const end = name.indexOf(0);
    return name.toString('utf8', 0, end < 0 ? name.length : end);
  }
  if (family === 2 && raw.length >= 8) return `${raw.subarray(4, 8).join('.')}:${raw.readUInt16BE(2)}`;
  if (family === 10 && raw.length >= 24) return `[${ipv6(raw.subarray(8, 24))}]:${raw.readUInt16BE(2)}`;
  return `${FAMILIES[family] ?? `family ${family}`} 0x${raw.subarray(2).toString('hex')}`;
}

/** RFC 5952 text of an IPv6 address. */
function ipv6(raw: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => raw.readUInt16BE(index * 2));
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) return `::ffff:${raw.subarray(12).join('.')}`;
  return new URL(`http://[${groups.map((group) => group.toString(16)).join(':')}]/`).hostname.slice(1, -1);
}
