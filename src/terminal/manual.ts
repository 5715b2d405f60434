import type { CommandFacts } from './completion.js';

/** Text for troff: no line may begin with a control character, and hyphens of flags must stay hyphens. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^(['.])/gm, '\\&$1');
}

/** A string of troff's that stands in quotes. */
function roffArgument(text: string): string {
  return `"${roff(text).replaceAll('"', '\\(dq')}"`;
}

/** The manual page of one command, in the man(7) macros. */
export function commandPage(program: string, version: string, command: CommandFacts): string {
  const title = `${program}-${command.name}`;
  const synopsis = [
    `.B ${roff(`${program} ${command.name}`)}`,
    ...command.args.map(({ name, required }) => (required ? `.I ${roff(name.toUpperCase())}` : `.RI [ ${roff(name.toUpperCase())} ]`)),
    ...command.flags.map((flag) => {
      const value = flag.value ? ` ${flag.value.name}` : '';
      return `.RB [ ${roffArgument(`--${flag.name}${value}`)} ]${flag.multiple ? '...' : ''}`;
    }),
  ];
  const lines = [
    `.TH ${roffArgument(title.toUpperCase())} 1 "" ${roffArgument(`${program} ${version}`)} ${roffArgument(`${program} manual`)}`,
    '.SH NAME',
    `${roff(title)} \\- ${roff(command.summary)}`,
    '.SH SYNOPSIS',
    ...synopsis,
  ];
  if (command.description !== '') lines.push('.SH DESCRIPTION', roff(command.description));
  if (command.args.length > 0) lines.push('.SH ARGUMENTS');
  for (const { name, description } of command.args) lines.push('.TP', `.I ${roff(name.toUpperCase())}`, roff(description));
  lines.push('.SH OPTIONS');
  for (const flag of command.flags) {
    const value = flag.value ? ` ${flag.value.name}` : '';
    const short = flag.char === null ? '' : `-${flag.char}, `;
    const options = flag.value && flag.value.options.length > 0 ? ` One of ${flag.value.options.join(', ')}.` : '';
    lines.push('.TP', `.B ${roffArgument(`${short}--${flag.name}${value}`)}`, roff(`${flag.description}${options}`));
  }
  if (command.examples.length > 0) {
    lines.push('.SH EXAMPLES', '.nf', ...command.examples.map((example) => roff(example)), '.fi');
  }
  lines.push('.SH "SEE ALSO"', `.BR ${roff(program)} (1)`);
  return `${lines.join('\n')}\n`;
}

/** The page of the program itself: what its commands are, and what its exit statuses mean. */
export function programPage(program: string, version: string, description: string, commands: readonly CommandFacts[]): string {
  const lines = [
    `.TH ${roffArgument(program.toUpperCase())} 1 "" ${roffArgument(`${program} ${version}`)} ${roffArgument(`${program} manual`)}`,
    '.SH NAME',
    `${roff(program)} \\- ${roff(description)}`,
    '.SH SYNOPSIS',
    `.B ${roff(program)}`,
    '.I COMMAND',
    '.RI [ ARGUMENT ]...',
    '.SH COMMANDS',
  ];
  for (const { name, summary } of commands) lines.push('.TP', `.BR ${roff(`${program}-${name}`)} (1)`, roff(summary));
  const statuses: [string, string][] = [
    ['0', 'Success.'],
    ['1', 'The honest negative answer: differences, faults, nothing found, a host that is not able.'],
    ['2', 'Usage error, unreadable input, a failed operation.'],
  ];
  lines.push('.SH "EXIT STATUS"');
  for (const [status, meaning] of statuses) lines.push('.TP', `.B ${status}`, roff(meaning));
  lines.push(roff('run and restore exit as the program does: with its status, or 128 + the signal that ended it.'));
  return `${lines.join('\n')}\n`;
}
