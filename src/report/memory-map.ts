import { basename } from 'node:path';
import type { Category } from '../elf/categories.js';
import { count } from '../terminal/format.js';
import { html, Html } from './html.js';
import { COLUMNS, layOut, type Block, type Extent, type MapArea } from './layout.js';
import type { Report } from './page.js';
import { address, size } from './units.js';

type Area = Report['composition']['areas'][number];

const RIBBON = 14;
const PITCH = 31;
/** Columns that a region needs for a caption below it, and for a place of its own to point at. */
const CAPTION = 44;
const POINT = 3;
/** About as many letters fit into a column. */
const LETTERS = 0.14;
/** Places to point at, at most. */
const MOST_POINTS = 1500;

export const categoryNames: Record<Category, string> = {
  heap: 'Heap',
  anonymous: 'Anonymous memory',
  generated: 'Generated code',
  stack: 'Stacks',
  shared: 'Shared memory',
  file: 'Data of files',
  code: 'Code of files',
  engine: 'warp-tool engine',
  kernel: 'Kernel (vdso)',
  reserved: 'Reserved, no access',
};

/** What an area is, in words or as a path. */
export function areaTitle(area: Area, threads: ReadonlyMap<string, string>): string {
  const tid = /^stack of thread (\d+)$/.exec(area.label)?.[1];
  if (tid) return `Stack of ${threads.has(tid) ? `${threads.get(tid)} (${tid})` : `thread ${tid}`}`;
  if (area.label === 'anonymous') return categoryNames[area.category];
  return area.label;
}

/** The same in the fewest letters, where colour tells the purpose. */
function caption(area: Area, threads: ReadonlyMap<string, string>): string {
  const tid = /^stack of thread (\d+)$/.exec(area.label)?.[1];
  if (tid) return threads.get(tid) ?? tid;
  if (area.label === 'anonymous') return { generated: 'generated', reserved: '' }[area.category as string] ?? 'anonymous';
  return area.label.startsWith('/') ? basename(area.label) : area.label.replace('malloc arena', 'arena');
}

/** Areas of one file, and reservations behind what they belong to, are one region. */
function regionsOf(areas: readonly Area[]): MapArea[] {
  let region = '';
  let previous: Area | undefined;
  return areas.map((area, index) => {
    const start = BigInt(area.start);
    const adjacent = previous?.end === area.start;
    const continues = adjacent && (area.category === 'reserved' || (area.kind === 'file' && previous?.label === area.label));
    if (!continues || region === '') region = `${index}`;
    previous = area;
    return { start, end: BigInt(area.end), category: area.category, cells: area.cells, region };
  });
}

/** Names by thread id. */
export function threadNames({ threads }: Report): Map<string, string> {
  return new Map(
    (threads?.threads ?? [])
      .map((thread) => [String(thread.tid), thread.java?.name ?? thread.name] as const)
      .filter((entry): entry is [string, string] => Boolean(entry[1])),
  );
}

/** The id of an area's row in the table of all areas. */
export function areaId(area: Area): string {
  return `a${area.start.slice(2)}`;
}

/** The kernel's half of the address space, where the vsyscall page is, which no process has as its own. */
const KERNEL_HALF = 1n << 63n;

/** `listed`: areas that have a row in the table. */
export function memoryMap(report: Report, listed: ReadonlySet<Area>): Html {
  const { cell } = report.composition;
  const areas = report.composition.areas.filter(({ start }) => BigInt(start) < KERNEL_HALF);
  const layout = layOut(regionsOf(areas), cell);
  const threads = threadNames(report);
  const points = { left: MOST_POINTS };
  const blocks = layout.blocks.map((block, index) => {
    const next = layout.blocks[index + 1];
    return html`${drawBlock(block, areas, threads, listed, points)}${next && html`<p class="void">${size(next.start - block.end)} not mapped</p>`}`;
  });
  return html`<p class="scale">
      A full row is ${size(layout.row)} of address space, from left to right and from top to bottom, to one scale throughout. Long stretches
      of which the image stores nothing are cut short<span class="minor">: their length is written in them</span>.
    </p>
    ${legend(report)}
    <div class="map">${blocks}</div>`;
}

