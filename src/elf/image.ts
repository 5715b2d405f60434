import { Failure, ImageError } from '../failure.js';
import { hex } from '../hex.js';
import { ChunkIndex } from './chunk-index.js';
import { ContentSource } from './content.js';
import { cipherOf, DecryptedSource, openData } from './encryption.js';
import { decodeKernelNote, kernelNoteKey, type KernelNoteKey, type KernelNoteValue } from './kernel-notes/index.js';
import type { AuxvEntry } from './kernel-notes/auxv.js';
import type { MappedFile } from './kernel-notes/file.js';
import { decodeXstate, type Xstate } from './kernel-notes/xstate.js';
import type { Prstatus } from './kernel-notes/prstatus.js';
import { Memory } from './memory.js';
import { hashOfMetadata, metadataSizeProblem } from './metadata.js';
import { readNotes, type Note } from './notes.js';
import {
  ANCHOR_MAGIC,
  ANCHOR_OFFSET,
  anchorFields,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  IMAGE_COMPRESSED,
  IMAGE_DELTA,
  IMAGE_ENCRYPTED,
  IMAGE_FOREIGN,
  IMAGE_KNOWN,
  layoutOf,
  NOTE_OWNER,
  projectNotes,
  TABLE_HEADER_SIZE,
  type NoteName,
  type NoteRecord,
  type RecordOf,
} from './schema.js';
import { EM_X86_64, ET_CORE, PT_NOTE, PT_WARP_CHUNKED, readHeader, SegmentTable, type ElfHeader, type Segment } from './segments.js';
import { BufferSource, openSource, type ByteSource } from './source.js';
import { decodeRecord, Table } from './table.js';
import { buildVmas, findVma, type Vma } from './vmas.js';

export type Anchor = RecordOf<typeof anchorFields>;

/** A thread of the image: what the kernel's notes say and, in our images, what the project's note adds. */
export interface Thread {
  tid: number;
  leader: boolean;
  /** Null where the image does not tell. */
  name: string | null;
  status: Prstatus;
  record: NoteRecord<'threads'> | null;
  /** Notes that follow this thread's NT_PRSTATUS. */
  notes: Note[];
}

export interface OpenOptions {
  /** Of an encrypted image: 32 bytes. */
  key?: Buffer;
}

/** What an encrypted image shows without its key. */
export const OPEN_NOTES: ReadonlySet<NoteName> = new Set<NoteName>(['image', 'encryption', 'chunks']);

/** What is wrong with `flags` of an anchor, behind the name of the image. */
export function unknownFlags(flags: number): string {
  const unknown = hex((flags & ~IMAGE_KNOWN) >>> 0);
  return `has flags that this version does not know (${unknown}): use the version of warp-tool that wrote it, or a newer one`;
}

export const SEALED =
  'it is encrypted, and threads, memory, descriptors and all names are sealed; give its key with --encryption-key-file or --encryption-key-env';
const DAMAGED_METADATA = 'copy the image again, or take a new checkpoint';

const KNOWN_TYPES: ReadonlySet<number> = new Set(Object.values(projectNotes).map(({ type }) => type));
const MOST_SHOWN = 8;
const METADATA_SIZE_OFFSET = BigInt(ANCHOR_OFFSET + layoutOf(anchorFields).places.find(({ name }) => name === 'metadata_size')!.offset);
const ANCHOR_END = BigInt(ANCHOR_OFFSET + layoutOf(anchorFields).size);

/**
 * One image: ours or a foreign core file. Opening it reads the ELF header, the anchor, the segment table and the notes; memory is read when it
 * is asked for. Everything else is derived from these on demand and kept.
 */
export class Image {
  /** What is odd but does not keep the image from being read: one line each. */
  readonly warnings: string[] = [];
  /** Of these, what a later version of the format brought: nobody here can say more of it. */
  readonly newer: string[] = [];
  readonly memory: Memory;
  private readonly tables = new Map<NoteName, Table<never>>();
  private readonly decodedNotes = new Map<KernelNoteKey, unknown>();
  private cachedThreads: Thread[] | undefined;
  private cachedVmas: Vma[] | undefined;
  private cachedChunks: ChunkIndex | undefined;
  private cachedContent: ByteSource | undefined;
  private inside: Image | undefined;

