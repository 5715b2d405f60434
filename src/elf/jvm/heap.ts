import { Unreadable } from './memory.js';
import type { Vm } from './vm.js';
import { zVariant } from './zgc.js';

/** Regions of a heap at most: HotSpot makes some thousands. */
const MOST_REGIONS = 1 << 18;

/** A stretch of the heap: objects lie in [start, top), the rest up to `end` is free. */
export interface HeapRange {
  start: bigint;
  top: bigint;
  end: bigint;
}

/** What the collector uses in one way: eden, old … Sizes are bytes. */
export interface HeapSpace {
  name: string;
  /** Null for collectors without regions. */
  regions: number | null;
  capacity: bigint;
  used: bigint;
  ranges: HeapRange[];
}

export interface JavaHeap {
  collector: string;
  /** Address space that is kept for it: [start, end). Null for ZGC, which has it in several places. */
  reserved: { start: bigint; end: bigint } | null;
  maximum: bigint;
  committed: bigint;
  /** With garbage that no collection has found yet. */
  used: bigint;
  /** Empty where the virtual machine does not export them (ZGC). */
  spaces: HeapSpace[];
}

const COLLECTORS = ['Serial', 'Parallel', 'G1', 'Z', 'Shenandoah', 'Epsilon'];

/** The collector that the flags chose: `G1`. */
export async function collectorOf(vm: Vm): Promise<string> {
  for (const name of COLLECTORS) if (await vm.flags.isOn(`Use${name}GC`)) return name;
  throw new Unreadable('no collector that is known is in use');
}

export async function javaHeap(vm: Vm): Promise<JavaHeap> {
  const { structs } = vm;
  const collector = await collectorOf(vm);
  const heap = await structs.static('Universe', '_collectedHeap');
  if (collector === 'Z') return { collector, reserved: null, spaces: [], ...(await zAmounts(vm, heap)) };
  const region = heap + BigInt(structs.offset('CollectedHeap', '_reserved'));
  const start = await structs.pointer('MemRegion', region, '_start');
  const size = (await structs.pointer('MemRegion', region, '_word_size')) * 8n;
  const spaces = await SPACES[collector]!(vm, heap);
  const sum = (key: 'capacity' | 'used'): bigint => spaces.reduce((total, one) => total + one[key], 0n);
  return { collector, reserved: { start, end: start + size }, maximum: size, committed: sum('capacity'), used: sum('used'), spaces };
}

const SPACES: Record<string, (vm: Vm, heap: bigint) => Promise<HeapSpace[]>> = {
  Serial: serialSpaces,
  Parallel: parallelSpaces,
  G1: g1Spaces,
  Shenandoah: shenandoahSpaces,
  Epsilon: async (vm, heap) => [await space(vm, 'space', 'ContiguousSpace', await vm.structs.pointer('EpsilonHeap', heap, '_space'))],
};

/** A space with objects from its bottom up to its top. `type`: that has its bounds. */
async function space(vm: Vm, name: string, type: string, address: bigint): Promise<HeapSpace> {
  const { structs } = vm;
  const [start, top, end] = [
    await structs.pointer(type, address, '_bottom'),
    await structs.pointer(type, address, '_top'),
    await structs.pointer(type, address, '_end'),
  ];
  if (start > top || top > end) throw new Unreadable(`the bounds of ${name} are out of order`);
  return { name, regions: null, capacity: end - start, used: top - start, ranges: [{ start, top, end }] };
}

async function serialSpaces(vm: Vm, heap: bigint): Promise<HeapSpace[]> {
  const { structs } = vm;
  const owner = structs.has('SerialHeap', '_young_gen') ? 'SerialHeap' : 'GenCollectedHeap';
  const young = await structs.pointer(owner, heap, '_young_gen');
  const old = await structs.pointer(owner, heap, '_old_gen');
  const of = async (name: string, field: string): Promise<HeapSpace> =>
    space(vm, name, 'ContiguousSpace', await structs.pointer('DefNewGeneration', young, field));
  return [
    await of('eden', '_eden_space'),
    await of('survivor from', '_from_space'),
    await of('survivor to', '_to_space'),
    await space(vm, 'tenured', 'ContiguousSpace', await structs.pointer('TenuredGeneration', old, '_the_space')),
  ];
}

