/** The package as another program has it: packed, installed, imported; and every program in docs/library.md. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture, PLACES, TEXT, WORKERS, type Compared } from './support/compared.js';
import { missing, removeDirectory, root, scratchDirectory, warpTool } from './support/cores.js';

const directory = scratchDirectory();
const consumer = join(directory, 'consumer');
const { dependencies, exports: entries } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  dependencies: Record<string, string>;
  exports: Record<string, { types: string; default: string }>;
};

/** Programs in the document by the heading that they stand below. */
const programs = Object.fromEntries(
  readFileSync(join(root, 'docs/library.md'), 'utf8')
    .split(/^## /m)
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf('\n')), /^```ts\n([\s\S]*?)^```$/m.exec(section)?.[1]]),
) as Record<string, string>;
const fileOf = (heading: string): string => heading.toLowerCase().replaceAll(' ', '-');

let made: Compared;
let compressed: string;
/** What tsc says of all programs. */
let complaints: string;

/** Puts the packed package and what it depends on where npm would; nothing else of this project can be found from there. */
function install(): void {
  const modules = join(consumer, 'node_modules');
  mkdirSync(join(modules, 'warp-tool'), { recursive: true });
  const [{ filename }] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', directory], { cwd: root, encoding: 'utf8' }),
  ) as [{ filename: string }];
  execFileSync('tar', ['-xzf', join(directory, filename), '-C', join(modules, 'warp-tool'), '--strip-components=1']);
  for (const name of Object.keys(dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), join(modules, name));
  }
  writeFileSync(join(consumer, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
}

function compileAll(): void {
  mkdirSync(join(consumer, 'src'));
  for (const [heading, source] of Object.entries(programs)) writeFileSync(join(consumer, 'src', `${fileOf(heading)}.ts`), source);
  writeFileSync(
    join(consumer, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'ES2022',
        module: 'nodenext',
        moduleResolution: 'nodenext',
        strict: true,
        noUncheckedIndexedAccess: true,
        exactOptionalPropertyTypes: true,
        noUnusedLocals: true,
        rootDir: 'src',
        outDir: 'out',
      },
      include: ['src'],
    }),
  );
  const { stdout, error } = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', consumer], {
    encoding: 'utf8',
  });
  if (error) throw error;
  complaints = stdout;
}

beforeAll(async () => {
  made = await capture(directory, { COLOUR: 'green' });
  compressed = join(directory, 'compressed.img');
  expect(warpTool('compress', made.before, '-o', compressed)).toMatchObject({ status: 0 });
  install();
  compileAll();
}, 300_000);
afterAll(() => removeDirectory(directory));

function node(...argv: string[]): { stdout: string; lines: string[] } {
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { cwd: consumer, encoding: 'utf8', maxBuffer: 1 << 28 });
  expect([status, stderr]).toEqual([0, '']);
  return { stdout, lines: stdout.trimEnd().split('\n') };
}

/** Runs a program of the document. */
const run = (heading: string, ...argv: string[]) => node(join(consumer, 'out', `${fileOf(heading)}.js`), ...argv);

