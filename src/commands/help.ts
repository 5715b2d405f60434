import { Args, loadHelpClass } from '@oclif/core';
import { Failure } from '../failure.js';
import { WarpCommand } from './base.js';

export default class Help extends WarpCommand {
  static override needsEverything = true;
  static override summary = 'Show help for warp-tool or for one command.';
  static override examples = ['<%= config.bin %> help', '<%= config.bin %> help mem'];
  static override args = { command: Args.string({ description: 'Name of the command.', ignoreStdin: true }) };

  async run(): Promise<void> {
    const { args } = await this.parse(Help);
    if (args.command !== undefined && !this.config.findCommand(args.command)) {
      throw new Failure(`${args.command} is not a warp-tool command; see \`warp-tool --help\``);
    }
    const HelpClass = await loadHelpClass(this.config);
    await new HelpClass(this.config, this.config.pjson.oclif.helpOptions).showHelp(args.command === undefined ? [] : [args.command]);
  }
}
