#!/usr/bin/env node
/**
 * Everything that `npm test` needs, then all tests: packages and test programs (installed where that is allowed, see
 * install-test-dependencies.mjs), the build, vitest. Arguments go to vitest. Ends with one line: `N passed, N failed, N skipped`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (result.error) throw result.error;
  return result.status ?? 1;
}

for (const step of [
  [process.execPath, ['scripts/install-test-dependencies.mjs']],
  ['npm', ['run', 'build']],
]) {
  const status = run(...step);
  if (status !== 0) process.exit(status);
}

const work = mkdtempSync(join(tmpdir(), 'warp-test-report-'));
try {
  const report = join(work, 'report.json');
  const status = run(process.execPath, [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...process.argv.slice(2),
  ]);
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(readFileSync(report, 'utf8'));
  // A file that fails before its first test or after its last one counts as one failure.
  const broken = testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.every((test) => test.status !== 'failed'),
  ).length;
  console.log(`${numPassedTests} passed, ${numFailedTests + broken} failed, ${numPendingTests} skipped`);
  process.exitCode = status !== 0 || numFailedTests + broken > 0 || numPassedTests === 0 ? 1 : 0;
} finally {
  rmSync(work, { recursive: true, force: true });
}
