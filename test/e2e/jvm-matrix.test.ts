/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/**
 * Stock JVMs under load in their different ways to run, captured at random moments and restored, generation after generation. WARP_SOAK_GENERATIONS
 * is how many each goes through (`npm run soak -- jvm`: 50); without it a few configurations go through two.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { lastTick } from './support/c-programs.js';
import { command, makeDirectory, projectFile } from './support/host.js';
import { compileJava, jdks } from './support/jvm.js';
import { checkpointAndEnd, killAll, restore, start } from './support/program.js';

const generations = Number(process.env['WARP_SOAK_GENERATIONS'] ?? 0);
/** This process is in a pid namespace of its own, which scripts/soak.mjs made. */
const ownIds = process.env['WARP_SOAK_OWN_IDS'] === '1';
const installed = command('javac') ? jdks() : [];
const jar = existsSync(new URL('../../native/build/warp-crac.jar', import.meta.url));
afterEach(killAll);

/**
 * The next ids of processes and threads are small again, as in a container (proc_sys_kernel(5)): much that a program holds looks like them. They are
 * others than a moment before: the program takes a new id for a restore.
 */
function smallIds(moment: number): void {
  if (ownIds) writeFileSync('/proc/sys/kernel/ns_last_pid', String(2 + (moment % 3) * 100));
}

const withoutCompression = ['-XX:-UseCompressedOops', '-XX:-UseCompressedClassPointers'];
const collectors = ['Serial', 'Parallel', 'G1', 'Z', 'Shenandoah'];
const released = ['Serial', 'Parallel', 'G1', 'Shenandoah'];

/** Flight recorder, log of garbage collections and debugger's listener, all with files or sockets that are open all the time. */
const observed = [
  '-XX:FlightRecorderOptions=repository=recorded',
  '-XX:StartFlightRecording=settings=profile,filename=at-exit.jfr',
  '-Xlog:gc*:file=gc.log',
  '-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:0',
];

/** What differs from one configuration to the next: flags of the virtual machine; `agent` stands for the project's own, `observed` for those above. */
const ways: string[][] = [[], withoutCompression, ['-Xshare:off'], ['-Xint'], ['-XX:+UseTransparentHugePages', '-XX:+AlwaysPreTouch']];
const all: string[][] = [
  ...ways.flatMap((way) => collectors.map((name) => [`-XX:+Use${name}GC`, ...way])),
  ['-XX:+UseG1GC', '-XX:TieredStopAtLevel=1'],
  ['-XX:+UseG1GC', '-XX:+UseCompactObjectHeaders'],
  ['-XX:+UseShenandoahGC', '-XX:+UnlockExperimentalVMOptions', '-XX:ShenandoahGCMode=generational'],
  ...(jar ? released.map((name) => [`-XX:+Use${name}GC`, 'agent']) : []),
  ...(jar ? [['-XX:+UseG1GC', 'agent', 'observed']] : []),
];

/** Each way to run once, in few configurations. */
const few: string[][] = [
  ['-XX:+UseSerialGC', '-Xint'],
  ['-XX:+UseParallelGC', '-XX:+UseTransparentHugePages', '-Xshare:off'],
  ['-XX:+UseG1GC', ...withoutCompression],
  ['-XX:+UseZGC'],
  ['-XX:+UseShenandoahGC'],
];

/** On a machine with many more threads than processors each of them has to get one before it can stop. */
const patiently = ['--timeout', '100'];
/** Ways to keep and to load an image, in turn. */
const images: { capture: string[]; restore: string[] }[] = [
  { capture: patiently, restore: [] },
  { capture: [...patiently, '--compression', 'lz4'], restore: ['--concurrent'] },
  { capture: patiently, restore: ['--no-direct-map'] },
];

const configurations = installed.flatMap((jdk) =>
  (generations ? all : few).map((flags) => [`${jdk.name} ${flags.join(' ').replaceAll(/-XX:\+?/g, '')}`, { jdk, flags }] as const),
);

describe.skipIf(installed.length === 0)('JVM matrix (on Debian: apt-get install openjdk-17-jdk-headless)', () => {
  let classes: string;
  beforeAll(() => {
    classes = compileJava('Load');
  });

  it.for(configurations)('%s', { timeout: 300_000 + generations * 60_000 }, async ([name, { jdk, flags }], { skip }) => {
    const java = join(jdk.home, 'bin/java');
    const agent = `-agentpath:${projectFile('native/build/libwarp.so')}=${projectFile('native/build/warp-crac.jar')}`;
    const meant: Record<string, string[]> = { agent: [agent], observed };
    const line = ['-Xmx128m', '-XX:ErrorFile=/dev/stdout', ...flags.flatMap((flag) => meant[flag] ?? flag)];
    skip(spawnSync(java, [...line, '-version'], { stdio: 'ignore' }).status !== 0, 'this JVM does not have it');
    smallIds(0);
    let target = start(java, [...line, '-cp', classes, 'Load'], { directory: makeDirectory() });
    await target.output(/^tick 1$/m);
    let moments = 0;
    try {
      for (const count = generations || 1; moments < count; moments++) {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 200));
        const way = images[moments % images.length]!;
        const image = await checkpointAndEnd(target, way.capture);
        expect(target.stdout).not.toContain('FAIL');
        const stopped = lastTick(target.stdout);
        smallIds(moments + 1);
        target = restore(image, way.restore);
        // Behind a tick of which each of its threads has done all in the restored process.
        await target.output(/^restored ok\ntick \d+$/m);
        expect(target.stdout).toMatch(new RegExp(`^(restored ok\\n)?tick ${stopped + 1}\\n`));
        rmSync(image, { recursive: true });
      }
      await target.kill();
    } finally {
      if (generations) console.log(`${name}: ${moments} of ${generations} checkpoints and restores`);
    }
  });
});
