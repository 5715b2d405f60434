/**
 * From the exec of warp-restore to the first answer with warmed state, by every way in which memory comes back, with the image in the page cache and
 * not; beside the program's plain start, and CRIU or DMTCP where they run. Then replicas of one image: how much memory each takes.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { GiB, MiB, helper, lacks, resultPath } from '../support/host.mjs';
import {
  answeringPrograms,
  capturedAs,
  checkpoint,
  firstAnswer,
  needingProgram,
  newPath,
  restore,
  start,
  tool,
} from '../support/program.mjs';
import { peerImages } from '../support/peers.mjs';
import { plotBars } from '../support/plot.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, verdict } from '../support/report.mjs';

const TRAINING_RUNS = 3;
const REPLICAS = 20;

/** Drops a file's pages from the page cache: what posix_fadvise(POSIX_FADV_DONTNEED) gives an ordinary user. */
function evict(image) {
  const path = join(image, 'core.img');
  const result = spawnSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`dd: ${result.stderr}`);
}

/**
 * Has the kernel use and free as much memory as a program takes: a virtual machine that returned free pages to its host waits for each when it takes
 * it again, and whoever comes first would pay for all who follow.
 */
const warmFreeMemory = (bytes) => helper('fresh_copy', [bytes, 1]);

async function optimised(measured, image) {
  const out = newPath('optimised');
  const until = measured.readiness ? ['--until', measured.readiness] : [];
  await tool(['optimize', image, '-o', out, '--runs', String(TRAINING_RUNS), ...until]);
  return out;
}

const size = (image) => statSync(join(image, 'core.img')).size;
const mebibytes = (bytes) => `${(bytes / MiB).toFixed(bytes < 100 * MiB ? 1 : 0)} MiB`;

async function measureProgram(measured) {
  const { plain, compressed, core, state } = await capturedAs(measured);
  const peers = await peerImages(measured);
  // V8 collects garbage at once when it finds that its last time was more than 100 s ago, which restores of real images do.
  if (measured.name === 'node') await setTimeout(110_000);
  const trained = await optimised(measured, compressed);
  const images = {
    direct: plain,
    eager: plain,
    'eager LZ4': compressed,
    'concurrent LZ4': compressed,
    [`concurrent LZ4, ${TRAINING_RUNS} training runs`]: trained,
  };
  const flags = { eager: ['--no-direct-map'], 'eager LZ4': ['--no-concurrent'] };
  const prepare = () => warmFreeMemory(size(plain));
  const ways = {
    'plain start': async () => {
      await prepare();
      return firstAnswer(measured, start(measured.command));
    },
  };
  for (const [way, image] of Object.entries(images)) {
    const restored = async (cold) => {
      await prepare();
      if (cold) evict(image);
      return firstAnswer(measured, restore(image, flags[way]), state);
    };
    ways[way] = () => restored(false);
    ways[`${way}, cold`] = () => restored(true);
  }
  for (const [name, peer] of Object.entries(peers)) {
    const restored = async (cold) => {
      // A restore fails where another process has taken a process id of the program's meanwhile.
      for (let attempts = 5; ; attempts--) {
        await prepare();
        if (cold) peer.evict();
        try {
          return await firstAnswer(measured, peer.restore(), peer.state);
        } catch (error) {
          if (attempts === 1) throw new Error(`${name}: ${error.message}${peer.complaint()}`, { cause: error });
        }
        await setTimeout(1000);
      }
    };
    ways[name] = () => restored(false);
    ways[`${name}, cold`] = () => restored(true);
  }
  const runs = await alternate(ways, 5);
  const walls = (way) => runs[way].map((run) => run.wall);
  const sizes = { gcore: core, plain: size(plain), LZ4: size(compressed), 'after training': size(trained) };
  for (const peer of Object.values(peers)) Object.assign(sizes, peer.sizes);
  const known = Object.entries(sizes).filter(([, bytes]) => bytes !== null);
  console.log(`  ${measured.title}: ${known.map(([what, bytes]) => `${what} ${mebibytes(bytes)}`).join(', ')}`);
  table(
    ['', 'first answer', 'CPU time', 'of the plain start'],
    Object.keys(ways).map((way) => [
      way,
      milliseconds(median(walls(way))),
      isPeer(way) ? '' : milliseconds(median(runs[way].map((run) => run.cpu))),
      way === 'plain start' ? '' : showRatio(ratio(walls(way), walls('plain start'))),
    ]),
  );
  const best = `concurrent LZ4, ${TRAINING_RUNS} training runs`;
  const beside = ratio(walls(best), walls('direct'));
  verdict(`${measured.title}: trained concurrent first answer within 1.5 of direct-mapped`, showRatio(beside), beside.median <= 1.5);
  for (const name of Object.keys(peers))
    for (const [way, cold, times] of [
      ['direct', '', 10],
      ['direct', ', cold', 3],
      [best, ', cold', 3],
    ]) {
      const sooner = ratio(walls(`${name}${cold}`), walls(`${way}${cold}`));
      verdict(
        `${measured.title}: ${way}: first answer ${times} times sooner than ${name}${cold}`,
        showRatio(sooner),
        sooner.median >= times,
      );
    }
  if (measured.name === 'tomcat') {
    const sooner = ratio(walls('plain start'), walls(best));
    verdict(`${measured.title}: first answer 20 times sooner than a plain start`, showRatio(sooner), sooner.median >= 20);
  }
  console.log();
  return { program: measured.name, title: measured.title, sizes, runs };
}

