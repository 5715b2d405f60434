import { AddressSpace, type Range, type Run } from '../elf/address-space.js';
import type { Image } from '../elf/image.js';
import type { Vma } from '../elf/vmas.js';

/** The keyboard gets its turn at least this often, in milliseconds. */
const TURN = 20;

/** Thrown in work that the user stopped. */
export class Stopped extends Error {
  override name = 'Stopped';
}

/** Lets long work give way: to the keyboard now and then, and for good when it is to stop. */
export class Patience {
  private last = performance.now();

  constructor(readonly signal: AbortSignal) {}

  async turn(): Promise<void> {
    if (performance.now() - this.last > TURN) {
      await new Promise((resolve) => setImmediate(resolve));
      this.last = performance.now();
    }
    this.check();
  }

  check(): void {
    if (this.signal.aborted) throw new Stopped();
  }
}

/** An address space whose walks give way: a million areas take a while even where nothing is read. */
export class PatientSpace extends AddressSpace {
  constructor(
    image: Image,
    private readonly patience: Patience,
  ) {
    super(image);
  }

  override async *runs(range?: Range, selects?: (vma: Vma) => boolean): AsyncGenerator<Run> {
    for await (const run of super.runs(range, selects)) {
      await this.patience.turn();
      yield run;
    }
  }
}
