import { writeFile } from 'node:fs/promises';
import { Flags } from '@oclif/core';
import { withImage } from '../elf/image.js';
import { gdbScript } from '../elf/gdb-script.js';
import { Failure, systemErrorReason } from '../failure.js';
import { imageArgument, WarpCommand } from './base.js';

export default class GdbScript extends WarpCommand {
  static override summary = 'Print GDB commands that resolve every stack of an image.';
  static override description =
    'They load the executable and the libraries that were mapped, when they are still the same, and name the threads.';
  static override examples = [
    '<%= config.bin %> gdb-script /tmp/image -o image.gdb && gdb -x image.gdb',
    '<%= config.bin %> gdb-script core.1234 | less',
  ];
  static override args = { image: imageArgument };
  static override flags = { output: Flags.string({ char: 'o', description: 'Write to this file instead of stdout.', helpValue: 'FILE' }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(GdbScript);
    const script = await withImage(args.image, (image) => {
      for (const warning of image.warnings) this.warnUser(`${args.image}: ${warning}`);
      return gdbScript(image);
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
}
