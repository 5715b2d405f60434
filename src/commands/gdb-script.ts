import { writeFile } from 'node:fs/promises';
import { Flags } from '@oclif/core';
import { availableParallelism } from 'node:os';
import { withImage, type Image } from '../elf/image.js';
import { gdbScript } from '../elf/gdb-script.js';
import { isPlainFile, localCopy } from '../elf/local-copy.js';
import { interruptible } from '../interruption.js';
import { Progress } from '../terminal/progress.js';
import { Failure, systemErrorReason } from '../failure.js';
import { imageArgument, WarpCommand } from './base.js';
import { keyFlags } from './keys.js';

export default class GdbScript extends WarpCommand {
  static override summary = 'Print GDB commands that resolve every stack of an image.';
  static override description =
    'They load the executable and the libraries that were mapped, when they are still the same, and name the threads.';
  static override examples = [
    '<%= config.bin %> gdb-script /tmp/image -o image.gdb && gdb -x image.gdb',
    '<%= config.bin %> gdb-script core.1234 | less',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    ...keyFlags,
    output: Flags.string({ char: 'o', description: 'Write to this file instead of stdout.', helpValue: 'FILE' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(GdbScript);
    const script = await this.withImage(args.image, flags, async (image) => {
      for (const warning of image.warnings) this.warnUser(`${args.image}: ${warning}`);
      return isPlainFile(image) || image.file.path === undefined ? gdbScript(image) : this.onCopy(image);
    });
    if (flags.output === undefined) {
      process.stdout.write(script);
      return;
    }
    try {
      await writeFile(flags.output, script);
    } catch (error) {
      throw new Failure(`cannot write ${flags.output}: ${systemErrorReason(error)}`, { cause: error });
    }
  }

  /** For an image that GDB cannot read where it is. */
  private async onCopy(image: Image): Promise<string> {
    if (image.encrypted)
      throw new Failure(`${image.file.name} is encrypted, and no plain copy of it may stay: use \`warp-tool gdb\`, or decrypt it`);
    const bar = new Progress('unpacking');
    const progress = (done: number, total: number): void => bar.update(done, total);
    const { path } = await interruptible((signal) => localCopy(image, { threads: availableParallelism(), progress, signal })).finally(() =>
      bar.end(),
    );
    this.tellUser(`the script opens a plain copy of the image, ${path}; it goes when it is not used for a week`);
    return withImage(path, gdbScript);
  }
}
