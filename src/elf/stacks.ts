import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gdbScript } from './gdb-script.js';
import type { Image } from './image.js';
import type { JavaFrame, JavaStack } from './jvm/frames.js';
import { Modules, type Location } from './modules.js';

/** One frame of a thread's stack, innermost first. */
export interface StackFrame {
  /** Null for a function that the compiler put into its caller. */
  pc: bigint | null;
  /** As the debugger names it; null where it has no symbol. */
  function: string | null;
  /** Source file as compiled, and line; null without debug information. */
  file: string | null;
  line: number | null;
  /** Where `pc` is by the image's own areas. */
  location: Location | null;
  /** In executable memory that no file has: interpreted or compiled code of a virtual machine. */
  generated: boolean;
  /** Of a frame that the Java virtual machine's own tables told; else null. */
  java: JavaFrame | null;
}

export interface Stacks {
  tool: 'gdb' | 'eu-stack' | null;
  /** What is missing or went wrong; null when all is well. */
  problem: string | null;
  /** By tid. */
  frames: Map<number, StackFrame[]>;
}

/** Frames of one thread at most: deep recursion must not fill the screen and the memory. */
export const MOST_FRAMES = 256;

/** Stacks of all threads of a plain local image, by GDB where it is installed, else by eu-stack. `signal` ends the debugger; that is an error. */
export async function stacksOf(image: Image, signal?: AbortSignal): Promise<Stacks> {
  const found = (await byGdb(image, signal)) ?? (await byEuStack(image, signal));
  if (!found) {
    const problem =
      'stacks need gdb or eu-stack, and neither is installed; install one (on Debian: apt install gdb, or apt install elfutils)';
    return { tool: null, problem, frames: new Map() };
  }
  const modules = new Modules(image);
  for (const frames of found.frames.values()) {
    // Code that a JIT made has no unwind information, and debuggers then guess: a frame outside of code is where the guesses end.
    const end = frames.findIndex(({ pc }, index) => index > 0 && pc !== null && !isCode(image, pc));
    if (end >= 0) frames.splice(end);
    for (const frame of frames) {
      if (frame.pc === null) continue;
      frame.location = await modules.locate(frame.pc);
      frame.generated = frame.function === null && frame.location.module === null && isCode(image, frame.pc);
    }
  }
  if (found.frames.size === 0) found.problem ??= `${found.tool} gave no stacks`;
  return found;
}

/**
 * A debugger's frames with those that the Java virtual machine's tables tell in place of what the debugger guessed from the first generated code on.
 * `native` is empty where there is no debugger.
 */
export function withJavaFrames(native: readonly StackFrame[], java: JavaStack): StackFrame[] {
  const generated = native.findIndex((frame) => frame.generated);
  const above = java.frames.length === 0 || generated < 0 ? native : native.slice(0, generated);
  const frames = java.frames.map((frame): StackFrame => {
    const { method, stub, pc, line } = frame;
    return {
      pc,
      function: method ? `${method.className}.${method.name}` : stub,
      file: method?.file ?? null,
      line,
      location: null,
      generated: true,
      java: frame,
    };
  });
  return [...above, ...frames].slice(0, MOST_FRAMES);
}

function isCode(image: Image, address: bigint): boolean {
  const vma = image.vmaAt(address);
  return vma !== undefined && (vma.protection === null || (vma.protection & 4) !== 0);
}

