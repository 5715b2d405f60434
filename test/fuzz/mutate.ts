/** Damages images: numbers where readers look for numbers, bytes anywhere, lengths, order. The same seed and number give the same damage. */
import { layoutOf, NOTE_OWNER, projectNotes, TABLE_HEADER_SIZE, type Fields } from '../../src/elf/schema.js';
import { sealMetadata } from '../support/synthesise.js';
import type { Random } from './random.js';

/** A number in an image. */
interface Place {
  at: number;
  size: 1 | 2 | 4 | 8;
}

const HEADER: [number, Place['size']][] = [[4, 1], [5, 1], [16, 2], [18, 2], [32, 8], [40, 8], [52, 2], [54, 2], [56, 2], [58, 2], [60, 2], [62, 2]]; // prettier-ignore
const ANCHOR: [number, Place['size']][] = [[72, 2], [74, 2], [76, 4], [80, 8], [96, 8], [104, 8], [112, 8], [120, 8]]; // prettier-ignore
const SEGMENT: [number, Place['size']][] = [[0, 4], [4, 4], [8, 8], [16, 8], [24, 8], [32, 8], [40, 8], [48, 8]]; // prettier-ignore
const SEGMENT_SIZE = 56;
/** Places from one table of many equal entries: the first ones and the last stand for all. */
const MOST_ENTRIES = 48;

/** Where an undamaged image has numbers that decide what is read, so that damage hits them and not only content. */
export class Anatomy {
  readonly places: Place[] = [];
  /** Starts and lengths of segment table entries and notes. */
  readonly units: { at: number; length: number }[] = [];
  /** Where the metadata ends, or content would start. */
  readonly end: number;

  constructor(image: Buffer) {
    const ours = image.toString('latin1', 64, 72) === 'WARPTOOL';
    for (const [at, size] of [...HEADER, ...(ours ? ANCHOR : [])]) this.places.push({ at, size });
    const phoff = Number(image.readBigUInt64LE(32));
    const shoff = Number(image.readBigUInt64LE(40));
    const phnum = image.readUInt16LE(56) === 0xffff ? image.readUInt32LE(shoff + 44) : image.readUInt16LE(56);
    if (shoff > 0) this.places.push({ at: shoff + 44, size: 4 });
    let end = phoff + phnum * SEGMENT_SIZE;
    for (let index = 0; index < phnum; index++) {
      const at = phoff + index * SEGMENT_SIZE;
      if (image.readUInt32LE(at) === 4) end = Math.max(end, this.notes(image, at));
      if (index >= MOST_ENTRIES && index !== phnum - 1) continue;
      this.units.push({ at, length: SEGMENT_SIZE });
      for (const [offset, size] of SEGMENT) this.places.push({ at: at + offset, size });
    }
    this.end = Math.min(end, image.length);
  }

  private notes(image: Buffer, segment: number): number {
    const from = Number(image.readBigUInt64LE(segment + 8));
    const end = from + Number(image.readBigUInt64LE(segment + 32));
    const align = image.readBigUInt64LE(segment + 48) === 8n ? 8 : 4;
    const up = (value: number): number => Math.ceil(value / align) * align;
    for (let at = from, index = 0; at + 12 <= end; index++) {
      const nameSize = image.readUInt32LE(at);
      const size = image.readUInt32LE(at + 4);
      const payload = up(at - from + 12 + nameSize) + from;
      const next = up(payload - from + size) + from;
      if (index < 4 * MOST_ENTRIES) {
        this.units.push({ at, length: next - at });
        for (const offset of [0, 4, 8]) this.places.push({ at: at + offset, size: 4 });
        const owner = image.toString('latin1', at + 12, at + 12 + nameSize - 1);
        if (owner === NOTE_OWNER) this.table(image, image.readUInt32LE(at + 8), payload);
        else
          for (let place = payload; place + 8 <= Math.min(payload + size, payload + 512); place += 8)
            this.places.push({ at: place, size: 8 });
      }
      at = next;
    }
    return end;
  }

  private table(image: Buffer, type: number, at: number): void {
    this.places.push({ at, size: 4 }, { at: at + 4, size: 4 }, { at: at + 8, size: 8 });
    const note = Object.values(projectNotes).find((one) => one.type === type);
    if (!note) return;
    const recordSize = image.readUInt32LE(at);
    const count = image.readUInt32LE(at + 4);
    for (let index = 0; index < Math.min(count, MOST_ENTRIES); index++) {
      for (const { offset, size, type: field } of layoutOf(note.fields as Fields).places) {
        const step = field.endsWith('u64') || field === 'i64' ? 8 : 4;
        for (let part = 0; part + step <= size; part += step)
          this.places.push({ at: at + TABLE_HEADER_SIZE + index * recordSize + offset + part, size: step });
      }
    }
  }
}

