import { Unreadable } from './memory.js';
import type { Vm } from './vm.js';

/** Classes that know of direct buffers: their counters, and the list of what frees them. */
export const BITS = 'java/nio/Bits';
export const CLEANER = 'jdk/internal/ref/Cleaner';
const DEALLOCATOR = 'java.nio.DirectByteBuffer$Deallocator';

/** Memory outside of the heap that java.nio has given out. Sizes are bytes. */
export interface DirectBuffers {
  count: bigint;
  /** Of the buffers. */
  capacity: bigint;
  /** With what alignment took. */
  reserved: bigint;
  /** What may be reserved. */
  maximum: bigint;
}

/** What java.nio.Bits counts. `bits`: its InstanceKlass*. */
export async function directBuffers({ objects }: Vm, bits: bigint): Promise<DirectBuffers> {
  const counter = async (name: string): Promise<bigint> => {
    const object = await objects.static(bits, name);
    if (object === null) throw new Unreadable(`java.nio.Bits has no ${name}`);
    return object === 0n ? 0n : ((await objects.number(object, 'value')) ?? 0n);
  };
  return {
    count: await counter('COUNT'),
    capacity: await counter('TOTAL_CAPACITY'),
    reserved: await counter('RESERVED_MEMORY'),
    maximum: (await objects.static(bits, 'MAX_MEMORY')) ?? 0n,
  };
}

/** Where the direct buffers are: [start, end) of each. `cleaner`: InstanceKlass* of the class whose list frees them. */
export async function directBufferPlaces({ objects }: Vm, cleaner: bigint): Promise<{ start: bigint; end: bigint }[]> {
  const places: { start: bigint; end: bigint }[] = [];
  const seen = new Set<bigint>();
  let entry = (await objects.static(cleaner, 'first')) ?? 0n;
  while (entry !== 0n) {
    if (seen.has(entry)) throw new Unreadable('the list of direct buffers is damaged: it has no end');
    seen.add(entry);
    const thunk = await objects.object(entry, 'thunk');
    if (thunk !== 0n && (await objects.className(thunk)) === DEALLOCATOR) {
      const start = (await objects.number(thunk, 'address')) ?? 0n;
      const size = (await objects.number(thunk, 'size')) ?? 0n;
      if (start > 0n && size > 0n) places.push({ start, end: start + size });
    }
    const next = await objects.object(entry, 'next');
    // The last one that was removed points to itself.
    entry = next === entry ? 0n : next;
  }
  return places;
}
