/** Reads typed values from raw bytes, little-endian. */
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
