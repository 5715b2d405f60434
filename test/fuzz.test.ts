/** A short run of test/fuzz: `npm run fuzz` is the long one. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { imageArgument } from '../src/commands/base.js';
import { COMMANDS } from '../src/commands/index.js';
import { Anatomy, mutate } from './fuzz/mutate.js';
import { Random } from './fuzz/random.js';
import { manySegments, syntheticSeeds } from './fuzz/seeds.js';
import { uses } from './fuzz/uses.js';
import { root } from './support/cores.js';

/** They take an image and hand it to other programs, or wait for keys. */
const NOT_LOOKING = ['explore', 'gdb', 'optimize', 'push', 'restore'];

describe('the fuzzer', () => {
  it('uses every command that looks into images', () => {
    const looking = Object.entries(COMMANDS)
      .filter(([name, { args }]) => Object.values(args).includes(imageArgument) && !NOT_LOOKING.includes(name))
      .map(([name]) => name);
    expect(Object.keys(uses)).toEqual(expect.arrayContaining(looking));
  });

  it('makes the same damage from the same number', async () => {
    const [seed, other] = await syntheticSeeds();
    const anatomy = new Anatomy(seed!.image);
    const damaged = (number: number): Promise<Buffer> => mutate(seed!.image, anatomy, new Random(number), other!.image);
    const some = await Promise.all(Array.from({ length: 50 }, (_, number) => damaged(number)));
    const again = await Promise.all(Array.from({ length: 50 }, (_, number) => damaged(number)));
    expect(some.every((image, number) => image.equals(again[number]!))).toBe(true);
    expect(new Set(some.map((image) => image.toString('latin1'))).size).toBeGreaterThan(45);
  });

  it('finds the numbers of an image with many segments too', () => {
    const { places, units } = new Anatomy(manySegments().image);
    expect(places.length).toBeGreaterThan(400);
    expect(units.length).toBeGreaterThan(50);
  });
});

it('600 damaged images: no command crashes, hangs or fills the memory, and each answers with a result or one line', async () => {
  const child = spawn(process.execPath, [join(root, 'test/fuzz/run.mjs'), '--count', '600'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const status = await new Promise((resolve) => child.on('close', resolve));
  expect([status, output.trim().split('\n').at(-1)], output.slice(0, 10_000)).toEqual([0, '600 damaged images, 0 with a fault']);
}, 3_600_000);
