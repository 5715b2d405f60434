import { findVma, type Vma } from '../elf/vmas.js';

export const ROW_BYTES = 16n;
export const WORD = 8n;

/** What a row of the memory view shows. */
export type MemoryRow = { vma: Vma; address: bigint | null };

/**
 * The rows of the memory view: for each area a title, then 16 bytes to a row. No row is made before it is asked for, and every question costs
 * a binary search, however large the areas and however many there are.
 */
export class MemoryLayout {
  readonly count: number;
  /** Number of the row with the title of each area. */
  private readonly titles: Float64Array;

  /** `vmas` ascend. */
  constructor(readonly vmas: readonly Vma[]) {
    this.titles = new Float64Array(vmas.length);
    let row = 0;
    for (const [index, vma] of vmas.entries()) {
      this.titles[index] = row;
      row += 1 + rowsIn(vma);
    }
    this.count = row;
  }

  row(number: number): MemoryRow {
    let low = 0;
    let high = this.titles.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.titles[middle]! <= number) low = middle + 1;
      else high = middle;
    }
    const vma = this.vmas[low - 1]!;
    const inside = number - this.titles[low - 1]!;
    return { vma, address: inside === 0 ? null : firstRow(vma) + BigInt(inside - 1) * ROW_BYTES };
  }

  /** The number of the row that shows the byte at `address`; null where nothing is mapped. */
  rowOf(address: bigint): number | null {
    const vma = findVma(this.vmas, address);
    if (!vma) return null;
    return this.titles[this.indexOf(vma)]! + 1 + Number((address - firstRow(vma)) / ROW_BYTES);
  }

  /** The word that comes `rows` rows below (above, where negative) the one at `address`; it stays in the same column. */
  moveRows(address: bigint, rows: number): bigint {
    const from = this.rowOf(address);
    if (from === null) return address;
    const column = address & (ROW_BYTES - 1n) & -WORD;
    // A title takes no cursor: the row beside it is taken.
    for (let to = Math.max(1, Math.min(this.count - 1, from + rows)); to > 0 && to < this.count; to += rows < 0 ? -1 : 1) {
      const { vma, address: start } = this.row(to);
      if (start !== null) return within(vma, start + column);
    }
    return address;
  }

  /** The word before (-1) or behind (1) the one at `address`, also in the next area. */
  moveWord(address: bigint, step: -1 | 1): bigint {
    const vma = findVma(this.vmas, address);
    if (!vma) return address;
    const to = address + WORD * BigInt(step);
    if (to >= vma.start && to < vma.end) return to;
    const neighbour = this.vmas[this.indexOf(vma) + step];
    if (!neighbour) return address;
    return step > 0 ? wordAt(neighbour.start) : wordAt(neighbour.end - 1n);
  }

  /** The first word of the area that comes `step` areas behind the one at `address`. */
  moveArea(address: bigint, step: -1 | 1): bigint {
    const vma = findVma(this.vmas, address);
    if (!vma) return address;
    const start = wordAt(vma.start);
    if (step < 0 && wordAt(address) > start) return start;
    return wordAt((this.vmas[this.indexOf(vma) + step] ?? vma).start);
  }

  private indexOf(vma: Vma): number {
    let low = 0;
    let high = this.vmas.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.vmas[middle]!.end < vma.end) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export function wordAt(address: bigint): bigint {
  return address & -WORD;
}

function firstRow(vma: Vma): bigint {
  return vma.start & -ROW_BYTES;
}

function rowsIn(vma: Vma): number {
  return vma.end > vma.start ? Number((vma.end - firstRow(vma) + ROW_BYTES - 1n) / ROW_BYTES) : 0;
}

function within(vma: Vma, word: bigint): bigint {
  if (word + WORD <= vma.start) return wordAt(vma.start);
  return word >= vma.end ? wordAt(vma.end - 1n) : word;
}
