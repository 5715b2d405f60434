import { writeFile } from 'node:fs/promises';
import { Flags } from '@oclif/core';
import { SEALED } from '../elf/image.js';
import { decodeMetadata, describedImage } from '../elf/metadata.js';
import { Failure, systemErrorReason } from '../failure.js';
import { printable } from '../terminal/format.js';
import { DocumentCommand, imageArgument } from './base.js';
import { keyFlags } from './keys.js';

export default class Decode extends DocumentCommand {
  static override summary = 'Print all metadata of an image as JSON.';
  static override description = [
    '`encode` turns the document back into an image. Memory stays in the image, which the document refers to. `warp-tool schema decode`',
    'describes the document.',
  ].join(' ');
  static override examples = ['<%= config.bin %> decode /tmp/image -o image.json', '<%= config.bin %> decode core.1234 | less'];
  static override args = { image: imageArgument };
  static override flags = {
    ...keyFlags,
    output: Flags.string({ char: 'o', description: 'Write to this file instead of stdout.', helpValue: 'FILE' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Decode);
    const document = await this.withImage(args.image, flags, (image) => {
      for (const warning of image.sealed ? [...image.warnings, SEALED] : image.warnings)
        this.warnUser(`${printable(args.image)}: ${warning}`);
      return decodeMetadata(describedImage(image));
    });
    const text = JSON.stringify(document, null, 1);
    if (flags.output === undefined) {
      this.print([text]);
      return;
    }
    try {
      // An environment holds secrets: nobody else may read it.
      await writeFile(flags.output, `${text}\n`, { mode: 0o600 });
    } catch (error) {
      throw new Failure(`cannot write ${flags.output}: ${systemErrorReason(error)}`, { cause: error });
    }
  }
}
