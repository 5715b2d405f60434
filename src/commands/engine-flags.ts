import { spawnSync } from 'node:child_process';
import { Flags } from '@oclif/core';
import { schemeOf } from '../elf/source.js';
import { nativeFile } from '../engine/native.js';
import { Failure, systemErrorReason } from '../failure.js';

export const logLevelFlag = Flags.string({
  options: ['error', 'warn', 'info', 'debug'] as const,
  description: 'How much the engine tells on its way.',
});

export const engineFlag = Flags.string({
  description: 'Engine to use; see `warp-tool engines`.',
  options: ['warp', 'criu', 'simengine', 'pauseengine'],
  default: 'warp',
});

/** Flags of the command line contract that the engine does not have yet: known, so that they are refused by name rather than ignored. */
export const notYetFlags = {
  parent: Flags.string({ hidden: true }),
};

export const policiesFlag = Flags.string({
  description: 'Rules for open files, pipes and sockets: error, ignore, close or reopen (docs/policies.md).',
  helpValue: 'FILE',
});

/** Throws for a file of policies that the engine could not read, with its words. */
export function checkPolicies(path: string): void {
  const { status, stderr, error } = spawnSync(nativeFile('warp-checkpoint'), ['--check-policies', path], { encoding: 'utf8' });
  if (error) throw new Failure(`${path}: the policies cannot be checked: ${systemErrorReason(error)}`, { cause: error });
  if (status !== 0) throw new Failure(stderr.trim().replace(/^warp-checkpoint: /, ''));
}

/** Throws for every flag in `flags` that this version's engine cannot obey. */
export function refuseUnsupported(flags: Record<string, unknown>): void {
  for (const name of Object.keys(notYetFlags)) {
    const value = flags[name];
    if (value === undefined || value === false) continue;
    throw new Failure(`--${name} is not supported by this version of the engine; run the command without it`);
  }
}

/** Throws for every flag in `given` (as it was typed) that the engine does not obey. */
export function refuseOthers(engine: string, given: readonly string[], obeyed: readonly string[]): void {
  for (const name of given) {
    if (name === 'engine' || name === 'json' || name === 'debug' || name === 'no-color' || obeyed.includes(name)) continue;
    throw new Failure(`--${name} has no meaning with --engine ${engine}; leave it out`);
  }
}

/** The flags that were typed, without those that have their default. */
export function givenFlags(raw: readonly { type: string; flag?: string }[]): string[] {
  return raw.flatMap((token) => (token.type === 'flag' && token.flag !== undefined ? [token.flag] : []));
}

/** Throws for a URL where only a local directory or file will do; `mend` is what to do instead. */
export function refuseUrl(place: string, mend: string): void {
  if (schemeOf(place) !== null) throw new Failure(`${place} is not a local directory; ${mend}`);
}
