/** The C programs of test/programs: building, and the check that every restore of one has to pass. */
import { expect } from 'vitest';
import { join } from 'node:path';
import { makeDirectory, projectFile } from './host.js';
import { type Program, type StartOptions, restore, run, start } from './program.js';
import { build, programs, variants } from '../../programs/build.mjs';

export { programs, variants };
/** Programs with a test of their own. */
const special = new Set([
  'fd_standard',
  'fd_tty',
  'fd_unsupported',
  'loading_exec',
  'process_block_signals_raw',
  'process_fork',
  'memory_large',
  'threads_unstoppable',
  'threads_vfork',
]);
/** Those that run by themselves and check themselves. */
export const ordinary = programs.filter((program) => !special.has(program));

export type Variant = (typeof variants)[number];

/** The executable of a program, built if it is out of date. */
export function executable(program: string, variant: Variant): string {
  build(program, variant);
  return projectFile(join('test/programs/build', variant.name, program));
}

/** Starts a C program and resolves when it has set up its feature and ticks. */
export async function startProgram(
  program: string,
  variant: Variant,
  options: StartOptions = {},
): Promise<{ target: Program; scratch: string }> {
  const scratch = makeDirectory();
  const target = start(executable(program, variant), [scratch], options);
  await target.output(/^ready$/m);
  await target.output(/^tick 2$/m);
  return { target, scratch };
}

/** The number of the last whole tick in a program's output. */
export function lastTick(output: string): number {
  const ticks = output.match(/^tick \d+$/gm) ?? [];
  return Number(ticks.at(-1)?.slice(5) ?? -1);
}

function firstTick(output: string): number {
  return Number(/^tick (\d+)$/m.exec(output)?.[1] ?? -1);
}

/**
 * Restores an image and checks that the program is the same one: it goes on exactly where it stopped, passes its own checks, and then keeps
 * running.
 *
 * @param stoppedAfter the last tick before the capture, where the program ended there
 */
export async function restoreProgram(
  image: string,
  stoppedAfter?: number,
  args: string[] = [],
  options: StartOptions = {},
): Promise<Program> {
  const restored = restore(image, args, options);
  await restored.output(/^restored ok$/m);
  await restored.goesOn();
  expect(restored.stdout).not.toContain('FAIL');
  if (stoppedAfter !== undefined) expect(firstTick(restored.stdout)).toBe(stoppedAfter + 1);
  return restored;
}

/** Removes what a program leaves behind in the kernel. */
export async function cleanUp(program: string, variant: Variant, scratch: string): Promise<void> {
  if (program === 'blocking_sysv') await run(executable(program, variant), [scratch, 'remove']).ended;
}

/** The variant that every machine with a compiler has. */
export function firstVariant(): Variant {
  const variant = variants.find((candidate) => candidate.compiler);
  if (!variant) throw new Error('no C compiler; on Debian: apt-get install gcc libc6-dev');
  return variant;
}
