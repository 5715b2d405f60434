import { setMaxListeners } from 'node:events';
import { checkRange, type ByteSource } from '../elf/source.js';
import { imageLocation } from './location.js';
import { ObjectStore } from './object-store.js';

/** Bytes; the metadata of most images is in the first block, so that one request opens them. */
const BLOCK = 1 << 20;
/** The most that one request asks for, in blocks. */
const LARGEST_REQUEST = 8;
/** Blocks that are kept. */
const CACHED = 64;

/**
 * An object, read by ranges in whole blocks. All of it is the object that was opened: when it is replaced, reads fail. Who reads on where
 * the last request ended gets ever larger requests, up to 8 MiB, and then the next is sent before it is asked for.
 */
export class RemoteSource implements ByteSource {
  /** By number; the order is that of use, so that the first is the one to go. */
  private readonly blocks = new Map<number, Promise<Buffer>>();
  private requestEnd = 0;
  private requestSize = 1;
  private readonly closed = new AbortController();

  private constructor(
    readonly name: string,
    readonly size: bigint,
    /** What was stored beside the content. */
    readonly metadata: Record<string, string>,
    readonly etag: string,
    private readonly store: ObjectStore,
    private readonly key: string,
    private readonly ownsStore: boolean,
  ) {
    setMaxListeners(0, this.closed.signal); // every request listens
  }

  /** Opens an object of a store that is the caller's, or with `ownsStore` is closed with the source. */
  static async open(store: ObjectStore, key: string, { ownsStore = false } = {}): Promise<RemoteSource> {
    const { facts, content } = await store.open(key, BLOCK);
    const source = new RemoteSource(store.url(key), facts.size, facts.metadata, facts.etag, store, key, ownsStore);
    source.blocks.set(0, Promise.resolve(content));
    source.requestEnd = 1;
    return source;
  }

  async read(offset: bigint, length: number): Promise<Buffer> {
    checkRange(this, offset, length);
    const buffer = Buffer.allocUnsafe(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    checkRange(this, offset, buffer.length);
    if (buffer.length === 0) return;
    const first = Number(offset / BigInt(BLOCK));
    const last = Number((offset + BigInt(buffer.length) - 1n) / BigInt(BLOCK));
    const wanted: Promise<Buffer>[] = [];
    for (let index = first; index <= last; index++) wanted.push(this.blocks.get(index) ?? this.fetch(index, last));
    const steady = this.requestSize === LARGEST_REQUEST && last < this.requestEnd && last >= this.requestEnd - LARGEST_REQUEST;
    if (steady && BigInt(this.requestEnd) * BigInt(BLOCK) < this.size && !this.blocks.has(this.requestEnd))
      void this.fetch(this.requestEnd, 0);
    for (let at = 0, index = first; index <= last; index++) {
      const block = await wanted[index - first]!;
      this.touch(index);
      at += block.copy(buffer, at, index === first ? Number(offset % BigInt(BLOCK)) : 0);
    }
    this.evict();
  }

  /** Requests block `index` and those behind it that are wanted up to `last` or likely to be next. Gives the first. */
  private fetch(index: number, last: number): Promise<Buffer> {
    this.requestSize = index === this.requestEnd ? Math.min(LARGEST_REQUEST, this.requestSize * 2) : 1;
    const ahead = Math.max(Math.min(last, index + LARGEST_REQUEST - 1), index + this.requestSize - 1);
    const pieces: Buffer[] = [];
    for (let next = index; next <= ahead && !this.blocks.has(next); next++) {
      const left = this.size - BigInt(next) * BigInt(BLOCK);
      if (left <= 0n) break;
      pieces.push(Buffer.allocUnsafe(left < BigInt(BLOCK) ? Number(left) : BLOCK));
    }
    this.requestEnd = index + pieces.length;
    const request = this.store.readInto(this.key, this.etag, BigInt(index) * BigInt(BLOCK), pieces, this.closed.signal);
    for (const [which, piece] of pieces.entries()) {
      const block = request.then(() => piece);
      // What failed is asked for anew by the next who needs it; who awaits it now gets the error.
      block.catch(() => this.blocks.delete(index + which));
      this.blocks.set(index + which, block);
    }
    return this.blocks.get(index)!;
  }

  private touch(index: number): void {
    const block = this.blocks.get(index);
    if (!block) return;
    this.blocks.delete(index);
    this.blocks.set(index, block);
  }

  private evict(): void {
    for (const index of this.blocks.keys()) {
      if (this.blocks.size <= CACHED) break;
      this.blocks.delete(index);
    }
  }

  async close(): Promise<void> {
    this.closed.abort();
    this.blocks.clear();
    if (this.ownsStore) this.store.close();
  }
}

/** The object that an IMAGE argument means, in the store that the environment describes. */
export async function openRemote(url: string): Promise<RemoteSource> {
  const location = imageLocation(url);
  const store = await ObjectStore.connect(location);
  try {
    return await RemoteSource.open(store, location.key, { ownsStore: true });
  } catch (error) {
    store.close();
    throw error;
  }
}
