/** How long a program is away: from the exec of warp-restore to its first answer, beside its own cold start to the same answer. */
import { capturedImage, firstAnswer, measuredPrograms, restore as restoreImage, start } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, verdict } from '../support/report.mjs';
import { lacks } from '../support/host.mjs';

const aim = 20e6;

export async function restore(options) {
  const results = [];
  for (const measured of await measuredPrograms(options)) {
    const lack = lacks(measured.bytes);
    if (lack) {
      console.log(`  ${measured.title}: skipped: ${lack}`);
      continue;
    }
    const { image, state } = await capturedImage(measured);
    const runs = await alternate({
      cold: () => firstAnswer(measured, start(measured.command)),
      direct: () => firstAnswer(measured, restoreImage(image), state),
      eager: () => firstAnswer(measured, restoreImage(image, ['--no-direct-map']), state),
    });
    results.push({ program: measured.name, runs });
    console.log(`  ${measured.title}`);
    const titles = { cold: 'cold start, no engine', direct: 'restore, direct-mapped', eager: 'restore, eager' };
    const walls = (way) => runs[way].map((run) => run.wall);
    table(
      ['', 'first answer', 'CPU time', 'of the cold start'],
      Object.entries(titles).map(([way, title]) => [
        title,
        milliseconds(median(walls(way))),
        milliseconds(median(runs[way].map((run) => run.cpu))),
        way === 'cold' ? '' : showRatio(ratio(walls(way), walls('cold'))),
      ]),
    );
    const direct = median(walls('direct'));
    verdict(`direct-mapped restore of ${measured.title} under ${aim / 1e6} ms`, milliseconds(direct), direct < aim);
    console.log();
  }
  return results;
}
