/** How fast memory becomes a durable image, beside a plain write of as many bytes to the same file system. */
import { rmSync } from 'node:fs';
import { cpuTime, executables, lacks } from '../support/host.mjs';
import { checkpoint, measuredPrograms, newPath, start } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, throughput, verdict } from '../support/report.mjs';

const aim = 0.8;

async function captureOnce(program, args) {
  const before = cpuTime(program.pid);
  const { image, statistics } = await checkpoint(program, args);
  const cpu = (args.length > 0 ? cpuTime(program.pid) : program.cpu) - before;
  rmSync(image, { recursive: true });
  const total = statistics.total_us * 1000;
  return {
    bytes: statistics.bytes_written,
    written: total - statistics.sync_us * 1000,
    durable: total,
    stopped: statistics.paused_us * 1000,
    cpu,
  };
}

/** Leaves the same ground before a capture as there is before a plain write. */
async function prepare(writer, bytes) {
  writer.child.stdin.write(`prepare ${bytes}\n`);
  await writer.line(/prepared\n/);
}

async function writeOnce(writer, bytes) {
  writer.child.stdin.write(`write ${bytes}\n`);
  const [, write, fsync, cpu] = (await writer.line(/write (\d+) fsync (\d+) cpu (\d+)\n/)).map(Number);
  return { bytes, written: write, durable: write + fsync, cpu };
}

export async function capture(options) {
  const results = [];
  for (const measured of await measuredPrograms(options)) {
    const lack = lacks(2 * measured.bytes);
    if (lack) {
      console.log(`  ${measured.title}: skipped: ${lack}`);
      continue;
    }
    const writer = start([executables.plain_write, newPath('plain')]);
    let program;
    let bytes = measured.bytes;
    const runs = await alternate({
      live: async () => {
        program = start(measured.command, { engine: true });
        const before = await measured.warmUp(program);
        await prepare(writer, bytes);
        const captured = await captureOnce(program, ['--leave-running']);
        const after = await measured.answer(program);
        if (after.answers !== before.answers + 1 || after.startedAt !== before.startedAt)
          throw new Error(`${measured.title} did not go on as it was`);
        bytes = captured.bytes;
        return captured;
      },
      plain: () => writeOnce(writer, bytes),
      capture: async () => {
        await prepare(writer, bytes);
        return captureOnce(program, []);
      },
    });
    await writer.kill();
    const speed = (way, until) => runs[way].map((run) => run.bytes / run[until]);
    const ratios = Object.fromEntries(
      ['capture', 'live'].map((way) => [way, ['written', 'durable'].map((until) => ratio(speed(way, until), speed('plain', until)))]),
    );
    results.push({ program: measured.name, bytes, runs, ratios });
    console.log(`  ${measured.title}: ${(bytes / 2 ** 20).toFixed(0)} MiB`);
    const row = (way, title) => [
      title,
      throughput(median(speed(way, 'written'))),
      throughput(median(speed(way, 'durable'))),
      milliseconds(median(runs[way].map((run) => run.cpu))),
      way === 'plain' ? '' : milliseconds(median(runs[way].map((run) => run.stopped))),
      ...(ratios[way]?.map(showRatio) ?? ['', '']),
    ];
    table(
      ['', 'without fsync', 'with fsync', 'CPU time', 'program stopped', 'ratio without', 'ratio with'],
      [row('plain', 'plain write'), row('capture', 'capture'), row('live', 'capture, left running')],
    );
    ['without fsync', 'with fsync'].forEach((title, i) => {
      const value = ratios.capture[i].median;
      verdict(`capture of ${measured.title} at ${aim} of a plain write or better, ${title}`, value.toFixed(2), value >= aim);
    });
    console.log();
  }
  return results;
}
