import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Args, Flags } from '@oclif/core';
import { Failure, systemErrorReason } from '../failure.js';
import { count, printable } from '../terminal/format.js';
import { commandPage, programPage } from '../terminal/manual.js';
import { WarpCommand } from './base.js';
import { commandFacts } from './facts.js';

export default class Man extends WarpCommand {
  static override needsEverything = true;
  static override summary = 'Print a manual page, or write all of them into a directory.';
  static override examples = ['<%= config.bin %> man mem | man -l -', '<%= config.bin %> man --output ~/.local/share/man/man1'];
  static override args = { command: Args.string({ description: 'Name of the command.', ignoreStdin: true }) };
  static override flags = {
    output: Flags.string({ char: 'o', description: 'Write the pages of all commands into this directory.', helpValue: 'DIR' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Man);
    const { bin, version, pjson } = this.config;
    const commands = commandFacts(this.config);
    const pages = new Map([[bin, programPage(bin, version, pjson.description ?? '', commands)]]);
    for (const command of commands) pages.set(`${bin}-${command.name}`, commandPage(bin, version, command));
    if (flags.output === undefined) {
      const page = pages.get(args.command === undefined ? bin : `${bin}-${args.command}`);
      if (page === undefined) throw new Failure(`${args.command} is not a warp-tool command; see \`warp-tool --help\``);
      process.stdout.write(page);
      return;
    }
    try {
      await mkdir(flags.output, { recursive: true });
      for (const [name, page] of pages) await writeFile(join(flags.output, `${name}.1`), page);
    } catch (error) {
      throw new Failure(`cannot write manual pages into ${flags.output}: ${systemErrorReason(error)}`, { cause: error });
    }
    this.print([`${count(pages.size, 'page')} in ${printable(flags.output)}`]);
  }
}
