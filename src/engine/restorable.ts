import { spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { closeSync, constants, existsSync, readFileSync, type BigIntStats } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { release } from 'node:os';
import { dirname } from 'node:path';
import { cpuFeatureNames } from '../elf/cpu-features.js';
import { policiesOf, socketAddress } from '../elf/descriptors.js';
import type { Image } from '../elf/image.js';
import { Modules, sampleHashOfFile } from '../elf/modules.js';
import { FORMAT_MAJOR, FORMAT_MINOR, IMAGE_DELTA, IMAGE_KNOWN, nameOf, names, NONE, type NoteRecord } from '../elf/schema.js';
import { systemErrorReason } from '../failure.js';
import { hex } from '../hex.js';
import { nativeFile, nativePath } from './native.js';

/** What keeps an image from being restored on this host (`fails`), or what will be different (`differs`). */
export interface Obstacle {
  check: string;
  effect: 'fails' | 'differs';
  problem: string;
  mend: string;
}

/** What becomes of descriptors, by their numbers, under the rules of a restore and of the image. */
type Actions = ReadonlyMap<number, string>;

type Check = (image: Image, actions: Actions) => AsyncGenerator<Obstacle> | Generator<Obstacle>;

/**
 * What a restore here would meet, in the order in which it would. Nothing is changed: files are looked at, ports are bound and let go at once. The
 * rules are those of native/src/restore.
 *
 * @param rules arguments of warp-restore for a restore under policies: `--policies FILE`, and what gives it the key of an encrypted image
 */
export async function* checkRestorable(image: Image, rules: readonly string[] = []): AsyncGenerator<Obstacle> {
  if (!image.ours) {
    yield fails(
      'image',
      'it is a core file of another writer, or of a format that is not known here',
      'only images of `warp-tool checkpoint` can be restored',
    );
    return;
  }
  if (image.sealed) {
    yield* checkFormat(image);
    return;
  }
  const checks: Check[] = [
    checkEngine,
    checkFormat,
    checkProcessor,
    checkKernel,
    checkLimits,
    checkFiles,
    checkDirectory,
    checkDescriptors,
    checkSockets,
  ];
  const actions = rules.length === 0 ? actionsOf(image) : await actionsUnder(image, rules);
  if (typeof actions === 'string') {
    yield fails('policies', actions, 'change the file of --policies');
    return;
  }
  for (const check of checks) yield* check(image, actions);
}

function actionsOf(image: Image): Actions {
  const policies = policiesOf(image);
  return new Map(
    [...image.table('descriptors')].flatMap(({ number, policy }) => (policies[policy - 1] ? [[number, policies[policy - 1]!.action]] : [])),
  );
}

/** What the restorer itself makes of the rules; its words where they are wrong, or say that the image must not come back. */
async function actionsUnder(image: Image, rules: readonly string[]): Promise<Actions | string> {
  const argv = [image.source.name, '--list-policies', ...rules];
  const metadata =
    image.file.path === undefined ? await import('../store/staging.js').then((it) => it.metadataDescriptor(image)) : undefined;
  const { status, stdout, stderr, error } = spawnSync(
    nativeFile('warp-restore'),
    metadata === undefined ? argv : [...argv, '--image-fd', '3'],
    {
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe', metadata],
    },
  );
  if (metadata !== undefined) closeSync(metadata);
  if (status !== 0)
    return error
      ? systemErrorReason(error)
      : stderr
          .trim()
          .split('\n')
          .at(-1)!
          .replace(/^warp-restore: (?:error: )?/, '');
  return new Map(
    stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(' ') as [string, string])
      .map(([number, action]) => [Number(number), action]),
  );
}

const fails = (check: string, problem: string, mend: string): Obstacle => ({ check, effect: 'fails', problem, mend });
const differs = (check: string, problem: string, mend: string): Obstacle => ({ check, effect: 'differs', problem, mend });

function* checkEngine(): Generator<Obstacle> {
  if (!existsSync(nativePath('warp-restore'))) yield fails('engine', 'warp-restore is not built', 'run `npm run build:native`');
}

