/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Every C program, under every C library and code model: captured once, restored three times. */
import { afterEach, describe, expect, it } from 'vitest';
import { restore, run, killAll, launcher, checkpoint, checkpointAndEnd, runCheckpoint } from './support/program.js';
import { cleanUp, executable, firstVariant, lastTick, ordinary, restoreProgram, startProgram, variants } from './support/c-programs.js';
import { command, makeDirectory, projectFile } from './support/host.js';

afterEach(killAll);

for (const variant of variants) {
  describe(`variant ${variant.name}`, () => {
    it.skipIf(!variant.compiler).each(ordinary)('%s comes back three times', async (program) => {
      const { target, scratch } = await startProgram(program, variant);
      try {
        const image = await checkpointAndEnd(target);
        expect(target.stdout).not.toContain('FAIL');
        const stoppedAfter = lastTick(target.stdout);
        for (let i = 0; i < 3; i++) {
          const restored = await restoreProgram(image, stoppedAfter);
          await restored.kill();
        }
      } finally {
        await killAll();
        await cleanUp(program, variant, scratch);
      }
    });

    it.skipIf(!variant.compiler)('stdin, stdout and stderr are those of the restoring caller', async () => {
      const { target } = await startProgram('fd_standard', variant);
      const image = await checkpointAndEnd(target);
      for (let i = 0; i < 3; i++) {
        const restored = restore(image, [], { stdin: 'pipe' });
        restored.child.stdin?.write(`hello ${i}\n`);
        await restored.output(/^restored ok$/m);
        await restored.output(/^this is stderr$/m, 'stderr');
        await restored.goesOn();
        expect(restored.stdout).toContain(`stdin says hello ${i}\n`);
        expect(restored.stdout).toContain('through the copy\n');
        await restored.kill();
      }
    });

    it.skipIf(!variant.compiler)('a forked process is captured like any other', async () => {
      const { target } = await startProgram('process_fork', variant);
      const pid = Number((await target.output(/^pid (\d+)$/m))[1]);
      expect(pid).not.toBe(target.pid);
      const image = await checkpoint(pid).catch((error: unknown) => {
        process.kill(pid, 'SIGKILL');
        throw error;
      });
      for (let i = 0; i < 3; i++) {
        const restored = await restoreProgram(image, lastTick(target.stdout));
        await restored.kill();
      }
    });

    it.skipIf(!variant.compiler)('signals blocked behind the C library: captured or refused in words', async () => {
      const { target } = await startProgram('process_block_signals_raw', variant);
      const directory = makeDirectory();
      const result = await runCheckpoint(target.pid, directory);
      expect(result.stderr).toMatch(result.code === 0 ? /^$/ : /^[^\n]*thread[^\n]*\n$/);
      if (result.code === 0) await restoreProgram(directory, lastTick(target.stdout));
      else await target.goesOn();
    });
  });
}

describe('each program, left running', () => {
  it.each(ordinary)('%s goes on, then comes back', async (program) => {
    const variant = firstVariant();
    const { target, scratch } = await startProgram(program, variant);
    try {
      const image = await checkpoint(target, ['--leave-running']);
      await target.goesOn();
      const second = await checkpoint(target, ['--leave-running']);
      await target.goesOn();
      expect(target.stdout).not.toContain('FAIL');
      await target.kill();
      await (await restoreProgram(image)).kill();
      await (await restoreProgram(second)).kill();
    } finally {
      await killAll();
      await cleanUp(program, variant, scratch);
    }
  });
});

describe('each program, with all memory read before it goes on', () => {
  it.each(ordinary.filter((program) => program.startsWith('memory_')))('%s', async (program) => {
    const { target } = await startProgram(program, firstVariant());
    const image = await checkpointAndEnd(target);
    await restoreProgram(image, lastTick(target.stdout), ['--no-direct-map']);
  });

  it.each(['memory_file', 'memory_private', 'threads_registers'])('%s, self-contained', async (program) => {
    const { target } = await startProgram(program, firstVariant());
    const image = await checkpointAndEnd(target, ['--self-contained']);
    for (let i = 0; i < 3; i++) await (await restoreProgram(image, lastTick(target.stdout))).kill();
  });
});

const script = command('script');

describe('terminals', () => {
  it.skipIf(!script)('a program on a terminal comes back on another one', async () => {
    const scratch = makeDirectory();
    const program = executable('fd_tty', firstVariant());
    const inner = `exec ${launcher()} ${projectFile('native/build/libwarp.so')} ${program} ${scratch}`;
    const terminal = run(script!, ['-qefc', `echo pid $$; ${inner}`, '/dev/null'], { stdin: 'pipe' });
    const pid = Number((await terminal.output(/^pid (\d+)\r?$/m))[1]);
    await terminal.output(/^tick 2\r?$/m);
    const image = await checkpoint(pid);
    await terminal.ended;
    for (let i = 0; i < 3; i++) {
      const restored = run(script!, ['-qefc', `exec ${projectFile('native/build/warp-restore')} ${image}`, '/dev/null'], { stdin: 'pipe' });
      await restored.output(/^restored ok\r?$/m);
      await restored.goesOn(/^tick \d+\r?$/gm);
      expect(restored.stdout).toContain('through the terminal');
      await restored.kill();
    }
  });
});
