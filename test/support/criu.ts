/** Images of CRIU, built in code. */

/** A protobuf message: numbers, texts and messages by field number. */
export type Fields = [field: number, value: bigint | number | string | Buffer][];

export function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  for (let rest = BigInt.asUintN(64, value); ; rest >>= 7n) {
    if (rest < 0x80n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 0x7fn) | 0x80);
  }
}

export const encoded = (fields: Fields): Buffer =>
  Buffer.concat(
    fields.map(([field, value]) => {
      if (typeof value === 'bigint' || typeof value === 'number') return Buffer.concat([varint(BigInt(field * 8)), varint(BigInt(value))]);
      const bytes = Buffer.from(value);
      return Buffer.concat([varint(BigInt(field * 8 + 2)), varint(BigInt(bytes.length)), bytes]);
    }),
  );

export function imageFile(...entries: Fields[]): Buffer {
  const messages = entries.map(encoded).map((message) => {
    const size = Buffer.alloc(4);
    size.writeUInt32LE(message.length);
    return Buffer.concat([size, message]);
  });
  return Buffer.concat([Buffer.from([0x19, 0x43, 0x56, 0x54, 0x16, 0x31, 0x31, 0x58]), ...messages]);
}

const STACK = 0x7ffc_0000_0000n;
const area = (start: bigint, pages: number, status: number, file = 0): Buffer =>
  encoded([[1, start], [2, start + BigInt(pages) * 4096n], [3, 0], [4, file], [5, 3], [6, 2], [7, status]]); // prettier-ignore
const registers = encoded([[17, 0x40_1234n], [20, STACK + 0x800n]]); // prettier-ignore
const core = (name: string): Fields => [
  [2, encoded([[2, registers]])],
  [3, encoded([[1, 1], [5, 0x10], [6, name]])], // prettier-ignore
  [4, encoded([[2, 7]])],
  [5, encoded([[6, 0x20], [10, encoded([[1, 1000], [2, 100]])], [13, name]])], // prettier-ignore
];

/** The files of an image: one process with two threads, and a descriptor of each kind that has a path. */
export const criuImage: Record<string, Buffer> = {
  'inventory.img': imageFile([[1, 2]]),
  'pstree.img': imageFile([[1, 100], [2, 1], [3, 100], [4, 100], [5, 100], [5, 101]]), // prettier-ignore
  'core-100.img': imageFile(core('program')),
  'core-101.img': imageFile(core('worker')),
  'fs-100.img': imageFile([[1, 3]]),
  'ids-100.img': imageFile([[2, 7]]),
  'mm-100.img': imageFile([
    [5, STACK + 0x900n],
    [8, STACK + 0x100n],
    [9, STACK + 0x110n],
    [12, 1],
    [14, area(0x40_0000n, 4, 1 << 6, 1)],
    [14, area(0x100_0000n, 8, 1 << 5)],
    [14, area(STACK, 2, 1 << 1)],
  ]),
  'pagemap-100.img': imageFile(
    [[1, 1]],
    [[1, 0x100_0000n], [2, 4], [4, 4]], // prettier-ignore
    [[1, 0x100_4000n], [2, 1], [4, 1]], // prettier-ignore
    [[1, STACK], [2, 2], [4, 4]], // prettier-ignore
  ),
  'pages-1.img': Buffer.concat([Buffer.alloc(4 * 4096 + 0x100), Buffer.from('program\0--flag\0\0'), Buffer.alloc(2 * 4096 - 0x110)]),
  'files.img': imageFile(
    [[2, 1], [3, encoded([[6, '/usr/bin/program']])]], // prettier-ignore
    [[2, 3], [3, encoded([[6, '/srv']])]], // prettier-ignore
    [[2, 4], [18, encoded([[2, 77]])]], // prettier-ignore
    [[2, 5], [4, encoded([[7, 8080], [8, 0], [11, 0x0100007f]])]], // prettier-ignore
    [[2, 6], [16, encoded([[2, 78], [11, '\0name\0']])]], // prettier-ignore
  ),
  'fdinfo-7.img': imageFile(
    ...[[1, 1], [4, 2], [5, 4], [6, 5]].map(([id, kind], fd): Fields => [[1, id!], [3, kind!], [4, fd]]), // prettier-ignore
  ),
};