async function parallelSpaces(vm: Vm): Promise<HeapSpace[]> {
  const { structs } = vm;
  const young = await structs.static('ParallelScavengeHeap', '_young_gen');
  const old = await structs.static('ParallelScavengeHeap', '_old_gen');
  const of = async (name: string, field: string): Promise<HeapSpace> =>
    space(vm, name, 'MutableSpace', await structs.pointer('PSYoungGen', young, field));
  return [
    await of('eden', '_eden_space'),
    await of('survivor from', '_from_space'),
    await of('survivor to', '_to_space'),
    await space(vm, 'old', 'MutableSpace', await structs.pointer('PSOldGen', old, '_object_space')),
  ];
}

/** Regions by kind, in the order of `names`; kinds without any are left out. */
function byKind(names: readonly string[], regions: readonly (HeapRange & { kind: string })[]): HeapSpace[] {
  const spaces: HeapSpace[] = [];
  for (const name of names) {
    const ranges = regions.filter(({ kind }) => kind === name);
    if (ranges.length === 0) continue;
    const sum = (amount: (range: HeapRange) => bigint): bigint => ranges.reduce((total, range) => total + amount(range), 0n);
    spaces.push({
      name,
      regions: ranges.length,
      capacity: sum(({ start, end }) => end - start),
      used: sum(({ start, top }) => top - start),
      ranges: merged(ranges),
    });
  }
  return spaces;
}

/** Full neighbours as one: a heap has thousands of regions and few stretches. */
function merged(ranges: readonly HeapRange[]): HeapRange[] {
  const result: HeapRange[] = [];
  for (const { start, top, end } of ranges) {
    const last = result.at(-1);
    const empty = last !== undefined && last.top === last.start && top === start;
    if (last && last.end === start && (last.top === last.end || empty)) {
      last.top = empty ? last.start : top;
      last.end = end;
    } else result.push({ start, top, end });
  }
  return result;
}

async function g1Spaces(vm: Vm, heap: bigint): Promise<HeapSpace[]> {
  const { structs, space: memory } = vm;
  // Renamed in JDK 23.
  const named = (name: string): string => (structs.hasType(`G1${name}`) ? `G1${name}` : name);
  const [regionType, managerType, kindType] = [named('HeapRegion'), named('HeapRegionManager'), named('HeapRegionType')];
  const manager = heap + BigInt(structs.offset('G1CollectedHeap', '_hrm'));
  const table = manager + BigInt(structs.offset(managerType, '_regions'));
  const count = await structs.pointer('G1HeapRegionTable', table, '_length');
  if (count > MOST_REGIONS) throw new Unreadable(`the heap has ${count} regions`);
  const entries = await structs.memory.bytes(await structs.pointer('G1HeapRegionTable', table, '_base'), Number(count) * 8);
  const tag = (name: string): number => structs.constant(`${kindType}::${name}`, 0);
  const kindOf = (value: number): string => {
    if (value === tag('FreeTag')) return 'free';
    if (value === tag('EdenTag')) return 'eden';
    if (value === tag('SurvTag')) return 'survivor';
    if (value & tag('ArchiveMask')) return 'archive';
    return value & tag('HumongousMask') ? 'humongous' : 'old';
  };
  const regions: (HeapRange & { kind: string })[] = [];
  const tagAt = structs.offset(regionType, '_type') + structs.offset(kindType, '_tag');
  for (let index = 0; index < entries.length; index += 8) {
    const region = entries.readBigUInt64LE(index);
    if (region === 0n) continue;
    const [start, top, end] = [
      await structs.pointer(regionType, region, '_bottom'),
      await structs.pointer(regionType, region, '_top'),
      await structs.pointer(regionType, region, '_end'),
    ];
    if (start > top || top > end) throw new Unreadable('the bounds of a region are out of order');
    const kind = kindOf(await structs.memory.i32(region + BigInt(tagAt)));
    // Free regions that were given back to the system have no memory behind them.
    if (kind === 'free' && memory.image.vmaAt(start)?.protection === 0) continue;
    regions.push({ start, top: kind === 'free' ? start : top, end, kind });
  }
  return byKind(['eden', 'survivor', 'old', 'humongous', 'archive', 'free'], regions);
}

