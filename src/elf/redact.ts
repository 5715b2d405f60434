import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import { AddressSpace, readRun } from './address-space.js';
import { Image } from './image.js';
import { ImageWriter } from './image-writer.js';
import { AUXV_NAMES } from './kernel-notes/auxv.js';
import { kernelNoteKey, kernelNotes, type KernelNoteKey } from './kernel-notes/index.js';
import { max, min } from './memory.js';
import {
  assembleMetadata,
  bytesFromJson,
  decodeMetadata,
  layOutMetadata,
  placeMetadata,
  sealMetadata,
  type BytesValue,
  type MetadataJson,
  type NoteJson,
  type Placed,
  type RecordJson,
} from './metadata.js';
import { plainSource } from './pack.js';
import { HARMLESS_TEXTS, LARGEST_CHUNK, layoutOf, NOTE_OWNER, projectNotes, type NoteName } from './schema.js';
import { MEMORY_FILE } from './vmas.js';
import { xxh64 } from './xxh64.js';

/** What can be kept. */
export const keepable = ['paths', 'names', 'arguments', 'environment', 'addresses', 'registers', 'labels', 'host'] as const;
export type Keepable = (typeof keepable)[number];

/** How much of what was removed. */
export interface Removed {
  what: string;
  count: number;
  /** Bytes of memory and of data in transit; null where bytes mean nothing. */
  bytes: bigint | null;
}

/**
 * Writes an image of the same structure without what its process held: everything that is not known to be harmless is blanked, so that what a later
 * version of the format adds is blanked too.
 */
export async function redactImage(packed: Image, path: string, keep: ReadonlySet<Keepable>): Promise<Removed[]> {
  // What comes out is plain: there is no content left to compress or to hide.
  const plain = await plainSource(packed);
  const image = plain === packed.source ? packed : await Image.from(plain);
  if (image.anchor && !image.ours) {
    throw new Failure(
      `${image.source.name}: its format is not known here, so nobody can say what to remove; use warp-tool of the version that made it`,
    );
  }
  const document = await decodeMetadata(image, image.source.name);
  const redaction = new Redaction(image, keep);
  const kept = await redaction.keptMemory();
  for (const part of document.notes) redaction.noteSegment(part);
  redaction.structure(document);
  let metadata: Placed[];
  if (image.ours) {
    await redaction.rehash(document, kept);
    layOutMetadata(document, BigInt(image.single('image')!.page_size));
    const bytes = assembleMetadata(document);
    await sealMetadata(bytes);
    metadata = [{ offset: 0n, bytes }];
  } else {
    metadata = placeMetadata(document);
  }
  await ImageWriter.write(path, async (writer) => {
    // All that is not written is a hole: nothing of the original can be left between the parts.
    await writer.truncate(image.source.size);
    for (const { offset, bytes } of [...kept, ...metadata]) await writer.write(offset, bytes);
  });
  return redaction.removed();
}

/** Slices and strings by what keeps them. */
const CLASSES: Partial<Record<NoteName, Record<string, Keepable>>> = {
  image: { hostname: 'host', boot_id: 'host', executable: 'paths', command: 'arguments', parent_location: 'paths' },
  process: { cwd: 'paths', root: 'paths' },
  threads: { name: 'names' },
  vmas: { name: 'paths' },
  files: { path: 'paths' },
  objects: { name: 'paths' },
  descriptions: { path: 'paths' },
  pipes: { path: 'paths' },
  inotify_watches: { path: 'paths' },
  policies: { file: 'paths', text: 'labels' },
  sockets: { local: 'addresses', remote: 'addresses' },
  tags: { name: 'labels', value: 'labels' },
};

/** Numbers that a program fills with whatever it likes, or that let content be guessed. */
const FREE_NUMBERS: Partial<Record<NoteName, readonly string[]>> = {
  files: ['sample_hash'],
  descriptions: ['sample_hash'],
  epoll_watches: ['data'],
  eventfds: ['count'],
  timers: ['value'],
};

/** Of notes whose owner's name is kept. */
const OWNERS = new Set(['CORE', 'LINUX', 'GNU', 'GDB', NOTE_OWNER]);

/** What a program cannot name: kinds of descriptors, the kernel's areas, standard devices. */
const COMMON_NAMES =
  /^(?:(?:socket|pipe):\[\d+\]|anon_inode:\[?[\w-]*\]?|\[(?:heap|stack|vdso|vvar\w*|vsyscall)\]|\/dev\/(?:null|zero|full|u?random|tty|ptmx|pts\/\d+)|\/)$/;

class Redaction {
  private readonly counts = new Map<string, Removed>();
  private readonly paths = new Map<string, string>();

  constructor(
    private readonly image: Image,
    private readonly keep: ReadonlySet<Keepable>,
  ) {}

