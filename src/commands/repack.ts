import { Flags } from '@oclif/core';
import { availableParallelism } from 'node:os';
import type { Work } from '../engine/chunk-work.js';
import type { Image } from '../elf/image.js';
import { outputPath, refuseSameFile } from '../elf/image-writer.js';
import type { Repacked } from '../elf/pack.js';
import { repack } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { bytes, count, printable } from '../terminal/format.js';
import { interruptible } from '../interruption.js';
import { Progress } from '../terminal/progress.js';
import { DocumentCommand } from './base.js';

export type RepackDocument = Static<typeof repack>;

export const outputFlag = Flags.string({
  char: 'o',
  description: 'Directory for core.img, or a file (*.img; any name for a core file of another writer).',
  required: true,
  helpValue: 'OUT',
});

export const threadsFlag = Flags.integer({
  min: 1,
  max: 256,
  description: 'Threads to work on; by default one for each processor.',
  helpValue: 'N',
});

/** A command that writes the same image in another form. */
export abstract class RepackCommand extends DocumentCommand {
  /** Has `work` write an image and tells what came of it. `label`: of the progress bar. */
  protected async repack(
    image: Image,
    flags: { output: string; json?: boolean; threads?: number },
    label: string,
    work: (path: string, options: Work) => Promise<Repacked>,
  ): Promise<RepackDocument> {
    const path = await outputPath(flags.output, image.outermost.ours && !image.outermost.foreignInside);
    await refuseSameFile(path, image.file);
    const bar = new Progress(label);
    try {
      const { size, chunks } = await interruptible((signal) => {
        const progress = (done: number, total: number): void => {
          signal.throwIfAborted();
          bar.update(done, total);
        };
        return work(path, { threads: flags.threads ?? availableParallelism(), progress, signal });
      });
      bar.end();
      const document: RepackDocument = { image: path, size: byteCountOf(size), before: byteCountOf(image.file.size), chunks };
      this.present(document, flags.json ?? false, (result) => this.render(result));
      return document;
    } finally {
      bar.end();
    }
  }

  private *render({ image, size, before, chunks }: RepackDocument): Generator<string> {
    const share = Number(before) > 0 ? `, ${((Number(size) / Number(before)) * 100).toFixed(1)} % of ${bytes(before)}` : '';
    yield `${printable(image)}  ${this.style.dim(`${bytes(size)}${share}, ${count(chunks, 'chunk')}`)}`;
  }
}
