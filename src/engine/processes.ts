import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';

/** A process that the engine is loaded into and that listens for a checkpoint. */
export interface EngineProcess {
  pid: number;
  name: string;
  command: string[];
  /** Without the engine's own. */
  threads: number;
  /** Bytes. */
  resident: number;
  uid: number;
}

const HELPER_THREAD = 'warp-engine';

/** Processes in this pid namespace that can be checkpointed; for other users than root only their own. Ascending pid. */
export function engineProcesses(): EngineProcess[] {
  const namespace = /\[(\d+)\]/.exec(readlinkSync('/proc/self/ns/pid'))?.[1];
  // An abstract socket's name follows from the pid (the engine's interface), and it is gone as soon as the process is.
  const pattern = new RegExp(`@warp-tool/${namespace}/(\\d+)$`, 'gm');
  const pids = new Set([...readFileSync('/proc/net/unix', 'utf8').matchAll(pattern)].map((match) => Number(match[1])));
  const own = process.getuid!();
  return [...pids]
    .toSorted((a, b) => a - b)
    .map(describe)
    .filter((found): found is EngineProcess => found !== null && (own === 0 || found.uid === own));
}

function describe(pid: number): EngineProcess | null {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '';
    const tasks = readdirSync(`/proc/${pid}/task`);
    return {
      pid,
      name: field('Name'),
      command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replace(/\0$/, '').split('\0'),
      threads: tasks.filter((tid) => threadName(pid, tid) !== HELPER_THREAD).length,
      resident: Number.parseInt(field('VmRSS'), 10) * 1024,
      uid: statSync(`/proc/${pid}`).uid,
    };
  } catch {
    return null; // it ended in the meantime, or is somebody else's
  }
}

function threadName(pid: number, tid: string): string {
  try {
    return readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}
