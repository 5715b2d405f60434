/** Checkpoints without an image: simengine and pauseengine, on programs, on Java, and as a JVM with CRaC uses them. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { makeDirectory, projectFile } from './support/host.js';
import { killAll, launcher, type Program, restore, run, runCheckpoint, start, warpTool } from './support/program.js';

/** Counts in one thread while others sleep; tells its generation and a variable whenever the former changes. */
const SOURCE = String.raw`
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((weak)) unsigned warp_generation(void);
static void *wait_for_ever(void *nothing) { for (;;) pause(); return nothing; }
int main(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, wait_for_ever, NULL);
  for (unsigned tick = 0, known = 0;; tick++, usleep(10000)) {
    if (warp_generation() != known) printf("generation %u with %s\n", known = warp_generation(), getenv("GIVEN") ? getenv("GIVEN") : "nothing");
    printf("tick %u\n", tick);
    fflush(stdout);
  }
}
`;

let built: string;
const path = (name: string): string => join(built, name);

function compile(source: string, name: string, ...options: string[]): void {
  const result = spawnSync('cc', ['-std=gnu17', '-Wall', '-Werror', '-x', 'c', '-', '-o', path(name), ...options], {
    encoding: 'utf8',
    input: source,
  });
  if (result.status !== 0) throw new Error(result.stderr);
}

beforeAll(() => {
  built = makeDirectory();
  compile(SOURCE, 'ticker', '-pthread', '-Wl,--unresolved-symbols=ignore-all');
  for (const name of ['host', 'old_vm'])
    compile(readFileSync(projectFile(`test/crlib/${name}.c`), 'utf8'), name, '-I', projectFile('native/include'), '-ldl', '-pthread');
});
afterEach(killAll);

async function ticker(): Promise<Program> {
  const program = start(path('ticker'), []);
  await program.goesOn();
  return program;
}

/** Asserts that the program stands still while another one like it goes on. */
async function standsStill(program: Program): Promise<void> {
  const other = await ticker();
  const printed = program.stdout.length;
  await other.goesOn(/^tick \d+$/gm, 20);
  expect(program.stdout.length).toBe(printed);
  await other.kill();
}

const paused = async (program: Program): Promise<string> => {
  const directory = join(makeDirectory(), 'paused');
  const { code, stderr } = await runCheckpoint(program.pid, directory, ['--engine', 'pauseengine']);
  expect(code, stderr).toBe(0);
  // What it had printed before is here, too.
  await standsStill(program);
  return directory;
};

const resume = async (directory: string, ...args: string[]): Promise<{ code: number | null; stderr: string }> => {
  const client = restore(directory, ['--engine', 'pauseengine', ...args]);
  return { ...(await client.ended), stderr: client.stderr };
};

describe('simengine', () => {
  it('writes tags and score and lets the process go on; there is nothing to restore', async () => {
    const program = await ticker();
    const directory = join(makeDirectory(), 'simulated');
    const client = warpTool(['checkpoint', String(program.pid), '--to', directory, '--engine', 'simengine', '--json']);
    expect((await client.ended).code, client.stderr).toBe(0);
    expect(JSON.parse(client.stdout)).toEqual({ image: directory, bytes: 0, generation: 0 });
    expect(readdirSync(directory).toSorted()).toEqual(['score', 'tags']);
    await program.goesOn();
    for (const flags of [[], ['--engine', 'simengine']]) {
      const refused = warpTool(['restore', directory, ...flags]);
      expect((await refused.ended).code).toBe(2);
      expect(refused.stderr).toMatch(/^warp-restore: \/.*: .*simengine .*\n$/);
    }
    const shown = warpTool(['show', directory]);
    expect((await shown.ended).code).toBe(2);
    expect(shown.stderr).toMatch(/simengine only simulated a checkpoint/);
  });

  it('leaves nothing behind where it cannot write', async () => {
    const program = await ticker();
    const directory = makeDirectory();
    mkdirSync(join(directory, 'score'));
    const { code, stderr } = await runCheckpoint(program.pid, directory, ['--engine', 'simengine']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/cannot write .*\/score: /);
    expect(readdirSync(directory)).toEqual(['score']);
    await program.goesOn();
  });
});

describe('flags that only an image could obey', () => {
  it.each([
    ['simengine', 'checkpoint', '--compression', 'lz4'],
    ...['simengine', 'pauseengine', 'criu'].flatMap((engine) => [
      [engine, 'checkpoint', '--policies', '/no/such'],
      [engine, 'restore', '--policies', '/no/such'],
    ]),
  ])('are refused: --engine %s, %s %s', async (engine, verb, ...flags) => {
    const place = verb === 'checkpoint' ? ['1', '--to', '/tmp/x'] : ['/tmp/x'];
    const client = warpTool([verb!, ...place, '--engine', engine!, ...flags]);
    expect((await client.ended).code).toBe(2);
    expect(client.stderr).toBe(`warp-tool: ${flags[0]} has no meaning with --engine ${engine}; leave it out\n`);
  });
});

