/** What a CRIU image directory holds: the tree of processes with their threads, memory areas and descriptors. */
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import { type Message, readEntries } from './entries.js';

const PAGE_SIZE = 4096n;
const ADDRESSES = 1n << 64n;
const PRESENT = 4n; // PE_PRESENT of criu/include/pagemap.h
const PARENT = 1n;

export interface CriuThread {
  tid: number;
  name: string;
  /** null for another machine than x86-64. */
  pc: bigint | null;
  sp: bigint | null;
  /** Set of blocked signals. */
  mask: bigint;
}

export interface CriuArea {
  start: bigint;
  end: bigint;
  /** PROT_ bits. */
  protection: number;
  shared: boolean;
  kind: 'file' | 'heap' | 'stack' | 'vdso' | 'shared' | 'anonymous';
  /** In the mapped file. */
  offset: bigint;
  name: string;
  /** Bytes whose content is in the image. */
  dumped: bigint;
  /** Bytes that are in the image that this one goes on from. */
  inParent: bigint;
}

export interface CriuDescriptor {
  fd: number;
  kind: string;
  /** As /proc/PID/fd shows it, as far as the image tells. */
  path: string;
}

export interface CriuProcess {
  pid: number;
  parent: number;
  group: number;
  session: number;
  name: string;
  state: string;
  uid: number;
  gid: number;
  executable: string;
  cwd: string;
  /** null when the pages of the arguments are not in the image. */
  command: string[] | null;
  threads: CriuThread[];
  areas: CriuArea[];
  descriptors: CriuDescriptor[];
}

/** True for a directory that `criu dump` filled. */
export function isCriuDirectory(path: string): boolean {
  return existsSync(join(path, 'inventory.img')) && statSync(path).isDirectory();
}

const STATES: Record<number, string> = { 1: 'alive', 2: 'dead', 3: 'stopped', 6: 'zombie' };
const AREA = { stack: 1 << 1, vsyscall: 1 << 2, vdso: 1 << 3, heap: 1 << 5, filePrivate: 1 << 6, fileShared: 1 << 7, vvar: 1 << 12 };
const KINDS = [
  'unknown', 'file', 'pipe', 'fifo', 'socket', 'unix socket', 'eventfd', 'epoll', 'inotify', 'signalfd', 'packet socket', 'terminal', 'fanotify',
  'netlink socket', 'namespace', 'tun', 'external', 'timerfd', 'memfd', 'bpf map', 'pidfd',
]; // prettier-ignore
/** The field of file_entry that holds each kind. */
const FIELDS = [0, 3, 18, 17, 4, 16, 7, 8, 12, 9, 5, 19, 13, 6, 10, 12, 15, 11, 20, 21, 22];

export class CriuImage {
  readonly processes: CriuProcess[];
  /** Milliseconds since the epoch: when the inventory, the last file of a dump, was written. */
  dumpedAt = 0;
  /** Bytes of all files. */
  size = 0;
  tcpEstablished = false;
  private readonly files = new Map<number, Message>();

  constructor(readonly directory: string) {
    try {
      this.processes = this.load();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new Failure(`${directory}: an entry of the image cannot be decoded: ${error.message}; take the image from its source again`, {
        cause: error,
      });
    }
  }

  private load(): CriuProcess[] {
    const directory = this.directory;
    const inventory = this.read('inventory.img')[0];
    if (!inventory) throw new Failure(`${directory}/inventory.img is empty: the dump was not completed; dump the process again`);
    this.dumpedAt = statSync(join(directory, 'inventory.img')).mtimeMs;
    const names = readdirSync(directory);
    this.size = names.reduce((sum, name) => sum + (name.endsWith('.img') ? statSync(join(directory, name)).size : 0), 0);
    this.tcpEstablished = names.some((name) => name.startsWith('tcp-stream-'));
    for (const file of this.optional('files.img')) this.files.set(file.number(2), file);
    const processes = this.read('pstree.img').map((entry) => this.process(entry));
    if (processes.length === 0) throw new Failure(`${directory}/pstree.img names no process; dump it again`);
    return processes;
  }

