import { Failure } from '../failure.js';

/** Typed values in raw bytes, little-endian. */
interface ValueType {
  /** Bytes; 0 for text that ends with NUL. */
  size: number;
  text: (bytes: Buffer) => string;
}

const integer = (size: number, signed: boolean): ValueType => ({
  size,
  text: (bytes) => {
    if (size === 8) return String(signed ? bytes.readBigInt64LE() : bytes.readBigUInt64LE());
    return String(signed ? bytes.readIntLE(0, size) : bytes.readUIntLE(0, size));
  },
});

export const valueTypes = {
  u8: integer(1, false),
  u16: integer(2, false),
  u32: integer(4, false),
  u64: integer(8, false),
  i8: integer(1, true),
  i16: integer(2, true),
  i32: integer(4, true),
  i64: integer(8, true),
  f32: { size: 4, text: (bytes: Buffer) => String(bytes.readFloatLE()) },
  f64: { size: 8, text: (bytes: Buffer) => String(bytes.readDoubleLE()) },
  ptr: { size: 8, text: (bytes: Buffer) => `0x${bytes.readBigUInt64LE().toString(16)}` },
  cstr: { size: 0, text: (bytes: Buffer) => bytes.toString() },
} as const satisfies Record<string, ValueType>;

export type ValueTypeName = keyof typeof valueTypes;

/** The bytes of a value that is written as JavaScript or C write numbers; fails where it is none of this type. */
export function bytesOfValue(type: ValueTypeName, text: string): Buffer {
  const refuse = (problem: string): never => {
    throw new Failure(`${text} is no ${type}: ${problem}`);
  };
  const { size } = valueTypes[type];
  if (size === 0) return refuse('search for text with --text');
  const raw = Buffer.alloc(size);
  if (type === 'f32' || type === 'f64') {
    const value = Number(text);
    if (text.trim() === '' || Number.isNaN(value)) return refuse('give a number like 1.5 or 1e-3');
    if (size === 4) raw.writeFloatLE(value);
    else raw.writeDoubleLE(value);
    return raw;
  }
  if (!/^-?(?:0x[0-9a-f]+|[0-9]+)$/i.test(text)) return refuse('give a whole number, decimal or with 0x');
  const value = text.startsWith('-') ? -BigInt(text.slice(1)) : BigInt(text);
  const bits = size * 8;
  const fits = type.startsWith('i') ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value);
  if (fits !== value) return refuse(`it does not fit into ${bits} bits`);
  const all = Buffer.alloc(8);
  all.writeBigUInt64LE(BigInt.asUintN(64, value));
  return all.subarray(0, size);
}
