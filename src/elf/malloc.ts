import type { Image } from './image.js';
import type { Vma } from './vmas.js';

const PAGE = 4096n;
const ARENA = 64n << 20n;

/** Heaps of glibc's malloc beside the main one: aligned to 64 MiB, each starts with a `struct heap_info` (malloc/arena.c). */
export async function arenasOf(image: Image): Promise<Set<Vma>> {
  const found = new Set<Vma>();
  for (const vma of image.vmas()) {
    if (vma.kind !== 'anonymous' || vma.start % ARENA !== 0n || vma.end - vma.start > ARENA || vma.stored === 0n) continue;
    const info = await image.memory.read(vma.start, 32).catch(() => null);
    if (!info) continue;
    const [arena, previous, size, accessible] = [0, 8, 16, 24].map((at) => info.readBigUInt64LE(at)) as [bigint, bigint, bigint, bigint];
    // The arena itself stands behind the heap_info of its first heap.
    const inside = arena % ARENA;
    const sound = size > 0n && size <= accessible && accessible <= ARENA && size % PAGE === 0n && previous % ARENA === 0n;
    if (sound && arena >= ARENA && inside >= 32n && inside <= 64n && (previous !== 0n || arena - inside === vma.start)) found.add(vma);
  }
  return found;
}
