import { basename } from 'node:path';
import type { Location } from '../elf/modules.js';
import type { threads } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { hex } from '../hex.js';
import { printable } from '../terminal/format.js';

export type Frame = Static<typeof threads>['threads'][number]['location'];

export function frameOf(location: Location): Frame {
  return {
    pc: hex(location.address),
    module: location.module,
    module_offset: location.moduleOffset === null ? null : hex(location.moduleOffset),
    symbol: location.symbol,
    symbol_offset: location.symbolOffset,
  };
}

/** `clock_nanosleep+0x65 (libc.so.6)`, or as much of it as is known. */
export function frameText(frame: Frame): string {
  if (frame.module === null) return frame.pc;
  const module = printable(frame.module.startsWith('/') ? basename(frame.module) : frame.module);
  if (frame.symbol === null) return `${module}+${frame.module_offset}`;
  return `${printable(frame.symbol)}${frame.symbol_offset ? `+${hex(frame.symbol_offset)}` : ''} (${module})`;
}
