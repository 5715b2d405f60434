import { readRun, type AddressSpace, type Range } from '../elf/address-space.js';
import { Failure } from '../failure.js';

export const PAGE = 4096n;
const PAGE_BYTES = Number(PAGE);
const MOST_PAGES = 512;

/** Where a byte comes from; `unmapped` and `absent` bytes have no value. */
export const ORIGINS = ['unmapped', 'image', 'zero', 'file', 'absent'] as const;
export type Origin = (typeof ORIGINS)[number];

/** One page of memory as the image tells it. */
export interface Page {
  bytes: Buffer;
  /** Of each byte: index into ORIGINS. */
  origins: Uint8Array;
  /** Why absent bytes cannot be had. */
  reason: string | null;
}

/**
 * Pages of an address space for a screen: asked for again and again, read once, the oldest forgotten. What is asked for while something is
 * read replaces what was asked for before: who scrolls fast does not wait for what has passed.
 */
export class Pages {
  private readonly pages = new Map<bigint, Page>();
  private readonly wanted = new Set<bigint>();
  /** The page that is being read. */
  private current: bigint | null = null;
  private reading: Promise<void> | null = null;
  private closed = false;

  /** `arrived` is called when pages came that were not there before, `failed` when one cannot be read. */
  constructor(
    private readonly space: AddressSpace,
    private readonly arrived: () => void,
    private readonly failed: (error: unknown) => void,
  ) {}

  /** The page that holds `address`, as far as it has been read. */
  at(address: bigint): Page | undefined {
    return this.pages.get(address & -PAGE);
  }

  /** Reads the pages of these ranges that are not there yet. */
  want(ranges: readonly Range[]): void {
    this.wanted.clear();
    for (const { start, end } of ranges) {
      for (let page = start & -PAGE; page < end; page += PAGE) if (!this.pages.has(page) && page !== this.current) this.wanted.add(page);
    }
    if (this.wanted.size > 0) this.reading ??= this.readWanted();
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.reading;
  }

  private async readWanted(): Promise<void> {
    try {
      for (const page of this.wanted) {
        if (this.closed) return;
        this.current = page;
        this.wanted.delete(page);
        this.pages.set(page, await readPage(this.space, page));
        if (this.pages.size > MOST_PAGES) this.pages.delete(this.pages.keys().next().value!);
        if (this.wanted.size === 0 && !this.closed) this.arrived();
      }
    } catch (error) {
      this.failed(error);
    } finally {
      this.current = null;
      this.reading = null;
    }
  }
}

/** A page as it is in the image; what cannot be read (a damaged chunk, say) is absent, with the reason. */
export async function readPage(space: AddressSpace, address: bigint): Promise<Page> {
  const page: Page = { bytes: Buffer.alloc(PAGE_BYTES), origins: new Uint8Array(PAGE_BYTES), reason: null };
  const put = (origin: Origin, from: number, to: number): unknown => page.origins.fill(ORIGINS.indexOf(origin), from, to);
  for await (const run of space.runs({ start: address, end: address + PAGE })) {
    const from = Number(run.start - address);
    const to = Number(run.end - address);
    put(run.from, from, to);
    if (run.from === 'absent') {
      page.reason ??= run.reason;
      continue;
    }
    try {
      await readRun(run, page.bytes.subarray(from, to));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      put('absent', from, to);
      page.reason = error.message;
    }
  }
  return page;
}

/** The byte at `address`; null where it is not mapped, cannot be had, or has not been read yet. */
export function byteOf(page: Page | undefined, address: bigint): number | null {
  const at = Number(address & (PAGE - 1n));
  return page && hasValue(page.origins[at]!) ? page.bytes[at]! : null;
}

/** The little-endian word at `address`, a multiple of 8; null where a byte of it has no value. */
export function wordOf(page: Page | undefined, address: bigint): bigint | null {
  const at = Number(address & (PAGE - 1n));
  for (let byte = at; byte < at + 8; byte++) if (!page || !hasValue(page.origins[byte]!)) return null;
  return page!.bytes.readBigUInt64LE(at);
}

export function originOf(page: Page, address: bigint): Origin {
  return ORIGINS[page.origins[Number(address & (PAGE - 1n))]!]!;
}

function hasValue(origin: number): boolean {
  return origin >= 1 && origin <= 3;
}
