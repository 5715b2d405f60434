/** A stock JVM, unmodified, under each collector. */
import { randomBytes } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { command, makeDirectory, projectFile, user } from './support/host.js';
import { type Program, checkpoint, checkpointAndEnd, killAll, start, warpTool } from './support/program.js';
import { writeKey } from './support/keys.js';
import { lastTick, restoreProgram } from './support/c-programs.js';
import { freePort, readAll } from './support/network.js';

const java = command('java');
const javac = command('javac');
afterEach(killAll);

describe.skipIf(!java || !javac)('JVM (where a JDK is installed; on Debian: apt-get install openjdk-17-jdk-headless)', () => {
  let classes: string;

  beforeAll(() => {
    classes = makeDirectory();
    const result = spawnSync(javac!, ['-d', classes, projectFile('test/e2e/fixtures/Service.java')], {
      ...user,
      encoding: 'utf8',
      timeout: 120_000,
    });
    if (!existsSync(join(classes, 'Service.class'))) throw new Error(`javac: ${result.stderr}`);
  });

  async function startService(collector: string): Promise<{ target: Program; ports: [number, number]; digest: string }> {
    const own = [String(await freePort()), String(await freePort())];
    const target = start(java!, [`-XX:+Use${collector}`, '-Xmx256m', '-Xshare:auto', '-cp', classes, 'Service', makeDirectory(), ...own]);
    const port = Number((await target.output(/^port (\d+)$/m))[1]);
    const selectorPort = Number((await target.output(/^selector port (\d+)$/m))[1]);
    await target.output(/^tick 10$/m);
    return { target, ports: [port, selectorPort], digest: await readAll(port) };
  }

  it.each(['SerialGC', 'ParallelGC', 'G1GC', 'ZGC'])('%s: a service comes back three times', async (collector) => {
    const { target, ports, digest } = await startService(collector);
    const running = await checkpoint(target, ['--leave-running']);
    await target.goesOn();
    const image = await checkpointAndEnd(target);
    expect(target.stdout).not.toContain('FAIL');
    for (let i = 0; i < 3; i++) {
      const restored = await restoreProgram(image, lastTick(target.stdout));
      expect(await readAll(ports[0])).toBe(digest);
      expect(await readAll(ports[1])).toBe('selected\n');
      await restored.goesOn();
      await restored.kill();
    }
    await restoreProgram(running);
  });

  it.each(['G1GC', 'ZGC'])('%s: three generations, each compressed', async (collector) => {
    let { target, ports, digest } = await startService(collector);
    for (let generation = 0; generation < 3; generation++) {
      const image = await checkpointAndEnd(target, ['--compression', 'lz4']);
      target = await restoreProgram(image, lastTick(target.stdout), ['--no-concurrent']);
      expect(await readAll(ports[0])).toBe(digest);
      rmSync(image, { recursive: true });
    }
  });

  it.each(['G1GC', 'ZGC'])('%s: encrypted and put in order, read at once or while it runs', async (collector) => {
    const { target, ports, digest } = await startService(collector);
    const key = ['--encryption-key-file', writeKey(randomBytes(32))];
    const image = await checkpointAndEnd(target, ['--compression', 'lz4', ...key]);
    const answers = `exec 3<>/dev/tcp/127.0.0.1/${ports[0]} && grep -q . <&3`;
    const trained = warpTool(['optimize', image, '--runs', '1', ...key, '--until', `bash -c '${answers}'`]);
    expect([(await trained.ended).code, trained.stderr]).toEqual([0, '']);
    for (const flags of [['--no-concurrent'], ['--concurrent'], ['--concurrent', '--load-faults', 'signals']]) {
      const restored = await restoreProgram(image, lastTick(target.stdout), [...flags, ...key]);
      expect(await readAll(ports[0])).toBe(digest);
      await restored.goesOn();
      await restored.kill();
    }
  });

  it('20 generations under G1', async () => {
    let { target, ports, digest } = await startService('G1GC');
    for (let generation = 0; generation < 20; generation++) {
      const image = await checkpointAndEnd(target);
      target = await restoreProgram(image, lastTick(target.stdout));
      expect(await readAll(ports[0])).toBe(digest);
      rmSync(image, { recursive: true });
    }
  });
});
