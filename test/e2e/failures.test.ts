/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** A checkpoint that fails leaves the program running and no file behind; an image that is not whole is refused. */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Program, checkpointAndEnd, killAll, restore, run, runCheckpoint, start } from './support/program.js';
import { executable, firstVariant, lastTick, restoreProgram, startProgram } from './support/c-programs.js';
import { makeDirectory, mountTmpfs, projectFile, user } from './support/host.js';

const variant = firstVariant();
afterEach(killAll);

function expectOneLine(text: string, pattern: RegExp): void {
  expect(text.trimEnd().split('\n')).toHaveLength(1);
  expect(text).toMatch(pattern);
}

/** The program works on, its checks still pass, and a checkpoint of it is still possible and good. */
async function expectUnharmed(target: Program): Promise<void> {
  await target.goesOn();
  expect(target.stdout).not.toContain('FAIL');
  const image = await checkpointAndEnd(target);
  await (await restoreProgram(image, lastTick(target.stdout))).kill();
}

async function startLarge(mebibytes: number): Promise<Program> {
  const { target } = await startProgram('memory_large', variant, { environment: { WARP_TEST_MEBIBYTES: String(mebibytes) } });
  return target;
}

const kinds = [
  { kind: 'plain', args: [] },
  { kind: 'compressed', args: ['--compression', 'lz4'] },
];