function legend(report: Report): Html {
  const present = report.composition.categories.map(({ category }) => category);
  const states: [string, string][] = [
    ['s', 'stored'],
    ['d', 'stored, a copy of another page'],
    ['f', 'in the mapped file'],
    ['z', 'zeros or untouched, not stored'],
    ['n', 'stored zeros'],
    ['a', 'absent'],
  ];
  const seen = states.filter(([state]) =>
    report.composition.areas.some(({ cells, category }) => category !== 'kernel' && cells.includes(state)),
  );
  const sample = (classes: string, hatched: boolean): Html =>
    html`<svg class="key" width="18" height="12" aria-hidden="true">
      <rect class="${classes}" width="18" height="12" />
      ${hatched && html`<rect width="18" height="12" fill="url(#hatch)" />`}
    </svg>`;
  return html`<svg width="0" height="0" class="defs" aria-hidden="true">
      <defs>
        <pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
          <rect class="hatch" width="2" height="5" />
        </pattern>
      </defs>
    </svg>
    <ul class="legend">
      ${present.map((category) => html`<li>${sample(`c-${category} s`, false)} ${categoryNames[category]}</li>`)}
    </ul>
    <ul class="legend">
      ${seen.map(([state, text]) => html`<li>${sample(`c-any ${state}`, state === 'd' || state === 'n')} ${text}</li>`)}
    </ul>`;
}

function drawBlock(
  block: Block,
  areas: readonly Area[],
  threads: ReadonlyMap<string, string>,
  listed: ReadonlySet<Area>,
  points: { left: number },
): Html {
  const height = block.rows.length * PITCH;
  const inside = areas.slice(block.first, block.last + 1);
  const stored = inside.reduce((total, area) => total + Number(area.stored), 0);
  const mapped = inside.reduce((total, area) => total + Number(area.mapped), 0);
  const title = `${address(block.start)} to ${address(block.end)}`;
  return html`<section class="block" aria-label="${title}">
    <h3><code>${title}</code> <span>${count(inside.length, 'area')}, ${size(mapped)} mapped, ${size(stored)} stored</span></h3>
    <div class="ribbons">
      <div class="gutter" aria-hidden="true">${block.rows.map((start) => html`<span>${address(start)}</span>`)}</div>
      <svg width="100%" height="${height}" role="group" aria-label="Memory from ${title}">
        <svg viewBox="0 0 ${COLUMNS} ${height}" preserveAspectRatio="none" width="100%" height="${height}" aria-hidden="true">
          ${paint(block)}
        </svg>
        ${block.breaks.filter(({ from, to }) => to - from >= 40).map(({ row, from, to, bytes }) => html`<text class="break" x="${percent((from + to) / 2)}" y="${row * PITCH + 10.5}">${size(bytes)}</text>`)}
        ${places(block, areas, threads, listed, points)}
      </svg>
    </div>
  </section>`;
}

/** One path for each kind of memory and state. */
function paint({ stripes, extents }: Block): Html[] {
  const paths = new Map<string, string>();
  let hatched = '';
  for (const { row, from, to, category, state } of stripes) {
    const shape = `M${from} ${row * PITCH}h${to - from}v${RIBBON}h${from - to}z`;
    const key = `c-${category} ${state}`;
    paths.set(key, (paths.get(key) ?? '') + shape);
    if (state === 'd' || state === 'n') hatched += shape;
  }
  const edges = extents
    .filter(({ from, to }) => from > 0 && to - from > 2)
    .map(({ row, from }) => `M${round(from)} ${row * PITCH}v${RIBBON}`)
    .join('');
  return [
    ...[...paths].map(([classes, shape]) => html`<path class="${classes}" d="${shape}" />`),
    html`${hatched !== '' && html`<path fill="url(#hatch)" d="${hatched}" />`}`,
    html`${edges !== '' && html`<path class="edge" d="${edges}" />`}`,
  ];
}

