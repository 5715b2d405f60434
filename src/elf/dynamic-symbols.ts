import type { AddressSpace } from './address-space.js';
import { readHeader, readSegments } from './segments.js';
import type { ByteSource } from './source.js';
import { PT_LOAD } from './segments.js';

const PT_DYNAMIC = 2;
const DT_STRTAB = 5n;
const DT_SYMTAB = 6n;
const DT_GNU_HASH = 0x6ffffef5n;
const SYMBOL_SIZE = 24;
/** Symbols of one hash bucket at most: a damaged chain must end. */
const LONGEST_CHAIN = 65_536;

/**
 * Addresses of symbols that a loaded ELF file exports, by name, as the dynamic linker finds them: by the file's GNU hash table as it is in memory.
 * `start` is where the file's first byte is mapped. Names that it does not export are missing in the result.
 */
export async function exportedSymbols(space: AddressSpace, start: bigint, names: readonly string[]): Promise<Map<string, bigint>> {
  const found = new Map<string, bigint>();
  const view: ByteSource = {
    name: space.image.source.name,
    size: (1n << 47n) - start,
    read: (offset, length) => space.read(start + offset, length),
    readInto: async (offset, buffer) => void (await space.read(start + offset, buffer.length)).copy(buffer),
    close: async () => {},
  };
  const segments = await readSegments(view, await readHeader(view));
  const first = segments.find(({ type }) => type === PT_LOAD);
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  if (!first || !dynamic) return found;
  const bias = start - (first.address - first.offset);
  const tags = await space.read(bias + dynamic.address, Number(dynamic.memorySize & 0xffffn));
  // glibc adds the load address to these entries in place, other dynamic linkers leave them as the file has them.
  const place = (tag: bigint): bigint | null => {
    for (let at = 0; at + 16 <= tags.length; at += 16) {
      if (tags.readBigInt64LE(at) !== tag) continue;
      const value = tags.readBigUInt64LE(at + 8);
      return value < start ? bias + value : value;
    }
    return null;
  };
  const [symbols, strings, hash] = [place(DT_SYMTAB), place(DT_STRTAB), place(DT_GNU_HASH)];
  if (symbols === null || strings === null || hash === null) return found;

  const header = await space.read(hash, 16);
  const [buckets, firstHashed, bloomWords] = [header.readUInt32LE(0), header.readUInt32LE(4), header.readUInt32LE(8)];
  const bucketsAt = hash + 16n + BigInt(bloomWords) * 8n;
  const chainsAt = bucketsAt + BigInt(buckets) * 4n;
  for (const name of buckets === 0 ? [] : names) {
    const wanted = gnuHash(name);
    const bucket = (await space.read(bucketsAt + BigInt(wanted % buckets) * 4n, 4)).readUInt32LE();
    if (bucket < firstHashed) continue;
    for (let index = bucket; index < bucket + LONGEST_CHAIN; index++) {
      const chain = (await space.read(chainsAt + BigInt(index - firstHashed) * 4n, 4)).readUInt32LE();
      if ((chain | 1) >>> 0 === (wanted | 1) >>> 0) {
        const symbol = await space.read(symbols + BigInt(index * SYMBOL_SIZE), SYMBOL_SIZE);
        const text = await space.read(strings + BigInt(symbol.readUInt32LE(0)), name.length + 1);
        if (text.toString('latin1') === `${name}\0`) {
          found.set(name, bias + symbol.readBigUInt64LE(8));
          break;
        }
      }
      if (chain & 1) break;
    }
  }
  return found;
}

function gnuHash(name: string): number {
  let hash = 5381;
  for (const byte of Buffer.from(name)) hash = (Math.imul(hash, 33) + byte) >>> 0;
  return hash;
}
