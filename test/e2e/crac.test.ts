/** CRaC on a stock JDK: the agent that `run` adds, used as the library org.crac uses an implementation. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { command, makeDirectory } from './support/host.js';
import { compileJava, jdks, type Jdk } from './support/jvm.js';
import { writeKey } from './support/keys.js';
import { exchange, freePort, getJson } from './support/network.js';
import { killAll, type Program, run, type StartOptions, warpTool } from './support/program.js';

const javac = command('javac');
const jar = existsSync(new URL('../../native/build/warp-crac.jar', import.meta.url));
afterEach(killAll);

interface State {
  answers: number;
  pid: number;
  alive: boolean;
  mode: string | null;
  property: string | null;
  events: string[];
  secure: string;
  local: string;
  math: string;
  seeded: string;
  fresh: string;
  restored: number | null;
  uptime: number | null;
  child: string | null;
}

let classes: string;

interface Service {
  program: Program;
  port: number;
  log: string;
  image: string;
}

/** Resolves to the document at `path` as soon as something listens. */
async function answerOf<T = State>(program: Program, port: number, path = '/'): Promise<T> {
  for (;;) {
    try {
      return await getJson<T>(port, path);
    } catch (error) {
      if (program.child.exitCode !== null || program.child.signalCode !== null)
        throw new Error(`it ended: ${program.stdout}${program.stderr}`, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

async function startWeb(
  java: string,
  { jvm = [], flags = [], ...options }: StartOptions & { jvm?: string[]; flags?: string[] } = {},
): Promise<Service> {
  const [port, log, image] = [await freePort(), join(makeDirectory(), 'log'), join(makeDirectory(), 'image')];
  const line = [java, '-Xmx256m', ...jvm, '-cp', classes, 'Web', String(port), log];
  const program = warpTool(['run', '--image', image, ...flags, '--', ...line], { stdin: 'pipe', ...options });
  await program.output(/^ready \d+$/m);
  return { program, port, log, image };
}

/** Asks for a checkpoint from outside. */
async function ask(service: Service, ...flags: string[]): Promise<{ code: number | null; stderr: string }> {
  const client = warpTool(['checkpoint', String(service.program.pid), '--to', service.image, ...flags]);
  const { code } = await client.ended;
  return { code, stderr: client.stderr };
}

async function capture(service: Service, ...flags: string[]): Promise<void> {
  const asked = await ask(service, ...flags);
  expect(asked.code, asked.stderr + service.program.stderr).toBe(0);
  expect((await service.program.ended).signal).toBe('SIGKILL');
}

const installed = javac && jar ? jdks() : [];

describe.skipIf(installed.length === 0)('CRaC on a stock JDK (on Debian: apt-get install openjdk-17-jdk-headless)', () => {
  beforeAll(() => {
    classes = compileJava('crac/Crac', 'crac/Web', 'crac/Job');
  });

  describe.each(installed)('$name', ({ home }: Jdk) => {
    const java = join(home, 'bin/java');

    it('resources close and open again; the restored process is one of its own', async () => {
      const service = await startWeb(java);
      const before = await answerOf(service.program, service.port);
      // The virtual machine listens for tools from now on.
      expect((await run(join(home, 'bin/jcmd'), [String(service.program.pid), 'VM.uptime']).ended).code).toBe(0);
      expect(before.restored).toBeNull();
      await capture(service);
      const captured = statSync(join(service.image, 'core.img')).mtimeMs;
      expect(statSync(service.log).size).toBe(0);
      const ports = [await freePort(), await freePort()];
      const replicas = ports.map((port) =>
        warpTool(['restore', service.image, '--env', `PORT=${port}`, '--env', 'MODE=live=1', '--', '-Dapp.mode=test', 'Job', 'a', 'b c']),
      );
      const states = [];
      for (const [index, replica] of replicas.entries()) {
        await replica.output(/^job a,b c mode test loader true$/m);
        const state = await answerOf(replica, ports[index]!);
        expect(state).toMatchObject({ answers: 2, pid: replica.pid, alive: true, mode: 'live=1', property: 'test' });
        expect(state.events).toEqual(['before listener', 'before log', 'after log', 'after listener']);
        expect((await answerOf(replica, ports[index]!, '/child')).child).toBe('live=1');
        states.push(state);
        const told = await vi.waitFor(
          async () => {
            const later = await answerOf(replica, ports[index]!);
            expect(later.restored).toBeGreaterThan(captured - 1);
            return later;
          },
          { timeout: 60_000 },
        );
        expect(told.uptime).toBeGreaterThanOrEqual(0);
        expect(told.restored! + told.uptime!).toBeLessThanOrEqual(Date.now() + 1);
        const jps = run(join(home, 'bin/jps'), []);
        await jps.ended;
        expect(jps.stdout).toContain(`${replica.pid} Web\n`);
        const jcmd = run(join(home, 'bin/jcmd'), [String(replica.pid), 'VM.uptime']);
        expect((await jcmd.ended).code, jcmd.stderr).toBe(0);
        const jstat = run(join(home, 'bin/jstat'), ['-gcutil', String(replica.pid)]);
        expect((await jstat.ended).code, jstat.stderr).toBe(0);
        expect(replica.stdout).not.toContain('Full thread dump');
        expect(replica.stderr).not.toContain('are not used');
      }
      for (const one of ['secure', 'local', 'math', 'fresh'] as const) expect(states[0]![one]).not.toBe(states[1]![one]);
      // Its own seed is its own affair.
      expect(states[0]!.seeded).toBe(states[1]!.seeded);
      expect(states[0]!.pid).not.toBe(before.pid);
      expect(readFileSync(service.log, 'utf8')).toBe('restored\nrestored\n');
    });

    it("the virtual machine's own logs, recording and debugger go on", async () => {
      const directory = makeDirectory();
      const debugPort = await freePort();
      const service = await startWeb(java, {
        jvm: [
          `-Xlog:gc:file=${directory}/gc.log`,
          `-XX:StartFlightRecording=settings=default,filename=${directory}/at-exit.jfr`,
          `-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:${debugPort}`,
        ],
      });
      await capture(service);
      const logged = readFileSync(join(directory, 'gc.log'), 'utf8');
      const restored = warpTool(['restore', service.image]);
      await answerOf(restored, service.port);
      const jcmd = async (...args: string[]): Promise<string> => {
        const asked = run(join(home, 'bin/jcmd'), [String(restored.pid), ...args]);
        expect((await asked.ended).code, asked.stderr).toBe(0);
        return asked.stdout;
      };
      await jcmd('GC.run');
      const since = readFileSync(join(directory, 'gc.log'), 'utf8');
      expect(since.startsWith(logged)).toBe(true);
      expect(since.slice(logged.length)).toMatch(/Pause Full \(Diagnostic Command\)/);
      expect(await jcmd('JFR.check')).toMatch(/^Recording 1: .*\(running\)$/m);
      await jcmd('JFR.dump', 'name=1', `filename=${directory}/dump.jfr`);
      const jfr = run(join(home, 'bin/jfr'), ['print', '--events', 'jdk.GarbageCollection', join(directory, 'dump.jfr')]);
      expect((await jfr.ended).code, jfr.stderr).toBe(0);
      expect(jfr.stdout).toMatch(/cause = "Diagnostic Command"/);
      expect(await exchange(debugPort, 'JDWP-Handshake')).toBe('JDWP-Handshake');
    });

    it('a resource that throws makes the checkpoint fail, and the application goes on', async () => {
      const service = await startWeb(java);
      await answerOf(service.program, service.port, '/refuse/');
      const refused = await ask(service);
      expect(refused.code).toBe(2);
      expect(refused.stderr.trimEnd().split('\n')).toEqual([
        expect.stringMatching(
          /^error: java\.lang\.IllegalStateException: 3 connections are in use \(Web\$1\.beforeCheckpoint, Web\.java:\d+\)$/,
        ),
        expect.stringMatching(/refuses the checkpoint and goes on: 1 of its resources/),
      ]);
      expect(existsSync(service.image)).toBe(false);
      const state = await answerOf(service.program, service.port);
      expect(state.events).toEqual(
        ['refusing', 'listener', 'log']
          .map((name) => `before ${name}`)
          .concat(['log', 'listener', 'refusing'].map((name) => `after ${name}`)),
      );
      await answerOf(service.program, service.port, '/accept/');
      await capture(service);
    });

    it('is asked for from inside; what the application cannot give is thrown there', async () => {
      const service = await startWeb(java);
      await answerOf(service.program, service.port, '/refuse/');
      service.program.child.stdin!.write('checkpoint\n');
      await service.program.output(/^refused warp\.crac\.CheckpointException\nbecause java\.lang\.IllegalStateException: 3 connections$/m);
      await answerOf(service.program, service.port, '/accept/');
      service.program.child.stdin!.write('checkpoint\n');
      expect((await service.program.ended).signal).toBe('SIGKILL');
      const restored = warpTool(['restore', service.image]);
      await restored.output(/^went on$/m);
      expect((await answerOf(restored, service.port)).pid).toBe(restored.pid);
    });
  });

  const collectors = installed.flatMap(({ name, home }) => {
    const known = ['Serial', 'Parallel', 'G1', 'Shenandoah'].filter(
      (collector) => spawnSync(join(home, 'bin/java'), [`-XX:+Use${collector}GC`, '-version'], { stdio: 'ignore' }).status === 0,
    );
    return known.map((collector) => ({ name: `${name}, ${collector}`, home, flag: `-XX:+Use${collector}GC` }));
  });

  describe.each(collectors)('$name', ({ home, flag }) => {
    const java = join(home, 'bin/java');

    it('stores what lives, over generations', async () => {
      const service = await startWeb(java, { jvm: [flag, '-Xmx400m'] });
      for (let generation = 0; generation < 2; generation++) {
        await answerOf(service.program, service.port, '/garbage/130');
        const resident = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${service.program.pid}/status`, 'utf8'))![1]) * 1024;
        await capture(service);
        expect(statSync(join(service.image, 'core.img')).size).toBeLessThan(resident - 80 * 2 ** 20);
        service.program = warpTool(['restore', service.image]);
      }
      expect(await answerOf(service.program, service.port, '/garbage/130')).toEqual({ megabytes: 130 });
    });

    it.skipIf(home !== installed[0]?.home)('loses nothing of the heap at random moments under load', async () => {
      // The virtual machine itself checks its whole heap before each collection.
      const verify = ['-XX:+UnlockDiagnosticVMOptions', '-XX:+VerifyBeforeGC'];
      const service = await startWeb(java, { jvm: [flag, '-Xmx128m', '-Xmn16m', ...verify] });
      service.program.child.stdin!.write('load\n');
      await service.program.goesOn(/^round$/gm, 2);
      for (let i = 0; i < 4; i++) {
        const asked = await ask(service, '--leave-running');
        expect(asked.code, asked.stderr + service.program.stderr).toBe(0);
        await service.program.goesOn(/^round$/gm, 1);
      }
      await service.program.kill();
      const restored = warpTool(['restore', service.image]);
      await restored.goesOn(/^round$/gm, 3);
      expect(service.program.stderr + restored.stderr).not.toMatch(/AssertionError/);
    });
  });

  const java = installed[0] ? join(installed[0].home, 'bin/java') : '';

  it('goes on after a checkpoint from inside that keeps it running, and captures it again', async () => {
    const service = await startWeb(java, { jvm: ['-Dwarp.keep-running=true', '-Dwarp.compression=lz4'] });
    for (let i = 1; i < 3; i++) {
      service.program.child.stdin!.write('checkpoint\n');
      await service.program.goesOn(/^went on$/gm, 1);
      expect((await answerOf(service.program, service.port)).events).toHaveLength(4 * i);
    }
    await service.program.kill();
    const restored = warpTool(['restore', service.image]);
    await restored.output(/^went on$/m);
    await answerOf(restored, service.port);
  });

  it('encrypts what is asked for from inside with the key that run names, in the next generation too', async () => {
    const key = ['--encryption-key-file', writeKey(randomBytes(32).toString('hex'))];
    const { program, port, image } = await startWeb(java, { flags: key });
    for (let target = program, generation = 0; generation < 2; generation++) {
      target.child.stdin!.write('checkpoint\n');
      expect(await target.ended, target.stderr).toEqual({ code: null, signal: 'SIGKILL' });
      const without = warpTool(['restore', image]);
      expect((await without.ended).code).toBe(2);
      expect(without.stderr).toMatch(/^warp-restore: [^\n]*encrypted[^\n]*\n$/);
      target = warpTool(['restore', image, ...key], { stdin: 'pipe' });
      await target.output(/^went on$/m);
      expect((await answerOf(target, port)).pid).toBe(target.pid);
    }
  });

  it.each([
    ['run --no-gc', { flags: ['--no-gc'] }],
    ['-Dwarp.gc=false', { jvm: ['-Dwarp.gc=false'] }],
    ['-Dwarp.release-heap=false', { jvm: ['-Dwarp.release-heap=false'] }],
  ])('%s keeps in the image what lives no more', async (_what, { flags = [], jvm = [] }: { flags?: string[]; jvm?: string[] }) => {
    const service = await startWeb(java, { flags, jvm: [...jvm, '-XX:+UseSerialGC', '-Xms400m', '-Xmx400m'] });
    await answerOf(service.program, service.port, '/garbage/130');
    await capture(service);
    expect(statSync(join(service.image, 'core.img')).size).toBeGreaterThan(130 * 2 ** 20);
    expect(await answerOf(warpTool(['restore', service.image]), service.port, '/garbage/1')).toEqual({ megabytes: 1 });
  });

  it('says why there is no checkpoint from inside: no directory, one that cannot be written', async () => {
    const reasons = [
      [['-Dwarp.image='], 0, /because java\.lang\.IllegalStateException: no directory is named for the image/],
      [['-Dwarp.image=/proc/no/such'], 1, /because java\.lang\.IllegalStateException: cannot make the directory \/proc\/no\/such/],
    ] as const;
    for (const [jvm, told, reason] of reasons) {
      const service = await startWeb(java, { jvm: [...jvm] });
      service.program.child.stdin!.write('checkpoint\n');
      await service.program.output(reason);
      expect((await answerOf(service.program, service.port)).events).toHaveLength(4 * told);
      await service.program.kill();
    }
  });

  it('tells resources after --leave-running, and after a capture that fails', async () => {
    const service = await startWeb(java);
    expect((await ask(service, '--leave-running')).code).toBe(0);
    expect((await answerOf(service.program, service.port)).events).toHaveLength(4);
    expect((await ask({ ...service, image: '/proc/no/such' })).code).toBe(2);
    expect((await answerOf(service.program, service.port)).events).toHaveLength(8);
    await service.program.kill();
    const restored = warpTool(['restore', service.image]);
    expect((await answerOf(restored, service.port)).events).toHaveLength(4);
  });

  it('does not tell resources that nobody holds any more', async () => {
    const service = await startWeb(java);
    await answerOf(service.program, service.port, '/gone/');
    // The first checkpoint collects garbage when all have been told.
    expect((await ask(service, '--leave-running')).code).toBe(0);
    const { events } = await answerOf(service.program, service.port);
    expect((await ask(service, '--leave-running')).code).toBe(0);
    const later = await answerOf(service.program, service.port);
    expect(later.events.slice(events.length)).toEqual(['before listener', 'before log', 'after log', 'after listener']);
  });

  it('gives up waiting for a resource in time; the next checkpoint waits until it has returned', async () => {
    const service = await startWeb(java);
    await answerOf(service.program, service.port, '/slow/');
    const late = await ask(service, '--timeout', '0.5');
    expect(late.code).toBe(2);
    expect(late.stderr).toMatch(/have not returned from beforeCheckpoint within 500 ms/);
    const next = ask(service);
    service.program.child.stdin!.write('go\n');
    await service.program.output(/waiting[^]*waiting/);
    service.program.child.stdin!.write('go\n');
    expect(await next).toMatchObject({ code: 0 });
    expect((await service.program.ended).signal).toBe('SIGKILL');
  });

  it('tells resources of a checkpoint that is only simulated, or a pause that ends with new arguments', async () => {
    const service = await startWeb(java);
    expect((await ask(service, '--engine', 'simengine')).code).toBe(0);
    expect((await answerOf(service.program, service.port)).events).toEqual([
      'before listener',
      'before log',
      'after log',
      'after listener',
    ]);
    expect((await ask(service, '--engine', 'pauseengine')).code).toBe(0);
    const resume = warpTool([
      'restore',
      service.image,
      '--engine',
      'pauseengine',
      '--env',
      'MODE=resumed',
      '--',
      '-Dapp.mode=test',
      'Job',
      'a',
    ]);
    expect((await resume.ended).code, resume.stderr).toBe(0);
    await service.program.output(/^job a mode test loader true$/m);
    const state = await answerOf(service.program, service.port);
    expect(state).toMatchObject({ pid: service.program.pid, mode: 'resumed', property: 'test' });
    expect(state.events).toHaveLength(8);
    expect(state.restored).not.toBeNull();
    await service.program.kill();
    const inside = await startWeb(java, { jvm: ['-Dwarp.engine=simengine'] });
    inside.program.child.stdin!.write('checkpoint\n');
    await inside.program.output(/^went on$/m);
    expect(existsSync(join(inside.image, 'score'))).toBe(true);
  });

  it('is there through scripts, and not with --no-java-agent', async () => {
    const script = join(makeDirectory(), 'start');
    writeFileSync(script, `#!/bin/sh\nexec ${java} "$@"\n`);
    chmodSync(script, 0o755);
    await capture(await startWeb(script));
    const without = warpTool(['run', '--no-java-agent', '--', java, '-cp', classes, 'Web', String(await freePort()), '/dev/null']);
    expect((await without.output(/ExceptionInInitializerError/, 'stderr'))[0]).toBeDefined();
  });
});