/** How much later the first answer comes from a large image when it needs as little as from a small one, with the image in the page cache and not. */
export async function growth({ quick }) {
  const needed = (quick ? 12 : 50) * MiB;
  const programs = (quick ? [128 * MiB, GiB] : [512 * MiB, 8 * GiB]).map((bytes) => needingProgram(bytes, needed));
  const [small, large] = programs;
  const lack = lacks(large.bytes);
  if (lack) {
    console.log(`  ${large.title}: skipped: ${lack}\n`);
    return { skipped: lack };
  }
  const [warm, cold] = [{}, {}];
  for (const measured of programs) {
    const program = start(measured.command, { engine: true });
    const state = await measured.warmUp(program);
    const { image } = await checkpoint(program, ['--compression', 'lz4']);
    const trained = await optimised(measured, image);
    rmSync(image, { recursive: true });
    const restored = async (evicted) => {
      await warmFreeMemory(small.bytes);
      if (evicted) evict(trained);
      const one = restore(trained);
      const answered = await firstAnswer(measured, one, state);
      return { ...answered, asked: one.statistics().prefetched_bytes, restorer: one.statistics().total_us * 1000 };
    };
    warm[measured.title] = () => restored(false);
    cold[`${measured.title}, cold`] = () => restored(true);
  }
  // One after the other: what was dropped from the page cache comes back only where it is used.
  const runs = { ...(await alternate(warm)), ...(await alternate(cold)) };
  const walls = (measured) => runs[measured.title].map((run) => run.wall);
  console.log(`  first answer that needs ${mebibytes(needed)}, concurrent LZ4, ${TRAINING_RUNS} training runs`);
  table(
    ['', 'first answer', 'until threads go on', 'CPU time', 'read ahead of them'],
    Object.entries(runs).map(([way, measurements]) => {
      const middle = (name) => median(measurements.map((run) => run[name]));
      return [way, milliseconds(middle('wall')), milliseconds(middle('restorer')), milliseconds(middle('cpu')), mebibytes(middle('asked'))];
    }),
  );
  const grown = ratio(walls(large), walls(small));
  verdict(`first answer from ${large.title} within 1.3 of that from ${small.title}`, showRatio(grown), grown.median <= 1.3);
  console.log();
  return { needed, runs };
}

/** Proportional set size of a process, bytes. */
const proportional = (pid) => Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]) * 1024;

/** Replicas of one image share what they have not written to. Programs that listen on a port cannot be had twice: the one in C stands for all. */
async function density(measured) {
  const { plain, state } = await capturedAs(measured);
  const measure = async (make) => {
    const programs = [];
    for (let i = 0; i < REPLICAS; i++) {
      programs.push(make());
      await measured.answer(programs.at(-1), 0, state);
    }
    const each = programs.map(({ pid }) => proportional(pid));
    await Promise.all(programs.map((program) => program.kill()));
    return each;
  };
  const restored = await measure(() => restore(plain));
  const started = await measure(() => start(measured.command));
  console.log(`  ${REPLICAS} replicas of ${measured.title}, proportional set size of each`);
  table(
    ['', 'memory'],
    [
      ['restored, direct-mapped', mebibytes(median(restored))],
      ['started', mebibytes(median(started))],
    ],
  );
  console.log();
  return { program: measured.name, restored, started };
}

const isPeer = (way) => /^(CRIU|DMTCP)/.test(way);

/** The picture of a program's first answers. */
function barsOf({ title, runs }) {
  const bars = Object.entries(runs).map(([way, measurements]) => ({
    label: way === 'plain start' || isPeer(way) ? way : `restore, ${way}`,
    value: median(measurements.map((run) => run.wall)),
    ours: way !== 'plain start' && !isPeer(way),
  }));
  return { title: `${title}: from exec to the first answer`, bars };
}

export async function answer(options) {
  const results = [];
  const { servers, small } = await answeringPrograms(options);
  for (const measured of servers) {
    const lack = lacks(3 * measured.bytes);
    if (lack) {
      console.log(`  ${measured.title}: skipped: ${lack}`);
      continue;
    }
    results.push(await measureProgram(measured));
  }
  const picture = resultPath('first-answer.svg');
  plotBars(picture, results.map(barsOf), milliseconds);
  console.log(`  drawn in ${picture}\n`);
  results.push(await density(small));
  return results;
}
