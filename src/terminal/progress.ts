import { bytes } from './format.js';

const WIDTH = 30;
const REDRAW_MS = 80;

/** A progress bar on stderr; draws nothing when that is not a terminal. */
export class Progress {
  private last = 0;
  private drawn = false;

  constructor(
    /** What is being done. */
    public label: string,
    private readonly stream: NodeJS.WriteStream = process.stderr,
  ) {}

  /** `done` of `total` bytes. */
  update(done: number, total: number): void {
    const now = Date.now();
    if (!this.stream.isTTY || (this.drawn && now - this.last < REDRAW_MS && done < total)) return;
    this.last = now;
    this.drawn = true;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const full = Math.round(share * WIDTH);
    const percent = `${Math.floor(share * 100)}%`.padStart(4);
    this.stream.write(`\r\x1b[K${this.label} ${'█'.repeat(full)}${'·'.repeat(WIDTH - full)}${percent}  ${bytes(done)} of ${bytes(total)}`);
  }

  /** Removes the bar. */
  end(): void {
    if (this.drawn) this.stream.write('\r\x1b[K');
    this.drawn = false;
  }
}
