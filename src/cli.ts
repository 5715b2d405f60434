import { Errors, type Config } from '@oclif/core';
import { COMMANDS } from './commands/index.js';
import { Failure } from './failure.js';
import { printable } from './terminal/format.js';
import { styleFor } from './terminal/style.js';

/** The build fills it in. */
declare const WARP_TOOL_VERSION: string;

/** What a running command asks of oclif's configuration. To load it all (package, manifest, plugins) takes longer than most commands. */
const configuration = (): Config =>
  ({
    bin: 'warp-tool',
    name: 'warp-tool',
    version: WARP_TOOL_VERSION,
    scopedEnvVarKey: (name: string) => `WARP_TOOL_${name}`,
    // There are no plugins, so nobody hooks.
    runHook: async () => ({ successes: [], failures: [] }),
  }) as unknown as Config;

/**
 * Runs the command line `argv` (without the interpreter and the script): the command that it names, or `others` for all that is not so simple. Sets
 * `process.exitCode`; never throws.
 */
export async function runCommandLine(argv: string[], others: () => Promise<unknown>): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      // The reader of a pipe has gone (`warp-tool maps IMAGE | head`): end as a program that SIGPIPE kills does.
      if (error.code === 'EPIPE') process.exit(141);
      throw error;
    });
  }
  try {
    const [name = '', ...rest] = argv;
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    const asksForHelp = beforeDashes(rest).some((word) => word === '--help' || word === '-h');
    const simple = command && !command.needsEverything && !asksForHelp;
    await (simple ? command.start(rest, configuration()) : others());
  } catch (error) {
    reportError(error, argv);
  }
}

/** The arguments that are warp-tool's own, not those of a program that it starts. */
function beforeDashes(argv: string[]): string[] {
  return argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
}

function reportError(error: unknown, argv: string[]): void {
  const own = beforeDashes(argv);
  if (error instanceof Errors.ExitError) {
    process.exitCode = error.oclif.exit;
    return;
  }
  const message = messageOf(error, own);
  const exitCode = error instanceof Failure ? error.exitCode : 2;
  if (own.includes('--json')) process.stdout.write(`${JSON.stringify({ error: { message, exit_code: exitCode } }, null, 2)}\n`);
  process.stderr.write(`${styleFor(process.stderr, own.includes('--no-color')).red('warp-tool:')} ${message}\n`);
  if (own.includes('--debug')) process.stderr.write(`${stackOf(error)}\n`);
  process.exitCode = exitCode;
}

/** oclif's parse errors are several lines and end in a generic hint; this gives the one line that says what was wrong. */
export function messageOf(error: unknown, argv: string[]): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof Failure) return printable(error.message);
  const command = argv[0] !== undefined && argv[0] in COMMANDS ? argv[0] : undefined;
  const help = `see \`warp-tool ${command ? `${command} ` : ''}--help\``;
  const missing = (error as { args?: { name: string }[] }).args;
  if (error.constructor.name.startsWith('RequiredArgsError') && missing) {
    return `missing argument ${missing.map((argument) => argument.name.toUpperCase()).join(' ')}; ${help}`;
  }
  if (command === undefined && /^[Cc]ommand .* not found/.test(error.message)) {
    return `${argv[0]} is not a warp-tool command; ${suggestion(argv[0] ?? '')}`;
  }
  // What follows a command without arguments is a sub-command to oclif.
  const excess = /^[Cc]ommand [^:]+:(\S+) not found/.exec(error.message)?.[1]?.split(':')[0];
  if (command !== undefined && excess !== undefined) return `unexpected argument: ${excess}; ${help}`;
  if (error instanceof Errors.CLIError) {
    const lines = error.message.split('\n').filter((line) => line !== '' && !line.startsWith('See more help'));
    const text = lines.join(' ').replaceAll(/\s+/g, ' ');
    const flag = /^Nonexistent flag: (\S+)/.exec(text)?.[1];
    if (flag !== undefined && command !== undefined) return `${command} has no flag ${flag}; ${flagSuggestion(command, flag) ?? help}`;
    const required = /Missing required flag (\S+)$/.exec(text)?.[1];
    if (required !== undefined) return `missing flag --${required}; ${help}`;
    return `${text.replace(/^Parsing (--\S+) /, '$1: ').replace(/^(--\S+: )?([A-Z])/, (_, name = '', first) => name + first.toLowerCase())}; ${help}`;
  }
  return `internal error: ${error.message.split('\n')[0]}; please report it with the output of the same command and --debug`;
}

function suggestion(word: string): string {
  const near = nearest(word, Object.keys(COMMANDS));
  return near === undefined ? 'see `warp-tool --help`' : `did you mean \`warp-tool ${near}\`?`;
}

function flagSuggestion(command: string, flag: string): string | undefined {
  const { flags, baseFlags } = COMMANDS[command]!;
  const names = Object.entries({ ...flags, ...baseFlags }).filter(([, { hidden }]) => !hidden);
  const near = flag.startsWith('--')
    ? nearest(
        flag.slice(2),
        names.map(([name]) => name),
      )
    : undefined;
  return near && `did you mean --${near}?`;
}

/** The name that two edits or fewer make of `word`. */
function nearest(word: string, names: readonly string[]): string | undefined {
  const distances = names.map((name) => ({ name, distance: editDistance(word, name) })).toSorted((a, b) => a.distance - b.distance);
  return distances[0] && distances[0].distance <= 2 ? distances[0].name : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

function stackOf(error: unknown): string {
  const stacks: string[] = [];
  for (let cause = error; cause instanceof Error; cause = cause.cause) stacks.push(cause.stack ?? cause.message);
  return stacks.join('\ncaused by: ');
}
