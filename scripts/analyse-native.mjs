#!/usr/bin/env node
/** Runs GCC's static analyser over native/src, and cppcheck where it is installed. Exit status 1 when either finds something. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const sources = readdirSync(join(root, 'native/src'), { recursive: true })
  .filter((name) => name.endsWith('.c'))
  .map((name) => join('native/src', name))
  .toSorted();
let failed = false;

function check(name, command, args) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (result.error?.code === 'ENOENT') {
    console.log(`${name}: not installed`);
    return;
  }
  const findings = `${result.stdout}${result.stderr}`.trim();
  if (result.status === 0 && findings === '') return;
  failed = true;
  console.error(`${name}: ${args.at(-1)}\n${findings}`);
}

for (const source of sources) {
  check('gcc -fanalyzer', process.env.CC ?? 'cc', [
    '-std=gnu17',
    '-O1',
    '-fanalyzer',
    '-Wall',
    '-Wextra',
    '-Werror',
    // The runtime has no malloc, FILE or open() for these to follow; on raw system calls they only guess.
    '-Wno-analyzer-fd-leak',
    '-Wno-analyzer-fd-use-without-check',
    ...(source.includes('/restore/') ? ['-DCOUNT_SYSTEM_CALLS'] : []),
    ...(source.includes('/node/') ? [] : ['-ffreestanding', '-fno-stack-protector']),
    '-fPIC',
    '-c',
    '-o',
    '/dev/null',
    source,
  ]);
}
check('cppcheck', 'cppcheck', [
  '--quiet',
  '--std=c11',
  '--enable=warning,portability',
  '--inline-suppr',
  '--error-exitcode=1',
  '--suppress=missingIncludeSystem',
  // It takes an address for NULL wherever the kernel's answer is compared with 0.
  '--suppress=nullPointerRedundantCheck',
  '--suppress=nullPointerArithmeticRedundantCheck',
  'native/src',
]);
if (failed) process.exit(1);
console.log(`${sources.length} C files analysed, nothing found`);
