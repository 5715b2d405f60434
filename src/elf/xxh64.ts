import xxhash, { type XXHashAPI } from 'xxhash-wasm';

let loading: Promise<XXHashAPI> | undefined;

/** XXH64 with seed 0, the hash of docs/image-format.md. */
export async function xxh64(content: Uint8Array): Promise<bigint> {
  loading ??= xxhash();
  return (await loading).h64Raw(content, 0n);
}
