import { protectionText, type Vma } from '../../elf/vmas.js';
import { hex } from '../../hex.js';
import { bytes, count } from '../../terminal/format.js';
import type { Look } from '../line.js';
import { Table } from '../rows.js';
import type { Sort } from '../state.js';

const KEYS: Record<Sort, (vma: Vma) => bigint> = {
  address: (vma) => -vma.start,
  size: (vma) => vma.end - vma.start,
  // Foreign cores do not tell what was resident: what they hold of an area comes nearest.
  resident: (vma) => vma.resident ?? vma.stored,
  stored: (vma) => vma.stored,
};

/** The memory map in each order. An order is made when it is first asked for; rows are made when they are on the screen. */
export class MapOrders {
  private readonly tables = new Map<Sort, Table<Vma>>();

  /** `nameOf`: what an area is, printable. */
  constructor(
    private readonly vmas: readonly Vma[],
    private readonly nameOf: (vma: Vma) => string,
  ) {}

  rows(sort: Sort): Table<Vma> {
    let table = this.tables.get(sort);
    if (!table) {
      table = this.table(sort);
      this.tables.set(sort, table);
    }
    return table;
  }

  private table(sort: Sort): Table<Vma> {
    const { vmas } = this;
    const order = sort === 'address' ? null : orderBy(vmas, KEYS[sort]);
    const total = vmas.reduce((sum, vma) => sum + (vma.end - vma.start), 0n);
    const packed = vmas.some((vma) => vma.packed !== vma.stored);
    const size = (title: string, from: number, of: (vma: Vma) => bigint | null): Table<Vma>['parts']['columns'][number] => ({
      title,
      align: 'right',
      width: 8,
      from,
      cell: (vma) => amount(of(vma)),
      look: (vma) => ({ dim: of(vma) === 0n }),
    });
    return new Table<Vma>({
      count: vmas.length,
      item: (index) => vmas[order ? order[index]! : index]!,
      summary: `${count(vmas.length, 'area')}, ${bytes(total)}, by ${sort}`,
      columns: [
        { title: 'address', width: 12, cell: (vma) => vma.start.toString(16).padStart(12, '0') },
        { title: 'end', width: 12, from: 110, cell: (vma) => vma.end.toString(16).padStart(12, '0') },
        { title: 'prot', width: 4, cell: protectionText, look: protectionLook },
        { title: 'kind', width: 9, from: 120, cell: (vma) => vma.kind, look: kindLook },
        size('size', 0, (vma) => vma.end - vma.start),
        ...(vmas.some((vma) => vma.resident !== null) ? [size('resident', 0, (vma) => vma.resident)] : []),
        size('stored', 0, (vma) => vma.stored),
        ...(packed ? [size('packed', 90, (vma) => vma.packed)] : []),
        size('zero', 130, (vma) => vma.zero),
        size('in file', 130, (vma) => vma.fromFile),
        { title: 'what', width: 'rest', keep: 'end', cell: this.nameOf, look: kindLook },
      ],
      detail: (vma, width) => detailOf(vma, this.nameOf(vma), width),
      target: (vma) => ({ to: 'address', address: vma.start }),
    });
  }
}

/** Indices in descending order of a key; equal ones stay in the order of addresses. */
function orderBy(vmas: readonly Vma[], key: (vma: Vma) => bigint): Uint32Array {
  const keys = Float64Array.from(vmas, (vma) => Number(key(vma)));
  return Uint32Array.from(vmas.keys()).sort((a, b) => keys[b]! - keys[a]! || a - b);
}

function amount(value: bigint | null): string {
  return value === null ? '?' : value === 0n ? '-' : bytes(value);
}

function protectionLook({ protection }: Vma): Look {
  if (protection === null) return {};
  return protection & 4 ? { colour: 'red' } : protection & 2 ? { colour: 'yellow' } : {};
}

/** One colour for each kind of memory, in the map and of pointers to it. */
export function kindLook({ kind, stackOf }: Pick<Vma, 'kind' | 'stackOf'>): Look {
  if (kind === 'file') return { colour: 'cyan' };
  if (kind === 'heap') return { colour: 'green' };
  return kind === 'stack' || stackOf !== null ? { colour: 'magenta' } : {};
}

function detailOf(vma: Vma, name: string, width: number): [string][] {
  const parts = [`${hex(vma.start)}-${hex(vma.end)}`, protectionText(vma), vma.kind];
  if (vma.kind === 'file') parts.push(`+${hex(vma.offset)}`);
  if (vma.zero > 0n && width < 130) parts.push(`zero ${bytes(vma.zero)}`);
  if (vma.fromFile > 0n && width < 130) parts.push(`in file ${bytes(vma.fromFile)}`);
  if (vma.absent > 0n) parts.push(`absent ${bytes(vma.absent)}`);
  return [[parts.join('  ')], [vma.flags.length > 0 ? `${name}  (${vma.flags.join(', ')})` : name]];
}
