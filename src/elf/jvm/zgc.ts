import type { Flags } from './flags.js';
import { Unreadable } from './memory.js';
import type { VmStructs } from './vm-structs.js';

/** Objects that were moved out of one page of the heap at most. */
const MOST_ENTRIES = 1 << 20;

/** Which of its forms ZGC has. */
export interface ZVariant {
  generational: boolean;
  /** How its C++ types begin: JDK 21 to 23 have both forms, and X for the one without generations. */
  prefix: 'Z' | 'X';
  /** Where objects were moved to is kept as JDK 15 and later do. */
  forwards: boolean;
}

export async function zVariant(version: number, flags: Flags): Promise<ZVariant> {
  const both = version >= 21 && version < 24;
  const generational = both ? await flags.isOn('ZGenerational') : version >= 24;
  return { generational, prefix: both && !generational ? 'X' : 'Z', forwards: version >= 15 };
}

/**
 * ZGC keeps what it knows of an object in bits of every reference to it, its colour. The result gives the address that a reference means; a reference
 * that was not used since the last collection may still name the place where its object was before.
 */
export async function zAddresses(structs: VmStructs, z: ZVariant): Promise<(reference: bigint) => Promise<bigint>> {
  if (z.generational) {
    // Of four bits above the twelve lowest one is set, and tells how far the address is shifted: 13 to 16.
    return async (reference) => {
      const set = [1n, 2n, 4n, 8n].indexOf((reference >> 12n) & 15n);
      return set < 0 ? 0n : reference >> BigInt(13 + set);
    };
  }
  const { prefix } = z;
  const type = `${prefix}GlobalsForVMStructs`;
  const globals = await structs.static(type, '_instance_p');
  const value = async (field: string): Promise<bigint> =>
    structs.memory.u64(await structs.pointer(type, globals, `_${prefix}Address${field}`));
  const [mask, good, bad] = [await value('OffsetMask'), await value('GoodMask'), await value('BadMask')];
  const forwarding = z.forwards ? new Forwarding(structs, prefix) : null;
  return async (reference) => {
    if (reference === 0n) return 0n;
    const offset = reference & mask;
    const now = (reference & bad) === 0n || !forwarding ? offset : await forwarding.find(offset);
    // Every view of the heap has the same content: the one that is current is mapped for certain.
    return now | good;
  };
}

/** Where objects of pages that the last collection emptied are now. Places are offsets in the heap. */
class Forwarding {
  private readonly pages = new Map<bigint, Map<bigint, bigint>>();

  constructor(
    private readonly structs: VmStructs,
    private readonly prefix: 'Z' | 'X',
  ) {}

  async find(offset: bigint): Promise<bigint> {
    const { structs, prefix } = this;
    const heap = (await structs.static('Universe', '_collectedHeap')) + BigInt(structs.offset(`${prefix}CollectedHeap`, '_heap'));
    const table = heap + BigInt(structs.offset(`${prefix}Heap`, '_forwarding_table') + structs.offset(`${prefix}ForwardingTable`, '_map'));
    const entries = await structs.pointer(`${prefix}GranuleMapForForwarding`, table, '_map');
    const granule = offset >> BigInt(structs.constant(`${prefix}GranuleSizeShift`));
    const forwarding = await structs.memory.u64(entries + granule * 8n);
    if (forwarding === 0n) return offset;
    const type = `${prefix}Forwarding`;
    const start = await structs.pointer(`${prefix}VirtualMemory`, forwarding + BigInt(structs.offset(type, '_virtual')), '_start');
    const shift = (await structs.pointer(type, forwarding, '_object_alignment_shift')) & 63n;
    // An object that has not been moved yet is still where it was.
    return (await this.moved(forwarding)).get((offset - start) >> shift) ?? offset;
  }

  /** By number of the object's place in its old page. */
  private async moved(forwarding: bigint): Promise<Map<bigint, bigint>> {
    const known = this.pages.get(forwarding);
    if (known) return known;
    const { structs, prefix } = this;
    const array = forwarding + BigInt(structs.offset(`${prefix}Forwarding`, '_entries'));
    const length = await structs.pointer(`${prefix}AttachedArrayForForwarding`, array, '_length');
    if (length > MOST_ENTRIES) throw new Unreadable(`${length} objects were moved out of one page of the heap`);
    // The array follows the object that it is attached to.
    const raw = await structs.memory.bytes(forwarding + BigInt(structs.size(`${prefix}Forwarding`)), Number(length) * 8);
    const moved = new Map<bigint, bigint>();
    for (let at = 0; at < raw.length; at += 8) {
      // Bit 0: in use; then 45 bits of the new place, and 18 of the old one.
      const entry = raw.readBigUInt64LE(at);
      if (entry & 1n) moved.set(entry >> 46n, (entry >> 1n) & ((1n << 45n) - 1n));
    }
    this.pages.set(forwarding, moved);
    return moved;
  }
}