  private constructor(
    readonly source: ByteSource,
    readonly header: ElfHeader,
    /** Absent in foreign core files. */
    readonly anchor: Anchor | null,
    private readonly segmentTable: SegmentTable,
    readonly notes: readonly Note[],
    /** The image that this one was in: the compressed one around a core file of another writer. */
    readonly container: Image | null,
  ) {
    this.memory = new Memory(
      source,
      // Only a format that is known tells where chunked content is.
      this.ours ? () => this.content : null,
      segmentTable,
      (address) => this.vmaAt(address)?.absence === 'zero',
    );
    this.checkVersions();
    if (this.memory.cut > 0) {
      const some = this.memory.cut === 1 ? '1 segment overlaps' : `${this.memory.cut} segments overlap`;
      this.warnings.push(`${some} others, or cannot be where the table says: see \`warp-tool validate\``);
    }
    // The kernel's limit is kernel.core_file_note_size_limit, 4 MiB by default, of which it reckons 64 bytes for an area.
    if (!anchor && segmentTable.length > 60_000 && !notes.some((note) => kernelNoteKey(note) === 'file')) {
      this.warnings.push(
        'the core has no list of mapped files (NT_FILE), so files and symbols are unknown: the kernel leaves it out where it would be large; raise kernel.core_file_note_size_limit before the next dump',
      );
    }
    if (container) {
      this.warnings.unshift(...container.warnings);
      this.newer.unshift(...container.newer);
    }
  }

  /** Opens the image that an IMAGE argument of the command line means. */
  static async open(argument: string, options: OpenOptions = {}): Promise<Image> {
    return Image.from(await openSource(argument), options);
  }

