// Bundles the command line: dist/main.js has all of it, dist/quick.cjs what bin/run.js loads first (docs/benchmarks.md, "startup", tells what that is
// worth). Writes oclif's manifest too, from which help and flags are known without loading anything else. The library is dist/library/index.js, with
// declarations in dist/types.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const oclif = join(dirname(require.resolve('@oclif/core/package.json')), 'lib');

/** Modules of Node.js that most commands do without: loaded when something of them is first used. */
const rare = ['assert', 'child_process', 'crypto', 'fs/promises', 'http', 'https', 'net', 'readline', 'worker_threads', 'zlib'];
const lazyRequire = `{
  const load = require;
  const rare = new Set(${JSON.stringify(rare.flatMap((name) => [name, `node:${name}`]))});
  const standIn = (name) => new Proxy({}, { get: (_, member) => (member === '__esModule' ? undefined : load(name)[member]) });
  require = Object.assign((name) => (rare.has(name) ? standIn(name) : load(name)), load);
}`;

/** Modules of oclif that no command needs to run: they stay where npm put them. */
const outside = new Set(['config/index.js', 'help/index.js', 'help/util.js', 'main.js', 'ux/index.js'].map((name) => join(oclif, name)));

/** Loads modules of oclif when something of them is first used. */
const lazyOclif = {
  name: 'lazy-oclif',
  setup({ onResolve, onLoad }) {
    const standIns = new Map();
    const lazy = (path, places) => {
      standIns.set(path, places);
      return { path, namespace: 'lazy' };
    };
    // The index loads everything, though nearly everything has an entry point of its own.
    onResolve({ filter: /^@oclif\/core$/ }, () => {
      const core = require('@oclif/core');
      const { exports: entries } = require('@oclif/core/package.json');
      const places = Object.keys(core).flatMap((name) => {
        const entry = name.toLowerCase();
        if (!entries[`./${entry}`]) return [];
        const file = require.resolve(`@oclif/core/${entry}`);
        return [[name, file, require(file)[name] === core[name] ? `.${name}` : '']];
      });
      return lazy('@oclif/core', places);
    });
    onResolve({ filter: /^\./ }, ({ path, importer, namespace }) => {
      if (namespace === 'lazy' || !importer.startsWith(oclif)) return undefined;
      const file = createRequire(importer).resolve(path);
      if (!file.endsWith('.js')) return undefined;
      return lazy(
        file,
        Object.keys(require(file)).map((name) => [name, file, `.${name}`]),
      );
    });
    onLoad({ filter: /.*/, namespace: 'lazy' }, ({ path }) => {
      const installed = (file) =>
        `load(join(load.resolve('@oclif/core/package.json'), '../lib', ${JSON.stringify(file.slice(oclif.length))}))`;
      const getters = standIns.get(path).map(([name, file, member]) => {
        return `get ${name}() { return ${outside.has(file) ? installed(file) : `require(${JSON.stringify(file)})`}${member}; }`;
      });
      return {
        resolveDir: root,
        contents: [
          "const load = require('node:module').createRequire(__filename); const { join } = require('node:path');",
          `module.exports = { ${getters.join(',\n')} };`,
          "Object.defineProperty(module.exports, '__esModule', { value: true });",
        ].join('\n'),
      };
    });
  },
};

/** The AWS SDK is a file of its own for scripts, too. */
const separateSdk = {
  name: 'separate-sdk',
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/sdk\.js$/ }, () => ({ path: './sdk.cjs', external: true }));
  },
};

const common = {
  absWorkingDir: root,
  outdir: 'dist',
  bundle: true,
  platform: 'node',
  target: 'node20',
  minifySyntax: true,
  // React picks its build by NODE_ENV; with DEV in the environment ink would look for a debugger of its own.
  define: { WARP_TOOL_VERSION: JSON.stringify(version), 'process.env.NODE_ENV': '"production"', 'process.env.DEV': '"false"' },
  external: ['typescript', 'tsx', 'ts-node', 'react-devtools-core'],
  logLevel: 'warning',
};

rmSync(join(root, 'dist'), { recursive: true, force: true });
// Takes the longest, so it runs beside all else.
const declarations = spawn(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.library.json'], {
  cwd: root,
  stdio: ['ignore', 'inherit', 'inherit'],
});
const declared = once(declarations, 'close');
await build({
  ...common,
  entryPoints: ['src/main.ts'],
  format: 'esm',
  // What a command loads by import() is in files of its own, so that the others do not pay for it.
  splitting: true,
  chunkNames: '[name]-[hash]',
  // Bundled CommonJS packages still call require() for Node's own modules.
  banner: { js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);" },
});
const { outputFiles } = await build({
  ...common,
  entryPoints: ['src/quick.ts'],
  outExtension: { '.js': '.cjs' },
  format: 'cjs',
  write: false,
  define: { ...common.define, 'import.meta.url': '__url' },
  banner: { js: `${lazyRequire}\nconst __url = require('node:url').pathToFileURL(__filename).href;` },
  external: [...common.external, '*/explore/run.js'],
  // Scripts with cached code cannot import: packages that are loaded late are required.
  supported: { 'dynamic-import': false },
  plugins: [lazyOclif, separateSdk],
});
await build({ ...common, entryPoints: ['src/store/sdk.ts'], outExtension: { '.js': '.cjs' }, format: 'cjs' });
// A program that uses the library has the packages that it needs installed beside it.
await build({ ...common, entryPoints: ['src/index.ts'], outdir: 'dist/library', format: 'esm', splitting: true, packages: 'external' });
// Text of ASCII characters only is read without being decoded; esbuild leaves others in regular expressions.
const ascii = outputFiles[0].text.replaceAll(/[^\0-\x7f]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
writeFileSync(join(root, 'dist/quick.cjs'), ascii);

process.env['NODE_ENV'] = 'production';
const { Plugin } = await import('@oclif/core');
const plugin = new Plugin({ root, ignoreManifest: true, errorOnManifestCreate: true });
await plugin.load();
writeFileSync(join(root, 'oclif.manifest.json'), `${JSON.stringify(plugin.manifest)}\n`);

const { status } = spawnSync(process.execPath, [join(root, 'scripts/code-cache.cjs')], { stdio: ['ignore', 'ignore', 'inherit'] });
const [ended] = await declared;
if (status !== 0 || ended !== 0) process.exit(1);