function* checkFormat(image: Image): Generator<Obstacle> {
  const { flags, format_major: major, format_minor: minor, file_size: expected } = image.outermost.anchor!;
  if (major !== FORMAT_MAJOR) yield fails('format', `the image has format ${major}`, 'use warp-tool of the version that made it');
  if (minor > FORMAT_MINOR)
    yield differs(
      'format',
      `the image has format ${major}.${minor}: what is new in it does not come back`,
      'use warp-tool of the version that made it',
    );
  if (flags & ~IMAGE_KNOWN)
    yield fails(
      'format',
      `the image has flags that are not known here (${hex((flags & ~IMAGE_KNOWN) >>> 0)})`,
      'use warp-tool of the version that made it',
    );
  if (image.sealed)
    yield differs(
      'format',
      'the image is encrypted: a restore needs its key, and what else it needs is not to be seen without it',
      'give the key with --encryption-key-file or --encryption-key-env',
    );
  if (flags & IMAGE_DELTA)
    yield fails('format', 'the image is a delta', 'take the image without --parent; this version restores no deltas');
  if (expected > image.file.size) {
    yield fails('format', `the file has ${image.file.size} of ${expected} bytes`, 'copy it again, or take a new checkpoint');
  }
}

/** XSAVE components (Intel SDM volume 1, 13.1) by the flag that /proc/cpuinfo shows for a processor that has them. */
const COMPONENTS: [number, string][] = [
  [2, 'avx'],
  [5, 'avx512f'],
  [6, 'avx512f'],
  [7, 'avx512f'],
  [9, 'pku'],
  [11, 'user_shstk'],
  [17, 'amx_tile'],
  [18, 'amx_tile'],
];
/** CPUID bits that /proc/cpuinfo does not show, or that describe the moment and the hypervisor rather than the instruction set. */
const NOT_COMPARED = new Set(['osxsave', 'ospke', 'hypervisor', 'shstk', 'ibt', 'la57', 'hle', 'rtm', 'ht']);

function* checkProcessor(image: Image): Generator<Obstacle> {
  const record = image.single('image')!;
  if (process.arch !== 'x64') {
    yield fails('processor', `the image is of an x86-64 process, this is ${process.arch}`, 'restore it on an x86-64 host');
    return;
  }
  const here = new Set((/^flags\s*:\s*(.*)$/m.exec(readProc('/proc/cpuinfo'))?.[1] ?? '').split(' '));
  const model = record.cpu_model.toString();
  const state = COMPONENTS.filter(([bit, flag]) => ((record.xstate_features >> BigInt(bit)) & 1n) !== 0n && !here.has(flag));
  if (state.length > 0) {
    const lacking = [...new Set(state.map(([, flag]) => flag))].join(', ');
    yield fails(
      'processor',
      `its threads hold register state that this processor lacks: ${lacking} (made on ${model})`,
      'restore it on a processor that has it',
    );
  }
  const missing = cpuFeatureNames(record.cpu_features).filter((name) => !here.has(name) && !NOT_COMPARED.has(name));
  if (missing.length > 0) {
    yield differs(
      'processor',
      `this processor lacks ${missing.join(', ')}, which the one of the checkpoint (${model}) had: the program fails where it uses them`,
      'restore it on a processor with them',
    );
  }
  if (record.page_size !== 4096)
    yield fails('page size', `pages of ${record.page_size} bytes, here they have 4096`, 'restore it on a host with the same page size');
}

function* checkKernel(image: Image): Generator<Obstacle> {
  const version = (text: string): number[] => text.split(/[.-]/, 2).map(Number);
  const [wasMajor = 0, wasMinor = 0] = version(image.single('image')!.kernel_release.toString());
  const [major = 0, minor = 0] = version(release());
  if (major < wasMajor || (major === wasMajor && minor < wasMinor)) {
    yield differs(
      'kernel',
      `Linux ${release()} is older than ${wasMajor}.${wasMinor} of the checkpoint: system calls that are new there fail`,
      'use as new a kernel',
    );
  }
  const vdso = image.single('process')!.vdso_size > 0n;
  if (vdso && !/\[vdso\]/.test(readProc('/proc/self/maps')))
    yield fails('kernel', 'this kernel gives no vDSO, and the program uses one', 'boot without vdso=0');
}

