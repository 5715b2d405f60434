/** CRIU as an engine, and what the inspecting commands tell of its images. Runs as root, where a CRIU that works is on the PATH. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Message, readEntries } from '../../src/criu/entries.js';
import { whyCriuFails } from '../../src/criu/engine.js';
import { schemas } from '../../src/schemas/index.js';
import { command } from './support/host.js';

const bin = fileURLToPath(new URL('../../bin/run.js', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'warp-tool-test-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const { LD_PRELOAD: _, ...environment } = process.env;
const tool = (...argv: string[]) => spawnSync(process.execPath, [bin, ...argv], { encoding: 'utf8', env: environment, timeout: 60_000 });

describe('files of CRIU', () => {
  const file = (...entries: number[][]): string => {
    const path = join(scratch, 'file.img');
    const sized = entries.flatMap((entry) => [entry.length, 0, 0, 0, ...entry]);
    writeFileSync(path, Uint8Array.from([0x19, 0x43, 0x56, 0x54, 0x16, 0x31, 0x31, 0x58, ...sized]));
    return path;
  };

  it('are read entry by entry, field by field', () => {
    // 1: 300; 2: "ab"; 3: packed 1, 300; 4: fixed64; 5: message {1: 7}, twice.
    const bytes = [
      0x08, 0xac, 0x02, 0x12, 2, 0x61, 0x62, 0x1a, 3, 1, 0xac, 0x02, 0x21, 1, 0, 0, 0, 0, 0, 0, 0x80, 0x2a, 2, 8, 7, 0x2a, 2, 8, 9,
    ];
    const [first, second] = readEntries(file(bytes, []));
    expect(first!.number(1)).toBe(300);
    expect(first!.text(2)).toBe('ab');
    expect(first!.numbers(3)).toEqual([1, 300]);
    expect(first!.big(4)).toBe(0x8000000000000001n);
    expect(first!.messages(5).map((message) => message.number(1))).toEqual([7, 9]);
    expect(first!.message(5).number(1)).toBe(9);
    expect([second!.number(1), second!.text(2), second!.numbers(3), second!.has(1)]).toEqual([0, '', [], false]);
  });

  it.each([
    ['a number without an end', [[0x08, 0x80]], /at offset 0x8: the entry cannot be decoded: a number does not end/],
    ['a field past the end', [[0x0a, 9]], /a field is longer than its message/],
    ['an unknown type', [[0x0b]], /a field is of no known type/],
  ])('refuse %s', (_what, entries, message) => {
    expect(() => readEntries(file(...entries))).toThrow(message);
    expect(() => new Message(Uint8Array.from(entries[0]!))).toThrow(RangeError);
  });

  it('refuse what is cut or something else', () => {
    const path = file([0x08, 1]);
    truncateSync(path, 13);
    expect(() => readEntries(path)).toThrow(/the file ends inside an entry/);
    writeFileSync(path, 'no image at all');
    expect(() => readEntries(path)).toThrow(/no file of a CRIU image/);
  });
});

it('says why CRIU cannot be used, where it cannot', () => {
  const missing = spawnSync(process.execPath, [bin, 'checkpoint', String(process.pid), '--to', join(scratch, 'none'), '--engine', 'criu'], {
    encoding: 'utf8',
    env: { ...environment, PATH: '/nowhere' },
  });
  expect(missing).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/^warp-tool: criu is not installed .*; install CRIU 4 or later, or use --engine warp\n$/),
  });
  const fake = join(scratch, 'criu');
  writeFileSync(fake, '#!/bin/sh\n[ $1 = check ] && echo "Error (criu/vdso.c:1): unexpected vDSO" && exit 1\necho Version: 3.17.1\n', {
    mode: 0o755,
  });
  const old = spawnSync(process.execPath, [bin, 'engines'], {
    encoding: 'utf8',
    env: { ...environment, PATH: `${scratch}:${environment['PATH']}` },
  });
  expect(old.stdout).toMatch(/criu +no .*`criu check` of CRIU 3\.17\.1 fails: unexpected vDSO; /);
  expect(existsSync(join(scratch, 'none'))).toBe(false);
});

const obstacle = process.getuid!() === 0 ? whyCriuFails() : 'not root';

describe.skipIf(obstacle !== null)(`CRIU${obstacle === null ? '' : ` (${obstacle})`}`, () => {
  const image = join(scratch, 'image');
  let pid: number;

  /** Between two processes with pipes of the kernel's: Node.js's own are sockets, whose other ends CRIU wants in the image. */
  function pipeline(argv: string[]): { child: ChildProcess; output: () => string } {
    const stdio = ['pipe', 'pipe', 'ignore'] as const;
    const child = spawn('bash', ['-o', 'pipefail', '-c', 'cat | "$@" 2> /dev/null | cat', 'bash', ...argv], {
      env: environment,
      cwd: '/',
      stdio: [...stdio],
    });
    let text = '';
    child.stdout!.setEncoding('utf8').on('data', (part: string) => (text += part));
    return { child, output: () => text };
  }

  /** Prints its id and numbers, and ends with 7 after a line on stdin. */
  const SOURCE = [
    'import os, sys, threading, time',
    'print(os.getpid(), flush=True)',
    'threading.Thread(target=sys.stdin.readline).start()',
    'n = 0',
    'while threading.active_count() > 1:',
    '  n += 1',
    '  print(n, flush=True)',
    '  time.sleep(0.01)',
    'sys.exit(7)',
  ].join('\n');

  const exits = (child: ChildProcess): Promise<[number | null, string | null]> =>
    new Promise((resolve) => child.once('exit', (code, signal) => resolve([code, signal])));
  const reaches = async ({ child, output }: { child: ChildProcess; output: () => string }, count: number): Promise<void> => {
    while (output().split('\n').length <= count) {
      if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };

  beforeAll(async () => {
    const started = pipeline([command('python3')!, '-u', '-c', SOURCE]);
    await reaches(started, 4);
    pid = Number(started.output().split('\n')[0]);
    const kept = tool('checkpoint', String(pid), '--to', join(scratch, 'kept'), '--engine', 'criu', '--leave-running');
    expect(kept.stderr).toBe('');
    await reaches(started, started.output().split('\n').length + 3);
    const ended = exits(started.child);
    const dumped = tool('checkpoint', String(pid), '--to', image, '--engine', 'criu', '--json');
    expect(dumped.stderr).toBe('');
    expect(JSON.parse(dumped.stdout)).toMatchObject({ image, generation: 0 });
    started.child.stdin!.end();
    expect(await ended).toEqual([137, null]);
  });

  it('dumps and restores a process, with the pipes and the end of the caller', async () => {
    const restored = pipeline([process.execPath, bin, 'restore', image, '--engine', 'criu']);
    const ended = exits(restored.child);
    await reaches(restored, 3);
    expect(Number(restored.output().split('\n')[0])).toBeGreaterThan(3);
    const again = tool('restore', image, '--engine', 'criu');
    expect(again).toMatchObject({ status: 2, stderr: expect.stringMatching(/CRIU restores under the old ids: end the process/) });
    restored.child.stdin!.end('end\n');
    expect(await ended).toEqual([7, null]);
  });

  it.each(['show', 'threads', 'maps', 'fds'])('%s tells of its image', (name) => {
    const shown = tool(name, image, '--json');
    expect(shown.stderr).toBe('');
    const document = JSON.parse(shown.stdout);
    const validate = new Ajv2020({ strict: true, allowUnionTypes: true }).compile(schemas[name]!.json);
    expect(validate(document) ? [] : validate.errors).toEqual([]);
    const [process] = document.processes;
    expect(process).toMatchObject({ pid, name: 'python3' });
    if (name === 'show')
      expect(process).toMatchObject({ state: 'alive', cwd: '/', threads: 2, command: expect.arrayContaining(['-u', '-c']) });
    if (name === 'threads') expect(process.threads.map(({ tid }: { tid: number }) => tid)).toContain(pid);
    if (name === 'maps')
      expect(process.maps.some((map: { kind: string; stored: number }) => map.kind === 'stack' && map.stored > 0)).toBe(true);
    if (name === 'fds')
      expect(process.descriptors.slice(0, 2)).toEqual([0, 1].map((fd) => ({ fd, kind: expect.any(String), path: expect.any(String) })));
    expect(tool(name, image).stdout).toContain('python3');
  });

  it('is named where another engine is asked for', () => {
    expect(tool('restore', image)).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/an image that CRIU made: restore it with .* --engine criu/),
    });
    expect(tool('mem', image, '0x1000')).toMatchObject({ status: 2, stderr: expect.stringMatching(/an image that CRIU made: `show`/) });
    expect(tool('checkpoint', '1', '--to', image, '--engine', 'criu', '--compression', 'lz4').stderr).toMatch(
      /--compression has no meaning with --engine criu/,
    );
  });

  it('damaged files are named, in one line', () => {
    const damaged = mkdtempSync(join(scratch, 'damaged-'));
    for (const name of readdirSync(image)) copyFileSync(join(image, name), join(damaged, name));
    for (const name of readdirSync(damaged).filter((one) => /^(pstree|files|mm|core|fdinfo|pagemap)/.test(one))) {
      const whole = readFileSync(join(damaged, name));
      writeFileSync(join(damaged, name), whole.subarray(0, whole.length - 3));
      expect(tool('show', damaged)).toMatchObject({
        status: 2,
        stderr: expect.stringMatching(/^warp-tool: .*; take the image from its source again\n$/),
      });
      writeFileSync(join(damaged, name), whole);
    }
  });

  it('leaves nothing where a dump fails, and says why', async () => {
    const target = join(scratch, 'failed');
    const gone = spawnSync('sleep', ['0']).pid;
    expect(tool('checkpoint', String(gone), '--to', target, '--engine', 'criu')).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/does not exist/),
    });
    expect(existsSync(target)).toBe(false);
    expect(tool('checkpoint', String(process.pid), '--to', image, '--engine', 'criu').stderr).toMatch(/holds an image of CRIU already/);
  });
});
