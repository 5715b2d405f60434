import type { Range } from '../address-space.js';
import type { Label } from '../labels.js';
import type { LoadedClasses } from './classes.js';
import type { CodeHeapUse } from './code-cache.js';
import type { JavaHeap } from './heap.js';
import type { JavaThread } from './threads.js';
import type { Vm } from './vm.js';

/** What of a virtual machine is known to be where; null for what could not be read. */
export interface Known {
  heap: JavaHeap | null;
  codeCache: readonly CodeHeapUse[] | null;
  classes: LoadedClasses | null;
  threads: readonly JavaThread[];
  directBuffers: readonly Range[];
}

/** What free parts of the heap are called in labels. */
export const FREE = 'free';

/** Every stretch of memory of which the virtual machine tells what it is for, ascending and without overlaps. */
export async function labelsOfJvm(vm: Vm, { heap, codeCache, classes, threads, directBuffers }: Known): Promise<Label[]> {
  const labels: Label[] = [];
  const add = ({ start, end }: Range, part: string, detail = ''): void => {
    if (end > start) labels.push({ start, end, part, detail });
  };
  for (const { name, ranges } of heap?.spaces ?? []) {
    for (const { start, top, end } of ranges) {
      add({ start, end: top }, 'Java heap', name);
      add({ start: top, end }, 'Java heap', FREE);
    }
  }
  // ZGC maps its heap in several places and does not export what is where.
  for (const vma of heap?.collector === 'Z' ? vm.space.image.vmas() : []) if (/java_heap\b/.test(vma.name)) add(vma, 'Java heap');
  for (const { name, start, end } of codeCache ?? []) add({ start, end }, 'code cache', name);
  for (const range of classes?.metaspace ?? []) add(range, 'metaspace');
  if (classes?.archive) add(classes.archive, 'class data archive');
  for (const { stack, name, tid } of threads) add(stack, 'thread stack', name === null ? `Java thread ${tid}` : `Java thread "${name}"`);
  for (const range of directBuffers) add(range, 'direct buffers');
  for (const range of await cardTable(vm)) add(range, 'collector', 'card table');
  return withoutOverlaps(labels);
}

function withoutOverlaps(labels: readonly Label[]): Label[] {
  const result: Label[] = [];
  for (const label of labels.toSorted((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))) {
    const last = result.at(-1);
    if (!last || label.start >= last.end) result.push(label);
  }
  return result;
}

/** Where collectors with a card table note which parts of the heap were written to. */
async function cardTable({ structs }: Vm): Promise<Range[]> {
  if (!structs.has('BarrierSet', '_barrier_set') || !structs.has('CardTableBarrierSet', '_card_table')) return [];
  const barriers = await structs.static('BarrierSet', '_barrier_set');
  const tag = await structs.int('BarrierSet::FakeRtti', barriers + BigInt(structs.offset('BarrierSet', '_fake_rtti')), '_concrete_tag');
  const known = ['CardTableBarrierSet', 'G1BarrierSet'].map((name) => structs.constant(`BarrierSet::${name}`, -1));
  if (!known.includes(tag)) return [];
  const table = await structs.pointer('CardTableBarrierSet', barriers, '_card_table');
  const start = await structs.pointer('CardTable', table, '_byte_map');
  return [{ start, end: start + (await structs.pointer('CardTable', table, '_byte_map_size')) }];
}
