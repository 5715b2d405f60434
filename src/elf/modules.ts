import { stat } from 'node:fs/promises';
import type { Image } from './image.js';
import { max, min } from './memory.js';
import { readNotes, type Note } from './notes.js';
import { PT_LOAD, readHeader, readSegments, type Segment } from './segments.js';
import { FileSource, type ByteSource } from './source.js';
import type { Vma } from './vmas.js';
import { xxh64 } from './xxh64.js';

/** Where an address is: a mapped file and, when the file here is the one that was mapped, a symbol. */
export interface Location {
  address: bigint;
  module: string | null;
  /** Of the address in the file, bytes. */
  moduleOffset: bigint | null;
  symbol: string | null;
  /** From the symbol's start, bytes. */
  symbolOffset: number | null;
}

interface Module {
  segments: readonly Segment[];
  symbols: SymbolTable | null;
}

const NT_GNU_BUILD_ID = 3;

/** A mapped file as it is on this machine now, against what the image says about it. */
export type FileState = 'same' | 'changed' | 'missing' | 'unknown';

/** Hexadecimal build-id among the notes of an ELF file. */
export function buildIdOf(notes: readonly Note[]): string | null {
  return notes.find((note) => note.owner === 'GNU' && note.type === NT_GNU_BUILD_ID)?.descriptor.toString('hex') ?? null;
}

/** Build-id of an ELF file; null when it has none or is no 64-bit ELF file. */
export async function buildIdOfFile(path: string): Promise<string | null> {
  let source: FileSource;
  try {
    source = await FileSource.open(path);
  } catch {
    return null;
  }
  try {
    return buildIdOf(await readNotes(source, await readSegments(source, await readHeader(source))));
  } catch {
    return null;
  } finally {
    await source.close();
  }
}

const PAGE = 4096n;
const SAMPLE = 65_536n;

/**
 * `sample_hash` of the note `files`: of the first and the last 64 KiB and the size; or of the first `length` bytes alone, as if there were no more.
 * Null when the file cannot be read, or has less.
 */
export async function sampleHashOfFile(path: string, length?: bigint): Promise<bigint | null> {
  let source: FileSource;
  try {
    source = await FileSource.open(path);
  } catch {
    return null;
  }
  try {
    const size = length ?? source.size;
    if (size > source.size) return null;
    const head = await source.read(0n, Number(min(size, SAMPLE)));
    const tail = size > SAMPLE ? await source.read(max(size - SAMPLE, SAMPLE), Number(min(size - SAMPLE, SAMPLE))) : Buffer.alloc(0);
    const end = Buffer.alloc(8);
    end.writeBigUInt64LE(size);
    return await xxh64(Buffer.concat([head, tail, end]));
  } finally {
    await source.close();
  }
}

/** The files that an image maps: their identity, and symbols of the ELF files among them. Each file is read once, when first asked for. */
export class Modules {
  private readonly modules = new Map<string, Promise<Module | null>>();
  private readonly states = new Map<string, Promise<FileState>>();
  private readonly buildIds = new Map<string, Promise<string | null>>();

  constructor(private readonly image: Image) {}

  /** Hexadecimal build-id that the file of `vma` had at the capture: from our notes, or from the ELF header in memory. */
  buildId(vma: Pick<Vma, 'name' | 'file'>): Promise<string | null> {
    let known = this.buildIds.get(vma.name);
    if (!known) {
      known = vma.file !== null ? Promise.resolve(this.recordedBuildId(vma.file)) : this.buildIdInMemory(vma.name);
      this.buildIds.set(vma.name, known);
    }
    return known;
  }

  /** Whether the file of `vma` is here as it was mapped. `unknown`: it is here, but the image does not tell enough to compare. */
  state(vma: Pick<Vma, 'name' | 'file'>): Promise<FileState> {
    let state = this.states.get(vma.name);
    if (!state) {
      state = this.compare(vma);
      this.states.set(vma.name, state);
    }
    return state;
  }

  async locate(address: bigint): Promise<Location> {
    const nowhere = { address, module: null, moduleOffset: null, symbol: null, symbolOffset: null };
    const vma = this.image.vmaAt(address);
    if (!vma || vma.name === '') return nowhere;
    if (!vma.name.startsWith('/')) return { ...nowhere, module: vma.name, moduleOffset: address - vma.start };
    const offset = address - vma.start + vma.offset;
    const found = { ...nowhere, module: vma.name, moduleOffset: offset };
    const state = await this.state(vma);
    if (state === 'changed' || state === 'missing') return found;
    const module = await this.module(vma.name);
    const segment = module?.segments.find((one) => one.type === PT_LOAD && offset >= one.offset && offset < one.offset + one.fileSize);
    const symbol = module?.symbols && segment ? module.symbols.at(Number(offset - segment.offset + segment.address)) : null;
    return symbol ? { ...found, symbol: symbol.name, symbolOffset: symbol.offset } : found;
  }

