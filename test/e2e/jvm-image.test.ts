/** What an image tells about a Java virtual machine, against what the JDK's own tools said just before the capture. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AddressSpace } from '../../src/elf/address-space.js';
import { Image } from '../../src/elf/image.js';
import { openJvm } from '../../src/elf/java.js';
import type { JavaFrame } from '../../src/elf/jvm/frames.js';
import type { JavaHeap } from '../../src/elf/jvm/heap.js';
import type { Jvm } from '../../src/elf/jvm/jvm.js';
import { summarise } from '../../src/elf/jvm/summary.js';
import type { JavaThread } from '../../src/elf/jvm/threads.js';
import { schemas } from '../../src/schemas/index.js';
import type { Static } from '../../src/schemas/builder.js';
import type { maps as mapsSchema, show as showSchema, threads as threadsSchema } from '../../src/schemas/index.js';
import { command, makeDirectory } from './support/host.js';
import {
  compileJava,
  type DumpedThread,
  type Facts,
  factsOf,
  jcmd,
  type Jdk,
  jdks,
  parseThreadDump,
  startInspected,
} from './support/jvm.js';
import { checkpoint, checkpointAndEnd, killAll, restore, run, warpTool } from './support/program.js';

const [first, ...others] = command('javac') ? jdks() : [];

interface Case {
  title: string;
  jdk: Jdk;
  flags: string[];
}

/** The JDK of PATH with every collector, without compressed pointers, interpreted only; other JDKs with two collectors. */
const cases: Case[] = [];
const add = (jdk: Jdk, title: string, ...flags: string[]): number =>
  cases.push({ title: `${jdk.name}, ${title}`, jdk, flags: ['-Xmx256m', ...flags] });
if (first) {
  for (const collector of ['Serial', 'Parallel', 'G1', 'Z']) add(first, collector, `-XX:+Use${collector}GC`);
  add(first, 'G1 without compressed pointers', '-XX:+UseG1GC', '-XX:-UseCompressedOops', '-XX:-UseCompressedClassPointers', '-Xshare:off');
  add(first, 'Serial, interpreted', '-XX:+UseSerialGC', '-Xint');
}
for (const jdk of others) for (const collector of ['G1', 'Z']) add(jdk, collector, `-XX:+Use${collector}GC`);

/** What the JDK says of a process, and an image of it at that moment. */
interface Captured {
  facts: Facts;
  image: string;
}

/** Captures until the JDK says the same before and after: threads of the virtual machine may still have been at work. */
async function capture({ jdk, flags }: Case, classes: string): Promise<Captured> {
  const target = await startInspected(jdk, classes, flags, { args: ['spin'] });
  for (let attempt = 0; attempt < 10; attempt++) {
    const facts = await factsOf(jdk, target);
    const image = await checkpoint(target, ['--leave-running']);
    const after = await factsOf(jdk, target);
    if (isDeepStrictEqual({ ...facts, threads: withoutFrames(facts.threads) }, { ...after, threads: withoutFrames(after.threads) })) {
      await target.kill();
      return { facts, image };
    }
    rmSync(image, { recursive: true });
  }
  throw new Error('the JVM does not come to rest');
}

/** Little address space: gcore writes what is only reserved, too. */
const small = ['-XX:+UseG1GC', '-Xmx48m', '-XX:ReservedCodeCacheSize=24m', '-XX:CompressedClassSpaceSize=8m'];

/** Core files of a JVM: by gcore, and by the kernel when it is told to abort. What is not possible here is missing. */
async function foreignCores(jdk: Jdk, classes: string): Promise<{ dump: DumpedThread[]; paths: Map<string, string> }> {
  const directory = makeDirectory();
  const target = await startInspected(jdk, classes, small, { directory, environment: { MALLOC_ARENA_MAX: '1' }, coreFile: true });
  const dump = parseThreadDump(await jcmd(jdk, target, 'Thread.print'));
  const program = command('gcore');
  if (program) await run(program, ['-o', join(directory, 'gcore'), String(target.pid)]).ended;
  target.child.kill('SIGABRT');
  await target.ended;
  const files = readdirSync(directory);
  const found = { gcore: files.find((name) => name.startsWith('gcore.')), kernel: files.find((name) => name.startsWith('core')) };
  return { dump, paths: new Map(Object.entries(found).flatMap(([writer, name]) => (name ? [[writer, join(directory, name)]] : []))) };
}

