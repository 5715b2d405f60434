import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import { Args, Flags } from '@oclif/core';
import { encodeImage } from '../elf/encode.js';
import { outputPath } from '../elf/image-writer.js';
import { describedImage, type MetadataJson } from '../elf/metadata.js';
import { Failure, systemErrorReason } from '../failure.js';
import { printable } from '../terminal/format.js';
import { Progress } from '../terminal/progress.js';
import { WarpCommand } from './base.js';
import { keyFlags } from './keys.js';

export default class Encode extends WarpCommand {
  static override summary = 'Make an image from the JSON of `decode`, edited or not.';
  static override description = [
    'Memory comes from the image that the document was decoded from. Nothing edited gives the same image, byte for byte. Paths of descriptors, names of',
    'threads, signal dispositions, labels and other records of notes can be edited at will, entries of the environment as long as they fit into its',
    'block of memory. Checksums are made anew.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> encode image.json -o /tmp/edited',
    '<%= config.bin %> decode /tmp/image | <%= config.bin %> encode - -o /tmp/copy',
    '<%= config.bin %> encode image.json --image /mnt/image -o /tmp/edited',
  ];
  static override args = { file: Args.string({ description: 'Document; - for stdin.', required: true, ignoreStdin: true }) };
  static override flags = {
    ...keyFlags,
    output: Flags.string({ char: 'o', description: 'Directory for core.img, or a file (*.img).', required: true, helpValue: 'IMAGE' }),
    image: Flags.string({ description: 'The image with the content, where it is not at the path in the document.', helpValue: 'IMAGE' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Encode);
    const document = await readDocument(args.file);
    const progress = new Progress('writing');
    try {
      await this.withImage(flags.image ?? document.source.path, flags, async (opened) => {
        const image = describedImage(opened);
        const path = await outputPath(flags.output, image.ours);
        await encodeImage(document, image, path, (done, total) => progress.update(done, total));
        progress.end();
        this.print([printable(path)]);
      });
    } finally {
      progress.end();
    }
  }
}

async function readDocument(file: string): Promise<MetadataJson> {
  const name = file === '-' ? 'stdin' : file;
  let text: string;
  try {
    text = file === '-' ? await readAll(process.stdin) : await readFile(file, 'utf8');
  } catch (error) {
    throw new Failure(`cannot read ${name}: ${systemErrorReason(error)}`, { cause: error });
  }
  let document: MetadataJson;
  try {
    document = JSON.parse(text) as MetadataJson;
  } catch (error) {
    throw new Failure(`${name} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  const lists = [document?.segments, document?.notes, document?.residue];
  if (typeof document?.source?.path !== 'string' || !lists.every((list) => Array.isArray(list))) {
    throw new Failure(`${name} is no document of \`warp-tool decode\`; see \`warp-tool schema decode\``);
  }
  return document;
}
