import { ImageError } from '../failure.js';
import {
  layoutOf,
  shapeOf,
  TABLE_HEADER_SIZE,
  type FieldPlace,
  type Fields,
  type FieldType,
  type FieldValue,
  type RecordOf,
} from './schema.js';

type Heap = (offset: number, length: number) => Buffer;

function readScalar(raw: Buffer, at: number, scalar: string, heap: Heap): unknown {
  switch (scalar) {
    case 'u16':
      return raw.readUInt16LE(at);
    case 'u32':
      return raw.readUInt32LE(at);
    case 'i32':
      return raw.readInt32LE(at);
    case 'u64':
      return raw.readBigUInt64LE(at);
    case 'i64':
      return raw.readBigInt64LE(at);
    default:
      return heap(raw.readUInt32LE(at), raw.readUInt32LE(at + 4));
  }
}

/** Reads the field at `at`; `heap` resolves slices. */
function readField(raw: Buffer, at: number, type: FieldType, heap: Heap): unknown {
  const { scalar, dimensions } = shapeOf(type);
  if (scalar === 'bytes') return raw.subarray(at, at + dimensions[0]!);
  if (dimensions.length === 0) return readScalar(raw, at, scalar, heap);
  const size = shapeOf(scalar as FieldType).size;
  const many = (offset: number, [first, ...rest]: number[]): unknown => {
    if (first === undefined) return readScalar(raw, offset, scalar, heap);
    const stride = rest.reduce((product, dimension) => product * dimension, size);
    return Array.from({ length: first }, (_, index) => many(offset + index * stride, rest));
  };
  return many(at, dimensions);
}

/** Decodes one record without slices, such as the anchor. */
export function decodeRecord<F extends Fields>(fields: F, raw: Buffer): RecordOf<F> {
  const noHeap = (): Buffer => Buffer.alloc(0);
  return Object.fromEntries(
    layoutOf(fields).places.map(({ name, type, offset }) => [name, readField(raw, offset, type, noHeap)]),
  ) as RecordOf<F>;
}

/**
 * The table of one project note: records are decoded when they are asked for. The header and all sizes are checked at construction, a slice
 * when its field is read.
 */
export class Table<F extends Fields> implements Iterable<RecordOf<F>> {
  readonly length: number;
  readonly recordSize: number;
  /** Bytes of this note's heap. */
  readonly heap: Buffer;
  private readonly places: FieldPlace[];
  private readonly knownSize: number;
  /** All records, one after the other. */
  readonly records: Buffer;

  /** `offset` is where `payload` is in `file`, for messages. */
  constructor(
    readonly name: string,
    fields: F,
    payload: Buffer,
    private readonly file: string,
    private readonly offset: bigint,
  ) {
    const fail = (problem: string): never => {
      throw new ImageError(
        file,
        offset,
        `note ${name}: ${problem}`,
        'the metadata is damaged: copy the image again or take a new checkpoint',
      );
    };
    if (payload.length < TABLE_HEADER_SIZE) fail(`${payload.length} bytes cannot hold a table header of ${TABLE_HEADER_SIZE}`);
    const recordSize = payload.readUInt32LE(0);
    const length = payload.readUInt32LE(4);
    const heapSize = payload.readBigUInt64LE(8);
    if (length > 0 && recordSize === 0) fail(`${length} records of 0 bytes`);
    const end = TABLE_HEADER_SIZE + recordSize * length;
    if (BigInt(end) + heapSize > BigInt(payload.length)) {
      fail(`${length} records of ${recordSize} bytes and a heap of ${heapSize} do not fit into ${payload.length} bytes`);
    }
    this.length = length;
    this.recordSize = recordSize;
    const { places, size } = layoutOf(fields);
    this.places = places;
    this.knownSize = size;
    this.records = payload.subarray(TABLE_HEADER_SIZE, end);
    this.heap = payload.subarray(end, end + Number(heapSize));
  }

  get(index: number): RecordOf<F> {
    const raw = this.rawRecord(index);
    const record: Record<string, unknown> = {};
    for (const place of this.places) record[place.name] = this.read(raw, index, place);
    return record as RecordOf<F>;
  }

  /** One field of one record: for passes over long tables. */
  field<K extends keyof F & string>(index: number, name: K): FieldValue<F[K]> {
    const place = this.places.find((candidate) => candidate.name === name)!;
    return this.read(this.rawRecord(index), index, place) as FieldValue<F[K]>;
  }

