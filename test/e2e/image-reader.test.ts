/** The restorer's reader of images, in C, under sanitizers: whatever the metadata says, it answers with a result or one line. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import { firstVariant, startProgram } from './support/c-programs.js';
import { makeDirectory } from './support/host.js';
import { checkpointAndEnd, killAll } from './support/program.js';

afterEach(killAll);

const root = fileURLToPath(new URL('../..', import.meta.url));
const sources = [
  'restore/image.c',
  'image/tables.c',
  'image/chunks.c',
  'image/encryption.c',
  'image/policies.c',
  'image/simulated.c',
  'base/lz4.c',
  'base/base.c',
  'base/xxh64.c',
  'base/sha256.c',
  'base/aes_gcm.c',
  'base/pattern.c',
  'base/connection.c',
  'arch/x86_64/arch.c',
  'arch/x86_64/aes.c',
  'arch/x86_64/entry.S',
];

const kinds = [
  { kind: 'plain', args: [] },
  { kind: 'compressed', args: ['--compression', 'lz4'] },
];

it.for(kinds)('stays within its bounds on 2,000 mutated $kind images', async ({ args }, { skip }) => {
  const program = join(makeDirectory(), 'mutate_image');
  const compiled = spawnSync(
    'cc',
    ['-std=gnu17', '-ffreestanding', '-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-o', program]
      .concat(join(root, 'test/e2e/fixtures/mutate_image.c'))
      .concat(sources.map((source) => join(root, 'native/src', source))),
    { encoding: 'utf8' },
  );
  if (/cannot find -l(?:a|ub)san|libasan|libubsan/.test(compiled.stderr)) skip('this compiler has no sanitizers installed');
  expect(compiled.stderr).toBe('');
  const { target } = await startProgram('fd_epoll', firstVariant());
  const image = join(await checkpointAndEnd(target, args), 'core.img');
  const result = spawnSync(program, [image, '2000'], {
    encoding: 'utf8',
    env: { ASAN_OPTIONS: 'detect_leaks=0', UBSAN_OPTIONS: 'print_stacktrace=1' },
    timeout: 120_000,
  });
  expect(`${result.stdout}${result.stderr}`).toMatch(/^accepted [1-9]\d* refused [1-9]\d*\n$/);
  expect(result.status).toBe(0);
});
