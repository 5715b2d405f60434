import { encryptImage } from '../elf/encrypt.js';
import { withImage } from '../elf/image.js';
import { Failure } from '../failure.js';
import { imageArgument } from './base.js';
import { keyFlags } from './keys.js';
import { outputFlag, RepackCommand, type RepackDocument } from './repack.js';

export default class Encrypt extends RepackCommand {
  static override summary = 'Make an encrypted image.';
  static override description = [
    'Memory and metadata are encrypted with AES-256-GCM under a key of its own that is derived from yours. What remains to be seen is when and on',
    'which kernel and processor the image was made, and how large its chunks are. What is encrypted does not shrink: compress it before. All commands',
    'that look into images read it with the same flag.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> encrypt /tmp/image -o /tmp/sealed --encryption-key-file key',
    '<%= config.bin %> encrypt core.1234 -o core.img --encryption-key-env KEY',
  ];
  static override args = { image: imageArgument };
  static override flags = { output: outputFlag, ...keyFlags };

  async run(): Promise<RepackDocument> {
    const { args, flags } = await this.parse(Encrypt);
    const key = await this.key(flags);
    return withImage(args.image, (image) => {
      if (!key) throw new Failure('no key: give --encryption-key-file FILE or --encryption-key-env NAME; `openssl rand -hex 32` makes one');
      return this.repack(image, flags, 'encrypting', (path, work) => encryptImage(image, path, key, work));
    });
  }
}
