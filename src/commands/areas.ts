import { areaName, type PointerTarget } from '../elf/address-space.js';
import { protectionText, type Vma } from '../elf/vmas.js';
import { hex } from '../hex.js';
import type { Static } from '../schemas/builder.js';
import type { target } from '../schemas/index.js';
import { printable } from '../terminal/format.js';

export type Target = Static<typeof target>;

export function areaOf(vma: Vma): Target['area'] {
  return { start: hex(vma.start), end: hex(vma.end), kind: vma.kind, name: areaName(vma), protection: protectionText(vma) };
}

export function targetOf({ vma, offset, symbol, symbolOffset }: PointerTarget): Target {
  return { area: areaOf(vma), offset: hex(offset), symbol, symbol_offset: symbolOffset };
}

/** `main+0x10 (program)`, or the area and the offset in it. */
export function targetText({ area, offset, symbol, symbol_offset: symbolOffset }: Target): string {
  const name = printable(area.name.startsWith('/') ? area.name.slice(area.name.lastIndexOf('/') + 1) : area.name);
  if (symbol !== null) return `${printable(symbol)}${symbolOffset ? `+${hex(symbolOffset)}` : ''} (${name})`;
  return `${name} ${area.protection} ${area.start}+${offset}`;
}
