import xxhash, { type XXHashAPI } from 'xxhash-wasm';

let loading: Promise<XXHashAPI> | undefined;

/** XXH64 with seed 0, the hash of docs/image-format.md, once its code is loaded. */
export async function xxh64Function(): Promise<(content: Uint8Array) => bigint> {
  loading ??= xxhash();
  const { h64Raw } = await loading;
  return (content) => h64Raw(content, 0n);
}

export async function xxh64(content: Uint8Array): Promise<bigint> {
  return (await xxh64Function())(content);
}
