/* oxlint-disable vitest/expect-expect -- many assertions are in the functions of ./support */
/** Everything under the seccomp filter that containers have by default, with no capability: capture, restore, concurrent loading. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { containerFilter, profilePath } from '../support/container-filter.js';
import { command, makeDirectory, projectFile } from './support/host.js';
import { type Program, killAll, launcher, run } from './support/program.js';
import { executable, firstVariant, lastTick } from './support/c-programs.js';

describe.skipIf(!existsSync(profilePath))('in a container (on Debian: apt-get install golang-github-containers-common)', () => {
  let confine: string;
  let filter: string;
  const variant = firstVariant();

  beforeAll(() => {
    const directory = makeDirectory();
    confine = join(directory, 'confine');
    filter = join(directory, 'filter');
    const built = spawnSync('cc', ['-Wall', '-Werror', projectFile('test/support/confine.c'), '-o', confine], { encoding: 'utf8' });
    if (built.status !== 0) throw new Error(built.stderr);
    writeFileSync(filter, containerFilter());
  });
  afterEach(killAll);

  function confined(program: string, args: string[], preload = ''): Program {
    return run(launcher(), ['', confine, filter, '/usr/bin/env', ...(preload ? [`LD_PRELOAD=${preload}`] : []), program, ...args]);
  }

  async function captured(program: string): Promise<{ image: string; stoppedAfter: number }> {
    const target = confined(executable(program, variant), [makeDirectory()], projectFile('native/build/libwarp.so'));
    await target.output(/^tick 2$/m);
    expect(readFileSync(`/proc/${target.pid}/status`, 'utf8')).toMatch(/^Seccomp:\s+2$/m);
    const image = makeDirectory();
    const client = confined(projectFile('native/build/warp-checkpoint'), [
      String(target.pid),
      '--to',
      image,
      '--compression',
      'lz4',
      '--chunk-size',
      '4',
    ]);
    expect(await client.ended, client.stderr).toEqual({ code: 0, signal: null });
    await target.ended;
    return { image, stoppedAfter: lastTick(target.stdout) };
  }

  async function comesBack(image: string, stoppedAfter: number, flags: string[]): Promise<void> {
    const restored = confined(projectFile('native/build/warp-restore'), [image, ...flags]);
    await restored.output(/^restored ok$/m);
    await restored.goesOn();
    expect(restored.stdout).not.toContain('FAIL');
    expect(restored.stdout).toContain(`tick ${stoppedAfter + 1}\n`);
    expect(restored.stderr).toBe('');
    await restored.kill();
  }

  it('refuses userfaultfd, as containers do', () => {
    const probe = 'import ctypes; libc = ctypes.CDLL(None, use_errno=True); print(libc.syscall(323, 1), ctypes.get_errno())';
    const python = command('python3');
    if (!python) return;
    const { stdout } = spawnSync(confine, [filter, python, '-c', probe], { encoding: 'utf8' });
    expect(stdout).toMatch(/^-1 (1|38)\n$/);
  });

  it.each([
    'loading',
    'loading_calls',
    'memory_private',
    'threads_registers',
    'fd_pipes',
    'blocking_timed',
    'mutex_robust',
    'signals_actions',
  ])('%s is captured and comes back, eagerly and with concurrent loading', async (program) => {
    const { image, stoppedAfter } = await captured(program);
    await comesBack(image, stoppedAfter, ['--no-concurrent']);
    for (const concurrency of ['0', '2']) await comesBack(image, stoppedAfter, ['--concurrent', '--load-concurrency', concurrency]);
  });
});
