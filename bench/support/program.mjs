/** Starting, capturing and restoring the measured programs, with times as the kernel's monotonic clock counts them. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { MiB, buildTool, environment, executables, giveToUser, scratch, user } from './host.mjs';
import { hasTomcat, tomcatCommand } from './tomcat.mjs';

/** How long anything may take, in milliseconds. Only a hang reaches it. */
const patience = 300_000;

const running = new Set();
process.on('exit', () => running.forEach((program) => program.signal()));

/**
 * A process, started by the launcher, whose standard output is read line by line. `pid` is its id, `executed` when it was executed and
 * `received` when its last output came: CLOCK_MONOTONIC, which process.hrtime reads too, nanoseconds. `cpu` is, after its end, all CPU time
 * that it took, and `memory` the bytes that were resident at most.
 */
class Program {
  stdout = '';
  stderr = '';
  #wake = () => {};

  constructor(executable, args, preload) {
    this.child = spawn(executables.launch, [preload, executable, ...args.map(String)], { ...user, env: environment, cwd: scratch });
    running.add(this);
    this.child.stdin.on('error', () => {}); // it ended: whoever waits for its answer is told
    this.ended = new Promise((resolve) => {
      this.child.on('error', (error) => {
        this.stderr += error.message;
      });
      this.child.on('close', (code, signal) => {
        running.delete(this);
        this.status = signal ?? `status ${code}`;
        resolve(this.status);
        this.#wake();
      });
    });
    for (const stream of ['stdout', 'stderr'])
      this.child[stream].setEncoding('utf8').on('data', (text) => {
        this.received = process.hrtime.bigint();
        this[stream] += text;
        this.#readLauncher();
        this.#wake();
      });
  }

