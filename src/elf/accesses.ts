/** The page-load timeline of an image: what training restores asked for, and when. */
import type { Image } from './image.js';
import { layoutOf, type NoteRecord } from './schema.js';
import { decodeRecord } from './table.js';

export type Access = NoteRecord<'accesses'>;

/** struct warp_load_event of native/src/engine/control.h. */
const eventFields = { content_offset: 'u64', asked_ns: 'u64', present_ns: 'u64' } as const;
const EVENT_SIZE = layoutOf(eventFields).size;

/** When a run first asked for each chunk: nanoseconds since the restorer began, by content offset. What nobody waited for is not in it. */
export function askedTimes(trace: Buffer): Map<bigint, bigint> {
  const asked = new Map<bigint, bigint>();
  // A program that is killed may leave half of a record at the end.
  for (let at = 0; at + EVENT_SIZE <= trace.length; at += EVENT_SIZE) {
    const event = decodeRecord(eventFields, trace.subarray(at, at + EVENT_SIZE));
    const before = asked.get(event.content_offset);
    if (event.asked_ns !== 0n && (before === undefined || event.asked_ns < before)) asked.set(event.content_offset, event.asked_ns);
  }
  return asked;
}

/**
 * The records of the note `accesses` for some runs' askedTimes: what most runs asked for first, among these what they asked for earliest (median), then by
 * content offset.
 */
export function mergeRuns(image: Image, runs: readonly ReadonlyMap<bigint, bigint>[]): Access[] {
  const chunks = image.table('chunks');
  const accesses: Access[] = [];
  for (let chunk = 0; chunk < chunks.length; chunk++) {
    const offset = chunks.field(chunk, 'content_offset');
    const times = runs.flatMap((run) => run.get(offset) ?? []).toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    if (times.length > 0) accesses.push({ chunk, runs: times.length, median_ns: median(times) });
  }
  return accesses.sort((a, b) => b.runs - a.runs || Number(a.median_ns - b.median_ns) || a.chunk - b.chunk);
}

function median(ascending: readonly bigint[]): bigint {
  const middle = ascending.length >>> 1;
  return ascending.length % 2 === 1 ? ascending[middle]! : (ascending[middle - 1]! + ascending[middle]!) / 2n;
}

/** What the timeline of an image comes to; null for an image that was not optimised. */
export interface Optimisation {
  /** Training restores. */
  runs: number;
  /** Chunks that any of them asked for. */
  chunks: number;
  /** Bytes of these chunks: content, and in the file. */
  content: bigint;
  stored: bigint;
  /** When the last of them was first waited for, nanoseconds since the restorer began. */
  lastNs: bigint;
}

export function optimisationOf(image: Image): Optimisation | null {
  const accesses = image.table('accesses');
  const chunks = image.table('chunks');
  if (accesses.length === 0) return null;
  const result: Optimisation = { runs: 0, chunks: 0, content: 0n, stored: 0n, lastNs: 0n };
  const places = new Set<bigint>();
  for (const { chunk, runs, median_ns: asked } of accesses) {
    if (chunk >= chunks.length) continue; // `validate` tells
    result.chunks++;
    result.runs = Math.max(result.runs, runs);
    result.content += BigInt(chunks.field(chunk, 'content_size'));
    if (asked > result.lastNs) result.lastNs = asked;
    const place = chunks.field(chunk, 'file_offset');
    // Equal content is stored once.
    if (!places.has(place)) result.stored += BigInt(chunks.field(chunk, 'stored_size'));
    places.add(place);
  }
  return result;
}
