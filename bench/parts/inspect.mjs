/**
 * Commands that go through all of an image, each beside the ordinary tool that does the like to the same bytes with as many threads: one process for
 * each part of the content, all at once.
 */
import { rmSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { buildTool, executables, lacks, MiB } from '../support/host.mjs';
import { checkpoint, contentParts, largePrograms, newPath, start, together } from '../support/program.mjs';
import { alternate, median, milliseconds, ratio, showRatio, table, throughput, verdict } from '../support/report.mjs';

const aim = 0.7;
const threads = availableParallelism();
/** No program holds the first; all hold the second, in their environment. */
const [absent, present] = ['a text that is nowhere in there', 'PATH='];

/** Images of one moment, plain and compressed, of a little later, and their content for other tools. */
async function prepare(measured) {
  const program = start(measured.command, { engine: true });
  await measured.warmUp(program);
  const { image: before, statistics } = await checkpoint(program, ['--leave-running']);
  for (let number = 0; number < 20; number++) await measured.answer(program, number);
  const { image: after } = await checkpoint(program);
  const images = { before, after };
  for (const name of ['before', 'after']) {
    images[`${name}Compressed`] = newPath('compressed');
    await tool(['compress', images[name], '-o', images[`${name}Compressed`]]);
  }
  const parts = contentParts(before, threads);
  if (executables.lz4) await lz4(parts, (part) => ['-1', part, `${part}.lz4`]);
  return { images, parts, bytes: statistics.content_bytes };
}

const tool = (args, statuses) => together([[executables.node, executables.tool, ...args]], statuses);
const perPart = (parts, command, statuses) => together(parts.map(command), statuses);
const lz4 = (parts, args) => perPart(parts, (part) => [executables.lz4, '-q', '-f', ...args(part)]);
const shell = (parts, script, statuses) => perPart(parts, (part) => ['/bin/sh', '-c', script, 'sh', part], statuses);

/** What writes files does so into memory, where no disk disturbs, or to the disk and until it is durable; and is removed again. */
async function writing(where, work) {
  const path = where === 'memory' ? join('/dev/shm', `${newPath('output').split('/').slice(-2).join('-')}`) : newPath('output');
  try {
    return await work(path);
  } finally {
    for (let index = 0; index < threads; index++) rmSync(`${path}.${index}`, { force: true });
    rmSync(path, { recursive: true, force: true });
  }
}

function writingPeer(where, parts, command) {
  const script = `set -e; "$1" ${command} "$2" "$3"${where === 'disk' ? '; sync "$3"' : ''}`;
  return () =>
    writing(where, (path) =>
      together(parts.map((part, index) => ['/bin/sh', '-c', script, 'sh', executables.lz4, part, `${path}.${index}`])),
    );
}

/** [title, the peer's name, ours, the peer, the command that it needs] */
function comparisons({ images, parts }) {
  const { before, after, beforeCompressed, afterCompressed } = images;
  const packed = parts.map((part) => `${part}.lz4`);
  const found = ['status 0', 'status 1']; // of grep, `mem` and `diff`: something was found, or nothing
  const grep = (text) => () => perPart(parts, (part) => [executables.grep, '-c', '-a', '-F', text, part], found);
  const unpackAndGrep = `"${executables.lz4}" -dc "$1" | LC_ALL=C "${executables.grep}" -c -a -F "${absent}"`;
  const search = (image, text) => () => tool(['mem', image, '--text', text], found);
  const rows = [
    [
      'validate',
      'xxhsum -H1',
      () => tool(['validate', before]),
      () => perPart(parts, (part) => [executables.xxhsum, '-H1', part]),
      'xxhsum',
    ],
    ['diff --memory', 'cmp of equal files', () => tool(['diff', before, after, '--memory'], found), () => cmp(before, parts), 'cmp'],
    ['mem --text, nowhere', 'grep -c -a -F', search(before, absent), grep(absent), 'grep'],
    ['mem --text, some places', 'grep -c -a -F', search(before, present), grep(present), 'grep'],
    ['validate, compressed', 'lz4 -t', () => tool(['validate', beforeCompressed]), () => lz4(packed, (part) => ['-t', part]), 'lz4'],
    [
      'diff --memory, compressed',
      'lz4 -t of both',
      () => tool(['diff', beforeCompressed, afterCompressed, '--memory'], found),
      () => shell(packed, `"${executables.lz4}" -t -q "$1" && "${executables.lz4}" -t -q "$1"`),
      'lz4',
    ],
    [
      'mem --text, compressed',
      'lz4 -dc | grep -c -a -F',
      search(beforeCompressed, absent),
      () => shell(packed, unpackAndGrep, found),
      'lz4',
    ],
  ];
  for (const [where, title] of [
    ['memory', 'into memory'],
    ['disk', 'to disk, fsync'],
  ]) {
    const ours = (name, image) => () => writing(where, (path) => tool([name, image, '-o', path]));
    rows.push(
      [`compress, ${title}`, 'lz4 -1', ours('compress', before), writingPeer(where, parts, '-q -f -1'), 'lz4'],
      [`decompress, ${title}`, 'lz4 -d', ours('decompress', beforeCompressed), writingPeer(where, packed, '-q -f -d'), 'lz4'],
    );
  }
  return rows;
}

/** Each part beside the place in the image that it was copied from: nothing differs, for cmp ends where something does. */
function cmp(image, parts) {
  const file = join(image, 'core.img');
  let offset = statSync(file).size - parts.reduce((sum, part) => sum + statSync(part).size, 0);
  return perPart(parts, (part) => {
    const { size } = statSync(part);
    const command = [executables.cmp, `--ignore-initial=${offset}:0`, `--bytes=${size}`, file, part];
    offset += size;
    return command;
  });
}

async function measure(measured, rounds) {
  const prepared = await prepare(measured);
  const { images, parts, bytes } = prepared;
  const results = [];
  try {
    for (const [title, peer, ours, theirs, needs] of comparisons(prepared)) {
      if (!executables[needs]) {
        console.log(`  ${title}: skipped: ${needs} is not installed`);
        continue;
      }
      const runs = await alternate({ ours, theirs }, rounds);
      results.push({ title, peer, ...runs });
    }
    const size = (image) => statSync(join(image, 'core.img')).size;
    return { program: measured.name, bytes, plain: size(images.before), compressed: size(images.beforeCompressed), results };
  } finally {
    for (const part of parts) for (const path of [part, `${part}.lz4`]) rmSync(path, { force: true });
    for (const image of Object.values(images)) rmSync(image, { recursive: true });
  }
}

function show(measured, { bytes, plain, compressed, results }) {
  console.log(
    `  ${measured.title}: ${(bytes / MiB).toFixed(0)} MiB, compressed to ${((100 * compressed) / plain).toFixed(0)} %; ${threads} threads`,
  );
  const speed = (runs) => throughput(bytes / median(runs.map(({ wall }) => wall)));
  const time = (runs, kind) => runs.map((run) => run[kind]);
  table(
    ['', 'ours', 'CPU time', 'limit', '', 'CPU time', 'ratio', 'by CPU time'],
    results.map(({ title, peer, ours, theirs }) => [
      title,
      speed(ours),
      milliseconds(median(time(ours, 'cpu'))),
      peer,
      speed(theirs),
      milliseconds(median(time(theirs, 'cpu'))),
      ...['wall', 'cpu'].map((kind) => showRatio(ratio(time(theirs, kind), time(ours, kind)))),
    ]),
  );
  for (const { title, peer, ours, theirs } of results) {
    const value = ratio(time(theirs, 'wall'), time(ours, 'wall')).median;
    verdict(`${title} of ${measured.title} at ${aim} of ${peer} or better`, value.toFixed(2), value >= aim);
  }
  console.log();
}

export async function inspect(options) {
  buildTool();
  const results = [];
  for (const measured of await largePrograms(options)) {
    const lack = lacks(4 * measured.bytes);
    if (lack) {
      console.log(`  ${measured.title}: skipped: ${lack}`);
      continue;
    }
    const result = await measure(measured, options.quick ? 3 : 5);
    show(measured, result);
    results.push(result);
  }
  return results;
}
