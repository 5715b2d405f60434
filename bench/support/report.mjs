/** Medians, tables and verdicts. */
import { GiB } from './host.mjs';

/** Measurements are repeated this often, alternating with what they are compared with. */
export const rounds = 7;

/** Runs the ways one after the other (A B A B ...), once to warm up and then `count` times; resolves to each way's measurements, in order. */
export async function alternate(ways, count = rounds) {
  const measured = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  for (let round = 0; round <= count; round++)
    for (const [name, way] of Object.entries(ways)) {
      const measurement = await way();
      if (round > 0) measured[name].push(measurement);
    }
  return measured;
}

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Median, least and greatest of the ratios of paired measurements. */
export function ratio(numerators, denominators) {
  const ratios = numerators.map((value, i) => value / denominators[i]);
  return { median: median(ratios), least: Math.min(...ratios), greatest: Math.max(...ratios) };
}

export const milliseconds = (nanoseconds) => `${(nanoseconds / 1e6).toFixed(nanoseconds < 1e8 ? 1 : 0)} ms`;
export const throughput = (bytesPerNanosecond) => `${((bytesPerNanosecond * 1e9) / GiB).toFixed(2)} GiB/s`;
export const showRatio = ({ median: middle, least, greatest }) => `${middle.toFixed(2)} (${least.toFixed(2)}-${greatest.toFixed(2)})`;

/** Prints a table: the first column to the left, the others to the right. */
export function table(head, rows) {
  const lines = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, column) => Math.max(...lines.map((row) => row[column].length)));
  const print = (row) =>
    console.log(`  ${row.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('  ')}`.trimEnd());
  print(lines[0]);
  console.log(`  ${widths.map((width) => '-'.repeat(width)).join('  ')}`);
  lines.slice(1).forEach(print);
}

export const verdicts = [];

/** Says whether an aim was met, and remembers it for the summary. */
export function verdict(aim, value, met) {
  verdicts.push({ aim, value, met });
  console.log(`  ${met ? 'met' : 'missed'}: ${aim}: ${value}`);
}
