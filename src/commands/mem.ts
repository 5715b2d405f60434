import { open, rm, type FileHandle } from 'node:fs/promises';
import { Args, Flags } from '@oclif/core';
import { AddressSpace, areaName, readRun, type PointerTarget, type Range, type Run } from '../elf/address-space.js';
import type { Image } from '../elf/image.js';
import { min } from '../elf/memory.js';
import {
  bytesScanner,
  pointerScanner,
  regexScanner,
  scanMemory,
  stringsScanner,
  textScanner,
  type Encoding,
  type Match,
  type ScanProgress,
  type Scanner,
} from '../elf/scan.js';
import { intersection, parseAddress, parseRange, parseRangeOrArea, resolvePlace, selector, type Selection } from '../elf/selection.js';
import { bytesOfValue, valueTypes, type ValueTypeName } from '../elf/values.js';
import { findVma, protectionText, type Vma } from '../elf/vmas.js';
import { Failure, systemErrorReason } from '../failure.js';
import { hex } from '../hex.js';
import { mem } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { bytes, count, printable } from '../terminal/format.js';
import { hexdump } from '../terminal/hexdump.js';
import { Output } from '../terminal/output.js';
import { Progress } from '../terminal/progress.js';
import { areaOf, targetOf, targetText } from './areas.js';
import { DocumentCommand, imageArgument } from './base.js';
import { keyFlags } from './keys.js';

type Document = Static<typeof mem>;
type DumpPart = NonNullable<Document['dump']>[number];

const DEFAULT_LENGTH = 256n;
const PIECE = 1n << 20n;
const LARGEST_JSON_DUMP = 64n << 20n;
const LONGEST_STRING = 1 << 20;

