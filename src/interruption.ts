import { constants } from 'node:os';
import { Failure } from './failure.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Lets `work` clean up when the process is told to end: its signal aborts, and when it has failed for that reason, the process dies of the signal that it
 * got, as the shell expects. A second signal ends it at once.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let received: NodeJS.Signals | undefined;
  const interrupt = (signal: NodeJS.Signals): void => {
    received = signal;
    restore();
    controller.abort();
  };
  const restore = (): void => {
    for (const signal of SIGNALS) process.off(signal, interrupt);
  };
  for (const signal of SIGNALS) process.on(signal, interrupt);
  try {
    return await work(controller.signal);
  } catch (error) {
    if (received === undefined) throw error;
    // A transfer that the interruption cuts off may end as one that the other side has cut off.
    const told = error instanceof Failure && (error.cause as NodeJS.ErrnoException | undefined)?.code !== 'ECONNRESET';
    process.stderr.write(`warp-tool: interrupted${told ? `: ${error.message}` : '; nothing was left behind'}\n`);
    process.kill(process.pid, received);
    process.exit(128 + constants.signals[received]);
  } finally {
    restore();
  }
}
