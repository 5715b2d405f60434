/** A program that is watched until it is warm, and then captured: container builds. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Failure, systemErrorReason } from '../failure.js';
import { runCheckpoint, type CheckpointResult } from './client.js';
import { packageRoot } from './native.js';
import { engineProcesses } from './processes.js';
import { readinessCheck } from './readiness.js';

const FORWARDED: NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH'];

export interface Supervision {
  /** As readinessCheck takes it. */
  condition: string;
  /** Seconds until it must hold. */
  timeout: number;
  /** What `warp-tool run` is to be given: its flags, `--`, the program and its arguments. */
  runArguments: string[];
  /** The program's environment: that of this process, which has a key, without it. */
  environment: NodeJS.ProcessEnv;
  /** What `warp-checkpoint` is to be given besides the process. */
  checkpointArguments: string[];
  log: (level: string, message: string) => void;
}

/**
 * Starts the program, takes one checkpoint when it is ready, and resolves to the exit status that stands for the program's end: 137 after the
 * checkpoint, its own when it ended before that. When it is not ready in time or the checkpoint fails, the program is ended with SIGTERM and
 * a Failure says why: a build must not succeed without its image.
 */
export async function superviseUntilCheckpoint(supervision: Supervision, taken: (result: CheckpointResult) => void): Promise<number> {
  const child = spawn(process.execPath, [join(packageRoot(), 'bin', 'run.js'), 'run', ...supervision.runArguments], {
    stdio: 'inherit',
    env: supervision.environment,
  });
  const state: { status?: number } = {};
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', (error) => reject(new Failure(`cannot start the program: ${systemErrorReason(error)}`, { cause: error })));
    child.on('exit', (code, signal) => resolve((state.status = code ?? 128 + constants.signals[signal!])));
  });
  ended.catch(() => {});
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of FORWARDED) process.on(signal, forward);
  try {
    if (child.pid === undefined) return await ended;
    const ready = readinessCheck(supervision.condition, child.pid);
    const deadline = performance.now() + supervision.timeout * 1000;
    while (state.status === undefined && !(hasEngine(child.pid) && (await isReady(ready)))) {
      if (performance.now() > deadline) {
        throw new Failure(
          `the program was not ready within ${supervision.timeout} seconds (--checkpoint-when ${supervision.condition}) and was ended; see its output, or give it longer with --checkpoint-timeout`,
        );
      }
      await Promise.race([ended, pause(50)]);
    }
    if (state.status !== undefined) return await ended;
    taken(await runCheckpoint([String(child.pid), ...supervision.checkpointArguments], { log: supervision.log, progress: () => {} }));
    return await ended;
  } catch (error) {
    child.kill('SIGTERM');
    await ended.catch(() => {});
    throw error;
  } finally {
    for (const signal of FORWARDED) process.off(signal, forward);
  }
}

/** Before its own start-up code has run, a program has no engine. */
const hasEngine = (pid: number): boolean => engineProcesses().some((process) => process.pid === pid);

async function isReady(check: () => Promise<boolean>): Promise<boolean> {
  try {
    return await check();
  } catch (error) {
    // The process has ended between two looks at it.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}
