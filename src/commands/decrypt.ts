import { decryptImage } from '../elf/encrypt.js';
import { SEALED } from '../elf/image.js';
import { Failure } from '../failure.js';
import { imageArgument } from './base.js';
import { keyFlags } from './keys.js';
import { outputFlag, RepackCommand, type RepackDocument } from './repack.js';

export default class Decrypt extends RepackCommand {
  static override summary = 'Make an image readable without its key.';
  static override description = 'The result is what was encrypted, byte for byte: plain, compressed, or a core file of another writer.';
  static override examples = [
    '<%= config.bin %> decrypt /tmp/sealed -o /tmp/image --encryption-key-file key',
    '<%= config.bin %> decrypt core.img -o core.1234 --encryption-key-env KEY',
  ];
  static override args = { image: imageArgument };
  static override flags = { output: outputFlag, ...keyFlags };

  async run(): Promise<RepackDocument> {
    const { args, flags } = await this.parse(Decrypt);
    return this.withImage(args.image, flags, (image) => {
      if (image.sealed) throw new Failure(`${image.source.name}: ${SEALED}`);
      return this.repack(image, flags, 'decrypting', (path, work) => decryptImage(image, path, work));
    });
  }
}