  /** Where a symbol of a mapped file is, and its size in bytes; null when no file that is here as it was mapped defines it. */
  async symbol(name: string): Promise<{ address: bigint; size: bigint } | null> {
    const vmas = this.image.vmas().filter((vma) => vma.kind === 'file' && vma.name.startsWith('/'));
    for (const path of new Set(vmas.map((vma) => vma.name))) {
      const state = await this.state(vmas.find((vma) => vma.name === path)!);
      if (state === 'changed' || state === 'missing') continue;
      const module = await this.module(path);
      const found = module?.symbols?.named(name);
      if (!module || !found) continue;
      // Where the file is loaded, told by any segment that is mapped: zeros behind the file's end (.bss) have an area without a name.
      for (const segment of module.segments.filter(({ type }) => type === PT_LOAD)) {
        const page = segment.offset & -PAGE;
        const vma = vmas.find((one) => one.name === path && one.offset === page);
        if (!vma) continue;
        const address = vma.start - (segment.address - (segment.offset - page)) + found.value;
        if (this.image.vmaAt(address)) return { address, size: found.size };
      }
    }
    return null;
  }

  private recordedBuildId(index: number): string | null {
    const buildId = this.image.table('files').field(index, 'build_id');
    return buildId.length > 0 ? buildId.toString('hex') : null;
  }

  private async buildIdInMemory(name: string): Promise<string | null> {
    const vma = this.image.vmas().find((one) => one.name === name && one.offset === 0n);
    return vma && name.startsWith('/') ? buildIdAt(this.image, vma) : null;
  }

  private async compare(vma: Pick<Vma, 'name' | 'file'>): Promise<FileState> {
    const status = await stat(vma.name, { bigint: true }).catch(() => null);
    if (!status) return 'missing';
    const buildId = await this.buildId(vma);
    if (buildId !== null) return (await buildIdOfFile(vma.name)) === buildId ? 'same' : 'changed';
    if (vma.file === null) return 'unknown';
    const record = this.image.table('files').get(vma.file);
    if (status.size !== record.size) return 'changed';
    return status.mtimeNs === record.mtime_ns || (await sampleHashOfFile(vma.name)) === record.sample_hash ? 'same' : 'changed';
  }

  private module(path: string): Promise<Module | null> {
    let module = this.modules.get(path);
    if (!module) {
      module = loadModule(path);
      this.modules.set(path, module);
    }
    return module;
  }
}

/** Build-id of the ELF file that is mapped from its beginning at `vma`, as far as the image stores it; null where it does not. */
export async function buildIdAt(image: Image, vma: Vma): Promise<string | null> {
  if (vma.stored === 0n) return null;
  // The file's first bytes as they are in memory: file offset and distance from the mapping's start are the same there.
  const view: ByteSource = {
    name: vma.name,
    size: vma.end - vma.start,
    read: (offset, length) => image.memory.read(vma.start + offset, length),
    readInto: async (offset, buffer) => void (await image.memory.read(vma.start + offset, buffer.length)).copy(buffer),
    close: async () => {},
  };
  try {
    return buildIdOf(await readNotes(view, await readSegments(view, await readHeader(view))));
  } catch {
    return null; // no ELF file, or its notes are not in this core
  }
}

async function loadModule(path: string): Promise<Module | null> {
  let source: FileSource;
  try {
    source = await FileSource.open(path);
  } catch {
    return null;
  }
  try {
    const segments = await readSegments(source, await readHeader(source));
    return { segments, symbols: await readSymbols(source) };
  } catch {
    return null; // not an ELF file: a data file that is mapped executable, a JIT's cache …
  } finally {
    await source.close();
  }
}

const SHT_SYMTAB = 2;
const SHT_DYNSYM = 11;
const SECTION_SIZE = 64;
const SYMBOL_SIZE = 24;

