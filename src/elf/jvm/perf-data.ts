import { Unreadable } from './memory.js';
import type { VmStructs } from './vm-structs.js';

const MOST_BYTES = 1 << 20;
const MAGIC = 0xcafec0c0;

/**
 * The counters that a virtual machine shares with jstat and jcmd (`hsperfdata`), by name: numbers as text, and strings. Those of the heap and of metaspace
 * are as of the last collection.
 */
export async function perfCounters(structs: VmStructs): Promise<Map<string, string>> {
  const start = await structs.static('PerfMemory', '_start');
  const end = await structs.static('PerfMemory', '_top');
  if (start === 0n) throw new Unreadable('it was started with -XX:-UsePerfData');
  if (end <= start || end - start > MOST_BYTES) throw new Unreadable('the counters are damaged');
  const raw = await structs.memory.bytes(start, Number(end - start));
  if (raw.readUInt32BE(0) !== MAGIC) throw new Unreadable('the counters have no magic number');
  const counters = new Map<string, string>();
  const count = raw.readInt32LE(structs.offset('PerfDataPrologue', 'num_entries'));
  const field = (name: string): number => structs.offset('PerfDataEntry', name);
  const size = structs.size('PerfDataEntry');
  let at = raw.readInt32LE(structs.offset('PerfDataPrologue', 'entry_offset'));
  for (let index = 0; index < count && at >= 0 && at + size <= raw.length; index++) {
    const length = raw.readInt32LE(at + field('entry_length'));
    const entry = raw.subarray(at, at + length);
    if (length < size || entry.length < length) break;
    const name = entry.readInt32LE(field('name_offset'));
    const data = entry.readInt32LE(field('data_offset'));
    const vector = entry.readInt32LE(field('vector_length'));
    if (name >= 0 && data >= 0 && data + (vector === 0 ? 8 : vector) <= length) {
      const value = vector === 0 ? String(entry.readBigInt64LE(data)) : textUpToNul(entry.subarray(data, data + vector));
      counters.set(textUpToNul(entry.subarray(name)), value);
    }
    at += length;
  }
  return counters;
}

function textUpToNul(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}
