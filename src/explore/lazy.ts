import { Failure } from '../failure.js';

export type Loaded<T> = { status: 'loading' } | { status: 'ready'; value: T } | { status: 'failed'; reason: string };

/** Something that is loaded when it is first asked for. A Failure is an answer; any other error goes to `crashed`. */
export class Lazy<T> {
  private loaded: Loaded<T> | null = null;

  constructor(
    private readonly load: () => Promise<T>,
    private readonly arrived: () => void,
    private readonly crashed: (error: unknown) => void,
  ) {}

  get(): Loaded<T> {
    if (!this.loaded) {
      this.loaded = { status: 'loading' };
      void this.begin();
    }
    return this.loaded;
  }

  /** What is there already. */
  peek(): T | null {
    return this.loaded?.status === 'ready' ? this.loaded.value : null;
  }

  private async begin(): Promise<void> {
    try {
      this.loaded = { status: 'ready', value: await this.load() };
      this.arrived();
    } catch (error) {
      if (!(error instanceof Failure)) return this.crashed(error);
      this.loaded = { status: 'failed', reason: error.message };
      this.arrived();
    }
  }
}