const EXTREMES = [
  0n, 1n, 2n, 3n, 4n, 7n, 8n, 15n, 16n, 55n, 56n, 57n, 64n, 127n, 128n, 255n, 256n, 4095n, 4096n, 4097n, 0x7fffn, 0x8000n, 0xffffn, 0x10000n,
  0xfffff000n, 0x7fffffffn, 0x80000000n, 0xfffffffen, 0xffffffffn, 0x100000000n, 0x100000001n, 1n << 40n, (1n << 47n) - 4096n,
  (1n << 53n) - 1n, 1n << 53n, (1n << 53n) + 1n, 1n << 62n, (1n << 63n) - 1n, 1n << 63n, (1n << 63n) + 1n, (1n << 64n) - 4096n, (1n << 64n) - 1n,
]; // prettier-ignore

function readNumber(image: Buffer, { at, size }: Place): bigint {
  let value = 0n;
  for (let byte = size - 1; byte >= 0; byte--) value = (value << 8n) | BigInt(image[at + byte] ?? 0);
  return value;
}

function writeNumber(image: Buffer, { at, size }: Place, value: bigint): void {
  for (let byte = 0; byte < size && at + byte < image.length; byte++) image[at + byte] = Number((value >> BigInt(8 * byte)) & 0xffn);
}

type Damage = (image: Buffer, anatomy: Anatomy, random: Random, other: Buffer) => Buffer;

/** Damage that changes no length: large images are damaged in place and mended. */
const inPlace: [number, Damage][] = [
  [
    12,
    (image, { places }, random) => {
      const place = random.pick(places);
      const old = readNumber(image, place);
      const values = [
        random.pick(EXTREMES),
        old + BigInt(random.below(17) - 8),
        old << BigInt(random.below(33)),
        old ^ (1n << BigInt(random.below(place.size * 8))),
        BigInt(image.length) + BigInt(random.below(17) - 8),
        readNumber(image, random.pick(places)),
        -BigInt(random.below(0x10000)),
      ];
      writeNumber(image, place, random.pick(values));
      return image;
    },
  ],
  [
    3,
    (image, { end }, random) => {
      const at = random.below(Math.min(end, image.length));
      if (at < image.length) image[at]! ^= 1 << random.below(8);
      return image;
    },
  ],
  [
    2,
    (image, { end }, random) => {
      random.bytes(1 + random.below(64)).copy(image, random.below(Math.min(end, image.length)));
      return image;
    },
  ],
  [
    1,
    (image, _, random) => {
      random.bytes(1 + random.below(64)).copy(image, random.below(image.length));
      return image;
    },
  ],
  [
    2,
    (image, { units }, random) => {
      // One entry over another.
      const [from, to] = [random.pick(units), random.pick(units)];
      if (from.at < image.length) image.copy(image, to.at, from.at, from.at + Math.min(from.length, to.length));
      return image;
    },
  ],
  [
    1,
    (image, { end }, random, other) => {
      const from = random.below(other.length);
      other.copy(image, random.below(Math.min(end, image.length)), from, from + 1 + random.below(512));
      return image;
    },
  ],
];

const changingLength: [number, Damage][] = [
  [2, (image, { end }, random) => image.subarray(0, random.below(random.chance(0.7) ? Math.min(end, image.length) : image.length))],
  [1, (image, { units }, random) => image.subarray(0, random.pick(units).at + random.below(16))],
  [1, (image, _, random) => Buffer.concat([image, random.bytes(1 + random.below(5000))])],
  [
    1,
    (image, { end }, random) => {
      const at = random.below(Math.min(end, image.length));
      return Buffer.concat([image.subarray(0, at), random.bytes(1 + random.below(64)), image.subarray(at)]);
    },
  ],
  [
    1,
    (image, { end }, random) => {
      const at = random.below(Math.min(end, image.length));
      return Buffer.concat([image.subarray(0, at), image.subarray(at + 1 + random.below(256))]);
    },
  ],
  [
    1,
    (image, _, random, other) => Buffer.concat([image.subarray(0, random.below(image.length)), other.subarray(random.below(other.length))]),
  ],
];

function choose(damages: readonly [number, Damage][], random: Random): Damage {
  let point = random.below(damages.reduce((sum, [weight]) => sum + weight, 0));
  for (const [weight, damage] of damages) if ((point -= weight) < 0) return damage;
  return damages[0]![1];
}

/** A damaged copy of `seed`. With `keepLength` it is as long as the seed. `other` gives bytes that make sense elsewhere. */
export async function mutate(seed: Buffer, anatomy: Anatomy, random: Random, other: Buffer, keepLength = false): Promise<Buffer> {
  let image: Buffer = Buffer.from(seed);
  const all = keepLength ? inPlace : [...inPlace, ...changingLength];
  for (let times = 1 + random.below(4); times > 0; times--) {
    const damaged = choose(all, random)(image, anatomy, random, other);
    if (damaged.length > 0) image = Buffer.from(damaged);
  }
  // With the right hash, readers that check it go on to what is damaged.
  const metadataSize = image.length >= 192 ? image.readBigUInt64LE(80) : 0n;
  if (random.chance(0.5) && metadataSize >= 192n && metadataSize <= BigInt(image.length)) await sealMetadata(image);
  return image;
}
