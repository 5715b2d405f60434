import { Failure } from '../failure.js';
import { printable } from '../terminal/format.js';
import { Patience, Stopped } from './patience.js';
import type { Action, Task } from './state.js';

/** Progress is shown at most this often, in milliseconds. */
const PROGRESS_STEP = 100;

export type Work = (patience: Patience, progress: (done: number, total: number) => void) => Promise<void>;

interface Owner {
  dispatch: (action: Action) => void;
  crashed: (error: unknown) => void;
}

/** Work that takes a while: one at a time, with its progress on the screen, until it is done or stopped. */
export class LongWork {
  private current: { controller: AbortController; done: Promise<void> } | null = null;

  constructor(private readonly owner: Owner) {}

  get running(): boolean {
    return this.current !== null;
  }

  stop(): void {
    this.current?.controller.abort();
  }

  /** Stops what is under way and begins `work`. A Failure of it becomes a notice. */
  start(label: string, work: Work, unit: Task['unit'] = 'bytes'): void {
    const { owner, current: before } = this;
    before?.controller.abort();
    const controller = new AbortController();
    const isCurrent = (): boolean => this.current?.controller === controller;
    let shown = 0;
    const progress = (done: number, total: number): void => {
      if (controller.signal.aborted) throw new Stopped();
      const now = performance.now();
      if (now - shown < PROGRESS_STEP) return;
      shown = now;
      owner.dispatch({ type: 'task', task: { label, done, total, unit } });
    };
    const run = async (): Promise<void> => {
      await before?.done;
      try {
        await work(new Patience(controller.signal), progress);
      } catch (error) {
        if (error instanceof Failure) owner.dispatch({ type: 'notice', notice: { text: printable(error.message), tone: 'bad' } });
        else if (!(error instanceof Stopped)) owner.crashed(error);
        else if (isCurrent()) owner.dispatch({ type: 'notice', notice: { text: `${label}: stopped`, tone: 'plain' } });
      } finally {
        if (isCurrent()) {
          this.current = null;
          owner.dispatch({ type: 'task', task: null });
        }
      }
    };
    owner.dispatch({ type: 'task', task: { label, done: 0, total: 0, unit } });
    this.current = { controller, done: run() };
  }

  async close(): Promise<void> {
    this.stop();
    await this.current?.done;
  }
}
