#!/usr/bin/env node
/**
 * Damages images in many ways and looks into each with every command: none may crash, hang or fill the memory, and each answers with a result or
 * one clear line.
 *
 *   node test/fuzz/run.mjs --count 20000         numbers 0 to 19999; the same number always makes the same damage
 *   node test/fuzz/run.mjs --only 4711           one of them
 *   node test/fuzz/run.mjs --image FILE          an image as it is
 *
 * Some seeds are captured from a real program, and differ from run to run: damaged images with a fault are kept in test/fuzz/found.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { capture } from './capture.mjs';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '20000' },
    from: { type: 'string', default: '0' },
    only: { type: 'string' },
    image: { type: 'string' },
    // Only images that are built in code: these are the same everywhere.
    'no-capture': { type: 'boolean', default: false },
    jobs: { type: 'string', default: String(availableParallelism()) },
  },
});
const one = values.only !== undefined || values.image !== undefined;
const first = Number(values.only ?? values.from);
const last = one ? first + 1 : first + Number(values.count);
const jobs = one ? 1 : Number(values.jobs);

/** JavaScript heap of a worker and all its memory, MiB; images are a few hundred kilobytes, the largest four megabytes. */
const HEAP = 400;
const MEMORY = 1400;
/** CPU seconds for one image: all commands together take a fraction of one, with 66,000 segments a few. */
const PATIENCE = 60;
/** Numbers that one process does. */
const SHARE = 250;

const root = fileURLToPath(new URL('../..', import.meta.url));
// Memory, where there is one: twenty thousand images are written and read.
const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const directory = mkdtempSync(join(base, 'warp-tool-fuzz-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(130));

const worker = join(directory, 'worker.mjs');
await build({
  absWorkingDir: root,
  entryPoints: ['test/fuzz/worker.ts'],
  outdir: directory,
  outExtension: { '.js': '.mjs' },
  splitting: true,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: 'inline',
  banner: { js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);" },
  define: { 'import.meta.url': JSON.stringify(new URL('../../src/main.ts', import.meta.url).href), WARP_TOOL_VERSION: '"fuzz"' },
  external: ['typescript', 'tsx', 'ts-node', 'react-devtools-core'],
  logLevel: 'error',
});

const { paths: seeds, missing } = values['no-capture'] ? { paths: [], missing: [] } : await capture(directory);
for (const reason of missing) console.error(`not among the seeds: ${reason}`);

let next = first;
let done = 0;
const wrong = [];

/** CPU seconds that a process has used; undefined when it has ended. */
function cpuSeconds(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return undefined;
  }
}

/** Runs numbers of one share in one process; resolves to the number that it could not get past, undefined when it did all. */
function runShare(own, from, to) {
  return new Promise((resolve, reject) => {
    // The soft limit ends the process should this one not be there to watch it.
    const limits = `ulimit -c 0; ulimit -d ${MEMORY * 1024}; ulimit -t ${PATIENCE * SHARE}; exec "$0" "$@"`;
    const child = spawn(
      'sh',
      [
        '-c',
        limits,
        process.execPath,
        '--enable-source-maps',
        `--max-old-space-size=${HEAP}`,
        worker,
        own,
        found,
        from,
        to,
        values.image ?? '',
        ...seeds,
      ],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH },
      },
    );
    const at = { number: from, seed: '', since: 0, finished: false, hung: false };
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text) => (errors = (errors + text).slice(-4000)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { number, seed, wrong: where, problem, stack, done: finished } = JSON.parse(line);
      if (number !== undefined) {
        if (number > from) done++;
        Object.assign(at, { number, seed, since: cpuSeconds(child.pid) ?? 0 });
      }
      if (where !== undefined) note({ ...at, call: where, problem, stack });
      if (finished) at.finished = true;
    });
    const watch = setInterval(() => {
      const used = cpuSeconds(child.pid);
      if (used === undefined || used - at.since < PATIENCE) return;
      at.hung = true;
      child.kill('SIGKILL');
    }, 1000);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearInterval(watch);
      done++;
      if (at.finished && code === 0) return resolve(undefined);
      const problem = at.hung ? `hangs: more than ${PATIENCE} s of CPU time` : `ends the process: ${signal ?? `status ${code}`}`;
      const log = join(own, 'call');
      if (existsSync(join(own, 'damaged.img'))) copyFileSync(join(own, 'damaged.img'), join(found, `${at.number}.img`));
      note({ ...at, call: existsSync(log) ? readFileSync(log, 'utf8').trim() : 'start', problem, stack: errors.trim() });
      resolve(at.number);
    });
  });
}

const found = join(root, 'test/fuzz/found');

function note({ number, seed, call, problem, stack }) {
  wrong.push(number);
  console.error(
    `${number} (${seed}): ${call.replaceAll(`${directory}/`, '')}\n  ${problem}\n${String(stack)
      .split('\n')
      .slice(0, 8)
      .map((line) => `    ${line}`)
      .join('\n')}`,
  );
}

async function job(index) {
  const own = join(directory, String(index));
  mkdirSync(own);
  while (next < last) {
    let from = next;
    const to = Math.min(last, from + SHARE);
    next = to;
    while (from < to) {
      const stuck = await runShare(own, from, to);
      if (stuck === undefined) break;
      from = stuck + 1;
    }
    if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${last - first}\x1b[K`);
  }
}

mkdirSync(found, { recursive: true });
await Promise.all(Array.from({ length: jobs }, (_, index) => job(index)));
const numbers = [...new Set(wrong)];
console.log(
  `${last - first} damaged images, ${numbers.length} with a fault${numbers.length > 0 ? `: ${numbers.slice(0, 50).join(' ')}` : ''}`,
);
process.exitCode = numbers.length > 0 ? 1 : 0;
