import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { arch, release } from 'node:os';
import { whyCriuFails } from '../criu/engine.js';
import { nativePath, packageRoot, type NativeFile } from './native.js';

/** One fact about this host, with what follows from it. */
export interface HostCheck {
  name: string;
  /** `limited`: something is lost, but checkpoint and restore work. */
  status: 'ok' | 'limited' | 'unable';
  found: string;
  consequence: string | null;
  mend: string | null;
}

const ok = (name: string, found: string): HostCheck => ({ name, status: 'ok', found, consequence: null, mend: null });
const limited = (name: string, found: string, consequence: string, mend: string): HostCheck => ({
  name,
  status: 'limited',
  found,
  consequence,
  mend,
});
const unable = (name: string, found: string, consequence: string, mend: string): HostCheck => ({
  name,
  status: 'unable',
  found,
  consequence,
  mend,
});

/** Content of a file below /proc or /sys without the final newline; null when it is not there or not readable. */
function readProc(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

function readNumber(path: string): number | null {
  const text = readProc(path);
  return text === null || text === '' ? null : Number(text);
}

/** All checks, in the order in which a person would ask. */
export function checkHost(): HostCheck[] {
  return [
    machine(),
    kernel(),
    nativeBuild(),
    pagemap(),
    procMemory(),
    seccomp(),
    registers(),
    userNamespaces(),
    userfaultfd(),
    ptrace(),
    mapCount(),
    overcommit(),
    queuedSignals(),
    openFiles(),
  ];
}

function machine(): HostCheck {
  if (arch() === 'x64') return ok('machine', 'x86-64');
  return unable('machine', arch(), 'the engine has no code for this machine', 'use an x86-64 host');
}

function kernel(): HostCheck {
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  if (major > 5 || (major === 5 && minor >= 11)) return ok('kernel', `Linux ${release()}`);
  return limited(
    'kernel',
    `Linux ${release()}`,
    'Syscall User Dispatch is missing before 5.11, and this version was not tried there',
    'use Linux 5.11 or later',
  );
}

function nativeBuild(): HostCheck {
  const names: NativeFile[] = ['libwarp.so', 'warp-restore', 'warp-checkpoint', 'exec.node'];
  const missing = names.filter((name) => !existsSync(nativePath(name)));
  if (missing.length === 0) return ok('engine', nativePath('libwarp.so'));
  return unable(
    'engine',
    `${missing.join(', ')} not built`,
    'nothing can be checkpointed or restored',
    `run \`npm run build:native\` in ${packageRoot()}`,
  );
}

function pagemap(): HostCheck {
  try {
    readFileSync('/proc/self/smaps_rollup');
    return existsSync('/proc/self/pagemap')
      ? ok('pagemap', '/proc/self/pagemap is there')
      : unable(
          'pagemap',
          '/proc/self/pagemap is missing',
          'the engine cannot tell which pages are in use',
          'use a kernel with CONFIG_PROC_PAGE_MONITOR',
        );
  } catch {
    return limited('pagemap', '/proc is restricted', 'sizes of resident memory are not known', 'mount /proc without hidepid for this user');
  }
}

function procMemory(): HostCheck {
  const command = readProc('/proc/cmdline') ?? '';
  const mode = /proc_mem\.force_override=(\w+)/.exec(command)?.[1];
  if (mode === undefined || mode === 'always') return ok('/proc/self/mem', 'writes to protected pages are not forbidden at boot');
  return limited(
    '/proc/self/mem',
    `proc_mem.force_override=${mode}`,
    'memory that is PROT_NONE or read-only but has content may not come back',
    'boot without proc_mem.force_override',
  );
}

function seccomp(): HostCheck {
  const status = readProc('/proc/self/status') ?? '';
  const mode = /^Seccomp:\s*(\d)/m.exec(status)?.[1];
  if (mode === '0' || mode === undefined) return ok('seccomp', 'no filter');
  return limited(
    'seccomp',
    'a filter is active (a container’s profile, most likely)',
    'calls that the filter refuses fail in the engine too; docker’s default profile refuses userfaultfd and user namespaces',
    'run the container with a profile that allows what is refused, if a checkpoint or restore fails',
  );
}

const REGISTER_SETS = ['avx', 'avx2', 'avx512f', 'pku', 'amx_tile', 'user_shstk'];

function registers(): HostCheck {
  const flags = new Set((/^flags\s*:\s*(.*)$/m.exec(readProc('/proc/cpuinfo') ?? '')?.[1] ?? '').split(' '));
  const found = REGISTER_SETS.filter((name) => flags.has(name));
  if (!flags.has('xsave'))
    return unable('registers', 'no xsave', 'the state of vector registers cannot be kept', 'use a CPU and hypervisor with XSAVE');
  return ok('registers', `xsave with ${found.length > 0 ? found.join(' ') : 'SSE only'}`);
}

function userNamespaces(): HostCheck {
  const mend = 'sysctl user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1, or run outside the container';
  const consequence = '`restore --keep-pid` cannot give old ids back; restored processes get new ones';
  if (readNumber('/proc/sys/user/max_user_namespaces') === 0)
    return limited('user namespaces', 'max_user_namespaces is 0', consequence, mend);
  if (readNumber('/proc/sys/kernel/unprivileged_userns_clone') === 0 && process.getuid!() !== 0) {
    return limited('user namespaces', 'kernel.unprivileged_userns_clone is 0', consequence, mend);
  }
  const trial = spawnSync('unshare', ['--user', '--pid', '--fork', 'true'], { stdio: ['ignore', 'ignore', 'pipe'], timeout: 10_000 });
  if (trial.error) return ok('user namespaces', 'allowed by sysctl (not tried: unshare is not installed)');
  if (trial.status === 0) return ok('user namespaces', 'tried: allowed');
  return limited('user namespaces', `tried: ${trial.stderr.toString().trim().split('\n')[0]}`, consequence, mend);
}

function userfaultfd(): HostCheck {
  const setting = readNumber('/proc/sys/vm/unprivileged_userfaultfd');
  if (setting === null) {
    return limited(
      'userfaultfd',
      'not in this kernel',
      'memory cannot be loaded while the program already runs',
      'use a kernel with CONFIG_USERFAULTFD',
    );
  }
  return ok('userfaultfd', setting === 1 || process.getuid!() === 0 ? 'for all faults' : 'for faults in user mode (enough)');
}

function ptrace(): HostCheck {
  const scope = readNumber('/proc/sys/kernel/yama/ptrace_scope');
  if (scope === null || scope === 0) return ok('ptrace', scope === null ? 'not restricted by Yama' : 'ptrace_scope 0');
  return limited(
    'ptrace',
    `ptrace_scope ${scope}`,
    'gdb -p and gcore work on own children only; warp needs no ptrace',
    'sysctl kernel.yama.ptrace_scope=0 for debugging',
  );
}

function mapCount(): HostCheck {
  const limit = readNumber('/proc/sys/vm/max_map_count');
  if (limit === null || limit >= 65_530) return ok('memory areas', `vm.max_map_count ${limit ?? 'unknown'}`);
  return limited(
    'memory areas',
    `vm.max_map_count ${limit}`,
    'images with more memory areas cannot be restored',
    'sysctl vm.max_map_count=65530',
  );
}

function overcommit(): HostCheck {
  const mode = readNumber('/proc/sys/vm/overcommit_memory');
  if (mode !== 2) return ok('overcommit', `vm.overcommit_memory ${mode ?? 'unknown'}`);
  return limited(
    'overcommit',
    'vm.overcommit_memory 2',
    'large reservations (Java, Node.js) may not be granted again at restore',
    'sysctl vm.overcommit_memory=0',
  );
}

/** Soft limit by its name in /proc/self/limits; Infinity for unlimited. */
function softLimit(name: string): number {
  const text = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(readProc('/proc/self/limits') ?? '')?.[1];
  return text === undefined || text === 'unlimited' ? Number.POSITIVE_INFINITY : Number(text);
}

function queuedSignals(): HostCheck {
  const limit = softLimit('Max pending signals');
  if (limit >= 1024) return ok('queued signals', `limit ${limit}`);
  return limited(
    'queued signals',
    `limit ${limit}`,
    'a process with more threads than that cannot be stopped for a checkpoint',
    'ulimit -i 1024 or more',
  );
}

function openFiles(): HostCheck {
  const limit = softLimit('Max open files');
  if (limit >= 1024) return ok('open files', `limit ${limit}`);
  return limited(
    'open files',
    `limit ${limit}`,
    'a process with more descriptors cannot be restored under this limit',
    'ulimit -n 1024 or more',
  );
}

export interface EngineState {
  name: string;
  usable: boolean;
  description: string;
  /** Why it cannot be used. */
  reason: string | null;
}

/** The engines of the command line contract and whether this host and this version can use them. */
export function engineStates(): EngineState[] {
  const blocking = checkHost().find((check) => check.status === 'unable');
  const reason = blocking ? `${blocking.name}: ${blocking.found}; ${blocking.mend}` : null;
  // They need the library in the process, and nothing of the host.
  const built = nativeBuild().status === 'ok';
  const criu = whyCriuFails();
  return [
    {
      name: 'warp',
      usable: blocking === undefined,
      description: 'captures from inside the process, with no privilege',
      reason,
    },
    {
      name: 'criu',
      usable: criu === null,
      description: 'CRIU: process trees from outside, with privilege',
      reason: criu,
    },
    { name: 'simengine', usable: built, description: 'CRaC: calls the hooks, keeps no image', reason: built ? null : reason },
    { name: 'pauseengine', usable: built, description: 'CRaC: pauses the process in place until a restore', reason: built ? null : reason },
  ];
}
