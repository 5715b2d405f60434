/** Images that the engine itself writes, of programs that run as an ordinary user. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ordinaryUser, root } from './cores.js';

const bin = join(root, 'bin/run.js');
const { LD_PRELOAD: _, ...environment } = process.env;

/** The command line as the ordinary user. */
export function toolAsUser(directory: string, ...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [bin, ...argv], {
    cwd: directory,
    encoding: 'utf8',
    env: environment,
    timeout: 60_000,
    maxBuffer: 1 << 28,
    ...ordinaryUser,
  });
}

/** A program with pipes as standard streams that answers lines with lines. */
export class Conversation {
  private readonly lines: AsyncIterator<string>;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;

  constructor(readonly child: ChildProcess) {
    this.lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    this.ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
    child.stdin!.on('error', () => {});
  }

  /** Starts `warp-tool ARGV` as the ordinary user, in `directory`. */
  static start(directory: string, argv: string[], env: Record<string, string> = {}): Conversation {
    const child = spawn(process.execPath, [bin, ...argv], {
      cwd: directory,
      stdio: 'pipe',
      env: { ...environment, ...env },
      ...ordinaryUser,
    });
    child.stderr!.pipe(process.stderr);
    return new Conversation(child);
  }

  /** The next line that the program prints. */
  async line(): Promise<string> {
    return String((await this.lines.next()).value);
  }

  async ask(question = ''): Promise<string> {
    this.child.stdin!.write(`${question}\n`);
    return this.line();
  }

  /** Captures the program into `directory`/`name` and gives that path; the program ends unless `flags` leave it running. */
  checkpoint(directory: string, name: string, ...flags: string[]): string {
    const to = join(directory, name);
    const { status, stderr } = toolAsUser(directory, 'checkpoint', String(this.child.pid), '--to', to, ...flags);
    if (status !== 0) throw new Error(`checkpoint of ${this.child.pid} failed: ${stderr}`);
    return to;
  }

  async kill(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.ended;
  }
}