async function shenandoahSpaces(vm: Vm, heap: bigint): Promise<HeapSpace[]> {
  const { structs } = vm;
  const count = await structs.pointer('ShenandoahHeap', heap, '_num_regions');
  if (count > MOST_REGIONS) throw new Unreadable(`the heap has ${count} regions`);
  const entries = await structs.memory.bytes(await structs.pointer('ShenandoahHeap', heap, '_regions'), Number(count) * 8);
  const state = (name: string): number => structs.constant(`ShenandoahHeapRegion::${name}`);
  const kinds = new Map([
    [state('_empty_committed'), 'free'],
    [state('_humongous_start'), 'humongous'],
    [state('_humongous_cont'), 'humongous'],
    [state('_pinned_humongous_start'), 'humongous'],
    [state('_cset'), 'collection set'],
    [state('_pinned_cset'), 'collection set'],
    [state('_trash'), 'trash'],
  ]);
  const regions: (HeapRange & { kind: string })[] = [];
  for (let index = 0; index < entries.length; index += 8) {
    const region = entries.readBigUInt64LE(index);
    const now = await structs.int('ShenandoahHeapRegion', region, '_state');
    if (now === state('_empty_uncommitted')) continue;
    const [start, top, end] = [
      await structs.pointer('ShenandoahHeapRegion', region, '_bottom'),
      await structs.pointer('ShenandoahHeapRegion', region, '_top'),
      await structs.pointer('ShenandoahHeapRegion', region, '_end'),
    ];
    regions.push({ start, top, end, kind: kinds.get(now) ?? 'regular' });
  }
  return byKind(['regular', 'humongous', 'collection set', 'trash', 'free'], regions);
}

async function zAmounts(vm: Vm, heap: bigint): Promise<Pick<JavaHeap, 'maximum' | 'committed' | 'used'>> {
  const { structs } = vm;
  const { prefix } = await zVariant(vm.version, vm.flags);
  const zHeap = heap + BigInt(structs.offset(`${prefix}CollectedHeap`, '_heap'));
  const type = `${prefix}PageAllocator`;
  const allocator = zHeap + BigInt(structs.offset(`${prefix}Heap`, '_page_allocator'));
  const maximum = await structs.pointer(type, allocator, '_max_capacity');
  if (!structs.has(type, '_partitions')) {
    const committed = await structs.pointer(type, allocator, '_capacity');
    return { maximum, committed, used: await structs.pointer(type, allocator, '_used') };
  }
  // Since JDK 25 one partition for each NUMA node, a page apart.
  const partitions = allocator + BigInt(structs.offset('ZPageAllocator', '_partitions'));
  const first = await structs.pointer('ZPerNUMAZPartition', partitions, '_addr');
  const nodes = await structs.memory.u32(structs.address('ZNUMA', '_count'));
  if (nodes > 1024) throw new Unreadable(`there are ${nodes} NUMA nodes`);
  let [committed, used] = [0n, 0n];
  for (let node = 0n; node < nodes; node++) {
    committed += await structs.pointer('ZPartition', first + node * 4096n, '_capacity');
    used += await structs.pointer('ZPartition', first + node * 4096n, '_used');
  }
  return { maximum, committed, used };
}
