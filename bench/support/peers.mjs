/**
 * The same program captured and restored by CRIU and by DMTCP, where these are on the PATH and work. Their standard streams are /dev/null: CRIU cannot
 * keep one end of a socket. Their time begins when this process starts them, not at their exec: a few milliseconds more than ours.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { environment, executables, giveToUser, user } from './host.mjs';
import { newPath, warmedUp } from './program.mjs';

/** How long Linux remembers a connection that it closed (tcp.h: TCP_TIMEWAIT_LEN), and a second, ms. */
const TIME_WAIT = 61_000;

/** With the peers, which need not be where ordinary commands are. */
const withPeers = { ...environment, PATH: process.env.PATH };

/** A command that runs until `kill`, in the form that `firstAnswer` takes. `end` ends what it has started. */
class Peer {
  stderr = '';
  cpu = Number.NaN;
  /** How long an answer is waited for before it is asked for again: DMTCP forgets a connection that comes while it restores the listener. */
  attempt = 50;

  constructor(command, identity, end = () => process.kill(this.pid, 'SIGKILL')) {
    this.end = end;
    this.executed = process.hrtime.bigint();
    this.child = spawn(command[0], command.slice(1).map(String), {
      ...identity,
      env: withPeers,
      stdio: 'ignore',
      detached: true,
      cwd: '/',
    });
    this.pid = this.child.pid;
    this.ended = new Promise((resolve) => {
      this.child.on('error', (error) => resolve((this.status = error.message)));
      this.child.on('close', (code, signal) => resolve((this.status = signal ?? `status ${code}`)));
    });
  }

  async kill() {
    if (!this.status) this.end();
    await this.ended;
  }
}

/** Runs a command to its end; throws with its words when it fails. */
function run(command, args, identity = {}) {
  const result = spawnSync(command, args.map(String), { ...identity, env: withPeers, encoding: 'utf8', timeout: 120_000 });
  const words = result.error?.message ?? `${result.stdout}${result.stderr}`.trim().split('\n').slice(-2).join(' ');
  if (result.status !== 0) throw new Error(`${command} ${args[0]}: ${words}`);
}

const files = (directory) =>
  readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => join(directory, name));
const sizeOf = (directory) => files(directory).reduce((sum, path) => sum + statSync(path).size, 0);

async function criu(measured) {
  run('criu', ['check']);
  const directory = newPath('criu');
  mkdirSync(directory);
  // Of our own user: without CAP_SYS_RESOURCE the limits of another user's process cannot be read.
  const program = new Peer(measured.command, {});
  const state = await warmedUp(measured, program);
  const complaint = (log) =>
    readFileSync(join(directory, log), 'utf8')
      .match(/^.*Error.*$/gm)
      ?.slice(-2)
      .join(' ') ?? '';
  const options = ['-D', directory, '--tcp-established', '--file-locks', '-o'];
  try {
    run('criu', ['dump', '-t', program.pid, ...options, 'dump.log']);
  } catch (error) {
    await program.kill();
    const reason = readFileSync(join(directory, 'dump.log'), 'utf8')
      .match(/^.*Error.*$/gm)
      ?.slice(-2)
      .join(' ');
    throw new Error(reason ?? error.message, { cause: error });
  }
  await program.ended;
  const restore = () => new Peer(['criu', 'restore', ...options, 'restore.log'], {}, () => process.kill(program.pid, 'SIGKILL'));
  return { directory, sizes: { CRIU: sizeOf(directory) }, state, restore, complaint: () => complaint('restore.log') };
}

/** The directory of a DMTCP image, and the program's last state before it. */
async function dmtcpImage(measured, compression) {
  const directory = newPath('dmtcp');
  mkdirSync(directory);
  giveToUser(directory);
  const coordinator = new Coordinator(directory, 'first');
  const program = new Peer(['dmtcp_launch', ...coordinator.flags, compression, '--ckptdir', directory, ...measured.command], user);
  const state = await warmedUp(measured, program);
  coordinator.command('--bcheckpoint');
  coordinator.command('--quit');
  await program.ended;
  return { directory, state };
}

class Coordinator {
  constructor(directory, name) {
    this.portFile = join(directory, `port-${name}`);
    this.flags = ['--new-coordinator', '-p', 0, '--port-file', this.portFile];
  }

  command(verb) {
    run('dmtcp_command', ['-p', readFileSync(this.portFile, 'utf8').trim(), verb], user);
  }
}

async function dmtcp(measured) {
  const packed = await dmtcpImage(measured, '--gzip');
  const { directory, state } = await dmtcpImage(measured, '--no-gzip');
  const sizes = { DMTCP: sizeOf(directory), 'DMTCP with gzip': sizeOf(packed.directory) };
  rmSync(packed.directory, { recursive: true });
  // It cannot listen on the port while the kernel remembers connections of the load there.
  if (executables.siege && measured.port) await setTimeout(TIME_WAIT);
  const [image] = files(directory).filter((path) => path.endsWith('.dmtcp'));
  let count = 0;
  const restore = () => {
    const coordinator = new Coordinator(directory, count++);
    return new Peer(['dmtcp_restart', ...coordinator.flags, image], user, () => coordinator.command('--quit'));
  };
  return { directory, sizes, state, restore, complaint: () => '' };
}

/** Those that work here, by name: `restore()` starts one, `evict()` drops its image from the page cache, `sizes` in bytes, `state` as before. */
export async function peerImages(measured) {
  const images = {};
  for (const [name, command, capture] of [
    ['CRIU', 'criu', criu],
    ['DMTCP', 'dmtcp_launch', dmtcp],
  ]) {
    if (spawnSync(command, ['--version'], { stdio: 'ignore' }).error) {
      console.log(`  ${command} is not on the PATH: not compared`);
      continue;
    }
    try {
      const captured = await capture(measured);
      const evict = () => files(captured.directory).forEach((path) => run('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']));
      images[name] = { ...captured, evict };
    } catch (error) {
      console.log(`  ${command} does not do ${measured.title}: ${error.message}`);
    }
  }
  return images;
}
