/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/**
 * Threads that wait a millisecond at a time, on a machine with more to do than processors, so that many are stopped between entering the kernel and
 * waiting there: no call returns EINTR. WARP_SOAK_GENERATIONS is how often each program is captured (`npm run soak -- calls`: 300).
 */
import { rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { afterEach, expect, it } from 'vitest';
import { checkpoint, checkpointAndEnd, killAll, run } from './support/program.js';
import { restoreProgram, startProgram, variants } from './support/c-programs.js';

afterEach(killAll);

const captures = Number(process.env['WARP_SOAK_GENERATIONS'] ?? 5);

it.for(variants)('waiting calls of a busy machine never return EINTR, $name', { timeout: 600_000 }, async (variant, { skip }) => {
  if (!variant.compiler) return skip(`no compiler for ${variant.name}; on Debian: apt-get install musl-tools`);
  for (let i = 0; i < availableParallelism() + 1; i++) run('/bin/sh', ['-c', 'while :; do :; done']);
  const { target } = await startProgram('blocking_timed', variant, { environment: { WARP_TEST_WAIT_MS: '1' } });
  for (let capture = 0; capture < captures; capture++) {
    rmSync(await checkpoint(target, ['--leave-running']), { recursive: true });
    expect(target.stdout).not.toContain('FAIL');
  }
  const image = await checkpointAndEnd(target);
  expect(target.stdout).not.toContain('FAIL');
  await restoreProgram(image);
});