describe('pauseengine', () => {
  it('stops a program in place until a restore, which gives it variables', async () => {
    const program = await ticker();
    const directory = await paused(program);
    expect(readFileSync(join(directory, 'pid'), 'utf8')).toBe(`${program.pid}\n`);
    const second = await runCheckpoint(program.pid, makeDirectory());
    expect(second).toMatchObject({ code: 2, stderr: expect.stringMatching(/is paused: let it go on first/) });
    const without = restore(directory);
    expect((await without.ended).code).toBe(2);
    expect(without.stderr).toMatch(new RegExp(`pauseengine has paused process ${program.pid}, which --engine pauseengine lets go on`));
    const client = warpTool(['restore', directory, '--engine', 'pauseengine', '--env', 'GIVEN=a variable']);
    expect(await client.ended).toEqual({ code: 0, signal: null });
    await program.output(/^generation 1 with a variable$/m);
    await program.goesOn();
    expect(await resume(directory)).toMatchObject({ code: 2, stderr: expect.stringMatching(/is not paused: it goes on already/) });
  });

  it('pauses again, and gives way to a real checkpoint', async () => {
    const program = await ticker();
    for (const generation of [1, 2]) {
      const directory = await paused(program);
      expect(await resume(directory)).toMatchObject({ code: 0, stderr: '' });
      await program.output(new RegExp(`^generation ${generation} with nothing$`, 'm'));
    }
    const image = join(makeDirectory(), 'image');
    expect((await runCheckpoint(program.pid, image)).code).toBe(0);
    const restored = restore(image, ['--env', 'GIVEN=more']);
    await restored.output(/^generation 3 with more$/m);
  });

  it('ends with the signal of CRaC, too', async () => {
    const program = await ticker();
    await paused(program);
    expect(spawnSync('bash', ['-c', `kill -s RTMIN+2 ${program.pid}`]).status).toBe(0);
    await program.output(/^generation 1 with nothing$/m);
  });

  it('does not touch another process that got the id', async () => {
    const program = await ticker();
    const directory = await paused(program);
    await program.kill();
    expect(await resume(directory)).toMatchObject({ code: 2, stderr: expect.stringMatching(/which was paused, has ended/) });
    const stranger = run('/bin/sleep', ['1000']);
    writeFileSync(join(directory, 'pid'), `${stranger.pid}\n`);
    utimesSync(join(directory, 'pid'), 1, 1);
    expect(await resume(directory)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/started later than .*pid was written: it is not the one/),
    });
    expect(stranger.child.signalCode).toBeNull();
    expect(await resume(makeDirectory())).toMatchObject({ code: 2, stderr: expect.stringMatching(/holds no pid of a process/) });
  });
});

describe('a JVM with CRaC', () => {
  const library = projectFile('native/build/libwarp.so');
  const vm = (...args: string[]): Program => run(launcher(), ['', path('host'), library, ...args], { stdin: 'pipe' });

  it('simulates by the library: tags, scores and user data are written, and the VM goes on without data', async () => {
    const directory = join(makeDirectory(), 'image');
    const target = vm('checkpoint', directory, 'engine=simengine');
    await target.output(new RegExp(`generation 0: back in ${target.pid} with 0 bytes of data`));
    expect(readFileSync(join(directory, 'tags'), 'utf8')).toBe('label:cpu.arch=amd64\nbitmap:cpu.features=0f8001\n');
    expect(readFileSync(join(directory, 'score'), 'utf8')).toBe('java.uptime=12.250000\nnegative=-0.500000\n');
    expect(existsSync(join(directory, 'core.img'))).toBe(false);
    const young = vm('restore', directory, 'amd64', '0f8001', '0', '5', 'engine=simengine');
    expect((await young.ended).code).toBe(4);
    expect(young.stderr).toMatch(/^warp: .*: simengine keeps no image/);
  });

  it('pauses by the library, until a young VM that the tags suit brings it data', async () => {
    const directory = join(makeDirectory(), 'image');
    const target = vm('checkpoint', directory, 'engine=pauseengine');
    await target.output(/^pid \d+$/m);
    while (!existsSync(join(directory, 'pid'))) await new Promise((done) => setTimeout(done, 5));
    const unsuited = vm('restore', directory, 'aarch64', '0f8001', '0', '5', 'engine=pauseengine');
    expect((await unsuited.ended).code).toBe(4);
    expect(unsuited.stdout).toContain('restore failed: not 0, label 1, bitmap 0 of 0 bytes');
    const young = vm('restore', directory, 'amd64', '0f8001', '0', '4711', 'engine=pauseengine');
    expect(await young.ended).toEqual({ code: 0, signal: null });
    await target.output(new RegExp(`generation 0: back in ${target.pid} with 4 bytes of data: 4711`));
  });

  it('simulates and pauses by executables of older JDKs, which need nothing in the JVM', async () => {
    const link = (name: string): string => {
      if (!existsSync(path(name))) symlinkSync(projectFile('native/build/warp-checkpoint'), path(name));
      return path(name);
    };
    await run(path('old_vm'), [link('simengine'), makeDirectory()]).output(/^signal with value 0$/m);
    const directory = makeDirectory();
    const target = run(path('old_vm'), [link('pauseengine'), directory]);
    while (!existsSync(join(directory, 'pid'))) await new Promise((done) => setTimeout(done, 5));
    expect(readFileSync(join(directory, 'pid'), 'utf8')).toBe(`${target.pid}\n`);
    const young = run(link('pauseengine'), ['restore', directory], { environment: { CRAC_NEW_ARGS_ID: '77' } });
    expect((await young.ended).code, young.stderr).toBe(0);
    await target.output(/^signal with value 77$/m);
    const none = run(link('simengine'), ['restore', directory]);
    expect(await none.ended).toMatchObject({ code: 2 });
  });
});
