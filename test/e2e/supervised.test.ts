/** Checkpoints that nobody watches over, and starts that restore where they can: what container builds and their images run. */
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { executable, firstVariant, lastTick } from './support/c-programs.js';
import { command, makeDirectory, node, projectFile } from './support/host.js';
import { freePort } from './support/network.js';
import { killAll, type Program, run, warpTool } from './support/program.js';

afterEach(killAll);
const variant = firstVariant();

/** A server that is ready only some time after it has begun to listen. */
const server = `
const { createServer } = require('node:http');
let warm = false;
setTimeout(() => { warm = true; console.log('warm'); }, 300);
createServer((request, response) => {
  response.statusCode = warm ? 200 : 503;
  response.end(String(process.pid));
}).listen(Number(process.argv[1]), '127.0.0.1', () => console.log('listening'));
`;

function supervised(image: string, condition: string, program: string[], ...flags: string[]): Program {
  return warpTool(['run', '--image', image, '--checkpoint-when', condition, ...flags, '--', ...program]);
}

describe('run --checkpoint-when', () => {
  it('port:N/path waits for a good answer over HTTP; the image answers at once', async () => {
    const image = join(makeDirectory(), 'image');
    const port = await freePort();
    const build = supervised(image, `port:${port}/health`, [node(), '-e', server, String(port)], '--compression', 'lz4');
    expect(await build.ended, build.stderr).toEqual({ code: 137, signal: null });
    expect(build.stdout).toContain('warm');
    expect(build.stderr).toMatch(/core\.img: .*, ready to restore\n$/);
    const restored = warpTool(['restore', image]);
    const answer = await retry(() => fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } }));
    expect(answer.status).toBe(200);
    await restored.kill();
  });

  it.each([
    ['idle', () => 'idle:0.2'],
    ['a command', (directory: string) => `test -e ${join(directory, 'go')}`],
  ])('%s', async (_name, condition) => {
    const directory = makeDirectory();
    const build = supervised(join(directory, 'image'), condition(directory), [executable('fd_pipes', variant), makeDirectory()]);
    await build.output(/^tick 2$/m);
    writeFileSync(join(directory, 'go'), '');
    expect((await build.ended).code, build.stderr).toBe(137);
    const restored = warpTool(['restore', join(directory, 'image')]);
    await restored.output(new RegExp(`^tick ${lastTick(build.stdout) + 1}$`, 'm'));
    expect(restored.stdout).not.toContain('FAIL');
  });

  it('mirrors a program that ends before it is ready', async () => {
    const image = join(makeDirectory(), 'image');
    const build = supervised(image, 'false', [node(), '-e', 'setTimeout(() => process.exit(5), 50)']);
    expect((await build.ended).code).toBe(5);
    expect(existsSync(image)).toBe(false);
  });

  it.each([
    ['it is not ready in time', ['--checkpoint-timeout', '1'], 'false', /not ready within 1 seconds/],
    ['the checkpoint fails', [], 'true', /cannot|proc/],
  ])('ends the program with a reason when %s', async (_name, flags, condition, reason) => {
    const image = condition === 'true' ? '/proc/no/such/place' : join(makeDirectory(), 'image');
    const build = supervised(image, condition, [executable('fd_pipes', variant), makeDirectory()], ...flags);
    expect((await build.ended).code).toBe(2);
    expect(build.stderr.trimEnd().split('\n').at(-1)).toMatch(reason);
  });

  it.each([
    ['port:x', /is not a port/],
    ['port:70000', /is not a port/],
    ['idle:', /not a number of seconds/],
  ])('refuses the condition %s', async (condition, reason) => {
    const build = supervised(join(makeDirectory(), 'image'), condition, ['/bin/sleep', '100']);
    expect((await build.ended).code).toBe(2);
    expect(build.stderr).toMatch(reason);
  });
});

