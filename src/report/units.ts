import { bytes } from '../terminal/format.js';

/** Bytes for people; `0 B` for none. */
export function size(value: bigint | number | string): string {
  const text = bytes(value);
  return text === '0' ? '0 B' : text;
}

/** An address as `maps` prints it. */
export function address(value: bigint): string {
  return value.toString(16).padStart(12, '0');
}

/** A share for people: `0.4 %`, `12 %`. */
export function share(part: number, whole: number): string {
  if (whole === 0 || part === 0) return '0 %';
  const percent = (part / whole) * 100;
  if (percent < 0.1) return '< 0.1 %';
  return `${percent < 10 ? percent.toFixed(1) : percent.toFixed(0)} %`;
}
