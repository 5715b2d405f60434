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

describe.skipIf(!hasObjdump)('machine code', () => {
  beforeAll(() => {
    const sources = [
      'test/native/code_check.c',
      ...['arch/x86_64/code.c', 'arch/x86_64/arch.c', 'arch/x86_64/entry.S', 'base/base.c', 'base/xxh64.c'].map(
        (file) => `native/src/${file}`,
      ),
    ];
    const flags = ['-std=c17', '-Wall', '-Wextra', '-g', '-O1'];
    const compiled = spawnSync(process.env['CC'] ?? 'cc', [...flags, '-o', program, ...sources.map((file) => join(root, file))], {
      encoding: 'utf8',
    });
    expect(compiled.stderr).toBe('');
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

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
