import { basename } from 'node:path';
import type { Category } from './categories.js';
import type { AreaComposition, CategoryComposition, Composition } from './composition.js';
import type { Image } from './image.js';
import { bitNames, names } from './schema.js';

/** Why an image is as large as it is, and what to do about it. */
export interface Advice {
  topic: string;
  /** What this is about, bytes; where `saves`, what could be saved. */
  bytes: number;
  saves: boolean;
  observation: string;
  mend: string;
}

const MIB = 1 << 20;

/** Less than this share of the stored content is not worth a word. */
const WORTH = 0.05;

/** LZ4's estimate for areas of some kind: bytes. */
export function packedEstimate({ read, sampled, packed }: CategoryComposition): number {
  return sampled === 0 ? read : Math.round((packed * read) / sampled);
}

/** Of these, whoever knows the virtual machine can say more. */
export const RUNTIME_TOPICS: ReadonlySet<string> = new Set(['garbage', 'arenas', 'stacks']);

/** What stands out in the composition of an image, the largest first; not of the topics that are left out. */
export function adviceOf(image: Image, composition: Composition, leaveOut: ReadonlySet<string> = new Set()): Advice[] {
  const found: Advice[] = [];
  /** What an area holds besides zeros. */
  const held = ({ vma, zero }: AreaComposition): number => Number(vma.stored) - zero;
  const stored = sum(composition.areas, ({ vma }) => Number(vma.stored));
  const content = sum(composition.areas, held);
  const add = (topic: string, bytes: number, saves: boolean, observation: string, mend: string, worth = WORTH): void => {
    if (!leaveOut.has(topic) && bytes >= MIB && bytes >= (saves ? stored : content) * worth)
      found.push({ topic, bytes, saves, observation, mend });
  };
  const of = (category: Category): number => sum(composition.areas, (area) => (area.category === category ? held(area) : 0));
  const record = image.single('image');
  const flags = record ? bitNames(names.imageFlags, record.flags) : [];

  const packed = sum(composition.categories, packedEstimate);
  const read = sum(composition.categories, (one) => one.read);
  if (image.ours && !flags.includes('compressed')) {
    add(
      'compression',
      read - packed,
      true,
      'The content is stored plain; LZ4 would make it smaller.',
      'Run `warp-tool compress` on the image. Plain content can be mapped instead of read, so a plain image restores faster.',
      0.2,
    );
  }
  add(
    'zeros',
    sum(composition.areas, (area) => area.zero),
    true,
    'Stored pages hold nothing but zeros: memory that was reserved or cleared.',
    image.ours
      ? 'Run `warp-tool compress` on the image: zeros take next to no room then.'
      : 'Make holes of them: `fallocate --dig-holes` on the file, or copy it with `cp --sparse=always`.',
  );
  add(
    'duplicates',
    sum(composition.areas, (area) => area.duplicate),
    true,
    'Stored pages are copies of other pages.',
    'Look whether the program holds the same data once for each thread or worker, or fills buffers with a pattern.',
  );
  const arenas = composition.areas.filter((area) => area.category === 'heap' && area.vma.kind === 'anonymous');
  if (arenas.length > 4) {
    add(
      'arenas',
      sum(arenas, held),
      false,
      `malloc keeps ${arenas.length} arenas beside the main heap, so that threads need not wait for each other; memory freed in one stays there.`,
      'Start the program with MALLOC_ARENA_MAX=2 in its environment, or let it call malloc_trim(0) before the capture.',
    );
  }
  const language = managedRuntime(image);
  if (language) add('garbage', of('anonymous') + of('heap'), false, language.observation, language.mend, 0.3);
  if (flags.includes('self-contained')) {
    add(
      'self-contained',
      of('code') + of('file'),
      false,
      'The image is self-contained: pages of mapped files are stored too.',
      'Take it without --self-contained where the same files are on the host that restores it.',
    );
  }
  add(
    'stacks',
    of('stack'),
    false,
    'Stacks hold much: deep recursion, large local arrays, or very many threads.',
    'See `warp-tool threads --stack` for the frames; a stack that was deep once stays stored.',
    0.1,
  );
  add(
    'shared-memory',
    of('shared'),
    false,
    'Shared memory (memfd, shared anonymous, deleted files) is stored in full: no other file has it.',
    'Where it is a cache that can be made again, let the program drop it before the capture.',
    0.1,
  );
  const absent = sum(composition.areas, ({ vma, category }) => (category === 'kernel' || category === 'reserved' ? 0 : Number(vma.absent)));
  if (!image.anchor && absent >= MIB) {
    found.push({
      topic: 'absent',
      bytes: absent,
      saves: false,
      observation: 'Memory of the process is not in this core file: its writer left it out, or it was never touched.',
      mend: 'To have more, write 0x7f to /proc/PID/coredump_filter before the core is written.',
    });
  }
  return found.toSorted((a, b) => Number(b.saves) - Number(a.saves) || b.bytes - a.bytes);
}

/** Runtimes that keep garbage until they need the room. */
function managedRuntime(image: Image): { observation: string; mend: string } | null {
  const files = new Set(image.vmas().map(({ name }) => basename(name)));
  const observation = (what: string): string =>
    `${what} keeps objects that are no longer used until it needs the room: they are stored too.`;
  if (files.has('libjvm.so')) {
    return {
      observation: observation('The Java heap'),
      mend: 'Collect garbage right before the capture: `jcmd PID GC.run`, or System.gc().',
    };
  }
  if (basename(image.executable() ?? '') === 'node') {
    return {
      observation: observation("V8's heap"),
      mend: 'Capture it while its event loop waits: garbage is collected then (unless run --no-gc was given).',
    };
  }
  if ([...files].some((name) => /^(lib)?python3(\.\d+)?(\.so.*)?$/.test(name))) {
    return {
      observation: 'Python keeps objects that refer to each other until it collects them.',
      mend: 'Call gc.collect() right before the capture.',
    };
  }
  return null;
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
