/** Where the time of one checkpoint and one restore goes, as --stats tells it. */
import { lacks } from '../support/host.mjs';
import { capturedImage, firstAnswer, measuredPrograms, restore } from '../support/program.mjs';
import { table } from '../support/report.mjs';

function columns(statistics) {
  const names = Object.keys(Object.values(statistics)[0]);
  table(
    ['', ...Object.keys(statistics)],
    names.map((name) => [name, ...Object.values(statistics).map((values) => values[name])]),
  );
}

export async function phases(options) {
  const results = [];
  for (const measured of await measuredPrograms(options)) {
    const lack = lacks(measured.bytes);
    if (lack) {
      console.log(`  ${measured.title}: skipped: ${lack}`);
      continue;
    }
    const { image, statistics, state } = await capturedImage(measured);
    const restored = {};
    for (const [way, args] of [
      ['direct', []],
      ['eager', ['--no-direct-map']],
      ['concurrent', ['--concurrent']],
    ]) {
      const program = restore(image, args);
      const { wall } = await firstAnswer(measured, program, state);
      const { begin_ns: begin, explanation, faults_explanation, ...told } = program.statistics();
      const exec = begin - Number(program.executed);
      restored[way] = {
        exec_us: Math.round(exec / 1000),
        ...told,
        answer_us: Math.round((wall - exec) / 1000 - told.total_us),
        first_answer_us: Math.round(wall / 1000),
      };
    }
    results.push({ program: measured.name, checkpoint: statistics, restore: restored });
    console.log(`  ${measured.title}`);
    columns({ checkpoint: statistics });
    console.log();
    columns(restored);
    console.log();
  }
  return results;
}
