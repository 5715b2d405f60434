#!/usr/bin/env node
/**
 * Measures the engine beside what limits it, prints tables and a verdict on each aim, and writes bench/results/latest.json.
 * docs/benchmarks.md tells what each figure means.
 */
import { parseArgs } from 'node:util';
import { answer, growth } from './parts/answer.mjs';
import { capture } from './parts/capture.mjs';
import { compression } from './parts/compression.mjs';
import { cost } from './parts/cost.mjs';
import { inspect } from './parts/inspect.mjs';
import { inspectSize } from './parts/inspect-size.mjs';
import { phases } from './parts/phases.mjs';
import { restore } from './parts/restore.mjs';
import { size } from './parts/size.mjs';
import { startup } from './parts/startup.mjs';
import { tomcat } from './parts/tomcat.mjs';
import { build, describeHost, scratch, writeResults } from './support/host.mjs';
import { rounds, verdicts } from './support/report.mjs';

const parts = {
  capture: ['Capture, beside a plain write of as many bytes to the same file system', capture],
  restore: ['From exec to the first answer, page cache warm', restore],
  answer: ['From exec to the first answer, by every way in which memory comes back', answer],
  tomcat: ['Tomcat 10 over generations, beside its plain start', tomcat],
  growth: ['From exec to the first answer, of a small and a large image that need as little for it', growth],
  size: ['Restore of a small and a large image', size],
  phases: ['One checkpoint and its restores, microseconds and bytes', phases],
  'inspect-size': ['Looking into large images, beside one of 10 MiB', inspectSize],
  startup: ['Start of a command on a small image, beside Node.js alone', startup],
  compression: ['LZ4 capture and restore, beside lz4 and memcpy over the same bytes', compression],
  inspect: ['Going through all of an image, beside what does the like to its bytes', inspect],
  cost: ['Cost of the engine in a running program', cost],
};

const usage = `usage: npm run bench -- [--only PART] [--quick]

  --only PART  one of ${Object.keys(parts).join(', ')}; may be given more than once
  --quick      an eighth to a quarter of the sizes: to see that everything works, not to quote
`;

function options() {
  const { values } = parseArgs({
    options: { only: { type: 'string', multiple: true }, quick: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  const unknown = values.only?.find((name) => !(name in parts));
  if (unknown) throw new Error(`--only ${unknown}: choose ${Object.keys(parts).join(', ')}`);
  return { quick: false, ...values };
}

async function main() {
  const { only = Object.keys(parts), quick, help } = options();
  if (help) return process.stdout.write(usage);
  build();
  const host = describeHost();
  console.log(
    `${host.processors} x ${host.processor}, Linux ${host.kernel}, Node.js ${host.node}, Java ${host.java ?? 'not installed: the JVM is left out'}`,
  );
  console.log(
    `images on ${host.fileSystem} (${scratch}), programs run as user ${host.user}; medians of ${rounds} alternating runs (least-greatest)`,
  );
  const results = { date: new Date().toISOString(), host, quick, rounds, parts: {}, verdicts };
  for (const [name, [title, measure]] of Object.entries(parts)) {
    if (!only.includes(name)) continue;
    console.log(`\n${name}: ${title}\n`);
    results.parts[name] = await measure({ quick });
  }
  if (verdicts.length > 0) console.log('\nverdicts');
  for (const { aim, value, met } of verdicts) console.log(`  ${met ? 'met   ' : 'missed'}  ${aim}: ${value}`);
  console.log(`\n${writeResults(results)}`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(130));
try {
  await main();
} catch (error) {
  console.error(`bench: ${error.message}`);
  process.exitCode = 2;
}
process.exit();
