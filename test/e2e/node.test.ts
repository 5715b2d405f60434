/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Node.js with worker threads, open timers, an HTTP listener and a file watcher; through the command line as well. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { makeDirectory, node, projectFile } from './support/host.js';
import { type Program, checkpoint, checkpointAndEnd, killAll, restore, run, start, warpTool } from './support/program.js';
import { freePort, getJson } from './support/network.js';

afterEach(killAll);

interface State {
  pid: number;
  requests: number;
  intervals: number;
  immediates: number;
  changes: number;
  farTimer: boolean;
  secret: string;
  text: string;
  cache: string;
  workers: { threadId: number; done: number; ticks: number }[];
  workersRight: boolean;
}

async function ready(target: Program): Promise<number> {
  const port = Number((await target.output(/^port (\d+)$/m))[1]);
  await target.output(/^tick 5$/m);
  return port;
}

/** The restored server has the state of the capture and goes on from there. */
async function expectGoesOn(restored: Program, port: number, before: State): Promise<State> {
  await restored.goesOn();
  const after = await getJson<State>(port, '/state');
  expect(after).toMatchObject({ secret: before.secret, cache: before.cache, text: before.text, farTimer: false, workersRight: true });
  expect(after.requests).toBe(before.requests + 1);
  expect(after.workers.map((worker) => worker.threadId)).toEqual(before.workers.map((worker) => worker.threadId));
  expect(after.workers.map((worker) => worker.done)).toEqual(before.workers.map((worker) => worker.done + 1));
  await restored.goesOn();
  const later = await getJson<State>(port, '/state');
  expect(later.intervals).toBeGreaterThan(after.intervals);
  expect(later.immediates).toBeGreaterThan(after.immediates);
  expect(later.changes).toBeGreaterThan(after.changes);
  later.workers.forEach((worker, i) => expect(worker.ticks).toBeGreaterThan(after.workers[i]!.ticks));
  return later;
}

describe('Node.js', () => {
  it('a service comes back three times', async () => {
    const target = start(node(), [projectFile('test/e2e/fixtures/service.mjs'), makeDirectory(), String(await freePort())]);
    const port = await ready(target);
    const before = await getJson<State>(port, '/state');
    const image = await checkpointAndEnd(target);
    for (let i = 0; i < 3; i++) {
      const restored = restore(image);
      const state = await expectGoesOn(restored, port, before);
      expect(state.pid).toBe(restored.pid);
      expect(state.pid).not.toBe(before.pid);
      await restored.kill();
    }
  });

  it.each([
    { kind: 'plain', args: [] },
    { kind: 'compressed', args: ['--compression', 'lz4'] },
  ])('a service left running works on, and its $kind image has the state of the capture', async ({ args }) => {
    const target = start(node(), [projectFile('test/e2e/fixtures/service.mjs'), makeDirectory(), String(await freePort())]);
    const port = await ready(target);
    const before = await getJson<State>(port, '/state');
    const image = await checkpoint(target, ['--leave-running', ...args]);
    await expectGoesOn(target, port, before);
    await target.kill();
    await expectGoesOn(restore(image), port, before);
  });

  it('three generations, each compressed', async () => {
    let target = start(node(), [projectFile('test/e2e/fixtures/service.mjs'), makeDirectory(), String(await freePort())]);
    const port = await ready(target);
    for (let generation = 0; generation < 3; generation++) {
      const before = await getJson<State>(port, '/state');
      target = restore(await checkpointAndEnd(target, ['--compression', 'lz4']), ['--no-concurrent']);
      await expectGoesOn(target, port, before);
    }
  });

  it('with its old ids, from a compressed image: what loads memory has given its own ids back', async ({ skip }) => {
    const trial = run('/usr/bin/unshare', ['--user', '--pid', '--fork', '--mount-proc', '--map-root-user', 'true']);
    if ((await trial.ended).code !== 0) skip('this host allows no user namespaces');
    const target = start(node(), [projectFile('test/e2e/fixtures/service.mjs'), makeDirectory(), String(await freePort())]);
    const port = await ready(target);
    const before = await getJson<State>(port, '/state');
    const image = await checkpointAndEnd(target, ['--compression', 'lz4']);
    for (let i = 0; i < 3; i++) {
      const restored = restore(image, ['--keep-pid', '--no-concurrent']);
      const state = await expectGoesOn(restored, port, before);
      expect(state.pid).toBe(before.pid);
      restored.child.kill('SIGTERM');
      await restored.ended;
    }
  });

  it('20 generations', async () => {
    let target = start(node(), [projectFile('test/e2e/fixtures/service.mjs'), makeDirectory(), String(await freePort())]);
    const port = await ready(target);
    for (let generation = 0; generation < 20; generation++) {
      const before = await getJson<State>(port, '/state');
      const image = await checkpointAndEnd(target);
      target = restore(image);
      await expectGoesOn(target, port, before);
      rmSync(image, { recursive: true });
    }
  });

  it('by warp-tool run, ps, checkpoint and restore, with their exit statuses', async () => {
    const scratch = makeDirectory();
    const target = warpTool(['run', '--', node(), projectFile('test/e2e/fixtures/service.mjs'), scratch, String(await freePort())]);
    const port = await ready(target);
    const before = await getJson<State>(port, '/state');
    expect(before.pid).toBe(target.pid);
    const list = warpTool(['ps', '--json']);
    expect((await list.ended).code).toBe(0);
    expect(JSON.stringify(JSON.parse(list.stdout))).toContain(String(target.pid));
    const image = join(scratch, 'image');
    const client = warpTool(['checkpoint', String(target.pid), '--to', image]);
    await client.ended;
    expect(client.stderr).toBe('');
    expect(client.child.exitCode).toBe(0);
    expect(await target.ended).toEqual({ code: null, signal: 'SIGKILL' });
    for (let i = 0; i < 3; i++) {
      const restored = warpTool(['restore', image]);
      await expectGoesOn(restored, port, before);
      await restored.kill();
    }
  });

  it('an exit status and a signal come through run and restore', async () => {
    const script = join(projectFile('test/e2e/fixtures'), 'exit.mjs');
    expect(await warpTool(['run', '--', node(), '-e', 'process.exit(7)']).ended).toEqual({ code: 7, signal: null });
    const target = start(node(), [script]);
    await target.output(/^tick 3$/m);
    const image = await checkpointAndEnd(target);
    const exits = warpTool(['restore', image], { stdin: 'pipe' });
    await exits.goesOn();
    exits.child.kill('SIGUSR2');
    expect((await exits.ended).code).toBe(33);
    const dies = warpTool(['restore', image], { stdin: 'pipe' });
    await dies.goesOn();
    dies.child.kill('SIGTERM');
    const ended = await dies.ended;
    expect(ended.signal === 'SIGTERM' || ended.code === 143).toBe(true);
  });
});
