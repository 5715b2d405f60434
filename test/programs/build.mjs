/**
 * Builds every test program in every variant into test/programs/build/VARIANT/PROGRAM; run directly, it also runs each program's self-test
 * (the same checks, without a checkpoint).
 *
 *   node test/programs/build.mjs [PROGRAM...]
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
export const buildDirectory = join(here, 'build');

/** C library and code model. `compiler` is undefined where this machine has none. */
export const variants = [
  { name: 'glibc-pie', compiler: find('gcc') ?? find('cc'), flags: ['-fPIE', '-pie'] },
  { name: 'glibc-fixed', compiler: find('gcc') ?? find('cc'), flags: ['-fno-pie', '-no-pie'] },
  { name: 'musl-pie', compiler: find('musl-gcc'), flags: ['-fPIE', '-pie'] },
  { name: 'musl-fixed', compiler: find('musl-gcc'), flags: ['-fno-pie', '-no-pie'] },
];

/** Names of all programs. */
export const programs = readdirSync(here)
  .filter((file) => file.endsWith('.c') && !['launch.c', 'tls_module.c'].includes(file))
  .map((file) => basename(file, '.c'))
  .toSorted();

const commonFlags = ['-std=gnu17', '-O1', '-g', '-Wall', '-Wextra', '-Wno-format-truncation', '-pthread'];

function find(command) {
  return (process.env.PATH ?? '')
    .split(':')
    .map((directory) => join(directory, command))
    .find((path) => existsSync(path));
}

function compile(compiler, flags, source, output) {
  const inputs = [source, 'check.h', 'made.h', 'absent.h'].map((name) => join(here, name));
  if (existsSync(output) && inputs.every((input) => statSync(input).mtimeMs <= statSync(output).mtimeMs)) return;
  mkdirSync(dirname(output), { recursive: true });
  const result = spawnSync(compiler, [...commonFlags, ...flags, '-o', output, join(here, source), '-ldl'], { encoding: 'utf8' });
  if (result.error) throw result.error;
  if (result.status !== 0) throw new Error(`${compiler} cannot compile ${source}: ${result.stderr}`);
  if (result.stderr) process.stderr.write(result.stderr);
}

/** Builds one program in one variant if it is out of date; returns the executable's path. */
export function build(program, variant) {
  const directory = join(buildDirectory, variant.name);
  compile(variant.compiler, ['-fPIC', '-shared'], 'tls_module.c', join(directory, 'tls_module.so'));
  const output = join(directory, program);
  compile(variant.compiler, variant.flags, `${program}.c`, output);
  return output;
}

/** Builds the launcher that starts a program with the engine and without inherited descriptors; returns its path. */
export function buildLauncher() {
  const output = join(buildDirectory, 'launch');
  compile(variants[0].compiler ?? 'gcc', [], 'launch.c', output);
  return output;
}

/** Runs a program's self-test; resolves to its output when it fails, else to undefined. */
async function selfTest(program, executable) {
  const scratch = mkdtempSync(join(tmpdir(), 'warp-self-test-'));
  const command =
    program === 'fd_tty' ? ['script', '-qefc', `${executable} ${scratch} self-test`, '/dev/null'] : [executable, scratch, 'self-test'];
  const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000, killSignal: 'SIGKILL' });
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (output += data));
  const code = await new Promise((resolve) => child.on('close', resolve));
  if (program === 'blocking_sysv') spawnSync(executable, [scratch, 'remove']);
  rmSync(scratch, { recursive: true, force: true });
  return code === 0 && output.includes('self-test ok') ? undefined : `status ${code}\n${output}`;
}

async function main() {
  const chosen = process.argv.length > 2 ? process.argv.slice(2) : programs;
  let failures = 0;
  for (const variant of variants) {
    if (!variant.compiler) {
      console.log(`${variant.name}: skipped, no compiler (Debian: apt-get install musl-tools)`);
      continue;
    }
    const executables = chosen.map((program) => [program, build(program, variant)]);
    for (const [program, executable] of executables) {
      const output = await selfTest(program, executable);
      if (output === undefined) continue;
      failures++;
      console.log(`${variant.name}/${program}: FAILED, ${output}`);
    }
    console.log(`${variant.name}: ${chosen.length} programs built and tested`);
  }
  process.exitCode = failures ? 1 : 0;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main();
