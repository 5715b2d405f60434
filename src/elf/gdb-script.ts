import { basename, resolve } from 'node:path';
import { Failure } from '../failure.js';
import type { Image } from './image.js';
import { buildIdAt, buildIdOfFile, Modules } from './modules.js';
import type { Vma } from './vmas.js';

/** A GDB string literal's inside: GDB's `echo` and file name arguments take backslash escapes. */
function echoed(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', ' ');
}

/** An argument of `file` or `core-file`, which split their line as gdb_buildargv does. */
function argument(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `"${path.replaceAll(/["\\]/g, '\\$&')}"`;
}

/** Matches a library under whatever link name the program loaded it: /usr/lib/libz.so.1.2.13 is in GDB's list as /lib/libz.so.1. */
function libraryPattern(path: string): string {
  const stem = basename(path).replace(/\.so(\..*)?$/, '');
  return `/${stem.replaceAll(/[.*+?^$()[\]{}|\\]/g, '\\$&')}\\.so`;
}

/**
 * Commands that make GDB (13 or later) open the image with the program's own executable and libraries, names on its threads, and no symbols
 * from files that are not the ones the process had: a wrong symbol is worse than none.
 */
export async function gdbScript(image: Image): Promise<string> {
  const local = image.source.path;
  if (local === undefined) throw new Failure(`${image.source.name}: GDB opens local files only; get it with \`warp-tool pull\` first`);
  const modules = new Modules(image);
  const executable = image.executable() ?? (await unlistedExecutable(image));
  const lines = [`# GDB commands for ${image.source.name}; use: gdb -x THIS-FILE`, 'set sysroot /'];

  const files = new Map<string, Vma>();
  for (const vma of image.vmas()) if (vma.kind === 'file' && !files.has(vma.name)) files.set(vma.name, vma);
  const foreign: string[] = []; // libraries whose file here is not the one that was mapped
  const matching: string[] = [];
  for (const [path, vma] of files) {
    if (path === executable || !/\.so(\.|$)/.test(basename(path))) continue;
    const state = await modules.state(vma);
    if (state === 'same' || state === 'unknown') {
      matching.push(path);
      continue;
    }
    foreign.push(path);
    lines.push(`echo warp-tool: ${echoed(path)} ${await mismatch(modules, vma)}: no symbols from it\\n`);
  }

  const hasMusl = [...files.keys()].some((path) => /\/(ld-musl-|libc\.musl-)|-musl\/libc\.so$/.test(path));
  if (hasMusl) lines.push('# musl has no libthread_db.', 'set auto-load libthread-db off');
  if (foreign.length > 0) lines.push('# Libraries are loaded one by one below: some have changed.', 'set auto-solib-add off');

  const program = executable === null ? undefined : files.get(executable);
  const state = program ? await modules.state(program) : 'unknown';
  const core = `core-file ${argument(resolve(local))}`;
  if (executable !== null && (state === 'same' || state === 'unknown')) {
    const file = `file ${argument(executable)}`;
    if (state === 'same' && image.kernelNote('prpsinfo')?.name !== basename(executable).slice(0, 15)) {
      lines.push(
        core,
        '# The process had renamed itself. GDB would warn of that: it compares names where it finds no build-id in the core; warp-tool has',
        '# compared the build-ids.',
        'set logging file /dev/null',
        'set logging redirect on',
        'set logging enabled on',
        file,
        'set logging enabled off',
        ...(foreign.length > 0 ? [] : ['sharedlibrary']),
      );
    } else {
      lines.push(file, core);
    }
  } else {
    if (executable !== null) {
      const why = await mismatch(modules, program!);
      lines.push(`echo warp-tool: ${echoed(executable)} ${why}: no symbols from it; give GDB the old one with: file PATH\\n`);
    }
    lines.push(core);
  }
  if (foreign.length > 0) for (const path of matching) lines.push(`sharedlibrary ${libraryPattern(path)}`);

  for (const [index, thread] of image.threads().entries()) {
    // Control characters cannot stand in a GDB command.
    // oxlint-disable-next-line no-control-regex
    const name = thread.name?.replaceAll(/[\u0000-\u001f\u007f]/g, '?') ?? '';
    if (name !== '') lines.push(`thread apply ${index + 1} -q thread name ${name}`);
  }
  if ([...files.keys()].some((path) => basename(path) === 'libjvm.so')) {
    lines.push(
      '# The Java virtual machine uses these signals for safepoints, null checks and its own purposes. Frames of Java methods have no symbols',
      '# for GDB; warp-tool threads --stack names them.',
      'handle SIGSEGV SIGBUS SIGILL SIGFPE SIGUSR2 SIGQUIT nostop noprint pass',
    );
  }
  return `${lines.join('\n')}\n`;
}

/** The executable of a core file without NT_FILE: what the kernel told the program that it runs, when the build-id in memory is that file's. */
async function unlistedExecutable(image: Image): Promise<string | null> {
  const [name, headers] = [image.auxvValue('AT_EXECFN'), image.auxvValue('AT_PHDR')];
  const vma = headers === null ? undefined : image.vmaAt(headers);
  if (name === null || !vma) return null;
  const path = await image.memory.readString(name).catch(() => '');
  if (!path.startsWith('/')) return null;
  const buildId = await buildIdAt(image, vma);
  return buildId !== null && (await buildIdOfFile(path)) === buildId ? path : null;
}

async function mismatch(modules: Modules, vma: Vma): Promise<string> {
  if ((await modules.state(vma)) === 'missing') return 'is missing here';
  const was = await modules.buildId(vma);
  const is = await buildIdOfFile(vma.name);
  return was === null ? 'has changed since' : `has changed (build-id ${was}, here ${is ?? 'none'})`;
}