export default class Mem extends DocumentCommand {
  static override summary = 'Show, search and extract memory.';
  static override description = [
    'ADDRESS is hexadecimal as `maps` prints it, or a symbol of the mapped files (main, table+0x10); LENGTH in bytes (4096, 0x1000, 64K, 1M). With one of',
    '--search, --text, --regex, --value, --points-to and --strings the memory is searched, also across the borders of adjacent areas; the exit status',
    'is then 1 when nothing is found. Memory that the image does not store is read from its mapped file when that is still the file that was mapped.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> mem /tmp/image 7ffd1000:256',
    '<%= config.bin %> mem /tmp/image 7ffd1000:64 --as ptr',
    '<%= config.bin %> mem /tmp/image environ --as ptr',
    '<%= config.bin %> mem /tmp/image --text "BEGIN PRIVATE KEY" --in heap --in anon',
    '<%= config.bin %> mem /tmp/image --regex "session=[0-9a-f]{32}" -c 64',
    '<%= config.bin %> mem /tmp/image --points-to 7f0000001000:64',
    '<%= config.bin %> mem /tmp/image --value 8080 --as u16 --in heap',
    '<%= config.bin %> mem /tmp/image --strings --min-length 8 --in "*.so*"',
    '<%= config.bin %> mem core.1234 --extract 7f0000000000-7f0000100000 -o part.bin',
  ];
  static override args = {
    image: imageArgument,
    address: Args.string({ description: 'What to show: ADDRESS, ADDRESS:LENGTH, FROM-TO or SYMBOL.', ignoreStdin: true }),
  };
  static override flags = {
    ...keyFlags,
    as: Flags.option({
      options: Object.keys(valueTypes) as ValueTypeName[],
      description: 'Show values of this type instead of bytes; pointers with what they point to. Also the type of --value.',
    })(),
    'all-rows': Flags.boolean({ description: 'Print every row also where many are equal.' }),
    search: Flags.string({ description: 'Find these bytes.', helpValue: 'HEX' }),
    text: Flags.string({ description: 'Find this text.', helpValue: 'TEXT' }),
    regex: Flags.string({ description: 'Find matches of a regular expression over bytes, each up to 64 KiB.', helpValue: 'RE' }),
    value: Flags.string({ description: 'Find this number, of the type --as (u64 without it).', helpValue: 'NUMBER' }),
    'points-to': Flags.string({
      description: 'Find aligned pointers to ADDRESS, into ADDRESS:LENGTH or FROM-TO, or to SYMBOL.',
      helpValue: 'RANGE',
    }),
    strings: Flags.boolean({ description: 'Find printable text, like strings(1).' }),
    'ignore-case': Flags.boolean({ char: 'i', description: 'With --text and --regex.' }),
    encoding: Flags.option({ options: ['ascii', 'utf-16'] as const, default: 'ascii', description: 'With --text and --strings.' })(),
    'min-length': Flags.integer({ char: 'n', default: 4, min: 1, max: 4096, description: 'Of --strings, in characters.' }),
    context: Flags.integer({ char: 'c', min: 1, max: 65_536, description: 'Show so many bytes around each match.', helpValue: 'BYTES' }),
    limit: Flags.integer({ min: 1, description: 'Stop after so many matches, and say so.', helpValue: 'N' }),
    extract: Flags.string({
      description: 'Write the memory of ADDRESS:LENGTH, FROM-TO, or of the area that ADDRESS is in, to --output.',
      helpValue: 'RANGE',
    }),
    output: Flags.string({ char: 'o', description: 'File for --extract.', helpValue: 'FILE' }),
    in: Flags.string({
      multiple: true,
      multipleNonGreedy: true,
      description: 'Only heap, stack, anon, file, or areas whose name matches this glob; may be given again.',
      helpValue: 'WHAT',
    }),
    prot: Flags.string({ description: 'Only areas with these protection letters; r-x: with exactly these.', helpValue: 'RWX' }),
    range: Flags.string({ description: 'Only addresses in FROM-TO or ADDRESS:LENGTH.', helpValue: 'RANGE' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Mem);
    const modes = ['search', 'text', 'regex', 'value', 'points-to', 'strings', 'extract'] as const;
    const given: string[] = modes.filter((mode) => flags[mode] !== undefined && flags[mode] !== false).map((mode) => `--${mode}`);
    if (args.address !== undefined) given.unshift('ADDRESS');
    const selects = flags.in !== undefined || flags.prot !== undefined || flags.range !== undefined;
    if (given.length > 1) throw new Failure(`${given.join(' and ')} exclude each other; see \`warp-tool mem --help\``);
    if (flags.as !== undefined && args.address === undefined && flags.value === undefined)
      throw new Failure('--as needs an ADDRESS or --value');
    if (given.length === 0 && !selects) {
      throw new Failure(
        'nothing to show: give an ADDRESS, --search, --text, --regex, --value, --points-to, --strings, --extract, or --in; see `warp-tool mem --help`',
      );
    }
    if ((flags.extract === undefined) !== (flags.output === undefined)) throw new Failure('--extract RANGE and --output FILE go together');
    const early = scannerOf(flags);
    if (flags.context !== undefined && !early && flags['points-to'] === undefined)
      throw new Failure('--context needs something to search for');

    await this.withImage(args.image, flags, async (image) => {
      const space = new AddressSpace(image);
      const document: Document = {
        image: image.source.name,
        warnings: image.warnings,
        dump: null,
        values: null,
        search: null,
        extract: null,
      };
      const view: View = { image, space, document, json: flags.json ?? false };
      if (!view.json) for (const warning of image.warnings) this.warnUser(`${printable(args.image)}: ${warning}`);
      try {
        const place = (text: string): Promise<string> => resolvePlace(text, space.modules);
        const selection: Selection = {
          in: flags.in,
          protection: flags.prot,
          range: flags.range === undefined ? undefined : rangeOf(await place(flags.range)),
        };
        const target = flags['points-to'] === undefined ? null : await place(flags['points-to']);
        const scanner = early ?? (target === null ? null : pointerScanner(parseRange(target) ?? oneByte(parseAddress(target))));
        const address = args.address === undefined ? undefined : await place(args.address);
        if (scanner) await this.search(view, selection, scanner, flags);
        else if (flags.extract !== undefined) await this.extract(view, await place(flags.extract), flags.output!);
        else if (flags.as !== undefined) await this.values(view, address!, flags.as);
        else await this.dump(view, selection, address, flags['all-rows'] ?? false);
      } finally {
        await space.close();
      }
      if (view.json) this.print([JSON.stringify(document, null, 2)]);
    });
  }

  private async dump(view: View, selection: Selection, address: string | undefined, allRows: boolean): Promise<void> {
    const { space, document, json, image } = view;
    let range: Range | undefined = selection.range;
    if (address !== undefined) {
      const start = parseRange(address)?.start ?? parseAddress(address);
      range = parseRange(address) ?? { start, end: min(start + DEFAULT_LENGTH, 1n << 64n) };
      if (!findVma(image.vmas(), start)) throw new Failure(space.unmapped(start));
      const narrowed = selection.range ? intersection(range, selection.range) : range;
      if (!narrowed) throw new Failure(`${address} is outside --range`);
      range = narrowed;
    }
    const { style } = this;
    const output = new Output();
    let at = range?.start ?? 0n;
    let total = 0n;
    const parts: DumpPart[] = [];
    let complained = false;
    let lastArea: Vma | undefined;
    const missing = async (part: DumpPart): Promise<void> => {
      complained = true;
      if (json) parts.push(part);
      else await output.line(style.yellow(`${part.start}-${part.end}: ${part.reason}`));
    };
    for await (const run of space.runs(range, selector(image, { ...selection, range }))) {
      if (address !== undefined && run.start > at) await missing(gap(at, run.start));
      at = run.end;
      const target = await space.describe(run.start);
      const part: DumpPart = {
        start: hex(run.start),
        end: hex(run.end),
        from: run.from,
        area: areaOf(run.vma),
        symbol: target?.symbol ?? null,
        symbol_offset: target?.symbolOffset ?? null,
        bytes: null,
        reason: run.reason,
      };
      if (run.from === 'absent') {
        await missing(part);
        continue;
      }
      total += run.end - run.start;
      if (json) {
        if (total > LARGEST_JSON_DUMP) throw new Failure(`more than ${bytes(LARGEST_JSON_DUMP)} is too much for --json; use --extract`);
        const content = Buffer.alloc(Number(run.end - run.start));
        await readRun(run, content);
        parts.push({ ...part, bytes: content.toString('hex') });
        continue;
      }
      if (run.vma !== lastArea || run.from === 'file') await output.line(style.bold(headerOf(run, target)));
      lastArea = run.vma;
      for (let from = run.start; from < run.end; from += PIECE) {
        const content = Buffer.alloc(Number(min(PIECE, run.end - from)));
        await readRun(run, content, from);
        for (const line of hexdump(from, content, { allRows, dim: (text) => style.dim(text) })) await output.line(line);
      }
    }
    if (address !== undefined && range && at < range.end) await missing(gap(at, range.end));
    if (total === 0n && complained && !json)
      throw new Failure(`${image.source.name}: none of this memory can be shown: ${await firstReason(space, range)}`);
    await output.flush();
    document.dump = parts;
  }

  private async values({ space, document, json, image }: View, address: string, type: ValueTypeName): Promise<void> {
    const range = parseRange(address);
    const start = range?.start ?? parseAddress(address);
    const { size, text } = valueTypes[type];
    const values: NonNullable<Document['values']> = [];
    if (size === 0) {
      const content = range ? await space.read(start, Number(range.end - start)) : await readText(space, start);
      let at = 0;
      for (const piece of content.toString('latin1').replace(/\0$/, '').split('\0')) {
        values.push({ address: hex(start + BigInt(at)), type, value: text(Buffer.from(piece, 'latin1')), target: null });
        at += piece.length + 1;
      }
    } else {
      const length = range ? Number(range.end - start) : size;
      if (length % size !== 0) throw new Failure(`${length} bytes are no whole number of ${type}: give a multiple of ${size}`);
      const content = await space.read(start, length);
      for (let at = 0; at < length; at += size) {
        const one = content.subarray(at, at + size);
        const target = type === 'ptr' ? await space.describe(one.readBigUInt64LE()) : null;
        values.push({ address: hex(start + BigInt(at)), type, value: text(one), target: target && targetOf(target) });
      }
    }
    document.values = values;
    if (json) return;
    if (!findVma(image.vmas(), start)) throw new Failure(space.unmapped(start));
    const { style } = this;
    const width = Math.max(...values.map(({ value }) => value.length));
    this.print(
      values.map(({ address: at, value, target }) => {
        if (type === 'cstr') return `${style.dim(at)}  ${printable(value)}`;
        const points =
          type === 'ptr' ? (target ? `  ${style.cyan(targetText(target))}` : value === '0x0' ? '' : style.dim('  not mapped')) : '';
        return `${style.dim(at)}  ${value.padStart(width)}${points}`;
      }),
    );
  }

  private async search(
    { image, space, document, json }: View,
    selection: Selection,
    scanner: Scanner,
    { strings, encoding, limit, context, 'points-to': pointsTo }: SearchFlags,
  ): Promise<void> {
    const selects = selector(image, selection);
    const total = image.vmas().reduce((sum, vma) => (selects(vma) ? sum + (vma.end - vma.start) : sum), 0n);
    const state: ScanProgress = { searched: 0n, absent: 0n, reason: null };
    const bar = new Progress('searching');
    const output = new Output();
    const { style } = this;
    const matches: NonNullable<Document['search']>['matches'] = [];
    let found = 0;
    let complete = true;
    try {
      search: for await (const some of scanMemory(space.runs(selection.range, selects), scanner, state)) {
        bar.update(Number(state.searched + state.absent), Number(total));
        if (some.length > 0 && process.stdout.isTTY) bar.end();
        for (const match of some) {
          if (found === limit) {
            complete = false;
            break search;
          }
          found++;
          const text = strings ? match.bytes.toString(encoding === 'utf-16' ? 'utf16le' : 'latin1', 0, match.length) : null;
          const around = context === undefined ? null : await contextOf(space, match, BigInt(context));
          if (json) matches.push(await matchOf(space, match, text, around));
          else if (text !== null)
            await output.line(`${style.dim(`0x${match.address.toString(16).padStart(12, '0')}`)}  ${printable(text)}`);
          else await output.line(pointsTo === undefined ? await this.matchLine(space, match) : await this.pointerLine(space, match));
          if (json || !around) continue;
          for (const line of hexdump(around.start, around.bytes, { allRows: true, dim: (part) => style.dim(part) }))
            await output.line(`  ${line}`);
        }
      }
    } finally {
      bar.end();
    }
    await output.flush();
    document.search = {
      complete,
      searched: byteCountOf(state.searched),
      absent: byteCountOf(state.absent),
      reason: state.reason,
      matches,
    };
    if (found === 0) process.exitCode = 1;
    if (json) return;
    const summary = [`${count(found, strings ? 'string' : 'match', strings ? 'strings' : 'matches')} in ${bytes(state.searched)}`];
    if (!complete) summary.push(`stopped at the limit of ${limit}; there are more`);
    if (state.absent > 0n) summary.push(`${bytes(state.absent)} could not be searched (${state.reason})`);
    process.stderr.write(`${this.errorStyle.dim(summary.join('; '))}\n`);
  }

  private async matchLine(space: AddressSpace, match: Match): Promise<string> {
    const { style } = this;
    const shown = match.bytes.subarray(0, Math.min(Math.max(match.length, 32), 96));
    // oxlint-disable-next-line no-control-regex
    const text = shown.toString('latin1').replaceAll(/[^\x20-\x7e]/g, '.');
    const target = await space.describe(match.address);
    const where = target ? targetText(targetOf(target)) : '';
    const inside = style.green(text.slice(0, Math.min(match.length, shown.length)));
    return `0x${match.address.toString(16).padStart(12, '0')}  ${style.cyan(where)}  ${inside}${style.dim(text.slice(match.length))}`;
  }

  private async pointerLine(space: AddressSpace, { address, bytes: raw }: Match): Promise<string> {
    const { style } = this;
    const value = raw.readBigUInt64LE();
    const [where, target] = [await space.describe(address), await space.describe(value)];
    const name = (found: PointerTarget | null): string => (found ? targetText(targetOf(found)) : 'not mapped');
    return `0x${address.toString(16).padStart(12, '0')}  ${style.cyan(name(where))}  -> ${hex(value)}  ${style.green(name(target))}`;
  }

  private async extract({ image, space, document, json }: View, what: string, file: string): Promise<void> {
    const range = parseRangeOrArea(what, image);
    const total = Number(range.end - range.start);
    // All of it must be there before a file is made.
    const runs: Run[] = [];
    let at = range.start;
    for await (const run of space.runs(range)) {
      if (run.start > at) throw new Failure(space.unmapped(at));
      if (run.from === 'absent') throw new Failure(space.absence(run));
      runs.push(run);
      at = run.end;
    }
    if (at < range.end) throw new Failure(space.unmapped(at));
    const bar = new Progress('extracting');
    let handle: FileHandle | undefined;
    try {
      // Memory holds secrets: nobody else may read it.
      handle = await open(file, 'w', 0o600);
      const buffer = Buffer.allocUnsafe(4 << 20);
      for (const run of runs) {
        if (run.from === 'zero') continue; // a hole
        for (let from = run.start; from < run.end;) {
          const piece = buffer.subarray(0, Number(min(BigInt(buffer.length), run.end - from)));
          await readRun(run, piece, from);
          await handle.write(piece, 0, piece.length, Number(from - range.start));
          from += BigInt(piece.length);
          bar.update(Number(from - range.start), total);
        }
      }
      await handle.truncate(total);
      await handle.close();
    } catch (error) {
      await handle?.close().catch(() => {});
      if (handle) await rm(file, { force: true });
      if (error instanceof Failure) throw error;
      throw new Failure(`cannot write ${file}: ${systemErrorReason(error)}`, { cause: error });
    } finally {
      bar.end();
    }
    document.extract = { file, start: hex(range.start), end: hex(range.end), bytes: total };
    if (!json) this.print([`${printable(file)}  ${this.style.dim(`${bytes(total)} from ${hex(range.start)}`)}`]);
  }
}

interface View {
  image: Image;
  space: AddressSpace;
  document: Document;
  json: boolean;
}

interface SearchFlags {
  strings?: boolean;
  encoding: Encoding;
  limit?: number;
  context?: number;
  'points-to'?: string;
}

interface ScannerFlags {
  as?: ValueTypeName;
  value?: string;
  search?: string;
  text?: string;
  regex?: string;
  strings?: boolean;
  encoding: Encoding;
  'ignore-case'?: boolean;
  'min-length': number;
}

function scannerOf(flags: ScannerFlags): Scanner | null {
  const ignoreCase = flags['ignore-case'] ?? false;
  if (flags.search !== undefined) {
    const digits = flags.search.replaceAll(/\s|^0x/gi, '');
    if (!/^([0-9a-f]{2})+$/i.test(digits)) throw new Failure(`--search ${flags.search} is not made of pairs of hexadecimal digits`);
    return bytesScanner(Buffer.from(digits, 'hex'));
  }
  if (flags.value !== undefined) return bytesScanner(bytesOfValue(flags.as ?? 'u64', flags.value));
  if (flags.text !== undefined) return textScanner(flags.text, flags.encoding, ignoreCase);
  if (flags.regex !== undefined) return regexScanner(flags.regex, ignoreCase);
  return flags.strings ? stringsScanner(flags['min-length'], flags.encoding) : null;
}

function oneByte(start: bigint): Range {
  return { start, end: start + 1n };
}

/** What can be had of the memory around a match, without a gap. */
async function contextOf(space: AddressSpace, match: Match, reach: bigint): Promise<{ start: bigint; bytes: Buffer }> {
  const end = match.address + BigInt(match.length);
  let start = match.address < reach ? 0n : match.address - reach;
  let at = start;
  for await (const run of space.runs({ start, end: end + reach })) {
    if (at >= end && (run.start > at || run.from === 'absent')) break;
    if (run.start > at) start = run.start;
    at = run.end;
    if (run.from === 'absent') start = at;
  }
  return { start, bytes: await space.read(start, Number(at - start)) };
}

function rangeOf(text: string): Range {
  const range = parseRange(text);
  if (!range) throw new Failure(`--range ${text} is not FROM-TO or ADDRESS:LENGTH`);
  return range;
}

async function readText(space: AddressSpace, address: bigint): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let done = 0; done < LONGEST_STRING;) {
    const step = 4096 - Number((address + BigInt(done)) & 4095n);
    const piece = await space.read(address + BigInt(done), step);
    const end = piece.indexOf(0);
    pieces.push(end < 0 ? piece : piece.subarray(0, end));
    if (end >= 0) return Buffer.concat(pieces);
    done += step;
  }
  throw new Failure(`the text at ${hex(address)} is longer than ${bytes(LONGEST_STRING)}; give a length: ${hex(address)}:LENGTH`);
}

