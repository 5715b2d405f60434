import { createContext, Script } from 'node:vm';
import type { Range } from '../elf/address-space.js';
import type { Image } from '../elf/image.js';
import {
  bytesScanner,
  LONGEST,
  pointerScanner,
  regexScanner,
  scanMemory,
  textScanner,
  type Match,
  type Scanner,
  type ScanProgress,
} from '../elf/scan.js';
import { parseAddress, parseRange } from '../elf/selection.js';
import { Failure } from '../failure.js';
import { WORD, wordAt } from './layout.js';
import { PatientSpace, type Patience } from './patience.js';
import type { SearchMode } from './state.js';

/** More matches are not kept: a search for a zero byte must not fill this program's memory. */
const MOST_MATCHES = 100_000;
/** How long one window of memory may keep the keyboard waiting, in milliseconds: some regular expressions take for ever. */
const LONGEST_SCAN = 10_000;

/** The matches of one search, by address; it may still be running. */
export class Matches {
  /** Below the address where the search began, and from there on; each ascends. */
  private readonly below: Match[] = [];
  private readonly above: Match[] = [];
  state: 'running' | 'complete' | 'full' | 'stopped' = 'running';
  /** Bytes that could not be searched, and why. */
  absent = 0n;
  reason: string | null = null;

  constructor(
    readonly pattern: string,
    readonly mode: SearchMode,
    private readonly from: bigint,
  ) {}

  get count(): number {
    return this.below.length + this.above.length;
  }

  at(index: number): Match {
    return index < this.below.length ? this.below[index]! : this.above[index - this.below.length]!;
  }

  /** False when there is no room for more. */
  add(match: Match): boolean {
    if (this.count >= MOST_MATCHES) return false;
    (match.address < this.from ? this.below : this.above).push(match);
    return true;
  }

  /** Index of the first match at or behind `address`; `count` when there is none. */
  indexFrom(address: bigint): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.at(middle).address < address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The match that covers the byte at `address`. */
  covering(address: bigint): Match | undefined {
    // Matches of a byte pattern may overlap, but not reach over one that begins behind their end.
    for (let index = this.indexFrom(address + 1n) - 1, steps = 0; index >= 0 && steps < 64; index--, steps++) {
      const match = this.at(index);
      if (address < match.address + BigInt(match.length)) return match;
    }
    return undefined;
  }
}

/** What finds `pattern`; a Failure when it means nothing in this mode. */
export function scannerFor(pattern: string, mode: SearchMode, longest = LONGEST_SCAN): Scanner {
  switch (mode) {
    case 'bytes': {
      const digits = pattern.replaceAll(/\s|^0x/gi, '');
      if (!/^([0-9a-f]{2})+$/i.test(digits)) throw new Failure(`${pattern} is not made of pairs of hexadecimal digits`);
      return bytesScanner(Buffer.from(digits, 'hex'));
    }
    case 'pointers to': {
      const word = (address: bigint): Range => ({ start: wordAt(address), end: wordAt(address) + WORD });
      return pointerScanner(parseRange(pattern) ?? word(parseAddress(pattern)));
    }
    case 'regular expression':
      return interruptible(regexScanner(pattern), pattern, longest);
    default:
      return textScanner(pattern, mode === 'UTF-16 text' ? 'utf-16' : 'ascii', mode === 'text, any case');
  }
}

/** A scanner that gives up where matching one window takes for ever: nothing else can stop a regular expression. */
function interruptible(scanner: Scanner, pattern: string, timeout: number): Scanner {
  const script = new Script('scan()');
  const context: { scan?: () => number } = createContext({});
  return {
    ...scanner,
    scan(...parameters) {
      try {
        context.scan = () => scanner.scan(...parameters);
        return script.runInContext(context, { timeout }) as number;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
        throw new Failure(`the expression ${pattern} takes too long on this memory; make it simpler`, { cause: error });
      }
    },
  };
}

export interface SearchOptions {
  /** Where to begin; what is before comes last. */
  from: bigint;
  patience: Patience;
  /** Told of every piece that was searched: bytes of address space. */
  progress: (done: number, total: number) => void;
}

/** Searches all memory and fills `matches` until it is through or `matches` is full. Throws Stopped when it was stopped. */
export async function search(image: Image, scanner: Scanner, matches: Matches, { from, patience, progress }: SearchOptions): Promise<void> {
  const space = new PatientSpace(image, patience);
  const total = image.vmas().reduce((sum, { start, end }) => sum + Number(end - start), 0);
  const status: ScanProgress = { searched: 0n, absent: 0n, reason: null };
  // The second part reaches over the beginning: a match may lie across it.
  const parts: Range[] = [
    { start: from, end: 1n << 64n },
    { start: 0n, end: from + BigInt(LONGEST) },
  ];
  try {
    for (const [index, part] of parts.entries()) {
      for await (const found of scanMemory(space.runs(part), scanner, status)) {
        for (const match of found) {
          if (index === 1 && match.address >= from) break;
          if (!matches.add(match)) {
            matches.state = 'full';
            return;
          }
        }
        progress(Number(status.searched + status.absent), total);
        await patience.turn();
      }
    }
    matches.state = 'complete';
  } finally {
    if (matches.state === 'running') matches.state = 'stopped';
    matches.absent = status.absent;
    matches.reason = status.reason;
    await space.close();
  }
}
