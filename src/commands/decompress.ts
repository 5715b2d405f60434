import { withImage } from '../elf/image.js';
import { decompressImage } from '../elf/pack.js';
import { imageArgument } from './base.js';
import { outputFlag, RepackCommand, threadsFlag, type RepackDocument } from './repack.js';

export default class Decompress extends RepackCommand {
  static override summary = 'Make a plain image of a compressed one.';
  static override description =
    'What `compress` made becomes what it was, byte for byte. Every chunk is compared with its checksums. GDB and other readers of core files open the result in full.';
  static override examples = [
    '<%= config.bin %> decompress /tmp/small -o /tmp/image',
    '<%= config.bin %> decompress core.1234.img -o core.1234 --threads 2',
  ];
  static override args = { image: imageArgument };
  static override flags = { output: outputFlag, threads: threadsFlag };

  async run(): Promise<RepackDocument> {
    const { args, flags } = await this.parse(Decompress);
    return withImage(args.image, (image) => this.repack(image, flags, 'decompressing', (path, work) => decompressImage(image, path, work)));
  }
}