function* checkLimits(image: Image): Generator<Obstacle> {
  const vmas = image.vmas();
  const mapCount = Number(readProc('/proc/sys/vm/max_map_count') || Number.POSITIVE_INFINITY);
  if (vmas.length >= mapCount) {
    yield fails('limits', `${vmas.length} memory areas, vm.max_map_count is ${mapCount}`, `sysctl vm.max_map_count=${vmas.length * 2}`);
  }
  const lowest = BigInt(readProc('/proc/sys/vm/mmap_min_addr') || 0);
  const low = vmas.find(({ start }) => start < lowest);
  if (low) yield fails('limits', `memory at ${hex(low.start)}, vm.mmap_min_addr is ${lowest}`, `sysctl vm.mmap_min_addr=${low.start}`);
  const highest = Math.max(-1, ...[...image.table('descriptors')].map(({ number }) => number));
  const files = /^Max open files\s+\S+\s+(\S+)/m.exec(readProc('/proc/self/limits'))?.[1];
  if (files !== undefined && files !== 'unlimited' && highest >= Number(files)) {
    yield fails(
      'limits',
      `descriptor ${highest} is in use in it, and this process may open no more than ${files}`,
      'raise the hard limit of open files (RLIMIT_NOFILE)',
    );
  }
  const available = Number(/^MemAvailable:\s+(\d+) kB/m.exec(readProc('/proc/meminfo'))?.[1] ?? Number.POSITIVE_INFINITY) * 1024;
  const resident = vmas.reduce((sum, vma) => sum + Number(vma.resident ?? 0n), 0);
  if (resident > available)
    yield differs(
      'limits',
      `${resident} bytes were resident, ${available} are available here`,
      'free memory, or expect it to swap or be killed',
    );
  const { uid } = image.single('process')!;
  const own = process.getuid!();
  if (uid[0] !== own) yield differs('user', `the process ran as user ${uid[0]}, it comes back as ${own}`, `restore it as user ${uid[0]}`);
}

/** The mapped files, by the rules of the restorer: what is shared is whatever the file is now. */
async function* checkFiles(image: Image): AsyncGenerator<Obstacle> {
  const modules = new Modules(image);
  const selfContained = (image.single('image')!.flags & 1) !== 0;
  const vmas = [...image.table('vmas')];
  for (const [index, file] of [...image.table('files')].entries()) {
    const users = vmas.filter((vma) => vma.file === index && nameOf(names.vmaKind, vma.kind) === 'file');
    const shared = users.some(({ flags }) => (flags & 0x1) !== 0);
    const writable = users.some(({ flags }) => (flags & 0x1) !== 0 && (flags & 0x8000) !== 0);
    if (users.length === 0 || (selfContained && !shared)) continue;
    const path = file.path.toString();
    const denied = await accessError(path, constants.R_OK | (writable ? constants.W_OK : 0));
    if (denied) {
      yield fails(
        'files',
        `${path}: the program has it mapped, and it cannot be opened: ${denied}`,
        'put it there, or make the image with --self-contained',
      );
      continue;
    }
    if (shared || (await modules.state({ name: path, file: index })) !== 'changed') continue;
    const why = file.build_id.length > 0 ? 'its build-id is another' : `it has changed (${file.size} bytes at the checkpoint)`;
    yield fails(
      'files',
      `${path} is not the file that was mapped: ${why}`,
      'put the version of the checkpoint back, or make the image with --self-contained',
    );
  }
}

async function* checkDirectory(image: Image): AsyncGenerator<Obstacle> {
  const cwd = image.single('process')!.cwd.toString();
  const found = await stat(cwd).catch(() => null);
  const denied = found && !found.isDirectory() ? 'it is no directory' : await accessError(cwd, constants.X_OK);
  if (denied) yield fails('working directory', `${cwd} cannot be entered: ${denied}`, `make it: mkdir -p ${cwd}`);
}

const FILE_TYPE = 0o170000;

const POLICY = 'or give restore a policy (docs/policies.md)';

async function* checkDescriptors(image: Image, actions: Actions): AsyncGenerator<Obstacle> {
  const descriptions = [...image.table('descriptions')];
  const former = `/proc/${image.single('process')!.pid}`;
  const checked = new Set<number>();
  for (const { number, description: index } of image.table('descriptors')) {
    const description = descriptions[index];
    const action = actions.get(number);
    if (!description || checked.has(index) || action === 'close') continue;
    checked.add(index);
    const problem = action === 'ignore' ? differs : fails;
    const kind = nameOf(names.descriptionKind, description.kind);
    const fifo = kind === 'fifo' && description.detail !== NONE ? image.table('pipes').get(description.detail).path.toString() : '';
    const path = fifo === '' ? description.path.toString() : fifo;
    if (!['file', 'directory', 'device', 'fifo'].includes(kind) || !path.startsWith('/')) continue;
    if (path === former || path.startsWith(`${former}/`)) continue; // means the restored process itself
    const what = `descriptor ${number}: ${path}`;
    const mode = [constants.R_OK, constants.W_OK, constants.R_OK | constants.W_OK][description.status_flags & 3] ?? 0;
    const denied = await accessError(path, kind === 'fifo' ? constants.R_OK | constants.W_OK : mode);
    if (denied) {
      const made = action === 'reopen' && kind === 'file' && (description.status_flags & 3) !== 0 && !existsSync(path);
      if (made && existsSync(dirname(path))) continue;
      const mend = kind === 'fifo' ? `make it: mkfifo ${path}` : 'put it there';
      yield problem('descriptors', `${what} cannot be opened: ${denied}`, `${mend}, ${POLICY}`);
      continue;
    }
    const status = await stat(path, { bigint: true });
    if ((Number(status.mode) & FILE_TYPE) !== (description.mode & FILE_TYPE)) {
      yield problem('descriptors', `${what} is another kind of file than at the checkpoint`, `put that back, ${POLICY}`);
      continue;
    }
    const change = kind === 'file' && (description.status_flags & 0o10000000) === 0 ? await changeOf(description, path, status) : '';
    if (change !== '')
      yield (action === undefined ? fails : differs)('descriptors', `${what} ${change}`, `put it back as it was, ${POLICY}`);
  }
}

