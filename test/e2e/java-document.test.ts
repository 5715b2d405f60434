/** The commands of docs/java.md, run as they stand there. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { command, makeDirectory, node, projectFile, user } from './support/host.js';
import { freePort } from './support/network.js';
import { killAll, launcher, run } from './support/program.js';

afterEach(killAll);

const tools = ['javac', 'jar', 'curl', 'siege', 'bash'];

/** The blocks of commands, in order. */
function blocks(): string[] {
  const text = readFileSync(new URL('../../docs/java.md', import.meta.url), 'utf8');
  return [...text.matchAll(/(?:^ {4}\S.*\n)+/gm)].map(([block]) => block.replaceAll(/^ {4}/gm, ''));
}

describe.skipIf(tools.some((name) => !command(name)))(
  'docs/java.md (on Debian: apt-get install openjdk-17-jdk-headless curl siege)',
  () => {
    it('every command works, one after the other', { timeout: 600_000 }, async () => {
      const directory = makeDirectory();
      const port = String(await freePort());
      const built = (file: string, ...args: string[]): void => {
        const { status, stderr } = spawnSync(command(file)!, args, { ...user, cwd: directory, encoding: 'utf8', timeout: 300_000 });
        if (status !== 0) throw new Error(`${file}: ${stderr}`);
      };
      const sources = ['Crac', 'App', 'com/example/Report'].map((name) => projectFile(`test/e2e/fixtures/crac/${name}.java`));
      built('javac', '--release', '11', '-d', 'classes', ...sources);
      built('jar', '--create', '--file', 'app.jar', '--main-class', 'App', '-C', 'classes', '.');
      const bin = join(makeDirectory(), 'bin');
      mkdirSync(bin);
      chmodSync(bin, 0o755);
      for (const [name, words] of [
        ['warp-tool', [node(), projectFile('bin/run.js')]],
        ['warp-restore', [projectFile('native/build/warp-restore')]],
      ] as const) {
        writeFileSync(join(bin, name), `#!/bin/sh\nexec ${words.join(' ')} "$@"\n`);
        chmodSync(join(bin, name), 0o755);
      }
      const all = blocks().map((block) => block.replaceAll(':8080', `:${port}`));
      expect(all).toHaveLength(5);
      // What a block has left running ends before the next one.
      const script = all.map((block) => `set -e\n${block}set +e\n[ -z "$!" ] || { kill $!; wait $!; }\necho "== done"\n`).join('');
      const shell = run(launcher(), ['', command('bash')!, '-c', script], {
        directory,
        environment: { PATH: `${bin}:/usr/local/bin:/usr/bin:/bin`, HOME: directory, PORT: port, DB_URL: 'jdbc:postgresql://db/build' },
      });
      const ended = await shell.ended;
      expect(ended.code, shell.stdout + shell.stderr).toBe(0);
      const [first, restored, again, report, generic] = shell.stdout.split('== done\n');
      expect(first).toMatch(/^well\n[^]*^Java +\d/m);
      expect(restored).toMatch(/^\S+Z 1001 jdbc:postgresql:\/\/db\/live\n$/);
      expect(again).toMatch(/^\S+Z 1 jdbc:postgresql:\/\/db\/build\n$/m);
      expect(report).toMatch(/^report one two in mode report of jdbc:postgresql:\/\/db\/live\n$/);
      expect(generic).toMatch(/^\S+Z 1 jdbc:postgresql:\/\/db\/build\n$/);
      expect(shell.stderr).not.toContain('is started');
    });
  },
);
