import { findVma, protectionText, type Vma } from '../../elf/vmas.js';
import { hex } from '../../hex.js';
import { bytes, printable } from '../../terminal/format.js';
import { displayWidth } from '../../terminal/width.js';
import type { Line, Look, Span } from '../line.js';
import { ROW_BYTES, WORD } from '../layout.js';
import { byteOf, originOf, wordOf, type Page } from '../pages.js';
import type { Rows, Target } from '../rows.js';
import type { Matches } from '../search.js';
import type { Side } from '../side.js';
import { kindLook } from './maps.js';

const ROW = Number(ROW_BYTES);
/** Addresses above 2^48 (vsyscall) take more. */
const ADDRESS_DIGITS = 12;
/** Address, bytes with one more space in the middle, two spaces, text. */
const DUMP_WIDTH = ADDRESS_DIGITS + 3 * ROW + 1 + 2 + ROW;
const WIDTH_FOR_POINTERS = DUMP_WIDTH + 20;

export interface MemoryView {
  side: Side;
  /** The image that it is compared with. */
  other: Side | null;
  /** The word under the cursor. */
  address: bigint;
  matches: Matches | null;
}

/** Memory as rows of 16 bytes. A row asks for its page; until that is there it shows dots. */
export class MemoryRows implements Rows {
  readonly count: number;

  constructor(private readonly view: MemoryView) {
    this.count = view.side.layout.count;
  }

  get summary(): string {
    const { side, address, matches } = this.view;
    const vma = findVma(side.image.vmas(), address);
    const parts = [hex(address)];
    if (vma) parts.push(`${protectionText(vma)} ${side.areaText(vma)}`);
    if (matches && matches.count > 0) {
      const index = matches.indexFrom(address);
      const on = index < matches.count && matches.at(index).address < address + WORD;
      const limit = { running: ' so far', full: ' or more', complete: '', stopped: '' }[matches.state];
      parts.push(on ? `match ${index + 1} of ${matches.count}${limit}` : `${matches.count}${limit} matches`);
    }
    return parts.join('  ');
  }

  header(width: number): Line {
    const digits = Array.from({ length: ROW }, (_, byte) => `${byte === 8 ? '  ' : ' '}${byte.toString(16).padStart(2)}`).join('');
    const text = `${'address'.padEnd(ADDRESS_DIGITS)}${digits}  text`;
    return [[width >= WIDTH_FOR_POINTERS ? `${text.padEnd(DUMP_WIDTH)}  points to` : text, { bold: true }]];
  }

  row(index: number, width: number): Line {
    const { layout } = this.view.side;
    const { vma, address } = layout.row(index);
    return address === null ? titleOf(vma, this.view.side.areaText(vma), width) : this.dump(vma, address, width);
  }

  detail(): Line[] {
    const { side, other, address } = this.view;
    const page = side.pages.at(address);
    const vma = findVma(side.image.vmas(), address);
    if (!page || !vma) return [];
    const origin = originOf(page, address);
    const place = side.describe(address) ?? '';
    const first = [
      place,
      {
        image: 'stored',
        zero: 'zeros, not stored',
        file: `from ${printable(vma.name)}`,
        absent: page.reason ?? 'absent',
        unmapped: 'not mapped',
      }[origin],
    ];
    const word = wordOf(page, address);
    const second: Span[] = word === null ? [] : valueSpans(side, page, address, word);
    if (other) {
      const theirs = wordOf(other.pages.at(address), address);
      if (theirs !== null && theirs !== word) second.splice(1, 0, '  other image ', [hex(theirs), { colour: 'red', bold: true }]);
    }
    return [[first.join('  ')], second];
  }

  target(): Target | null {
    const { side, address } = this.view;
    const word = wordOf(side.pages.at(address), address);
    return word === null ? null : { to: 'address', address: word };
  }

