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
  signalCode: number;
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
  registers: Record<X86Register, bigint>;
}

const REGISTERS_OFFSET = 112;

export const prstatus: KernelNote<Prstatus> = {
  name: 'NT_PRSTATUS',
  owner: 'CORE',
  type: 1,
  minimumSize: 336,
  decode: (raw) => ({
    signal: raw.readInt16LE(12),
    signalCode: raw.readInt32LE(4),
    pendingSignals: raw.readBigUInt64LE(16),
    blockedSignals: raw.readBigUInt64LE(24),
    tid: raw.readInt32LE(32),
    parentPid: raw.readInt32LE(36),
    processGroup: raw.readInt32LE(40),
    session: raw.readInt32LE(44),
    userTime: raw.readBigInt64LE(48) * 1_000_000n + raw.readBigInt64LE(56),
    systemTime: raw.readBigInt64LE(64) * 1_000_000n + raw.readBigInt64LE(72),
    registers: Object.fromEntries(
      X86_64_REGISTERS.map((name, index) => [name, raw.readBigUInt64LE(REGISTERS_OFFSET + index * 8)]),
    ) as Prstatus['registers'],
  }),
};
