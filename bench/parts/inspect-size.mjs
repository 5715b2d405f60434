/** What looking into an image takes as the image grows, and how much of a compressed one is read for one address. */
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { GiB, MiB, buildTool, executables, lacks } from '../support/host.mjs';
import { checkpoint, node, start } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, verdict } from '../support/report.mjs';

const aims = { ratio: 1.3, memory: 150 * MiB };
const commands = ['show', 'threads', 'maps', 'fds'];
// A tenth of a second each, and a disturbance weighs much.
const rounds = 11;

/** Images of a program that filled the first `stretch` of each `every` bytes of `bytes`: a plain and a compressed one of the same moment. */
async function capture({ bytes, stretch, every }) {
  const program = start([executables.spread, bytes, stretch, every], { engine: true });
  const [, address] = await program.line(/ready (0x[0-9a-f]+)\n/);
  const { image: compressed } = await checkpoint(program, ['--leave-running', '--compression', 'lz4']);
  const { image: plain } = await checkpoint(program);
  return { plain, compressed, address: BigInt(address) };
}

/** Reads memory as `mem ADDR` does; resolves to the bytes that were read of the file to open it, and for the memory. */
async function readsOf(image, address) {
  const { FileSource, Image } = await import(pathToFileURL(executables.library));
  const source = await FileSource.open(join(image, 'core.img'));
  let bytes = 0;
  const counting = {
    name: source.name,
    size: source.size,
    read: (offset, length) => ((bytes += length), source.read(offset, length)),
    readInto: (offset, buffer) => ((bytes += buffer.length), source.readInto(offset, buffer)),
    close: () => source.close(),
  };
  const opened = await Image.from(counting);
  const toOpen = bytes;
  await opened.memory.read(address, 256);
  await opened.close();
  return { toOpen, forMemory: bytes - toOpen };
}

export async function inspectSize({ quick }) {
  const divisor = quick ? 8 : 1;
  const plans = {
    small: { title: '10 MiB', bytes: 10 * MiB, stretch: MiB, every: MiB },
    sparse: { title: `sparse ${64 / divisor} GiB`, bytes: (64 * GiB) / divisor, stretch: 64 << 10, every: 16 * MiB },
    full: { title: `full ${8 / divisor} GiB`, bytes: (8 * GiB) / divisor, stretch: MiB, every: MiB },
  };
  const lack = lacks(plans.full.bytes);
  if (lack) {
    console.log(`  skipped: ${lack}`);
    return { skipped: lack };
  }
  buildTool();
  const images = {};
  try {
    for (const [name, plan] of Object.entries(plans)) images[name] = await capture(plan);
    const results = { ratios: {}, memory: 0, reads: {} };
    const rows = [];
    let worst = 0;
    for (const command of commands) {
      for (const form of ['plain', 'compressed']) {
        const ways = Object.fromEntries(
          Object.keys(plans).map((name) => [name, () => node([executables.tool, command, images[name][form]])]),
        );
        const runs = await alternate(ways, rounds);
        const of = (name, what) => runs[name].map((run) => run[what]);
        for (const name of ['sparse', 'full']) {
          const [wall, cpu] = ['wall', 'cpu'].map((what) => ratio(of(name, what), of('small', what)));
          const memory = Math.max(...of(name, 'memory'));
          results.ratios[`${command} ${name} ${form}`] = { wall, cpu };
          results.memory = Math.max(results.memory, memory);
          // CPU time is the steadier one where other work goes on; both have to be within the aim where none does.
          worst = Math.max(worst, cpu.median);
          rows.push([
            `${command}, ${plans[name].title}, ${form}`,
            milliseconds(median(of(name, 'wall'))),
            showRatio(wall),
            milliseconds(median(of(name, 'cpu'))),
            showRatio(cpu),
            `${(memory / MiB).toFixed(0)} MiB`,
          ]);
        }
      }
    }
    table(['', 'wall', 'of 10 MiB', 'CPU time', 'of 10 MiB', 'memory'], rows);
    verdict(`show, threads, maps and fds within ${aims.ratio} times a 10 MiB image, CPU time`, worst.toFixed(2), worst <= aims.ratio);
    verdict('and under 150 MiB of memory', `${(results.memory / MiB).toFixed(0)} MiB`, results.memory < aims.memory);
    for (const name of ['sparse', 'full']) {
      const { compressed, address } = images[name];
      const place = address + BigInt(plans[name].bytes - plans[name].every);
      const reads = await readsOf(compressed, place);
      const runs = await alternate({ mem: () => node([executables.tool, 'mem', compressed, place.toString(16)]) }, 3);
      results.reads[name] = reads;
      const size = statSync(join(compressed, 'core.img')).size;
      console.log(
        `  mem ADDRESS of ${plans[name].title}, compressed (${(size / MiB).toFixed(0)} MiB): reads ${(reads.toOpen / 1024).toFixed(0)} KiB of metadata and ${(reads.forMemory / 1024).toFixed(0)} KiB of content, ${milliseconds(median(runs.mem.map((run) => run.cpu)))} of CPU time`,
      );
    }
    const most = Math.max(...Object.values(results.reads).map(({ forMemory }) => forMemory));
    verdict(
      'mem ADDRESS of a compressed image reads a few chunks only',
      `${(most / 1024).toFixed(0)} KiB of content`,
      most <= 4 * 256 * 1024,
    );
    return results;
  } finally {
    for (const { plain, compressed } of Object.values(images))
      for (const path of [plain, compressed]) rmSync(path, { recursive: true, force: true });
  }
}
