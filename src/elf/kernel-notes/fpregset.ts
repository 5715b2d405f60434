import type { KernelNote } from './types.js';

/** The FXSAVE area (struct user_fpregs_struct of sys/user.h; Intel SDM volume 1, 10.5.1). */
export interface Fpregset {
  controlWord: number;
  statusWord: number;
  /** Abridged: bit n says that register n is not empty. */
  tagWord: number;
  lastOpcode: number;
  lastInstruction: bigint;
  lastOperand: bigint;
  mxcsr: number;
  mxcsrMask: number;
  /** st(0)…st(7), 80 bits each. */
  st: Buffer[];
  /** xmm0…xmm15, 128 bits each. */
  xmm: Buffer[];
}

export function decodeFxsave(raw: Buffer): Fpregset {
  return {
    controlWord: raw.readUInt16LE(0),
    statusWord: raw.readUInt16LE(2),
    tagWord: raw.readUInt16LE(4),
    lastOpcode: raw.readUInt16LE(6),
    lastInstruction: raw.readBigUInt64LE(8),
    lastOperand: raw.readBigUInt64LE(16),
    mxcsr: raw.readUInt32LE(24),
    mxcsrMask: raw.readUInt32LE(28),
    st: Array.from({ length: 8 }, (_, index) => raw.subarray(32 + index * 16, 42 + index * 16)),
    xmm: Array.from({ length: 16 }, (_, index) => raw.subarray(160 + index * 16, 176 + index * 16)),
  };
}

export const fpregset: KernelNote<Fpregset> = { name: 'NT_FPREGSET', owner: 'CORE', type: 2, minimumSize: 512, decode: decodeFxsave };
