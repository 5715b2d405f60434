/** Tomcat 10 on a stock JVM: warmed, captured, restored and loaded again, over generations, plain and compressed. */
import { execFileSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { hasTomcat, tomcatCommand } from '../../bench/support/tomcat.mjs';
import { command, makeDirectory } from './support/host.js';
import { freePort, getJson } from './support/network.js';
import { checkpointAndEnd, killAll, type Program, restore, run, warpTool } from './support/program.js';

const java = command('java');
afterEach(killAll);

interface State {
  answers: number;
  pages: number;
  kept: boolean;
  startedAt: string;
}

async function answerOf(program: Program, port: number, page: number): Promise<State> {
  for (;;) {
    try {
      return await getJson<State>(port, `/${page}`);
    } catch (error) {
      if (program.child.exitCode !== null || program.child.signalCode !== null)
        throw new Error(`Tomcat ended: ${program.stderr}`, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** How many methods the just-in-time compiler has compiled since the first start, as the virtual machine publishes it. */
async function compiled(program: Program): Promise<number> {
  const jstat = run(command('jstat')!, ['-compiler', String(program.pid)]);
  expect((await jstat.ended).code, jstat.stderr).toBe(0);
  return Number(/^\s*(\d+)/m.exec(jstat.stdout)![1]);
}

async function load(port: number): Promise<void> {
  const siege = run(command('siege')!, ['-q', '-b', '-c', '4', '-r', '100', `http://127.0.0.1:${port}/1`], {
    environment: { HOME: makeDirectory() },
  });
  expect((await siege.ended).code, siege.stderr).toBe(0);
}

describe.skipIf(!java || !command('siege') || !hasTomcat())(
  'Tomcat (on Debian: apt-get install libtomcat10-java tomcat10-common openjdk-17-jdk-headless siege)',
  () => {
    it('keeps its state and its compiled code, and works under load, over generations', { timeout: 600_000 }, async () => {
      const base = makeDirectory();
      const port = await freePort();
      const line = tomcatCommand(java!, base, port, ['-Xmx512m']);
      execFileSync('chmod', ['-R', 'a+rwX', base]);
      chmodSync(base, 0o777);
      let tomcat = warpTool(['run', '--', ...line]);
      for (let page = 0; page < 200; page++) await answerOf(tomcat, port, page);
      await load(port);
      let state = await answerOf(tomcat, port, 1);
      const { startedAt } = state;
      for (const flags of [['--compression', 'lz4'], [], ['--compression', 'lz4']]) {
        const methods = await compiled(tomcat);
        tomcat = restore(await checkpointAndEnd(tomcat, flags));
        const first = await answerOf(tomcat, port, 7);
        expect(first).toMatchObject({ kept: true, pages: 200, startedAt, answers: state.answers + 1 });
        await load(port);
        const answers = await Promise.all(Array.from({ length: 50 }, (_, page) => answerOf(tomcat, port, page)));
        expect(answers.every((answer) => answer.kept && answer.startedAt === startedAt)).toBe(true);
        state = await answerOf(tomcat, port, 1);
        expect(state.answers).toBeGreaterThanOrEqual(first.answers + 51);
        const later = await compiled(tomcat);
        expect(later).toBeGreaterThanOrEqual(methods);
        expect(later).toBeLessThan(1.5 * methods);
      }
    });
  },
);
