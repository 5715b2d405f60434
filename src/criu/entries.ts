/**
 * The files of a CRIU image: two magic numbers, then entries, each a length (32 bits) and a protobuf message. Messages are read by field number, as the
 * .proto files of CRIU 4.2 give them; nothing is checked against them, and what is missing is 0, '' or an empty list.
 */
import { readFileSync } from 'node:fs';
import { Failure, systemErrorReason } from '../failure.js';

/** First 32 bits of a file of a process or of the tree, and of a service file such as stats-dump (criu/include/magic.h). */
const COMMON_MAGIC = 0x54564319;
const SERVICE_MAGIC = 0x55105940;
/** The inventory's own magic stands alone in images before 1.1. */
const INVENTORY_MAGIC = 0x58313116;

/** One protobuf message: values by field number, in the order in which they stand. Lengths and numbers come from a file, and may be anything. */
export class Message {
  private readonly fields = new Map<number, (bigint | Uint8Array)[]>();

  constructor(bytes: Uint8Array) {
    const reader = new Reader(bytes);
    while (reader.at < bytes.length) {
      const key = reader.varint();
      const wire = Number(key & 7n);
      const value =
        wire === 0
          ? reader.varint()
          : wire === 2
            ? reader.bytes(Number(reader.varint()))
            : reader.fixed(wire === 1 ? 8 : wire === 5 ? 4 : 0);
      const number = Number(key >> 3n);
      const values = this.fields.get(number);
      if (values) values.push(value);
      else this.fields.set(number, [value]);
    }
  }

  has(field: number): boolean {
    return this.fields.has(field);
  }

  /** An unsigned number (uint32, uint64, bool, enum). */
  big(field: number): bigint {
    const value = this.fields.get(field)?.at(-1);
    return typeof value === 'bigint' ? value : 0n;
  }

  number(field: number): number {
    return Number(this.big(field));
  }

  text(field: number): string {
    const value = this.fields.get(field)?.at(-1);
    return value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : '';
  }

  message(field: number): Message {
    return this.messages(field).at(-1) ?? new Message(new Uint8Array());
  }

  messages(field: number): Message[] {
    return (this.fields.get(field) ?? []).filter((value) => value instanceof Uint8Array).map((value) => new Message(value));
  }

  /** A repeated number, packed or not. */
  numbers(field: number): number[] {
    return (this.fields.get(field) ?? []).flatMap((value) => {
      if (typeof value === 'bigint') return [Number(value)];
      const reader = new Reader(value);
      const numbers: number[] = [];
      while (reader.at < value.length) numbers.push(Number(reader.varint()));
      return numbers;
    });
  }
}

class Reader {
  at = 0;
  constructor(private readonly from: Uint8Array) {}

  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.from[this.at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new RangeError('a number does not end');
  }

  bytes(length: number): Uint8Array {
    if (length > this.from.length - this.at) throw new RangeError('a field is longer than its message');
    return this.from.subarray(this.at, (this.at += length));
  }

  fixed(size: number): bigint {
    if (size === 0) throw new RangeError('a field is of no known type');
    const bytes = this.bytes(size);
    return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }
}

/** All entries of a file. */
export function readEntries(path: string): Message[] {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new Failure(`cannot read ${path}: ${systemErrorReason(error)}`, { cause: error });
  }
  const damaged = (at: number, why: string): Failure =>
    new Failure(`${path}: at offset 0x${at.toString(16)}: ${why}; take the image from its source again`);
  const magic = bytes.length < 8 ? 0 : bytes.readUInt32LE(0);
  if (magic !== COMMON_MAGIC && magic !== SERVICE_MAGIC && magic !== INVENTORY_MAGIC)
    throw damaged(0, 'this is no file of a CRIU image (no magic number)');
  const entries: Message[] = [];
  for (let at = magic === INVENTORY_MAGIC ? 4 : 8; at < bytes.length;) {
    const size = at + 4 <= bytes.length ? bytes.readUInt32LE(at) : Number.POSITIVE_INFINITY;
    if (size > bytes.length - at - 4) throw damaged(at, 'the file ends inside an entry');
    try {
      entries.push(new Message(bytes.subarray(at + 4, at + 4 + size)));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw damaged(at, `the entry cannot be decoded: ${error.message}`);
    }
    at += 4 + size;
  }
  return entries;
}