  /** The root of the tree. */
  get root(): CriuProcess {
    return this.processes[0]!;
  }

  private read(name: string): Message[] {
    return readEntries(join(this.directory, name));
  }

  private optional(name: string): Message[] {
    return existsSync(join(this.directory, name)) ? this.read(name) : [];
  }

  private process(entry: Message): CriuProcess {
    const pid = entry.number(1);
    const core = this.optional(`core-${pid}.img`)[0];
    const mm = this.optional(`mm-${pid}.img`)[0];
    const fs = this.optional(`fs-${pid}.img`)[0];
    const creds = core?.message(5).message(10);
    const threads = entry.numbers(5).map((tid) => this.thread(tid, core?.message(3).text(6) ?? ''));
    const areas = mm ? this.areas(pid, mm) : [];
    return {
      pid,
      parent: entry.number(2),
      group: entry.number(3),
      session: entry.number(4),
      name: core?.message(3).text(6) ?? '',
      state: STATES[core?.message(3).number(1) ?? 0] ?? 'unknown',
      uid: creds?.number(1) ?? 0,
      gid: creds?.number(2) ?? 0,
      executable: mm ? this.fileName(mm.number(12)) : '',
      cwd: fs ? this.fileName(fs.number(1)) : '',
      command: mm ? this.command(pid, mm) : null,
      threads,
      areas,
      descriptors: this.descriptors((this.optional(`ids-${pid}.img`)[0] ?? core?.message(4))?.number(2) ?? 0),
    };
  }

  private thread(tid: number, processName: string): CriuThread {
    const core = this.optional(`core-${tid}.img`)[0];
    const own = core?.message(5);
    const registers = core?.has(2) ? core.message(2).message(2) : null;
    return {
      tid,
      name: own?.text(13) || processName,
      pc: registers?.big(17) ?? null,
      sp: registers?.big(20) ?? null,
      mask: own?.has(6) ? own.big(6) : (core?.message(3).big(5) ?? 0n),
    };
  }

  private fileName(id: number): string {
    return this.files.get(id)?.message(3).text(6) ?? '';
  }

  /** Runs of pages in address order, with where the content of present ones begins in the pages file. */
  private pages(pid: number): { file: string; runs: { start: bigint; end: bigint; flags: bigint; offset: bigint }[] } {
    const [head, ...entries] = this.optional(`pagemap-${pid}.img`);
    let offset = 0n;
    let last = 0n;
    const runs = entries.map((entry) => {
      const pages = entry.has(5) ? entry.big(5) : entry.big(2);
      const flags = entry.has(4) ? entry.big(4) : entry.big(3) !== 0n ? PARENT : PRESENT;
      const run = { start: entry.big(1), end: entry.big(1) + pages * PAGE_SIZE, flags, offset };
      if (run.end > ADDRESSES) throw this.damaged(`pagemap-${pid}.img`, `${pages} pages at ${hex(run.start)} are more than there are`);
      if (run.start < last) throw this.damaged(`pagemap-${pid}.img`, `pages at ${hex(run.start)} stand behind those up to ${hex(last)}`);
      last = run.end;
      if ((flags & PRESENT) !== 0n) offset += pages * PAGE_SIZE;
      return run;
    });
    return { file: join(this.directory, `pages-${head?.number(1) ?? 0}.img`), runs };
  }

  private damaged(name: string, why: string): Failure {
    return new Failure(`${join(this.directory, name)}: ${why}; take the image from its source again`);
  }

