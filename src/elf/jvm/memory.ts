import { Failure } from '../../failure.js';
import type { AddressSpace } from '../address-space.js';

const BLOCK = 65_536;
const PAGE = 4096;
/** Blocks kept: 16 MiB. */
const KEPT = 256;
/** No structure of a virtual machine that is read at once is larger; a damaged length must not fill the memory. */
const LARGEST_READ = 64 << 20;

/** Bytes that a process does not have, or an image does not: what needed them is left out, with this as the reason. */
export class Unreadable extends Failure {
  override name = 'Unreadable';
}

/** The reason in an error of reading; other errors are thrown on. A place outside of what was read is one that damaged data named. */
export function reasonOf(error: unknown): string {
  if (error instanceof Failure) return error.message;
  if (error instanceof RangeError) return 'it is damaged';
  throw error;
}

/**
 * Many small reads of little-endian values from an address space: what was read is kept in blocks. Every read throws `Unreadable` for memory that
 * is not there.
 */
export class CachedMemory {
  /** Null: not all of it can be read. */
  private readonly blocks = new Map<bigint, Buffer | null>();

  constructor(readonly space: AddressSpace) {}

  async bytes(address: bigint, length: number): Promise<Buffer> {
    if (address < BigInt(PAGE) || length < 0 || length > LARGEST_READ || address + BigInt(length) > 1n << 63n) {
      throw new Unreadable(`0x${address.toString(16)} is no address of ${length} bytes`);
    }
    const start = address & -BigInt(BLOCK);
    const at = Number(address - start);
    if (at + length <= BLOCK) {
      let block = this.recent(start);
      if (block === undefined) block = await this.load(start);
      if (block) return block.subarray(at, at + length);
    }
    return length > BLOCK ? this.read(address, length) : this.pieces(address, length);
  }

  /** What does not lie in one whole block: page by page, each kept. */
  private async pieces(address: bigint, length: number): Promise<Buffer> {
    const result = Buffer.alloc(length);
    for (let done = 0; done < length;) {
      const here = address + BigInt(done);
      const start = here & -BigInt(PAGE);
      const inside = Number(here - start);
      const size = Math.min(length - done, PAGE - inside);
      // A page has the address of its second byte as key: its first is that of a block.
      let page = this.recent(start + 1n);
      if (!page) {
        page = await this.read(start, PAGE);
        this.keep(start + 1n, page);
      }
      page.copy(result, done, inside, inside + size);
      done += size;
    }
    return result;
  }

  private async load(start: bigint): Promise<Buffer | null> {
    const block = await this.read(start, BLOCK).catch(() => null);
    this.keep(start, block);
    return block;
  }

  private async read(address: bigint, length: number): Promise<Buffer> {
    try {
      return await this.space.read(address, length);
    } catch (error) {
      throw new Unreadable((error as Error).message, { cause: error });
    }
  }

  private recent(key: bigint): Buffer | null | undefined {
    const block = this.blocks.get(key);
    if (block !== undefined) {
      this.blocks.delete(key);
      this.blocks.set(key, block);
    }
    return block;
  }

  private keep(key: bigint, block: Buffer | null): void {
    this.blocks.set(key, block);
    if (this.blocks.size > KEPT) this.blocks.delete(this.blocks.keys().next().value!);
  }

  async u8(address: bigint): Promise<number> {
    return (await this.bytes(address, 1))[0]!;
  }

  async u16(address: bigint): Promise<number> {
    return (await this.bytes(address, 2)).readUInt16LE();
  }

  async i16(address: bigint): Promise<number> {
    return (await this.bytes(address, 2)).readInt16LE();
  }

  async u32(address: bigint): Promise<number> {
    return (await this.bytes(address, 4)).readUInt32LE();
  }

  async i32(address: bigint): Promise<number> {
    return (await this.bytes(address, 4)).readInt32LE();
  }

  async u64(address: bigint): Promise<bigint> {
    return (await this.bytes(address, 8)).readBigUInt64LE();
  }

  /** A string up to its NUL, at most `limit` bytes of it. */
  async text(address: bigint, limit = 4096): Promise<string> {
    const pieces: Buffer[] = [];
    for (let done = 0; done < limit;) {
      const here = address + BigInt(done);
      // Up to the end of a page: what is behind it may be missing.
      const piece = await this.bytes(here, Math.min(limit - done, PAGE - Number(here & BigInt(PAGE - 1))));
      const end = piece.indexOf(0);
      pieces.push(end < 0 ? piece : piece.subarray(0, end));
      if (end >= 0) break;
      done += piece.length;
    }
    return Buffer.concat(pieces).toString();
  }
}
