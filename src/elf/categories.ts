import type { Vma } from './vmas.js';

/** What memory is for, as far as an image tells. */
export const categories = ['heap', 'anonymous', 'generated', 'stack', 'shared', 'file', 'code', 'engine', 'kernel', 'reserved'] as const;
export type Category = (typeof categories)[number];

/** The purpose of an area by what is recorded of it; its content may tell more (malloc's arenas, see compositionOf). */
export function categoryOf(vma: Vma): Category {
  const executable = ((vma.protection ?? 0) & 4) !== 0;
  switch (vma.kind) {
    case 'heap':
    case 'engine':
      return vma.kind;
    case 'object':
      return 'shared';
    case 'file':
      return executable ? 'code' : 'file';
    case 'vdso':
    case 'vvar':
    case 'vsyscall':
      return 'kernel';
    default:
      if (vma.kind === 'stack' || vma.stackOf !== null) return 'stack';
      if (vma.protection === 0 && vma.stored === 0n) return 'reserved';
      return executable ? 'generated' : 'anonymous';
  }
}