  removed(): Removed[] {
    return [...this.counts.values()].filter(({ count }) => count > 0);
  }

  private count(what: string, count = 1, bytes: bigint | null = null): void {
    const entry = this.counts.get(what) ?? { what, count: 0, bytes };
    if (this.counts.has(what) && bytes !== null) entry.bytes = (entry.bytes ?? 0n) + bytes;
    entry.count += count;
    this.counts.set(what, entry);
  }

  /** The memory of environment and arguments, where these are kept; counts the rest. */
  async keptMemory(): Promise<Placed[]> {
    const stored = this.image.vmas().filter((vma) => vma.stored > 0n);
    this.count(
      'memory areas with content',
      stored.length,
      stored.reduce((sum, vma) => sum + vma.stored, 0n),
    );
    const process = this.image.single('process');
    const ranges: [Keepable, bigint, bigint][] = process
      ? [
          ['environment', process.env_start, process.env_end],
          ['arguments', process.arg_start, process.arg_end],
        ]
      : [];
    if (!process && (this.keep.has('environment') || this.keep.has('arguments'))) {
      throw new Failure(
        `${this.image.source.name}: a core file of another writer does not tell where environment and arguments are; they cannot be kept alone`,
      );
    }
    const placed: Placed[] = [];
    const space = new AddressSpace(this.image);
    try {
      for (const [what, start, end] of ranges) {
        if (!this.keep.has(what)) {
          if (end > start) this.count(what);
          continue;
        }
        for await (const run of space.runs({ start, end })) {
          if (run.from !== 'image') continue;
          const bytes = Buffer.alloc(Number(run.end - run.start));
          await readRun(run, bytes);
          placed.push({ offset: run.offset, bytes });
        }
      }
    } finally {
      await space.close();
    }
    return placed;
  }

  /** Hashes of content that is zeros but for what is kept. */
  async rehash(document: MetadataJson, kept: readonly Placed[]): Promise<void> {
    const ofZeros = new Map<number, string>();
    for (const part of document.notes) {
      for (const record of part.notes?.find(({ owner, name }) => owner === NOTE_OWNER && name === 'chunks')?.records ?? []) {
        if (Object.keys(projectNotes.chunks.fields).some((field) => record[field] === undefined))
          throw new Failure(`${this.image.source.name}: note chunks: its records are too short; see \`warp-tool validate\``);
        const start = BigInt(record['content_offset'] as string);
        const size = Number(record['content_size']);
        if (size > LARGEST_CHUNK) {
          throw new Failure(
            `${this.image.source.name}: a chunk has ${size} bytes, ${LARGEST_CHUNK} is the most; see \`warp-tool validate\``,
          );
        }
        const touching = kept.filter(({ offset, bytes }) => offset < start + BigInt(size) && offset + BigInt(bytes.length) > start);
        let hash = touching.length === 0 ? ofZeros.get(size) : undefined;
        if (hash === undefined) {
          const content = Buffer.alloc(size);
          for (const { offset, bytes } of touching) {
            const from = max(offset, start);
            const to = min(offset + BigInt(bytes.length), start + BigInt(size));
            bytes.copy(content, Number(from - start), Number(from - offset), Number(to - offset));
          }
          hash = hex(await xxh64(content));
          if (touching.length === 0) ofZeros.set(size, hash);
        }
        Object.assign(record, { content_hash: hash, stored_hash: hash });
      }
    }
  }

  /** Bytes outside of notes. */
  structure(document: MetadataJson): void {
    document.residue = [];
    document.environment = null;
    // Padding of the identification bytes has no meaning.
    document.header['ident'] = `${(document.header['ident'] as string).slice(0, 18)}${'0'.repeat(14)}`;
    if (document.anchor) document.anchor['reserved'] = Array.from({ length: 8 }, () => '0x0');
    if (document.sections === '') return;
    // sh_info of section 0 has the number of segments where the header has no room; the others name parts of the file that are gone.
    const extended = document.header['phnum'] === 0xffff;
    document.sections = extended ? document.sections.slice(88, 96).padStart(96, '0').padEnd(128, '0') : '';
    document.header['shnum'] = extended ? 1 : 0;
    document.header['shstrndx'] = 0;
    if (!extended) document.header['shoff'] = '0x0';
  }

  noteSegment(part: MetadataJson['notes'][number]): void {
    if (part.notes === null) {
      // Not laid out as notes are: what cannot be understood is blanked.
      const size = (part.bytes ?? '').length / 2;
      this.count('unreadable notes');
      part.bytes = '00'.repeat(size);
      return;
    }
    for (const note of part.notes) {
      delete note.meaning;
      // A strange name could hold anything.
      if (!OWNERS.has(note.owner)) note.owner = 'x'.repeat(note.owner.length);
      if (note.records) this.table(note);
      else if (note.bytes !== undefined) note.bytes = this.kernelNote(note, Buffer.from(note.bytes, 'hex')).toString('hex');
    }
    part.bytes = null;
  }

