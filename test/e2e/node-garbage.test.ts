/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Node.js collects garbage before it is captured, where its event loops can; and V8 does not do so again because time has jumped. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { makeDirectory, node, projectFile } from './support/host.js';
import { checkpoint, checkpointAndEnd, killAll, launcher, restore, run, runCheckpoint, start } from './support/program.js';
import { freePort, getJson } from './support/network.js';

afterEach(killAll);

const MiB = 1 << 20;
const fixture = (name: string): string => projectFile(`test/e2e/fixtures/${name}.mjs`);
const size = (image: string): number => statSync(join(image, 'core.img')).size;
/** V8 does not collect by itself meanwhile. */
const quiet = '--no-memory-reducer';

describe('Node.js, before a capture', () => {
  it.each([{ args: [] }, { args: ['--jitless'] }])('garbage is collected ($args), and not with WARP_GC=false', async ({ args }) => {
    const sizes: number[] = [];
    for (const [environment, expected] of [
      [{}, 'collected'],
      [{ WARP_GC: 'false' }, 'held'],
    ] as const) {
      const target = start(node(), [quiet, ...args, fixture('garbage')], { environment });
      await target.output(/^main held$/m);
      const image = await checkpointAndEnd(target);
      sizes.push(size(image));
      const restored = restore(image);
      expect((await restored.output(/^main (\w+)$/m))[1]).toBe(expected);
      await restored.goesOn();
    }
    expect(sizes[1]! - sizes[0]!).toBeGreaterThan(20 * MiB);
  });

  it('threads of worker_threads collect theirs, and a program that is left running goes on', async () => {
    const target = start(node(), [quiet, fixture('garbage'), '2']);
    for (const thread of ['main', 'worker 1', 'worker 2']) await target.output(new RegExp(`^${thread} held$`, 'm'));
    const image = await checkpoint(target, ['--leave-running']);
    const restored = restore(image);
    for (const program of [target, restored]) {
      for (const thread of ['main', 'worker 1', 'worker 2']) await program.output(new RegExp(`^${thread} collected$`, 'm'));
      await program.goesOn();
    }
    // Once more, with the same loops.
    await restored.goesOn();
    await restore(await checkpointAndEnd(restored)).goesOn();
  });

  it('a program that does not come to its event loop is captured as it is', async () => {
    const target = start(node(), [fixture('busy')]);
    await target.output(/^tick 3$/m);
    const directory = join(makeDirectory(), 'image');
    const result = await runCheckpoint(target.pid, directory, ['--log-level', 'info']);
    expect(result.code).toBe(0);
    expect(result.stderr).toMatch(/garbage is not collected in every event loop: the main thread does not wait for events/);
    await restore(directory).goesOn();
  });

  it('what the engine adds to an event loop does not keep a program running', async () => {
    const target = start(node(), ['-e', "console.log('ready'); setTimeout(() => console.log('end'), 2000)"]);
    await target.output(/ready/);
    const image = await checkpoint(target, ['--leave-running']);
    for (const program of [target, restore(image)]) {
      expect(await program.ended).toEqual({ code: 0, signal: null });
      expect(program.stdout).toMatch(/end\n$/);
    }
  });

  it('a worker of a cluster goes on answering, and so does its primary, which cannot be captured', async () => {
    const port = await freePort();
    const target = start(node(), [fixture('cluster'), String(port)]);
    const worker = Number((await target.output(/^worker (\d+)$/m))[1]);
    expect(await getJson(port, '/')).toEqual({ pid: worker, answers: 1 });
    await checkpoint(worker, ['--leave-running']);
    expect(await getJson(port, '/')).toEqual({ pid: worker, answers: 2 });
    const refused = await runCheckpoint(target.pid, join(makeDirectory(), 'image'));
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/child process/);
    await target.goesOn();
    expect(await getJson(port, '/')).toEqual({ pid: worker, answers: 3 });
  });
});

describe('Node.js, restored much later', () => {
  const later = ['--user', '--map-current-user', '--time', '--monotonic', '1000', '--fork'];

  it('does not collect garbage first of all', async ({ skip }) => {
    if ((await run('/usr/bin/unshare', [...later, 'true']).ended).code !== 0) skip('this host allows no time namespaces');
    for (const [environment, expected] of [
      [{}, /^\d\d+ ticks after the jump: (0) full collections$/m],
      [{ WARP_GC: 'false' }, /^\d+ ticks after the jump: ([1-9]\d*) full collections$/m],
    ] as const) {
      const target = start(node(), ['--expose-gc', fixture('garbage')], { environment });
      await target.output(/^tick 3$/m);
      const image = await checkpointAndEnd(target);
      const restored = run('/usr/bin/unshare', [...later, '--kill-child', launcher(), '', projectFile('native/build/warp-restore'), image]);
      await restored.output(expected);
    }
  });
});