  private areas(pid: number, mm: Message): CriuArea[] {
    const { runs } = this.pages(pid);
    let from = 0;
    return mm.messages(14).map((vma) => {
      const [start, end, status, shared] = [vma.big(1), vma.big(2), vma.number(7), (vma.number(6) & 1) !== 0];
      if (end < start) throw this.damaged(`mm-${pid}.img`, `memory area ${hex(start)}-${hex(end)} ends before it begins`);
      const isFile = (status & (AREA.filePrivate | AREA.fileShared)) !== 0;
      const isStack = (status & AREA.stack) !== 0 || (start <= mm.big(5) && mm.big(5) < end);
      const special = (status & (AREA.vdso | AREA.vvar | AREA.vsyscall)) !== 0;
      const kind = isFile ? 'file' : special ? 'vdso' : status & AREA.heap ? 'heap' : isStack ? 'stack' : shared ? 'shared' : 'anonymous';
      let [dumped, inParent] = [0n, 0n];
      // Both are in order: what ends before this area is behind us.
      while (from < runs.length && runs[from]!.end <= start) from++;
      for (let i = from; i < runs.length && runs[i]!.start < end; i++) {
        const run = runs[i]!;
        const common = (run.end < end ? run.end : end) - (run.start > start ? run.start : start);
        if ((run.flags & PRESENT) !== 0n) dumped += common;
        else if ((run.flags & PARENT) !== 0n) inParent += common;
      }
      const name = isFile ? this.fileName(vma.number(4)) : kind === 'anonymous' || kind === 'shared' ? '' : `[${kind}]`;
      return { start, end, protection: vma.number(5), shared, kind, offset: isFile ? vma.big(3) : 0n, name, dumped, inParent };
    });
  }

  /** The arguments, from memory. */
  private command(pid: number, mm: Message): string[] | null {
    const [start, end] = [mm.big(8), mm.big(9)];
    const { file, runs } = this.pages(pid);
    const run = runs.find((one) => one.start <= start && start < one.end && (one.flags & PRESENT) !== 0n);
    if (!run || end <= start || !existsSync(file)) return null;
    const length = (end < run.end ? end : run.end) - start;
    // As long as the kernel lets arguments be, a quarter of the stack's limit, and more than anybody reads.
    const bytes = Buffer.alloc(Number(length < 65_536n ? length : 65_536n));
    const fd = openSync(file, 'r');
    try {
      // What the file lacks cannot be told from empty arguments.
      if (readSync(fd, bytes, 0, bytes.length, run.offset + (start - run.start)) < bytes.length) return null;
    } finally {
      closeSync(fd);
    }
    return bytes.toString('utf8').replace(/\0$/, '').split('\0');
  }

  private descriptors(table: number): CriuDescriptor[] {
    return this.optional(`fdinfo-${table}.img`)
      .map((entry) => {
        const kind = entry.number(3);
        const file = this.files.get(entry.number(1));
        return { fd: entry.number(4), kind: KINDS[kind] ?? 'unknown', path: file ? this.path(kind, file.message(FIELDS[kind] ?? 0)) : '' };
      })
      .toSorted((a, b) => a.fd - b.fd);
  }

  private path(kind: number, file: Message): string {
    switch (KINDS[kind]) {
      case 'file':
        return file.text(6);
      case 'pipe':
        return `pipe:[${file.number(2)}]`;
      case 'fifo':
        return this.fileName(file.number(3));
      case 'terminal':
        return this.fileName(file.number(6));
      case 'unix socket':
        return file.text(11).replace(/^\0/, '@').replace(/\0$/, '') || `socket:[${file.number(2)}]`;
      case 'socket':
        return `${endOf(file, 11, 7)}${file.number(8) === 0 ? '' : ` - ${endOf(file, 12, 8)}`}`;
      default:
        return '';
    }
  }
}

/** ADDRESS:PORT of one end of an IP socket; addresses are words in network order. */
function endOf(socket: Message, address: number, port: number): string {
  const bytes = socket.numbers(address).flatMap((word) => [word & 255, (word >>> 8) & 255, (word >>> 16) & 255, word >>> 24]);
  const groups = Array.from({ length: 8 }, (_, i) => (((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)).toString(16));
  const text = bytes.length === 16 ? `[${groups.join(':').replace(/(^|:)0(:0)+(:|$)/, '::')}]` : bytes.join('.');
  return `${text}:${socket.number(port)}`;
}
