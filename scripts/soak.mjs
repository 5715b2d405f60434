#!/usr/bin/env node
/** Long tests that `npm test` has a short form of: `npm run soak -- NAME [GENERATIONS] [arguments of vitest]`. */
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
const { status } = spawnSync(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...soak.files, ...rest], {
  cwd: fileURLToPath(new URL('..', import.meta.url)),
  stdio: 'inherit',
  env: { ...process.env, WARP_SOAK_GENERATIONS: generations },
});
process.exitCode = status ?? 1;