describe('the package', () => {
  it('has what its exports name', () => {
    for (const path of Object.values(entries['.']!)) expect(statSync(join(consumer, 'node_modules/warp-tool', path)).isFile()).toBe(true);
  });

  it('does nothing when it is imported', () => {
    expect(node('--input-type=module', '--eval', "import 'warp-tool'").stdout).toBe('');
  });

  it('is opened and read by plain JavaScript', () => {
    const program = join(consumer, 'plain.js');
    writeFileSync(
      program,
      `import { Image, AddressSpace } from 'warp-tool';
       for (const path of process.argv.slice(2)) {
         const image = await Image.open(path);
         const space = new AddressSpace(image);
         console.log((await space.read(${PLACES.text}n, ${TEXT.length})).toString());
         await space.close();
         await image.close();
       }`,
    );
    expect(node(program, made.before, compressed).lines).toEqual([TEXT, TEXT]);
  });

  it('is understood by TypeScript, strictly and with its declarations checked', () => {
    expect(complaints).toBe('');
    expect(Object.keys(programs).length).toBeGreaterThan(9);
  });

  it('shows nothing of itself but its entry point', () => {
    const { status, stderr } = spawnSync(process.execPath, ['-e', "import('warp-tool/dist/main.js')"], { cwd: consumer, encoding: 'utf8' });
    expect(status).toBe(1);
    expect(stderr).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED');
  });

  it('needs nothing of the command line or a terminal', async () => {
    const { metafile } = await build({
      absWorkingDir: root,
      entryPoints: ['src/index.ts'],
      bundle: true,
      splitting: true,
      format: 'esm',
      platform: 'node',
      packages: 'external',
      outdir: directory,
      write: false,
      metafile: true,
    });
    const inputs = Object.keys(metafile.inputs);
    expect(inputs).toContain('src/elf/image.ts');
    expect(inputs.filter((path) => /^src\/(commands|terminal|explore|report)\//.test(path))).toEqual([]);
    const packages = Object.values(metafile.outputs).flatMap(({ imports }) =>
      imports.filter(({ external, path }) => external && !path.startsWith('node:')).map(({ path }) => path),
    );
    expect(new Set(packages)).toEqual(new Set(['elfy', 'lz4js', 'xxhash-wasm', '@aws-sdk/client-s3']));
  });
});

describe('docs/library.md', () => {
  it('opens an image', () => {
    const { stdout } = run('Open an image', made.before);
    expect(stdout).toMatch(/^\S+core\.img: \d+ bytes, ELF amd64, \d+ segments$/m);
    expect(stdout).toMatch(/^generation 0 by engine \d+\.\d+\.\d+$/m);
    expect(stdout).toContain(`program ${made.executable}`);
    for (let worker = 1; worker <= WORKERS; worker++)
      expect(stdout).toMatch(new RegExp(`^thread \\d+ worker-${worker} rip 0x[0-9a-f]+`, 'm'));
    expect(stdout).toMatch(new RegExp(`^0x${PLACES.memory.toString(16)} rw-p anonymous \\d+ of 65536 stored`, 'm'));
  });

  it.each(['plain', 'compressed'])('reads memory of a %s image', (kind) => {
    const { stdout } = run('Read memory', kind === 'plain' ? made.before : compressed);
    expect(stdout.match(/^\d+ rsp\+0 [0-9a-f]{16} /gm)).toHaveLength(WORKERS + 1);
    expect(stdout).toMatch(/^[0-9a-f]+-[0-9a-f]+ from image$/m);
  });

  it.each(['plain', 'compressed'])('searches memory of a %s image', (kind) => {
    const { lines } = run('Search memory', kind === 'plain' ? made.before : compressed);
    expect(
      lines.some((line) => line.startsWith(`0x${PLACES.text.toString(16)} "${TEXT}`)),
      lines.join('\n'),
    ).toBe(true);
    expect(lines.at(-1)).toMatch(/^[1-9]\d* bytes searched$/);
  });

  it('lists notes', () => {
    const { stdout, lines } = run('Notes', made.before);
    expect(lines).toContain(`process ${made.pid}`);
    expect(stdout.match(/^CORE 0x1 NT_PRSTATUS 336 bytes$/gm)).toHaveLength(WORKERS + 1);
    expect(lines).toContain('page size 4096');
    expect(lines).toContain(`mapped ${made.executable}`);
    expect(lines).toContain('environment COLOUR=green');
    expect(stdout).toMatch(new RegExp(`^descriptor \\d+ file ${made.file}$`, 'm'));
    expect(lines).toContain(`table threads: ${WORKERS + 1}`);
    expect(stdout).toMatch(/^executable 0x[0-9a-f]+$/m);
  });

  it('lists notes of a core file of gcore', ({ skip }) => {
    if (typeof made.core !== 'string') return skip(made.core.skip);
    const { stdout } = run('Notes', made.core);
    expect(stdout).toContain(`mapped ${made.executable}`);
    expect(stdout).toContain('environment COLOUR=green');
  });

  it('counts what is read', () => {
    const { lines } = run('A source of your own', compressed);
    const [known, size, read] = lines
      .join('\n')
      .match(/(?<=after |of )\d+/g)!
      .map(Number) as [number, number, number];
    expect(size).toBe(statSync(compressed).size);
    expect(known).toBeLessThan(size / 2);
    expect(read).toBeGreaterThan(known);
    expect(read).toBeLessThan(size);
  });

  it('compares two images', () => {
    const { stdout } = run('Compare two images', made.before, made.after);
    expect(stdout).toMatch(
      new RegExp(`^1 pages differ in anonymous at 0x${PLACES.memory.toString(16)}\n {2}0x${(PLACES.changed & -16n).toString(16)}: `, 'm'),
    );
    expect(stdout).toMatch(new RegExp(`^descriptor 50 added .*path: null -> ${made.file}`, 'm'));
  });

  it('checks an image, a damaged one and what is none', () => {
    expect(run('Check an image', made.before).lines).toEqual([
      expect.stringMatching(/^[1-9]\d* chunks with [1-9]\d* bytes of content checked$/),
    ]);
    const damaged = join(directory, 'damaged.img');
    const bytes = readFileSync(compressed);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(damaged, bytes);
    expect(run('Check an image', damaged).stdout).toMatch(/^chunk-content: chunk \d+ .*; the content is damaged/);
    expect(run('Check an image', process.execPath).stdout).toMatch(/^no image: .*not a core file/);
  });

  it('says what an image is made of', () => {
    expect(run('What an image is made of', made.before).stdout).toMatch(/^stack: \d+ areas, [1-9]\d* bytes read/m);
  });

  it('changes an image', () => {
    const { stdout, lines } = run('Change an image', made.before, directory);
    expect(stdout).toMatch(/^removed [1-9]\d* /m);
    expect(lines.at(-1)).toContain('COLOUR=blue');
    expect(warpTool('env', join(directory, 'edited.img')).stdout).toContain('COLOUR=blue');
    expect(readFileSync(join(directory, 'redacted.img')).includes(TEXT)).toBe(false);
  });

  it('compresses an image', () => {
    run('Compress an image', made.before, directory);
    expect(readFileSync(join(directory, 'plain.img')).equals(readFileSync(join(made.before, 'core.img')))).toBe(true);
  });

  it('unwinds stacks', ({ skip }) => {
    const lack = missing('gdb');
    if (lack) return skip(lack);
    const { stdout } = run('Stacks', compressed);
    expect(stdout).toContain('unwound by gdb');
    expect(stdout.match(/sleep_for_ever < worker/g)).toHaveLength(WORKERS);
  });
});
