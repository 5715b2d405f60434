/** Makes the hashes of an image right again after its bytes were changed on purpose. */
import { readFileSync, writeFileSync } from 'node:fs';
import xxhash from 'xxhash-wasm';

const anchor = 64;
const chunksNote = 0x57415217;

/** Computes every chunk's hash and the metadata's from the bytes that are there (docs/image-format.md). */
export async function rehash(file: string): Promise<void> {
  const { h64Raw } = await xxhash();
  const bytes = readFileSync(file);
  const metadataSize = Number(bytes.readBigUInt64LE(anchor + 16));
  const notes = Number(bytes.readBigUInt64LE(anchor + 48));
  const end = notes + Number(bytes.readBigUInt64LE(anchor + 56));
  for (let at = notes; at < end;) {
    const nameSize = bytes.readUInt32LE(at);
    const payloadSize = bytes.readUInt32LE(at + 4);
    const payload = at + 12 + Math.ceil(nameSize / 4) * 4;
    if (bytes.readUInt32LE(at + 8) === chunksNote) {
      const recordSize = bytes.readUInt32LE(payload);
      for (let index = 0; index < bytes.readUInt32LE(payload + 4); index++) {
        const record = payload + 16 + index * recordSize;
        const offset = Number(bytes.readBigUInt64LE(record + 8));
        const hash = h64Raw(bytes.subarray(offset, offset + bytes.readUInt32LE(record + 20)));
        bytes.writeBigUInt64LE(hash, record + 24);
        bytes.writeBigUInt64LE(hash, record + 32);
      }
    }
    at = payload + Math.ceil(payloadSize / 4) * 4;
  }
  bytes.writeBigUInt64LE(0n, anchor + 24);
  bytes.writeBigUInt64LE(h64Raw(bytes.subarray(0, metadataSize)), anchor + 24);
  writeFileSync(file, bytes);
}
