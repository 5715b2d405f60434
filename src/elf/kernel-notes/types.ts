/** One kind of note that the kernel (and gcore) writes. To add one: a file beside this, its line in index.ts, a test. */
export interface KernelNote<T> {
  /** Standard name, as elf.h spells it. */
  name: string;
  owner: 'CORE' | 'LINUX';
  type: number;
  /** Bytes that a descriptor must at least have. */
  minimumSize: number;
  /** Decodes a descriptor of at least `minimumSize` bytes. */
  decode: (descriptor: Buffer) => T;
}

/** Bytes up to the first NUL, as text. */
export function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}
