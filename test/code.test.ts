/** What the engine understands of machine code, beside objdump: it changes the code of programs by that. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'warp-tool-code-'));
const program = join(directory, 'code_check');
const hasObjdump = spawnSync('objdump', ['--version']).status === 0;
const hasGo = existsSync('/usr/bin/go');

interface Judged {
  agree: number;
  differ: number;
  seen: number;
  unseen: number;
  invented: number;
  redirectable: number;
  others: number;
  fixed: number;
}

/** The executable segments of a file, instruction by instruction. */
function judge(file: string): Judged {
  const listing = join(directory, 'listing');
  spawnSync('objdump', ['-d', '-w', '--no-show-raw-insn', file], { stdio: ['ignore', openSync(listing, 'w'), 'ignore'] });
  const result = spawnSync(program, [file, listing], { encoding: 'utf8' });
  expect(`${result.stderr}`).toBe('');
  const numbers = [...result.stdout.matchAll(/\d+/g)].map(Number);
  expect(numbers, result.stdout).toHaveLength(8);
  const [agree, differ, seen, unseen, invented, redirectable, others, fixed] = numbers as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return { agree, differ, seen, unseen, invented, redirectable, others, fixed };
}

const libraries = '/usr/lib/x86_64-linux-gnu';
const installed = (paths: string[]): string[] => paths.filter((path) => existsSync(path)).map((path) => realpathSync(path));

const cc = process.env['CC'] ?? 'cc';
const engine = ['arch/x86_64/code.c', 'arch/x86_64/arch.c', 'arch/x86_64/entry.S', 'base/base.c', 'base/xxh64.c'].map(
  (file) => `native/src/${file}`,
);

function compile(compiler: string, args: string[]): void {
  const compiled = spawnSync(compiler, ['-Wall', '-Wextra', '-g', ...args], { encoding: 'utf8', cwd: root });
  expect(compiled.stderr).toBe('');
  expect(compiled.status).toBe(0);
}

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Which system call was interrupted, found out from the code that led to it, in each C library that is here. */
describe('interrupted system calls', () => {
  const object = join(directory, 'engine.o');
  const hasMusl = spawnSync('musl-gcc', ['--version']).status === 0;
  beforeAll(() => {
    // Without the C library's headers, then joined to programs of either.
    const flags = ['-std=c17', '-O2', '-ffreestanding', '-fno-stack-protector', '-fPIC'];
    compile(cc, [...flags, '-r', '-nostdlib', '-o', object, 'test/native/calls_decode.c', ...engine]);
  });

  const ways: [string, string, string[]][] = [
    ['glibc', cc, ['-O1']],
    ['glibc, without a procedure linkage table', cc, ['-O2', '-fno-plt']],
    ['glibc, static', cc, ['-O0', '-static']],
    ['musl', 'musl-gcc', ['-O1']],
    ['musl, static', 'musl-gcc', ['-O0', '-static']],
  ];
  it.each(ways.filter(([, compiler]) => compiler === cc || hasMusl))(
    '%s: every call is found, made again, and ends as if nothing had happened',
    (_library, compiler, flags) => {
      const waiting = join(directory, 'calls_check');
      compile(compiler, [...flags, '-pthread', '-o', waiting, 'test/native/calls_check.c', object]);
      const { stdout, status } = spawnSync(waiting, [], { encoding: 'utf8' });
      expect(stdout).not.toContain('FAIL');
      expect(stdout.match(/^ok: /gm)).toHaveLength(14);
      expect(status).toBe(0);
    },
  );
});

describe.skipIf(!hasObjdump)('machine code', () => {
  beforeAll(() => compile(cc, ['-std=c17', '-O1', '-o', program, 'test/native/code_check.c', ...engine]));

  it.each(installed([`${libraries}/libc.so.6`, '/lib/ld-musl-x86_64.so.1', '/bin/bash', `${libraries}/libstdc++.so.6`]))(
    'every instruction of %s has the length that it has',
    (file) => {
      const { agree, differ, seen, unseen, invented } = judge(file);
      expect(agree).toBeGreaterThan(50_000);
      // A table among musl's code is taken for code by objdump.
      expect(differ).toBeLessThanOrEqual(1);
      expect(invented).toBe(0);
      // Next to hlt, and string instructions, calls are not believed.
      expect(unseen).toBeLessThanOrEqual(seen / 20);
    },
  );

  it.each(installed([`${libraries}/libcrypto.so.3`]))('tables in the code of %s are not taken for system calls', (file) => {
    expect(judge(file)).toMatchObject({ seen: 0, invented: 0 });
  });

  it.skipIf(!hasGo)('a Go program releases memory at one place, and calls with any number at others', () => {
    const go = readdirSync('/usr/lib').find((name) => /^go-[\d.]+$/.test(name));
    const { redirectable, fixed } = judge(go ? `/usr/lib/${go}/bin/go` : realpathSync('/usr/bin/go'));
    expect(redirectable).toBeGreaterThanOrEqual(2);
    expect(fixed).toBe(0);
  });
});
