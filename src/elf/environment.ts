import { Failure, ImageError } from '../failure.js';
import type { Image } from './image.js';
import { max, min } from './memory.js';

/** Arguments and environment together (binfmts.h: three quarters of _STK_LIM, 8 MiB), bytes. */
const LARGEST_STRINGS = 6 << 20;

/** NUL-separated strings. */
function split(bytes: Buffer): string[] {
  const text = bytes.toString();
  return text === '' ? [] : text.replace(/\0$/, '').split('\0');
}

/** The strings `NAME=value` that the program was started with, as its memory held them at the capture. */
export async function environmentOf(image: Image): Promise<string[]> {
  const block = await environmentBlock(image);
  // An entry that was shortened or removed in place leaves NULs behind.
  if (block) return split(block.bytes).filter((entry) => entry !== '');
  if (image.ours) return [];
  // Above the pointers to the arguments and the environment the kernel puts the auxiliary vector: its copy in the stack tells where they are.
  const pointers = await pointersBelowAuxv(image);
  const end = pointers.length - 1;
  const start = pointers.lastIndexOf(0n, end - 1) + 1;
  return strings(image, pointers.slice(start, end));
}

/** The program's arguments; null where the image does not have them in full. */
export async function argumentsOf(image: Image): Promise<string[] | null> {
  const record = image.single('image');
  if (record) return split(record.command);
  try {
    const pointers = await pointersBelowAuxv(image);
    const end = pointers.lastIndexOf(0n, pointers.length - 2);
    // argc stands below argv[0]: the place where the value equals the number of pointers behind it.
    for (let start = end - 1; start > 0; start--) {
      if (pointers[start - 1] === BigInt(end - start)) return await strings(image, pointers.slice(start, end));
    }
    return null;
  } catch (error) {
    if (error instanceof Failure) return null;
    throw error;
  }
}

/** 64-bit words in the initial stack up to the NULL before the auxiliary vector. */
async function pointersBelowAuxv(image: Image): Promise<bigint[]> {
  const note = image.notes.find((candidate) => candidate.owner === 'CORE' && candidate.type === 6);
  const inStack = image.auxvValue('AT_RANDOM') ?? image.auxvValue('AT_EXECFN');
  const vma = inStack === null ? undefined : image.vmaAt(inStack);
  const missing = (): Failure =>
    new Failure(
      `${image.source.name}: the initial stack is not in this core file; write it with the default coredump_filter, or with gcore`,
    );
  if (!note || !vma) throw missing();
  // The auxiliary vector is below these, with all the strings between at most.
  const from = max(vma.start, (inStack! - BigInt(LARGEST_STRINGS)) & -16n);
  const stack = await image.memory.read(from, Number(min(vma.end, inStack! + 4096n) - from));
  const at = stack.lastIndexOf(note.descriptor.subarray(0, Math.min(note.descriptor.length, 128)));
  if (at < 0) throw missing();
  const words: bigint[] = [];
  const first = Math.max(at % 8, at - (1 << 21));
  for (let place = first; place < at; place += 8) words.push(stack.readBigUInt64LE(place));
  return words;
}

async function strings(image: Image, pointers: readonly bigint[]): Promise<string[]> {
  const found: string[] = [];
  let size = 0;
  for (const pointer of pointers) {
    const text = await image.memory.readString(pointer, 1 << 17);
    size += text.length + 1;
    // Pointers to one long string again and again are no list that a kernel made.
    if (size > LARGEST_STRINGS) {
      throw new ImageError(image.source.name, undefined, 'arguments or environment are larger than Linux allows', 'the memory is damaged');
    }
    found.push(text);
  }
  return found;
}

/** The memory of the environment's strings. */
export interface EnvironmentBlock {
  start: bigint;
  end: bigint;
  bytes: Buffer;
  /** From the block's start, without the NUL. */
  entries: { at: number; length: number }[];
}

/** Of an image of ours; null for a foreign core. */
export async function environmentBlock(image: Image): Promise<EnvironmentBlock | null> {
  const process = image.single('process');
  if (!process || process.env_end <= process.env_start) return null;
  const { env_start: start, env_end: end } = process;
  const bytes = await image.memory.read(start, Number(end - start));
  const entries: EnvironmentBlock['entries'] = [];
  for (let at = 0; at < bytes.length;) {
    const stop = bytes.indexOf(0, at);
    const length = (stop < 0 ? bytes.length : stop) - at;
    entries.push({ at, length });
    at += length + 1;
  }
  return { start, end, bytes, entries };
}
