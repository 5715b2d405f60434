import { compareMetadata } from '../commands/diff.js';
import { diffMemory, type MemoryDifference } from '../elf/memory-diff.js';
import { WORD } from './layout.js';
import { Lazy } from './lazy.js';
import { byteOf, PAGE, readPage, type Page } from './pages.js';
import { PatientSpace, type Patience } from './patience.js';
import type { Owner, Side } from './side.js';
import { DiffRows } from './views/diff.js';
import type { Work } from './work.js';

/** What differs between two images: metadata when it is first asked for, memory when that is compared. */
export class Comparison {
  readonly metadata: Lazy<Awaited<ReturnType<typeof compareMetadata>>>;
  memory: MemoryDifference | null = null;
  private made: { parts: readonly unknown[]; rows: DiffRows } | null = null;

  constructor(
    private readonly a: Side,
    private readonly b: Side,
    owner: Owner,
  ) {
    this.metadata = new Lazy(() => compareMetadata(a.image, b.image), owner.arrived, owner.crashed);
  }

  /** The changes as rows; made again only when something about them is different. */
  rows(document: Awaited<ReturnType<typeof compareMetadata>>, toggled: ReadonlySet<string>): DiffRows {
    const parts = [document, this.memory, toggled] as const;
    if (!this.made || parts.some((part, index) => part !== this.made!.parts[index])) this.made = { parts, rows: new DiffRows(...parts) };
    return this.made.rows;
  }

  /** Compares memory page by page. */
  readonly compareMemory: Work = async (patience, progress) => {
    const [left, right] = [new PatientSpace(this.a.image, patience), new PatientSpace(this.b.image, patience)];
    const total = this.a.image.vmas().reduce((sum, { start, end }) => sum + Number(end - start), 0);
    try {
      this.memory = await diffMemory(left, right, (done) => progress(Number(done), total));
    } finally {
      await Promise.all([left.close(), right.close()]);
    }
  };

  /** The next (1) or previous (-1) word that differs, seen from `from`; null when there is none. Needs compareMemory. */
  async nextDifference(from: bigint, step: -1 | 1, patience: Patience): Promise<bigint | null> {
    for (const page of this.changedPages(step)) {
      if (step > 0 ? page + PAGE <= from : page > from) continue;
      const [one, other] = await Promise.all([readPage(this.a.space, page), readPage(this.b.space, page)]);
      const words = Array.from({ length: Number(PAGE / WORD) }, (_, index) => page + WORD * BigInt(index));
      const behind = step > 0 ? words.filter((word) => word > from) : words.filter((word) => word < from).toReversed();
      const found = behind.find((word) => differs(one, other, word));
      if (found !== undefined) return found;
      await patience.turn();
    }
    return null;
  }

  private *changedPages(step: -1 | 1): Generator<bigint> {
    const ranges = this.memory?.areas.flatMap((area) => area.ranges) ?? [];
    for (const { start, end } of step > 0 ? ranges : ranges.toReversed()) {
      for (let at = start; at < end; at += PAGE) yield step > 0 ? at : end - PAGE - (at - start);
    }
  }
}

function differs(one: Page, other: Page, word: bigint): boolean {
  for (let at = word; at < word + WORD; at++) {
    const [mine, theirs] = [byteOf(one, at), byteOf(other, at)];
    if (mine !== null && theirs !== null && mine !== theirs) return true;
  }
  return false;
}
