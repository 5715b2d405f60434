/** Where the benchmark runs: its user, its scratch directory, the executables it builds, and what the machine has left. */
import { execFile, spawnSync } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const programs = join(root, 'bench/programs');
const nobody = 65534;
const isRoot = process.getuid() === 0;

export const MiB = 2 ** 20;
export const GiB = 2 ** 30;

/** Identity of everything that is measured: never root. Pass it to `spawn`. */
export const user = isRoot ? { uid: nobody, gid: nobody } : {};

/** The environment of everything that is measured. NODE_EXTRA_CA_CERTS, which alone costs Node.js 80 ms at each start, is not in it. */
export const environment = { PATH: '/usr/local/bin:/usr/bin:/bin', LANG: 'C.UTF-8' };

/** A directory that the measured user may write in. Set TMPDIR to measure another file system. */
export const scratch = mkdtempSync(join(tmpdir(), 'warp-bench-'));
if (isRoot) chownSync(scratch, nobody, nobody);
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

/** Paths by name of everything that `build` made. They are copies in the scratch directory: a clone below /root is nobody else's to enter. */
export const executables = {};

function command(name) {
  for (const directory of (process.env.PATH ?? '').split(':')) {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return join(directory, name);
    } catch {
      // not in this one
    }
  }
  return undefined;
}

function run(file, args, options = {}) {
  const result = spawnSync(file, args, { encoding: 'utf8', ...options });
  if (result.error) throw new Error(`cannot run ${file}: ${result.error.message}`);
  if (result.status !== 0)
    throw new Error(`${file} ${args.join(' ')} ended with ${result.signal ?? `status ${result.status}`}: ${result.stderr}`);
  return result.stdout;
}

function copyIn(path, name) {
  const copy = join(scratch, 'bin', name);
  copyFileSync(path, copy);
  chmodSync(copy, 0o755);
  executables[name] = copy;
}

/**
 * Builds the engine and the programs. `executables.java` is left out where there is no JDK, `lz4`, `xxhsum`, `cmp`,
 * `grep`, `gcore`, `siege` and `jstat` where they are not installed.
 */
export function build() {
  run(process.execPath, [join(root, 'scripts/build-native.mjs')], { stdio: ['ignore', 'inherit', 'inherit'] });
  mkdirSync(join(scratch, 'bin'), { mode: 0o755 });
  for (const name of ['libwarp.so', 'warp-checkpoint', 'warp-restore']) copyIn(join(root, 'native/build', name), name);
  const compiler = process.env.CC ?? 'cc';
  for (const name of ['launch', 'memory', 'plain_write', 'calls', 'starts', 'fresh_copy', 'spread']) {
    executables[name] = join(scratch, 'bin', name);
    run(compiler, ['-std=gnu17', '-O2', '-Wall', '-Wextra', '-pthread', '-o', executables[name], join(programs, `${name}.c`)]);
  }
  copyIn(join(programs, 'server.mjs'), 'server.mjs');
  const node = realpathSync(process.execPath);
  if (spawnSync('/usr/bin/test', ['-x', node], user).status === 0) executables.node = node;
  else copyIn(node, 'node');
  for (const name of ['lz4', 'openssl', 'xxhsum', 'cmp', 'grep', 'gcore', 'siege', 'jstat']) executables[name] = command(name);
  const [java, javac] = [command('java'), command('javac')];
  if (java && javac) {
    executables.java = realpathSync(java);
    run(process.execPath, [join(root, 'scripts/build-java.mjs')], { stdio: ['ignore', 'inherit', 'inherit'] });
    copyIn(join(root, 'native/build/warp-crac.jar'), 'warp-crac.jar');
    run(javac, ['-d', join(scratch, 'bin'), join(programs, 'Server.java')]);
  }
}

/** Builds warp-tool's command line and its library: `executables.tool` is the script, `executables.library` the module. */
export function buildTool() {
  if (executables.tool) return;
  run(process.execPath, [join(root, 'scripts/build-ts.mjs')], { stdio: ['ignore', 'inherit', 'inherit'] });
  const copy = join(scratch, 'tool');
  for (const name of ['bin', 'dist', 'native/build', 'oclif.manifest.json', 'package.json'])
    cpSync(join(root, name), join(copy, name), { recursive: true });
  executables.tool = join(copy, 'bin/run.js');
  executables.library = join(root, 'dist/library/index.js');
}

/** Makes a folder the measured user's. */
export function giveToUser(path) {
  if (isRoot) run('chown', ['-R', `${nobody}:${nobody}`, path]);
}

/** Runs a helper of the benchmark as the measured user; resolves to its standard output. */
export async function helper(name, args) {
  const { stdout } = await execute(executables[name], args.map(String), { ...user, env: environment, cwd: scratch });
  return stdout;
}

/** CPU time until now of a process and of children it waited for, nanoseconds. The kernel tells it in units of 10 ms (proc(5), USER_HZ). */
export function cpuTime(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) * 1e7;
}

function memoryInfo(field) {
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'))[1]) * 1024;
}

/** Why a program of `bytes` and its image, in the page cache, do not fit here; undefined when they do. */
export function lacks(bytes) {
  const fileSystem = statfsSync(scratch);
  const disk = fileSystem.bavail * fileSystem.bsize;
  const memory = Math.min(memoryInfo('MemAvailable'), process.constrainedMemory() || Infinity);
  const show = (n) => `${(n / GiB).toFixed(1)} GiB`;
  if (disk < 1.2 * bytes) return `${show(1.2 * bytes)} of disk are needed in ${scratch}, ${show(disk)} are free`;
  if (memory < 2.2 * bytes) return `${show(2.2 * bytes)} of memory are needed, ${show(memory)} are available`;
  return undefined;
}

/** What the figures were measured on. */
export function describeHost() {
  const fileSystems = { 0xef53: 'ext4', 0x01021994: 'tmpfs', 0x58465342: 'xfs', 0x9123683e: 'btrfs', 0x794c7630: 'overlayfs' };
  const type = statfsSync(scratch).type;
  return {
    processor: cpus()[0].model,
    processors: cpus().length,
    memory: totalmem(),
    kernel: release(),
    node: process.version,
    java: executables.java
      ? (/version "(.*)"/.exec(spawnSync(executables.java, ['-version'], { encoding: 'utf8' }).stderr)?.[1] ?? 'unknown')
      : null,
    fileSystem: fileSystems[type] ?? `0x${type.toString(16)}`,
    user: isRoot ? nobody : process.getuid(),
  };
}

/** The path of a file among the results, where later runs and scripts find it. */
export function resultPath(name) {
  const directory = join(root, 'bench/results');
  mkdirSync(directory, { recursive: true });
  return join(directory, name);
}

/** Writes the figures; returns the path. */
export function writeResults(results) {
  const path = resultPath('latest.json');
  writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
  return path;
}
