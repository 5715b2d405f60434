/** Where the tests run: the unprivileged user, the project as that user can reach it, and the other programs that the tests need. */
import { spawnSync } from 'node:child_process';
import { accessSync, chmodSync, chownSync, constants, cpSync, existsSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';

const nobody = 65534;
const isRoot = process.getuid?.() === 0;

/** Identity of the programs under test: never root. Pass it to `spawn`. */
export const user: { uid?: number; gid?: number } = isRoot ? { uid: nobody, gid: nobody } : {};

/** A new directory that belongs to the test user, removed when the test file ends. */
export function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'warp-tool-test-'));
  chmodSync(directory, 0o755);
  if (isRoot) chownSync(directory, nobody, nobody);
  directories.push(directory);
  return directory;
}

const directories: string[] = [];
// Not at the process's exit: the runner kills its workers.
afterAll(() => directories.splice(0).forEach((directory) => rmSync(directory, { recursive: true, force: true })));

function userCanRead(path: string): boolean {
  return spawnSync('/usr/bin/test', ['-r', path], user).status === 0;
}

const ownRoot = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');
let reachableRoot: string | undefined;

/** The project's directory or, where the test user cannot enter that (a clone below /root), a copy of what the tests run from it. */
export function projectRoot(): string {
  if (reachableRoot) return reachableRoot;
  if (userCanRead(join(ownRoot, 'package.json'))) return (reachableRoot = ownRoot);
  const copy = makeDirectory();
  for (const part of ['package.json', 'oclif.manifest.json', 'bin', 'dist', 'native/build', 'test/programs/build', 'test/e2e/fixtures'])
    if (existsSync(join(ownRoot, part))) cpSync(join(ownRoot, part), join(copy, part), { recursive: true });
  return (reachableRoot = copy);
}

/** A file of the project, reachable by the test user. Copied after the first call of projectRoot(), it may be missing: build first. */
export function projectFile(path: string): string {
  const file = join(projectRoot(), path);
  if (!existsSync(file)) throw new Error(`${path} is not there; run \`npm run build\``);
  return file;
}

let reachableNode: string | undefined;

/** The Node.js that runs the tests, where the test user can execute it. */
export function node(): string {
  if (reachableNode) return reachableNode;
  const own = realpathSync(process.execPath);
  if (userCanRead(own)) return (reachableNode = own);
  const copy = join(makeDirectory(), 'node');
  cpSync(own, copy);
  chmodSync(copy, 0o755);
  return (reachableNode = copy);
}

/** The absolute path of a command, or undefined where it is not installed. System directories come before the caller's PATH. */
export function command(name: string): string | undefined {
  for (const directory of ['/usr/bin', '/bin', '/usr/sbin', '/sbin', ...(process.env['PATH'] ?? '').split(':')]) {
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
    } catch {
      continue;
    }
    return path;
  }
  return undefined;
}

/** Mounts a tmpfs of that many bytes for the test user; undefined where mounting is not allowed. The caller unmounts. */
export function mountTmpfs(bytes: number): { directory: string; unmount: () => void } | undefined {
  if (!isRoot) return undefined;
  const directory = makeDirectory();
  const result = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0777`, 'warp-tool-test', directory]);
  if (result.status !== 0) return undefined;
  return { directory, unmount: () => spawnSync('umount', [directory]) };
}
