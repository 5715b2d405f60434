/** The agent (java/) that brings CRaC to a stock Java virtual machine: docs/java.md. */
import { closeSync, existsSync, openSync, readSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { nativeFile, nativePath } from './native.js';

const SHELLS = new Set(['ash', 'bash', 'busybox', 'dash', 'env', 'ksh', 'mksh', 'sh', 'zsh']);

/** A `java` command of version 9 or later, which has its launcher's library in this place. */
function isJava(program: string): boolean {
  return basename(program) === 'java' && existsSync(join(dirname(program), '../lib/libjli.so'));
}

/** Programs that start others: a script, or a shell. */
function startsPrograms(program: string): boolean {
  if (SHELLS.has(basename(program))) return true;
  const start = Buffer.alloc(2);
  const file = openSync(program, 'r');
  try {
    return readSync(file, start) === 2 && start.toString('latin1') === '#!';
  } finally {
    closeSync(file);
  }
}

export interface Launch {
  command: string[];
  environment: NodeJS.ProcessEnv;
  /** Whether the program is surely Java; a script or shell may start it. */
  java: boolean;
  /** Why there is no agent although the program is Java. */
  problem?: string;
}

/**
 * Adds the agent and options where a program is Java: to the command of `java`, and for scripts and shells to JDK_JAVA_OPTIONS, which only the `java`
 * command reads.
 *
 * @param path of the program, absolute
 * @param agent false: only the options; true: also for programs that contain a virtual machine of their own: JAVA_TOOL_OPTIONS, which each of them reads
 */
export function withJava(
  path: string,
  command: string[],
  environment: NodeJS.ProcessEnv,
  agent: boolean | undefined,
  options: readonly string[] = [],
): Launch {
  const program = realpathSync(path);
  const direct = isJava(program);
  if (!direct && agent !== true && !startsPrograms(program)) return { command, environment, java: false };
  const jar = nativePath('warp-crac.jar');
  const missing = agent !== false && !existsSync(jar);
  const added = [...options, ...(agent === false || missing ? [] : [`-agentpath:${nativeFile('libwarp.so')}=${jar}`])];
  const problem = `the Java agent (${jar}) is not built: resources of org.crac will not be told of checkpoints; install a JDK and run \`npm run build:java\``;
  const rest = { java: direct || agent === true, ...(missing && (direct || agent === true) ? { problem } : {}) };
  if (added.length === 0) return { command, environment, ...rest };
  if (direct) return { command: [command[0]!, ...added, ...command.slice(1)], environment, ...rest };
  const variable = agent === true ? 'JAVA_TOOL_OPTIONS' : 'JDK_JAVA_OPTIONS';
  return { command, environment: { ...environment, [variable]: [environment[variable], ...added].filter(Boolean).join(' ') }, ...rest };
}
