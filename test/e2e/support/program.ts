/** Starting, capturing and restoring real programs as the unprivileged test user. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { buildLauncher } from '../../programs/build.mjs';
import { makeDirectory, node, projectFile, user } from './host.js';

/** How long anything may take before the test gives up on it, in milliseconds of which the program was not kept from running. Only a hang reaches it. */
const patience = 60_000;

/** How long the threads of a process ran, and waited for a processor, in milliseconds (/proc/PID/task/TID/schedstat). */
function scheduled(pid: number): { ran: number; waited: number } {
  const sum = { ran: 0, waited: 0 };
  try {
    for (const tid of readdirSync(`/proc/${pid}/task`)) {
      const [ran, waited] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ').map(Number);
      sum.ran += ran! / 1e6;
      sum.waited += waited! / 1e6;
    }
  } catch {
    // It ends, or the kernel does not tell: then all time counts.
  }
  return sum;
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
}

const running = new Set<Program>();
process.once('exit', () => running.forEach((program) => program.child.kill('SIGKILL')));

/** A process that a test started. It is killed at the latest when the test file ends, or by killAll(). */
export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  private end: Ended | undefined;
  private readonly waiters = new Set<() => void>();

  constructor(child: ChildProcess) {
    this.child = child;
    running.add(this);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => this.received('stdout', text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.received('stderr', text));
    this.ended = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => {
        running.delete(this);
        this.end = { code, signal };
        resolve(this.end);
        this.waiters.forEach((wake) => wake());
      });
    });
    this.ended.catch(() => {});
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the program could not be started');
    return this.child.pid;
  }

  private received(stream: 'stdout' | 'stderr', text: string): void {
    this[stream] += text;
    this.waiters.forEach((wake) => wake());
  }

  /** Resolves to the match when stdout (or stderr) matches; rejects when the program ends or hangs before that. */
  output(pattern: RegExp, stream: 'stdout' | 'stderr' = 'stdout'): Promise<RegExpExecArray> {
    return this.until(() => pattern.exec(this[stream]), `printed ${pattern}`);
  }

  /** Resolves when the program has gone on: `count` further matches of the pattern (with flag g) on stdout. */
  async goesOn(pattern = /^tick \d+$/gm, count = 3): Promise<void> {
    const from = this.stdout.length;
    await this.until(() => (this.stdout.slice(from).match(pattern)?.length ?? 0) >= count || undefined, `went on (${pattern})`);
  }

  private async until<T>(look: () => T | null | undefined, what: string): Promise<T> {
    const [since, before] = [Date.now(), scheduled(this.pid)];
    for (;;) {
      const found = look();
      if (found !== null && found !== undefined) return found;
      if (this.end) throw new Error(`the program ended (${describe(this.end)}) before it ${what}${this.tail()}`);
      const [elapsed, { ran, waited }] = [Date.now() - since, scheduled(this.pid)];
      const spent = Math.max(Math.min(elapsed, ran - before.ran), elapsed - Math.max(0, waited - before.waited));
      if (spent > patience) throw new Error(`the program has not ${what}; is it stuck?${this.stuck()}${this.tail()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, 1000);
        const waiters = this.waiters;
        function done(): void {
          clearTimeout(timer);
          waiters.delete(done);
          resolve();
        }
        waiters.add(done);
      });
    }
  }

  /** Ends the program, if it still runs, and waits for its end. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    if (this.child.exitCode === null && this.child.signalCode === null) await new Promise((resolve) => this.child.once('exit', resolve));
    running.delete(this);
  }

  private tail(): string {
    return `\n--- its stdout ends\n${this.stdout.slice(-1500)}\n--- its stderr ends\n${this.stderr.slice(-3000)}`;
  }

  /** What each thread waits in: the first thing to know about a hang. */
  private stuck(): string {
    try {
      const tasks = `/proc/${this.pid}/task`;
      const lines = readdirSync(tasks).map((tid) => {
        const status = readFileSync(join(tasks, tid, 'status'), 'utf8');
        const state = /State:\s+(.*)/.exec(status)?.[1];
        const blocked = /SigBlk:\s+(.*)/.exec(status)?.[1];
        return `${tid} ${readFileSync(join(tasks, tid, 'comm'), 'utf8').trim()}: ${state}, mask ${blocked}`;
      });
      return `\n--- its threads\n${lines.join('\n')}`;
    } catch {
      return '';
    }
  }
}

function describe(end: Ended): string {
  return end.signal ?? `status ${end.code}`;
}

/** Ends everything that is still running; for afterEach. */
export async function killAll(): Promise<void> {
  await Promise.all([...running].map((program) => program.kill()));
}

export interface StartOptions {
  environment?: Record<string, string>;
  directory?: string;
  stdin?: 'pipe' | 'ignore' | number;
  stdout?: 'pipe' | number;
  /** Further descriptors, from 3 on. */
  descriptors?: number[];
  /** Another library to preload behind the engine. */
  preload?: string;
}

const logLevel = process.env['WARP_TEST_LOG_LEVEL'];

function environment(extra: Record<string, string> = {}): Record<string, string> {
  return { PATH: '/usr/local/bin:/usr/bin:/bin', LANG: 'C.UTF-8', ...(logLevel && { WARP_LOG_LEVEL: logLevel }), ...extra };
}

/** Runs any command as the test user. */
export function run(executable: string, args: string[], options: StartOptions = {}): Program {
  return new Program(
    spawn(executable, args, {
      ...user,
      cwd: options.directory ?? '/',
      env: environment(options.environment),
      stdio: [options.stdin ?? 'ignore', options.stdout ?? 'pipe', 'pipe', ...(options.descriptors ?? [])],
    }),
  );
}

/** Command that starts a program with a preload library (first argument) and no descriptors but the standard ones. */
export function launcher(): string {
  buildLauncher();
  return projectFile('test/programs/build/launch');
}

/** Starts a program ready to be captured, by the preload library alone. */
export function start(executable: string, args: string[], options: StartOptions = {}): Program {
  const preload = [projectFile('native/build/libwarp.so'), ...(options.preload ? [options.preload] : [])].join(':');
  return run(launcher(), [preload, executable, ...args], options);
}

/** Restores an image by the static executable. */
export function restore(image: string, args: string[] = [], options: StartOptions = {}): Program {
  const level = logLevel ? ['--log-level', logLevel] : [];
  const more = (process.env['WARP_TEST_RESTORE_FLAGS'] ?? '').split(' ').filter((flag) => flag !== '');
  return run(projectFile('native/build/warp-restore'), [image, ...level, ...more, ...args], options);
}

/** Runs the command line as the test user. */
export function warpTool(args: string[], options: StartOptions = {}): Program {
  return run(node(), [projectFile('bin/run.js'), ...args], options);
}

/** Runs the native checkpoint client and resolves when it has ended. */
export async function runCheckpoint(
  pid: number,
  directory: string,
  args: string[] = [],
): Promise<Ended & { stdout: string; stderr: string }> {
  const client = run(projectFile('native/build/warp-checkpoint'), [String(pid), '--to', directory, ...args]);
  const ended = await client.ended;
  return { ...ended, stdout: client.stdout, stderr: client.stderr };
}

/** Captures a program into a new directory and returns that; throws with the client's words when it fails. */
export async function checkpoint(program: Program | number, args: string[] = []): Promise<string> {
  const image = join(makeDirectory(), 'image');
  const pid = typeof program === 'number' ? program : program.pid;
  const result = await runCheckpoint(pid, image, args);
  if (result.code !== 0) {
    const words =
      typeof program === 'number'
        ? ''
        : `\n--- the program's stdout\n${program.stdout.slice(-1500)}\n--- its stderr\n${program.stderr.slice(-3000)}`;
    throw new Error(`warp-checkpoint ended with ${describe(result)}: ${result.stderr}${words}`);
  }
  if (!existsSync(join(image, 'core.img'))) throw new Error('warp-checkpoint reported success but left no core.img');
  return image;
}

/** Captures a program, which then dies of SIGKILL. */
export async function checkpointAndEnd(program: Program, args: string[] = []): Promise<string> {
  const image = await checkpoint(program, args);
  const ended = await program.ended;
  if (ended.signal !== 'SIGKILL') throw new Error(`after its checkpoint the program ended with ${describe(ended)}, not SIGKILL`);
  return image;
}