describe('a checkpoint that fails', () => {
  it('into a directory that cannot be written', async () => {
    const { target } = await startProgram('threads_registers', variant);
    const directory = makeDirectory();
    chmodSync(directory, 0o555);
    for (const to of [directory, join(directory, 'new')]) {
      const result = await runCheckpoint(target.pid, to);
      expect(result.code).toBe(2);
      expectOneLine(result.stderr, new RegExp(basename(directory)));
    }
    expect(readdirSync(directory)).toEqual([]);
    await expectUnharmed(target);
  });

  it('below a file instead of a directory', async () => {
    const { target } = await startProgram('fd_epoll', variant);
    const directory = makeDirectory();
    writeFileSync(join(directory, 'file'), 'content');
    const result = await runCheckpoint(target.pid, join(directory, 'file'));
    expect(result.code).toBe(2);
    expectOneLine(result.stderr, /file/);
    expect(readFileSync(join(directory, 'file'), 'utf8')).toBe('content');
    await expectUnharmed(target);
  });

  it.for(kinds)('on a full disk, $kind', async ({ args }, { skip }) => {
    const tmpfs = mountTmpfs(4 << 20);
    if (!tmpfs) return skip('mounting a tmpfs is not allowed here');
    try {
      const target = await startLarge(64);
      const result = await runCheckpoint(target.pid, tmpfs.directory, args);
      expect(result.code).toBe(2);
      expectOneLine(result.stderr, /space/i);
      expect(readdirSync(tmpfs.directory)).toEqual([]);
      const inside = join(tmpfs.directory, 'new');
      expect((await runCheckpoint(target.pid, inside, args)).code).toBe(2);
      expect(readdirSync(tmpfs.directory).flatMap((name) => readdirSync(join(tmpfs.directory, name)))).toEqual([]);
      await expectUnharmed(target);
    } finally {
      tmpfs.unmount();
    }
  });

  it.for(kinds)('at the limit of file sizes, of the program and of the client, $kind', async ({ args }) => {
    const scratch = makeDirectory();
    const limited = start('/usr/bin/prlimit', ['--fsize=1048576:unlimited', executable('memory_large', variant), scratch]);
    await limited.output(/^tick 2$/m);
    const directory = makeDirectory();
    const client = run('/usr/bin/prlimit', [
      '--fsize=1048576:unlimited',
      projectFile('native/build/warp-checkpoint'),
      String(limited.pid),
      '--to',
      directory,
      ...args,
    ]);
    expect(await client.ended).toEqual({ code: 2, signal: null });
    expectOneLine(client.stderr, /large|limit|size/i);
    expect(readdirSync(directory)).toEqual([]);
    await limited.goesOn();
  });

  it('at its time-out, because a thread cannot be stopped', async () => {
    const { target } = await startProgram('threads_vfork', variant);
    const directory = makeDirectory();
    const result = await runCheckpoint(target.pid, directory, ['--timeout', '1']);
    expect(result.code).toBe(2);
    expectOneLine(result.stderr, /thread|time/i);
    expect(readdirSync(directory)).toEqual([]);
    await target.goesOn();
    expect(target.stdout).not.toContain('FAIL');
  });

  it('because its client was killed half-way', async () => {
    const target = await startLarge(768);
    const directory = makeDirectory();
    const client = run(projectFile('native/build/warp-checkpoint'), [String(target.pid), '--to', directory, '--json-events']);
    // In slices: a machine that writes 768 MiB before this process is scheduled again would have finished otherwise.
    while (!/"event":\s*"progress"/.test(client.stdout)) {
      process.kill(target.pid, 'SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (/"event":\s*"progress"/.test(client.stdout)) break;
      process.kill(target.pid, 'SIGCONT');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
    await client.kill();
    expect(client.stdout).not.toMatch(/"event":\s*"done"/);
    process.kill(target.pid, 'SIGCONT');
    await target.goesOn();
    expect(readdirSync(directory)).toEqual([]);
    await expectUnharmed(target);
  });

  it('because another one is under way, which succeeds', async () => {
    const target = await startLarge(768);
    const directories = [makeDirectory(), makeDirectory()];
    const first = run(projectFile('native/build/warp-checkpoint'), [
      String(target.pid),
      '--to',
      directories[0]!,
      '--json-events',
      '--leave-running',
    ]);
    await first.output(/"event":\s*"progress"/);
    const second = await runCheckpoint(target.pid, directories[1]!, ['--leave-running']);
    expect(second.code).toBe(2);
    expectOneLine(second.stderr, /checkpoint/i);
    expect(readdirSync(directories[1]!)).toEqual([]);
    expect(await first.ended).toEqual({ code: 0, signal: null });
    await target.goesOn();
    await target.kill();
    await restoreProgram(directories[0]!);
  });

  it('because of a descriptor that cannot be kept', async () => {
    const { target } = await startProgram('fd_unsupported', variant);
    const number = (await target.output(/^descriptor (\d+)$/m))[1];
    const directory = makeDirectory();
    const result = await runCheckpoint(target.pid, directory);
    expect(result.code).toBe(2);
    expectOneLine(result.stderr, new RegExp(`descriptor ${number}\\b`));
    expect(readdirSync(directory)).toEqual([]);
    await target.goesOn();
    expect(target.stdout).not.toContain('FAIL');
  });

  it('because there is no such process, or one that was not started for it', async () => {
    const directory = makeDirectory();
    const plain = run('/bin/sleep', ['60']);
    for (const pid of [plain.pid, 4194303]) {
      const result = await runCheckpoint(pid, directory);
      expect(result.code).toBe(2);
      expectOneLine(result.stderr, new RegExp(String(pid)));
    }
    expect(readdirSync(directory)).toEqual([]);
  });

  it.skipIf(!user.uid)('by another user than the one of the program', async () => {
    const { target } = await startProgram('fd_eventfd', variant);
    const directory = makeDirectory();
    chmodSync(directory, 0o777);
    const result = spawnSync(projectFile('native/build/warp-checkpoint'), [String(target.pid), '--to', directory], {
      uid: 65533,
      gid: 65533,
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(result.status).toBe(2);
    expectOneLine(result.stderr, /user|permi/i);
    expect(readdirSync(directory)).toEqual([]);
    await target.goesOn();
  });
});

async function expectRefused(damaged: Buffer, pattern: RegExp, args: string[] = []): Promise<void> {
  const directory = makeDirectory();
  writeFileSync(join(directory, 'core.img'), damaged, { mode: 0o644 });
  const refused = restore(directory, args);
  expect(await refused.ended).toEqual({ code: 2, signal: null });
  expect(refused.stdout).toBe('');
  expectOneLine(refused.stderr, pattern);
  expect(refused.stderr).toContain(directory);
}

describe('an image that is not whole', () => {
  let image: string;
  let content: Buffer;

  beforeAll(async () => {
    const { target } = await startProgram('memory_private', variant);
    image = await checkpointAndEnd(target);
    content = readFileSync(join(image, 'core.img'));
  });

  function changed(offset: number): Buffer {
    const copy = Buffer.from(content);
    copy[offset] = copy[offset]! ^ 0x40;
    return copy;
  }

  const metadataSize = (): number => Number(content.readBigUInt64LE(64 + 16));

  it('has mode 0600', () => {
    const result = spawnSync('stat', ['-c', '%a', join(image, 'core.img')], { encoding: 'utf8' });
    expect(result.stdout.trim()).toBe('600');
  });

  it('truncated anywhere', async () => {
    const sizes = [0, 1, 63, 64, 191, 192, 4096, metadataSize() - 1, metadataSize(), content.length >> 1, content.length - 1];
    for (const size of sizes) await expectRefused(content.subarray(0, size), /truncated|short|not .*image|ELF|bytes/i);
  });

  it('changed anywhere in its metadata', async () => {
    for (let i = 0; i < 40; i++) await expectRefused(changed(Math.floor((metadataSize() - 1) * (i / 39))), /core\.img/);
  });

  it('with another magic, of a later major version, or no image at all', async () => {
    await expectRefused(changed(64), /core\.img/);
    const later = Buffer.from(content);
    later.writeUInt16LE(2, 64 + 8);
    await expectRefused(later, /version/i);
    await expectRefused(Buffer.from('hello, this is a text file\n'.repeat(1000)), /core\.img/);
  });

  it('changed in its content, when all of it is read', async () => {
    for (const part of [0.1, 0.5, 0.9])
      await expectRefused(changed(metadataSize() + Math.floor((content.length - metadataSize()) * part)), /core\.img/, ['--no-direct-map']);
  });

  it('missing, or not readable', async () => {
    const directory = makeDirectory();
    const missing = restore(join(directory, 'none'));
    expect((await missing.ended).code).toBe(2);
    expectOneLine(missing.stderr, /none/);
    mkdirSync(join(directory, 'core.img'));
    const strange = restore(directory);
    expect((await strange.ended).code).toBe(2);
    expectOneLine(strange.stderr, /core\.img/);
  });
});

describe('a host that has changed since the capture', () => {
  it('refuses an image whose program file was replaced, and names the file', async () => {
    const scratch = makeDirectory();
    const copy = join(scratch, 'program');
    copyFileSync(executable('fd_eventfd', variant), copy);
    const target = start(copy, [scratch]);
    await target.output(/^tick 2$/m);
    const image = await checkpointAndEnd(target);
    await (await restoreProgram(image, lastTick(target.stdout))).kill();
    rmSync(copy);
    const missing = restore(image);
    expect((await missing.ended).code).toBe(2);
    expectOneLine(missing.stderr, /program/);
    copyFileSync(executable('fd_pipes', variant), copy);
    const other = restore(image);
    expect((await other.ended).code).toBe(2);
    expectOneLine(other.stderr, /program/);
    copyFileSync(executable('fd_eventfd', variant), copy);
    truncateSync(copy, 4096);
    const cut = restore(image);
    expect((await cut.ended).code).toBe(2);
  });

  it('refuses when a port is taken, and names it', async () => {
    const { target } = await startProgram('fd_listen', variant);
    const image = await checkpointAndEnd(target);
    const holder = await restoreProgram(image);
    const refused = restore(image);
    expect((await refused.ended).code).toBe(2);
    expectOneLine(refused.stderr, /in use|127\.0\.0\.1/i);
    await holder.goesOn();
  });
});