/** Captions, and places to point at: what is too small for one of its own shares it with its neighbours. */
function places(
  { extents }: Block,
  areas: readonly Area[],
  threads: ReadonlyMap<string, string>,
  listed: ReadonlySet<Area>,
  points: { left: number },
): Html[] {
  const found: Html[] = [];
  let pending: Extent | undefined;
  let before: Extent | undefined;
  const flush = (): void => {
    // What goes on from the row above has its caption there, and a file with little room between its parts has it once.
    const near = before && pending && (pending.row === before.row + 1 || (pending.row === before.row && pending.from - before.to < 20));
    const continued = Boolean(
      near &&
      areas[pending!.first]!.label === areas[before!.last]!.label &&
      (pending!.first === before!.last || areas[pending!.first]!.kind === 'file'),
    );
    if (pending && points.left-- > 0) found.push(place(pending, continued, areas, threads, listed));
    before = pending;
    pending = undefined;
  };
  for (const extent of extents) {
    const small = extent.to - extent.from < POINT;
    if (pending && (!small || pending.row !== extent.row || extent.from - pending.to > POINT || pending.to - pending.from >= POINT))
      flush();
    if (!small) {
      pending = extent;
      flush();
    } else pending = pending ? { ...pending, to: extent.to, last: extent.last } : extent;
  }
  flush();
  return found;
}

function place(
  extent: Extent,
  continued: boolean,
  areas: readonly Area[],
  threads: ReadonlyMap<string, string>,
  listed: ReadonlySet<Area>,
): Html {
  const { row, from, to, first, last } = extent;
  const inside = areas.slice(first, last + 1);
  const main = inside.reduce((best, area) => (Number(area.stored) > Number(best.stored) || best.category === 'reserved' ? area : best));
  const name = areaTitle(main, threads);
  const sum = (key: 'mapped' | 'stored'): number => inside.reduce((total, area) => total + Number(area[key]), 0);
  const others = inside.filter((area) => area.label !== main.label && area.category !== 'reserved').length;
  const text = [
    others > 0 ? `${name} and ${count(others, 'more area')}` : name,
    inside.length > 1 || name === categoryNames[main.category] ? null : categoryNames[main.category],
    `${address(BigInt(inside[0]!.start))}–${address(BigInt(inside.at(-1)!.end))}`,
    `${size(sum('mapped'))} mapped, ${size(sum('stored'))} stored`,
  ].filter((line) => line !== null);
  const width = to - from;
  const words = caption(main, threads);
  // Much memory has no name: once in a while is enough.
  const room = words === 'anonymous' ? 3 * CAPTION : CAPTION;
  const written = width >= room && !continued && words !== '' ? shortened(words, width * LETTERS - 1) : null;
  const geometry = html`x="${percent(from)}" y="${row * PITCH}" width="${percent(width)}"`;
  const hit = html`<rect class="hit" ${geometry} height="${RIBBON}"
    ><title>${text.map((line, index) => html`${index > 0 && new Html('&#10;')}${line}`)}</title></rect
  >`;
  const label =
    written &&
    html`<svg ${geometry} height="${PITCH}" ${width < 200 && html` class="narrow"`}>
      <text class="caption" y="${RIBBON + 10}">${written}</text>
    </svg>`;
  if (written === null || !listed.has(main)) return html`${hit}${label}`;
  return html`<a href="#${areaId(main)}">${hit}${label}</a>`;
}

function shortened(text: string, letters: number): string {
  const most = Math.floor(letters);
  return text.length <= most ? text : `${text.slice(0, Math.max(1, most - 1))}…`;
}

function percent(columns: number): string {
  return `${round((columns / COLUMNS) * 100)}%`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
