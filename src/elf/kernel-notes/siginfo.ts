import type { KernelNote } from './types.js';

/** siginfo_t (asm-generic/siginfo.h): the members that its signal and code make valid, null for the others. */
export interface Siginfo {
  signal: number;
  errno: number;
  code: number;
  /** Fault address of SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP. */
  address: bigint | null;
  /** Sender, for signals sent by kill(2), tgkill(2) or sigqueue(3), and the child for SIGCHLD. */
  pid: number | null;
  uid: number | null;
  /** Value of sigqueue(3). */
  value: bigint | null;
}

const SIGBUS = 7;
const SIGCHLD = 17;
const FAULTS = new Set([4, 5, SIGBUS, 8, 11]); // SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV
const SI_QUEUE = -1;

export const siginfo: KernelNote<Siginfo> = {
  name: 'NT_SIGINFO',
  owner: 'CORE',
  type: 0x53494749,
  minimumSize: 128,
  decode: decodeSiginfo,
};

export function decodeSiginfo(raw: Buffer): Siginfo {
  const signal = raw.readInt32LE(0);
  const code = raw.readInt32LE(8);
  // A code above 0 is the kernel's own report; SI_USER (0) and negative codes come from processes.
  const fault = FAULTS.has(signal) && code > 0 && code !== 0x80;
  const sender = signal !== 0 && (code <= 0 || signal === SIGCHLD);
  return {
    signal,
    errno: raw.readInt32LE(4),
    code,
    address: fault ? raw.readBigUInt64LE(16) : null,
    pid: sender ? raw.readInt32LE(16) : null,
    uid: sender ? raw.readUInt32LE(20) : null,
    value: code === SI_QUEUE ? raw.readBigUInt64LE(24) : null,
  };
}
