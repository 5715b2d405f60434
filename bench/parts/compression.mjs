/**
 * Compressed capture and restore beside `lz4 -1` and `lz4 -d` over the same bytes with as many threads, and a restore that reads a plain image
 * beside copying as much memory into fresh pages; encrypted capture and restore beside the same without encryption, and `openssl speed`.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { executables, helper, lacks, MiB } from '../support/host.mjs';
import { checkpoint, contentParts, firstAnswer, measuredPrograms, newPath, restore, start, together } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, throughput, verdict } from '../support/report.mjs';

const aim = 0.8;
const threads = availableParallelism();

/** Runs one lz4 per part, all at once. */
const lz4 = async (bytes, parts, args) => ({
  bytes,
  ...(await together(parts.map((part) => [executables.lz4, '-q', '-f', ...args(part)]))),
});

/** What AES-256-GCM takes for so many bytes, with all threads and nothing else; null without openssl. */
const openssl = (bytes, flags) => {
  if (!executables.openssl) return null;
  const args = ['speed', ...flags, '-multi', threads, '-seconds', 1, '-bytes', 262_144, '-evp', 'aes-256-gcm'].map(String);
  const { stdout } = spawnSync(executables.openssl, args, { encoding: 'utf8' });
  const thousands = /([\d.]+)k\s*$/.exec(stdout)?.[1];
  return { bytes, wall: (bytes / (Number(thousands) * 1000)) * 1e9 };
};

async function measure(measured) {
  const program = start(measured.command, { engine: true });
  const state = await measured.warmUp(program);
  const plain = await checkpoint(program, ['--leave-running']);
  const parts = contentParts(plain.image, threads);
  const bytes = plain.statistics.content_bytes;
  const writer = start([executables.plain_write, newPath('plain')]);
  /** Leaves the same ground before everything that writes files. */
  const prepare = async () => {
    writer.child.stdin.write(`prepare ${bytes}\n`);
    await writer.line(/prepared\n/);
  };
  const keyFile = newPath('key');
  writeFileSync(keyFile, randomBytes(32), { mode: 0o644 }); // the programs run as another user
  const key = ['--encryption-key-file', keyFile];
  let image;
  let stored;
  let sealed;
  let sealedPlain;
  const captured = async (args) => {
    await prepare();
    const { image: made, statistics } = await checkpoint(program, ['--leave-running', ...args]);
    const { total_us: total, sync_us: sync, paused_us: paused } = statistics;
    return { made, statistics, bytes: statistics.content_bytes, wall: (total - sync) * 1000, stopped: paused * 1000 };
  };
  const capture = await alternate({
    ours: async () => {
      if (image) rmSync(image, { recursive: true });
      const measurement = await captured(['--compression', 'lz4']);
      image = measurement.made;
      stored = measurement.statistics.stored_bytes;
      return measurement;
    },
    plain: async () => {
      const measurement = await captured([]);
      rmSync(measurement.made, { recursive: true });
      return measurement;
    },
    encrypted: async () => {
      if (sealed) rmSync(sealed, { recursive: true });
      const measurement = await captured(['--compression', 'lz4', ...key]);
      sealed = measurement.made;
      return measurement;
    },
    encryptedPlain: async () => {
      if (sealedPlain) rmSync(sealedPlain, { recursive: true });
      const measurement = await captured(key);
      sealedPlain = measurement.made;
      return measurement;
    },
    openssl: () => openssl(bytes, []),
    lz4: async () => {
      await prepare();
      return lz4(bytes, parts, (part) => ['-1', part, `${part}.lz4`]);
    },
  });
  const packed = parts.reduce((sum, part) => sum + statSync(`${part}.lz4`).size, 0);
  await program.kill();
  await writer.kill();

  const restored = async (from, args, known) => {
    const one = restore(from, args);
    const { cpu } = await firstAnswer(measured, one, known);
    const { total_us: total, eager_bytes: memory, object_bytes: objects } = one.statistics();
    return { bytes: memory + objects, wall: total * 1000, cpu };
  };
  const memory = (part) => join('/dev/shm', part.split('/').at(-1));
  let load;
  try {
    load = await alternate({
      ours: () => restored(image, ['--no-concurrent'], state),
      concurrent: async () => {
        const one = restore(image, ['--concurrent', '--load-concurrency', threads, '--load-trace', newPath('trace')]);
        await measured.answer(one);
        const measurement = await one.loaded();
        await one.kill();
        return measurement;
      },
      lz4: () => lz4(bytes, parts, (part) => ['-d', `${part}.lz4`, memory(part)]),
      discard: () => lz4(bytes, parts, (part) => ['-d', `${part}.lz4`, '/dev/null']),
      encrypted: () => restored(sealed, ['--no-concurrent', ...key], state),
      encryptedPlain: () => restored(sealedPlain, ['--no-concurrent', ...key], state),
      openssl: () => openssl(bytes, ['-decrypt']),
      eager: () => restored(plain.image, ['--no-direct-map'], state),
      copy: async () => {
        const [, wall, cpu] = /wall (\d+) cpu (\d+)/.exec(await helper('fresh_copy', [bytes, threads])).map(Number);
        return { bytes, wall, cpu };
      },
    });
  } finally {
    for (const part of parts) for (const path of [part, `${part}.lz4`, memory(part)]) rmSync(path, { force: true });
    for (const path of [plain.image, image, sealed, sealedPlain, keyFile]) rmSync(path, { recursive: true });
  }
  return { program: measured.name, bytes, stored, packed, capture, load };
}

