#!/usr/bin/env node
import { existsSync } from 'node:fs';
import module from 'node:module';

const bundle = new URL('../dist/main.js', import.meta.url);
if (existsSync(bundle)) {
  module.enableCompileCache?.(); // Node.js 22 and later: a fifth of the start-up time
  const { main } = await import(bundle.href);
  await main(process.argv.slice(2));
} else {
  process.stderr.write('warp-tool: dist/main.js is not there yet; run `npm ci && npm run build` in the project root\n');
  process.exitCode = 2;
}
