import type { ChalkInstance } from 'chalk';
import { AddressSpace } from '../elf/address-space.js';
import type { Image } from '../elf/image.js';
import { libjvmOf, openJvm } from '../elf/java.js';
import type { JvmSummary } from '../elf/jvm/summary.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import type { show } from '../schemas/index.js';
import { bytes, count, duration, printable } from '../terminal/format.js';

type Java = NonNullable<Static<typeof show>['java']>;

/** The section of `show` about a Java virtual machine; null where the process was none. */
export async function collectJava(image: Image): Promise<Java | null> {
  if (!libjvmOf(image)) return null;
  const space = new AddressSpace(image);
  try {
    const [jvm, { summarise }] = await Promise.all([openJvm(space), import('../elf/jvm/summary.js')]);
    if (jvm === null) return null;
    return typeof jvm === 'string' ? nothing(jvm) : documentOf(await summarise(jvm));
  } finally {
    await space.close();
  }
}

function nothing(problem: string): Java {
  return {
    version: null,
    description: null,
    collector: null,
    command: null,
    arguments: null,
    flags: [],
    heap: null,
    code_cache: null,
    metaspace: null,
    classes: null,
    archives: [],
    direct_buffers: null,
    threads: { java: 0, daemon: 0, stacks_stored: 0 },
    counters: null,
    composition: [],
    advice: [],
    problems: [problem],
  };
}

function documentOf(summary: JvmSummary): Java {
  const { heap, codeCache, metaspace, classes, directBuffers, threads, counters, composition } = summary;
  const storedOf = (name: string): number | string => byteCountOf(composition.find((part) => part.name === name)?.stored ?? 0n);
  const sum = (amount: (heap: NonNullable<typeof codeCache>[number]) => bigint): number | string =>
    byteCountOf((codeCache ?? []).reduce((total, one) => total + amount(one), 0n));
  return {
    version: summary.version,
    description: summary.description,
    collector: summary.collector as Java['collector'],
    command: summary.command,
    arguments: summary.arguments,
    flags: summary.flags,
    heap: heap && {
      maximum: byteCountOf(heap.maximum),
      committed: byteCountOf(heap.committed),
      used: byteCountOf(heap.used),
      stored: byteCountOf(heap.stored),
      stored_free: byteCountOf(heap.storedFree),
      spaces: heap.spaces.map(({ name, regions, capacity, used }) => ({
        name,
        regions,
        capacity: byteCountOf(capacity),
        used: byteCountOf(used),
      })),
    },
    code_cache: codeCache && {
      reserved: sum(({ start, reservedEnd }) => reservedEnd - start),
      committed: sum(({ start, end }) => end - start),
      used: sum(({ used }) => used),
      methods: codeCache.reduce((total, { methods }) => total + methods, 0),
      stored: storedOf('code cache'),
      parts: codeCache.map(({ name, start, end, reservedEnd, used, methods }) => ({
        name,
        reserved: byteCountOf(reservedEnd - start),
        committed: byteCountOf(end - start),
        used: byteCountOf(used),
        methods,
      })),
    },
    metaspace: metaspace && {
      committed: byteCountOf(metaspace.committed),
      stored: byteCountOf(metaspace.stored),
      used_at_last_collection: metaspace.usedAtLastCollection === null ? null : byteCountOf(metaspace.usedAtLastCollection),
    },
    classes: classes && { loaded: classes.classes, shared: classes.shared, loaders: classes.loaders },
    archives: summary.archives.map(({ path, mapped, stored }) => ({ path, mapped: byteCountOf(mapped), stored: byteCountOf(stored) })),
    direct_buffers: directBuffers && {
      count: Number(directBuffers.count),
      capacity: byteCountOf(directBuffers.capacity),
      reserved: byteCountOf(directBuffers.reserved),
      maximum: byteCountOf(directBuffers.maximum),
      stored: storedOf('direct buffers'),
    },
    threads: { java: threads.java, daemon: threads.daemon, stacks_stored: byteCountOf(threads.stacksStored) },
    counters: counters && {
      collections: counters.collections,
      collection_time_ns: String(counters.collectionTime),
      compilations: counters.compilations,
      compilation_time_ns: String(counters.compilationTime),
    },
    composition: composition.map(({ name, stored }) => ({ part: name, stored: byteCountOf(stored) })),
    advice: summary.advice.map((one) => ({ ...one, bytes: byteCountOf(one.bytes) })),
    problems: summary.problems,
  };
}

