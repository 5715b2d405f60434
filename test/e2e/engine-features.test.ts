/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** What the engine offers beside plain capture and restore: its C interface, options of the restore, another kernel's vDSO, snapshots. */
import { spawnSync } from 'node:child_process';
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { executable, firstVariant, lastTick, restoreProgram, startProgram } from './support/c-programs.js';
import { makeDirectory, projectFile, user } from './support/host.js';
import { withImage } from '../../src/elf/image.js';
import type { MetadataJson } from '../../src/elf/metadata.js';
import { rehash } from './support/rehash.js';
import { checkpoint, checkpointAndEnd, killAll, restore, run, start, warpTool } from './support/program.js';

afterEach(killAll);

const variant = firstVariant();
const projectRoot = fileURLToPath(new URL('../..', import.meta.url));

/** The program headers of an image: type, flags, offset, address, size in the file. */
function segments(file: string): { type: number; flags: number; offset: number; address: bigint; fileSize: number }[] {
  const header = readFileSync(file).subarray(0, 8 * 1024 * 1024);
  const at = Number(header.readBigUInt64LE(32));
  return Array.from({ length: header.readUInt16LE(56) }, (_, index) => at + index * 56).map((entry) => ({
    type: header.readUInt32LE(entry),
    flags: header.readUInt32LE(entry + 4),
    offset: Number(header.readBigUInt64LE(entry + 8)),
    address: header.readBigUInt64LE(entry + 16),
    fileSize: Number(header.readBigUInt64LE(entry + 32)),
  }));
}

/** Changes the build-id of the vDSO in an image: to the restorer it is then another kernel's. */
function makeVdsoForeign(file: string): void {
  const descriptor = openSync(file, 'r+');
  try {
    let changed = 0;
    for (const segment of segments(file)) {
      if (segment.type !== 1 || segment.flags !== 5 || segment.fileSize === 0 || segment.fileSize > 65536) continue;
      const bytes = Buffer.alloc(segment.fileSize);
      readSync(descriptor, bytes, 0, bytes.length, segment.offset);
      if (bytes.readUInt32BE(0) !== 0x7f454c46 || !bytes.includes('__vdso_clock_gettime')) continue;
      const buildId = bytes.indexOf(Buffer.from('GNU\0')) + 4;
      writeSync(descriptor, Buffer.from([bytes[buildId]! ^ 0xff]), 0, 1, segment.offset + buildId);
      changed++;
    }
    expect(changed).toBe(1);
  } finally {
    closeSync(descriptor);
  }
}

describe('warp.h', () => {
  it('lets a program checkpoint itself: refused, left running, ended, restored', async () => {
    const scratch = makeDirectory();
    const program = join(scratch, 'checkpoints_itself');
    const library = dirname(projectFile('native/build/libwarp.so'));
    const source = join(projectRoot, 'test/e2e/fixtures/checkpoints_itself.c');
    const include = `-I${join(projectRoot, 'native/include')}`;
    const compiled = spawnSync('cc', [
      '-Wall',
      '-Werror',
      include,
      '-o',
      program,
      source,
      `-L${library}`,
      '-lwarp',
      `-Wl,-rpath,${library}`,
    ]);
    expect(compiled.stderr.toString()).toBe('');
    const image = join(scratch, 'image');
    const first = start(program, [image]);
    const ended = await first.ended;
    expect(first.stdout).toMatch(/^generation 0\nrefused -1: .*\/proc\/no\/such\/place.*\nresult 0 generation 0 kept 42 error ''\n$/);
    expect(ended.signal).toBe('SIGKILL');
    expect(await withImage(image, (opened) => [...opened.table('chunks')].some((chunk) => chunk.flags === 1))).toBe(true);
    for (let i = 0; i < 3; i++) {
      const restored = restore(image);
      expect((await restored.ended).code).toBe(9);
      expect(restored.stdout).toBe('result 1 generation 1 kept 43\n');
    }
  });

  it.each(['c', 'c++'])('stands alone in %s', (language) => {
    const standard = language === 'c' ? '-std=c99' : '-std=c++11';
    for (const header of ['warp.h', 'warp_image.h']) {
      const file = join(projectRoot, 'native/include', header);
      const result = spawnSync('cc', ['-x', language, standard, '-Wall', '-Wextra', '-pedantic', '-fsyntax-only', file]);
      expect(result.stderr.toString().replaceAll(/.*pragma once.*\n/g, '')).toBe('');
    }
  });
});

