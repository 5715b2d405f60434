import { cString, type KernelNote } from './types.js';

/** struct elf_prpsinfo of a 64-bit kernel (linux/elfcore.h). */
export interface Prpsinfo {
  /** Letter of the process's state, as ps shows it. */
  state: string;
  /** Its number: the letter's place in the kernel's "RSDTtXZPI". */
  stateNumber: number;
  zombie: boolean;
  nice: number;
  flags: bigint;
  uid: number;
  gid: number;
  pid: number;
  parentPid: number;
  processGroup: number;
  session: number;
  /** At most 15 bytes. */
  name: string;
  /** At most 79 bytes; the kernel puts spaces between arguments. */
  arguments: string;
}

export const prpsinfo: KernelNote<Prpsinfo> = {
  name: 'NT_PRPSINFO',
  owner: 'CORE',
  type: 3,
  minimumSize: 136,
  decode: (raw) => ({
    state: String.fromCodePoint(raw[1]!),
    stateNumber: raw[0]!,
    zombie: raw[2] !== 0,
    nice: raw.readInt8(3),
    flags: raw.readBigUInt64LE(8),
    uid: raw.readUInt32LE(16),
    gid: raw.readUInt32LE(20),
    pid: raw.readInt32LE(24),
    parentPid: raw.readInt32LE(28),
    processGroup: raw.readInt32LE(32),
    session: raw.readInt32LE(36),
    name: cString(raw.subarray(40, 56)),
    arguments: cString(raw.subarray(56, 136)).trimEnd(),
  }),
};
