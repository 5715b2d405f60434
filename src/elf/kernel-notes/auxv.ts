import type { KernelNote } from './types.js';

/** An entry of the auxiliary vector (getauxval(3), linux/auxvec.h and asm/auxvec.h). */
export interface AuxvEntry {
  type: number;
  /** `AT_…`, or the number. */
  name: string;
  value: bigint;
}

export const AUXV_NAMES: Record<number, string> = {
  2: 'AT_EXECFD',
  3: 'AT_PHDR',
  4: 'AT_PHENT',
  5: 'AT_PHNUM',
  6: 'AT_PAGESZ',
  7: 'AT_BASE',
  8: 'AT_FLAGS',
  9: 'AT_ENTRY',
  10: 'AT_NOTELF',
  11: 'AT_UID',
  12: 'AT_EUID',
  13: 'AT_GID',
  14: 'AT_EGID',
  15: 'AT_PLATFORM',
  16: 'AT_HWCAP',
  17: 'AT_CLKTCK',
  23: 'AT_SECURE',
  24: 'AT_BASE_PLATFORM',
  25: 'AT_RANDOM',
  26: 'AT_HWCAP2',
  27: 'AT_RSEQ_FEATURE_SIZE',
  28: 'AT_RSEQ_ALIGN',
  29: 'AT_HWCAP3',
  30: 'AT_HWCAP4',
  31: 'AT_EXECFN',
  32: 'AT_SYSINFO',
  33: 'AT_SYSINFO_EHDR',
  51: 'AT_MINSIGSTKSZ',
};

export const auxv: KernelNote<AuxvEntry[]> = {
  name: 'NT_AUXV',
  owner: 'CORE',
  type: 6,
  minimumSize: 0,
  decode: (raw) => {
    const entries: AuxvEntry[] = [];
    for (let at = 0; at + 16 <= raw.length; at += 16) {
      const type = Number(raw.readBigUInt64LE(at));
      if (type === 0) break; // AT_NULL
      entries.push({ type, name: AUXV_NAMES[type] ?? String(type), value: raw.readBigUInt64LE(at + 8) });
    }
    return entries;
  },
};
