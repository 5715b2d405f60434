/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Memory that is loaded while the program runs, by each way in which absent memory can be noticed here. */
import { closeSync, openSync, readFileSync, readdirSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { checkpointAndEnd, killAll, type Program, restore } from './support/program.js';
import { cleanUp, firstVariant, lastTick, ordinary, restoreProgram, startProgram, variants } from './support/c-programs.js';
import { makeDirectory } from './support/host.js';

/** signals_pending looks into /proc, which shows the mask that is really in force while memory is absent. */
const concurrent = ordinary.filter((program) => program !== 'signals_pending');
/** With userfaultfd for the kernel's own accesses too only where the host lets an ordinary user have it. */
const faults = ['signals', 'userfaultfd-user', ...(readSetting('/proc/sys/vm/unprivileged_userfaultfd') === '1' ? ['userfaultfd'] : [])];
const small = ['--compression', 'lz4', '--chunk-size', '4'];

function readSetting(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

afterEach(killAll);

for (const variant of variants.filter((candidate) => candidate.name.endsWith('-pie'))) {
  describe(`variant ${variant.name}`, () => {
    it.skipIf(!variant.compiler).each(concurrent)('%s', async (program) => {
      const { target, scratch } = await startProgram(program, variant);
      try {
        const image = await checkpointAndEnd(target, small);
        const stoppedAfter = lastTick(target.stdout);
        for (const mode of faults)
          for (const concurrency of ['0', '1']) {
            const restored = await restoreProgram(image, stoppedAfter, [
              '--concurrent',
              '--load-faults',
              mode,
              '--load-concurrency',
              concurrency,
            ]);
            expect(restored.stderr).toBe('');
            await restored.kill();
          }
      } finally {
        await killAll();
        await cleanUp(program, variant, scratch);
      }
    });
  });
}

/** What can be seen of a process from outside that loading might leave behind. */
function traces(pid: number): { threads: string[]; caught: string; blocked: string; areas: number } {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    threads: tasks.map((tid) => readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim()).toSorted(),
    caught: /^SigCgt:\s*(.*)$/m.exec(status)![1]!,
    blocked: /^SigBlk:\s*(.*)$/m.exec(status)![1]!,
    areas: readFileSync(`/proc/${pid}/maps`, 'utf8').trim().split('\n').length,
  };
}

async function untilLoaded(restored: Program): Promise<void> {
  while (traces(restored.pid).threads.includes('warp-loader')) await new Promise((resolve) => setTimeout(resolve, 10));
  // The handlers go after the loaders: SIGSYS is caught until then.
  while ((BigInt(`0x${traces(restored.pid).caught}`) & (1n << 30n)) !== 0n) await new Promise((resolve) => setTimeout(resolve, 10));
  await restored.goesOn();
}

/** Nothing is loaded but what the program asks for. */
const onDemand = (mode: string): string[] => ['--concurrent', '--load-faults', mode, '--load-concurrency', '0'];
const waitingCalls = [
  'attach_filter',
  'process_vm_readv',
  'io_uring',
  'futex_waitv',
  'fork',
  'vfork',
  'vmsplice',
  'semop',
  'mincore',
  'ioctl',
  'setxattr',
];
const callsAfterTheEnd = ['execve', 'ppoll'];

describe('system calls that wait until all memory is there', () => {
  it.each(faults)('are made then, each as the first of all, with %s', async (mode) => {
    const { target, scratch } = await startProgram('loading_calls', firstVariant());
    const image = await checkpointAndEnd(target, small);
    for (const call of [...waitingCalls, ...callsAfterTheEnd]) {
      writeFileSync(join(scratch, 'first'), call);
      await (await restoreProgram(image, lastTick(target.stdout), onDemand(mode))).kill();
    }
  });

  it.each(faults)('execve gets its arguments, and the signal mask that the program believes it has, with %s', async (mode) => {
    for (const variant of variants.filter(({ compiler }) => compiler)) {
      const { target } = await startProgram('loading_exec', variant);
      const restored = restore(await checkpointAndEnd(target, small), onDemand(mode));
      expect(await restored.ended, restored.stdout + restored.stderr).toEqual({ code: 0, signal: null });
      expect(restored.stdout).toMatch(/^executed$/m);
    }
  });
});

describe('when all is loaded', () => {
  it.each(faults)('nothing is left of %s: no thread, no handler, no area, and the next generation is possible', async (mode) => {
    const { target } = await startProgram('process_block_signals', firstVariant());
    const image = await checkpointAndEnd(target, small);
    const eager = await restoreProgram(image, lastTick(target.stdout), ['--no-concurrent']);
    const expected = traces(eager.pid);
    await eager.kill();
    const restored = await restoreProgram(image, lastTick(target.stdout), ['--concurrent', '--load-faults', mode]);
    await untilLoaded(restored);
    // What the engine needed to end it is given back last.
    while (traces(restored.pid).areas > expected.areas) await new Promise((resolve) => setTimeout(resolve, 10));
    const { areas: _, ...left } = traces(restored.pid);
    const { areas: __, ...expectedLeft } = expected;
    expect(left).toEqual(expectedLeft);
    const second = await checkpointAndEnd(restored, small);
    await restoreProgram(second, lastTick(restored.stdout), ['--concurrent', '--load-faults', mode]);
  });
});

describe('while memory is being loaded', () => {
  it.each(faults)('what ends it is tried again when a thread cannot be stopped, with %s', async (mode) => {
    const { target } = await startProgram('threads_unstoppable', firstVariant());
    const image = await checkpointAndEnd(target, small);
    // Nothing is loaded before the thread blocks its signals.
    const restored = await restoreProgram(image, lastTick(target.stdout), [
      '--concurrent',
      '--load-faults',
      mode,
      '--load-concurrency',
      '0',
    ]);
    const second = await checkpointAndEnd(restored);
    await restoreProgram(second, lastTick(restored.stdout));
  });

  it.each(faults)('a checkpoint waits until it is there, with %s', async (mode) => {
    const { target } = await startProgram('memory_large', firstVariant(), { environment: { WARP_TEST_MEBIBYTES: '64' } });
    const image = await checkpointAndEnd(target, small);
    const restored = restore(image, ['--concurrent', '--load-faults', mode, '--load-concurrency', '1']);
    await restored.output(/^tick \d+$/m);
    const second = await checkpointAndEnd(restored);
    await restoreProgram(second, lastTick(restored.stdout));
  });

  it.each(faults)('a damaged chunk ends the program with one line, with %s', async (mode) => {
    const { target } = await startProgram('memory_large', firstVariant(), { environment: { WARP_TEST_MEBIBYTES: '32' } });
    const image = join(await checkpointAndEnd(target, small), 'core.img');
    const file = openSync(image, 'r+');
    // In the middle of the content, whose chunks the program gets to only later.
    writeSync(file, Buffer.alloc(64, 0xa5), 0, 64, Math.floor(statSync(image).size / 2));
    closeSync(file);
    const restored = restore(image, ['--concurrent', '--load-faults', mode]);
    expect(await restored.ended).toEqual({ code: 2, signal: null });
    expect(restored.stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(restored.stderr).toMatch(
      /core\.img: chunk \d+ \(offset 0x[0-9a-f]+, \d+ bytes, memory at 0x[0-9a-f]+\).*the program cannot go on/,
    );
    expect(restored.stdout).not.toContain('FAIL');
  });

  it('what was loaded when is recorded', async () => {
    const { target } = await startProgram('loading', firstVariant());
    const image = await checkpointAndEnd(target, small);
    const trace = join(makeDirectory(), 'trace');
    const restored = await restoreProgram(image, lastTick(target.stdout), [
      '--concurrent',
      '--load-concurrency',
      '0',
      '--load-trace',
      trace,
    ]);
    await restored.kill();
    const events = readFileSync(trace);
    expect(events.length % 24).toBe(0);
    let asked = 0;
    for (let at = 0; at < events.length; at += 24) {
      const wanted = events.readBigUInt64LE(at + 8);
      if (wanted !== 0n) asked++;
      expect(wanted).toBeLessThanOrEqual(events.readBigUInt64LE(at + 16));
    }
    expect(asked).toBeGreaterThan(50);
  });
});
