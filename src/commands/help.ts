import { Args, loadHelpClass } from '@oclif/core';
import { WarpCommand } from './base.js';

export default class Help extends WarpCommand {
  static override summary = 'Show help for warp-tool or for one command.';
  static override args = { command: Args.string({ description: 'Name of the command.', ignoreStdin: true }) };

  async run(): Promise<void> {
    const { args } = await this.parse(Help);
    const HelpClass = await loadHelpClass(this.config);
    await new HelpClass(this.config, this.config.pjson.oclif.helpOptions).showHelp(args.command === undefined ? [] : [args.command]);
  }
}
