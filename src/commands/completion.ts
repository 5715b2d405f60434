import { Args } from '@oclif/core';
import { completionScript, shells } from '../terminal/completion.js';
import { WarpCommand } from './base.js';
import { commandFacts } from './facts.js';

export default class Completion extends WarpCommand {
  static override needsEverything = true;
  static override summary = 'Print a completion script for bash, zsh or fish.';
  static override description = 'Completes commands, flags, values of flags, files, and the ids of processes that can be checkpointed.';
  static override examples = [
    'source <(<%= config.bin %> completion bash)',
    '<%= config.bin %> completion zsh > ~/.zfunc/_warp-tool',
    '<%= config.bin %> completion fish > ~/.config/fish/completions/warp-tool.fish',
  ];
  static override args = {
    shell: Args.string({ options: [...shells], description: 'bash, zsh or fish.', required: true, ignoreStdin: true }),
  };

  async run(): Promise<void> {
    const { args } = await this.parse(Completion);
    const shell = shells.find((name) => name === args.shell)!;
    process.stdout.write(completionScript(shell, this.config.bin, commandFacts(this.config)));
  }
}
