import type { Category } from '../elf/categories.js';
import { count, duration } from '../terminal/format.js';
import { html, type Html } from './html.js';
import { categoryNames } from './memory-map.js';
import type { Report } from './page.js';
import { share, size } from './units.js';

type Timeline = NonNullable<Report['timeline']>;
type Load = Timeline['loads'][number];

const HEIGHT = 150;
/** Steps of a curve and points of a cloud, at most. */
const MOST_STEPS = 600;
const MOST_POINTS = 3000;
/** Space for numbers, CSS pixels. */
const AXIS = 20;

/** What a category of memory had to do with the runs. */
export interface CategoryLoads {
  category: Category | null;
  chunks: number;
  content: number;
  first: number;
  last: number;
}

export function loadsByCategory(loads: readonly Load[]): CategoryLoads[] {
  const found = new Map<Category | null, CategoryLoads>();
  for (const { category, content, ms } of loads) {
    const row = found.get(category) ?? { category, chunks: 0, content: 0, first: ms, last: ms };
    row.chunks++;
    row.content += content;
    row.last = ms;
    found.set(category, row);
  }
  return [...found.values()].toSorted((a, b) => b.content - a.content);
}

/** In words, with the time by which half of it was needed. */
export function timelineText({ runs, content, loads }: Timeline): string {
  const needed = loads.reduce((total, load) => total + load.content, 0);
  let sum = 0;
  const half = loads.find((load) => (sum += load.content) * 2 >= needed)!;
  return `In ${count(runs, 'training restore')} the program needed ${count(loads.length, 'chunk')}, ${size(needed)} of ${size(content)} (${share(needed, Number(content))}): half of that within ${duration(half.ms)}, the last after ${duration(loads.at(-1)!.ms)}.`;
}

/** Two charts over one axis of time: how much was needed by when, and where in memory it is. */
export function timelineCharts(timeline: Timeline): Html {
  const { loads } = timeline;
  const ticks = ticksTo(loads.at(-1)!.ms);
  const end = ticks.at(-1)!;
  const x = (ms: number): number => Math.round((ms / end) * 10_000) / 100;
  const needed = loads.reduce((total, load) => total + load.content, 0);
  const grid = html`${ticks.slice(1).map((ms) => html`<line class="grid" x1="${x(ms)}%" x2="${x(ms)}%" y2="${HEIGHT}" />`)}`;
  const axis = html`${ticks.map((ms, index) => {
    const anchor = index === 0 ? 'start' : index === ticks.length - 1 ? 'end' : 'middle';
    return html`<text class="tick ${anchor}" x="${x(ms)}%" y="${HEIGHT + 14}">${ms === 0 ? '0' : duration(ms)}</text>`;
  })}`;
  return html`<figure>
      <figcaption>Needed by then, of ${size(needed)}</figcaption>
      <svg width="100%" height="${HEIGHT + AXIS}" role="img" aria-label="${timelineText(timeline)}">
        ${grid}
        <svg viewBox="0 0 100 ${HEIGHT}" preserveAspectRatio="none" width="100%" height="${HEIGHT}">
          <path class="curve" d="${curve(loads, needed, x)}" />
        </svg>
        <line class="base" x2="100%" y1="${HEIGHT}" y2="${HEIGHT}" />
        ${axis}
      </svg>
    </figure>
    <figure>
      <figcaption>Where it is: low addresses at the top</figcaption>
      <svg
        width="100%"
        height="${HEIGHT + AXIS}"
        role="img"
        aria-label="Chunks by time and address; the table below tells the same by purpose"
      >
        ${grid}${points(loads, x)}
        <line class="base" x2="100%" y1="${HEIGHT}" y2="${HEIGHT}" />
        ${axis}
      </svg>
    </figure>`;
}

/** The sum of what was needed as a filled line. */
function curve(loads: readonly Load[], needed: number, x: (ms: number) => number): string {
  let [sum, shown] = [0, 0];
  let path = `M0 ${HEIGHT}`;
  for (const [index, { ms, content }] of loads.entries()) {
    sum += content;
    if (index + 1 < loads.length && (sum - shown) * MOST_STEPS < needed) continue;
    shown = sum;
    path += `H${x(ms)}V${Math.round((1 - sum / needed) * HEIGHT * 10) / 10}`;
  }
  return `${path}H100V${HEIGHT}z`;
}

/** A point for each chunk; its height is its place among the others by address. */
function points(loads: readonly Load[], x: (ms: number) => number): Html[] {
  const step = Math.ceil(loads.length / MOST_POINTS);
  const addressed = loads.filter(({ address }, index) => address !== null && index % step === 0);
  const order = new Map(
    addressed.toSorted((a, b) => (BigInt(a.address!) < BigInt(b.address!) ? -1 : 1)).map((load, index) => [load, index]),
  );
  return addressed.map((load) => {
    const y = 4 + ((HEIGHT - 8) * order.get(load)!) / Math.max(1, addressed.length - 1);
    return html`<circle class="c-${load.category ?? 'any'}" cx="${x(load.ms)}%" cy="${Math.round(y * 10) / 10}" r="2.5" />`;
  });
}

/** Round times from 0 to `last` or a little behind it, in milliseconds. */
export function ticksTo(last: number): number[] {
  const rough = Math.max(last, 0.001) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough)!;
  return Array.from({ length: Math.max(1, Math.ceil(last / step - 1e-9)) + 1 }, (_, index) => index * step);
}

export function nameOfCategory(category: Category | null): string {
  return category === null ? 'Not in an area' : categoryNames[category];
}
