/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Many captures of one program: 20 generations deep, and 100 times in a row while it runs. */
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { checkpoint, checkpointAndEnd, killAll } from './support/program.js';
import { firstVariant, lastTick, restoreProgram, startProgram, variants } from './support/c-programs.js';

afterEach(killAll);

describe('20 generations', () => {
  const deep = [
    'blocking_forever',
    'fd_epoll',
    'fd_pipes',
    'memory_private',
    'memory_release',
    'mutex_robust',
    'signals_pending',
    'threads_registers',
  ];
  const cases = variants.flatMap((variant) =>
    variant.name.endsWith('-pie') ? deep.map((program) => ({ program, variant, name: variant.name })) : [],
  );
  it.for(cases)('$program, $name', async ({ program, variant }, { skip }) => {
    if (!variant.compiler) return skip(`no compiler for ${variant.name}; on Debian: apt-get install musl-tools`);
    let { target } = await startProgram(program, variant);
    for (let generation = 0; generation < 20; generation++) {
      const image = await checkpointAndEnd(target);
      target = await restoreProgram(image, lastTick(target.stdout));
      rmSync(image, { recursive: true });
    }
    await target.goesOn();
  });
});

interface Footprint {
  descriptors: number;
  areas: number;
  virtualKilobytes: number;
  residentKilobytes: number;
}

function footprint(pid: number): Footprint {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    areas: readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n').length,
    virtualKilobytes: Number(/VmSize:\s+(\d+)/.exec(status)?.[1]),
    residentKilobytes: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]),
  };
}

/** Captures again and again while the program runs; the footprint after the first ten and after all. */
async function captureOften(program: string): Promise<{ early: Footprint; late: Footprint }> {
  const { target } = await startProgram(program, firstVariant());
  for (let i = 0; i < 10; i++) rmSync(await checkpoint(target, ['--leave-running']), { recursive: true });
  const early = footprint(target.pid);
  for (let i = 10; i < 99; i++) rmSync(await checkpoint(target, ['--leave-running']), { recursive: true });
  const image = await checkpoint(target, ['--leave-running']);
  const late = footprint(target.pid);
  await target.goesOn();
  expect(target.stdout).not.toContain('FAIL');
  await target.kill();
  await restoreProgram(image);
  return { early, late };
}

describe('100 checkpoints in a row', () => {
  it('timed system calls: none ends early or with EINTR, nothing leaks', async () => {
    const { early, late } = await captureOften('blocking_timed');
    expect(late).toMatchObject({ descriptors: early.descriptors, areas: early.areas, virtualKilobytes: early.virtualKilobytes });
    expect(late.residentKilobytes).toBeLessThan(early.residentKilobytes + 1024);
  });

  it('endless system calls: none returns', async () => {
    const { early, late } = await captureOften('blocking_forever');
    expect(late).toMatchObject({ descriptors: early.descriptors, areas: early.areas, virtualKilobytes: early.virtualKilobytes });
  });

  it('threads that allocate all the time', async () => {
    const { early, late } = await captureOften('memory_busy');
    expect(late.descriptors).toBe(early.descriptors);
    expect(late.virtualKilobytes).toBeLessThan(early.virtualKilobytes + 64 * 1024);
  });

  it('threads that are created and joined all the time', async () => {
    const { early, late } = await captureOften('threads_busy');
    expect(late.descriptors).toBe(early.descriptors);
    expect(late.virtualKilobytes).toBeLessThan(early.virtualKilobytes + 64 * 1024);
  });
});
