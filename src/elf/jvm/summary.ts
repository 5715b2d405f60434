import { partsOf, type Part } from '../parts.js';
import { adviceFor, type Advice } from './advice.js';
import type { CodeHeapUse } from './code-cache.js';
import type { DirectBuffers } from './direct-buffers.js';
import type { Flag } from './flags.js';
import { collectorOf, type JavaHeap } from './heap.js';
import type { Jvm } from './jvm.js';
import { perfCounters } from './perf-data.js';
import { FREE } from './regions.js';

/** A file of the class data archive. Sizes are bytes. */
export interface Archive {
  path: string;
  mapped: bigint;
  /** Changed since it was mapped, and so in the image. */
  stored: bigint;
}

/** What an image tells about a Java virtual machine. Null: could not be read. Sizes are bytes. */
export interface JvmSummary {
  /** `17.0.15+6-Debian-1deb12u1`. */
  version: string | null;
  /** How the virtual machine describes itself. */
  description: string | null;
  collector: string | null;
  /** Class or jar with its arguments. */
  command: string | null;
  arguments: string[] | null;
  /** Flags that are not at their default. */
  flags: Flag[];
  heap: (JavaHeap & { stored: bigint; storedFree: bigint }) | null;
  codeCache: CodeHeapUse[] | null;
  metaspace: { committed: bigint; stored: bigint; usedAtLastCollection: bigint | null } | null;
  classes: { loaders: number; classes: number; shared: number } | null;
  archives: Archive[];
  directBuffers: DirectBuffers | null;
  threads: { java: number; daemon: number; stacksStored: bigint };
  /** Of the process until the capture: collections, their time and that of the compilers, in nanoseconds. Null without performance counters. */
  counters: { collections: number; collectionTime: bigint; compilations: number; compilationTime: bigint } | null;
  composition: Part[];
  advice: Advice[];
  problems: string[];
}

export async function summarise(jvm: Jvm): Promise<JvmSummary> {
  const { vm } = jvm;
  const { structs, space, flags } = vm;
  const { image } = space;
  const { memory } = structs;
  const text = async (type: string, field: string): Promise<string> => memory.text(await structs.static(type, field));
  const heap = await jvm.heap();
  const classes = await jvm.classes();
  const labels = await jvm.labels();
  const composition = await partsOf(image, labels);
  const storedOf = (name: string): bigint => composition.find((part) => part.name === name)?.stored ?? 0n;
  const threads = await jvm.threads();
  const counters = await jvm.attempt('the performance counters', () => perfCounters(structs));
  const metaspaceUsed = counters?.get('sun.gc.metaspace.used');
  const summary: JvmSummary = {
    version: await jvm.attempt('the version', () => text('Abstract_VM_Version', '_s_vm_release')),
    description: await jvm.attempt('the description', () => text('Abstract_VM_Version', '_s_internal_vm_info_string')),
    collector: await jvm.attempt('the collector', () => collectorOf(vm)),
    command: await jvm.attempt('the command', () => text('Arguments', '_java_command')),
    arguments: await jvm.attempt('the arguments', () => jvmArguments(jvm)),
    flags: (await jvm.attempt('the flags', () => flags.set())) ?? [],
    heap: heap && { ...heap, stored: storedOf('Java heap') + storedOf(`${FREE} Java heap`), storedFree: storedOf(`${FREE} Java heap`) },
    codeCache: await jvm.codeCache(),
    metaspace: classes && {
      committed: classes.metaspace.reduce((total, { start, end }) => total + (end - start), 0n),
      stored: storedOf('metaspace'),
      usedAtLastCollection: metaspaceUsed === undefined ? null : BigInt(metaspaceUsed),
    },
    classes,
    archives: archivesOf(jvm, classes?.archive ?? null),
    directBuffers: await jvm.directBuffers(),
    threads: { java: threads.length, daemon: threads.filter(({ daemon }) => daemon).length, stacksStored: storedOf('thread stack') },
    counters: counters && countersOf(counters),
    composition,
    advice: [],
    problems: jvm.problems,
  };
  summary.advice = (await jvm.attempt('some flags', () => adviceFor(summary, flags))) ?? [];
  return summary;
}

/** Strings of the command line that the virtual machine took for itself. */
async function jvmArguments(jvm: Jvm): Promise<string[]> {
  const { structs } = jvm.vm;
  const { memory } = structs;
  const texts: string[] = [];
  for (const [array, count] of [
    ['_jvm_flags_array', '_num_jvm_flags'],
    ['_jvm_args_array', '_num_jvm_args'],
  ] as const) {
    const at = await structs.static('Arguments', array);
    const entries = at === 0n ? 0 : Math.min(Math.max(0, await memory.i32(structs.address('Arguments', count))), 65_536);
    for (let index = 0; index < entries; index++) texts.push(await memory.text(await memory.u64(at + BigInt(index * 8)), 65_536));
  }
  return texts;
}

/** Mapped files of the class data archive: those with its classes, and what the same files have in the heap. */
function archivesOf({ vm }: Jvm, range: { start: bigint; end: bigint } | null): Archive[] {
  const archives = new Map<string, Archive>();
  const vmas = vm.space.image.vmas().filter(({ kind }) => kind === 'file');
  for (const { name, start, end } of vmas) {
    if (range && start < range.end && end > range.start) archives.set(name, { path: name, mapped: 0n, stored: 0n });
  }
  for (const { name, start, end, stored } of vmas) {
    const archive = archives.get(name);
    if (!archive) continue;
    archive.mapped += end - start;
    archive.stored += stored;
  }
  return [...archives.values()];
}

function countersOf(counters: ReadonlyMap<string, string>): JvmSummary['counters'] {
  const number = (name: string): bigint => BigInt(counters.get(name) ?? 0);
  // Times are in ticks of the high resolution clock.
  const frequency = number('sun.os.hrt.frequency') || 1_000_000_000n;
  const nanoseconds = (ticks: bigint): bigint => (ticks * 1_000_000_000n) / frequency;
  let [collections, ticks] = [0n, 0n];
  for (const name of counters.keys()) {
    const collector = /^sun\.gc\.collector\.\d+\./.exec(name)?.[0];
    if (!collector || name !== `${collector}invocations`) continue;
    collections += number(name);
    ticks += number(`${collector}time`);
  }
  return {
    collections: Number(collections),
    collectionTime: nanoseconds(ticks),
    compilations: Number(number('sun.ci.totalCompiles')),
    compilationTime: nanoseconds(number('java.ci.totalTime')),
  };
}
