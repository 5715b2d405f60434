/** The engine inside a JDK, where `-XX:CRaCEngine=warp` looks for it. */
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure, systemErrorReason } from '../failure.js';
import { nativeFile } from './native.js';

const PARTS = ['libwarp.so', 'warp-restore'] as const;
const RECORD = 'warp-tool.json';

export interface JdkState {
  home: string;
  /** Whether the JDK says that it knows CRaC; one that does not never asks for an engine. */
  crac: boolean;
  files: string[];
}

function digest(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** The folder of a JDK in which it looks for engines. */
function libraryFolder(home: string): string {
  const folder = join(home, 'lib');
  if (!existsSync(join(folder, 'server', 'libjvm.so')))
    throw new Failure(`${home} is not a JDK: it has no lib/server/libjvm.so; give the directory that JAVA_HOME names`);
  return folder;
}

/** A CRaC JDK has the word in its release file, or the library that runs executable engines. */
function knowsCrac(home: string): boolean {
  const release = join(home, 'release');
  return existsSync(join(home, 'lib', 'libcrexec.so')) || (existsSync(release) && /crac/i.test(readFileSync(release, 'utf8')));
}

type Installed = Record<(typeof PARTS)[number], string>;

function installed(folder: string): Installed | null {
  const record = join(folder, RECORD);
  return existsSync(record) ? (JSON.parse(readFileSync(record, 'utf8')) as Installed) : null;
}

function attempt<T>(what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(`cannot ${what}: ${systemErrorReason(error)}`, { cause: error });
  }
}

/**
 * Puts libwarp.so and warp-restore into a JDK's lib folder; again over an earlier version of itself, never over a file of somebody else.
 *
 * @throws Failure when it is no JDK, cannot be written, or has an engine of that name already
 */
export function installIntoJdk(home: string): JdkState {
  const folder = libraryFolder(home);
  const before = installed(folder);
  for (const part of PARTS) {
    const path = join(folder, part);
    if (existsSync(path) && (before === null || digest(path) !== before[part]))
      throw new Failure(`${path} is there already and is not warp-tool's; move it away first, if you do not need it`);
  }
  const record = {} as Installed;
  attempt(`write to ${folder}`, () => {
    for (const part of PARTS) {
      const path = join(folder, part);
      // Aside and renamed: a JVM that runs keeps the library that it has mapped.
      copyFileSync(nativeFile(part), `${path}.new`);
      chmodSync(`${path}.new`, 0o755);
      renameSync(`${path}.new`, path);
      record[part] = digest(path);
    }
    writeFileSync(join(folder, RECORD), `${JSON.stringify(record, null, 2)}\n`);
  });
  return { home, crac: knowsCrac(home), files: PARTS.map((part) => join(folder, part)) };
}

/** Takes out again what installIntoJdk put there. @throws Failure when that is not there, or was changed since */
export function removeFromJdk(home: string): JdkState {
  const folder = libraryFolder(home);
  const before = installed(folder);
  if (before === null) throw new Failure(`${folder} has no engine that warp-tool installed; nothing was removed`);
  const present = PARTS.filter((part) => existsSync(join(folder, part)));
  const changed = present.find((part) => digest(join(folder, part)) !== before[part]);
  if (changed)
    throw new Failure(`${join(folder, changed)} was changed since warp-tool installed it; nothing was removed: delete it by hand`);
  attempt(`remove from ${folder}`, () => {
    for (const part of present) rmSync(join(folder, part));
    rmSync(join(folder, RECORD));
  });
  return { home, crac: knowsCrac(home), files: present.map((part) => join(folder, part)) };
}