describe('run --or-restore', () => {
  it('starts the program and says why, without an image; restores with one', async () => {
    const image = join(makeDirectory(), 'image');
    const program = [executable('threads_registers', variant), makeDirectory()];
    const first = warpTool(['run', '--or-restore', image, '--image', image, '--checkpoint-when', 'idle:0.1', '--', ...program]);
    // It never is idle: the first start is ended by the test, after it has shown why it was one.
    await first.output(/is started: cannot open .*image: no such file/, 'stderr');
    await first.kill();
    const build = supervised(image, 'true', program);
    expect((await build.ended).code, build.stderr).toBe(137);
    const second = warpTool(['run', '--or-restore', image, '--', ...program]);
    await second.output(/^restored ok$/m);
    expect(second.stderr).toBe('');
  });

  it('starts the program when a file that the image needs is gone', async () => {
    const image = join(makeDirectory(), 'image');
    const copy = join(makeDirectory(), 'program');
    cpSync(executable('fd_pipes', variant), copy);
    const build = supervised(image, 'true', [copy, makeDirectory()]);
    expect((await build.ended).code, build.stderr).toBe(137);
    rmSync(copy);
    const started = warpTool(['run', '--or-restore', image, '--', executable('fd_pipes', variant), makeDirectory()]);
    await started.output(/is started: .*cannot be restored here/, 'stderr');
    await started.output(/^ready$/m);
  });

  it.skipIf(!command('python3'))('judges the image by the rules of --policies', async () => {
    const directory = makeDirectory();
    const [image, opened, rules] = ['image', 'opened', 'rules'].map((name) => join(directory, name)) as [string, string, string];
    writeFileSync(opened, 'content');
    const code = `
import sys, time
kept = open(sys.argv[1])
for tick in range(1000000):
  print("tick", tick, flush=True)
  time.sleep(0.02)`;
    const program = [command('python3')!, '-c', code, opened];
    const build = supervised(image, 'true', program);
    expect((await build.ended).code, build.stderr).toBe(137);
    writeFileSync(opened, 'others');
    const start = (...flags: string[]): Program => warpTool(['run', '--or-restore', image, ...flags, '--', ...program]);
    const without = start();
    await without.output(/is started: .*opened has changed/, 'stderr');
    await without.output(/^tick 0$/m);
    writeFileSync(rules, `type: file\npath: ${opened}\naction: close\n`);
    const restored = start('--policies', rules);
    expect((await restored.output(/^tick (\d+)$/m))[1]).toBe(String(lastTick(build.stdout) + 1));
    expect(restored.stderr).toBe('');
    writeFileSync(rules, `type: file\npath: ${opened}\naction: error\n`);
    const refused = start('--policies', rules);
    await refused.output(/is started: .*must not come back, says the policy at .*rules:1/, 'stderr');
    await refused.output(/^tick 0$/m);
  });
});

const java = command('java');

describe.skipIf(!java)('jdk (needs a JDK; on Debian: apt-get install openjdk-17-jdk-headless)', () => {
  /** A JDK's own folders that can be written to, on the installed one's content. */
  function jdkCopy(): string {
    const home = makeDirectory();
    const installed = dirname(dirname(realpathSync(java!)));
    mkdirSync(join(home, 'lib'));
    chmodSync(join(home, 'lib'), 0o777);
    symlinkSync(join(installed, 'lib/server'), join(home, 'lib/server'));
    cpSync(join(installed, 'release'), join(home, 'release'), { dereference: true });
    return home;
  }

  it('installs, again, and removes; what was installed is an engine', async () => {
    const home = jdkCopy();
    for (let i = 0; i < 2; i++) {
      const install = run(node(), [projectFile('bin/run.js'), 'jdk', 'install', home, '--json']);
      expect((await install.ended).code, install.stderr).toBe(0);
      expect(JSON.parse(install.stdout)).toMatchObject({ action: 'install', crac: false });
      expect(install.stderr).toMatch(/does not look like a JDK with CRaC/);
    }
    expect(readFileSync(join(home, 'lib/libwarp.so'))).toEqual(readFileSync(projectFile('native/build/libwarp.so')));
    const remove = run(node(), [projectFile('bin/run.js'), 'jdk', 'uninstall', home]);
    expect((await remove.ended).code).toBe(0);
    for (const name of ['libwarp.so', 'warp-restore', 'warp-tool.json']) expect(existsSync(join(home, 'lib', name))).toBe(false);
  });

  it("never touches somebody else's engine", async () => {
    const home = jdkCopy();
    writeFileSync(join(home, 'lib/libwarp.so'), 'another engine');
    for (const action of ['install', 'uninstall']) {
      const result = run(node(), [projectFile('bin/run.js'), 'jdk', action, home]);
      expect((await result.ended).code).toBe(2);
      expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(readFileSync(join(home, 'lib/libwarp.so'), 'utf8')).toBe('another engine');
    }
    const wrong = run(node(), [projectFile('bin/run.js'), 'jdk', 'install', '/usr']);
    expect((await wrong.ended).code).toBe(2);
    expect(wrong.stderr).toMatch(/is not a JDK/);
  });
});

async function retry<T>(action: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}