  /**
   * The image in `source`: what is decrypted of an encrypted one when there is a key, and the core file of another writer where the content space is
   * one.
   */
  static async from(source: ByteSource, { key }: OpenOptions = {}): Promise<Image> {
    try {
      let image = await Image.parse(source, null);
      if (image.encryptedItself && key) image = await image.decrypted(key);
      if (image.foreignInside && !image.encryptedItself) {
        image.inside = await Image.parse(image.content, image);
        image = image.inside;
      }
      return image;
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  private async decrypted(key: Buffer): Promise<Image> {
    const { name } = this.source;
    const table = this.table('encryption');
    if (table.length === 0) throw new ImageError(name, undefined, 'the note encryption is missing', DAMAGED_METADATA);
    const record = table.get(0);
    const cipher = cipherOf(record, this.single('image')!.image_id, key, name);
    const imageNote = this.projectNote('image')!.descriptor;
    const metadata = cipher.unseal(record.sealed, openData(imageNote, this.anchor!.content_size, this.chunks));
    if (!metadata) {
      if ((await hashOfMetadata(this)) !== this.anchor!.metadata_hash)
        throw new ImageError(name, undefined, 'the metadata is damaged, so the key cannot be judged', DAMAGED_METADATA);
      throw new Failure(`${name}: it was encrypted with another key, or changed on purpose; give the right key`);
    }
    const before = metadata.length === 0 ? null : await Image.parse(new BufferSource(name, metadata), null);
    const chunks = before ? before.chunks : null;
    if (chunks && chunks.length !== this.chunks.length)
      throw new ImageError(name, undefined, 'the chunk index does not fit to the sealed one', DAMAGED_METADATA);
    const layout = { metadata, chunks, size: before?.anchor?.file_size ?? this.anchor!.content_size };
    const source = new DecryptedSource(this.source, this.chunks, cipher, layout, (chunk) => this.addressOfChunk(chunk));
    this.inside = await Image.parse(source, this);
    return this.inside;
  }

  private static async parse(source: ByteSource, container: Image | null): Promise<Image> {
    const header = await readHeader(source);
    if (header.type !== ET_CORE) {
      throw new ImageError(
        source.name,
        16n,
        `this ELF file is of type ${header.typeName}, not a core file`,
        'give a core file or an image directory',
      );
    }
    if (header.machine !== EM_X86_64) {
      throw new ImageError(
        source.name,
        18n,
        `the image is of machine ${header.machineName}`,
        'this version reads images of x86-64 processes',
      );
    }
    const anchor = await readAnchor(source, header);
    const segments = await SegmentTable.read(source, header);
    return new Image(source, header, anchor, segments, await readNotes(source, segments.ofType(PT_NOTE)), container);
  }

  async close(): Promise<void> {
    await this.source.close();
  }

  /** The program headers, in file order. */
  get segments(): readonly Segment[] {
    return this.segmentTable.all();
  }

  /** False for core files of the kernel, of gcore and of others. */
  get ours(): boolean {
    return this.anchor !== null && this.anchor.format_major === FORMAT_MAJOR;
  }

  /** The image as it stands in its file, with everything that is around this one. */
  get outermost(): Image {
    return this.container ? this.container.outermost : this;
  }

  private get innermost(): Image {
    return this.inside ? this.inside.innermost : this;
  }

  /** The file itself; `source` can be what is packed in it. */
  get file(): ByteSource {
    return this.outermost.source;
  }

  /** Whether this, as it stands, is encrypted. */
  get encryptedItself(): boolean {
    return this.ours && (this.anchor!.flags & IMAGE_ENCRYPTED) !== 0;
  }

  /** Whether the file is encrypted and there was no key: only its open notes are there. */
  get sealed(): boolean {
    return this.encryptedItself && !this.inside;
  }

  /** Fails for what is not among the open notes of an encrypted image. */
  requireKey(): void {
    if (this.sealed) throw new Failure(`${this.source.name}: ${SEALED}`);
  }

  /** Fails for what only images of ours hold, `what`, where this is none or one of a format that is not known. `otherwise`: what to do then. */
  requireOurs(what: string, otherwise = 'only images of warp-tool do'): void {
    if (this.ours) return;
    const { name } = this.source;
    if (!this.anchor) throw new Failure(`${name}: a core file of another writer does not hold ${what}; ${otherwise}`);
    const { format_major: major, format_minor: minor } = this.anchor;
    throw new Failure(
      `${name}: ${what} cannot be shown, as format version ${major}.${minor} is not known; use the version of warp-tool that wrote it`,
    );
  }

  /** Bytes before the content of an image of ours, as many as can be read at once. */
  get metadataSize(): number {
    const { metadata_size: size } = this.anchor!;
    const problem = metadataSizeProblem(size);
    if (problem !== null) throw new ImageError(this.source.name, METADATA_SIZE_OFFSET, problem, DAMAGED_METADATA);
    return Number(size);
  }

  /** Whether the file is encrypted, also where this is what was decrypted of it. */
  get encrypted(): boolean {
    return this.outermost.encryptedItself;
  }

  /** Whether the content space of this image is a core file of another writer. */
  get foreignInside(): boolean {
    return this.ours && (this.anchor!.flags & IMAGE_FOREIGN) !== 0;
  }

  /** The chunk index of this image; empty in a core file of another writer. */
  get chunks(): ChunkIndex {
    this.cachedChunks ??= ChunkIndex.of(this.table('chunks'), this.source.name);
    return this.cachedChunks;
  }

  /** The chunks that this image's content offsets lead to, where they do not lie in the file as they are; null for a plain image. */
  get packing(): ChunkIndex | null {
    if (this.container?.foreignInside) return this.container.chunks;
    return this.content === this.source ? null : this.chunks;
  }

  /** The first address whose memory is in a chunk of this image; null where none is. */
  addressOfChunk(chunk: number): bigint | null {
    return this.innermost.memory.addressOf(BigInt(this.chunks.contentOffset(chunk)), BigInt(this.chunks.contentSize(chunk)));
  }

  /** The content space (docs/image-format.md): the file itself where nothing is packed. */
  get content(): ByteSource {
    if (!this.cachedContent) {
      const flagged = this.ours && (this.anchor!.flags & (IMAGE_COMPRESSED | IMAGE_DELTA | IMAGE_FOREIGN)) !== 0;
      const packed = flagged || (this.ours && this.segmentTable.has(PT_WARP_CHUNKED));
      if (packed) {
        this.cachedContent = ContentSource.of(this.source, this.chunks, this.anchor!.content_size, (chunk) => this.addressOfChunk(chunk));
      } else {
        this.cachedContent = this.source;
      }
    }
    return this.cachedContent;
  }

  /** A project note as a table; an empty one when the image does not have it. */
  table<N extends NoteName>(name: N): Table<(typeof projectNotes)[N]['fields']> {
    type Found = Table<(typeof projectNotes)[N]['fields']>;
    let table = this.tables.get(name) as Found | undefined;
    if (!table) {
      if (!OPEN_NOTES.has(name)) this.requireKey();
      const { fields } = projectNotes[name];
      const note = this.projectNote(name);
      const payload = note?.descriptor ?? Buffer.alloc(TABLE_HEADER_SIZE);
      table = new Table(name, fields, payload, this.source.name, note?.offset ?? 0n) as unknown as Found;
      this.tables.set(name, table as unknown as Table<never>);
    }
    return table;
  }

  private projectNote(name: NoteName): Note | undefined {
    const { type } = projectNotes[name];
    return this.ours ? this.notes.find((note) => note.owner === NOTE_OWNER && note.type === type) : undefined;
  }

  /** The only record of the notes `image` and `process`; null in a foreign core. An image of a process must have it. */
  single<N extends 'image' | 'process'>(name: N): NoteRecord<N> | null {
    if (!this.ours || (name === 'process' && this.foreignInside && !this.sealed)) return null;
    const table = this.table(name);
    if (table.length === 0) {
      throw new ImageError(
        this.source.name,
        undefined,
        `the note ${name} is missing or empty`,
        'the metadata is damaged: take a new checkpoint',
      );
    }
    return table.get(0) as NoteRecord<N>;
  }

  /** The first kernel note of a kind, decoded, or null when there is none. */
  kernelNote<K extends KernelNoteKey>(key: K): KernelNoteValue<K> | null {
    this.requireKey();
    if (!this.decodedNotes.has(key)) this.decodedNotes.set(key, this.findKernelNote(key, this.notes));
    return this.decodedNotes.get(key) as KernelNoteValue<K> | null;
  }

  /** Like kernelNote, among the notes of one thread. */
  threadNote<K extends KernelNoteKey>(key: K, thread: Thread): KernelNoteValue<K> | null {
    return this.findKernelNote(key, thread.notes);
  }

  private findKernelNote<K extends KernelNoteKey>(key: K, notes: readonly Note[]): KernelNoteValue<K> | null {
    const note = notes.find((candidate) => kernelNoteKey(candidate) === key);
    return note ? decodeKernelNote(key, note, this.source.name) : null;
  }

  /** Threads in file order. */
  threads(): Thread[] {
    this.requireKey();
    this.cachedThreads ??= this.collectThreads();
    return this.cachedThreads;
  }

  private collectThreads(): Thread[] {
    const threads: Thread[] = [];
    const records = this.table('threads');
    for (const note of this.notes) {
      const key = kernelNoteKey(note);
      if (key === 'prstatus') {
        const status = decodeKernelNote('prstatus', note, this.source.name);
        const record = threads.length < records.length ? records.get(threads.length) : null;
        const leader = record ? (record.flags & 1) !== 0 : false;
        threads.push({
          tid: record?.tid ?? status.tid,
          leader,
          name: record ? record.name.toString() : null,
          status,
          record,
          notes: [note],
        });
      } else if (note.owner !== NOTE_OWNER && key !== 'prpsinfo' && key !== 'auxv' && key !== 'file') {
        threads.at(-1)?.notes.push(note);
      }
    }
    const information = this.kernelNote('prpsinfo');
    if (records.length === 0 && information) {
      for (const thread of threads) thread.leader = thread.tid === information.pid;
      const leader = threads.find((thread) => thread.leader);
      if (leader) leader.name = information.name;
    }
    return threads;
  }

  /** Extended registers of a thread; null when the image does not have them. */
  xstate(thread: Thread): Xstate | null {
    const note = thread.notes.find((candidate) => kernelNoteKey(candidate) === 'xstate');
    if (!note) return null;
    const layout = this.kernelNote('xsaveLayout');
    return layout ? decodeXstate(note.descriptor, layout) : decodeKernelNote('xstate', note, this.source.name);
  }

  auxv(): AuxvEntry[] {
    return this.kernelNote('auxv') ?? [];
  }

  auxvValue(name: string): bigint | null {
    return this.auxv().find((entry) => entry.name === name)?.value ?? null;
  }

  mappedFiles(): MappedFile[] {
    return this.kernelNote('file') ?? [];
  }

  /** Memory areas by ascending address. */
  vmas(): Vma[] {
    this.requireKey();
    this.cachedVmas ??= buildVmas(this);
    return this.cachedVmas;
  }

  vmaAt(address: bigint): Vma | undefined {
    return findVma(this.vmas(), address);
  }

  /**
   * The program's file, or null when the image does not tell. What the program's entry point is in comes first: /proc/self/exe of a restored
   * process is the restorer's.
   */
  executable(): string | null {
    const image = this.single('image');
    for (const address of [this.auxvValue('AT_ENTRY'), this.auxvValue('AT_PHDR'), this.single('process')?.start_code]) {
      const vma = address ? this.vmaAt(address) : undefined;
      if (vma?.kind === 'file') return vma.name;
    }
    return image?.executable.toString() ?? null;
  }

  private checkVersions(): void {
    if (!this.anchor) return;
    const { format_major: major, format_minor: minor, file_size: expected, flags } = this.anchor;
    if (!this.ours) {
      this.warnings.push(
        `format version ${major}.${minor} is not known to this version of warp-tool; only what every core file tells is shown`,
      );
      return;
    }
    if (minor > FORMAT_MINOR) {
      this.newer.push(
        `format version ${major}.${minor} is newer than ${FORMAT_MAJOR}.${FORMAT_MINOR}; parts that are new in it are not shown`,
      );
    }
    if ((flags & ~IMAGE_KNOWN) !== 0) this.newer.push(`the image ${unknownFlags(flags)}`);
    const unknown = this.notes.filter(({ owner, type }) => owner === NOTE_OWNER && !KNOWN_TYPES.has(type)).map(({ type }) => hex(type));
    if (unknown.length > 0) {
      const shown = unknown.slice(0, MOST_SHOWN).join(', ') + (unknown.length > MOST_SHOWN ? ', …' : '');
      this.newer.push(`notes of types that this version does not know are not shown: ${shown}`);
    }
    this.warnings.push(...this.newer);
    if (expected > this.source.size) {
      this.warnings.push(`the file has ${this.source.size} of ${expected} bytes: it is truncated and cannot be restored; copy it again`);
    }
  }
}

async function readAnchor(source: ByteSource, header: ElfHeader): Promise<Anchor | null> {
  if (header.phoff < ANCHOR_END || source.size < ANCHOR_END) return null;
  const raw = await source.read(BigInt(ANCHOR_OFFSET), Number(ANCHOR_END) - ANCHOR_OFFSET);
  return raw.toString('latin1', 0, ANCHOR_MAGIC.length) === ANCHOR_MAGIC ? decodeRecord(anchorFields, raw) : null;
}

/** Opens an image for the time of `work`. */
export async function withImage<T>(argument: string, work: (image: Image) => Promise<T> | T, options: OpenOptions = {}): Promise<T> {
  const image = await Image.open(argument, options);
  try {
    return await work(image);
  } finally {
    await image.close();
  }
}
