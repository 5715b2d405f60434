/**
 * Generations of Tomcat 10: captured, restored, first answer, loaded again by siege, and again. Does what the compiler did stay, and how soon and with how
 * much memory does it answer, beside a plain start under the same load?
 */
import { readFileSync, rmSync } from 'node:fs';
import { MiB, executables, lacks } from '../support/host.mjs';
import { checkpoint, complete, restore, start, tomcatProgram } from '../support/program.mjs';
import { median, milliseconds, table, verdict } from '../support/report.mjs';

const CLIENTS = 4;

/** Methods compiled until now, and the time that took: what the virtual machine publishes for jstat (hsperfdata). */
async function compiler(pid) {
  const { stdout } = await complete(executables.jstat, ['-compiler', pid]);
  const [, compiled, , , seconds] = /^\s*(\d+)\s+(\d+)\s+(\d+)\s+([\d.,]+)/m.exec(stdout);
  return { methods: Number(compiled), time: Number(seconds.replace(',', '.')) * 1e9 };
}

/** The most that was resident of a process until now, bytes. */
const peak = (pid) => Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

/** The first answer of a program that was just started, then the load. `earlier`: what the compiler had done before. */
async function life(measured, program, repetitions, earlier = { methods: 0, time: 0 }) {
  const first = await measured.answer(program);
  const firstAnswer = Number(first.at - program.executed);
  const peakAtFirst = peak(program.pid);
  const began = process.hrtime.bigint();
  await complete(executables.siege, ['-q', '-b', '-c', CLIENTS, '-r', repetitions, `http://127.0.0.1:${measured.port}/1`]);
  const load = Number(process.hrtime.bigint() - began);
  const after = await compiler(program.pid);
  const state = await measured.answer(program);
  return {
    first,
    state,
    after,
    measures: {
      firstAnswer,
      peakAtFirst,
      load,
      peakAfterLoad: peak(program.pid),
      methods: after.methods - earlier.methods,
      compilation: after.time - earlier.time,
    },
  };
}

export async function tomcat({ quick }) {
  if (!executables.siege || !executables.java || !executables.jstat) {
    console.log('  skipped: it needs siege and a JDK (Debian: apt-get install siege openjdk-17-jdk-headless)\n');
    return { skipped: true };
  }
  const measured = await tomcatProgram(quick ? 200 : 2000);
  if (!measured) return { skipped: true };
  const lack = lacks(2 * measured.bytes);
  if (lack) {
    console.log(`  skipped: ${lack}\n`);
    return { skipped: lack };
  }
  const [generations, repetitions, starts] = quick ? [3, 200, 1] : [20, 500, 3];

  const plain = [];
  for (let i = 0; i < starts; i++) {
    const program = start(measured.command);
    plain.push((await life(measured, program, repetitions)).measures);
    await program.kill();
  }

  // As `warp-tool run` starts it: the agent has restored processes publish their counters under their new id.
  const [java, ...options] = measured.command;
  let program = start([java, `-agentpath:${executables['libwarp.so']}=${executables['warp-crac.jar']}`, ...options], { engine: true });
  await measured.warmUp(program);
  let { state, after } = await life(measured, program, repetitions);
  const restored = [];
  for (let generation = 0; generation < generations; generation++) {
    const { image } = await checkpoint(program);
    program = restore(image);
    const lived = await life(measured, program, repetitions, after);
    if (lived.first.answers !== state.answers + 1 || lived.first.startedAt !== state.startedAt || lived.first.pages !== state.pages)
      throw new Error(`generation ${generation + 1} has other state: ${JSON.stringify(lived.first)} after ${JSON.stringify(state)}`);
    ({ state, after } = lived);
    restored.push(lived.measures);
    rmSync(image, { recursive: true });
  }
  await program.kill();

  const row = (name, all) => {
    const middle = (what) => median(all.map((one) => one[what]));
    return [
      name,
      milliseconds(middle('firstAnswer')),
      `${(middle('peakAtFirst') / MiB).toFixed(0)} MiB`,
      milliseconds(middle('load')),
      `${(middle('peakAfterLoad') / MiB).toFixed(0)} MiB`,
      middle('methods').toFixed(0),
      milliseconds(middle('compilation')),
    ];
  };
  const requests = CLIENTS * repetitions;
  console.log(`  ${measured.pages} pages kept; load: ${requests} requests of ${CLIENTS} clients`);
  table(
    ['', 'first answer', 'peak then', 'load', 'peak then', 'methods compiled', 'time of that'],
    [
      row(`plain start (${starts})`, plain),
      row('generation 1', restored.slice(0, 1)),
      row(`generations 2 to ${generations}`, restored.slice(1)),
      row(`the last`, restored.slice(-1)),
    ],
  );
  const compilation = (all) => median(all.map((one) => one.compilation));
  const share = compilation(restored) / compilation(plain);
  verdict(
    'Tomcat: compiled code is kept: a restored one compiles for less than half of the time of a plain start',
    share.toFixed(2),
    share < 0.5,
  );
  const sooner = median(plain.map((one) => one.firstAnswer)) / median(restored.map((one) => one.firstAnswer));
  verdict('Tomcat: first answer 20 times sooner than a plain start', sooner.toFixed(1), sooner >= 20);
  console.log();
  return { requests, plain, restored };
}