async function byGdb(image: Image, signal?: AbortSignal): Promise<Stacks | null> {
  const directory = await mkdtemp(join(tmpdir(), 'warp-tool-stack-'));
  try {
    const script = join(directory, 'image.gdb');
    const commands = [
      'set width 0',
      'set height 0',
      'set print frame-arguments none',
      'set filename-display absolute',
      // GDB prints no address for a frame at the beginning of a line: it is asked for each.
      `thread apply all -s -- frame apply ${MOST_FRAMES} -s -- printf "@pc %lx\\n", (unsigned long)$pc`,
    ];
    await writeFile(script, `set debuginfod enabled off\n${await gdbScript(image)}${commands.join('\n')}\n`);
    const output = await run('gdb', ['-nx', '-q', '-batch', '-x', script], signal);
    return output && { tool: 'gdb', problem: output.status === 0 ? null : failed('gdb', output), frames: parseGdb(output.stdout) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Threads and frames in the output of the commands above. */
export function parseGdb(text: string): Map<number, StackFrame[]> {
  const stacks = new Map<number, StackFrame[]>();
  let frames: StackFrame[] | undefined;
  for (const line of text.split('\n')) {
    const thread = /^Thread \d+ \(.*?\bLWP (\d+)\)/.exec(line);
    if (thread) stacks.set(Number(thread[1]), (frames = []));
    const frame = /^#\d+ +(?:0x([0-9a-f]+) in )?(.+?) \(.*?\)(?: at (.*):(\d+)| from .*)?$/.exec(line);
    if (frame && frames) {
      const name = frame[2]!;
      frames.push({
        pc: frame[1] === undefined ? null : BigInt(`0x${frame[1]}`),
        function: name === '??' ? null : name,
        file: frame[3] ?? null,
        line: frame[4] === undefined ? null : Number(frame[4]),
        location: null,
        generated: false,
        java: null,
      });
    }
    const pc = /^@pc ([0-9a-f]+)$/.exec(line);
    const last = frames?.at(-1);
    if (!pc || !last) continue;
    // An inlined function has the pc of the frame that holds it.
    const [address, before] = [BigInt(`0x${pc[1]}`), frames!.at(-2)];
    if (last.pc === null && (frames!.length === 1 || before?.pc !== address)) last.pc = address;
  }
  return stacks;
}

async function byEuStack(image: Image, signal?: AbortSignal): Promise<Stacks | null> {
  const modules = new Modules(image);
  const executable = image.executable();
  const vma = executable === null ? undefined : image.vmas().find(({ name }) => name === executable);
  const same = vma && ['same', 'unknown'].includes(await modules.state(vma));
  const argv = [`--core=${image.source.name}`, '-m', '-n', String(MOST_FRAMES), ...(same ? ['-e', executable!] : [])];
  const output = await run('eu-stack', argv, signal);
  // 1: some frames were shown, and some stacks have no known end.
  return (
    output && { tool: 'eu-stack', problem: output.status! < 2 ? null : failed('eu-stack', output), frames: parseEuStack(output.stdout) }
  );
}

export function parseEuStack(text: string): Map<number, StackFrame[]> {
  const stacks = new Map<number, StackFrame[]>();
  let frames: StackFrame[] | undefined;
  for (const line of text.split('\n')) {
    const thread = /^TID (\d+):/.exec(line);
    if (thread) stacks.set(Number(thread[1]), (frames = []));
    const frame = /^#\d+ +0x([0-9a-f]+)(?: - \d+)?(?: (.*?))?(?: - \S.*)?$/.exec(line);
    if (!frame || !frames) continue;
    const name = frame[2]?.replace(/@.*/, '') ?? '';
    frames.push({
      pc: BigInt(`0x${frame[1]}`),
      function: name === '' || name === '???' ? null : name,
      file: null,
      line: null,
      location: null,
      generated: false,
      java: null,
    });
  }
  return stacks;
}

interface Output {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end; null when it is not installed. */
function run(program: string, argv: string[], signal?: AbortSignal): Promise<Output | null> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, argv, { stdio: ['ignore', 'pipe', 'pipe'], signal });
    const output: Output = { status: null, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
    child.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? resolve(null) : reject(error)));
    child.on('close', (status) => resolve({ ...output, status }));
  });
}

function failed(program: string, { status, stderr }: Output): string {
  return `${program} ended with status ${status}: ${stderr.trim().split('\n').at(-1)}`;
}
