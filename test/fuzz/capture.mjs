/** Real images to damage: the engine's of a small program, plain and compressed, and gcore's. */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const tool = fileURLToPath(new URL('../../bin/run.js', import.meta.url));
const ordinaryUser = process.getuid() === 0 ? { uid: 65534, gid: 65534 } : {};

/** Paths of the images; `missing` says what could not be made, and why. */
export async function capture(directory) {
  const place = join(directory, 'captured');
  mkdirSync(place);
  chmodSync(directory, 0o711);
  chmodSync(place, 0o777);
  const options = { cwd: place, encoding: 'utf8', env: { PATH: process.env.PATH, TOKEN: 'PlantedSecret42' }, ...ordinaryUser };
  // `run` becomes the program.
  const program = spawn(process.execPath, [tool, 'run', '--', 'sleep', '1000'], { ...options, stdio: 'ignore' });
  const paths = [];
  const missing = [];
  try {
    await ready(program, options);
    for (const [name, ...flags] of [['plain'], ['lz4', '--compression', 'lz4']]) {
      const image = join(place, name);
      const { status, stderr } = spawnSync(
        process.execPath,
        [tool, 'checkpoint', String(program.pid), '--to', image, '--leave-running', ...flags],
        options,
      );
      if (status === 0) paths.push(join(image, 'core.img'));
      else missing.push(`${name}: ${stderr.trim()}`);
    }
    const core = join(place, 'gcore');
    const { error, stderr } = spawnSync('gcore', ['-o', core, String(program.pid)], options);
    if (existsSync(`${core}.${program.pid}`)) paths.push(`${core}.${program.pid}`);
    else missing.push(`gcore: ${error?.message ?? stderr.trim().split('\n').at(-1)}`);
  } finally {
    program.kill('SIGKILL');
  }
  return { paths, missing };
}

async function ready(program, options) {
  for (let tries = 0; tries < 600; tries++) {
    const { stdout } = spawnSync(process.execPath, [tool, 'ps', '--json'], options);
    if (stdout.includes(`"pid": ${program.pid},`)) return;
    if (program.exitCode !== null || program.signalCode !== null)
      throw new Error('the program to capture has ended; build first (`npm run build`)');
    await setTimeout(100);
  }
  throw new Error('the program to capture is not ready');
}
