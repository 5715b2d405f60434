import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Failure, systemErrorReason } from '../failure.js';
import { nativeFile } from './native.js';

/** What warp-checkpoint reports with --json-events, one JSON line each. */
type Event =
  | { event: 'log'; level: string; message: string }
  | { event: 'progress'; done: number; total: number }
  | { event: 'error'; message: string }
  | ({ event: 'held' | 'done' } & CheckpointResult);

export interface CheckpointResult {
  image: string;
  bytes: number;
  generation: number;
}

export interface CheckpointObserver {
  log: (level: string, message: string) => void;
  progress: (done: number, total: number) => void;
}

/**
 * Runs warp-checkpoint to its end. Its failure is thrown as a Failure with its own message.
 *
 * @param held with it the process is not ended when its image is durable, but held until this has settled: then it is ended, or goes on where this
 *   rejects, and the error is thrown. When the held process is ended by somebody else, the result is returned all the same: the image is all there is. An
 *   engine of an earlier version (in a restored process) does not hold its process; then this is not called.
 */
export async function runCheckpoint(
  argv: string[],
  observer: CheckpointObserver,
  held?: (result: CheckpointResult) => Promise<unknown>,
): Promise<CheckpointResult> {
  const child = spawn(nativeFile('warp-checkpoint'), [...argv, '--json-events', ...(held ? ['--confirm'] : [])], {
    stdio: [held ? 'pipe' : 'ignore', 'pipe', 'inherit'],
  });
  // It may have ended, by a signal, before it is told.
  child.stdin?.on('error', () => {});
  // Ctrl-C reaches the client by itself (same process group) and makes it give up in good order; wait for that.
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  const ignore = (): void => {};
  process.on('SIGTERM', forward).on('SIGHUP', forward).on('SIGINT', ignore);
  let result: CheckpointResult | undefined;
  let problem: string | undefined;
  let refusal: unknown;
  const hold = async (event: CheckpointResult): Promise<void> => {
    try {
      await held!(event);
      child.stdin!.end('end\n');
    } catch (error) {
      refusal = error;
      child.stdin!.end('continue\n');
    }
  };
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
    child.on('error', (error) => reject(new Failure(`cannot start ${child.spawnfile}: ${systemErrorReason(error)}`, { cause: error })));
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  const lines = (async () => {
    let holding: Promise<void> | undefined;
    for await (const line of createInterface({ input: child.stdout! })) {
      const event = parse(line);
      if (event.event === 'log') observer.log(event.level, event.message);
      else if (event.event === 'progress') observer.progress(event.done, event.total);
      else if (event.event === 'error') problem = event.message;
      else if (event.event === 'held') holding = hold(event);
      else result = { image: event.image, bytes: event.bytes, generation: event.generation };
    }
    await holding;
  })();
  try {
    const [{ code, signal }] = await Promise.all([ended, lines]);
    if (code === 0 && result) return result;
    throw (
      refusal ??
      new Failure(problem ?? (signal ? `the checkpoint client was ended by ${signal}` : `the checkpoint client ended with status ${code}`))
    );
  } finally {
    process.off('SIGTERM', forward).off('SIGHUP', forward).off('SIGINT', ignore);
  }
}

function parse(line: string): Event {
  try {
    return JSON.parse(line) as Event;
  } catch (error) {
    throw new Failure(
      `warp-checkpoint printed something else than JSON: ${line.slice(0, 200)}; run \`npm run build\` to bring both parts together`,
      {
        cause: error,
      },
    );
  }
}
