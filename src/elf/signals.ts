import { constants } from 'node:os';

const SIGRTMIN = 32;
const NAMES = new Map<number, string>(Object.entries(constants.signals).map(([name, number]) => [number, name]));
// Two names share a number: the usual one wins.
NAMES.set(6, 'SIGABRT').set(17, 'SIGCHLD').set(29, 'SIGIO').set(31, 'SIGSYS');

/** Name of a Linux signal as the kernel counts: SIGRTMIN is 32 (the C libraries keep the first two or three for themselves). */
export function signalName(number: number): string {
  if (number > SIGRTMIN) return `SIGRTMIN+${number - SIGRTMIN}`;
  if (number === SIGRTMIN) return 'SIGRTMIN';
  return NAMES.get(number) ?? `signal ${number}`;
}

/** Names of the signals in a mask: bit n-1 stands for signal n. */
export function signalNames(mask: bigint): string[] {
  const found: string[] = [];
  for (let number = 1; number <= 64; number++) if ((mask >> BigInt(number - 1)) & 1n) found.push(signalName(number));
  return found;
}
