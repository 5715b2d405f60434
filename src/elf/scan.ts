import { codecIfBuilt } from '../engine/codec.js';
import { Failure } from '../failure.js';
import { readRun, type Range, type Run } from './address-space.js';
import { min } from './memory.js';
import { FileSource } from './source.js';

/** Finds things in memory that comes in windows. */
export interface Scanner {
  /** How many zeros on either side of other memory can belong to a match; below a page. */
  readonly reach: number;
  /** Whether memory of nothing but zeros can hold a match. */
  readonly matchesZeros: boolean;
  /** Of a scanner for nothing but these bytes, which native code can find in a window while others are read and scanned. */
  readonly pattern?: Buffer;
  /**
   * Reports, in ascending order, what starts at `from` or behind in the bytes up to `end`; what is before `from` is context. `final`: no memory
   * follows. `address` is that of the buffer's first byte. Returns from where bytes are needed again together with those that follow, at least
   * `end - LONGEST`.
   */
  scan(buffer: Buffer, from: number, end: number, final: boolean, found: (at: number, length: number) => void, address: bigint): number;
}

export interface Match {
  address: bigint;
  /** Bytes. */
  length: number;
  /** The match, and what follows up to PREVIEW bytes where the match is shorter. */
  bytes: Buffer;
}

export interface ScanProgress {
  /** Bytes of memory looked at, zeros and files among them. */
  searched: bigint;
  /** Bytes of the selection that cannot be had. */
  absent: bigint;
  /** Why, of the first of them. */
  reason: string | null;
}

/** Matches of regular expressions and strings are found whole up to this many bytes. */
export const LONGEST = 65_536;
/** Bytes that a match shows. */
export const PREVIEW = 64;

const WINDOW = 4 << 20;
/** Windows that are being read while one is scanned. */
const AHEAD = 3;
const CONTEXT = 256;
const HEADROOM = LONGEST + CONTEXT;
const SLACK = 4096;
/** Matches that are kept before somebody takes them. */
const MANY = 4096;
/** Runs that are so near each other in the file are read at once. */
const LARGEST_GAP = 16_384;

/** Memory that is adjacent by address and in the buffer. */
interface Piece {
  address: bigint;
  /** From the start of the batch's content, bytes. */
  at: number;
  length: number;
  /** Zeros before and behind it that are not in the buffer. */
  zerosBefore: number;
  zerosAfter: number;
  /** The next piece is adjacent and in the next batch. */
  continues: boolean;
}

/** What one read gives. */
interface Batch {
  run: Run;
  /** Address in `run` where it starts. */
  from: bigint;
  length: number;
  pieces: Piece[];
}

/** A batch on its way. */
interface Loaded {
  batch: Batch;
  /** The batch's bytes stand from HEADROOM on, as far as they are filled. */
  buffer: Buffer;
  filled: boolean;
  /** Where in its bytes the scanner's pattern begins, ascending; null when nobody has looked. */
  hits: Uint32Array | null;
}

const NO_HITS = new Uint32Array();
/** More matches in a batch than these are not read one by one. */
const FEW = 64;

async function fill(loaded: Loaded, from: number, to: number): Promise<void> {
  const { batch, buffer, filled } = loaded;
  const [start, end] = [Math.max(0, from), Math.min(batch.length, to)];
  if (!filled && start < end) await readRun(batch.run, buffer.subarray(HEADROOM + start, HEADROOM + end), batch.from + BigInt(start));
}

/** Reads a batch, or has native code look for the pattern where its bytes are, and reads only what is needed around what it finds. */
async function prepare(loaded: Loaded, pattern: Buffer | undefined): Promise<void> {
  const { batch, buffer } = loaded;
  const native = pattern ? codecIfBuilt() : null;
  const { source } = batch.run;
  const all = async (): Promise<void> => {
    await fill(loaded, 0, batch.length);
    loaded.filled = true;
  };
  const inFile = native && source instanceof FileSource && batch.length > FEW * SLACK;
  if (!inFile) await all();
  if (!native || !pattern) return;
  try {
    const found = await (inFile
      ? native.findInFile(pattern, source.fd, Number(offsetOf(batch)), batch.length)
      : native.find(pattern, buffer.subarray(HEADROOM, HEADROOM + batch.length)));
    loaded.hits = found ? new Uint32Array(found.buffer, found.byteOffset, found.length / 4) : NO_HITS;
  } catch {
    // It became shorter, or cannot be read: reading it says so.
  }
  if (!loaded.filled && (!loaded.hits || loaded.hits.length > FEW)) await all();
}

