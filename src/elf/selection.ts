import { basename } from 'node:path';
import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import type { Range } from './address-space.js';
import type { Image } from './image.js';
import type { Modules } from './modules.js';
import { max, min } from './memory.js';
import { findVma, type Vma } from './vmas.js';

/** What narrows a view of memory: each given part must hold. */
export interface Selection {
  /** Any of: heap, stack, anon, file, or a glob for the area's name (without a slash: for its last part). */
  in?: readonly string[];
  /** Letters that the protection must have, or three as in /proc/PID/maps with `-` for one that must be missing. */
  protection?: string;
  range?: Range;
}

const CLASSES: Record<string, (vma: Vma) => boolean> = {
  heap: (vma) => vma.kind === 'heap',
  stack: (vma) => vma.kind === 'stack' || vma.stackOf !== null,
  anon: (vma) => vma.kind === 'anonymous' && vma.stackOf === null,
  file: (vma) => vma.kind === 'file',
};

/** The areas that a selection takes. Fails when a word of it can match nothing at all. */
export function selector(image: Image, selection: Selection): (vma: Vma) => boolean {
  const tests: ((vma: Vma) => boolean)[] = [];
  if (selection.in && selection.in.length > 0) {
    const any = selection.in.map((word) => CLASSES[word] ?? nameTest(word));
    tests.push((vma) => any.some((test) => test(vma)));
  }
  if (selection.protection !== undefined) tests.push(protectionTest(selection.protection));
  const { range } = selection;
  if (range) tests.push((vma) => vma.start < range.end && vma.end > range.start);
  const selects = (vma: Vma): boolean => tests.every((test) => test(vma));
  if (tests.length > 0 && !image.vmas().some(selects)) {
    throw new Failure(`${image.source.name}: no memory area is selected; see \`warp-tool maps\` for what there is`);
  }
  return selects;
}

function nameTest(glob: string): (vma: Vma) => boolean {
  const pattern = globPattern(glob);
  return glob.includes('/') ? (vma) => pattern.test(vma.name) : (vma) => vma.name !== '' && pattern.test(basename(vma.name));
}

/** `*` any text, `?` any character, `[…]` one of these; all else stands for itself. */
function globPattern(glob: string): RegExp {
  const source = glob.replaceAll(/\[(!?)([^\]]+)\]|[\s\S]/g, (part, not: string | undefined, set: string | undefined) => {
    if (set !== undefined && isCharacterSet(set)) return `[${not ? '^' : ''}${set.replaceAll(/[\\\]^]/g, '\\$&')}]`;
    return [...part].map((one) => (one === '*' ? '.*' : one === '?' ? '.' : one.replaceAll(/[.+^${}()|[\]\\]/g, '\\$&'))).join('');
  });
  return new RegExp(`^${source}$`, 's');
}

/** `[heap]` and `[stack]` are names of areas, not sets of characters. */
function isCharacterSet(set: string): boolean {
  return !/^(heap|stack|vdso|vvar.*|vsyscall|anon.*)$/.test(set);
}

function protectionTest(wanted: string): (vma: Vma) => boolean {
  if (!/^(?:[rwx]+|[r-][w-][x-])$/.test(wanted)) {
    throw new Failure(`--prot ${wanted} is not made of the letters r, w and x; r-x means readable and executable but not writable`);
  }
  const exact = wanted.length === 3 && wanted.includes('-');
  const bits = (wanted.includes('r') ? 1 : 0) | (wanted.includes('w') ? 2 : 0) | (wanted.includes('x') ? 4 : 0);
  return ({ protection }) => protection !== null && (exact ? protection === bits : (protection & bits) === bits);
}

/** An address: hexadecimal as `maps` prints it, with or without 0x. */
export function parseAddress(text: string): bigint {
  if (!/^(0x)?[0-9a-f]{1,16}$/i.test(text)) throw new Failure(`${text} is not an address; give hexadecimal digits, with or without 0x`);
  return BigInt(text.startsWith('0x') || text.startsWith('0X') ? text : `0x${text}`);
}

/**
 * The same place with the symbol at its beginning, if any, as an address: `main`, `main:64`, `table+0x10:8`. A symbol alone stands for all of what it
 * names. Hexadecimal digits are an address, also where they are the name of a symbol; `add+0` means the latter.
 */
export async function resolvePlace(text: string, modules: Modules): Promise<string> {
  const match = /^([a-z_.$][\w.$@:]*?)(?:\+(0x[0-9a-f]+|[0-9]+))?(:[^:]+)?$/i.exec(text);
  if (!match || /^[0-9a-f]{1,16}(?:$|[:-])/i.test(text)) return text;
  const [, name, offset, length] = match;
  const symbol = await modules.symbol(name!);
  if (!symbol)
    throw new Failure(
      `there is no symbol ${name} in the mapped files that are unchanged here; give an address as \`warp-tool maps\` prints it`,
    );
  const address = hex(symbol.address + BigInt(offset ?? 0));
  return `${address}${length ?? (offset === undefined && symbol.size > 0n ? `:${symbol.size}` : '')}`;
}

const UNITS: Record<string, bigint> = { '': 1n, k: 1n << 10n, m: 1n << 20n, g: 1n << 30n };

/** A number of bytes: decimal, with K, M or G for binary units, or hexadecimal with 0x. */
export function parseLength(text: string): bigint {
  const match = /^(?:(0x[0-9a-f]{1,16})|([0-9]{1,19})([kmg]?)(?:i?b)?)$/i.exec(text);
  const length = match ? (match[1] ? BigInt(match[1]) : BigInt(match[2]!) * UNITS[match[3]!.toLowerCase()]!) : 0n;
  if (length === 0n || length > 1n << 63n) throw new Failure(`${text} is not a number of bytes above 0; give 4096, 0x1000, 64K or 1M`);
  return length;
}

/** `A-B`, or `ADDRESS:LENGTH`; null when it is an address alone. */
export function parseRange(text: string): Range | null {
  const dash = text.indexOf('-');
  const colon = text.indexOf(':');
  if (dash < 0 && colon < 0) return null;
  const start = parseAddress(text.slice(0, dash < 0 ? colon : dash));
  const end = dash < 0 ? start + parseLength(text.slice(colon + 1)) : parseAddress(text.slice(dash + 1));
  if (end <= start) throw new Failure(`the range ${text} ends before it starts`);
  if (end > 1n << 64n) throw new Failure(`the range ${text} reaches behind the end of the address space`);
  return { start, end };
}

/** Like parseRange; an address alone means the whole area that it is in. */
export function parseRangeOrArea(text: string, image: Image): Range {
  const range = parseRange(text);
  if (range) return range;
  const address = parseAddress(text);
  const vma = findVma(image.vmas(), address);
  if (!vma) throw new Failure(`${image.source.name}: address ${text} is not mapped; see \`warp-tool maps\``);
  return { start: vma.start, end: vma.end };
}

export function intersection(a: Range, b: Range): Range | null {
  const start = max(a.start, b.start);
  const end = min(a.end, b.end);
  return start < end ? { start, end } : null;
}
