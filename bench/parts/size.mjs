/** Whether a direct-mapped restore takes longer when the image is larger. */
import { GiB, MiB, lacks } from '../support/host.mjs';
import { capturedImage, firstAnswer, memoryProgram, restore } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, verdict } from '../support/report.mjs';

const aim = 1.3;
// A few milliseconds each: many runs cost little, and a single disturbance weighs much.
const rounds = 25;

export async function size({ quick }) {
  const [small, large] = (quick ? [256 * MiB, 2 * GiB] : [GiB, 8 * GiB]).map(memoryProgram);
  const lack = lacks(large.bytes);
  if (lack) {
    console.log(`  skipped: ${lack}`);
    return { skipped: lack };
  }
  // One after the other: both at once need the memory of both.
  const images = [];
  for (const measured of [small, large]) images.push(await capturedImage(measured));
  const once = async (measured, { image, state }) => {
    const program = restore(image);
    const measurement = await firstAnswer(measured, program, state);
    return { ...measurement, statistics: program.statistics() };
  };
  const runs = await alternate({ small: () => once(small, images[0]), large: () => once(large, images[1]) }, rounds);
  const walls = (way) => runs[way].map((run) => run.wall);
  const growth = ratio(walls('large'), walls('small'));
  const part = (way, name) => `${median(runs[way].map((run) => run.statistics[name]))} us`;
  table(
    ['direct-mapped', 'first answer', 'CPU time', 'metadata', 'memory', 'all of warp-restore'],
    [
      ['small', small],
      ['large', large],
    ].map(([way, measured]) => [
      measured.title,
      milliseconds(median(walls(way))),
      milliseconds(median(runs[way].map((run) => run.cpu))),
      ...['metadata_us', 'memory_us', 'total_us'].map((name) => part(way, name)),
    ]),
  );
  console.log(`  ratio ${showRatio(growth)}, ${rounds} runs each`);
  verdict(
    `direct-mapped restore of ${large.title} within ${aim} times that of ${small.title}`,
    growth.median.toFixed(2),
    growth.median <= aim,
  );
  return { small: small.bytes, large: large.bytes, runs, ratio: growth };
}
