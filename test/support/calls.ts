/** Calls of warp-tool in texts: examples of the help, rows of documents. */
import { Parser, type Command } from '@oclif/core';
import { COMMANDS } from '../../src/commands/index.js';

/** All flags of a command, those that it shares with others too. */
export function flagsOf(command: Command.Class): Command.Class['flags'] {
  return { ...command.baseFlags, ...command.flags };
}

/** The calls of `program` in a line for a shell, as arguments. */
export function callsIn(line: string, program: string): string[][] {
  return line
    .split(`${program} `)
    .slice(1)
    .map((part) =>
      [...part.matchAll(/"([^"]*)"|'([^']*)'|(&&|[|;<>)]|[^\s|;&<>()"']+)/g)].map((token) => ({
        text: token[1] ?? token[2] ?? token[3]!,
        ends: /^(&&|[|;<>)])$/.test(token[3] ?? ''),
      })),
    )
    .map((tokens) => {
      const end = tokens.findIndex(({ ends }) => ends);
      return tokens.slice(0, end < 0 ? undefined : end).map(({ text }) => text);
    });
}

/** Parses a call as the command line would; fails where the command does not exist or does not understand it. */
export async function parseCall([name, ...argv]: string[]): Promise<void> {
  const command = COMMANDS[name!];
  if (!command) throw new Error(`${name} is not a command`);
  const end = argv.indexOf('--');
  const own = end < 0 ? argv : argv.slice(0, end);
  await Parser.parse(own, { args: command.args, flags: flagsOf(command), strict: command.strict ?? true });
}
