import { setMaxListeners } from 'node:events';

/**
 * Runs `start` for 0 … `count` - 1, at most `parallel` of them at once, and gives the results in order. When one fails, or the caller stops
 * early, or `signal` aborts, the others are told by the signal that they got, and have ended when this ends.
 */
export async function* inOrder<T>(
  count: number,
  parallel: number,
  signal: AbortSignal | undefined,
  start: (index: number, signal: AbortSignal) => Promise<T>,
): AsyncGenerator<T> {
  const own = new AbortController();
  setMaxListeners(0, own.signal); // every request listens
  const abort = (): void => own.abort(signal?.reason);
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  const running: Promise<T>[] = [];
  try {
    for (let next = 0; next < count || running.length > 0;) {
      while (next < count && running.length < parallel) {
        const result = start(next++, own.signal);
        result.catch(() => {}); // it is looked at when its turn comes
        running.push(result);
      }
      yield await running[0]!;
      void running.shift();
    }
  } finally {
    own.abort();
    await Promise.allSettled(running);
    signal?.removeEventListener('abort', abort);
  }
}
