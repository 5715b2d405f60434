// Builds java/ into native/build/warp-crac.jar with the JDK's javac and jar. Without a JDK it says so and leaves what is there: programs then run
// without the Java agent. With --required that is an error (before the package is packed).
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, 'java/src/warp/crac');
const target = join(root, 'native/build/warp-crac.jar');
const required = process.argv.includes('--required');

/** Oldest Java that the classes run on. */
const RELEASE = '11';

function tool(name) {
  const folders = [
    ...(process.env.JAVA_HOME ? [join(process.env.JAVA_HOME, 'bin')] : []),
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/bin',
  ];
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

function run(program, args) {
  const { status, stderr, stdout, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status === 0) return;
  console.error(`build-java: ${program} failed: ${error?.message ?? `${stdout}${stderr}`.trim()}`);
  process.exit(2);
}

const files = readdirSync(source).filter((name) => name.endsWith('.java'));
const newest = Math.max(
  ...[...files.map((name) => join(source, name)), fileURLToPath(import.meta.url)].map((path) => statSync(path).mtimeMs),
);
const [javac, jar] = [tool('javac'), tool('jar')];
if (existsSync(target) && statSync(target).mtimeMs > newest) process.exit(0);
if (!javac || !jar) {
  console.error('build-java: no JDK (javac, jar): the Java agent is not built; on Debian: apt-get install openjdk-17-jdk-headless');
  process.exit(required ? 2 : 0);
}
const classes = mkdtempSync(join(tmpdir(), 'warp-tool-java-'));
try {
  // No invokedynamic for strings: what runs in a process that was just restored must not load much.
  run(javac, [
    '--release',
    RELEASE,
    '-g',
    '-Xlint:all',
    '-Werror',
    '-XDstringConcat=inline',
    '-d',
    classes,
    ...files.map((name) => join(source, name)),
  ]);
  // Supertypes first: the engine defines the classes in this order, and reads no compressed ones.
  const first = ['Resource.class', 'Context.class', 'CRaCMXBean.class'];
  const rest = readdirSync(join(classes, 'warp/crac')).filter((name) => !first.includes(name));
  mkdirSync(dirname(target), { recursive: true });
  const names = [...first, ...rest.toSorted()].flatMap((name) => ['-C', classes, `warp/crac/${name}`]);
  run(jar, ['--create', '--file', `${target}.new`, '--no-compress', '--no-manifest', ...names]);
  renameSync(`${target}.new`, target);
  console.log('build-java: native/build/warp-crac.jar');
} finally {
  rmSync(classes, { recursive: true, force: true });
}
