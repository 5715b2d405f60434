import type { Image } from './image.js';
import { overlapping, type Label } from './labels.js';
import { arenasOf } from './malloc.js';
import type { Vma } from './vmas.js';

/** A part of the program's memory, and what the image holds of it. */
export interface Part {
  name: string;
  /** Bytes of content in the image. */
  stored: bigint;
}

/** What the content of an image is, by the labels of what knows the program and the kinds of memory areas; largest first. Shared memory counts once. */
export async function partsOf(image: Image, labels: readonly Label[]): Promise<Part[]> {
  const arenas = await arenasOf(image);
  const parts = new Map<string, bigint>();
  const add = (name: string, bytes: bigint): void => void (bytes > 0n && parts.set(name, (parts.get(name) ?? 0n) + bytes));
  const seen = new Set<string>();
  for (const vma of image.vmas()) {
    if (vma.object !== null) {
      // The same memory in a second place.
      const key = `${vma.object} ${vma.offset}`;
      if (seen.has(key)) continue;
      seen.add(key);
    }
    let rest = vma.stored;
    for (const { part, detail, start, end } of overlapping(labels, vma.start, vma.end)) {
      const bytes = image.memory.stored(start, end);
      const counted = bytes < rest ? bytes : rest;
      add(detail === 'free' ? `free ${part}` : part, counted);
      rest -= counted;
    }
    add(arenas.has(vma) ? 'malloc' : partOf(vma), rest);
  }
  return [...parts].map(([name, stored]) => ({ name, stored })).toSorted((a, b) => (a.stored > b.stored ? -1 : 1));
}

/** What memory without a label is for, as far as its kind tells. */
function partOf(vma: Vma): string {
  if (vma.kind === 'file') return 'mapped files';
  if (vma.kind === 'heap') return 'malloc';
  if (vma.kind === 'stack' || vma.stackOf !== null) return 'thread stack';
  if (vma.kind === 'object') return 'shared memory';
  return vma.kind === 'anonymous' ? 'other memory' : vma.kind;
}
