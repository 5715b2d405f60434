#!/usr/bin/env node
/**
 * Shows the main thing in one go: a warmed-up server is captured, disappears, and comes back in milliseconds under another pid with all its
 * state. Builds the project first where that is needed, works on a directory of its own below the temporary directory, and removes it.
 */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const warpTool = [process.execPath, join(root, 'bin/run.js')];
const warpRestore = [join(root, 'native/build/warp-restore')];
const questions = ['blue bicycle', 'red telescope', 'green piano', 'ivory lamp', 'black kettle', 'yellow umbrella'];
const restores = 5;
const coloured = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code) => (text) => (coloured ? `\u001b[${code}m${text}\u001b[0m` : text);
const say = (text) => console.log(`  ${text}`);
const [bold, dim, green] = [paint(1), paint(2), paint(32)];

const work = mkdtempSync(join(tmpdir(), 'warp-quickstart-'));
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(work, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.error) throw new Error(`cannot run ${command}: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`${[command, ...args].join(' ')} ended with ${result.signal ?? `status ${result.status}`}`);
  return result;
}

function installAndBuild() {
  const built = [
    'dist/main.js',
    'dist/quick.cjs',
    'native/build/libwarp.so',
    'native/build/warp-restore',
    'native/build/warp-checkpoint',
    'native/build/exec.node',
  ];
  if (built.every((file) => existsSync(join(root, file)))) return;
  if (!existsSync(join(root, 'node_modules/.package-lock.json'))) {
    console.log(dim('npm ci'));
    run('npm', ['ci', '--no-audit', '--no-fund']);
  }
  console.log(dim('npm run build'));
  run('npm', ['run', 'build']);
}

function find(command) {
  for (const directory of (process.env.PATH ?? '').split(':')) {
    try {
      accessSync(join(directory, command), constants.X_OK);
      return join(directory, command);
    } catch {
      // not in this one
    }
  }
  return undefined;
}

/** Starts a command; `ended` resolves to its status as a shell shows it. */
function start([command, ...args]) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  const started = { child, output: '', status: undefined, ended: undefined };
  child.stdout.on('data', (data) => (started.output += data));
  child.stderr.on('data', (data) => (started.output += data));
  started.ended = new Promise((resolve) => {
    child.on('error', (error) => {
      started.output += error.message;
      resolve((started.status = 127));
    });
    child.on('close', (code, signal) => {
      children.delete(child);
      resolve((started.status = signal === 'SIGKILL' ? 137 : (code ?? 128)));
    });
  });
  return started;
}

async function stop(started) {
  started.child.kill('SIGKILL');
  await started.ended;
}

function ask(port, question) {
  return new Promise((resolve, reject) => {
    const request = get(
      { host: '127.0.0.1', port, path: `/?q=${encodeURIComponent(question)}`, agent: false, timeout: 60_000 },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (data) => (text += data));
        response.on('end', () => resolve(JSON.parse(text)));
        response.on('error', reject);
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', reject);
  });
}

/** Milliseconds from now until the server answers, and its answer. */
async function firstAnswer(started, port, question) {
  const begin = performance.now();
  for (;;) {
    try {
      const answer = await ask(port, question);
      return { milliseconds: performance.now() - begin, answer };
    } catch (error) {
      if (started.status !== undefined)
        throw new Error(`the server ended with status ${started.status}: ${started.output.trim()}`, { cause: error });
      if (performance.now() - begin > 120_000) throw new Error(`no answer from port ${port}: ${started.output.trim()}`, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function freePort() {
  const { createServer } = await import('node:net');
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function demonstrate(name, title, program) {
  const port = await freePort();
  const image = join(work, `${name}-image`);
  const command = [...program, String(port)];
  console.log(`\n${bold(title)}`);

  const started = start([...warpTool, 'run', '--', ...command]);
  const cold = await firstAnswer(started, port, questions[0]);
  say(
    `cold start       pid ${started.child.pid}, first answer after ${cold.milliseconds.toFixed(0)} ms: "${questions[0]}" ${cold.answer.matches} matches`,
  );
  for (let round = 0; round < 20; round++) for (const question of questions) await ask(port, question);
  const warm = await ask(port, questions[0]);
  say(`warmed up        ${warm.answered} answers given, ${warm.cacheEntries} in the cache`);

  const checkpoint = start([...warpTool, 'checkpoint', String(started.child.pid), '--to', image]);
  const checkpointStatus = await checkpoint.ended;
  if (checkpointStatus !== 0) throw new Error(`checkpoint ended with status ${checkpointStatus}: ${checkpoint.output.trim()}`);
  const status = await started.ended;
  if (status !== 137) throw new Error(`after its checkpoint the server ended with status ${status}, not 137`);
  const size = statSync(join(image, 'core.img')).blocks * 512;
  say(`checkpoint       image of ${(size / 1048576).toFixed(1)} MiB; the server is gone (status ${status})`);

  const times = new Map([
    ['warp-tool restore', []],
    ['warp-restore', []],
  ]);
  for (let i = 0; i < restores; i++) {
    for (const [way, measured] of times) {
      const restored = start(way === 'warp-restore' ? [...warpRestore, image] : [...warpTool, 'restore', image]);
      const { milliseconds, answer } = await firstAnswer(restored, port, questions[0]);
      if (
        !answer.cached ||
        answer.answered !== warm.answered + 1 ||
        answer.startedAt !== warm.startedAt ||
        answer.cacheEntries !== warm.cacheEntries
      )
        throw new Error(`the restored server lost its state: ${JSON.stringify(answer)}`);
      const next = await ask(port, 'silver camera'); // not cached: the whole server works, not only its cache
      if (next.cached || next.matches === 0) throw new Error(`the restored server answers wrongly: ${JSON.stringify(next)}`);
      if (measured.length === 0 && way === 'warp-tool restore')
        say(
          `restored         pid ${restored.child.pid}, answer ${answer.answered} came from the cache; the process was started at ${answer.startedAt}`,
        );
      measured.push(milliseconds);
      await stop(restored);
    }
  }
  const rows = [['cold start', cold.milliseconds], ...[...times].map(([way, measured]) => [way, median(measured)])];
  console.log(`\n  ${bold('until the first answer')}`);
  for (const [way, milliseconds] of rows) {
    const bar = '#'.repeat(Math.max(1, Math.round((milliseconds / cold.milliseconds) * 48)));
    const factor = way === 'cold start' ? '' : green(`${(cold.milliseconds / milliseconds).toFixed(1)} times faster`);
    say(`${way.padEnd(18)}${`${milliseconds.toFixed(0)} ms`.padStart(8)}  ${bar} ${factor}`);
  }
  say(dim(`restores: median of ${restores}; warp-tool starts Node.js first, warp-restore is one static executable`));
  console.log(`\n  ${dim(`$ warp-tool show ${image}`)}`);
  console.log(
    run(warpTool[0], [...warpTool.slice(1), 'show', image], { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' })
      .stdout.replace(/^/gm, '  ')
      .trimEnd(),
  );
}

async function main() {
  installAndBuild();
  await demonstrate('node', 'Node.js: an HTTP server with worker threads', [
    process.execPath,
    join(root, 'examples/quickstart/server.mjs'),
  ]);
  const [java, javac] = [find('java'), find('javac')];
  if (java && javac) {
    run(javac, ['-d', work, join(root, 'examples/quickstart/Search.java')]);
    await demonstrate('jvm', 'JVM: the same server on a stock JDK', [java, '-Xmx512m', '-cp', work, 'Search']);
  } else {
    console.log(
      `\n${dim('No JDK on this machine: the same on a stock JVM is left out (Debian: apt-get install openjdk-17-jdk-headless).')}`,
    );
  }
  console.log(`\nNext: ${bold('node bin/run.js --help')}, README.md and docs/.`);
}

try {
  await main();
} catch (error) {
  console.error(`quickstart: ${error.message}`);
  process.exitCode = 2;
}
process.exit();
