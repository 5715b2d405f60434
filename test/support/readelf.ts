/** What readelf and eu-readelf print of a core file, as values. */
import { execFileSync } from 'node:child_process';
import { signalNames } from '../../src/elf/signals.js';

const output = (program: string, ...argv: string[]): string =>
  execFileSync(program, argv, { encoding: 'utf8', maxBuffer: 1 << 30, env: { ...process.env, LC_ALL: 'C' } });

export interface ReadelfSegment {
  type: string;
  offset: bigint;
  address: bigint;
  fileSize: bigint;
  memorySize: bigint;
  /** `r-x` */
  protection: string;
}

/** `readelf -lW`, in file order. */
export function readelfSegments(path: string): ReadelfSegment[] {
  return [...output('readelf', '-lW', path).matchAll(/^  (\S+)\s+(0x\S+) (0x\S+) 0x\S+ (0x\S+) (0x\S+) ([R ])([W ])([E ])/gm)].map(
    ([, type, offset, address, fileSize, memorySize, ...letters]) => ({
      type: type!,
      offset: BigInt(offset!),
      address: BigInt(address!),
      fileSize: BigInt(fileSize!),
      memorySize: BigInt(memorySize!),
      protection: letters.map((letter, index) => (letter === ' ' ? '-' : 'rwx'[index])).join(''),
    }),
  );
}

export interface EuNote {
  owner: string;
  size: number;
  /** `PRSTATUS`, without the `NT_` of elf.h. */
  type: string;
  /** All `name: value` pairs, as they are printed. */
  fields: Record<string, string>;
  lines: string[];
}

/** `eu-readelf -n`, in file order. Empty for files with extended numbering: elfutils 0.188 prints nothing of these. */
export function euReadelfNotes(path: string): EuNote[] {
  const notes: EuNote[] = [];
  for (const line of output('eu-readelf', '-n', path).split('\n')) {
    const head = /^  (\S+) +(\d+)  (\S.*)$/.exec(line);
    if (head) notes.push({ owner: head[1]!, size: Number(head[2]), type: head[3]!, fields: {}, lines: [] });
    else if (line.startsWith('    ')) notes.at(-1)?.lines.push(line.trim());
  }
  for (const note of notes) {
    for (const line of note.lines) {
      // A text ends with its line; it may hold what looks like a field.
      const text = /^(?:fname: (.*?)(?:, |$))?(?:psargs: (.*))?$/.exec(line);
      if (text?.[1] !== undefined) note.fields['fname'] = text[1];
      if (text?.[2] !== undefined) note.fields['psargs'] = text[2];
      if (text?.[0]) continue;
      for (const [, name, value] of line.matchAll(/([\w.]+(?: [a-z]+)?):\s+(~?<[^>]*>|[^\s,]+)/g)) note.fields[name!] = value!;
    }
  }
  return notes;
}

/** `~<9,19,32-33>`: names of the signals in a set, as warp-tool names them. */
export function signalSet(text: string): string[] {
  let mask = 0n;
  for (const part of text.replaceAll(/[~<>]/g, '').split(',')) {
    if (part === '') continue;
    const [first, last = first] = part.split('-').map(Number);
    for (let signal = first!; signal <= last!; signal++) mask |= 1n << BigInt(signal - 1);
  }
  return signalNames(text.startsWith('~') ? BigInt.asUintN(64, ~mask) : mask);
}
