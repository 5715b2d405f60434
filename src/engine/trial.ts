import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { runCheckpoint } from './client.js';
import type { HostCheck } from './host.js';
import { packageRoot } from './native.js';

const TIMEOUT_MS = 20_000;

/** A counter that lives in a shell variable: each line it reads makes it print the next number. */
const COUNTER = 'n=0; while read line; do n=$((n + 1)); echo $n; done';

/** Checkpoints and restores a small shell and sees whether it goes on where it was. */
export async function tryEngine(): Promise<HostCheck> {
  const directory = mkdtempSync(join(tmpdir(), 'warp-tool-doctor-'));
  const children: ChildProcess[] = [];
  // Through the command line itself, as a user would: that tries how programs are launched, too.
  const start = (...argv: string[]): Counter => {
    const child = spawn(process.execPath, [join(packageRoot(), 'bin', 'run.js'), ...argv], { stdio: ['pipe', 'pipe', 'pipe'] });
    children.push(child);
    return new Counter(child);
  };
  try {
    const first = start('run', '--', 'sh', '-c', COUNTER);
    await first.next();
    const before = await first.next();
    await runCheckpoint([String(first.pid), '--to', directory, '--timeout', '10'], { log: () => {}, progress: () => {} });
    const after = await start('restore', directory).next();
    if (before !== 2 || after !== 3) throw new Error(`a restored counter went on with ${after} after ${before}`);
    return { name: 'trial', status: 'ok', found: 'a process was checkpointed, restored, and went on', consequence: null, mend: null };
  } catch (error) {
    return {
      name: 'trial',
      status: 'unable',
      found: (error as Error).message,
      consequence: 'a small process could not be checkpointed and restored',
      mend: 'see the message; `warp-tool run --log-level debug` and `checkpoint --log-level debug` tell every step',
    };
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
}

class Counter {
  readonly pid: number | undefined;
  private readonly lines: AsyncIterator<string>;
  private errors = '';

  constructor(private readonly child: ChildProcess) {
    this.pid = child.pid;
    this.lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    child.stderr!.on('data', (chunk: Buffer) => (this.errors += chunk.toString()));
    child.stdin!.on('error', () => {}); // it ended: next() says so
  }

  /** The number that the counter answers with. */
  async next(): Promise<number> {
    this.child.stdin!.write('\n');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), TIMEOUT_MS);
    const { value, done } = await this.lines.next();
    clearTimeout(timer);
    if (done) throw new Error(this.errors.trim().split('\n')[0] || 'the process ended without an answer');
    return Number(value);
  }
}
