import { Flags } from '@oclif/core';
import { Failure } from '../failure.js';

export const logLevelFlag = Flags.string({
  options: ['error', 'warn', 'info', 'debug'] as const,
  description: 'How much the engine tells on its way.',
});

/** Flags of the command line contract that the engine does not have yet: known, so that they are refused by name rather than ignored. */
export const engineFlag = Flags.string({
  description: 'Engine to use.',
  options: ['warp', 'criu', 'simengine', 'pauseengine'],
  default: 'warp',
});

export const notYetFlags = {
  parent: Flags.string({ hidden: true }),
  policies: Flags.string({ hidden: true }),
};

/** Throws for every flag in `flags` that this version's engine cannot obey. */
export function refuseUnsupported(flags: Record<string, unknown>): void {
  for (const name of Object.keys(notYetFlags)) {
    const value = flags[name];
    if (value === undefined || value === false) continue;
    throw new Failure(`--${name} is not supported by this version of the engine; run the command without it`);
  }
  if (flags['engine'] !== undefined && flags['engine'] !== 'warp') {
    throw new Failure(`--engine ${String(flags['engine'])} is not supported by this version; use warp, see \`warp-tool engines\``);
  }
}

/** A local directory or file, where the contract also allows an object's URL; `mend` is what to do instead. */
export function refuseUrl(place: string, mend: string): void {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(place);
  if (scheme) throw new Failure(`${place}: object storage (${scheme[1]}://) is not supported by this version; ${mend}`);
}
