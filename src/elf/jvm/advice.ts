import type { Flags } from './flags.js';
import type { JvmSummary } from './summary.js';

/** What makes an image large, and what to do about it before the next checkpoint. */
export interface Advice {
  /** Which part of the image it is about. */
  part: string;
  /** Bytes of the image that are at stake. */
  bytes: bigint;
  problem: string;
  mend: string;
}

const MIB = 1n << 20n;

/**
 * Rules that hold for stock virtual machines. Each looks at what the image holds, and is silent when that is little: less than 2 MiB, or less than a
 * twentieth of the image.
 */
export async function adviceFor(summary: JvmSummary, flags: Flags): Promise<Advice[]> {
  const { heap, archives, composition, threads } = summary;
  const total = composition.reduce((sum, { stored }) => sum + stored, 0n);
  const advice: Advice[] = [];
  const add = (part: string, bytes: bigint, problem: string, mend: string): void => {
    if (bytes >= 2n * MIB && bytes * 20n >= total) advice.push({ part, bytes, problem, mend });
  };
  const storedOf = (name: string): bigint => composition.find((part) => part.name === name)?.stored ?? 0n;

  if (heap) {
    const shrink = '`jcmd PID GC.run` before the checkpoint';
    add(
      'Java heap',
      heap.storedFree,
      'free parts of the heap still hold what lay there before',
      heap.collector === 'Serial' || heap.collector === 'Parallel'
        ? `start with -XX:MinHeapFreeRatio=5 -XX:MaxHeapFreeRatio=10, and ${shrink}: the heap then shrinks`
        : heap.collector === 'G1'
          ? `${shrink}: a full collection gives free regions back to the system (-XX:MaxHeapFreeRatio says how many)`
          : `${shrink}, and wait until unused memory has been given back`,
    );
    const eden = heap.spaces.filter(({ name }) => name === 'eden').reduce((sum, { used }) => sum + used, 0n);
    const share = heap.used > 0n ? ((heap.stored - heap.storedFree) * eden) / heap.used : 0n;
    add('Java heap', share, 'eden holds new objects, most of which are usually garbage', shrink);
  }
  const changed = archives.reduce((sum, { stored }) => sum + stored, 0n);
  if ((await flags.value('ArchiveRelocationMode')) === '1') {
    add(
      'class data archive',
      changed,
      'the class data archive was mapped at another address than it was made for, and every page with a pointer changed',
      'start with -XX:+UnlockDiagnosticVMOptions -XX:ArchiveRelocationMode=0: its pages then stay those of the file',
    );
  }
  if (archives.length === 0) {
    add(
      'metaspace',
      storedOf('metaspace'),
      'no class data archive is used: all classes are in the image',
      'start with -Xshare:auto, and with an archive of the application (-XX:ArchiveClassesAtExit, then -XX:SharedArchiveFile)',
    );
  } else {
    add(
      'metaspace',
      storedOf('metaspace'),
      "the application's classes are in the image",
      'put them into a class data archive: -XX:ArchiveClassesAtExit=app.jsa once, then -XX:SharedArchiveFile=app.jsa',
    );
  }
  add(
    'direct buffers',
    storedOf('direct buffers'),
    'direct buffers are memory outside of the heap that a collection frees only with their objects',
    'close or trim buffer pools before the checkpoint, or limit them (-XX:MaxDirectMemorySize, -Djdk.nio.maxCachedBufferSize)',
  );
  add(
    'malloc',
    storedOf('malloc'),
    'native code, the compilers above all, took this from malloc; much of it may be free again',
    '`jcmd PID System.trim_native_heap` (JDK 17.0.9 or later) before the checkpoint gives back what is free',
  );
  add(
    'thread stack',
    threads.stacksStored,
    `${threads.java} Java threads have used their stacks`,
    'let pools shrink before the checkpoint, and limit how many threads they have',
  );
  return advice.toSorted((a, b) => (a.bytes > b.bytes ? -1 : 1));
}