  *[Symbol.iterator](): Generator<RecordOf<F>> {
    for (let index = 0; index < this.length; index++) yield this.get(index);
  }

  private rawRecord(index: number): Buffer {
    if (index < 0 || index >= this.length) {
      throw new ImageError(
        this.file,
        this.offset,
        `note ${this.name} has ${this.length} records, not a record ${index}`,
        'the metadata is damaged',
      );
    }
    const raw = this.records.subarray(index * this.recordSize, (index + 1) * this.recordSize);
    if (this.recordSize >= this.knownSize) return raw;
    const padded = Buffer.alloc(this.knownSize);
    raw.copy(padded);
    return padded;
  }

  private read(raw: Buffer, index: number, place: FieldPlace): unknown {
    return readField(raw, place.offset, place.type, (offset, length) => {
      if (offset + length > this.heap.length) {
        throw new ImageError(
          this.file,
          this.offset + BigInt(TABLE_HEADER_SIZE + index * this.recordSize + place.offset),
          `note ${this.name}, record ${index}: ${place.name} is ${length} bytes at ${offset} of a heap of ${this.heap.length}`,
          'the metadata is damaged: copy the image again or take a new checkpoint',
        );
      }
      return this.heap.subarray(offset, offset + length);
    });
  }
}

/** A record with all fields zero or empty but for those given. */
export function recordWith<F extends Fields>(fields: F, given: Partial<RecordOf<F>>): RecordOf<F> {
  const blank = Object.entries(fields).map(([name, type]) => {
    const { scalar, dimensions, size } = shapeOf(type);
    if (scalar === 'slice') return [name, Buffer.alloc(0)];
    if (scalar === 'bytes') return [name, Buffer.alloc(size)];
    const zero = scalar === 'u64' || scalar === 'i64' ? 0n : 0;
    return [name, dimensions.reduceRight<unknown>((value, length) => Array.from({ length }, () => value), zero)];
  });
  return { ...(Object.fromEntries(blank) as RecordOf<F>), ...given };
}

/** The payload of a note: header, records, heap. Slices are laid out in the order of the fields. */
export function encodeTable<F extends Fields>(fields: F, records: readonly RecordOf<F>[]): Buffer {
  const { places, size } = layoutOf(fields);
  const header = Buffer.alloc(TABLE_HEADER_SIZE);
  const body = Buffer.alloc(size * records.length);
  const heap: Buffer[] = [];
  let heapSize = 0;
  for (const [index, record] of records.entries()) {
    for (const { name, type, offset } of places) {
      let value: unknown = record[name];
      if (type === 'slice') {
        const slice = value as Buffer;
        value = [heapSize, slice.length];
        heap.push(slice);
        heapSize += slice.length;
      }
      writeField(body, index * size + offset, type, value);
    }
  }
  header.writeUInt32LE(size, 0);
  header.writeUInt32LE(records.length, 4);
  header.writeBigUInt64LE(BigInt(heapSize), 8);
  return Buffer.concat([header, body, ...heap]);
}

/** Writes one record without slices, such as the anchor. */
export function encodeRecord<F extends Fields>(fields: F, record: RecordOf<F>): Buffer {
  const { places, size } = layoutOf(fields);
  const raw = Buffer.alloc(size);
  for (const { name, type, offset } of places) writeField(raw, offset, type, record[name]);
  return raw;
}

/** Writes one field; a slice is its offset and length in the heap. */
export function writeField(raw: Buffer, at: number, type: FieldType, value: unknown): void {
  const { scalar } = shapeOf(type);
  if (scalar === 'bytes') {
    (value as Buffer).copy(raw, at);
    return;
  }
  let offset = at;
  for (const item of [value].flat(2) as (number | bigint)[]) {
    switch (scalar) {
      case 'u16':
        offset = raw.writeUInt16LE(Number(item), offset);
        break;
      case 'i32':
        offset = raw.writeInt32LE(Number(item), offset);
        break;
      case 'u64':
        offset = raw.writeBigUInt64LE(BigInt(item), offset);
        break;
      case 'i64':
        offset = raw.writeBigInt64LE(BigInt(item), offset);
        break;
      default: // u32, and the two halves of a slice
        offset = raw.writeUInt32LE(Number(item), offset);
    }
  }
}
