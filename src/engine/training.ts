/** Restores that are made to learn from them what a program needs, and when. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { Failure, systemErrorReason } from '../failure.js';
import { printable } from '../terminal/format.js';
import { nativeFile } from './native.js';

const RETRY_MS = 20;
const TAIL = 4096;
/** The restorer wipes it as soon as it has read it. A file with a key may be a pipe, which can be read once. */
const KEY_VARIABLE = 'WARP_TOOL_TRAINING_KEY';

export interface Training {
  image: string;
  /** A command for sh(1): the run is over when it ends with 0. */
  until: string | undefined;
  /** Seconds. */
  timeout: number;
  /** As --load-faults takes it. */
  loadFaults: string | undefined;
  /** Of an encrypted image. */
  key: Buffer | undefined;
  /** The program's output goes to stderr rather than nowhere. */
  verbose: boolean;
  signal: AbortSignal;
}

export type RunEnd = 'condition' | 'program ended' | 'timeout';

/**
 * One restore that loads only what the program asks for; `trace` is a file that does not exist yet. The program is killed when its run is over. Returns how
 * that came, and the trace (struct warp_load_event of native/src/engine/control.h).
 *
 * @throws Failure when the restore fails, when the program ends or the time runs out before the condition holds, and when the signal aborts
 */
export async function trainingRun(training: Training, trace: string): Promise<{ end: RunEnd; trace: Buffer }> {
  const { image, until, timeout, loadFaults, key, verbose, signal } = training;
  const argv = [image, '--concurrent', '--no-direct-map', '--load-concurrency', '0', '--load-trace', trace];
  if (loadFaults !== undefined) argv.push('--load-faults', loadFaults);
  if (key) argv.push('--encryption-key-env', KEY_VARIABLE);
  signal.throwIfAborted();
  const program = new Group(nativeFile('warp-restore'), argv, verbose, key && { ...process.env, [KEY_VARIABLE]: key.toString('hex') });
  const over = new AbortController();
  const stop = AbortSignal.any([signal, over.signal]);
  const outcomes: Promise<RunEnd>[] = [program.end.then(() => 'program ended'), pause(timeout * 1000, 'timeout', { signal: stop })];
  const attempts = until === undefined ? undefined : retried(until, stop);
  if (attempts) outcomes.push(attempts.then(() => 'condition'));
  let end: RunEnd;
  try {
    end = await Promise.race(outcomes);
  } finally {
    over.abort();
    await Promise.allSettled([program.kill(), attempts]);
  }
  const events = await readFile(trace).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return Buffer.alloc(0);
    throw error;
  });
  if (end === 'program ended' && (events.length === 0 || until !== undefined)) {
    const what = events.length === 0 ? 'could not be restored' : `ended (${program.status}) before --until ${until} held`;
    throw new Failure(`the program ${what}: ${program.lastLine || 'it said nothing on stderr'}`);
  }
  if (end === 'timeout' && until !== undefined) {
    throw new Failure(
      `--until ${until} did not hold within ${timeout} seconds; try the command beside a restored program, or give it longer with --timeout`,
    );
  }
  if (events.length === 0)
    throw new Failure(
      'nothing of the image was loaded while the program ran: it is too small to gain anything, or this kernel cannot hold up system calls',
    );
  return { end, trace: events };
}

/** Runs a command until it ends with 0; rejects when the signal aborts. */
async function retried(command: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const attempt = new Group('/bin/sh', ['-c', command], false);
    try {
      while (!attempt.ended) await Promise.race([attempt.end, pause(RETRY_MS, undefined, { signal })]);
    } finally {
      await attempt.kill();
    }
    if (attempt.status === 0) return;
    await pause(RETRY_MS, undefined, { signal });
  }
}

/** A program in a process group of its own, so that what it starts can be ended with it. */
class Group {
  readonly end: Promise<void>;
  status: number | NodeJS.Signals | undefined;
  private readonly child: ChildProcess;
  private tail = '';

  constructor(path: string, argv: string[], verbose: boolean, environment = process.env) {
    this.child = spawn(path, argv, { detached: true, stdio: ['ignore', verbose ? 2 : 'ignore', 'pipe'], env: environment });
    this.child.stderr!.on('data', (text: Buffer) => {
      this.tail = (this.tail + text.toString()).slice(-TAIL);
      if (verbose) process.stderr.write(text);
    });
    this.end = new Promise((resolve, reject) => {
      this.child.on('error', (error) => reject(new Failure(`cannot start ${path}: ${systemErrorReason(error)}`, { cause: error })));
      this.child.on('exit', (code, signal) => {
        this.status = code ?? signal!;
        resolve();
      });
    });
    this.end.catch(() => {});
  }

  get ended(): boolean {
    return this.status !== undefined;
  }

  /** What it said last on stderr. */
  get lastLine(): string {
    return printable(this.tail.trimEnd().split('\n').at(-1) ?? '');
  }

  async kill(): Promise<void> {
    if (this.child.pid === undefined) return;
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // all of the group have ended
    }
    this.child.kill('SIGKILL');
    await this.end;
    this.child.stderr!.destroy();
  }
}
