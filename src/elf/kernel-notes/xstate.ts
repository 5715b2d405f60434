import { decodeFxsave, type Fpregset } from './fpregset.js';
import type { KernelNote } from './types.js';

/** XSAVE state components by bit of XCR0 (Intel SDM volume 1, 13.1). */
export const XSTATE_FEATURES: Record<number, string> = {
  0: 'x87',
  1: 'sse',
  2: 'avx',
  3: 'bndregs',
  4: 'bndcsr',
  5: 'opmask',
  6: 'zmm_hi256',
  7: 'hi16_zmm',
  8: 'pt',
  9: 'pkru',
  10: 'pasid',
  11: 'cet_user',
  12: 'cet_supervisor',
  17: 'xtilecfg',
  18: 'xtiledata',
  19: 'apx',
};

/** Names of the components in an XCR0 or XSTATE_BV value. */
export function xstateFeatureNames(bits: bigint): string[] {
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++) if ((bits >> BigInt(bit)) & 1n) found.push(XSTATE_FEATURES[bit] ?? `bit${bit}`);
  return found;
}

/** An XSAVE area in standard format, as ptrace(2) and core files hold it. */
export interface Xstate {
  /** Components that the system had enabled (XCR0, kept in the bytes that are free for software). */
  xcr0: bigint;
  /** Components that are not in their initial state. */
  xstateBv: bigint;
  legacy: Fpregset;
  /** ymm0…ymm15, 256 bits each, when AVX is enabled. */
  ymm: Buffer[] | null;
  /** k0…k7 when AVX-512 is enabled. */
  opmask: bigint[] | null;
  /** zmm0…zmm31, 512 bits each, when AVX-512 is enabled. */
  zmm: Buffer[] | null;
  pkru: number | null;
}

interface Layout {
  avx: number;
  opmask?: number;
  zmmHi256?: number;
  hi16Zmm?: number;
  pkru?: number;
}

const XCR0_OFFSET = 464;
const HEADER_OFFSET = 512;
const SMALLEST = 576;

/**
 * Offsets are CPUID's to tell, and core files do not carry them: they follow from the size and the vendor's known layouts, as GDB does it
 * (gdb/i387-tdep.c). 2440 and 968 bytes are AMD's, which leave no gap for MPX; everything else is Intel's.
 */
function layoutFor(size: number, xcr0: bigint): Layout {
  const amd = size === 2440 || size === 968 || (size > 2440 && size < 2688 && (xcr0 & 0x18n) === 0n);
  if (size === 968) return { avx: 576, pkru: 960 };
  if (amd) return { avx: 576, opmask: 832, zmmHi256: 896, hi16Zmm: 1408, pkru: 2432 };
  return { avx: 576, opmask: 1088, zmmHi256: 1152, hi16Zmm: 1664, pkru: 2688 };
}

export const xstate: KernelNote<Xstate> = {
  name: 'NT_X86_XSTATE',
  owner: 'LINUX',
  type: 0x202,
  minimumSize: SMALLEST,
  decode: (raw) => {
    const xcr0 = raw.readBigUInt64LE(XCR0_OFFSET);
    const xstateBv = raw.readBigUInt64LE(HEADER_OFFSET);
    const layout = layoutFor(raw.length, xcr0);
    const legacy = decodeFxsave(raw);
    const enabled = (bit: number): boolean => ((xcr0 >> BigInt(bit)) & 1n) === 1n;
    // A component in its initial state is all zeros whatever its bytes say.
    const part = (bit: number, offset: number | undefined, size: number): Buffer =>
      offset !== undefined && ((xstateBv >> BigInt(bit)) & 1n) === 1n && offset + size <= raw.length
        ? raw.subarray(offset, offset + size)
        : Buffer.alloc(size);
    const pieces = (whole: Buffer, size: number): Buffer[] =>
      Array.from({ length: whole.length / size }, (_, index) => whole.subarray(index * size, (index + 1) * size));

    const high = pieces(part(2, layout.avx, 256), 16);
    const ymm = enabled(2) ? legacy.xmm.map((low, index) => Buffer.concat([low, high[index]!])) : null;
    const avx512 = ymm && enabled(5) && enabled(6) && enabled(7);
    const upper = pieces(part(6, layout.zmmHi256, 512), 32);
    return {
      xcr0,
      xstateBv,
      legacy,
      ymm,
      opmask: avx512 ? pieces(part(5, layout.opmask, 64), 8).map((register) => register.readBigUInt64LE()) : null,
      zmm: avx512 ? [...ymm.map((low, index) => Buffer.concat([low, upper[index]!])), ...pieces(part(7, layout.hi16Zmm, 1024), 64)] : null,
      pkru: enabled(9) ? part(9, layout.pkru, 4).readUInt32LE() : null,
    };
  },
};
