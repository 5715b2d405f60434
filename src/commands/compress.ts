import { Flags } from '@oclif/core';
import { withImage } from '../elf/image.js';
import { compressImage } from '../elf/pack.js';
import { LARGEST_CHUNK } from '../elf/schema.js';
import { parseLength } from '../elf/selection.js';
import { Failure } from '../failure.js';
import { imageArgument } from './base.js';
import { outputFlag, RepackCommand, threadsFlag, type RepackDocument } from './repack.js';

const SMALLEST_CHUNK = 4096n;

export default class Compress extends RepackCommand {
  static override summary = 'Make a compressed image.';
  static override description = [
    'Content is compressed with LZ4 in chunks that need each other not at all, on all processors; equal chunks are stored once. All commands read',
    'such an image like a plain one, and only the chunks that they need; `decompress` gives back the same bytes. Core files of other writers can be',
    'compressed too. The checksums of the image are compared first.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> compress /tmp/image -o /tmp/small',
    '<%= config.bin %> compress core.1234 -o core.1234.img --level 9',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    output: outputFlag,
    level: Flags.integer({ char: 'l', min: 1, max: 9, default: 1, description: 'From 1, fast, to 9, small.', helpValue: '1-9' }),
    'chunk-size': Flags.string({
      default: '256K',
      description: 'Content in one chunk, 4K to 1M: what a single read costs at least.',
      helpValue: 'SIZE',
    }),
    threads: threadsFlag,
  };

  async run(): Promise<RepackDocument> {
    const { args, flags } = await this.parse(Compress);
    const chunkSize = parseLength(flags['chunk-size']);
    if (chunkSize < SMALLEST_CHUNK || chunkSize > BigInt(LARGEST_CHUNK) || chunkSize % SMALLEST_CHUNK !== 0n)
      throw new Failure(`--chunk-size ${flags['chunk-size']} is no multiple of 4K from 4K to 1M`);
    return withImage(args.image, (image) =>
      this.repack(image, flags, 'compressing', (path, work) =>
        compressImage(image, path, { ...work, level: flags.level, chunkSize: Number(chunkSize) }),
      ),
    );
  }
}
