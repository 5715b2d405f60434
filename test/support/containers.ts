/**
 * Debian's Podman with runc and a storage of its own: builds Dockerfiles and runs their images, with stand-ins for the base images that a registry would
 * give. They hold what this host has of it, at the same paths.
 */
import { type ChildProcess, execFile, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { profilePath } from './container-filter.js';

const execute = promisify(execFile);

export interface Container {
  id: string;
  /** Of its first process, as this host numbers it. */
  pid: number;
}

const needed = ['podman', 'runc', 'conmon', 'nsenter', 'tar', 'ldd'];

/** The engine, or why this host has none. */
export async function containerEngine(): Promise<ContainerEngine | string> {
  if (process.getuid!() !== 0) return 'containers of an ordinary user need subordinate ids: run the tests as root';
  const missing = needed.filter((name) => spawnSync('/bin/sh', ['-c', `command -v ${name}`]).status !== 0);
  if (missing.length > 0) return `no ${missing.join(', ')}; on Debian: apt-get install podman runc`;
  if (!existsSync(profilePath)) return `no ${profilePath}; on Debian: apt-get install golang-github-containers-common`;
  const engine = new ContainerEngine();
  const problem = await engine.probe();
  if (problem === undefined) return engine;
  await engine.close();
  return problem;
}

/** What an image is made of: this host's files at the places they have here, symbolic links followed. */
export interface Content {
  /** The libraries that they are linked with are added. */
  programs: string[];
  /** Programs that are to be elsewhere: from here, to there. */
  moved?: Record<string, string>;
  /** Programs of which only the libraries are needed. */
  others?: string[];
  folders?: string[];
  exclude?: string[];
  /** Comes before the usual PATH; ends with a colon. */
  path?: string;
}

export class ContainerEngine {
  /** Everything that it stores; also for files that it is to read. */
  readonly directory = mkdtempSync(join(tmpdir(), 'warp-tool-containers-'));
  private readonly environment: NodeJS.ProcessEnv;

  constructor() {
    const setting = (name: string, lines: string[]): string => {
      const path = join(this.directory, name);
      writeFileSync(path, `${lines.join('\n')}\n`);
      return path;
    };
    // The usual ones are above what a root without CAP_SYS_RESOURCE may set.
    this.environment = {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: this.directory,
      TMPDIR: this.directory,
      CONTAINERS_CONF: setting('containers.conf', [
        '[containers]',
        'default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]',
        `seccomp_profile = "${profilePath}"`,
        'log_driver = "k8s-file"',
        '[engine]',
        'cgroup_manager = "cgroupfs"',
        'events_logger = "none"',
        'lock_type = "file"',
        'runtime = "runc"',
        `tmp_dir = "${join(this.directory, 'state')}"`,
      ]),
      CONTAINERS_STORAGE_CONF: setting('storage.conf', [
        '[storage]',
        'driver = "overlay"',
        `graphroot = "${join(this.directory, 'storage')}"`,
        `runroot = "${join(this.directory, 'run')}"`,
      ]),
      CONTAINERS_REGISTRIES_CONF: setting('registries.conf', ['unqualified-search-registries = ["docker.io"]']),
    };
  }

  /** Runs Podman and gives its output; throws what it says when it fails. */
  private async podman(...args: string[]): Promise<string> {
    return output('podman', args, { env: this.environment, cwd: this.directory });
  }

  /** Whether a container runs here at all; if not, why. */
  async probe(): Promise<string | undefined> {
    try {
      await this.importImage('localhost/probe', { programs: ['/bin/true'] });
      await this.podman('run', '--rm', ...confinement, 'localhost/probe', '/bin/true');
      return undefined;
    } catch (error) {
      return `no container can be run here: ${(error as Error).message.trim().split('\n').at(-1)}`;
    }
  }

  /** Makes an image of what this host has. */
  async importImage(name: string, { programs, moved = {}, others = [], folders = [], exclude = [], path = '' }: Content): Promise<void> {
    const skeleton = mkdtempSync(join(this.directory, 'skeleton-'));
    for (const folder of ['dev', 'etc', 'opt', 'proc', 'run', 'srv', 'sys', 'tmp', 'usr/bin', 'usr/lib', 'usr/lib64', 'usr/local/bin'])
      mkdirSync(join(skeleton, folder), { recursive: true });
    for (const folder of ['bin', 'lib', 'lib64']) symlinkSync(`usr/${folder}`, join(skeleton, folder));
    for (const [from, to] of Object.entries(moved)) copyFileSync(from, join(skeleton, to));
    const files = [...programs, ...[...programs, ...Object.keys(moved), ...others].flatMap(libraries)];
    const single = files.filter((file) => !folders.some((folder) => file.startsWith(`${folder}/`)));
    // Below usr, where the skeleton has folders and not links.
    const merged = [...single, ...folders].map((file) => file.replace(/^\/(bin|lib|lib64)\//, '/usr/$1/').slice(1));
    const archive = `${skeleton}.tar`;
    await output('tar', ['-cf', archive, '-C', skeleton, '.']);
    await output('tar', [
      '-rhf',
      archive,
      '--hard-dereference',
      ...exclude.map((file) => `--exclude=${file.slice(1)}`),
      '-C',
      '/',
      ...new Set(merged),
    ]);
    await this.podman('import', '--quiet', '--change', `ENV PATH=${path}/usr/local/bin:/usr/bin:/bin`, archive, name);
    rmSync(archive);
    rmSync(skeleton, { recursive: true });
  }

  async tag(image: string, ...names: string[]): Promise<void> {
    await this.podman('tag', image, ...names);
  }

  /** Builds a Dockerfile with no network but the loopback device, and each step under the profile. Resolves to what it printed. */
  async build(dockerfile: string, context: string, name: string): Promise<string> {
    return await this.podman(
      'build',
      '--layers=false',
      '--network',
      'none',
      '--isolation',
      'oci',
      '--file',
      dockerfile,
      '--tag',
      name,
      context,
    );
  }

  /** Starts a container that is allowed nothing: see `confinement`. */
  async start(image: string, ...args: string[]): Promise<Container> {
    const id = (await this.podman('run', '--detach', ...confinement, image, ...args)).trim();
    return { id, pid: Number(await this.podman('inspect', '--format', '{{.State.Pid}}', id)) };
  }

  /** Runs a shell's command in a container of the image, confined in the same way. */
  async shell(image: string, command: string): Promise<string> {
    return await this.podman('run', '--rm', ...confinement, '--entrypoint', '/bin/sh', image, '-c', command);
  }

  /** What a server in a container answers; its network is not this host's. */
  async get<T>(container: Container, url: string): Promise<T> {
    const program = `fetch(process.argv[1]).then((response) => response.text()).then((text) => process.stdout.write(text), () => process.exit(3))`;
    const args = [`--net=/proc/${container.pid}/ns/net`, process.execPath, '-e', program, url];
    return JSON.parse(await output('nsenter', args)) as T;
  }

  /** Sends SIGTERM, and resolves to the exit status of the container. */
  async stop(container: Container): Promise<number> {
    await this.podman('stop', '--time', '60', container.id);
    return Number(await this.podman('inspect', '--format', '{{.State.ExitCode}}', container.id));
  }

  /** Ends what runs, and removes everything. */
  async close(): Promise<void> {
    await Promise.all([...running].map((child) => (child.kill('SIGTERM'), new Promise((resolve) => child.once('close', resolve)))));
    await this.podman('rm', '--all', '--force', '--time', '0').catch(() => {});
    for (const mount of readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '')
      .toReversed())
      if (mount.startsWith(this.directory)) spawnSync('umount', ['--lazy', mount]);
    // What Podman starts behind a container's end may still be clearing up.
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    removeControlGroups('/sys/fs/cgroup');
  }
}

/** What each container is run with: no network, no capability, nothing to write to but /tmp, and Docker's default seccomp profile. */
const confinement = `--network none --read-only --read-only-tmpfs=false --tmpfs /tmp:mode=1777 --cap-drop all
  --security-opt no-new-privileges --security-opt seccomp=${profilePath}`.split(/\s+/);

const running = new Set<ChildProcess>();

async function output(file: string, args: string[], options: { env?: NodeJS.ProcessEnv; cwd?: string } = {}): Promise<string> {
  const promise = execute(file, args, { ...options, encoding: 'utf8', maxBuffer: 2 ** 26 });
  running.add(promise.child);
  try {
    return (await promise).stdout;
  } catch (error) {
    const { stdout, stderr, code, signal } = error as { stdout: string; stderr: string; code: unknown; signal: string | null };
    throw new Error(`${file} ${args.join(' ')} ended with ${signal ?? String(code)}:\n${stdout}\n${stderr}`, { cause: error });
  } finally {
    running.delete(promise.child);
  }
}

/** Paths of the libraries that a program loads when it starts. */
function libraries(program: string): string[] {
  const { stdout } = spawnSync('ldd', [program], { encoding: 'utf8' });
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map((row) => row[1]!);
}

/** Podman leaves the groups above those of its containers. */
function removeControlGroups(root: string): void {
  if (!existsSync(root)) return;
  for (const controller of ['', ...readdirSync(root)])
    for (const group of ['libpod_parent/conmon', 'libpod_parent']) {
      try {
        rmdirSync(join(root, controller, group));
      } catch {
        // not there, or somebody else's container is in it
      }
    }
}
