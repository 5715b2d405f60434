// Bundles the command line into dist/main.js (one file: importing the 158 modules of @oclif/core one by one doubles the start-up
// time; what a command loads by import() is in files of its own, so that the others do not pay for it) and writes oclif's manifest, from which help and flags are known without loading anything else.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const { version } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'));

rmSync(`${root}/dist`, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: ['src/main.ts'],
  outdir: 'dist',
  bundle: true,
  splitting: true,
  chunkNames: '[name]-[hash]',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  // Bundled CommonJS packages still call require() for Node's own modules.
  banner: { js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);" },
  // React picks its build by NODE_ENV; with DEV in the environment ink would look for a debugger of its own.
  define: { __VERSION__: JSON.stringify(version), 'process.env.NODE_ENV': '"production"', 'process.env.DEV': '"false"' },
  external: ['typescript', 'tsx', 'ts-node', 'react-devtools-core'],
  minifySyntax: true,
  logLevel: 'warning',
});

process.env['NODE_ENV'] = 'production';
const { Plugin } = await import('@oclif/core');
const plugin = new Plugin({ root, ignoreManifest: true, errorOnManifestCreate: true });
await plugin.load();
writeFileSync(`${root}/oclif.manifest.json`, `${JSON.stringify(plugin.manifest)}\n`);
