import type { ByteSource } from '../../src/elf/source.js';

/** Counts what is read of another source. */
export class CountingSource implements ByteSource {
  /** Bytes. */
  bytes = 0;
  /** Calls. */
  reads = 0;

  constructor(private readonly inner: ByteSource) {}
  get name(): string {
    return this.inner.name;
  }
  get size(): bigint {
    return this.inner.size;
  }
  async read(offset: bigint, length: number): Promise<Buffer> {
    this.bytes += length;
    this.reads++;
    return this.inner.read(offset, length);
  }
  async readInto(offset: bigint, buffer: Buffer): Promise<void> {
    this.bytes += buffer.length;
    this.reads++;
    await this.inner.readInto(offset, buffer);
  }
  async close(): Promise<void> {
    await this.inner.close();
  }
}