describe('restore', () => {
  it("forwards another kernel's vDSO, also for a second generation", async () => {
    const { target } = await startProgram('vdso', variant);
    const image = await checkpointAndEnd(target);
    makeVdsoForeign(join(image, 'core.img'));
    const refused = restore(image);
    expect((await refused.ended).code).toBe(2); // its hash tells that the content was changed
    const copy = await unhashed(image);
    const restored = await restoreProgram(copy, lastTick(target.stdout), ['--log-level', 'info']);
    expect(restored.stderr).toMatch(/vDSO is another kernel's/);
    const again = await checkpointAndEnd(restored);
    await restoreProgram(again, lastTick(restored.stdout));
  });

  it('--keep-pid keeps process and thread ids', async ({ skip }) => {
    const trial = run('/usr/bin/unshare', ['--user', '--pid', '--fork', '--mount-proc', '--map-root-user', 'true']);
    if ((await trial.ended).code !== 0) skip('this host allows no user namespaces');
    const { target } = await startProgram('threads_control', variant);
    const image = await checkpointAndEnd(target);
    for (let i = 0; i < 3; i++) {
      const restored = restore(image, ['--keep-pid']);
      await restored.output(/^tick \d+$/m);
      await restored.goesOn();
      expect(restored.stdout).not.toContain('FAIL');
      await restored.kill();
    }
  });

  it('--keep-pid: the monotonic clock goes on on a host that has not been up for as long', async ({ skip }) => {
    const trial = run('/usr/bin/unshare', ['--user', '--pid', '--time', '--fork', '--mount-proc', '--map-root-user', 'true']);
    if ((await trial.ended).code !== 0) skip('this host allows no user or time namespaces');
    const program = join(makeDirectory(), 'monotonic');
    const built = spawnSync('gcc', ['-o', program, projectFile('test/e2e/fixtures/monotonic.c')], { ...user, encoding: 'utf8' });
    expect(built.status, built.stderr).toBe(0);
    const target = start(program, []);
    await target.output(/^tick 2$/m);
    const image = await checkpointAndEnd(target);
    // The same image of a host that had been up for 1,000 days.
    const decoded = warpTool(['decode', image]);
    expect((await decoded.ended).code, decoded.stderr).toBe(0);
    const document = JSON.parse(decoded.stdout) as MetadataJson;
    const record = document.notes.flatMap(({ notes }) => notes ?? []).find(({ name }) => name === 'image')!.records![0]!;
    const ahead = 1000n * 86_400n * 10n ** 9n;
    for (const name of ['monotonic_ns', 'boottime_ns']) record[name] = String(BigInt(record[name] as string) + ahead);
    record['boot_id'] = '00000000-0000-4000-8000-000000000000';
    const file = join(makeDirectory(), 'document.json');
    writeFileSync(file, JSON.stringify(document), { mode: 0o644 });
    const edited = join(makeDirectory(), 'edited');
    const encoded = warpTool(['encode', file, '-o', edited]);
    expect((await encoded.ended).code, encoded.stderr).toBe(0);
    const restored = restore(edited, ['--keep-pid', '--log-level', 'info']);
    await restored.goesOn();
    expect(restored.stderr).toMatch(/the monotonic clock goes on from the checkpoint's/);
    const clocks = (text: string): bigint[] => [...text.matchAll(/^clock (\d+)$/gm)].map((row) => BigInt(row[1]!));
    expect(clocks(restored.stdout).at(-1)! - clocks(target.stdout).at(-1)!).toBeGreaterThan(ahead);
    expect(restored.stdout).not.toContain('FAIL');
  });

  it('--keep-pid mirrors the exit status, and passes signals on', async ({ skip }) => {
    const trial = run('/usr/bin/unshare', ['--user', '--pid', '--fork', '--mount-proc', '--map-root-user', 'true']);
    if ((await trial.ended).code !== 0) skip('this host allows no user namespaces');
    const target = start('/bin/sh', [
      '-c',
      'trap "exit 43" TERM; echo ready $$; while :; do read -t 1 x </dev/zero 2>/dev/null || :; done',
    ]);
    await target.output(/^ready/m);
    const image = await checkpointAndEnd(target);
    const restored = restore(image, ['--keep-pid']);
    await new Promise((resolve) => setTimeout(resolve, 500));
    restored.child.kill('SIGTERM');
    expect((await restored.ended).code).toBe(43);
  });

  it('--env sets and adds variables for getenv', async () => {
    const code = [
      'import ctypes, time',
      'getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p',
      'n = 0',
      'while True:',
      '    print("tick", n, getenv(b"GIVEN"), getenv(b"ADDED"), getenv(b"LANG"), flush=True); n += 1; time.sleep(0.02)',
    ].join('\n');
    const python = '/usr/bin/python3';
    const target = start(python, ['-c', code], { environment: { GIVEN: 'short' } });
    await target.output(/^tick 3 b'short' None b'C.UTF-8'$/m);
    const image = await checkpointAndEnd(target);
    const restored = restore(image, ['--env', 'GIVEN=a value that is longer than the first', '--env=ADDED=new']);
    await restored.output(/^tick \d+ b'a value that is longer than the first' b'new' b'C.UTF-8'$/m);
    const again = await checkpointAndEnd(restored);
    await restore(again).output(/^tick \d+ b'a value that is longer than the first' b'new' b'C.UTF-8'$/m);
  });

  it('says that nobody asked for the arguments behind --', async () => {
    const { target } = await startProgram('threads_registers', firstVariant());
    const image = await checkpointAndEnd(target);
    const restored = await restoreProgram(image, undefined, ['--', 'one', 'two']);
    expect(restored.stderr).toMatch(/^warp-restore: warn: the arguments behind -- are not used: [^\n]+\n$/);
  });

  it('needs no mapped file with --self-contained', async () => {
    const scratch = makeDirectory();
    const copy = join(scratch, 'program');
    copyFileSync(executable('fd_eventfd', variant), copy);
    const target = start(copy, [scratch]);
    await target.output(/^tick 2$/m);
    const image = await checkpointAndEnd(target, ['--self-contained']);
    rmSync(copy);
    await restoreProgram(image, lastTick(target.stdout));
  });
});

describe('checkpoint --leave-running', () => {
  it('stores the moment of the capture, shared and fork-excluded memory too, while the program goes on changing it', async () => {
    for (const program of ['memory_busy', 'memory_shared', 'memory_flags']) {
      const { target } = await startProgram(program, variant);
      const images = [await checkpoint(target, ['--leave-running'])];
      await target.goesOn();
      images.push(await checkpoint(target, ['--leave-running']));
      await target.goesOn();
      await target.kill();
      for (const image of images) await (await restoreProgram(image)).kill();
    }
  });
});

/** A copy of an image whose content hashes are right again. */
async function unhashed(image: string): Promise<string> {
  const directory = join(makeDirectory(), 'copy');
  mkdirSync(directory);
  const file = join(directory, 'core.img');
  copyFileSync(join(image, 'core.img'), file);
  await rehash(file);
  spawnSync('chown', ['-R', `${user.uid ?? process.getuid!()}`, directory]);
  return directory;
}