function show(measured, { bytes, stored, packed, capture, load }) {
  const speeds = (runs) => runs.map((run) => run.bytes / run.wall);
  const row = (title, runs, peer) => [
    title,
    throughput(median(speeds(runs))),
    runs[0].cpu ? milliseconds(median(runs.map((run) => run.cpu))) : '',
    peer ? showRatio(ratio(speeds(runs), speeds(peer))) : '',
  ];
  const share = (size) => `${(bytes / size).toFixed(2)} times smaller`;
  console.log(`  ${measured.title}: ${(bytes / MiB).toFixed(0)} MiB; image ${share(stored)}, lz4 -1 ${share(packed)}; ${threads} threads`);
  table(
    ['', 'content', 'CPU time', 'ratio'],
    [
      row('lz4 -1, file to file', capture.lz4),
      row('capture, LZ4, left running', capture.ours, capture.lz4),
      row('capture, plain, left running', capture.plain),
      ...(capture.openssl[0] ? [row('openssl speed, AES-256-GCM', capture.openssl)] : []),
      row('capture, LZ4, encrypted, left running', capture.encrypted, capture.ours),
      row('capture, plain, encrypted, left running', capture.encryptedPlain, capture.plain),
      row('lz4 -d, into memory (/dev/shm)', load.lz4),
      row('lz4 -d, to /dev/null', load.discard),
      row('restore from LZ4, all of it', load.ours, load.lz4),
      row('restore from LZ4, while it runs', load.concurrent, load.lz4),
      ...(load.openssl[0] ? [row('openssl speed, AES-256-GCM, decrypting', load.openssl)] : []),
      row('restore from LZ4, encrypted, all of it', load.encrypted, load.ours),
      row('restore from a plain image, encrypted', load.encryptedPlain, load.eager),
      row('memcpy into fresh pages', load.copy),
      row('restore from a plain image, eager', load.eager, load.copy),
    ],
  );
  const stopped = (runs) => runs.map((run) => run.stopped);
  const [ours, plain] = [stopped(capture.ours), stopped(capture.plain)];
  console.log(
    `  program stopped for ${milliseconds(median(ours))}, without compression ${milliseconds(median(plain))}: ${showRatio(ratio(ours, plain))}`,
  );
  for (const [title, runs, peer] of [
    ['compressed capture of', capture.ours, capture.lz4],
    ['LZ4 restore of', load.ours, load.lz4],
    ['concurrent LZ4 restore of', load.concurrent, load.lz4],
    ['eager plain restore of', load.eager, load.copy],
  ]) {
    const value = ratio(speeds(runs), speeds(peer)).median;
    verdict(`${title} ${measured.title} at ${aim} of ${peer === load.copy ? 'memcpy' : 'lz4'} or better`, value.toFixed(2), value >= aim);
  }
  console.log();
}

export async function compression(options) {
  if (!executables.lz4) {
    console.log('  skipped: lz4 is not installed; on Debian: apt-get install lz4');
    return { skipped: 'no lz4' };
  }
  const results = [];
  for (const measured of await measuredPrograms(options)) {
    const lack = lacks(3 * measured.bytes);
    if (lack) {
      console.log(`  ${measured.title}: skipped: ${lack}`);
      continue;
    }
    const result = await measure(measured);
    show(measured, result);
    results.push(result);
  }
  return results;
}
