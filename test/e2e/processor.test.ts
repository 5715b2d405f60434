/** `run --cpu-features generic`: what programs then use of a processor, and what their images ask of one. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { lastTick } from './support/c-programs.js';
import { command, makeDirectory, projectFile, user } from './support/host.js';
import { compileJava, factsOf, jdks } from './support/jvm.js';
import { checkpointAndEnd, killAll, type Program, restore, warpTool } from './support/program.js';

afterEach(killAll);

const hasAvx = / avx /.test(readFileSync('/proc/cpuinfo', 'utf8'));
/** Names in /proc/cpuinfo of what belongs to x86-64-v2 (x86-64 psABI), and XSAVE. */
const GENERIC = new Set(
  'fpu tsc cx8 cmov clflush mmx fxsr sse sse2 sse3 pni ssse3 cx16 sse4_1 sse4_2 popcnt xsave lahf_lm syscall nx lm'.split(' '),
);

interface Needs {
  cpu_features: string[];
  xstate_features: string[];
}

async function needsOf(image: string): Promise<Needs> {
  const show = warpTool(['show', image, '--json']);
  expect((await show.ended).code, show.stderr).toBe(0);
  return JSON.parse(show.stdout).needs as Needs;
}

async function comesBack(program: Program): Promise<Needs> {
  const image = await checkpointAndEnd(program);
  const check = warpTool(['validate', image, '--host']);
  expect((await check.ended).code, check.stdout + check.stderr).toBe(0);
  const restored = restore(image);
  await restored.output(new RegExp(`^tick ${lastTick(program.stdout) + 1}$`, 'm'));
  return needsOf(image);
}

/** The instructions of a function, up to where it returns. */
function disassemble(library: string, address: string): string {
  const { stdout } = spawnSync('objdump', ['-d', '--no-show-raw-insn', `--start-address=${address}`, library], {
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
  });
  return stdout.slice(0, /\bret\b/.exec(stdout)?.index);
}

describe.skipIf(!command('gcc') || !command('objdump'))('the C library (on Debian: apt-get install gcc binutils)', () => {
  it.for(['native', 'generic'])('--cpu-features %s', async (features) => {
    const program = join(makeDirectory(), 'copies');
    const built = spawnSync('gcc', ['-o', program, projectFile('test/e2e/fixtures/copies.c'), '-ldl'], { ...user, encoding: 'utf8' });
    expect(built.status, built.stderr).toBe(0);
    const target = warpTool(['run', '--cpu-features', features, '--', program]);
    const [, library, address] = await target.output(/^memcpy (\S+) (0x[0-9a-f]+)$/m);
    await target.output(/^tick 2$/m);
    const generic = features === 'generic';
    if (generic || hasAvx) expect(/%[yz]mm/.test(disassemble(library!, address!))).toBe(!generic);
    expect(target.stderr).toMatch(generic ? /is not limited, and the image does not tell/ : /^$/);
    const needs = await comesBack(target);
    const more = [...needs.cpu_features, ...needs.xstate_features].filter((name) => !GENERIC.has(name) && name !== 'x87');
    if (generic) expect(more).toEqual([]);
    else if (hasAvx) expect(more).toContain('avx');
  });
});

const installed = command('javac') ? jdks() : [];

describe.skipIf(installed.length === 0)('Java virtual machines (on Debian: apt-get install openjdk-17-jdk-headless)', () => {
  it.for(installed)('$name: --cpu-features generic', async (jdk) => {
    const java = ['-cp', compileJava('Load'), 'Load'];
    const target = warpTool(['run', '--cpu-features', 'generic', '--', join(jdk.home, 'bin/java'), '-Xmx128m', ...java]);
    await target.output(/^tick 1$/m);
    expect(target.stderr).toBe('');
    const { flags } = await factsOf(jdk, target);
    expect(flags).toMatchObject({ UseAVX: '0', UseSSE: '4' });
    // The virtual machine knows of each that it cannot go without its instructions.
    const intrinsics = ['AES', 'AESCTR', 'Adler32', 'BASE64', 'CRC32', 'CRC32C', 'GHASH', 'SHA1', 'SHA256', 'SHA512', 'SHA3'];
    const flagsOff = [
      'FMA',
      'BMI1Instructions',
      'BMI2Instructions',
      'CountLeadingZerosInstruction',
      'CountTrailingZerosInstruction',
      'CLMUL',
    ];
    for (const name of [...flagsOff, ...intrinsics.map((one) => `${one}Intrinsics`)])
      expect(flags, name).toHaveProperty(`Use${name}`, 'false');
    const needs = await comesBack(target);
    expect([...needs.cpu_features, ...needs.xstate_features].filter((name) => !GENERIC.has(name) && name !== 'x87')).toEqual([]);
  });

  it('a script that starts java', async () => {
    const { home } = installed[0]!;
    const line = `${home}/bin/java -XX:+PrintFlagsFinal -version | grep -w UseAVX`;
    const script = warpTool(['run', '--cpu-features', 'generic', '--no-java-agent', '--', '/bin/sh', '-c', line]);
    await script.ended;
    expect(script.stdout).toMatch(/UseAVX += 0 /);
  });
});
