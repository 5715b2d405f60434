/* oxlint-disable vitest/expect-expect -- many assertions are in inEachWay */
/**
 * Real programs whose memory is loaded while they run, noticed in each way that this host allows: once with nothing loaded but what they wait for
 * (all that they do meets absent memory), and once with a loader beside them. concurrent.test.ts has the C programs.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { executable, firstVariant } from './support/c-programs.js';
import { command, makeDirectory, node, projectFile } from './support/host.js';
import { compileJava } from './support/jvm.js';
import { freePort, getJson, readAll, untilListening } from './support/network.js';
import { Program, checkpointAndEnd, killAll, launcher, restore, run, start } from './support/program.js';

afterEach(killAll);

const unprivileged = readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').trim() === '1';
const ways = [...(unprivileged ? ['userfaultfd'] : []), 'userfaultfd-user', 'signals'];

/** Restores an image in each way; `serves` looks whether the program is what it was. */
async function inEachWay(image: string, serves: (restored: Program) => Promise<void>): Promise<void> {
  for (const faults of ways)
    for (const concurrency of ['0', '1']) {
      const stats = join(makeDirectory(), 'stats.json');
      const restored = restore(image, ['--concurrent', '--load-faults', faults, '--load-concurrency', concurrency, '--stats', stats]);
      await serves(restored);
      expect(restored.stdout).not.toContain('FAIL');
      const told = JSON.parse(readFileSync(stats, 'utf8')) as { deferred_bytes: number };
      expect(told).toMatchObject({ mode: 'concurrent', faults });
      expect(told.deferred_bytes).toBeGreaterThan(1 << 20);
      await restored.kill();
    }
}

const compressed = ['--compression', 'lz4'];
const [java, javac, redis, redisClient, python] = ['java', 'javac', 'redis-server', 'redis-cli', 'python3'].map(command);

describe('memory that is loaded while the program runs', () => {
  it.skipIf(!java || !javac)('a JVM that uses SIGSEGV for null checks, stack overflows and safepoints', async () => {
    // Code of C1 leaves null checks to the processor every time; C2 stops doing so where nulls are frequent.
    const flags = ['-XX:+UseG1GC', '-XX:TieredStopAtLevel=1', '-XX:-OmitStackTraceInFastThrow', '-Xss1m', '-Xmx160m'];
    const target = start(java!, [...flags, '-cp', compileJava('Faults'), 'Faults']);
    await target.output(/^round 8 ok$/m);
    await inEachWay(await checkpointAndEnd(target, compressed), (restored) => restored.goesOn(/^round \d+ ok$/gm, 9));
  });

  it('Node.js with worker threads and an HTTP server', async () => {
    const target = start(node(), [projectFile('test/e2e/fixtures/service.mjs'), makeDirectory(), String(await freePort())]);
    const port = Number((await target.output(/^port (\d+)$/m))[1]);
    await target.output(/^tick 5$/m);
    const { secret, cache, text } = await getJson<Record<string, string>>(port, '/state');
    await inEachWay(await checkpointAndEnd(target, compressed), async (restored) => {
      await untilListening(port);
      expect(await getJson(port, '/state')).toMatchObject({ secret, cache, text, workersRight: true });
      await restored.goesOn();
    });
  });

  it.skipIf(!redis || !redisClient)('redis-server with 100,000 keys', async () => {
    const port = await freePort();
    const ask = async (...words: string[]): Promise<string> => {
      const client = run(redisClient!, ['-p', String(port), ...words]);
      await client.ended;
      return client.stdout.trim();
    };
    const options = { port, bind: '127.0.0.1', save: '', appendonly: 'no', dir: makeDirectory(), 'enable-debug-command': 'yes' };
    const target = start(
      redis!,
      Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
    );
    await target.output(/Ready to accept connections/);
    await ask('DEBUG', 'POPULATE', '100000', 'key');
    const digest = await ask('DEBUG', 'DIGEST');
    await inEachWay(await checkpointAndEnd(target, compressed), async () => {
      await untilListening(port);
      expect(await ask('GET', 'key:77777')).toBe('value:77777');
      expect(await ask('DEBUG', 'DIGEST')).toBe(digest);
      expect(await ask('FLUSHALL')).toBe('OK');
      expect(await ask('DEBUG', 'POPULATE', '20000', 'other')).toBe('OK');
    });
  });

  it.skipIf(!python)('python3 with threads', async () => {
    const target = start(python!, [projectFile('test/e2e/fixtures/threads.py'), makeDirectory(), String(await freePort())]);
    const port = Number((await target.output(/^port (\d+)$/m))[1]);
    await target.output(/^tick 20$/m);
    const [state] = (await readAll(port)).split(' ');
    await inEachWay(await checkpointAndEnd(target, compressed), async (restored) => {
      await untilListening(port);
      expect((await readAll(port)).split(' ')[0]).toBe(state);
      await restored.goesOn();
    });
  });
});

/** Only root, and where vm.unprivileged_userfaultfd is 1 everybody, may have the kernel's own accesses wait too. */
describe.skipIf(process.getuid?.() !== 0)('with userfaultfd for the kernel too, as root', () => {
  it.each(['loading', 'loading_calls', 'memory_huge', 'memory_release_raw', 'signals_altstack', 'threads_busy', 'memory_fork'])(
    '%s',
    async (program) => {
      const target = new Program(
        spawn(launcher(), [projectFile('native/build/libwarp.so'), executable(program, firstVariant()), makeDirectory()], {
          cwd: '/',
          stdio: ['ignore', 'pipe', 'pipe'],
        }),
      );
      await target.output(/^tick 2$/m);
      const image = makeDirectory();
      const captured = spawnSync(
        projectFile('native/build/warp-checkpoint'),
        [String(target.pid), '--to', image, ...compressed, '--chunk-size', '4'],
        { encoding: 'utf8' },
      );
      expect(captured.stderr).toBe('');
      await target.ended;
      for (const concurrency of ['0', '1']) {
        const stats = join(image, 'stats.json');
        const flags = ['--concurrent', '--load-concurrency', concurrency, '--stats', stats];
        const restored = new Program(
          spawn(projectFile('native/build/warp-restore'), [image, ...flags], { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] }),
        );
        await restored.output(/^restored ok$/m);
        await restored.goesOn();
        expect(restored.stdout).not.toContain('FAIL');
        expect(JSON.parse(readFileSync(stats, 'utf8'))).toMatchObject({
          mode: 'concurrent',
          faults: 'userfaultfd',
          faults_reason: 'kernel-faults',
        });
        await restored.kill();
      }
    },
  );
});
