import { max, min } from '../memory.js';
import { Unreadable } from './memory.js';
import type { Vm } from './vm.js';

export interface LoadedClasses {
  loaders: number;
  /** With array classes. */
  classes: number;
  /** Of them in the class data archive. */
  shared: number;
  /** Address space of the class data archive: [start, end). Null where none is used. */
  archive: { start: bigint; end: bigint } | null;
  /** Memory that holds class metadata outside of the archive, ascending: of compressed class pointers first where that is below. */
  metaspace: { start: bigint; end: bigint }[];
  /** InstanceKlass* of the wanted classes of the boot loader, by name. */
  found: Map<string, bigint>;
}

/** Metaspace is taken from the system in pieces of this size and alignment, or multiples of it: nothing else lies in one. */
const METASPACE_PIECE = 4n << 20n;

/** Goes through the classes of every loader. `wanted`: names of classes of the boot loader, `java/nio/Bits`, to be looked for. */
export async function loadedClasses(vm: Vm, wanted: readonly string[]): Promise<LoadedClasses> {
  const { structs, metadata } = vm;
  const base = await structs.static('MetaspaceObj', '_shared_metaspace_base');
  const top = await structs.static('MetaspaceObj', '_shared_metaspace_top');
  const archive = top > base ? { start: base, end: top } : null;
  const result: LoadedClasses = { loaders: 0, classes: 0, shared: 0, archive, metaspace: [], found: new Map() };
  const pieces = new Set<bigint>();
  const isShared = (address: bigint): boolean => archive !== null && address >= archive.start && address < archive.end;
  const note = (address: bigint): void => {
    if (address !== 0n && !isShared(address)) pieces.add(address / METASPACE_PIECE);
  };
  let loader = await structs.static('ClassLoaderDataGraph', '_head');
  const seen = new Set<bigint>();
  const once = (address: bigint): void => {
    if (seen.has(address)) throw new Unreadable('the lists of classes are damaged: they have no end');
    seen.add(address);
  };
  for (; loader !== 0n; loader = await structs.pointer('ClassLoaderData', loader, '_next')) {
    once(loader);
    result.loaders++;
    // The boot loader has no object.
    const isBoot = (await structs.pointer('ClassLoaderData', loader, '_class_loader')) === 0n;
    let klass = await structs.pointer('ClassLoaderData', loader, '_klasses');
    for (; klass !== 0n; klass = await structs.pointer('Klass', klass, '_next_link')) {
      once(klass);
      result.classes++;
      if (isShared(klass)) result.shared++;
      note(klass);
      const isArray = (await structs.int('Klass', klass, '_layout_helper')) < 0;
      if (!isArray) {
        note(await structs.pointer('InstanceKlass', klass, '_constants'));
        note(await structs.pointer('InstanceKlass', klass, '_methods'));
      }
      if (!isBoot || isArray || result.found.size === wanted.length) continue;
      const name = await metadata.symbol(await structs.pointer('Klass', klass, '_name'));
      if (wanted.includes(name)) result.found.set(name, klass);
    }
  }
  result.metaspace = committedIn(vm, pieces);
  return result;
}

/** What of these pieces is memory that can be used. */
function committedIn(vm: Vm, pieces: ReadonlySet<bigint>): LoadedClasses['metaspace'] {
  const ranges: LoadedClasses['metaspace'] = [];
  for (const { start, end, protection, kind } of vm.space.image.vmas()) {
    if (kind !== 'anonymous' || protection === 0) continue;
    for (let piece = start / METASPACE_PIECE; piece * METASPACE_PIECE < end; piece++) {
      if (!pieces.has(piece)) continue;
      const range = { start: max(start, piece * METASPACE_PIECE), end: min(end, (piece + 1n) * METASPACE_PIECE) };
      const last = ranges.at(-1);
      if (last?.end === range.start) last.end = range.end;
      else ranges.push(range);
    }
  }
  return ranges;
}
