/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** CPython with threads, time-outs, a selector and child processes. */
import { realpathSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { command, makeDirectory, projectFile, user } from './support/host.js';
import { checkpoint, checkpointAndEnd, killAll, restore, start } from './support/program.js';
import { lastTick, restoreProgram } from './support/c-programs.js';
import { freePort, readAll } from './support/network.js';

afterEach(killAll);

/** Interpreters on this machine, those only that the test user can run. */
const interpreters = ['/usr/bin/python3', '/usr/local/bin/python3', command('python3')]
  .filter((path) => path !== undefined && spawnSync(path, ['-c', 'import ssl'], user).status === 0)
  .map((path) => realpathSync(path!))
  .filter((path, index, all) => all.indexOf(path) === index);

describe.skipIf(!interpreters.length)('python3 (where installed; on Debian: apt-get install python3)', () => {
  it.each(interpreters)('%s with threads comes back three times', async (python) => {
    const target = start(python, [projectFile('test/e2e/fixtures/threads.py'), makeDirectory(), String(await freePort())]);
    const port = Number((await target.output(/^port (\d+)$/m))[1]);
    await target.output(/^tick 20$/m);
    const before = await readAll(port);
    const running = await checkpoint(target, ['--leave-running']);
    await target.goesOn();
    const image = await checkpointAndEnd(target);
    for (let i = 0; i < 3; i++) {
      const restored = await restoreProgram(image, lastTick(target.stdout));
      expect((await readAll(port)).split(' ')[0]).toBe(before.split(' ')[0]);
      await restored.goesOn();
      await restored.kill();
    }
    await restoreProgram(running);
  });

  it.each(interpreters)('%s busy with imports and garbage collection', async (python) => {
    const code = [
      'import gc, importlib, sys, threading, time',
      'import json, decimal, fractions',
      'def load():',
      '    while True:',
      '        for m in (json, decimal, fractions): importlib.reload(m)',
      '        gc.collect()',
      'threading.Thread(target=load, daemon=True).start()',
      'print("ready", flush=True)',
      'n = 0',
      'while True:',
      '    print(f"tick {n}", flush=True); n += 1; time.sleep(0.02)',
    ].join('\n');
    const target = start(python, ['-c', code]);
    await target.output(/^tick 10$/m);
    const image = await checkpointAndEnd(target);
    for (let i = 0; i < 3; i++) {
      const restored = restore(image);
      await restored.goesOn(/^tick \d+$/gm, 20);
      await restored.kill();
    }
  });
});
