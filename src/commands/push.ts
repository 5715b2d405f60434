import { Args } from '@oclif/core';
import { push } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { bytes, count, printable } from '../terminal/format.js';
import { DocumentCommand, imageArgument } from './base.js';
import { transferring } from './local-file.js';
import { forceFlag, storeFlags, storeOptions } from './store-flags.js';

type Document = Static<typeof push>;

export default class Push extends DocumentCommand {
  static override summary = 'Upload an image to object storage.';
  static override description = [
    'The image is checked first, sent in parts, and there for others only when it is complete; an interrupted upload leaves nothing behind. An object that is',
    'there already is kept unless --force is given. What the image is and its SHA-256 are stored beside it. See docs/object-storage.md for credentials.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> push /tmp/image s3://bucket/services/search/',
    '<%= config.bin %> push /tmp/image gs://bucket/search.img --force',
    '<%= config.bin %> push core.1234 s3://bucket/core --endpoint https://minio:9000',
  ];
  static override args = {
    image: imageArgument,
    url: Args.string({
      description: 's3:// or gs:// URL; one that ends in a slash gets core.img behind it.',
      required: true,
      ignoreStdin: true,
    }),
  };
  static override flags = { force: forceFlag, ...storeFlags };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Push);
    const options = storeOptions(flags);
    const { size, ...rest } = await transferring(async (staging) => {
      const { push: pushImage } = await import('../store/push.js');
      return pushImage(args.image, args.url, { ...options, ...staging, force: flags.force ?? false, parallel: flags.parallel });
    });
    const document: Document = { ...rest, size: byteCountOf(size) };
    this.present(document, flags.json ?? false, ({ url, parts, sha256 }) => [
      `${printable(url)}  ${this.style.dim(`${bytes(size)} in ${count(parts, 'part')}, SHA-256 ${sha256}`)}`,
    ]);
    return document;
  }
}
