/** What the engine costs a program that is not being captured, and one that was restored. */
import { executables, helper, lacks, GiB } from '../support/host.mjs';
import { checkpoint, restore, start } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table } from '../support/report.mjs';

const works = { 'system-calls': 10_000_000, 'small-allocations': 10_000_000, 'large-allocations': 200_000, releases: 50_000 };

async function work(program, name, iterations) {
  program.child.stdin.write(`${name} ${iterations}\n`);
  const [, wall, cpu] = await program.line(/done (\d+) (\d+)\n/);
  return { wall: Number(wall) / iterations, cpu: Number(cpu) / iterations };
}

async function startUp(preload, count) {
  const [, wall, cpu] = /done (\d+) (\d+)/.exec(await helper('starts', [preload, count, '/bin/true']));
  return { wall: Number(wall) / count, cpu: Number(cpu) / count };
}

export async function cost({ quick }) {
  const lack = lacks(GiB / 4);
  if (lack) {
    console.log(`  skipped: ${lack}`);
    return { skipped: lack };
  }
  const captured = start([executables.calls], { engine: true });
  await captured.line(/ready\n/);
  const { image } = await checkpoint(captured);
  const programs = {
    plain: start([executables.calls]),
    engine: start([executables.calls], { engine: true }),
    direct: restore(image),
    eager: restore(image, ['--no-direct-map']),
  };
  const results = {};
  const rows = [];
  for (const [name, full] of Object.entries(works)) {
    const iterations = quick ? full / 10 : full;
    const ways = Object.fromEntries(Object.entries(programs).map(([way, program]) => [way, () => work(program, name, iterations)]));
    const runs = await alternate(ways);
    results[name] = runs;
    const walls = (way) => runs[way].map((run) => run.wall);
    const ratios = ['engine', 'direct', 'eager'].map((way) => showRatio(ratio(walls(way), walls('plain'))));
    rows.push([name.replace('-', ' '), `${median(walls('plain')).toFixed(0)} ns`, ...ratios]);
  }
  await Promise.all(Object.values(programs).map((program) => program.kill()));
  table(['once', 'without', 'with the engine', 'restored, direct', 'restored, eager'], rows);

  const count = quick ? 50 : 200;
  const starts = await alternate({ plain: () => startUp('', count), engine: () => startUp(executables['libwarp.so'], count) });
  results.start = starts;
  console.log();
  const each = (way, what) => starts[way].map((run) => run[what]);
  const row = (way, title) => [title, milliseconds(median(each(way, 'wall'))), milliseconds(median(each(way, 'cpu')))];
  table(
    ['start of /bin/true', 'wall', 'CPU time'],
    [
      row('plain', 'without'),
      row('engine', 'with the engine'),
      ['ratio', ...['wall', 'cpu'].map((what) => showRatio(ratio(each('engine', what), each('plain', what))))],
    ],
  );
  console.log('  no aim is set for these');
  return results;
}