async function firstReason(space: AddressSpace, range: Range | undefined): Promise<string> {
  for await (const run of space.runs(range)) if (run.reason !== null) return run.reason;
  return 'it is not mapped';
}

function gap(start: bigint, end: bigint): DumpPart {
  return {
    start: hex(start),
    end: hex(end),
    from: 'absent',
    area: null,
    symbol: null,
    symbol_offset: null,
    bytes: null,
    reason: 'not mapped',
  };
}

async function matchOf(
  space: AddressSpace,
  match: Match,
  text: string | null,
  around: { start: bigint; bytes: Buffer } | null,
): Promise<NonNullable<Document['search']>['matches'][number]> {
  return {
    address: hex(match.address),
    length: match.length,
    at: targetOf((await space.describe(match.address))!),
    bytes: text === null ? match.bytes.toString('hex', 0, match.length) : null,
    text,
    context: around && { start: hex(around.start), bytes: around.bytes.toString('hex') },
  };
}

function headerOf(run: Run, target: PointerTarget | null): string {
  const { vma } = run;
  const parts = [`${hex(vma.start)}-${hex(vma.end)}`, protectionText(vma), printable(areaName(vma))];
  if (target?.symbol) parts.push(`${printable(target.symbol)}${target.symbolOffset ? `+${hex(target.symbolOffset)}` : ''}`);
  if (run.from === 'file') parts.push('(not stored: from the mapped file, which is unchanged)');
  return parts.join('  ');
}
