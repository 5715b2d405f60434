import { Flags } from '@oclif/core';
import { chmod, chown, mkdtemp, rm, stat } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { askedTimes, mergeRuns } from '../elf/accesses.js';
import { writeEncrypted } from '../elf/encrypt.js';
import { Image, withImage } from '../elf/image.js';
import { ImageWriter, outputPath } from '../elf/image-writer.js';
import { rearranged } from '../elf/rearrange.js';
import { IMAGE_COMPRESSED, IMAGE_DELTA, IMAGE_FOREIGN } from '../elf/schema.js';
import { resolveImage, schemeOf } from '../elf/source.js';
import { trainingRun, type RunEnd } from '../engine/training.js';
import { Failure } from '../failure.js';
import { imageLocation, urlOf } from '../store/location.js';
import type { StagingOptions } from '../store/staging.js';
import { optimize } from '../schemas/index.js';
import { type Static } from '../schemas/builder.js';
import { count, printable } from '../terminal/format.js';
import { DocumentCommand, imageArgument } from './base.js';
import { keyFlags } from './keys.js';
import { transferring } from './local-file.js';
import { optimisationJson, optimisationText } from './optimisation.js';

type Document = Static<typeof optimize>;

export default class Optimize extends DocumentCommand {
  static override summary = 'Put first in a compressed image what its program needs first.';
  static override description = [
    'Restores the program as often as --runs says, one after the other, with nothing in memory but what it asks for, and kills it when --until succeeds, when',
    'it ends or when the time is over. What most runs asked for, and of that what they asked for earliest, then stands first in the image, as it is in memory:',
    'a restore maps it and loads the rest while the program runs. The timeline is kept in the image; `show` and `report` tell it. Each run is a real one: the',
    'program does what it would do after any restore. An encrypted image is encrypted anew, with the same key, and nothing of it is written in the clear;',
    'what is needed first stays compressed in it, for it could not be mapped.',
  ].join(' ');
  static override examples = [
    "<%= config.bin %> optimize /tmp/image --runs 3 --until 'curl -sf localhost:8080'",
    '<%= config.bin %> optimize /tmp/image --runs 1 --timeout 10 -o /tmp/optimised',
    '<%= config.bin %> optimize /tmp/sealed --runs 3 --encryption-key-file key',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    runs: Flags.integer({ description: 'Training restores.', required: true, min: 1, max: 1000, helpValue: 'N' }),
    until: Flags.string({ description: 'A command for sh; a run is over when it ends with 0.', helpValue: 'CMD' }),
    timeout: Flags.integer({
      description: 'Seconds that a run takes at most; with --until more is an error.',
      default: 30,
      min: 1,
      max: 86_400,
      helpValue: 'SECONDS',
    }),
    output: Flags.string({
      char: 'o',
      description: 'Directory for core.img, a file (*.img), or an s3:// or gs:// URL, instead of the image itself.',
      helpValue: 'OUT',
    }),
    'keep-compressed': Flags.boolean({
      description: 'Leave what is needed first compressed too: a smaller image, whose first answer comes later.',
    }),
    'load-faults': Flags.string({
      description: 'How memory that is not loaded yet is noticed; auto takes the first that this host allows.',
      options: ['auto', 'userfaultfd', 'userfaultfd-user', 'signals'],
    }),
    verbose: Flags.boolean({ description: "Show the program's output on stderr." }),
    ...keyFlags,
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Optimize);
    const target = flags.output ?? args.image;
    const options = await this.openOptions(flags);
    const ends: RunEnd[] = [];
    const optimise = async (source: string, output: string, staging: StagingOptions): Promise<Document> => {
      await withImage(source, (image) => this.train(image, source, output, options.key, flags, ends, staging), options);
      return { image: output, ended_by: ends, ...(await withImage(output, optimisationJson, options))! };
    };
    const document = await transferring(async (staging) => {
      if (schemeOf(args.image) === null && schemeOf(target) === null) {
        const source = await resolveImage(args.image);
        return optimise(source, flags.output === undefined ? source : await outputPath(flags.output, true), staging);
      }
      const { checkWritable, pushStaged, withPulled, withStage } = await import('../store/staging.js');
      // Training takes long.
      if (schemeOf(target) !== null) await checkWritable(target);
      const toTarget = async (source: string, replaces?: string): Promise<Document> => {
        if (schemeOf(target) === null) return optimise(source, await outputPath(target, true), staging);
        return withStage(async (directory, keep) => {
          const optimised = await optimise(source, join(directory, 'core.img'), staging);
          await pushStaged(optimised.image, target, staging, replaces).catch((error: unknown) => {
            // Training may have taken long, and is not lost.
            if (staging.signal.aborted || !(error instanceof Failure)) throw error;
            keep();
            throw new Failure(
              `${error.message}; the optimised image is ${optimised.image}: send that with \`warp-tool push ${directory} ${target} --force\``,
              { cause: error },
            );
          });
          return { ...optimised, image: target };
        });
      };
      if (schemeOf(args.image) === null) return toTarget(await resolveImage(args.image));
      const inPlace = schemeOf(target) !== null && urlOf(imageLocation(args.image)) === urlOf(imageLocation(target));
      return withPulled(args.image, staging, ({ path, etag }) => toTarget(path, inPlace ? etag : undefined));
    });
    this.present(document, flags.json ?? false, (result) => [
      printable(result.image),
      `  ${optimisationText(result)}`,
      `  ${endsText(ends)}`,
    ]);
    return document;
  }

  /** Restores the program as often as is asked for, and writes what that has taught. */
  private async train(
    image: Image,
    source: string,
    output: string,
    givenKey: Buffer | undefined,
    flags: { runs: number; until?: string; timeout: number; 'load-faults'?: string; verbose?: boolean; 'keep-compressed'?: boolean },
    ends: RunEnd[],
    staging: StagingOptions,
  ): Promise<void> {
    refuse(image);
    const { signal } = staging;
    const progress = (done: number, total: number): void => {
      signal.throwIfAborted();
      staging.progress('writing', done, total);
    };
    const key = image.encrypted ? givenKey : undefined;
    const directory = await mkdtemp(join(tmpdir(), 'warp-tool-optimize-'));
    try {
      const program = image.single('process');
      // Root's restorer takes on the program's identity before it writes there.
      if (program && process.geteuid!() === 0) await chown(directory, program.uid[1]!, program.gid[1]!);
      const runs: Map<bigint, bigint>[] = [];
      for (let index = 0; index < flags.runs; index++) {
        const { until, timeout, verbose = false, 'load-faults': loadFaults } = flags;
        const training = { image: source, until, timeout, loadFaults, key, verbose, signal };
        const { end, trace } = await trainingRun(training, join(directory, String(index))).catch((error: unknown) => {
          if (error instanceof Failure && flags.runs > 1)
            throw new Failure(`training run ${index + 1} of ${flags.runs}: ${error.message}`, { cause: error });
          throw error;
        });
        ends.push(end);
        runs.push(askedTimes(trace));
      }
      const status = output === source ? await stat(source) : null;
      const mappable = !flags['keep-compressed'] && !image.encrypted;
      const optimised = await rearranged(image, mergeRuns(image, runs), mappable);
      await ImageWriter.write(output, async (writer) => {
        if (key) await writeEncrypted(await Image.from(optimised), writer, key, { threads: availableParallelism(), progress, signal });
        else await writer.copyAll(optimised, progress);
        if (!status) return;
        // It takes the image's place: whoever could restore that can restore this.
        if (status.uid !== process.geteuid!()) await chown(writer.path, status.uid, status.gid);
        await chmod(writer.path, status.mode & 0o7777);
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
}

function refuse(image: Image): void {
  const { anchor, ours, source } = image;
  const refusal = (problem: string, mend: string): never => {
    throw new Failure(`${source.name}: ${problem}; ${mend}`);
  };
  if (!anchor || !ours)
    return refusal('it is not an image of this version of warp-tool, so it cannot be restored', 'give an image of `warp-tool checkpoint`');
  if ((anchor.flags & IMAGE_FOREIGN) !== 0)
    refusal('it is a core file of another writer, which cannot be restored', 'give an image of `warp-tool checkpoint`');
  image.requireKey();
  if ((anchor.flags & IMAGE_DELTA) !== 0) refusal('it holds only what differs from its parent', 'take the image without --parent');
  if ((anchor.flags & IMAGE_COMPRESSED) === 0) {
    if (image.encrypted)
      refusal('what is encrypted in it is not compressed', 'decrypt it, compress it with `warp-tool compress`, and encrypt that');
    refusal(
      'it is not compressed, and plain images are mapped, not loaded: their order does not matter',
      'compress it with `warp-tool compress` first',
    );
  }
}

function endsText(ends: readonly RunEnd[]): string {
  const words: Record<RunEnd, string> = {
    condition: 'until the condition held',
    'program ended': 'until the program ended',
    timeout: 'until the time was over',
  };
  const kinds = [...new Set(ends)];
  return kinds.map((kind) => `${count(ends.filter((end) => end === kind).length, 'run')} ${words[kind]}`).join(', ');
}
