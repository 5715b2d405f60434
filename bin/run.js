#!/usr/bin/env node
import { existsSync } from 'node:fs';

const bundle = new URL('../dist/main.js', import.meta.url);
if (existsSync(bundle)) {
  const { main } = await import(bundle.href);
  await main(process.argv.slice(2));
} else {
  process.stderr.write('warp-tool: dist/main.js is not there yet; run `npm ci && npm run build` in the project root\n');
  process.exitCode = 2;
}