/** The symbols of .symtab, or of .dynsym in a stripped file. */
async function readSymbols(source: FileSource): Promise<SymbolTable | null> {
  const header = await source.read(0n, 64);
  const offset = header.readBigUInt64LE(40);
  const count = header.readUInt16LE(60);
  if (offset === 0n || count === 0) return null;
  const sections = await source.read(offset, count * SECTION_SIZE);
  const find = (type: number): number => {
    for (let at = 0; at < sections.length; at += SECTION_SIZE) if (sections.readUInt32LE(at + 4) === type) return at;
    return -1;
  };
  const at = find(SHT_SYMTAB) >= 0 ? find(SHT_SYMTAB) : find(SHT_DYNSYM);
  if (at < 0) return null;
  const content = (section: number): Promise<Buffer> =>
    source.read(sections.readBigUInt64LE(section + 24), Number(sections.readBigUInt64LE(section + 32)));
  const raw = await content(at);
  const strings = await content(sections.readUInt32LE(at + 40) * SECTION_SIZE);
  return new SymbolTable(raw, strings);
}

const SORTED_AFTER = 16;

/**
 * Functions and objects of a table as it stands in the file, where a large program has hundreds of thousands: none of them becomes an object. Addresses
 * are exact up to 2^53, which none in a file that a process maps reaches.
 */
class SymbolTable {
  private lookups = 0;
  /** By ascending address: places in `raw`, and the addresses. Made when many are looked up. */
  private order: { places: Uint32Array; starts: Float64Array } | undefined;
  /** `raw` as numbers of 32 bits, six for a symbol. */
  private readonly words: Uint32Array;

  constructor(
    private readonly raw: Buffer,
    private readonly strings: Buffer,
  ) {
    const aligned = raw.byteOffset % 4 === 0 ? raw : Buffer.from(Uint8Array.from(raw).buffer);
    this.words = new Uint32Array(aligned.buffer, aligned.byteOffset, Math.floor(raw.length / SYMBOL_SIZE) * (SYMBOL_SIZE / 4));
  }

  /** The symbol that `address` is in. */
  at(address: number): { name: string; offset: number } | null {
    const place = this.lookups++ < SORTED_AFTER ? this.passOver(address) : this.search(address);
    // The nearest symbol below is only right when it reaches this far: a stripped file lacks most of them.
    if (place === -1 || address >= this.start(place) + this.size(place)) return null;
    const name = this.raw.readUInt32LE(place);
    return { name: this.strings.toString('utf8', name, this.strings.indexOf(0, name)), offset: address - this.start(place) };
  }

  named(name: string): { value: bigint; size: bigint } | null {
    const wanted = Buffer.from(`${name}\0`);
    for (const place of this.places()) {
      const at = this.raw.readUInt32LE(place);
      if (this.strings[at] !== wanted[0] || !wanted.equals(this.strings.subarray(at, at + wanted.length))) continue;
      return { value: this.raw.readBigUInt64LE(place + 8), size: this.raw.readBigUInt64LE(place + 16) };
    }
    return null;
  }

  private start(place: number): number {
    return this.raw.readUInt32LE(place + 8) + this.raw.readUInt32LE(place + 12) * 2 ** 32;
  }

  private size(place: number): number {
    return this.raw.readUInt32LE(place + 16) + this.raw.readUInt32LE(place + 20) * 2 ** 32;
  }

  private *places(): Generator<number> {
    for (let place = 0; place + SYMBOL_SIZE <= this.raw.length; place += SYMBOL_SIZE) if (this.isDefined(place)) yield place;
  }

  private isDefined(place: number): boolean {
    const type = this.raw[place + 4]! & 0xf;
    const hasPlace = type === 1 || type === 2 || type === 10; // STT_OBJECT, STT_FUNC, STT_GNU_IFUNC
    return hasPlace && this.raw.readUInt16LE(place + 6) !== 0 && this.size(place) !== 0;
  }

  /** The last symbol of those that start nearest below `address`, or -1: a pass costs a fiftieth of what sorting does. */
  private passOver(address: number): number {
    const { words } = this;
    let found = -1;
    let nearest = -1;
    for (let word = 0; word < words.length; word += SYMBOL_SIZE / 4) {
      const start = words[word + 2]! + words[word + 3]! * 2 ** 32;
      if (start > address || start < nearest || !this.isDefined(word * 4)) continue;
      found = word * 4;
      nearest = start;
    }
    return found;
  }

  private search(address: number): number {
    if (!this.order) {
      const places = Uint32Array.from(this.places()).sort((a, b) => this.start(a) - this.start(b));
      this.order = { places, starts: Float64Array.from(places, (place) => this.start(place)) };
    }
    const { places, starts } = this.order;
    let low = 0;
    let high = starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle]! <= address) low = middle + 1;
      else high = middle;
    }
    return places[low - 1] ?? -1;
  }
}
