#!/usr/bin/env node
/**
 * Long tests that `npm test` has a short form of: `npm run soak -- NAME [GENERATIONS] [arguments of vitest]`. Started by root, they run in a pid
 * namespace of their own, where ids are as small as in a container.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const soaks = {
  jvm: { files: ['test/e2e/jvm-matrix.test.ts'], generations: 50 },
  calls: { files: ['test/e2e/interrupted-calls.test.ts'], generations: 300 },
};

const [name, ...rest] = process.argv.slice(2);
const soak = soaks[name];
if (!soak) {
  console.error(`usage: npm run soak -- ${Object.keys(soaks).join('|')} [GENERATIONS] [arguments of vitest]`);
  process.exit(2);
}
const generations = /^\d+$/.test(rest[0] ?? '') ? rest.shift() : String(soak.generations);
const vitest = [process.execPath, 'node_modules/vitest/vitest.mjs', 'run', ...soak.files, ...rest];
const ownIds = process.getuid() === 0;
// The first process of a namespace inherits those whose parents have gone: a shell reaps them.
const namespace = ownIds ? ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', '"$@"; exit $?', 'sh'] : [];
const [program, ...args] = [...namespace, ...vitest];
const { status, error } = spawnSync(program, args, {
  cwd: fileURLToPath(new URL('..', import.meta.url)),
  stdio: 'inherit',
  env: { ...process.env, WARP_SOAK_GENERATIONS: generations, WARP_SOAK_OWN_IDS: ownIds ? '1' : '0' },
});
if (error) console.error(`${program}: ${error.message}`);
process.exitCode = status ?? 1;