/** Lines of the section. `row`: a label and what it says. */
export function* javaLines(java: Java, row: (label: string, text: string) => string, style: ChalkInstance): Generator<string> {
  const { heap, code_cache: code, metaspace, classes, direct_buffers: direct, threads, counters } = java;
  const dim = (text: string): string => style.dim(text);
  yield row(
    'Java',
    java.version === null ? '?' : `${style.bold(printable(java.version))}${java.collector === null ? '' : `, ${java.collector} collector`}`,
  );
  if (java.command !== null) yield row('  runs', printable([java.command, ...(java.arguments ?? []).map((text) => dim(text))].join('  ')));
  if (heap) {
    const free = heap.stored_free === 0 ? '' : `, of it ${bytes(heap.stored_free)} in free parts`;
    yield row(
      '  heap',
      `${style.bold(bytes(heap.used))} used, ${bytes(heap.committed)} committed, ${bytes(heap.maximum)} at most; ${bytes(heap.stored)} in the image${free}`,
    );
    const spaces = heap.spaces.map(({ name, regions, used, capacity }) => {
      const amount = used === 0 || used === capacity ? bytes(capacity) : `${bytes(used)} of ${bytes(capacity)}`;
      return `${name} ${amount}${regions === null ? '' : ` in ${count(regions, 'region')}`}`;
    });
    if (spaces.length > 0) yield row('', dim(spaces.join(', ')));
  }
  if (code) {
    const compiled = counters === null ? '' : `, ${duration(Number(counters.compilation_time_ns) / 1e6)} of compiling`;
    yield row('  code cache', `${bytes(code.used)} used, ${bytes(code.committed)} committed: ${count(code.methods, 'method')}${compiled}`);
  }
  if (metaspace && classes) {
    const shared = classes.shared === 0 ? '' : `, ${classes.shared} of them from the archive`;
    yield row(
      '  metaspace',
      `${bytes(metaspace.committed)} committed: ${count(classes.loaded, 'class', 'classes')} of ${count(classes.loaders, 'loader')}${shared}`,
    );
  }
  for (const { path, mapped, stored } of java.archives) {
    yield row('  archive', `${bytes(mapped)}, of it ${bytes(stored)} changed and in the image  ${dim(printable(path))}`);
  }
  if (direct && direct.count > 0) {
    yield row('  direct', `${bytes(direct.capacity)} in ${count(direct.count, 'buffer')}, ${bytes(direct.stored)} in the image`);
  }
  if (threads.java > 0)
    yield row(
      '  threads',
      `${threads.java} Java threads, ${threads.daemon} of them daemons; ${bytes(threads.stacks_stored)} of stacks in the image`,
    );
  if (counters && counters.collections > 0) {
    yield row('  collected', `${count(counters.collections, 'time')} in ${duration(Number(counters.collection_time_ns) / 1e6)}`);
  }
  const parts = java.composition.slice(0, 6).map(({ part, stored }) => `${part} ${bytes(stored)}`);
  if (parts.length > 0) yield row('  image', `${parts.join(', ')}${java.composition.length > parts.length ? ' …' : ''}`);
  for (const { bytes: amount, problem, mend } of java.advice) {
    yield row('  to do', `${style.yellow(bytes(amount))}: ${printable(problem)}; ${printable(mend)}`);
  }
}
