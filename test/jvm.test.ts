import { describe, expect, it } from 'vitest';
import { Unsigned5 } from '../src/elf/jvm/unsigned5.js';

/** Encodes as HotSpot does: the lowest six bits that do not fit a last byte come first. */
function encode(value: number, excluded: number): number[] {
  const low = 256 - 64 - excluded;
  const bytes: number[] = [];
  let rest = value;
  while (rest >= low && bytes.length < 4) {
    bytes.push(low + ((rest - low) & 63) + excluded);
    rest = (rest - low) >>> 6;
  }
  return [...bytes, rest + excluded];
}

describe.each([
  { version: 17, excluded: 0 },
  { version: 25, excluded: 1 },
])('compressed numbers of JDK $version', ({ version, excluded }) => {
  it('come back, whatever their length', () => {
    const values = [0, 1, 190, 191, 192, 255, 256, 12_288, 12_479, 12_480, 1 << 20, 0x7fffffff, 0xfffffff0];
    const bytes = Buffer.from(values.flatMap((value) => encode(value, excluded)));
    if (excluded) expect(bytes.includes(0)).toBe(false);
    const stream = new Unsigned5(bytes, version);
    expect(values.map(() => stream.unsigned())).toEqual(values);
    expect(stream.atEnd).toBe(true);
  });

  it('have their sign in the lowest bit', () => {
    const stream = new Unsigned5(Buffer.from([0, 1, 2, 3, 601].flatMap((value) => encode(value, excluded))), version);
    expect([0, 0, 0, 0, 0].map(() => stream.signed())).toEqual([0, -1, 1, -2, -301]);
  });

  it('end where the bytes end', () => {
    const stream = new Unsigned5(Buffer.from([255, 255]), version);
    expect(stream.unsigned()).toBeGreaterThan(0);
    expect(stream.unsigned()).toBe(0);
  });
});

it('knows where the two forms differ: the largest number of one byte, and zero', () => {
  expect(new Unsigned5(Buffer.from([200, 0]), 17).unsigned()).toBe(200);
  expect(new Unsigned5(Buffer.from([191]), 17).unsigned()).toBe(191);
  expect(new Unsigned5(Buffer.from([192, 1]), 25).unsigned()).toBe(191);
  expect(new Unsigned5(Buffer.from([1]), 25).unsigned()).toBe(0);
});
