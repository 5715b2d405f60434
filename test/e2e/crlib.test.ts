/* oxlint-disable vitest/expect-expect -- waiting for output is the assertion of many */
/** The engine as a JVM with CRaC uses it: as a library (crlib), and as an executable of the older interface. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { killAll, launcher, type Program, run, start, warpTool } from './support/program.js';
import { makeDirectory, projectFile } from './support/host.js';

const library = projectFile('native/build/libwarp.so');
let built: string;
/** As a JDK of 2025 has the structures, and as one of 2026. */
let hosts: Record<'older' | 'newest', string>;
let oldVm: string;

function compile(compiler: string, args: string[]): void {
  const result = spawnSync(compiler, args, { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${compiler} ${args.join(' ')}: ${result.stderr}`);
}

beforeAll(() => {
  built = makeDirectory();
  hosts = { older: join(built, 'older'), newest: join(built, 'newest') };
  oldVm = join(built, 'old_vm');
  const strict = ['-std=gnu17', '-Wall', '-Wextra', '-Werror'];
  const source = ['-I', projectFile('native/include'), projectFile('test/crlib/host.c'), '-ldl', '-pthread'];
  compile('cc', [...strict, '-DOLDER_VM', ...source, '-o', hosts.older]);
  compile('cc', [...strict, ...source, '-o', hosts.newest]);
  compile('cc', [...strict, projectFile('test/crlib/old_vm.c'), '-o', oldVm]);
});
afterEach(killAll);

/** Starts a host as a VM of its own: the library comes with dlopen, nothing is preloaded. */
function vmOf(host: string, args: string[], environment: Record<string, string> = {}): Program {
  return run(launcher(), ['', host, library, ...args], { stdin: 'pipe', environment });
}
const vm = (...args: string[]): Program => vmOf(hosts.newest, args);

async function checkpointed(host = hosts.newest): Promise<string> {
  const directory = join(makeDirectory(), 'image');
  const target = vmOf(host, ['checkpoint', directory]);
  expect(await target.ended).toEqual({ code: null, signal: 'SIGKILL' });
  expect(target.stdout).not.toContain('FAIL');
  return directory;
}

describe('crlib', () => {
  it.each([
    ['c', 'cc', ['-std=c99', '-pedantic']],
    ['c', 'cc', ['-std=c17']],
    ['cpp', 'c++', ['-std=c++11', '-pedantic']],
    ['cpp', 'c++', ['-std=c++20']],
  ])('the headers stand alone in %s by %s %j', (suffix, compiler, options) => {
    if (compiler === 'c++' && spawnSync('c++', ['--version']).error) return;
    const source = join(built, `alone.${suffix}`);
    const main = 'const crlib_api_t *(*entry)(int, size_t) = crlib_api; unsigned (*generation)(void) = warp_generation;';
    writeFileSync(source, `#include "crlib.h"\n#include "warp.h"\nint main(void) { ${main} return entry && generation ? 0 : 1; }\n`);
    compile(compiler, [
      ...options,
      '-Wall',
      '-Wextra',
      '-Werror',
      '-I',
      projectFile('native/include'),
      '-c',
      source,
      '-o',
      join(built, 'alone.o'),
    ]);
    expect(existsSync(join(built, 'alone.o'))).toBe(true);
  });

  const generations = ['older', 'newest'] as const;

  it.each(generations)('offers the interface to a VM with the %s structures', async (generation) => {
    const program = vmOf(hosts[generation], ['interface']);
    expect(await program.ended, program.stdout).toEqual({ code: 0, signal: null });
    expect(program.stdout).toContain('interface ok');
  });

  it.each(generations)('checkpoints, restores through a young VM with data, and again (%s structures)', async (generation) => {
    const host = hosts[generation];
    const directory = await checkpointed(host);
    expect(readFileSync(join(directory, 'engine'), 'utf8')).toBe('warp');
    for (let life = 0; life < 3; life++) {
      const young = vmOf(host, ['restore', directory, 'amd64', 'ff8001', '1', String(4711 + life)]);
      await young.output(new RegExp(`generation ${life}: back in ${young.pid} with 4 bytes of data: ${4711 + life}`));
      young.child.stdin?.write('again\n');
      expect(await young.ended, young.stdout).toEqual({ code: null, signal: 'SIGKILL' });
    }
    const last = vmOf(host, ['restore', directory, 'amd64', '0f8001', '0', '0']);
    await last.output(/generation 3: back in \d+ with 0 bytes of data/);
  });

  it('keeps running with keep_running, and there is no restore data then', async () => {
    const directory = join(makeDirectory(), 'image');
    const target = vm('checkpoint', directory, 'keep_running=true', 'compression=true');
    await target.output(new RegExp(`generation 0: back in ${target.pid} with 0 bytes of data`));
    const young = vm('restore', directory, 'amd64', '0f8001', '0', '5', 'concurrent=true', 'direct_map=true', 'log_level=error');
    await young.output(/generation 0: back in \d+ with 4 bytes of data: 5/);
  });

  it('encrypts and decrypts with the key that the options name, which is in no image', async () => {
    const key = randomBytes(32).toString('hex');
    const file = join(makeDirectory(), 'key');
    writeFileSync(file, `${key}\n`);
    for (const [settings, environment] of [
      [[`encryption.key.file=${file}`], {}],
      [['encryption.key.env=IMAGE_KEY', 'encryption.algorithm=aes-256-gcm', 'compression=true'], { IMAGE_KEY: key }],
    ] as [string[], Record<string, string>][]) {
      const directory = join(makeDirectory(), 'image');
      const target = vmOf(hosts.newest, ['checkpoint', directory, ...settings], environment);
      expect(await target.ended).toEqual({ code: null, signal: 'SIGKILL' });
      const forRestore = settings.filter((setting) => setting.startsWith('encryption.key'));
      const without = vm('restore', directory, 'amd64', '0f8001', '0', '1');
      expect((await without.ended).code).not.toBe(0);
      expect(without.stderr).toMatch(/it is encrypted: set encryption\.key\.file or encryption\.key\.env/);
      const young = vmOf(hosts.newest, ['restore', directory, 'amd64', '0f8001', '0', '7', ...forRestore], environment);
      await young.output(/back in \d+ with 4 bytes of data: 7/);
      const open = join(makeDirectory(), 'open');
      const decrypt = warpTool(['decrypt', directory, '-o', open, '--encryption-key-file', file]);
      expect([(await decrypt.ended).code, decrypt.stderr.replace(/^.*can be read by others.*\n/, '')]).toEqual([0, '']);
      const image = readFileSync(join(open, 'core.img'));
      for (const needle of [Buffer.from(key), Buffer.from(key, 'hex').subarray(0, 16), Buffer.from(key, 'hex').subarray(16)])
        expect(image.includes(needle)).toBe(false);
    }
  });

  it('takes policies at both ends, and refuses a file that is wrong', async () => {
    const directory = join(makeDirectory(), 'image');
    const rules = join(makeDirectory(), 'rules');
    writeFileSync(rules, 'type: pipe\naction: ignore\nwarn: no\n');
    const target = vm('checkpoint', directory, 'keep_running=true', `policies=${rules}`);
    await target.ended;
    expect(target.stderr).toContain(`warp: ${rules}:3: warn: no: write true or false\n`);
    writeFileSync(rules, 'type: pipe\naction: ignore\nwarn: false\n');
    const again = vm('checkpoint', directory, 'keep_running=true', `policies=${rules}`);
    await again.output(new RegExp(`generation 0: back in ${again.pid}`));
    writeFileSync(rules, 'type: filedescriptor\nvalue: 1\naction: error\n');
    const young = vm('restore', directory, 'amd64', '0f8001', '0', '5', `policies=${rules}`);
    expect((await young.ended).code).toBe(2);
    expect(young.stderr).toContain(`says the policy at ${rules}:1: `);
  });

  it.each([
    ['another label', 'aarch64', '0f8001', '0', 'label 1, bitmap 0 of 0 bytes'],
    ['a label that the image has not', 'cpu.vendor=x', '0f8001', '0', 'label 1, bitmap 0 of 0 bytes'],
    ['another bitmap', 'amd64', '0f80', '0', 'label 0, bitmap 1 of 3 bytes'],
    ['a bit more than allowed', 'amd64', '0f8000', '1', 'label 0, bitmap 1 of 3 bytes'],
    ['a bit less than demanded', 'amd64', '1f', '2', 'label 0, bitmap 1 of 3 bytes'],
    ['both', 'x', '00', '1', 'label 1, bitmap 1 of 3 bytes'],
  ])('a constraint that fails is told: %s', async (_what, label, bitmap, comparison, told) => {
    const directory = await checkpointed();
    const young = vm('restore', directory, label, bitmap, comparison, '1');
    expect((await young.ended).code).toBe(4);
    expect(young.stdout).toContain(`restore failed: not 0, ${told}`);
    expect(young.stderr).toMatch(/^warp: the image's cpu\./m);
  });

  it.each([
    ['equal but for zeros at the end', '0f80010000', '0'],
    ['within', 'ff8003', '1'],
    ['around', '0180', '2'],
  ])('a bitmap that fits: %s', async (_what, bitmap, comparison) => {
    const young = vm('restore', await checkpointed(), 'amd64', bitmap, comparison, '9');
    await young.output(/with 4 bytes of data: 9/);
  });

  it('a checkpoint that fails leaves the VM going on', async () => {
    const directory = makeDirectory();
    mkdirSync(join(directory, 'core.img'));
    const target = vm('checkpoint', directory);
    expect(await target.ended).toEqual({ code: 3, signal: null });
    expect(target.stdout).toMatch(/^checkpoint failed: -1$/m);
    expect(target.stderr).toMatch(/^warp: .*core\.img/m);
  });

  it('labels, bitmaps and scores are in the image', async () => {
    const directory = await checkpointed();
    const shown = spawnSync(process.execPath, [projectFile('bin/run.js'), 'decode', directory], { encoding: 'utf8' });
    for (const text of ['cpu.arch', 'amd64', 'cpu.features', 'java.uptime', '12.250000', '-0.500000']) expect(shown.stdout).toContain(text);
    expect(shown.stdout).not.toContain('wrong');
  });
});

describe('the executable interface of older JDKs', () => {
  const engine = projectFile('native/build/warp-checkpoint');

  it('checkpoints the process that runs it, and tells the restored one', async () => {
    const directory = makeDirectory();
    const target = start(oldVm, [engine, directory]);
    expect(await target.ended).toEqual({ code: null, signal: 'SIGKILL' });
    for (const verb of ['restore', 'restorewait']) {
      const restored = run(engine, [verb, directory], { environment: { CRAC_NEW_ARGS_ID: '77' } });
      await restored.output(/^signal with value 77$/m);
      await restored.kill();
    }
  });

  it('leaves it running, and says when it failed', async () => {
    const running = start(oldVm, [engine, makeDirectory()], { environment: { CRAC_CRIU_LEAVE_RUNNING: '1' } });
    await running.output(/^signal with value 0$/m);
    const failing = start(oldVm, [engine, '/proc/no/such/place']);
    await failing.output(/^signal with value -1$/m);
  });
});
