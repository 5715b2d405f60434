import { CommandHelp, Help, type Command, type Interfaces } from '@oclif/core';

/** The groups of the overview, in the order in which somebody new needs them. */
export const COMMAND_GROUPS: readonly { title: string; commands: readonly string[] }[] = [
  { title: 'Running the engine', commands: names('run checkpoint restore ps optimize engines jdk doctor') },
  {
    title: 'Looking into an image',
    commands: names('show threads maps fds env signals auxv notes mem diff validate explore report gdb gdb-script'),
  },
  { title: 'Making other images of it', commands: names('compress decompress encrypt decrypt decode encode redact') },
  { title: 'Object storage', commands: names('push pull list') },
  { title: 'About warp-tool', commands: names('help man schema completion') },
];

function names(text: string): string[] {
  return text.split(' ');
}

const FIRST_STEPS: readonly [string, string][] = [
  ['run -- node server.js', 'start a program, ready to be captured'],
  ['checkpoint PID --to image', 'capture it; the program is gone'],
  ['restore image', 'there it is again, where it stopped'],
  ['show image', 'what was captured'],
];

/** Help screens: an overview by subject, and per command the usage without the flags that all commands share. */
export class WarpHelp extends Help {
  protected override CommandHelpClass = WarpCommandHelp;

  constructor(config: Interfaces.Config, options: Partial<Interfaces.HelpOptions> = {}) {
    // The description goes on where the summary, which stands above everything, ends.
    super(config, { ...options, hideCommandSummaryInDescription: true, flagSortOrder: 'none' });
  }

  override async showHelp(argv: string[]): Promise<void> {
    // oclif takes the word for a flag, so that the command of this name would have no help of its own.
    const own = argv.filter((word) => !word.startsWith('-')).join(' ') === 'help' ? this.config.findCommand('help') : undefined;
    await (own ? this.showCommandHelp(own) : super.showHelp(argv));
  }

  protected override async showRootHelp(): Promise<void> {
    const { bin, pjson } = this.config;
    const steps = FIRST_STEPS.map(([command, what]) => `$ ${bin} ${command.padEnd(27)}${what}`);
    const sections = [
      this.wrap(pjson.description ?? ''),
      this.section('USAGE', `$ ${bin} COMMAND [ARGUMENT…]`),
      this.section('FIRST STEPS', steps.join('\n')),
    ];
    const summaries = new Map(this.sortedCommands.map((command) => [command.id, this.summary(command) ?? '']));
    const grouped = COMMAND_GROUPS.flatMap((group) => group.commands);
    const others = { title: 'More', commands: [...summaries.keys()].filter((name) => !grouped.includes(name)) };
    for (const { title, commands } of [...COMMAND_GROUPS, others]) {
      const rows = commands.filter((name) => summaries.has(name)).map((name) => `${name.padEnd(12)}${summaries.get(name)}`);
      if (rows.length > 0) sections.push(this.section(title.toUpperCase(), rows.join('\n')));
    }
    sections.push(
      [
        'An IMAGE is a directory that holds core.img, an ELF core file of warp-tool, the',
        'kernel or gcore, or an s3:// or gs:// URL. The exit status is 0 for success,',
        '1 for the honest negative answer (differences, faults, nothing found), 2 for an',
        'error.',
        '',
        `\`${bin} COMMAND --help\` tells more, \`${bin} man COMMAND\` as a manual page.`,
      ].join('\n'),
    );
    this.log(sections.join('\n\n'));
  }
}

class WarpCommandHelp extends CommandHelp {
  protected override defaultUsage(): string {
    const { id, args, flags, strict } = this.command;
    const words = Object.values(args).map((argument) => {
      const name = `${argument.name.toUpperCase()}${argument.multiple || strict === false ? '…' : ''}`;
      return argument.required ? name : `[${name}]`;
    });
    const own = Object.values(flags).filter((flag) => !flag.hidden && flag.helpGroup !== 'GLOBAL');
    const required = own.filter((flag) => flag.required);
    words.push(...required.map((flag) => `--${flag.name}${flag.type === 'option' ? ` ${flag.helpValue ?? 'VALUE'}` : ''}`));
    if (own.length > required.length) words.push('[FLAG…]');
    return [id, ...words].join(' ');
  }

  /** Those with a letter first, else as the command declares them: what belongs together stands together. */
  protected override flags(flags: Command.Flag.Any[]): [string, string | undefined][] | undefined {
    return super.flags(flags.toSorted((a, b) => Number(b.char !== undefined) - Number(a.char !== undefined)));
  }

  /** One below the other: most are one line, and the lines between would be half of the section. */
  protected override examples(examples: Command.Example[] | undefined): string | undefined {
    return super.examples(examples)?.replaceAll(/\n\n(?=\S)/g, '\n');
  }
}