/** Why the file is not what the program had open; empty when it is. The rules are those of native/src/restore/descriptors.c. */
async function changeOf(description: NoteRecord<'descriptions'>, path: string, status: BigIntStats): Promise<string> {
  const { offset, size, status_flags: flags, mtime_ns: modified, sample_hash: hash } = description;
  const appends = (flags & 0o2003) === 0o2001;
  if (!appends && offset > status.size && offset <= size)
    return `is shorter than where the program stands in it: ${status.size} bytes, and it goes on at ${offset}`;
  if (hash === 0n || (status.size === size && status.mtimeNs === modified)) return '';
  if (status.size < size) return `has changed: ${status.size} bytes, and ${size} at the checkpoint`;
  return (await sampleHashOfFile(path, size)) === hash ? '' : 'has changed since the checkpoint';
}

async function* checkSockets(image: Image, actions: Actions): AsyncGenerator<Obstacle> {
  const ofSocket = new Map<number, string>();
  for (const { number, description } of image.table('descriptors')) {
    const { kind, detail } = image.table('descriptions').get(description);
    const action = actions.get(number) ?? '';
    if (nameOf(names.descriptionKind, kind) === 'socket' && (ofSocket.get(detail) ?? 'close') === 'close') ofSocket.set(detail, action);
  }
  for (const [index, socket] of [...image.table('sockets')].entries()) {
    const action = ofSocket.get(index);
    if (action === 'close') continue;
    const state = nameOf(names.socketState, socket.state);
    const local = socketAddress(socket.local);
    if (state === 'connected' && socket.type !== 2) {
      const peer = socketAddress(socket.remote);
      yield differs(
        'sockets',
        `the connection to ${peer === '' ? 'another process' : peer} has ended: the program sees its peer gone`,
        'let the program connect again',
      );
    }
    if ((state !== 'listening' && state !== 'bound') || local === '') continue;
    const error = await bindError(socket, local);
    const mend = `end the process that uses it, or restore where it is free, ${POLICY}`;
    if (error) yield (action === 'ignore' ? differs : fails)('sockets', `cannot bind to ${local}: ${error}`, mend);
  }
}

/** Why a socket's address cannot be taken here; null when it can. */
function bindError({ family, type, local }: NoteRecord<'sockets'>, text: string): Promise<string | null> {
  if (family === 1) {
    // The file of a listener that is gone is removed by the restorer; one that answers stays.
    if (text.startsWith('@')) return Promise.resolve(readProc('/proc/net/unix').includes(` ${text}\n`) ? 'it is in use' : null);
    return new Promise((resolve) => {
      const probe = connect(text);
      probe.once('connect', () => {
        probe.destroy();
        resolve('another process listens there');
      });
      probe.once('error', () => resolve(null));
    });
  }
  if (family !== 2 && family !== 10) return Promise.resolve(null);
  const port = local.readUInt16BE(2);
  if (port === 0) return Promise.resolve(null);
  const host = text.slice(0, text.lastIndexOf(':')).replaceAll(/[[\]]/g, '');
  return new Promise((resolve) => {
    const failed = (error: NodeJS.ErrnoException): void => resolve(error.code === 'EADDRINUSE' ? 'it is in use' : systemErrorReason(error));
    if (type === 2) {
      const socket = createSocket({ type: family === 2 ? 'udp4' : 'udp6', ipv6Only: family === 10 });
      socket.once('error', (error) => socket.close(() => failed(error)));
      socket.bind({ port, address: host, exclusive: true }, () => socket.close(() => resolve(null)));
      return;
    }
    const server = createServer();
    server.once('error', failed);
    server.listen({ port, host, exclusive: true, ipv6Only: family === 10 }, () => server.close(() => resolve(null)));
  });
}

async function accessError(path: string, mode: number): Promise<string | null> {
  try {
    await access(path, mode);
    return null;
  } catch (error) {
    return systemErrorReason(error).replace(/;.*/, '');
  }
}

function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
