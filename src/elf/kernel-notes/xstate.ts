import { decodeFxsave, type Fpregset } from './fpregset.js';
import type { KernelNote } from './types.js';
import type { XsaveComponent } from './xsave-layout.js';

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

const AVX = 2;
const OPMASK = 5;
const ZMM_HI256 = 6;
const HI16_ZMM = 7;
const PKRU = 9;
const XCR0_OFFSET = 464;
const HEADER_OFFSET = 512;
const SMALLEST = 576;

/**
 * Offsets are CPUID's to tell. A core file without NT_X86_XSAVE_LAYOUT does not carry them: they follow from the size and the vendors' known
 * layouts, as GDB 14 does it (gdb/i387-tdep.c). 2440 and 968 bytes are AMD's, which leaves no gap for MPX; everything else is Intel's.
 */
function knownOffsets(size: number): Map<number, number> {
  if (size === 968)
    return new Map([
      [AVX, 576],
      [PKRU, 960],
    ]);
  if (size === 2440)
    return new Map([
      [AVX, 576],
      [OPMASK, 832],
      [ZMM_HI256, 896],
      [HI16_ZMM, 1408],
      [PKRU, 2432],
    ]);
  return new Map([
    [AVX, 576],
    [OPMASK, 1088],
    [ZMM_HI256, 1152],
    [HI16_ZMM, 1664],
    [PKRU, 2688],
  ]);
}

/** `layout` is the core file's NT_X86_XSAVE_LAYOUT. */
export function decodeXstate(raw: Buffer, layout: readonly XsaveComponent[] | null): Xstate {
  const xcr0 = raw.readBigUInt64LE(XCR0_OFFSET);
  const xstateBv = raw.readBigUInt64LE(HEADER_OFFSET);
  const offsets = layout ? new Map(layout.map(({ feature, offset }) => [feature, offset])) : knownOffsets(raw.length);
  const legacy = decodeFxsave(raw);
  const has = (bits: bigint, bit: number): boolean => ((bits >> BigInt(bit)) & 1n) === 1n;
  // A component in its initial state is all zeros whatever its bytes say.
  const part = (bit: number, size: number): Buffer => {
    const offset = offsets.get(bit);
    return offset !== undefined && has(xstateBv, bit) && offset + size <= raw.length
      ? raw.subarray(offset, offset + size)
      : Buffer.alloc(size);
  };
  const high = pieces(part(AVX, 256), 16);
  const ymm = has(xcr0, AVX) ? legacy.xmm.map((low, index) => Buffer.concat([low, high[index]!])) : null;
  const avx512 = ymm && has(xcr0, OPMASK) && has(xcr0, ZMM_HI256) && has(xcr0, HI16_ZMM);
  const upper = pieces(part(ZMM_HI256, 512), 32);
  return {
    xcr0,
    xstateBv,
    legacy,
    ymm,
    opmask: avx512 ? pieces(part(OPMASK, 64), 8).map((register) => register.readBigUInt64LE()) : null,
    zmm: avx512 ? [...ymm.map((low, index) => Buffer.concat([low, upper[index]!])), ...pieces(part(HI16_ZMM, 1024), 64)] : null,
    pkru: has(xcr0, PKRU) ? part(PKRU, 4).readUInt32LE() : null,
  };
}

function pieces(whole: Buffer, size: number): Buffer[] {
  return Array.from({ length: whole.length / size }, (_, index) => whole.subarray(index * size, (index + 1) * size));
}

export const xstate: KernelNote<Xstate> = {
  name: 'NT_X86_XSTATE',
  owner: 'LINUX',
  type: 0x202,
  minimumSize: SMALLEST,
  decode: (raw) => decodeXstate(raw, null),
};