/**
 * Matches in the memory of `runs`, which ascend. The next windows are read while one is scanned. `progress` is kept up to date. Memory that is adjacent
 * by address is one text, wherever its bytes are.
 */
export async function* scanMemory(
  runs: AsyncIterable<Run>,
  scanner: Scanner,
  progress: ScanProgress = { searched: 0n, absent: 0n, reason: null },
): AsyncGenerator<Match[]> {
  const batches = plan(runs, scanner, progress);
  const buffers: Buffer[] = [];
  const load = async (index: number): Promise<Loaded | null> => {
    const { value: batch, done } = await batches.next();
    if (done) return null;
    const place = index % (AHEAD + 1);
    let buffer = buffers[place];
    const size = HEADROOM + batch.length + SLACK;
    if (!buffer || buffer.length < size) {
      // Small for small images; the next batch may be larger.
      buffer = Buffer.allocUnsafe(buffer || batch.length > WINDOW / 4 ? HEADROOM + WINDOW + SLACK : size);
      buffers[place] = buffer;
    }
    const loaded = { batch, buffer, filled: false, hits: null };
    await prepare(loaded, scanner.pattern);
    return loaded;
  };
  let carried: Carried | null = null;
  const loading: Promise<Loaded | null>[] = [];
  let started = 0;
  const begin = (): void => {
    const next = load(started++);
    next.catch(() => {}); // a failure shows when it is awaited
    loading.push(next);
  };
  try {
    while (loading.length < AHEAD) begin();
    for (;;) {
      const loaded = await loading.shift()!;
      if (!loaded) return;
      begin();
      const matches: Match[] = [];
      for (const piece of loaded.batch.pieces) {
        if (!loaded.filled) await fillAround(piece, loaded, carried, scanner.pattern!);
        progress.searched += BigInt(piece.length);
        carried = yield* scanPiece(piece, loaded, carried, scanner, matches);
      }
      yield matches;
    }
  } finally {
    // Whoever stops early closes the files next.
    await Promise.allSettled(loading);
  }
}

/** The end of memory that goes on in the next batch: of these bytes, `context` have been searched. */
interface Carried {
  bytes: Buffer;
  context: number;
}

/** Adds to `matches`, and yields them where they are many: each byte of a window can be the start of one. */
function* scanPiece(
  piece: Piece,
  { buffer, hits }: Loaded,
  carried: Carried | null,
  scanner: Scanner,
  matches: Match[],
): Generator<Match[], Carried | null> {
  const start = HEADROOM + piece.at;
  let regionStart = start;
  let context = 0;
  if (carried) {
    regionStart -= carried.bytes.length;
    carried.bytes.copy(buffer, regionStart);
    context = carried.context;
  } else {
    regionStart -= piece.zerosBefore;
    buffer.fill(0, regionStart, start);
  }
  // The bytes behind belong to the next piece and must come back.
  const end = start + piece.length;
  const paddedEnd = end + piece.zerosAfter;
  const behind = Buffer.from(buffer.subarray(end, paddedEnd));
  buffer.fill(0, end, paddedEnd);
  const region = buffer.subarray(regionStart, paddedEnd);
  const regionAddress = piece.address + BigInt(regionStart - start);
  const starts: number[] = [];
  const lengths: number[] = [];
  const found = (at: number, length: number): void => {
    starts.push(at);
    lengths.push(length);
  };
  const resume = hits
    ? takeHits(piece, hits, region, start - regionStart, context, scanner, found)
    : scanner.scan(region, context, region.length, !piece.continues, found, regionAddress);
  for (const [index, at] of starts.entries()) {
    const length = lengths[index]!;
    const bytes = Buffer.from(region.subarray(at, at + Math.max(length, PREVIEW)));
    matches.push({ address: regionAddress + BigInt(at), length, bytes });
    if (matches.length >= MANY) yield matches.splice(0);
  }
  behind.copy(buffer, end);
  if (!piece.continues) return null;
  const keep = Math.max(0, resume - CONTEXT);
  return { bytes: Buffer.from(region.subarray(keep)), context: resume - keep };
}

/** Matches of a piece whose bytes have been searched: `hits`, and those that reach over its borders. `before`: bytes of the region before the piece. */
function takeHits(
  piece: Piece,
  hits: Uint32Array,
  region: Buffer,
  before: number,
  context: number,
  { pattern, scan }: Scanner,
  found: (at: number, length: number) => void,
): number {
  const { length } = pattern!;
  const search = (from: number, end: number): void => void scan(region, from, Math.min(end, region.length), true, found, 0n);
  if (before > context) search(context, before + length - 1);
  for (let index = firstFrom(hits, piece.at); index < hits.length && hits[index]! + length <= piece.at + piece.length; index++)
    found(before + hits[index]! - piece.at, length);
  if (piece.zerosAfter > 0) search(before + Math.max(0, piece.length - length + 1), region.length);
  return Math.max(context, region.length - length + 1);
}

