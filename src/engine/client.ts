import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Failure, systemErrorReason } from '../failure.js';
import { nativeFile } from './native.js';

/** What warp-checkpoint reports with --json-events, one JSON line each. */
type Event =
  | { event: 'log'; level: string; message: string }
  | { event: 'progress'; done: number; total: number }
  | { event: 'error'; message: string }
  | { event: 'done'; image: string; bytes: number; generation: number };

export interface CheckpointResult {
  image: string;
  bytes: number;
  generation: number;
}

/** Runs warp-checkpoint to its end. Its failure is thrown as a Failure with its own message. */
export async function runCheckpoint(
  argv: string[],
  observer: { log: (level: string, message: string) => void; progress: (done: number, total: number) => void },
): Promise<CheckpointResult> {
  const child = spawn(nativeFile('warp-checkpoint'), [...argv, '--json-events'], { stdio: ['ignore', 'pipe', 'inherit'] });
  // Ctrl-C reaches the client by itself (same process group) and makes it give up in good order; wait for that.
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  const ignore = (): void => {};
  process.on('SIGTERM', forward).on('SIGHUP', forward).on('SIGINT', ignore);
  let result: CheckpointResult | undefined;
  let problem: string | undefined;
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
    child.on('error', (error) => reject(new Failure(`cannot start ${child.spawnfile}: ${systemErrorReason(error)}`, { cause: error })));
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  const lines = (async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const event = parse(line);
      if (event.event === 'log') observer.log(event.level, event.message);
      else if (event.event === 'progress') observer.progress(event.done, event.total);
      else if (event.event === 'error') problem = event.message;
      else result = { image: event.image, bytes: event.bytes, generation: event.generation };
    }
  })();
  try {
    const [{ code, signal }] = await Promise.all([ended, lines]);
    if (code === 0 && result) return result;
    throw new Failure(
      problem ?? (signal ? `the checkpoint client was ended by ${signal}` : `the checkpoint client ended with status ${code}`),
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