  #readLauncher() {
    const executed = this.pid ? null : /^exec (\d+) (\d+)\n/.exec(this.stdout);
    if (executed) [this.pid, this.executed] = [Number(executed[1]), BigInt(executed[2])];
    const used = /^cpu (\d+)\nmemory (\d+)\n$/m.exec(this.stdout);
    [this.cpu, this.memory] = [Number(used?.[1]), Number(used?.[2])];
  }

  /** Ends the program, if it still runs; the launcher follows it. */
  signal() {
    try {
      process.kill(this.pid ?? this.child.pid, 'SIGKILL');
    } catch {
      // it has ended
    }
  }

  /** Resolves to the next match on standard output and forgets what came before it. One caller at a time. */
  async line(pattern) {
    const timer = setTimeout(() => this.signal(), patience);
    try {
      for (;;) {
        const match = pattern.exec(this.stdout);
        if (match) {
          this.stdout = this.stdout.slice(match.index + match[0].length);
          return match;
        }
        if (this.status)
          throw new Error(`${this.child.spawnargs.join(' ')} ended (${this.status}) before it printed ${pattern}: ${this.stderr.trim()}`);
        await new Promise((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async kill() {
    this.signal();
    await this.ended;
  }
}

/** Runs a program to its end; throws with its words when it fails. */
export async function complete(executable, args) {
  const program = new Program(executable, args, '');
  const status = await program.ended;
  if (status !== 'status 0') throw new Error(`${executable} ${args.join(' ')} ended with ${status}: ${program.stderr.trim()}`);
  return program;
}

let counter = 0;
/** A new path in the scratch directory; nothing is there yet. */
export const newPath = (name) => join(scratch, `${name}-${counter++}`);

/** Starts a program, with the engine in it or without. */
export function start(command, { engine = false } = {}) {
  return new Program(command[0], command.slice(1), engine ? executables['libwarp.so'] : '');
}

/** Checkpoints a program into a new directory; resolves to the image's directory and what --stats told. */
export async function checkpoint(program, args = []) {
  const image = newPath('image');
  const statistics = `${image}.json`;
  await complete(executables['warp-checkpoint'], [program.pid, '--to', image, '--timeout', 300, '--stats', statistics, ...args]);
  if (!args.includes('--leave-running')) {
    const status = await program.ended;
    if (status !== 'SIGKILL') throw new Error(`after its checkpoint the program ended with ${status}, not SIGKILL`);
  }
  return { image, statistics: JSON.parse(readFileSync(statistics, 'utf8')) };
}

/**
 * Restores an image. `statistics` of the result reads what --stats told, once the program goes on. `loaded` resolves when all memory is there: bytes that
 * came while the program ran or before, and nanoseconds since the restorer began, as --load-trace tells them.
 */
export function restore(image, args = []) {
  const path = `${newPath('restore')}.json`;
  const program = new Program(executables['warp-restore'], [image, '--stats', path, ...args], '');
  program.statistics = () => JSON.parse(readFileSync(path, 'utf8'));
  program.loaded = async () => {
    const tasks = `/proc/${program.pid}/task`;
    const isLoader = (task) => {
      try {
        return readFileSync(`${tasks}/${task}/comm`, 'utf8') === 'warp-loader\n';
      } catch {
        return false; // it has ended meanwhile
      }
    };
    const isLoading = () => readdirSync(tasks).some(isLoader);
    while (isLoading()) await new Promise((resolve) => setTimeout(resolve, 5));
    const trace = readFileSync(args[args.indexOf('--load-trace') + 1]);
    let wall = 0;
    for (let at = 0; at < trace.length; at += 24) wall = Math.max(wall, Number(trace.readBigUInt64LE(at + 16)));
    const { deferred_bytes: deferred, eager_bytes: eager } = program.statistics();
    return { bytes: deferred + eager, wall };
  };
  return program;
}

/** Runs Node.js to its end; resolves to what it took from its exec, nanoseconds. `statuses`: exit statuses that are no failure. */
export async function node(args, statuses = ['status 0']) {
  const program = start([executables.node, ...args]);
  const status = await program.ended;
  if (!statuses.includes(status)) throw new Error(`node ${args.join(' ')} ended with ${status}: ${program.stderr.trim()}`);
  return { wall: Number(program.received - program.executed), cpu: program.cpu, memory: program.memory, output: program.stdout };
}

/**
 * Runs commands to their ends, all at once; `statuses` are no failures. Resolves to the time from the first one's exec to the last one's end and
 * their CPU time, nanoseconds, and what they printed.
 */
export async function together(commands, statuses = ['status 0']) {
  const all = commands.map((command) => start(command));
  const ends = await Promise.all(all.map((program) => program.ended.then((status) => ({ status, at: process.hrtime.bigint() }))));
  const failed = ends.findIndex(({ status }) => !statuses.includes(status));
  if (failed >= 0) throw new Error(`${commands[failed].join(' ')} ended with ${ends[failed].status}: ${all[failed].stderr.trim()}`);
  const first = all.reduce((least, { executed }) => (executed < least ? executed : least), all[0].executed);
  const last = ends.reduce((latest, { at }) => (at > latest ? at : latest), 0n);
  return {
    wall: Number(last - first),
    cpu: all.reduce((sum, { cpu }) => sum + cpu, 0),
    output: all.map(({ stdout }) => stdout.replace(/^exec .*\n/, '').replace(/cpu \d+\n$/, '')),
  };
}

/** The content of a plain image in files of their own, `count` of them, so that as many commands can work on it; resolves to their paths. */
export function contentParts(image, count) {
  const file = openSync(join(image, 'core.img'), 'r');
  const buffer = Buffer.alloc(MiB);
  readSync(file, buffer, 0, 192, 0);
  const size = statSync(join(image, 'core.img')).size;
  let at = Number(buffer.readBigUInt64LE(64 + 16)); // the anchor's metadata_size
  const share = Math.ceil((size - at) / count / MiB) * MiB;
  const paths = [];
  while (at < size) {
    const end = Math.min(at + share, size);
    const path = newPath('content');
    const part = openSync(path, 'w', 0o644);
    for (let n; at < end; at += n) {
      n = readSync(file, buffer, 0, Math.min(MiB, end - at), at);
      writeSync(part, buffer, 0, n);
    }
    closeSync(part);
    paths.push(path);
  }
  closeSync(file);
  return paths;
}

// ---- the programs ----

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function ask(port, number, timeout = patience) {
  return new Promise((resolve, reject) => {
    // The connection is ours to close: one that the server closes lingers at its port, where DMTCP could not listen again.
    const headers = { connection: 'keep-alive' };
    const request = get({ host: '127.0.0.1', port, path: `/${number}`, agent: false, headers, timeout }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (data) => (text += data));
      response.on('end', () => resolve(JSON.parse(text)));
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(Object.assign(new Error(`no answer from port ${port}`), { code: 'ETIMEDOUT' })));
    request.on('error', reject);
  });
}

/** Holds memory and answers bytes on its standard input. `content`: none for noise, or `records`. */
class MemoryProgram {
  constructor(bytes, ...content) {
    this.name = ['memory', ...content, bytes / MiB].join('-');
    const words = content.map((one) => (typeof one === 'number' ? `needing ${one / MiB} MiB` : one));
    this.title = ['C', ...words, bytes >= 1024 * MiB ? `${bytes / MiB / 1024} GiB` : `${bytes / MiB} MiB`].join(', ');
    this.command = [executables.memory, bytes, ...content];
    this.bytes = bytes;
  }

  /** Resolves at the program's first answer to its state. */
  async answer(program) {
    program.child.stdin.write('?');
    const [, answers, verdict] = await program.line(/answer (\d+) (\w+)\n/);
    if (verdict !== 'ok') throw new Error(`${this.title}: its memory is not what it was`);
    return { at: program.received, answers: Number(answers) };
  }

  async warmUp(program) {
    return this.answer(program);
  }
}

/** An HTTP server that keeps what it computed. */
class ServerProgram {
  static async create(name, title, command, pages) {
    const port = await freePort();
    return Object.assign(new ServerProgram(), { name, title, command: [...command, port], port, pages, bytes: 1024 * MiB });
  }

  async answer(program, number = 0) {
    const deadline = Date.now() + patience;
    for (;;) {
      try {
        const state = await ask(this.port, number, program.attempt);
        return { at: process.hrtime.bigint(), answers: state.answers, startedAt: state.startedAt, pages: state.pages };
      } catch (error) {
        if (program.status) throw new Error(`${this.title} ended (${program.status}): ${program.stderr.trim()}`, { cause: error });
        const again = error.code === 'ECONNREFUSED' || (program.attempt && ['ETIMEDOUT', 'ECONNRESET'].includes(error.code));
        if (Date.now() > deadline || !again) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  }

  async warmUp(program) {
    let state;
    for (let number = this.pages; number-- > 0;) state = await this.answer(program, number);
    return state;
  }
}

async function createPrograms(quick) {
  const pages = quick ? 1500 : 6000;
  const all = [
    new MemoryProgram(quick ? 256 * MiB : 1024 * MiB),
    await ServerProgram.create('node', 'Node.js server', [executables.node, join(scratch, 'bin/server.mjs')], pages),
  ];
  if (executables.java)
    all.push(await ServerProgram.create('jvm', 'JVM server', [executables.java, '-Xmx1g', '-cp', join(scratch, 'bin'), 'Server'], pages));
  return all;
}

let created;
/** The programs that are captured and restored; the JVM only where there is one. */
export const measuredPrograms = ({ quick }) => (created ??= createPrograms(quick));

export const memoryProgram = (bytes) => new MemoryProgram(bytes);

/** A program that needs `needed` bytes of its memory for an answer. */
export const needingProgram = (bytes, needed) => new MemoryProgram(bytes, 'records', needed);

/** Programs whose images are large enough for what goes through all of them: what they hold compresses as such things do. */
export async function largePrograms({ quick }) {
  const server = (name, title, command, pages) => ServerProgram.create(name, title, command, quick ? pages / 8 : pages);
  const all = [
    new MemoryProgram(quick ? 256 * MiB : 2048 * MiB, 'records'),
    await server('node-large', 'Node.js server', [executables.node, join(scratch, 'bin/server.mjs')], 12_000),
  ];
  if (executables.java)
    all.push(await server('jvm-large', 'JVM server', [executables.java, '-Xms1g', '-Xmx2g', '-cp', join(scratch, 'bin'), 'Server'], 8_000));
  return all;
}

const images = new Map();

/** The program's image, made when it is first asked for: `image`, `statistics` and `state`, the program's last before it was captured. */
export function capturedImage(measured) {
  if (!images.has(measured.name))
    images.set(
      measured.name,
      (async () => {
        const program = start(measured.command, { engine: true });
        const state = await measured.warmUp(program);
        return { ...(await checkpoint(program)), state };
      })(),
    );
  return images.get(measured.name);
}

/**
 * Waits for a program's first answer. Resolves to `wall` and `cpu`, nanoseconds since its exec, having ended the program. A restored program must
 * continue from `state`.
 */
export async function firstAnswer(measured, program, state) {
  const answer = await measured.answer(program);
  await program.kill();
  // What was asked for again may be answered twice.
  const continues = state && (program.attempt ? answer.answers > state.answers : answer.answers === state.answers + 1);
  if (state && (!continues || answer.startedAt !== state.startedAt || answer.pages !== state.pages))
    throw new Error(`${measured.title}: restored with other state: ${JSON.stringify(answer)} after ${JSON.stringify(state)}`);
  return { wall: Number(answer.at - program.executed), cpu: program.cpu };
}

// ---- first answers ----

/** Has gcore write a core file of a program; resolves to its size in bytes, or null where gdb is not installed or may not trace. */
export async function gcoreSize(program) {
  const prefix = newPath('gcore');
  const path = `${prefix}.${program.pid}`;
  const gcore = start([executables.gcore, '-o', prefix, program.pid]);
  await gcore.ended;
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? null;
  rmSync(path, { force: true });
  return size;
}

/** Runs warp-tool to its end as the user that the programs run as. */
export async function tool(args) {
  buildTool();
  const program = start([executables.node, executables.tool, ...args]);
  const status = await program.ended;
  if (status !== 'status 0') throw new Error(`warp-tool ${args.join(' ')} ended with ${status}: ${program.stderr.trim()}`);
}

/** A small web application on Tomcat, with `pages` pages of 64 KiB of heap each kept; undefined, with the reason printed, where there is none. */
export async function tomcatProgram(pages) {
  if (!executables.java || !hasTomcat()) {
    console.log('  Tomcat 10 is not here (Debian: apt-get install libtomcat10-java tomcat10-common openjdk-17-jdk-headless): left out');
    return undefined;
  }
  const port = await freePort();
  const base = newPath('tomcat');
  const command = tomcatCommand(executables.java, base, port, ['-Xms1g', '-Xmx1536m']);
  giveToUser(base);
  return Object.assign(new ServerProgram(), { name: 'tomcat', title: 'Tomcat 10', command, port, pages, bytes: 1024 * MiB });
}

/** The servers whose first answer is measured, and a program of which there can be many at once. */
export async function answeringPrograms({ quick }) {
  const servers = (await measuredPrograms({ quick })).filter((measured) => measured instanceof ServerProgram && measured.name === 'node');
  const tomcat = await tomcatProgram(quick ? 1000 : 8000);
  if (tomcat) servers.push(tomcat);
  for (const server of servers) {
    const request = `require('node:http').get('http://127.0.0.1:${server.port}/0',(r)=>process.exit(r.statusCode===200?0:1)).on('error',()=>process.exit(1))`;
    server.readiness = `${executables.node} -e "${request}"`;
  }
  return { servers, small: memoryProgram(64 * MiB) };
}

const pairs = new Map();
/** How long a server is put under load before it is captured, where siege is installed: as a container build would. */
const SIEGE_SECONDS = 5;

/** The state of a program that has answered each of its questions and, if it is a server, was put under load. */
export async function warmedUp(measured, program) {
  const state = await measured.warmUp(program);
  if (!executables.siege || !measured.port) return state;
  await complete(executables.siege, ['-q', '-b', '-c', 4, '-t', `${SIEGE_SECONDS}S`, `http://127.0.0.1:${measured.port}/0`]);
  return measured.answer(program);
}

/** A program's plain and compressed images of the same moment: `plain`, `compressed`, `core`, the size of what gcore writes, and `state`, the program's last before that. */
export function capturedAs(measured) {
  if (!pairs.has(measured.name))
    pairs.set(
      measured.name,
      (async () => {
        const program = start(measured.command, { engine: true });
        const state = await warmedUp(measured, program);
        const core = executables.gcore ? await gcoreSize(program) : null;
        const { image: compressed } = await checkpoint(program, ['--leave-running', '--compression', 'lz4']);
        const { image: plain } = await checkpoint(program);
        return { plain, compressed, core, state };
      })(),
    );
  return pairs.get(measured.name);
}
