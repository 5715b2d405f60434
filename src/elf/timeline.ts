import type { Image } from './image.js';
import { PT_WARP_CHUNKED, type Segment } from './segments.js';
import { findVma, type Vma } from './vmas.js';

/** A chunk that training restores asked for. */
export interface Load {
  /** When it was first waited for, nanoseconds since the restorer began: the median of the runs. */
  askedNs: bigint;
  /** Training runs that asked for it. */
  runs: number;
  /** Bytes of content, and in the file. */
  content: number;
  stored: number;
  /** Where its content begins in memory; null for metadata, and for objects that no area maps. */
  address: bigint | null;
  vma: Vma | null;
}

/** The page-load timeline of an image (docs/image-format.md, "accesses") in the order of time; empty for an image that was not optimised. */
export function timelineOf(image: Image): Load[] {
  const chunks = image.table('chunks');
  const segments = image.memory.segments.filter((one) => storedSize(one) > 0n).toSorted((a, b) => (a.offset < b.offset ? -1 : 1));
  const vmas = image.vmas();
  const loads: Load[] = [];
  for (const { chunk, runs, median_ns: askedNs } of image.table('accesses')) {
    if (chunk >= chunks.length) continue; // `validate` tells
    const { content_offset: start, content_size: content, stored_size: stored } = chunks.get(chunk);
    const address = addressOf(segments, start, BigInt(content));
    loads.push({ askedNs, runs, content, stored, address, vma: address === null ? null : (findVma(vmas, address) ?? null) });
  }
  return loads.toSorted((a, b) => (a.askedNs < b.askedNs ? -1 : a.askedNs > b.askedNs ? 1 : 0));
}

function storedSize({ type, memorySize, fileSize }: Segment): bigint {
  return type === PT_WARP_CHUNKED ? memorySize : fileSize;
}

/** The first address whose byte is among `length` bytes at a content offset; `segments` ascend by offset. */
function addressOf(segments: readonly Segment[], offset: bigint, length: bigint): bigint | null {
  let low = 0;
  let high = segments.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (segments[middle]!.offset <= offset) low = middle + 1;
    else high = middle;
  }
  const segment = segments[low - 1];
  if (segment && offset < segment.offset + storedSize(segment)) return segment.address + (offset - segment.offset);
  const next = segments[low];
  return next && next.offset < offset + length ? next.address : null;
}