  private table(note: NoteJson): void {
    const name = note.name as NoteName;
    const { fields } = projectNotes[name];
    const classes = CLASSES[name] ?? {};
    const harmless = HARMLESS_TEXTS[name] ?? [];
    for (const record of note.records!) {
      for (const { name: field, type } of layoutOf(fields).places) {
        if (type === 'slice' && record[field] !== undefined && !harmless.includes(field)) this.slice(name, record, field, classes[field]);
      }
      for (const field of FREE_NUMBERS[name] ?? []) {
        if (record[field] === undefined) continue;
        if (field === 'sample_hash' || record[field] === '0x0') record[field] = '0x0';
        else {
          this.count('numbers of the program’s own');
          record[field] = '0x0';
        }
      }
      const { siginfo } = record;
      if (name === 'pending_signals' && typeof siginfo === 'string') {
        // Signal, errno and code; the rest may carry a value.
        record['siginfo'] = siginfo.slice(0, 24).padEnd(256, '0');
        this.count('values of queued signals');
      }
      if (record['_rest'] !== undefined) record['_rest'] = '00'.repeat((record['_rest'] as string).length / 2);
    }
    delete note.layout;
  }

  private slice(note: NoteName, record: RecordJson, field: string, kind: Keepable | undefined): void {
    const bytes = bytesFromJson(record[field] as BytesValue, `${note}.${field}`);
    if (bytes.length === 0 || (kind !== undefined && this.keep.has(kind))) return;
    const text = bytes.toString();
    let value: BytesValue = { hex: '00'.repeat(bytes.length) };
    switch (kind) {
      case 'paths':
        value = this.path(text);
        break;
      case 'names':
        this.count('thread names');
        value = 'redacted';
        break;
      case 'addresses':
        this.count('socket addresses');
        // The family stays: it decides how the socket is shown.
        value = { hex: bytes.toString('hex', 0, 2).padEnd(2 * bytes.length, '0') };
        break;
      case 'host':
        this.count('host names and boot ids');
        value = 'redacted';
        break;
      case 'arguments':
        value = 'redacted';
        break;
      case 'labels':
        if (field === 'value') this.count('labels');
        if (note === 'policies') this.count('policies');
        value = 'redacted';
        break;
      default:
        if (note === 'sockets' && field === 'data') value = blankMessages(bytes);
        if (note === 'sockets' && field === 'options') value = blankOptions(bytes);
        else this.count('data in pipes and sockets', 1, BigInt(bytes.length));
    }
    record[field] = value;
  }

  /** The same path has the same name everywhere, so that it can be seen what belongs together. */
  private path(text: string): string {
    if (text === '' || COMMON_NAMES.test(text)) return text;
    let name = this.paths.get(text);
    if (name === undefined) {
      const number = this.paths.size + 1;
      // A file that exists in memory only is told by its name.
      name = MEMORY_FILE.test(text) ? `/memfd:${number} (deleted)` : `/redacted/file-${number}`;
      this.paths.set(text, name);
      this.count('paths');
    }
    return name;
  }

  private kernelNote(note: NoteJson, raw: Buffer): Buffer {
    const found = kernelNoteKey({ owner: note.owner, type: Number(note.type), offset: 0n, descriptor: raw });
    // One that is too short is not what its type says.
    const key = found && raw.length >= kernelNotes[found].minimumSize ? found : undefined;
    switch (key) {
      case 'prpsinfo':
        return this.prpsinfo(raw);
      case 'file':
        return this.files(raw);
      case 'auxv':
        // What is behind AT_NULL, or of a type that no kernel has, is not told by the kernel.
        return keepEntries(raw, (at) => Number(raw.readBigUInt64LE(at)) in AUXV_NAMES);
      case 'xsaveLayout':
        return keepEntries(raw, (at) => raw.readUInt32LE(at) < 64);
      case 'siginfo':
        // Up to the sender or the address; a value may follow.
        return blankFrom(raw, 24);
      case 'prstatus':
      case 'fpregset':
      case 'xstate':
        return this.keep.has('registers') ? raw : this.registers(key, raw);
      default:
        this.count('notes of other kinds');
        return Buffer.alloc(raw.length);
    }
  }

  private prpsinfo(raw: Buffer): Buffer {
    const result = Buffer.from(raw);
    if (!this.keep.has('names')) result.fill(0, 40, 56).write('redacted', 40);
    if (!this.keep.has('arguments')) result.fill(0, 56);
    return result;
  }

