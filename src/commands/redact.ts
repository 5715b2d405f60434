import { Flags } from '@oclif/core';
import { outputPath, refuseSameFile } from '../elf/image-writer.js';
import { keepable, redactImage } from '../elf/redact.js';
import { redact } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { bytes, printable } from '../terminal/format.js';
import { DocumentCommand, imageArgument } from './base.js';
import { keyFlags } from './keys.js';

type Document = Static<typeof redact>;

export default class Redact extends DocumentCommand {
  static override summary = 'Make an image that can go into a public bug report.';
  static override description = [
    'Memory, environment, arguments, paths, names, addresses of sockets, data in pipes and sockets, labels and registers that are no addresses are',
    'blanked; sizes, areas, kinds, states and build-ids stay. The result is a sparse file: compress it before sending it.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> redact /tmp/image -o /tmp/public',
    '<%= config.bin %> redact core.1234 -o public.core --keep paths',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    ...keyFlags,
    output: Flags.string({
      char: 'o',
      description: 'Directory for core.img, or a file (*.img; any name for a foreign core).',
      required: true,
      helpValue: 'OUT',
    }),
    keep: Flags.option({
      options: keepable,
      multiple: true,
      multipleNonGreedy: true,
      description: 'Leave this in; may be given again.',
    })(),
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Redact);
    const document = await this.withImage(args.image, flags, async (image): Promise<Document> => {
      const path = await outputPath(flags.output, image.ours);
      await refuseSameFile(path, image.file);
      const removed = await redactImage(image, path, new Set(flags.keep));
      return {
        image: path,
        kept: flags.keep ?? [],
        removed: removed.map(({ what, count, bytes: size }) => ({ what, count, bytes: size === null ? null : byteCountOf(size) })),
      };
    });
    this.present(document, flags.json ?? false, (result) => this.render(result));
    return document;
  }

  private *render({ image, removed, kept }: Document): Generator<string> {
    const { style } = this;
    yield printable(image);
    for (const { what, count, bytes: size } of removed) {
      yield `  ${style.dim('removed')}  ${count === 1 ? '' : `${count} `}${what}${size === null ? '' : ` (${bytes(size)})`}`;
    }
    if (kept.length > 0) yield `  ${style.yellow('kept')}     ${kept.join(', ')}`;
  }
}
