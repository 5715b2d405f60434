import type { Command, Config } from '@oclif/core';
import type { CommandFacts, FlagFacts } from '../terminal/completion.js';

/** All commands as the manifest knows them, in the order of the documentation. */
export function commandFacts(config: Config): CommandFacts[] {
  return config.commands.filter(({ hidden }) => !hidden).map((command) => factsOf(command, config.bin));
}

function factsOf(command: Command.Loadable, bin: string): CommandFacts {
  const text = (value: string | undefined): string => (value ?? '').replaceAll('<%= config.bin %>', bin);
  const examples = (command.examples ?? []).map((example) => text(typeof example === 'string' ? example : example.command));
  return {
    name: command.id,
    summary: text(command.summary),
    description: text(command.description),
    examples,
    args: Object.values(command.args).map(({ name, description, required }) => ({
      name,
      description: text(description),
      required: required ?? false,
    })),
    flags: [
      ...Object.values(command.flags).map((flag) => flagFacts(flag, text)),
      { name: 'help', char: null, description: 'Show help.', value: null, multiple: false },
    ],
  };
}

function flagFacts(flag: Command.Flag.Cached, text: (value: string | undefined) => string): FlagFacts {
  const value = flag.type === 'option' ? { name: String(flag.helpValue ?? 'VALUE'), options: flag.options ?? [] } : null;
  return {
    name: flag.name,
    char: flag.char ?? null,
    description: text(flag.description ?? flag.summary),
    value,
    multiple: flag.type === 'option' && (flag.multiple ?? false),
  };
}