/** Reads what takeHits needs of a piece: its edges where other memory is adjacent, and what matches show. */
async function fillAround(piece: Piece, loaded: Loaded, carried: Carried | null, { length }: Buffer): Promise<void> {
  const end = piece.at + piece.length;
  const hits = loaded.hits!;
  if (carried || piece.zerosBefore > 0) await fill(loaded, piece.at, Math.min(end, piece.at + length + PREVIEW));
  if (piece.continues || piece.zerosAfter > 0) await fill(loaded, Math.max(piece.at, end - CONTEXT - length), end);
  for (let index = firstFrom(hits, piece.at); index < hits.length && hits[index]! < end; index++)
    await fill(loaded, hits[index]!, Math.min(end, hits[index]! + Math.max(length, PREVIEW)));
}

/** Index of the first of ascending numbers that is no less than `least`. */
function firstFrom(numbers: Uint32Array, least: number): number {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (numbers[middle]! < least) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function* plan(runs: AsyncIterable<Run>, scanner: Scanner, progress: ScanProgress): AsyncGenerator<Batch> {
  let batch: Batch | null = null;
  let last: Piece | null = null;
  /** Zeros that end at the next run. */
  let zeros = { end: -1n, length: 0 };
  for await (const run of runs) {
    const length = run.end - run.start;
    if (run.from === 'absent') {
      if (run.vma.kind === 'vvar') continue; // the kernel's, and no part of any image
      progress.absent += length;
      progress.reason ??= run.reason;
      continue;
    }
    if (run.from === 'zero' && !scanner.matchesZeros && length >= BigInt(scanner.reach)) {
      if (last && last.address + BigInt(last.length) === run.start) last.zerosAfter = scanner.reach;
      zeros = { end: run.end, length: scanner.reach };
      progress.searched += length;
      continue;
    }
    for (let at = run.start; at < run.end;) {
      const offset = run.offset + (at - run.start);
      const place: number = batch && run.source === batch.run.source && run.source ? Number(offset - offsetOf(batch)) : -1;
      const fits: boolean = batch !== null && place >= batch.length && place - batch.length <= LARGEST_GAP && place < WINDOW;
      const adjacent: boolean = last !== null && last.address + BigInt(last.length) === at;
      if (!fits || (adjacent && place !== batch!.length)) {
        if (batch) {
          last!.continues = adjacent;
          yield batch;
        }
        batch = { run, from: at, length: 0, pieces: [] };
        last = null;
      }
      const room: number = WINDOW - (fits && last ? place : batch!.length);
      const take = Number(min(BigInt(room), run.end - at));
      if (adjacent && last) {
        last.length += take;
      } else {
        const before = zeros.end === at ? zeros.length : 0;
        last = { address: at, at: last ? place : 0, length: take, zerosBefore: before, zerosAfter: 0, continues: false };
        batch!.pieces.push(last);
      }
      batch!.length = last.at + last.length;
      at += BigInt(take);
    }
  }
  if (batch) yield batch;
}

function offsetOf(batch: Batch): bigint {
  return batch.run.offset + (batch.from - batch.run.start);
}

/** Places of some bytes; matches may overlap, as in GDB's `find`. */
export function bytesScanner(pattern: Buffer): Scanner {
  if (pattern.length === 0) throw new Failure('there is nothing to search for: the pattern is empty');
  if (pattern.length > SLACK) throw new Failure(`a pattern of ${pattern.length} bytes is too long; ${SLACK} is the most`);
  return {
    reach: pattern.length - 1,
    matchesZeros: pattern.every((byte) => byte === 0),
    pattern,
    scan(buffer, from, end, final, found) {
      const bytes = buffer.subarray(0, end);
      for (let at = bytes.indexOf(pattern, from); at >= 0; at = bytes.indexOf(pattern, at + 1)) found(at, pattern.length);
      return final ? end : Math.max(from, end - pattern.length + 1);
    },
  };
}

const POINTER = 8;

/** Pointers, at addresses that are multiples of their size, to anything from `start` up to `end`. */
export function pointerScanner({ start, end }: Range): Scanner {
  const [firstHigh, lastHigh] = [Number(start >> 32n), Number((end - 1n) >> 32n)];
  return {
    reach: POINTER - 1,
    matchesZeros: start === 0n,
    scan(buffer, from, limit, final, found, address) {
      let at = from + Number(-(address + BigInt(from)) & BigInt(POINTER - 1));
      for (; at + POINTER <= limit; at += POINTER) {
        const high = buffer.readUInt32LE(at + 4);
        if (high < firstHigh || high > lastHigh) continue;
        const value = (BigInt(high) << 32n) | BigInt(buffer.readUInt32LE(at));
        if (value >= start && value < end) found(at, POINTER);
      }
      return final ? limit : Math.min(at, limit);
    },
  };
}

/**
 * Matches of a regular expression over bytes: characters of the pattern beyond ASCII stand for their UTF-8 bytes, `.` for any byte but line ends,
 * `^` and `$` for the ends of lines.
 */
export function regexScanner(pattern: string, ignoreCase = false): Scanner {
  let expression: RegExp;
  try {
    expression = new RegExp(Buffer.from(pattern).toString('latin1'), ignoreCase ? 'gmi' : 'gm');
  } catch (error) {
    throw new Failure(`--regex ${pattern}: ${(error as Error).message.replace(/^Invalid regular expression: /, '')}`, { cause: error });
  }
  const matches = (text: string): boolean => {
    expression.lastIndex = 0;
    return expression.test(text);
  };
  if (matches('')) throw new Failure(`--regex ${pattern} matches the empty text, so it matches everywhere; require at least one character`);
  const reach = 256;
  return {
    reach,
    matchesZeros: matches('\0'.repeat(2 * reach)),
    scan(buffer, from, end, final, found) {
      const text = buffer.toString('latin1', 0, end);
      const limit = final ? end : Math.max(from, end - LONGEST);
      let resume = from;
      expression.lastIndex = from;
      for (let match = expression.exec(text); match && match.index < limit; match = expression.exec(text)) {
        if (match[0].length === 0) {
          expression.lastIndex++;
          continue;
        }
        found(match.index, match[0].length);
        resume = match.index + match[0].length;
      }
      return Math.max(resume, limit);
    },
  };
}

/** Text, as UTF-8 or UTF-16. */
export function textScanner(text: string, encoding: Encoding = 'ascii', ignoreCase = false): Scanner {
  const bytes = Buffer.from(text, encoding === 'utf-16' ? 'utf16le' : 'utf8');
  if (!ignoreCase || bytes.length === 0) return bytesScanner(bytes);
  const escaped = [...bytes.toString('latin1')].map((one) =>
    /[\w ]/.test(one) ? one : `\\x${one.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
  return regexScanner(escaped.join(''), true);
}

export type Encoding = 'ascii' | 'utf-16';

const PRINTABLE = Uint8Array.from({ length: 256 }, (_, byte) => ((byte >= 0x20 && byte <= 0x7e) || byte === 9 ? 1 : 0));

/** Printable ASCII characters, at least `least` in a row; as UTF-16 (little-endian, at even and odd addresses) with a zero byte behind each. */
export function stringsScanner(least = 4, encoding: Encoding = 'ascii'): Scanner {
  return { reach: encoding === 'ascii' ? 0 : 1, matchesZeros: false, scan: encoding === 'ascii' ? scanAscii(least) : scanUtf16(least) };
}

function scanAscii(least: number): Scanner['scan'] {
  return (buffer, from, end, final, found) => {
    // No string starts before `at`. A byte that is none, `least` further on, rules out all starts up to it.
    for (let at = from; ;) {
      let probe = at + least - 1;
      if (probe >= end) {
        if (final) return end;
        // The bytes that are left may begin a string.
        for (let place = end - 1; place >= at; place--) if (!PRINTABLE[buffer[place]!]) return place + 1;
        return at;
      }
      while (probe >= at && PRINTABLE[buffer[probe]!]) probe--;
      if (probe >= at) {
        at = probe + 1;
        continue;
      }
      let stop = at + least;
      while (stop < end && PRINTABLE[buffer[stop]!]) stop++;
      if (stop === end && !final && stop - at < LONGEST) return at;
      found(at, stop - at);
      at = stop;
    }
  };
}

function scanUtf16(least: number): Scanner['scan'] {
  return (buffer, from, end, final, found) => {
    let at = from;
    while (at + 1 < end) {
      if (buffer[at + 1] !== 0 || !PRINTABLE[buffer[at]!]) {
        at++;
        continue;
      }
      let stop = at + 2;
      while (stop + 1 < end && buffer[stop + 1] === 0 && PRINTABLE[buffer[stop]!]) stop += 2;
      if (stop + 1 >= end && !final && stop - at < LONGEST) return at;
      if (stop - at >= 2 * least) found(at, stop - at);
      at = stop;
    }
    return final ? end : at;
  };
}
