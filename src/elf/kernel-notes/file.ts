import type { KernelNote } from './types.js';

/** A file mapping as NT_FILE lists it (fs/binfmt_elf.c, fill_files_note). */
export interface MappedFile {
  start: bigint;
  end: bigint;
  /** In the file, bytes. */
  offset: bigint;
  path: string;
}

export const file: KernelNote<MappedFile[]> = {
  name: 'NT_FILE',
  owner: 'CORE',
  type: 0x46494c45,
  minimumSize: 16,
  decode: (raw) => {
    const count = Number(raw.readBigUInt64LE(0));
    const pageSize = raw.readBigUInt64LE(8);
    const entries: MappedFile[] = [];
    let nameAt = 16 + count * 24;
    for (let index = 0; index < count && nameAt < raw.length; index++) {
      const end = raw.indexOf(0, nameAt);
      if (end < 0) break;
      const at = 16 + index * 24;
      entries.push({
        start: raw.readBigUInt64LE(at),
        end: raw.readBigUInt64LE(at + 8),
        offset: raw.readBigUInt64LE(at + 16) * pageSize,
        path: raw.toString('utf8', nameAt, end),
      });
      nameAt = end + 1;
    }
    return entries;
  },
};
