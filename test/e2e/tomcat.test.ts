/** Tomcat 10 on a stock JVM: warmed, captured, restored and loaded again, over generations, plain and compressed. */
import { execFileSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { hasTomcat, tomcatCommand } from '../../bench/support/tomcat.mjs';
import { command, makeDirectory } from './support/host.js';
import { freePort, getJson } from './support/network.js';
import { checkpointAndEnd, killAll, type Program, restore, start } from './support/program.js';

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

describe.skipIf(!java || !hasTomcat())(
  'Tomcat (on Debian: apt-get install libtomcat10-java tomcat10-common openjdk-17-jdk-headless)',
  () => {
    it('keeps its state and works under load over generations', { timeout: 300_000 }, async () => {
      const base = makeDirectory();
      const port = await freePort();
      const [program, ...args] = tomcatCommand(java!, base, port, ['-Xmx512m']);
      execFileSync('chmod', ['-R', 'a+rwX', base]);
      chmodSync(base, 0o777);
      let tomcat = start(program!, args);
      let state = await answerOf(tomcat, port, 0);
      for (let page = 1; page < 200; page++) state = await answerOf(tomcat, port, page);
      const { startedAt } = state;
      for (let generation = 0; generation < 6; generation++) {
        const flags = generation % 2 === 0 ? ['--compression', 'lz4'] : [];
        const image = await checkpointAndEnd(tomcat, flags);
        tomcat = restore(image);
        const first = await answerOf(tomcat, port, 7);
        expect(first).toMatchObject({ kept: true, pages: 200, startedAt, answers: state.answers + 1 });
        const load = await Promise.all(Array.from({ length: 50 }, (_, page) => answerOf(tomcat, port, page)));
        expect(load.every((answer) => answer.kept && answer.startedAt === startedAt)).toBe(true);
        state = await answerOf(tomcat, port, 1);
        expect(state.answers).toBe(first.answers + 51);
      }
    });
  },
);