  /** NT_FILE keeps its size in foreign cores, where nothing can move: names become shorter until they fit. */
  private files(raw: Buffer): Buffer {
    if (this.keep.has('paths')) return raw;
    const entries = Number(raw.readBigUInt64LE(0));
    if (entries > (raw.length - 16) / 24) return Buffer.alloc(raw.length);
    const namesAt = 16 + entries * 24;
    const old = raw.toString('utf8', namesAt).split('\0').slice(0, entries);
    // A wrong number would take names for numbers; a text would stay where addresses are expected.
    const ends = raw.subarray(namesAt).filter((byte) => byte === 0).length;
    if (ends < entries || entries === 0 || ends > entries + 7 || !hasMappings(raw, entries)) return Buffer.alloc(raw.length);
    const renamed = old.map((path) => this.path(path));
    const fitting = [renamed, renamed.map((path) => path.replace('/redacted/file-', '/')), renamed.map(() => '')].map((names) =>
      Buffer.from(names.map((path) => `${path}\0`).join('')),
    );
    const result = Buffer.alloc(raw.length);
    raw.copy(result, 0, 0, namesAt);
    fitting.find((names) => names.length <= raw.length - namesAt)?.copy(result, namesAt);
    return result;
  }

  /** Registers that say where the thread was stay; of the others only those that point into mapped memory. */
  private registers(key: KernelNoteKey, raw: Buffer): Buffer {
    const result = Buffer.alloc(raw.length);
    const copy = (from: number, to: number): void => void raw.copy(result, from, from, to);
    if (key === 'prstatus') {
      this.count('threads’ registers that are no addresses');
      copy(0, kernelNotes.prstatus.minimumSize);
      for (let index = 0; index < FIRST_KEPT; index++) {
        const at = REGISTERS + index * 8;
        if (!this.image.vmaAt(raw.readBigUInt64LE(at))) result.writeBigUInt64LE(0n, at);
      }
      // No time of a thread and no register that is kept is as large, but for the -1 of orig_rax: only a damaged note has text there.
      for (let at = TIMES; at + 8 <= kernelNotes.prstatus.minimumSize; at += 8) {
        const value = result.readBigUInt64LE(at);
        if (value >= ADDRESS_LIMIT && value !== (1n << 64n) - 1n) result.writeBigUInt64LE(0n, at);
      }
      return result;
    }
    copy(0, 4); // control and status word of the x87
    copy(24, 32); // MXCSR and its mask
    if (key === 'xstate') {
      copy(464, 472); // XCR0, where Linux puts it
      copy(512, 528); // which components are there
    }
    return result;
  }
}

/** Whether the numbers of NT_FILE are those of mappings: the unit of offsets (GDB writes 1, kernels a page), then page-aligned user addresses. */
function hasMappings(raw: Buffer, entries: number): boolean {
  const unit = raw.readBigUInt64LE(8);
  if (unit === 0n || unit >= ADDRESS_LIMIT) return false;
  for (let index = 0; index < entries; index++) {
    const start = raw.readBigUInt64LE(16 + index * 24);
    const end = raw.readBigUInt64LE(24 + index * 24);
    if (start >= end || end > ADDRESS_LIMIT || start % PAGE !== 0n || end % PAGE !== 0n) return false;
    if (raw.readBigUInt64LE(32 + index * 24) * unit >= 1n << 63n) return false;
  }
  return true;
}

/** Where user addresses end with five levels of page tables, and the smallest page. */
const ADDRESS_LIMIT = 1n << 56n;
const PAGE = 4096n;

/** In NT_PRSTATUS: where struct user_regs_struct begins, and the index of orig_rax, from which on nothing is data. */
const REGISTERS = 112;
/** In NT_PRSTATUS: where the times begin, up to the registers. */
const TIMES = 48;
const FIRST_KEPT = 15;

/** Of a note of pairs of numbers, those that `known` accepts, up to the first that it does not. */
function keepEntries(raw: Buffer, known: (at: number) => boolean): Buffer {
  let end = 0;
  while (end + 16 <= raw.length && known(end)) end += 16;
  return blankFrom(raw, end);
}

function blankFrom(raw: Buffer, from: number): Buffer {
  const result = Buffer.alloc(raw.length);
  raw.copy(result, 0, 0, from);
  return result;
}

/** Unread messages: their lengths stay. */
function blankMessages(raw: Buffer): BytesValue {
  const result = Buffer.alloc(raw.length);
  for (let at = 0; at + 8 <= raw.length;) {
    const length = raw.readUInt32LE(at);
    result.writeUInt32LE(length, at);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return { hex: result.toString('hex') };
}

/** Socket options: level, name and length stay. */
function blankOptions(raw: Buffer): BytesValue {
  const result = Buffer.alloc(raw.length);
  for (let at = 0; at + 16 <= raw.length;) {
    raw.copy(result, at, at, at + 12);
    at += 16 + Math.ceil(raw.readUInt32LE(at + 8) / 8) * 8;
  }
  return { hex: result.toString('hex') };
}
