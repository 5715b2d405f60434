import type { KernelNote } from './types.js';

/** Order of `struct user_regs_struct` (x86-64, sys/user.h), which NT_PRSTATUS holds as pr_reg. */
export const X86_64_REGISTERS = [
  'r15', 'r14', 'r13', 'r12', 'rbp', 'rbx', 'r11', 'r10', 'r9', 'r8', 'rax', 'rcx', 'rdx', 'rsi', 'rdi',
  'orig_rax', 'rip', 'cs', 'eflags', 'rsp', 'ss', 'fs_base', 'gs_base', 'ds', 'es', 'fs', 'gs',
] as const; // prettier-ignore

export type X86Register = (typeof X86_64_REGISTERS)[number];

/** struct elf_prstatus of a 64-bit kernel (linux/elfcore.h). */
export interface Prstatus {
  /** Signal that ended the process, 0 for none. */
  signal: number;
  /** struct elf_siginfo; the kernel fills in the number only, NT_SIGINFO has the rest. */
  infoSignal: number;
  signalCode: number;
  signalErrno: number;
  /** Bit n-1 stands for signal n. */
  pendingSignals: bigint;
  blockedSignals: bigint;
  tid: number;
  parentPid: number;
  processGroup: number;
  session: number;
  /** Microseconds. */
  userTime: bigint;
  systemTime: bigint;
  /** Of children that have been waited for, microseconds. */
  childrenUserTime: bigint;
  childrenSystemTime: bigint;
  /** Whether a note with floating point registers belongs to the thread. */
  fpValid: boolean;
  registers: Record<X86Register, bigint>;
}

const REGISTERS_OFFSET = 112;

/** A struct timeval in microseconds. */
function microseconds(raw: Buffer, at: number): bigint {
  return raw.readBigInt64LE(at) * 1_000_000n + raw.readBigInt64LE(at + 8);
}

export const prstatus: KernelNote<Prstatus> = {
  name: 'NT_PRSTATUS',
  owner: 'CORE',
  type: 1,
  minimumSize: 336,
  decode: (raw) => ({
    signal: raw.readInt16LE(12),
    infoSignal: raw.readInt32LE(0),
    signalCode: raw.readInt32LE(4),
    signalErrno: raw.readInt32LE(8),
    pendingSignals: raw.readBigUInt64LE(16),
    blockedSignals: raw.readBigUInt64LE(24),
    tid: raw.readInt32LE(32),
    parentPid: raw.readInt32LE(36),
    processGroup: raw.readInt32LE(40),
    session: raw.readInt32LE(44),
    userTime: microseconds(raw, 48),
    systemTime: microseconds(raw, 64),
    childrenUserTime: microseconds(raw, 80),
    childrenSystemTime: microseconds(raw, 96),
    fpValid: raw.readInt32LE(REGISTERS_OFFSET + X86_64_REGISTERS.length * 8) !== 0,
    registers: Object.fromEntries(
      X86_64_REGISTERS.map((name, index) => [name, raw.readBigUInt64LE(REGISTERS_OFFSET + index * 8)]),
    ) as Prstatus['registers'],
  }),
};
