import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readHeader, readSegments } from '../elf/segments.js';
import { FileSource } from '../elf/source.js';
import { Failure, systemErrorReason } from '../failure.js';

export type NativeFile = 'libwarp.so' | 'warp-restore' | 'warp-checkpoint' | 'exec.node' | 'codec.node' | 'warp-crac.jar';

/** The directory of package.json: this module is in dist/ when bundled and in src/engine/ under test. */
export function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json'))) directory = dirname(directory);
  return directory;
}

/** Absolute path of a built part of the engine. */
export function nativePath(name: NativeFile): string {
  return join(packageRoot(), 'native', 'build', name);
}

/** Like nativePath, and sure that the file is there. */
export function nativeFile(name: NativeFile): string {
  const path = nativePath(name);
  if (!existsSync(path)) throw new Failure(`${path} is not there; run \`npm run build:native\` in ${packageRoot()}`);
  return path;
}

interface ExecAddon {
  exec(path: string, argv: string[], env: Record<string, string>, keep: number[]): never;
}

/**
 * Pipes and sockets that the caller means the program to have: those that its arguments name (`/dev/fd/N`, a shell's `<(…)`; `--inherit-fd N=FD`) and those of socket
 * activation (LISTEN_FDS, sd_listen_fds(3)). Others are a parent's leftovers, whose other ends no image could hold.
 */
export function intendedDescriptors(argv: readonly string[], env: NodeJS.ProcessEnv): number[] {
  const named = argv.flatMap((argument) => [...argument.matchAll(/\/(?:dev|proc\/self)\/fd\/(\d+)/g)].map((match) => Number(match[1])));
  const given = (flag: string): string[] => argv.filter((_, index) => argv[index - 1] === flag);
  const inherited = given('--inherit-fd').map((pair) => Number(pair.split('=')[1]));
  const image = given('--image-fd').map(Number);
  const activated = Array.from({ length: Math.min(Number(env['LISTEN_FDS'] ?? 0) || 0, 1024) }, (_, index) => 3 + index);
  return [...named, ...inherited, ...image, ...activated];
}

/** Becomes another program, as execve(2) does; `path` is absolute. Comes back only with an error. */
export function become(path: string, argv: string[], env: NodeJS.ProcessEnv): never {
  const addon = createRequire(import.meta.url)(nativeFile('exec.node')) as ExecAddon;
  const defined = Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined));
  try {
    return addon.exec(path, argv, defined, intendedDescriptors(argv, env));
  } catch (error) {
    throw new Failure(`cannot execute ${path}: ${systemErrorReason(error)}`, { cause: error });
  }
}

/** Absolute path of a program as a shell would find it. */
export function findProgram(name: string): string {
  if (name.includes('/')) {
    const path = resolve(name);
    try {
      if (!statSync(path).isFile()) throw new Failure(`cannot run ${name}: it is not a regular file`);
      accessSync(path, constants.X_OK);
    } catch (error) {
      if (error instanceof Failure) throw error;
      const denied = (error as NodeJS.ErrnoException).code === 'EACCES';
      throw new Failure(`cannot run ${name}: ${denied ? 'it is not executable by this user' : systemErrorReason(error)}`, { cause: error });
    }
    return path;
  }
  for (const directory of (process.env['PATH'] ?? '').split(':')) {
    const path = resolve(directory === '' ? '.' : directory, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // not in this directory
    }
  }
  throw new Failure(`cannot run ${name}: no such program in PATH; give its path`);
}

const PT_INTERP = 3;
const S_ISUID = 0o4000;
const S_ISGID = 0o2000;

/** Refuses programs that the dynamic linker would not load the engine into. Scripts pass: their interpreter is judged by the kernel. */
export async function checkPreloadable(path: string): Promise<void> {
  if (statSync(path).mode & (S_ISUID | S_ISGID)) {
    throw new Failure(`cannot run ${path}: the dynamic linker ignores LD_PRELOAD for set-user-ID programs; use a copy without that bit`);
  }
  const source = await FileSource.open(path);
  try {
    if (source.size < 4n || (await source.read(0n, 4)).readUInt32BE(0) !== 0x7f454c46) return;
    const segments = await readSegments(source, await readHeader(source));
    if (!segments.some((segment) => segment.type === PT_INTERP)) {
      throw new Failure(`cannot run ${path}: it is statically linked, so the engine cannot be loaded into it; link it dynamically`);
    }
  } finally {
    await source.close();
  }
}

/** The environment of a program that can be checkpointed: libwarp.so comes before what LD_PRELOAD already names. */
export function engineEnvironment(base: NodeJS.ProcessEnv, settings: Record<string, string | undefined>): NodeJS.ProcessEnv {
  const library = nativeFile('libwarp.so');
  if (/[\s:]/.test(library)) {
    throw new Failure(`${library}: LD_PRELOAD cannot hold a path with spaces or colons; move the project to another directory`);
  }
  const others = (base['LD_PRELOAD'] ?? '').split(/[\s:]+/).filter((path) => path !== '' && path !== library);
  return { ...base, ...settings, LD_PRELOAD: [library, ...others].join(':') };
}