  private dump(vma: Vma, row: bigint, width: number): Line {
    const { side, other, address: cursor } = this.view;
    const page = side.pages.at(row);
    const theirs = other?.pages.at(row);
    const words = [row, row + WORD].map((word) => (page ? this.pointerLook(page, word) : null));
    const digits: Span[] = [];
    const text: Span[] = [];
    for (let column = 0; column < ROW; column++) {
      const address = row + BigInt(column);
      const inside = address >= vma.start && address < vma.end;
      const value = inside ? byteOf(page, address) : null;
      const look: Look = value === null ? { dim: true } : { ...this.byteLook(address, value, words[column >> 3]!) };
      const theirValue = byteOf(theirs, address);
      if (value !== null && theirValue !== null && value !== theirValue)
        Object.assign(look, { colour: 'red', bold: true, underline: true, dim: false });
      const onCursor = address >= cursor && address < cursor + WORD;
      if (onCursor) look.inverse = true;
      // The gap between two bytes of the cursor's word belongs to it.
      digits.push(
        [column === 0 || column === 8 ? ' ' : '', {}],
        [column === 0 ? '' : ' ', onCursor && column % 8 !== 0 ? { inverse: true } : {}],
      );
      digits.push([inside ? (value === null ? '··' : value.toString(16).padStart(2, '0')) : '  ', look]);
      text.push([inside ? (value === null ? '·' : value >= 0x20 && value <= 0x7e ? String.fromCharCode(value) : '.') : ' ', look]);
    }
    const line: Span[] = [[row.toString(16).padStart(ADDRESS_DIGITS, '0'), { dim: true }], ...merged(digits), '  ', ...merged(text)];
    if (width < WIDTH_FOR_POINTERS) return line;
    for (const [index, look] of words.entries()) {
      if (look) line.push('  ', [this.view.side.describe(wordOf(page, row + WORD * BigInt(index))!) ?? '', look]);
    }
    return line;
  }

  private byteLook(address: bigint, value: number, pointer: Look | null): Look {
    if (this.view.matches?.covering(address)) return { colour: 'yellow', bold: true };
    return pointer ?? (value === 0 ? { dim: true } : {});
  }

  /** How a word looks that is a pointer to mapped memory; null for any other. */
  private pointerLook(page: Page, word: bigint): Look | null {
    const value = wordOf(page, word);
    const vma = value === null ? undefined : findVma(this.view.side.image.vmas(), value);
    if (!vma) return null;
    if (vma.protection !== null && vma.protection & 4) return { colour: 'red' };
    const look = kindLook(vma);
    return look.colour ? look : { colour: 'blue' };
  }
}

/** Fewer pieces of the same look: each costs escape sequences. */
function merged(spans: readonly Span[]): Span[] {
  const result: [string, Look][] = [];
  for (const span of spans) {
    const [text, look] = span as [string, Look];
    const last = result.at(-1);
    if (text === '') continue;
    // Space between looks the same in any of them but two.
    const blank = text.trim() === '' && !look.inverse && last && !last[1].inverse && !last[1].underline;
    if (last && (blank || sameLook(last[1], look))) last[0] += text;
    else result.push([text, look]);
  }
  return result;
}

function sameLook(a: Look, b: Look): boolean {
  return a.colour === b.colour && !a.bold === !b.bold && !a.dim === !b.dim && !a.inverse === !b.inverse && !a.underline === !b.underline;
}

function titleOf(vma: Vma, name: string, width: number): Line {
  const title = ` ${hex(vma.start)}-${hex(vma.end)} ${protectionText(vma)} ${bytes(vma.end - vma.start)} ${name} `;
  const offset = vma.kind === 'file' ? `+${hex(vma.offset)} ` : '';
  const whole = `──${title.trimEnd()} ${offset}`;
  return [[whole + '─'.repeat(Math.max(0, width - displayWidth(whole))), kindLook(vma)]];
}

/** The beginning of the text that a pointer points to, as far as it is one and in the same page. */
function previewOf(side: Side, address: bigint): Span[] {
  let text = '';
  for (let at = address; text.length < 40; at++) {
    const byte = byteOf(side.pages.at(at), at);
    if (byte === null || byte < 0x20 || byte > 0x7e) break;
    text += String.fromCharCode(byte);
  }
  return text.length < 4 ? [] : ['  ', [`"${text}"`, { colour: 'green' }]];
}

function valueSpans(side: Side, page: Page, address: bigint, word: bigint): Span[] {
  const at = Number(address & 4095n);
  const target = side.describe(word);
  const raw = page.bytes.subarray(at, at + 8);
  const spans: Span[] = [[hex(word), { bold: true }]];
  if (target !== null) return [...spans, ' -> ', [target, { colour: 'cyan' }], ...previewOf(side, word)];
  spans.push(`  u64 ${word}`);
  if (word >> 63n) spans.push(`  i64 ${BigInt.asIntN(64, word)}`);
  spans.push(`  u32 ${raw.readUInt32LE(0)} ${raw.readUInt32LE(4)}`);
  const float = raw.readDoubleLE();
  // Small integers are tiny denormal numbers, which nobody means.
  if (Number.isFinite(float) && Math.abs(float) > 1e-100 && Math.abs(float) < 1e100) spans.push(`  f64 ${float.toPrecision(6)}`);
  return spans;
}
