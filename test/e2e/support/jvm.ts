/** Java programs under test, and what the JDK's own tools say of them. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { command, makeDirectory, projectFile, user } from './host.js';
import { type Program, type StartOptions, run, start } from './program.js';

export interface Jdk {
  /** `17`, `25` …, and the directory where there are several of one version. */
  name: string;
  version: number;
  home: string;
}

/** The JDKs that are installed here, that of PATH first; those that cannot be attached to (no jcmd) are left out. */
export function jdks(): Jdk[] {
  const own = command('java');
  const homes = own ? [dirname(dirname(realpathSync(own)))] : [];
  for (const name of existsSync('/usr/lib/jvm') ? readdirSync('/usr/lib/jvm') : []) homes.push(join('/usr/lib/jvm', name));
  const found = new Map<string, Jdk>();
  for (const home of homes) {
    if (!existsSync(join(home, 'bin/jcmd')) || !existsSync(join(home, 'bin/java')) || !existsSync(join(home, 'lib/server/libjvm.so')))
      continue;
    const real = realpathSync(home);
    if (found.has(real)) continue;
    const text = spawnSync(join(real, 'bin/java'), ['-version'], { encoding: 'utf8', timeout: 60_000 }).stderr;
    const version = Number(/version "(\d+)/.exec(text)?.[1]);
    if (version >= 11) found.set(real, { name: `JDK ${version}`, version, home: real });
  }
  return [...found.values()];
}

/** Compiles classes of test/e2e/fixtures and gives the class path. */
export function compileJava(...names: string[]): string {
  const classes = makeDirectory();
  const sources = names.map((name) => projectFile(`test/e2e/fixtures/${name}.java`));
  const result = spawnSync(command('javac')!, ['-g', '--release', '11', '-d', classes, ...sources], {
    ...user,
    encoding: 'utf8',
    timeout: 120_000,
  });
  if (result.status !== 0) throw new Error(`javac: ${result.stderr}`);
  return classes;
}

export interface InspectedOptions extends StartOptions {
  args?: string[];
  /** Let the kernel write a core file into the working directory. */
  coreFile?: boolean;
}

/** Starts the fixture Inspected with these flags; resolves when all its threads rest. */
export async function startInspected(jdk: Jdk, classes: string, flags: string[], options: InspectedOptions = {}): Promise<Program> {
  const { args = [], coreFile = false, ...rest } = options;
  const java = [join(jdk.home, 'bin/java'), ...flags, '-cp', classes, 'Inspected', ...args];
  const [program, ...argv] = coreFile ? ['/bin/sh', '-c', 'ulimit -c unlimited; exec "$0" "$@"', ...java] : java;
  const target = start(program!, argv, { stdin: 'pipe', ...rest });
  // The attach mechanism of HotSpot leaves its socket behind when the process is killed.
  void target.ended.then(() => rmSync(`/tmp/.java_pid${target.pid}`, { force: true }));
  await target.output(/^ready$/m);
  return target;
}

/** What `jcmd PID COMMAND` prints. */
export async function jcmd(jdk: Jdk, target: Program, ...args: string[]): Promise<string> {
  const client = run(join(jdk.home, 'bin/jcmd'), [String(target.pid), ...args]);
  const ended = await client.ended;
  if (ended.code !== 0) throw new Error(`jcmd ${args.join(' ')}: ${client.stdout}${client.stderr}`);
  return client.stdout;
}

export interface DumpedThread {
  name: string;
  /** Of HotSpot's JavaThread. */
  address: bigint;
  tid: number;
  state: string | null;
  daemon: boolean;
  /** `Class.method(File.java:12)`, `(Native Method)` or `(Unknown Source)`, without modules. */
  frames: string[];
}

/** The Java threads of `jcmd Thread.print`. */
export function parseThreadDump(text: string): DumpedThread[] {
  const threads: DumpedThread[] = [];
  for (const block of text.split('\n\n')) {
    const head = /^"(.*)" (?:#\d+|\[\d+\]).*\btid=0x([0-9a-f]+) nid=(0x[0-9a-f]+|\d+)/m.exec(block);
    if (!head) continue;
    threads.push({
      name: head[1]!,
      address: BigInt(`0x${head[2]}`),
      tid: Number(head[3]),
      state: /java\.lang\.Thread\.State: (.*)$/m.exec(block)?.[1] ?? null,
      daemon: / daemon /.test(head[0]),
      frames: [...block.matchAll(/^\tat (.*)$/gm)].map((row) => row[1]!.replace(/\((?:[^()/]*\/)?([^()]*)\)$/, '($1)')),
    });
  }
  return threads;
}

/** What the JDK's own tools say of a process. Amounts in KiB, as they print them. */
export interface Facts {
  threads: DumpedThread[];
  /** `jcmd GC.heap_info`, with single spaces. */
  heap: string;
  codeCache: { name: string; size: number; used: number }[];
  methods: number;
  classes: { loaded: number; shared: number };
  /** In KiB, where it is told that exactly. */
  metaspaceCommitted: number | null;
  /** Value of every flag by name. */
  flags: Record<string, string>;
  /** Names of those that are not at their default. */
  flagsSet: string[];
}

export async function factsOf(jdk: Jdk, target: Program): Promise<Facts> {
  const commands = join(makeDirectory(), 'commands');
  writeFileSync(commands, 'Thread.print\nGC.heap_info\nCompiler.codecache\nVM.metaspace\nVM.flags -all\n');
  const text = await jcmd(jdk, target, '-f', commands);
  // The dump ends with a line about handles; the code cache follows on the heap.
  const heap = /^JNI global refs.*\n([\s\S]*?)^Code/m.exec(text)![1]!;
  const classes = /loaders, (\d+) classes(?: \((\d+) shared\))?/.exec(text)!;
  const flags = [...text.matchAll(/^ *\S+ (\w+) +:?= (.*?) *\{[^}]*\} \{(.*)\}$/gm)];
  const committed = /^ Metaspace +used \d+K, committed (\d+)K/m.exec(heap)?.[1];
  return {
    threads: parseThreadDump(text),
    heap: heap.replaceAll(/ +/g, ' '),
    codeCache: [...text.matchAll(/^Code(?:Heap '(.*?)'|Cache): size=(\d+)Kb,? used=(\d+)Kb/gm)]
      .filter((row, _, all) => row[1] !== undefined || all.length === 1)
      .map(([, name = 'CodeCache', size, used]) => ({ name, size: Number(size), used: Number(used) })),
    methods: Number(/nmethods=(\d+)/.exec(text)![1]),
    classes: { loaded: Number(classes[1]), shared: Number(classes[2] ?? 0) },
    metaspaceCommitted: committed === undefined ? null : Number(committed),
    flags: Object.fromEntries(flags.map(([, name, value]) => [name!, value!])),
    flagsSet: flags.filter(([, , , origin]) => origin !== 'default').map(([, name]) => name!),
  };
}
