import { Args } from '@oclif/core';
import { pull } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { bytes, printable } from '../terminal/format.js';
import { DocumentCommand } from './base.js';
import { transferring } from './local-file.js';
import { forceFlag, storeFlags, storeOptions } from './store-flags.js';

type Document = Static<typeof pull>;

const VERIFIED: Record<Document['verified'], string> = {
  sha256: 'SHA-256 as recorded by push',
  checksums: "verified by the image's own checksums",
  size: 'not verified: neither the object nor the image has a checksum',
};

export default class Pull extends DocumentCommand {
  static override summary = 'Download an image from object storage into a directory.';
  static override description =
    'Transfers that break off go on where they stopped. DIR/core.img is there when it is complete, verified and durable, and not before.';
  static override examples = [
    '<%= config.bin %> pull s3://bucket/services/search/ /tmp/image',
    '<%= config.bin %> pull gs://bucket/search.img /tmp/image --parallel 16',
  ];
  static override args = {
    url: Args.string({ description: 's3:// or gs:// URL, as for push.', required: true, ignoreStdin: true }),
    directory: Args.string({ description: 'Directory for core.img, or a file (*.img).', required: true, ignoreStdin: true }),
  };
  static override flags = { force: forceFlag, ...storeFlags };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Pull);
    const options = storeOptions(flags);
    const { path, size, ...rest } = await transferring(async (staging) => {
      const { pull: pullImage } = await import('../store/pull.js');
      return pullImage(args.url, args.directory, { ...options, ...staging, force: flags.force ?? false, parallel: flags.parallel });
    });
    const document: Document = { image: path, size: byteCountOf(size), ...rest };
    this.present(document, flags.json ?? false, ({ image, verified }) => [
      `${printable(image)}  ${this.style.dim(`${bytes(size)}, ${VERIFIED[verified]}`)}`,
    ]);
    return document;
  }
}
