import { createHash, randomUUID } from 'node:crypto';
import { Image } from '../elf/image.js';
import { FileSource, openSource, type ByteSource } from '../elf/source.js';
import { Failure } from '../failure.js';
import { firstDamage } from './damage.js';
import { inOrder } from './in-order.js';
import { imageLocation } from './location.js';
import { CONTENT_HASH, encodeFacts, factsOfImage, PUSH_ID, type ImageFacts } from './metadata.js';
import { ObjectStore, type ObjectFacts, type Part, type Replaceable, type StoreOptions } from './object-store.js';

export interface TransferOptions extends StoreOptions {
  /** Take the place of what is there already. */
  force: boolean;
  /** ETag of the only object whose place may be taken. */
  replaces?: string | undefined;
  /** Requests at once. */
  parallel: number;
  /** Ends the transfer; nothing stays behind. */
  signal: AbortSignal;
  /** `done` of `total` bytes of a step. */
  progress: (step: string, done: number, total: number) => void;
}

export interface Pushed extends ImageFacts {
  url: string;
  /** Bytes. */
  size: bigint;
  /** Requests that carried content. */
  parts: number;
  sha256: string;
  etag: string;
  version: string | null;
}

const SMALLEST_PART = 16 << 20;
const MOST_PARTS = 10_000;
const MIB = 1 << 20;
const HASH_WINDOW = 4 << 20;

/**
 * Uploads the image that `argument` means. It is checked against its own checksums first; the object is there when all of it is, and not
 * before; afterwards the store is asked what it has.
 */
export async function push(argument: string, url: string, options: TransferOptions): Promise<Pushed> {
  const source = await openSource(argument);
  const image = await Image.from(source);
  try {
    const target = imageLocation(url);
    const store = await ObjectStore.connect(target, options);
    try {
      return await pushImage(image, source, store, target.key, options);
    } finally {
      store.close();
    }
  } finally {
    await image.close();
  }
}

async function pushImage(image: Image, source: ByteSource, store: ObjectStore, key: string, options: TransferOptions): Promise<Pushed> {
  const { force, replaces, signal } = options;
  const replaceable: Replaceable = replaces !== undefined ? { etag: replaces } : force ? 'anything' : 'nothing';
  const progress: typeof options.progress = (...step) => {
    signal.throwIfAborted();
    options.progress(...step);
  };
  const url = store.url(key);
  const taken = (): Failure =>
    new Failure(
      replaces === undefined
        ? `${url} is there already; choose another key, or replace it with --force`
        : `${url} was replaced or removed by somebody else meanwhile`,
    );
  // The store decides in the end; this spares sending gigabytes in vain.
  if (!(await store.mayReplace(key, replaceable))) throw taken();

  const version = source instanceof FileSource ? source.version() : null;
  const damage = await firstDamage(image, (done, total) => progress('checking', Number(done), Number(total)));
  if (damage) throw new Failure(`${source.name} is damaged: ${damage.problem}; ${damage.mend}`);
  const facts = factsOfImage(image);
  const sha256 = await hashOf(source, (done) => progress('hashing', done, Number(source.size)));
  const metadata = { ...encodeFacts(facts), [CONTENT_HASH]: sha256, [PUSH_ID]: randomUUID() };

  const partSize = partSizeFor(source.size);
  const parts = Number((source.size + BigInt(partSize) - 1n) / BigInt(partSize));
  const checkUnchanged = (): void => {
    if (source instanceof FileSource && source.version() !== version) {
      throw new Failure(`${source.name} changed while it was sent; let its writer finish, then push again`);
    }
  };
  let object: ObjectFacts;
  if (parts <= 1) {
    const content = await source.read(0n, Number(source.size));
    checkUnchanged();
    object = await settled(store, key, metadata, () => store.put(key, content, metadata, replaceable, signal), taken);
    progress('sending', content.length, content.length);
  } else {
    const upload = await store.createUpload(key, metadata);
    try {
      const sent = await sendParts(source, store, key, upload, partSize, parts, options);
      checkUnchanged();
      signal.throwIfAborted();
      // Not all stores know conditions here: this leaves them a moment instead of the whole upload.
      if (!(await store.mayReplace(key, replaceable))) throw taken();
      object = await settled(store, key, metadata, () => store.completeUpload(key, upload, sent, replaceable), taken);
    } catch (error) {
      await store.abortUpload(key, upload).catch((problem: Error) => {
        throw new Failure(`${(error as Error).message}; and ${problem.message}`, { cause: error });
      });
      throw error;
    }
  }
  if (object.size !== source.size)
    throw new Failure(`${url} has ${object.size} bytes instead of ${source.size}; push it again with --force`);
  return { url, size: source.size, parts, sha256, etag: object.etag, version: object.version, ...facts };
}

/**
 * Does what makes the object visible and gives the object that is there then. When the answer got lost, or a repeated request was told that the
 * object exists, the object itself tells whose it is.
 */
async function settled(
  store: ObjectStore,
  key: string,
  metadata: Record<string, string>,
  finish: () => Promise<boolean>,
  taken: () => Failure,
): Promise<ObjectFacts> {
  let failure: unknown;
  try {
    if (!(await finish())) failure = taken();
  } catch (error) {
    failure = error;
  }
  const object = await store.head(key).catch((error: unknown) => {
    throw failure ?? error;
  });
  if (object && object.metadata[PUSH_ID] === metadata[PUSH_ID]) return object;
  throw failure ?? new Failure(`${store.url(key)} was replaced by somebody else right after it was written; see \`warp-tool list\``);
}

async function sendParts(
  source: ByteSource,
  store: ObjectStore,
  key: string,
  upload: string,
  partSize: number,
  count: number,
  { parallel, signal, progress }: TransferOptions,
): Promise<Part[]> {
  const buffers: Buffer[] = [];
  const sent: Part[] = [];
  let done = 0;
  const parts = inOrder(count, parallel, signal, async (index, abort) => {
    const offset = BigInt(index) * BigInt(partSize);
    const left = source.size - offset;
    // Memory that was used before costs less than fresh pages.
    const buffer = buffers.pop() ?? Buffer.allocUnsafeSlow(partSize);
    const content = left < BigInt(partSize) ? buffer.subarray(0, Number(left)) : buffer;
    await source.readInto(offset, content);
    const part = await store.uploadPart(key, upload, index + 1, content, abort);
    buffers.push(buffer);
    done += content.length;
    progress('sending', done, Number(source.size));
    return part;
  });
  for await (const part of parts) sent.push(part);
  return sent;
}

/** Bytes: as many as it takes to stay below the limit of 10,000 parts, whole mebibytes. */
function partSizeFor(size: bigint): number {
  return Math.max(SMALLEST_PART, Math.ceil(Number(size) / MOST_PARTS / MIB) * MIB);
}

async function hashOf(source: ByteSource, progress: (done: number) => void): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafeSlow(HASH_WINDOW);
  for (let at = 0n; at < source.size;) {
    const left = source.size - at;
    const piece = left < BigInt(HASH_WINDOW) ? buffer.subarray(0, Number(left)) : buffer;
    await source.readInto(at, piece);
    hash.update(piece);
    at += BigInt(piece.length);
    progress(Number(at));
  }
  return hash.digest('hex');
}
