import { Args } from '@oclif/core';
import { withImage } from '../elf/image.js';
import { Failure } from '../failure.js';
import { imageArgument, WarpCommand } from './base.js';
import { keyFlags } from './keys.js';

export default class Explore extends WarpCommand {
  /** ink is an ES module, and takes a while to load: no other command does. */
  static override needsEverything = true;
  static override summary = 'Look around in an image, or two, on the whole terminal.';
  static override description = [
    'Overview, threads with registers and stacks, memory map, descriptors, environment, signals, memory with search and pointers to',
    'follow, and what differs from a second image. The last line names the keys of each view; ? explains all.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> explore /tmp/image',
    '<%= config.bin %> explore before after',
    '<%= config.bin %> explore core.1234',
  ];
  static override args = {
    image: imageArgument,
    other: Args.string({ description: 'An image to compare it with.', ignoreStdin: true }),
  };
  static override flags = keyFlags;
  async run(): Promise<void> {
    const { args, flags } = await this.parse(Explore);
    const options = await this.openOptions(flags);
    if (!process.stdin.isTTY || !process.stdout.isTTY || process.env['TERM'] === 'dumb') {
      await withImage(args.image, () => {}, options); // what is wrong with it is wrong without a terminal, too
      throw new Failure(
        'explore needs a terminal that can place its cursor on stdin and stdout; show, threads, maps and mem print to a pipe',
      );
    }
    const { explore } = await import('../explore/run.js');
    const signal = await explore(args.image, args.other, this.style, options);
    // Whoever waits for this process sees what ended it.
    if (signal) process.kill(process.pid, signal);
  }
}