async function withJvm<T>(path: string, work: (jvm: Jvm, image: Image) => Promise<T>): Promise<T> {
  const image = await Image.open(path);
  const space = new AddressSpace(image);
  try {
    const jvm = await openJvm(space);
    if (jvm === null || typeof jvm === 'string') throw new Error(`no JVM: ${jvm}`);
    return await work(jvm, image);
  } finally {
    await space.close();
    await image.close();
  }
}

/** A frame as a thread dump writes it. */
function dumped({ method, line }: JavaFrame): string {
  const where = method!.isNative
    ? 'Native Method'
    : method!.file === null
      ? 'Unknown Source'
      : `${method!.file}${line === null ? '' : `:${line}`}`;
  return `${method!.className}.${method!.name}(${where})`;
}

/** The Java threads of an image, as a thread dump has them. */
function threadsOf(path: string): Promise<{ problems: string[]; threads: Omit<DumpedThread, 'frames'>[] }> {
  return withJvm(path, async (jvm) => {
    const threads = (await jvm.threads()).map(({ name, address, tid, state, daemon }) => ({
      name: name!,
      address,
      tid,
      state,
      daemon: daemon!,
    }));
    return { problems: jvm.problems, threads };
  });
}

function withoutFrames(dump: readonly DumpedThread[]): Awaited<ReturnType<typeof threadsOf>> {
  return { problems: [], threads: dump.map(({ frames: _, ...thread }) => thread) };
}

/** The Java frames of an image by thread, as a thread dump has them, and how the walk of each thread ended. */
function framesOf(path: string): Promise<Record<string, string[]>> {
  return withJvm(path, async (jvm, image) => {
    const found: Record<string, string[]> = {};
    for (const thread of await jvm.threads()) {
      const kernel = image.threads().find(({ record, status }) => (record?.fs_base ?? status.registers.fs_base) === thread.pthread)!;
      const { frames, ending } = (await jvm.stack(thread, kernel.status.registers, 256))!;
      const methods = frames.filter(({ method }) => method !== null).map(dumped);
      found[thread.name!] = [...still(thread.name!, methods), ending];
    }
    return found;
  });
}

function framesIn(dump: readonly DumpedThread[]): Record<string, string[]> {
  return Object.fromEntries(dump.map(({ name, frames }) => [name, [...still(name, frames), frames.length > 0 ? 'first' : 'none']]));
}

