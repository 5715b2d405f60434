#!/usr/bin/env node
/**
 * Runs `npm ci` where that has not been done, and installs the programs that the end-to-end tests run besides the project itself, where this machine is a Debian (or derivative) on which
 * that is allowed: as root, or through `sudo -n`. Elsewhere it prints what is missing; tests of missing programs are skipped by name.
 * Nothing that is there already is touched, so it can run before every `npm test`. WARP_TEST_INSTALL=0 turns installing off.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const needs = [
  { command: 'gcc', package: 'gcc', why: 'builds the engine and the C test programs', required: true },
  { file: '/usr/include/stdio.h', package: 'libc6-dev', why: 'headers of the C library', required: true },
  { command: 'musl-gcc', package: 'musl-tools', why: 'the C test programs under musl' },
  { command: '/usr/bin/python3', package: 'python3-minimal', why: 'Python programs with threads' },
  { command: 'redis-server', package: 'redis-server', why: 'a database of 100,000 keys' },
  { command: 'redis-cli', package: 'redis-tools', why: 'the client for it' },
  { command: 'javac', package: 'openjdk-17-jdk-headless', why: 'a stock JVM under four collectors' },
  { file: '/usr/share/tomcat10/bin/bootstrap.jar', package: 'tomcat10-common', why: 'Tomcat on a stock JVM' },
  { file: '/usr/share/java/tomcat10-servlet-api.jar', package: 'libtomcat10-java', why: 'Tomcat on a stock JVM' },
  { command: 'script', package: 'bsdutils', why: 'programs on a terminal' },
  { command: 'gdb', package: 'gdb', why: 'opening images in the debugger' },
  { command: 'readelf', package: 'binutils', why: 'judging images as ELF files' },
  { command: 'eu-readelf', package: 'elfutils', why: 'judging images as ELF files, a second opinion' },
  { command: 'drgn', package: 'python3-drgn', why: 'comparing what it says of an image' },
  { command: 'cppcheck', package: 'cppcheck', why: 'static analysis of the C sources' },
  { command: 'zsh', package: 'zsh', why: 'shell completion' },
  { command: 'fish', package: 'fish', why: 'shell completion' },
  { command: '/usr/bin/chromium', package: 'chromium', why: 'looking at reports in a browser' },
  { file: '/usr/share/containers/seccomp.json', package: 'golang-github-containers-common', why: 'the seccomp profile of containers' },
  { command: 'runc', package: 'runc', why: 'containers (with podman: 20 MB)' },
  { command: 'podman', package: 'podman', why: 'building and running the examples in containers' },
  { command: 'siege', package: 'siege', why: 'servers under load' },
  { command: 'curl', package: 'curl', why: 'the commands of docs/java.md' },
  { command: 'groff', package: 'groff', why: 'judging the manual pages' },
  { file: '/usr/lib/x86_64-linux-gnu/liblz4.so.1', package: 'liblz4-1', why: 'judging LZ4 blocks' },
  { command: 'ceph-mon', package: 'ceph-mon', why: 'a real object store (with the next three: 60 MB)' },
  { command: 'ceph-osd', package: 'ceph-osd', why: 'a real object store' },
  { command: 'radosgw', package: 'radosgw', why: 'a real object store' },
  { command: 'ceph', package: 'ceph-common', why: 'a real object store' },
  { file: '/usr/lib/x86_64-linux-gnu/libjemalloc.so.2', package: 'libjemalloc2', why: 'programs that allocate through jemalloc' },
  {
    file: '/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4',
    package: 'libtcmalloc-minimal4',
    why: 'programs that allocate through tcmalloc',
  },
  {
    file: '/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4',
    package: 'libgoogle-perftools4',
    why: 'the same, with code that makes system calls by itself',
  },
];

function isPresent({ command, file }) {
  if (file) return isAccessible(file, constants.R_OK);
  if (command.startsWith('/')) return isAccessible(command, constants.X_OK);
  return ['/usr/bin', '/bin', '/usr/sbin', ...(process.env.PATH ?? '').split(':')].some((directory) =>
    isAccessible(join(directory, command), constants.X_OK),
  );
}

function isAccessible(path, mode) {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

const succeeds = (command, ...args) => spawnSync(command, args, { stdio: 'ignore', timeout: 20_000 }).status === 0;

/** The words before `apt-get`, or undefined where this user may not install anything. */
function installer() {
  if (process.env.WARP_TEST_INSTALL === '0' || !isPresent({ command: 'apt-get' })) return undefined;
  if (process.getuid() === 0) return [];
  return isPresent({ command: 'sudo' }) && succeeds('sudo', '-n', 'true') ? ['sudo', '-n'] : undefined;
}

function aptGet(prefix, ...args) {
  const environment = ['env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=1'];
  const [command, ...rest] = [...prefix, ...environment, 'apt-get', '-q', '-o', 'DPkg::Lock::Timeout=120', ...args];
  const result = spawnSync(command, rest, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8', timeout: 900_000 });
  return result.status === 0
    ? undefined
    : (result.stderr ?? '').trim().split('\n').at(-1) || `apt-get ended with ${result.status ?? result.signal}`;
}

const root = fileURLToPath(new URL('..', import.meta.url));
if (!isAccessible(join(root, 'node_modules/.package-lock.json'), constants.R_OK)) {
  console.log('Installing the npm packages of package-lock.json (npm ci).');
  const result = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (result.status !== 0) process.exit(1);
}

let missing = needs.filter((need) => !isPresent(need));
if (missing.length) {
  const prefix = installer();
  if (prefix) {
    console.log('The tests run real programs. Installing those that this machine lacks:');
    for (const need of missing) console.log(`  ${need.package}: ${need.why}`);
    const updated = aptGet(prefix, 'update');
    if (updated) console.log(`  apt-get update: ${updated}`);
    for (const need of missing) {
      // One by one: a distribution that lacks one of them still gets the others.
      const error = aptGet(prefix, 'install', '-y', '--no-install-recommends', need.package);
      if (error) console.log(`  ${need.package} could not be installed: ${error}`);
    }
    missing = missing.filter((need) => !isPresent(need));
  }
  for (const need of missing)
    console.log(`Missing: ${need.package} (${need.why}); ${need.required ? 'nothing works without it' : 'its tests are skipped'}.`);
  const names = missing.map((need) => need.package).join(' ');
  if (names) console.log(`On Debian: apt-get install ${names}`);
}
process.exitCode = missing.some((need) => need.required) ? 1 : 0;
