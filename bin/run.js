#!/usr/bin/env node
// CommonJS, because Node.js 20 can keep compiled code between runs (V8's code cache) for scripts only; compiling was a third of the start-up time.
'use strict';
const { existsSync, readFileSync } = require('node:fs');
const { createRequire, enableCompileCache } = require('node:module');
const { dirname, join } = require('node:path');
const { Script } = require('node:vm');

const dist = join(__dirname, '../dist');
const bundle = join(dist, 'quick.cjs');
const code = join(dist, 'quick.cache');

/** The bundle as a script. V8 ignores `cachedData` that another version of it made. */
function compile(cachedData) {
  return new Script(`(function (exports, require, module, __filename, __dirname) {${readFileSync(bundle, 'latin1')}\n})`, {
    filename: bundle,
    cachedData,
  });
}

/** The exports of the script. */
function evaluate(script) {
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(bundle), module, bundle, dirname(bundle));
  return module.exports;
}

function load() {
  enableCompileCache?.(); // Node.js 22 and later: the same for all modules
  return !enableCompileCache && existsSync(code) ? evaluate(compile(readFileSync(code))) : require(bundle);
}

if (require.main !== module) {
  module.exports = { code, compile, evaluate };
} else if (!existsSync(bundle)) {
  process.stderr.write('warp-tool: dist/quick.cjs is not there yet; run `npm ci && npm run build` in the project root\n');
  process.exitCode = 2;
} else {
  const argv = process.argv.slice(2);
  load().main(argv, async () => (await import('../dist/main.js')).main(argv));
}
