/** CRIU as an engine: `criu dump` and `criu restore`, with what went wrong as one line. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { CheckpointResult } from '../engine/client.js';
import { become, findProgram, nativeFile } from '../engine/native.js';
import { Failure, systemErrorReason } from '../failure.js';
import { CriuImage, isCriuDirectory } from './image.js';

const VERBOSITY: Record<string, string> = { error: '-v1', warn: '-v2', info: '-v3', debug: '-v4' };
/** What both sides must be told of. Deleted files up to this size go into the image. */
const BOTH = ['--file-locks', '--ext-unix-sk', '--ghost-limit=64M'];

function program(): string {
  try {
    return findProgram('criu');
  } catch (error) {
    throw new Failure('criu is not installed (no such program in PATH); install CRIU 4 or later, or use --engine warp', { cause: error });
  }
}

/** The first error of CRIU's log that matters: `(00.012345) pid: Error (criu/file.c:123): what`. Without CAP_SYS_RESOURCE it only complains of its own limit. */
function firstError(log: string): string | null {
  const errors = [...log.matchAll(/Error \([^)]*\): *(.*)/g)].map((match) => match[1]!.trim());
  return errors.find((error) => !error.startsWith("rlimit: Can't setup RLIMIT_NOFILE for self")) ?? null;
}

/** CRIU without root needs a capability, and has to be told. */
const unprivileged = (): string[] => (process.getuid!() === 0 ? [] : ['--unprivileged']);

/** Why CRIU cannot work on this host, with the mend; null when its own check passes. */
export function whyCriuFails(): string | null {
  let criu: string;
  try {
    criu = program();
  } catch (error) {
    return (error as Failure).message;
  }
  const check = spawnSync(criu, ['check', ...unprivileged()], { encoding: 'utf8', timeout: 60_000 });
  if (check.status === 0) return null;
  const version = /Version: (\S+)/.exec(spawnSync(criu, ['--version'], { encoding: 'utf8', timeout: 60_000 }).stdout)?.[1] ?? '?';
  const output = `${check.stdout}${check.stderr}`;
  const reason = check.error ? systemErrorReason(check.error) : (firstError(output) ?? output.trim().split('\n')[0]);
  const mend =
    process.getuid!() === 0
      ? 'install a CRIU that knows this kernel (4.0 or later), or use --engine warp'
      : 'run it as root, or give the program the capability (setcap cap_checkpoint_restore+eip), or use --engine warp, which needs none';
  return `\`criu check\` of CRIU ${version} fails: ${reason}; ${mend}`;
}

function requireCriu(): string {
  const reason = whyCriuFails();
  if (reason !== null) throw new Failure(reason);
  return program();
}

/** Runs CRIU with a log in a directory of its own; `use` gets the log and what else CRIU has put there. */
function runCriu<T>(argv: string[], level: string | undefined, use: (status: number | null, log: string, directory: string) => T): T {
  const work = mkdtempSync(join(tmpdir(), 'warp-tool-criu-'));
  try {
    const log = join(work, 'log');
    const options = [...argv, '-W', work, '-o', log, VERBOSITY[level ?? 'warn']!, ...unprivileged()];
    const { status, error } = spawnSync(program(), options, { stdio: [0, 1, 2, 0, 1, 2] });
    if (error) throw new Failure(`cannot run criu: ${systemErrorReason(error)}`, { cause: error });
    const text = existsSync(log) ? readFileSync(log, 'utf8') : '';
    if (level === 'info' || level === 'debug') process.stderr.write(text);
    return use(status, text, work);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Parent and session of a process, from /proc/PID/stat. */
function identityOf(pid: number): { session: number } {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)!.split(' ');
    return { session: Number(fields[3]) };
  } catch (error) {
    throw new Failure(`process ${pid} does not exist; give the pid of a running process`, { cause: error });
  }
}

/** True when the engine of our own is in the process: its helper thread has descriptors of its own, which CRIU does not know how to keep. */
function runsEngine(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((tid) => readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim() === 'warp-engine');
  } catch {
    return false;
  }
}

export interface CriuDump {
  leaveRunning: boolean;
  /** Seconds. */
  timeout: number | undefined;
  logLevel: string | undefined;
}

/** Dumps a process and its descendants into `directory`, which ends up with a whole image or as it was before. */
export function criuDump(pid: number, directory: string, { leaveRunning, timeout, logLevel }: CriuDump): CheckpointResult {
  requireCriu();
  const { session } = identityOf(pid);
  if (runsEngine(pid))
    throw new Failure(
      `process ${pid} was started by \`warp-tool run\`, whose engine CRIU cannot keep; use --engine warp, or start it without`,
    );
  const made = !existsSync(directory);
  if (made) mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (isCriuDirectory(directory))
    throw new Failure(`${directory} holds an image of CRIU already, which its files would mix with; name another directory`);
  const before = new Set(readdirSync(directory));
  const argv = ['dump', '-t', String(pid), '-D', resolve(directory), '--tcp-established', ...BOTH];
  // Its terminal and session belong to a shell that stays behind.
  if (session !== pid) argv.push('--shell-job');
  if (leaveRunning) argv.push('--leave-running');
  if (timeout !== undefined) argv.push('--timeout', String(Math.ceil(timeout)));
  return runCriu(argv, logLevel, (status, log) => {
    if (status === 0) return { image: directory, bytes: new CriuImage(directory).size, generation: 0 };
    for (const name of made ? [] : readdirSync(directory))
      if (!before.has(name)) rmSync(join(directory, name), { recursive: true, force: true });
    if (made) rmSync(directory, { recursive: true, force: true });
    throw new Failure(
      `criu dump of process ${pid} failed, and it goes on: ${firstError(log) ?? `status ${status}`}; see its whole log with --log-level debug`,
    );
  });
}

/** Restores an image of CRIU's and becomes what waits for the program's end, and ends as that did. */
export function criuRestore(directory: string, logLevel: string | undefined): never {
  requireCriu();
  const image = new CriuImage(directory);
  const { root } = image;
  const argv = ['restore', '-D', resolve(directory), ...BOTH, '--restore-detached', '--restore-sibling', '--pidfile', 'pid'];
  if (image.tcpEstablished) argv.push('--tcp-established');
  if (root.session !== root.pid) argv.push('--shell-job');
  // A pipe to somebody outside is replaced by what this command has in its place: by copies, for CRIU closes them and wants its own.
  const pipes = new Map(root.descriptors.filter(({ fd, kind }) => fd < 3 && kind === 'pipe').map(({ fd, path }) => [path, fd]));
  for (const [path, fd] of pipes) argv.push('--inherit-fd', `fd[${3 + fd}]:${path}`);
  const pid = runCriu(argv, logLevel, (status, log, work) => {
    if (status === 0) return readFileSync(join(work, 'pid'), 'utf8').trim();
    const reason = firstError(log) ?? `status ${status}`;
    const mend = /fork for \d+: File exists/.test(reason)
      ? `CRIU restores under the old ids: end the process that has one of them, or restore in a pid namespace (unshare --pid --fork --mount-proc)`
      : 'see its whole log with --log-level debug';
    throw new Failure(`${directory}: criu restore failed: ${reason}; ${mend}`);
  });
  become(nativeFile('warp-restore'), ['warp-restore', '--follow', pid], process.env);
}
