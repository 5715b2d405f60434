// Builds native/ with the system's C compiler into native/build. Idempotent: a target is made again only when a source is newer.
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, statSync, renameSync, existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), '..', 'native');
const source = join(root, 'src');
const build = join(root, 'build');
const architectures = { x64: 'x86_64' };
const architecture = architectures[process.arch];
if (architecture === undefined) {
  console.error(`build-native: no engine for ${process.arch}: native/src/arch/ has ${Object.values(architectures).join(', ')}`);
  process.exit(2);
}

const compiler = process.env.CC ?? 'cc';
const warnings = ['-std=gnu17', '-Wall', '-Wextra', '-Werror', '-Wshadow', '-Wvla'];
// No C library, no stack protector and no thread-local storage: the code runs inside other programs, and before any of these exist.
const freestanding = [
  ...warnings,
  '-O2',
  '-g',
  '-ffreestanding',
  '-fno-stack-protector',
  '-fPIC',
  '-fvisibility=hidden',
  '-fno-tree-loop-distribute-patterns',
  '-fno-asynchronous-unwind-tables',
  '-fcf-protection=none',
  '-fno-omit-frame-pointer',
];
/** As freestanding; --stats tells how many system calls a restore makes. */
const counting = [...freestanding, '-DCOUNT_SYSTEM_CALLS'];
const hosted = [...warnings, '-O2', '-g', '-fPIC', '-fvisibility=hidden'];

const files = (folder, pattern) =>
  readdirSync(join(source, folder))
    .filter((name) => pattern.test(name))
    .map((name) => join(source, folder, name));
const machine = `arch/${architecture}`;
const base = [...files('base', /\.c$/), ...files('image', /\.c$/), ...files(machine, /^(arch|aes)\.c$|^entry\.S$/)];
const program = [...base, ...files('program', /\.c$/), ...files(machine, /^start\.S$/)];
const staticLink = ['-nostdlib', '-static-pie', '-Wl,-z,noexecstack', '-Wl,--build-id', '-Wl,-z,norelro', '-Wl,--hash-style=gnu'];

const targets = {
  'libwarp.so': {
    sources: [...base, ...files('engine', /\.c$/), ...files(machine, /^(code|patch|dispatch)\./)],
    flags: freestanding,
    link: [
      '-shared',
      '-nostdlib',
      '-Wl,--no-undefined',
      '-Wl,-soname,libwarp.so',
      '-Wl,-z,noexecstack',
      '-Wl,-z,now',
      '-Wl,--build-id',
      '-Wl,--hash-style=both',
    ],
  },
  'warp-checkpoint': { sources: [...program, ...files('client', /\.c$/)], flags: freestanding, link: staticLink },
  'warp-restore': { sources: [...program, ...files('restore', /\.c$/)], flags: counting, link: staticLink },
  'exec.node': { sources: files('node', /^exec\.c$/), flags: hosted, link: ['-shared', '-Wl,-z,noexecstack'] },
  'codec.node': {
    sources: [...files('node', /^(codec|chunks|search)\.c$/), ...files('base', /^(lz4|xxh64)\.c$/)],
    flags: hosted,
    link: ['-shared', '-pthread', '-Wl,-z,noexecstack'],
  },
};

const newest = (paths) => Math.max(...paths.map((path) => statSync(path).mtimeMs));
const headers = readdirSync(root, { recursive: true })
  .filter((name) => /^(src|include)\/.*\.h$/.test(name))
  .map((name) => join(root, name));
const dependencies = [...headers, fileURLToPath(import.meta.url)];

// Called in place of a system call, which leaves vector registers alone.
const withoutVectors = /engine\/(release|loading|dispatch)\.c$|base\/base\.c$/;

async function compile(object, file, flags) {
  const input = newest([file, ...dependencies]);
  if (existsSync(object) && statSync(object).mtimeMs > input) return false;
  mkdirSync(dirname(object), { recursive: true });
  await run(compiler, [...flags, ...(withoutVectors.test(file) ? ['-mgeneral-regs-only'] : []), '-c', file, '-o', object]);
  return true;
}

async function all(tasks) {
  const results = [];
  const queue = [...tasks];
  await Promise.all(
    Array.from({ length: availableParallelism() }, async () => {
      for (let task; (task = queue.shift()) !== undefined;) results.push(await task());
    }),
  );
  return results;
}

try {
  mkdirSync(build, { recursive: true });
  for (const [name, target] of Object.entries(targets)) {
    if (target.sources.length === 0) continue;
    const kind = Object.entries({ hosted, counting, freestanding }).find(([, flags]) => flags === target.flags)[0];
    const objects = target.sources.map((file) => join(build, 'objects', kind, `${relative(source, file)}.o`));
    await all(target.sources.map((file, i) => () => compile(objects[i], file, target.flags)));
    const output = join(build, name);
    if (existsSync(output) && statSync(output).mtimeMs > newest([...objects, fileURLToPath(import.meta.url)])) continue;
    // Linked aside and renamed: a running program keeps the library that it has mapped.
    await run(compiler, [...objects, ...target.link, '-o', `${output}.new`]);
    renameSync(`${output}.new`, output);
    console.log(`build-native: native/build/${name}`);
  }
} catch (error) {
  console.error(error.stderr || error.message);
  if (error.code === 'ENOENT')
    console.error(`build-native: no C compiler '${compiler}': install gcc (Debian: apt-get install gcc libc6-dev), or set CC`);
  process.exit(2);
}
