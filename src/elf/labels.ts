import type { AddressSpace, Range } from './address-space.js';
import { openJvm } from './java.js';
import { max, min } from './memory.js';

/** What a stretch of memory is for, by what knows the program: a virtual machine's tables … */
export interface Label extends Range {
  /** Which part of the program it belongs to: `Java heap`, `code cache` … */
  part: string;
  /** What of that part: `eden`; empty where there is nothing more to say. */
  detail: string;
}

/** A label of a memory area, and how much of the area has it. */
export interface AreaLabel {
  part: string;
  detail: string;
  bytes: bigint;
}

/** Labels by ascending address, without overlaps. A program that nothing here knows has none. */
export async function labelsOf(space: AddressSpace): Promise<Label[]> {
  const jvm = await openJvm(space);
  return jvm === null || typeof jvm === 'string' ? [] : jvm.labels();
}

/** What labels say of [start, end), most bytes first. */
export function labelsIn(labels: readonly Label[], { start, end }: Range): AreaLabel[] {
  const found = new Map<string, AreaLabel>();
  for (const { part, detail, ...range } of overlapping(labels, start, end)) {
    const key = `${part}\0${detail}`;
    const label = found.get(key) ?? { part, detail, bytes: 0n };
    label.bytes += range.end - range.start;
    found.set(key, label);
  }
  return [...found.values()].toSorted((a, b) => (a.bytes > b.bytes ? -1 : a.bytes < b.bytes ? 1 : 0));
}

/** Labels within [start, end), cut to it. */
export function* overlapping(labels: readonly Label[], start: bigint, end: bigint): Generator<Label> {
  let low = 0;
  let high = labels.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (labels[middle]!.end <= start) low = middle + 1;
    else high = middle;
  }
  for (let index = low; index < labels.length && labels[index]!.start < end; index++) {
    const label = labels[index]!;
    yield { ...label, start: max(label.start, start), end: min(label.end, end) };
  }
}
