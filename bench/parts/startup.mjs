/** What a command of warp-tool takes on a small image, beside Node.js that does nothing. */
import { MiB, buildTool, executables, lacks } from '../support/host.mjs';
import { capturedImage, memoryProgram, node } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, verdict } from '../support/report.mjs';

const aim = 2.5;
// A few milliseconds each: many runs cost little, and a single disturbance weighs much.
const rounds = 25;

export async function startup() {
  const size = 10 * MiB;
  const lack = lacks(size);
  if (lack) {
    console.log(`  skipped: ${lack}`);
    return { skipped: lack };
  }
  buildTool();
  const { image } = await capturedImage(memoryProgram(size));
  const tool = (...args) => node([executables.tool, ...args]);
  const runs = await alternate(
    {
      node: () => node(['-e', '0']),
      show: () => tool('show', image),
      threads: () => tool('threads', image),
      maps: () => tool('maps', image, '--json'),
      help: () => tool('--help'),
    },
    rounds,
  );
  const ratios = {};
  const rows = Object.entries(runs).map(([way, measured]) => {
    ratios[way] = Object.fromEntries(
      ['wall', 'cpu'].map((what) => [
        what,
        ratio(
          measured.map((run) => run[what]),
          runs.node.map((run) => run[what]),
        ),
      ]),
    );
    const of = (what) => milliseconds(median(measured.map((run) => run[what])));
    return [
      way === 'node' ? 'node -e 0' : `warp-tool ${way}`,
      of('wall'),
      showRatio(ratios[way].wall),
      of('cpu'),
      showRatio(ratios[way].cpu),
    ];
  });
  table(['', 'wall', 'of node -e 0', 'CPU time', 'of node -e 0'], rows);
  const worse = Math.max(ratios.show.wall.median, ratios.show.cpu.median);
  verdict(`warp-tool show within ${aim} times node -e 0`, worse.toFixed(2), worse <= aim);
  return { runs, ratios };
}
