/* oxlint-disable vitest/expect-expect -- many assertions are in a function */
/** The Dockerfiles of examples/docker, built and run as they stand: warmed and captured in a build step, restored in a container that may do nothing. */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Container, type ContainerEngine, containerEngine } from '../support/containers.js';
import { command } from './support/host.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const found = await containerEngine();
const engine = found as ContainerEngine;
const javac = command('javac');

interface Answer {
  matches: number;
  cached: boolean;
  answered: number;
  cacheEntries: number;
  startedAt: string;
}

/** A build waits for the disk, too. */
const timeout = 900_000;
const reason = typeof found === 'string' ? found : 'Podman with runc';

describe.skipIf(typeof found === 'string')(`examples/docker (${reason})`, () => {
  let context: string;

  beforeAll(async () => {
    context = join(engine.directory, 'context');
    cpSync(join(root, 'examples'), context, { recursive: true, filter: (path) => !path.endsWith('.tgz') });
    execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', context], { cwd: root, stdio: 'ignore', timeout: 120_000 });
    const shell = ['/bin/sh', '/bin/mkdir', '/bin/chown'];
    const moved = { [realpathSync(process.execPath)]: '/usr/local/bin/node' };
    await engine.importImage('docker.io/library/node:20-bookworm-slim', { programs: shell, moved });
  }, timeout);
  afterAll(() => engine.close());

  /** The first answer, as soon as the server listens. */
  async function answerOf(container: Container, query: string): Promise<Answer> {
    for (;;) {
      try {
        return await engine.get<Answer>(container, `http://127.0.0.1:8080/?q=${encodeURIComponent(query)}`);
      } catch (error) {
        if (!existsSync(`/proc/${container.pid}`)) throw error;
      }
    }
  }

  /** Two containers of one image: both are warm, each goes on by itself. */
  async function check(image: string, warmed: number): Promise<Container[]> {
    const containers = [await engine.start(image), await engine.start(image, '--env', 'MODE=live')];
    const startedAt = new Set<string>();
    for (const container of containers) {
      const first = await answerOf(container, 'red model 7');
      expect(first).toMatchObject({ cached: true, answered: warmed + 1, cacheEntries: warmed });
      expect(await answerOf(container, 'blue lamp')).toMatchObject({ cached: false, answered: warmed + 2, cacheEntries: warmed + 1 });
      startedAt.add(first.startedAt);
      const status = readFileSync(`/proc/${container.pid}/status`, 'utf8');
      expect(status).toMatch(/^Uid:\s+1001\s+1001\s+1001\s+1001$/m);
      for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb']) expect(status).toMatch(new RegExp(`^Cap${set}:\\s+0+$`, 'm'));
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
      expect(status).toMatch(/^Seccomp:\s+2$/m);
      const mounts = readFileSync(`/proc/${container.pid}/mounts`, 'utf8');
      expect(mounts).toMatch(/^\S+ \/ \S+ ro,/m);
      const devices = readFileSync(`/proc/${container.pid}/net/dev`, 'utf8').match(/^\s*\w+:/gm);
      expect(devices?.map((device) => device.trim())).toEqual(['lo:']);
    }
    expect(startedAt.size).toBe(1);
    return containers;
  }

  it.skipIf(!javac)('a Java service', { timeout }, async () => {
    const home = dirname(dirname(realpathSync(javac!)));
    const folder = (name: string): string => join(home, name);
    await engine.importImage('docker.io/library/eclipse-temurin:17-jdk', {
      programs: ['/bin/sh', '/bin/mkdir', '/bin/chown', folder('bin/java'), folder('lib/server/libjvm.so')],
      others: [process.execPath],
      folders: [home],
      exclude: ['jmods', 'docs', 'man', 'legal', 'lib/src.zip', 'demo'].map(folder),
      path: `${folder('bin')}:`,
    });
    await engine.tag('eclipse-temurin:17-jdk', 'docker.io/library/eclipse-temurin:17-jre');
    await engine.build(join(context, 'docker/java.Dockerfile'), context, 'search-java');
    const [container] = await check('search-java', 300);
    // The virtual machine ends in its orderly way: 128 + SIGTERM.
    expect(await engine.stop(container!)).toBe(143);
    expect(await engine.shell('search-java', 'command -v node || echo none')).toBe('none\n');
  });

  it('a Node.js service', { timeout }, async () => {
    await engine.build(join(context, 'docker/node.Dockerfile'), context, 'search-node');
    await check('search-node', 100);
  });
});