/** A thread that computes was elsewhere in the same method when the dump was made. */
function still(name: string, frames: string[]): string[] {
  if (name !== 'spins') return frames;
  return frames.filter((frame) => !frame.startsWith('Inspected.step(')).map((frame) => frame.replace(/spinHere\(.*/, 'spinHere'));
}

/** Parts of `jcmd GC.heap_info` that a heap must make. */
function heapLines({ collector, committed, used, spaces }: JavaHeap, version: number): string[] {
  const kib = (bytes: bigint): string => `${bytes >> 10n}K`;
  const hex = (address: bigint): string => `0x${address.toString(16).padStart(16, '0')}`;
  if (collector === 'Z') return [`used ${used >> 20n}M, capacity ${committed >> 20n}M, max capacity 256M`];
  if (collector === 'G1') {
    const young = spaces.filter(({ name }) => name === 'eden' || name === 'survivor');
    const regions = young.reduce((total, space) => total + space.regions!, 0);
    const amounts = version < 23 ? `total ${kib(committed)}, used ${kib(used)}` : `committed ${kib(committed)}, used ${kib(used)}`;
    return [amounts, `${regions} young (${regions << 10}K)`];
  }
  return spaces.map(({ capacity, ranges: [range] }) => {
    const { start, top } = range!;
    const separator = collector === 'Parallel' ? ',' : ', ';
    return `${kib(capacity)}, ${((top - start) * 100n) / capacity}% used [${hex(start)}${separator}${hex(top)}${separator}`;
  });
}

describe.skipIf(!first)('an image of a JVM (where a JDK is installed; on Debian: apt-get install openjdk-17-jdk-headless)', () => {
  let classes: string;
  beforeAll(() => {
    classes = compileJava('Inspected');
  });
  afterAll(killAll);

  describe.each(cases)('$title', (one) => {
    let captured: Captured;
    beforeAll(async () => {
      captured = await capture(one, classes);
    });
    afterAll(killAll);

    it('has the Java threads of the thread dump', async () => {
      expect(await threadsOf(captured.image)).toEqual(withoutFrames(captured.facts.threads));
    });

    it('has their frames', async () => {
      expect(await framesOf(captured.image)).toEqual(framesIn(captured.facts.threads));
    });

    it('has the flags of VM.flags', async () => {
      await withJvm(captured.image, async ({ vm }) => {
        const { flags, flagsSet } = captured.facts;
        const found: Record<string, string | null> = {};
        for (const name of Object.keys(flags)) found[name] = await vm.flags.value(name);
        expect(found).toEqual(flags);
        expect((await vm.flags.set()).map(({ name }) => name)).toEqual(expect.arrayContaining(flagsSet));
      });
    });

    it('has the heap of GC.heap_info', async () => {
      await withJvm(captured.image, async (jvm) => {
        const heap = (await jvm.heap())!;
        expect(jvm.problems).toEqual([]);
        expect(one.flags).toContain(`-XX:+Use${heap.collector}GC`);
        expect(heap.maximum).toBe(256n << 20n);
        for (const text of heapLines(heap, one.jdk.version)) expect(captured.facts.heap).toContain(text);
      });
    });

    it('has the code cache of Compiler.codecache', async () => {
      await withJvm(captured.image, async (jvm) => {
        const parts = (await jvm.codeCache())!;
        const shown = parts.map(({ name, start, reservedEnd, used }) => ({
          name,
          size: Number(reservedEnd - start) >> 10,
          used: Number(used) >> 10,
        }));
        expect(shown).toEqual(captured.facts.codeCache);
        expect(parts.reduce((total, { methods }) => total + methods, 0)).toBe(captured.facts.methods);
      });
    });

    it('has the classes of VM.metaspace', async () => {
      await withJvm(captured.image, async (jvm) => {
        const { classes: loaded, shared, metaspace } = (await jvm.classes())!;
        expect({ loaded, shared }).toEqual(captured.facts.classes);
        const committed = metaspace.reduce((total, { start, end }) => total + (end - start), 0n);
        if (captured.facts.metaspaceCommitted !== null) expect(Number(committed >> 10n)).toBe(captured.facts.metaspaceCommitted);
        else expect(committed).toBeGreaterThan(0n);
      });
    });

    it('knows how much direct buffers take and where they are', async () => {
      await withJvm(captured.image, async (jvm, image) => {
        expect(await jvm.directBuffers()).toMatchObject({ count: 3n, capacity: 15n << 20n });
        const places = (await jvm.labels()).filter(({ part }) => part === 'direct buffers');
        expect(places.map(({ start, end }) => end - start)).toEqual([5n << 20n, 5n << 20n, 5n << 20n]);
        // One of them was filled with known bytes.
        const full = places.filter(({ start, end }) => image.memory.stored(start, end) > 4n << 20n);
        expect(full).toHaveLength(1);
        const bytes = await image.memory.read(full[0]!.start, 4096);
        expect([...bytes.subarray(0, 300)]).toEqual(Array.from({ length: 300 }, (_, i) => (i >> 8) | 1));
      });
    });

    it('knows what threads wait for, and who holds it', async () => {
      await withJvm(captured.image, async (jvm) => {
        const waits = (thread: string): unknown => threads.find(({ name }) => name === thread)!.blocker;
        const threads = await jvm.threads();
        expect(waits('blocked')).toMatchObject({ how: 'locking', className: 'java.lang.Object', heldBy: 'owner' });
        expect(waits('locks')).toMatchObject({ how: 'parking', heldBy: 'main' });
        expect(waits('local class')).toMatchObject({ how: 'parking', className: 'Inspected$Task$1Local', heldBy: null });
      });
    });

    it('knows compiled frames and what was compiled into them', async () => {
      await withJvm(captured.image, async (jvm, image) => {
        const thread = (await jvm.threads()).find(({ name }) => name === 'parks in compiled code')!;
        const kernel = image.threads().find(({ record }) => record!.fs_base === thread.pthread)!;
        const { frames } = (await jvm.stack(thread, kernel.status.registers, 256))!;
        const kinds = frames.filter(({ method }) => method?.name.startsWith('compiled')).map(({ kind }) => kind);
        expect(kinds).toHaveLength(2);
        // Which of the two the compiler has got to when the image is taken is its own affair.
        if (one.flags.includes('-Xint')) expect(kinds).toEqual(['interpreted', 'interpreted']);
        else expect(kinds.some((kind) => kind === 'compiled' || kind === 'inlined')).toBe(true);
      });
    });
  });

  describe('core files of others', () => {
    let cores: Awaited<ReturnType<typeof foreignCores>>;
    beforeAll(async () => {
      cores = await foreignCores(first!, classes);
    });
    afterAll(() => cores.paths.forEach((path) => rmSync(path)));

    for (const writer of ['gcore', 'kernel']) {
      it(`${writer}: has Java threads and frames`, async (context) => {
        const path = cores.paths.get(writer);
        if (path === undefined) return context.skip(`${writer} writes no core file here`);
        expect(await threadsOf(path)).toEqual(withoutFrames(cores.dump));
        expect(await framesOf(path)).toEqual(framesIn(cores.dump));
      });
    }
  });

  it('finds objects that ZGC has moved since their references were last used', async () => {
    const path = await checkpointAndEnd(await startInspected(first!, classes, ['-XX:+UseZGC', '-Xmx256m'], { args: ['collect'] }));
    const { threads, problems } = await threadsOf(path);
    expect(problems).toEqual([]);
    const names = ['main', 'Reference Handler', 'Finalizer', 'owner', 'sleeps at depth', 'wartet-auf-Größe-你好'];
    expect(threads.map(({ name }) => name)).toEqual(expect.arrayContaining(names));
  });

  it('knows the threads of a restored process, which have other ids', async () => {
    const before = await checkpointAndEnd(await startInspected(first!, classes, ['-XX:+UseG1GC', '-Xmx256m']));
    const restored = restore(before, [], { stdin: 'pipe' });
    restored.child.stdin!.write('x');
    await restored.output(/^read$/m);
    const after = await checkpointAndEnd(restored);
    const named = async (path: string): Promise<Record<string, string>> =>
      withJvm(path, async (jvm, image) => {
        const found: Record<string, string> = {};
        for (const { tid, name, record } of image.threads()) found[(await jvm.threadAt(record!.fs_base))?.name ?? `${name} ${tid}`] = name!;
        return found;
      });
    const java = (await threadsOf(before)).threads.map(({ name }) => name);
    const [old, now] = [await named(before), await named(after)];
    for (const name of java) expect(now[name], name).toBe(old[name]);
    // Frames, too, but for the thread that read a character.
    const [frames, again] = [await framesOf(before), await framesOf(after)];
    for (const name of java) if (name !== 'main') expect(again[name], name).toEqual(frames[name]);
  });

  const withVirtual = [first, ...others].find((jdk) => jdk && jdk.version >= 21);
  it.skipIf(!withVirtual)('knows virtual threads that are carried (JDK 21 or later)', async () => {
    const target = await startInspected(withVirtual!, classes, ['-XX:+UseG1GC', '-Xmx256m', '-Djdk.virtualThreadScheduler.parallelism=2'], {
      args: ['virtual'],
    });
    const dump = await jcmd(withVirtual!, target, 'Thread.print');
    const path = await checkpointAndEnd(target);
    await withJvm(path, async (jvm, image) => {
      const carried = (name: string): JavaThread => threads.find(({ virtual }) => virtual?.endsWith(`"${name}"`))!;
      const threads = await jvm.threads();
      const stackOf = async (thread: JavaThread): Promise<JavaFrame[]> => {
        const kernel = image.threads().find(({ record }) => record!.fs_base === thread.pthread)!;
        const { frames, ending } = (await jvm.stack(thread, kernel.status.registers, 256))!;
        expect(ending).toBe('first');
        return frames;
      };
      const spinning = await stackOf(carried('spins virtually'));
      // The dump has the carrier's frames first, then those of what it carries.
      const [, id, carrier, mounted] = /Carrying virtual thread #(\d+)\n((?:\tat .*\n)*).*Mounted.*\n((?:\tat .*\n)*)/.exec(
        dump.slice(dump.indexOf(`"${carried('spins virtually').name}"`)),
      )!;
      expect(carried('spins virtually').virtual).toBe(`#${id} "spins virtually"`);
      const expected = parseThreadDump(`"x" #1 tid=0x1 nid=0x1\n${mounted}${carrier}`)[0]!.frames.map((frame) => frame.replace(/\(.*/, ''));
      const methods = (frames: JavaFrame[]): string[] =>
        frames.filter(({ method }) => method !== null).map(({ method }) => `${method!.className}.${method!.name}`);
      const enter = 'jdk.internal.vm.Continuation.enterSpecial';
      expect(methods(spinning).filter((name) => name !== enter && name !== 'Inspected.step')).toEqual(
        expected.filter((name) => name !== enter && name !== 'Inspected.step'),
      );

      // After its sleep only its innermost frames were moved back to the stack.
      const slept = await stackOf(carried('slept before'));
      const frozen = slept.findIndex(({ kind }) => kind === 'frozen');
      expect(frozen).toBeGreaterThan(1);
      expect(methods(slept.slice(0, frozen))).toContain('Inspected.sleepThenSpin');
      expect(methods(slept.slice(frozen))[0]).toBe(enter);
    });
  });

  describe('an image that is damaged or of another version', () => {
    let path: string;
    beforeAll(async () => {
      path = await checkpointAndEnd(await startInspected(first!, classes, ['-XX:+UseG1GC', '-Xmx256m']));
    });

    type Change = (bytes: Buffer, address: bigint, kind: string) => void;

    /** An address space whose bytes `change` alters in place, and that counts what is read of it. */
    class Altered extends AddressSpace {
      reads = 0;

      constructor(
        image: Image,
        private readonly change: Change,
      ) {
        super(image);
      }

      override async read(address: bigint, length: number): Promise<Buffer> {
        if (++this.reads > 200_000) throw new Error(`it goes on and on: ${this.reads} reads`);
        const bytes = await super.read(address, length);
        this.change(bytes, address, this.image.vmaAt(address)?.kind ?? '');
        return bytes;
      }
    }

    /** Everything that is read of a JVM. */
    async function everything(space: AddressSpace): Promise<string[]> {
      const jvm = await openJvm(space);
      if (jvm === null || typeof jvm === 'string') return [String(jvm)];
      await summarise(jvm);
      const registers = { rip: 0n, rsp: 0n, rbp: 0n, r13: 0n };
      for (const thread of await jvm.threads()) {
        const kernel = space.image.threads().find(({ record }) => record!.fs_base === thread.pthread);
        await jvm.stack(thread, kernel?.status.registers ?? registers, 256);
      }
      return jvm.problems;
    }

    async function altered(change: Change): Promise<string[]> {
      const image = await Image.open(path);
      const space = new Altered(image, change);
      try {
        return await everything(space);
      } finally {
        await space.close();
        await image.close();
      }
    }

    it('tells all of it where nothing is altered', async () => {
      expect(await altered(() => {})).toEqual([]);
    });

    it('tells what is missing when the JVM does not export a thing', async () => {
      const replace = (from: string, to: string) => (bytes: Buffer) => {
        for (let at = bytes.indexOf(`${from}\0`); at >= 0; at = bytes.indexOf(`${from}\0`, at + 1)) bytes.write(to, at, 'latin1');
      };
      expect(await altered(replace('_java_thread_list', '_java_thread_lisp'))).toEqual([
        'the Java threads could not be read: this JVM does not export the static field ThreadsSMRSupport::_java_thread_list',
      ]);
      expect(await altered(replace('_collectedHeap', '_collectedHeat'))).toEqual([
        'the Java heap could not be read: this JVM does not export the static field Universe::_collectedHeap',
      ]);
      expect(await altered(replace('_log2_segment_size', '_log3_segment_size'))).toEqual([
        expect.stringContaining('does not export CodeHeap::_log2_segment_size'),
        expect.stringContaining('Java frames could not be read'),
      ]);
      expect(await altered(replace('gHotSpotVMStructs', 'gHotSpotVMStructz'))).toEqual([
        'nothing can be told of the Java virtual machine: this JVM does not export gHotSpotVMStructs',
      ]);
    });

    /** A number that is always the same for a place and a seed, whatever is read first. */
    const noiseAt = (address: bigint, seed: number): number =>
      Math.imul(Number(address & 0xffffffffn) + Math.imul(seed, 7919), 2654435761) >>> 0;

    it('neither fails nor hangs on bytes that are wrong', async () => {
      const outcomes = new Set<string>();
      for (let seed = 1; seed <= 60; seed++) {
        const step = [4096, 512, 64][seed % 3]!;
        const problems = await altered((bytes, address, kind) => {
          // Every other time the tables of libjvm.so are left as they are, and what they lead to is damaged.
          if (kind === 'file' && seed % 2 === 0) return;
          for (let at = Number(-address & BigInt(step - 1)); at < bytes.length; at += step) {
            const noise = noiseAt(address + BigInt(at), seed);
            if (noise % 5 === 0 && at + (noise % step) < bytes.length) bytes[at + (noise % step)] = noise >>> 24;
          }
        });
        for (const problem of problems) outcomes.add(problem.replace(/( could not be read)?: .*/, ''));
      }
      // The damage went to many places.
      expect(outcomes.size).toBeGreaterThan(3);
    });

    it('neither fails nor hangs on pointers that lead elsewhere', async () => {
      const outcomes = new Set<string>();
      for (let seed = 1; seed <= 40; seed++) {
        const problems = await altered((bytes, address, kind) => {
          if (kind === 'file' && seed % 4 !== 0) return;
          for (let at = Number(-address & 7n); at + 8 <= bytes.length; at += 8) {
            const pointer = bytes.readBigUInt64LE(at);
            const noise = noiseAt(address + BigInt(at), seed);
            if (pointer >> 40n !== 0x7fn || noise % 29 !== 0) continue;
            // Some point to themselves, some a little further.
            bytes.writeBigUInt64LE(noise & 32 ? address + BigInt(at) : pointer + BigInt(noise % 4096), at);
          }
        });
        for (const problem of problems) outcomes.add(problem.replace(/( could not be read)?: .*/, ''));
      }
      expect(outcomes.size).toBeGreaterThan(3);
    });
  });

  describe('the command line', () => {
    let image: string;
    let facts: Facts;
    beforeAll(async () => {
      const target = await startInspected(first!, classes, ['-XX:+UseG1GC', '-Xmx256m', '-Xshare:auto']);
      facts = await factsOf(first!, target);
      image = await checkpointAndEnd(target);
    });

    async function json<T>(...argv: string[]): Promise<T> {
      const tool = warpTool([...argv, '--json']);
      const { code } = await tool.ended;
      expect(tool.stderr).toBe('');
      expect(code).toBe(0);
      const document = JSON.parse(tool.stdout) as T;
      const check = new Ajv2020({ strict: false }).compile(schemas[argv[0]!]!.json);
      check(document);
      expect(check.errors).toBeNull();
      return document;
    }

    async function text(...argv: string[]): Promise<string> {
      const tool = warpTool(argv);
      await tool.ended;
      expect(tool.stderr).toBe('');
      return tool.stdout;
    }

    it('threads gives full names, states and what threads wait for', async () => {
      const { threads, java } = await json<Static<typeof threadsSchema>>('threads', image);
      expect(java).toEqual({ problems: [] });
      const byTid = new Map(threads.map((thread) => [thread.tid, thread]));
      for (const { name, tid, state } of facts.threads) expect(byTid.get(tid)!.java).toMatchObject({ name, state });
      const named = (name: string): NonNullable<(typeof threads)[number]['java']> =>
        threads.find((thread) => thread.java?.name === name)!.java!;
      const blocked = named('blocked').waits_for!;
      expect(blocked).toMatchObject({ how: 'locking', class: 'java.lang.Object', held_by: 'owner' });
      expect(named('owner').waits_for).toEqual({ ...blocked, how: 'parking', held_by: null });
      expect(named('locks').waits_for).toMatchObject({
        how: 'parking',
        class: 'java.util.concurrent.locks.ReentrantLock$NonfairSync',
        held_by: 'main',
      });
      expect(named('local class').waits_for).toMatchObject({ how: 'parking', class: 'Inspected$Task$1Local' });
      expect(threads.filter((thread) => thread.java === null).map(({ name }) => name)).toContain('VM Thread');

      const shown = await text('threads', image);
      expect(shown).toMatch(/^ *\d+ {2}a-thread-with-a-name-far-longer-than-fifteen-characters {2}/m);
      expect(shown).toContain(`[BLOCKED (on object monitor) for java.lang.Object ${blocked.address} held by owner`);
    });

    it('threads --stack puts Java frames below the native ones', async () => {
      const { threads, stacks } = await json<Static<typeof threadsSchema>>('threads', image, '--stack');
      const accepting = threads.find((thread) => thread.java?.name === 'accepts')!;
      const frames = accepting.frames!;
      const begin = frames.findIndex((frame) => frame.java !== null);
      if (stacks!.tool !== null) expect(begin).toBeGreaterThan(0);
      expect(frames.slice(begin).every((frame) => frame.java !== null)).toBe(true);
      expect(frames[begin]).toMatchObject({ function: 'sun.nio.ch.Net.accept', generated: true, java: { kind: 'native' } });
      expect(frames.map((frame) => frame.function)).toContain('Inspected.acceptHere');
      expect(frames.at(-1)!.java!.kind).toBe('entry');
      expect(accepting.java!.frames_end).toBe("at the thread's first Java method, which native code called");

      const shown = await text('threads', image, '--stack');
      expect(shown).toMatch(/ Inspected\.waitHere at Inspected\.java:\d+ \(interpreted\)$/m);
      expect(shown).toMatch(/ Inspected\.compiledOuter at Inspected\.java:\d+ \((compiled|inlined), C[12]\)$/m);
    });

    it('show has a section about the JVM', async () => {
      const { java } = await json<Static<typeof showSchema>>('show', image);
      expect(java!.problems).toEqual([]);
      expect(java).toMatchObject({
        collector: 'G1',
        command: 'Inspected',
        arguments: ['-XX:+UseG1GC', '-Xmx256m', '-Xshare:auto'],
        heap: { maximum: 256 << 20 },
        direct_buffers: { count: 3, capacity: 15 << 20 },
        threads: { java: facts.threads.length, daemon: facts.threads.filter(({ daemon }) => daemon).length },
        classes: facts.classes.shared > 0 ? { shared: facts.classes.shared } : {},
      });
      expect(java!.version).toMatch(new RegExp(`^${first!.version}\\b`));
      expect(java!.flags).toContainEqual({ name: 'MaxHeapSize', value: String(256 << 20), origin: 'command line' });
      expect(java!.counters!.collections).toBeGreaterThan(0);
      expect(java!.direct_buffers!.stored).toBeGreaterThan(4 << 20);
      if (facts.classes.shared > 0) expect(java!.archives.map(({ path }) => path)).toEqual([expect.stringMatching(/\.jsa$/)]);
      // The parts are the whole: no byte is in two, none in no part.
      const whole = java!.composition.reduce((total, { stored }) => total + Number(stored), 0);
      const { memory } = await json<Static<typeof showSchema>>('show', image);
      expect(whole).toBe(Number(memory!.stored));
      // A full direct buffer of 5 MiB is a tenth of this image and more.
      expect(java!.advice.map(({ part }) => part)).toContain('direct buffers');

      const shown = await text('show', image);
      expect(shown).toMatch(/^Java +\d.*, G1 collector$/m);
      expect(shown).toMatch(/^ {2}heap +.* used, .* committed, 256 MiB at most; .* in the image/m);
      expect(shown).toMatch(/^ {2}direct +15\.0 MiB in 3 buffers, 5\.\d+ MiB in the image$/m);
      expect(shown).toMatch(/^ {2}to do +5\.\d+ MiB: direct buffers are memory outside of the heap/m);
    });

    it('maps says what areas are for', async () => {
      const { maps } = await json<Static<typeof mapsSchema>>('maps', image);
      const parts = new Set(maps.flatMap(({ labels }) => labels.map(({ part }) => part)));
      for (const part of ['Java heap', 'code cache', 'metaspace', 'thread stack', 'direct buffers', 'collector'])
        expect(parts).toContain(part);
      const { threads } = await json<Static<typeof threadsSchema>>('threads', image);
      const stackOf = (name: string): (typeof maps)[number] =>
        maps.find(({ stack_of: tid, labels }) => tid !== null && labels.some(({ detail }) => detail === `Java thread "${name}"`))!;
      for (const name of ['main', 'owner', 'accepts']) {
        expect(stackOf(name).stack_of).toBe(threads.find((thread) => thread.java?.name === name)!.tid);
      }
      const shown = await text('maps', image);
      expect(shown).toMatch(/ Java heap: .*eden /);
      expect(shown).toMatch(/ stack of thread \d+: Java thread "owner"/);
      expect(shown).toMatch(/ code cache: (profiled nmethods|CodeCache)/);
    });
  });
});
