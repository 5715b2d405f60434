/** Damages images and uses them, from one number to another; tells on stdout what it does, for run.mjs, which watches. */
import { copyFileSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Image } from '../../src/elf/image.js';
import { Anatomy, mutate } from './mutate.js';
import { Random } from './random.js';
import { manySegments, packedSeeds, syntheticSeeds, type Seed } from './seeds.js';
import { exercise } from './uses.js';

const [directory, found, first, last, given, ...captured] = process.argv.slice(2) as [string, string, string, string, string, ...string[]];

// No debuggers: they are not what is tested, and slow.
process.env['PATH'] = '';

function tell(line: object): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

const path = join(directory, 'damaged.img');
let number = Number(first);
let call = '';
const report = (error: unknown): void => {
  copyFileSync(path, join(found, `${number}.img`));
  const { name, message, stack } = error as Error;
  tell({ wrong: call, problem: name === 'Error' ? message : `${name}: ${message}`, stack });
};
process.on('unhandledRejection', report);

interface Target extends Seed {
  anatomy: Anatomy;
  intact: string;
  address: string;
}

async function targetOf(seed: Seed, index: number): Promise<Target> {
  const intact = join(directory, `intact-${index}.img`);
  writeFileSync(intact, seed.image);
  const image = await Image.open(intact);
  const address = (image.memory.segments.find(({ fileSize }) => fileSize > 0n)?.address ?? 0x10000n).toString(16);
  await image.close();
  return { ...seed, anatomy: new Anatomy(seed.image), intact, address };
}

const key = Buffer.alloc(32, 7);
process.env['FUZZ_KEY'] = key.toString('hex');
// Plain copies for GDB go there.
process.env['XDG_CACHE_HOME'] = directory;
const synthetic = await syntheticSeeds();
const packed = await packedSeeds(synthetic, directory, key);
const seeds = [...synthetic, ...packed, ...captured.map((file) => ({ name: basename(file), image: readFileSync(file) }))];
const targets: Target[] = [];
for (const [index, seed] of seeds.entries()) targets.push(await targetOf(seed, index));
let many: Target | undefined;

// Where run.mjs finds what went on when this process ended.
const log = openSync(join(directory, 'call'), 'w');
for (; number < Number(last); number++) {
  const random = new Random(number);
  // The large one takes as long as fifty others.
  if (number % 500 === 499) many ??= await targetOf(manySegments(), targets.length);
  const target = number % 500 === 499 ? many! : targets[number % targets.length]!;
  const image = given === '' ? await mutate(target.image, target.anatomy, random, random.pick(targets).image) : readFileSync(given);
  writeFileSync(path, image);
  tell({ number, seed: target.name });
  try {
    await exercise({ image: path, intact: target.intact, output: join(directory, 'output'), address: target.address }, (next) => {
      call = next;
      writeSync(log, next.padEnd(500), 0);
    });
  } catch (error) {
    report(error);
  }
}
tell({ done: true });
