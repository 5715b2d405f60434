import { Flags } from '@oclif/core';
import type { Image } from '../elf/image.js';
import { ImageWriter } from '../elf/image-writer.js';
import { timelineOf } from '../elf/timeline.js';
import { findingOf, validateImage, type Checked, type Finding } from '../elf/validate.js';
import { Failure, ImageError } from '../failure.js';
import { hex } from '../hex.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import type { report } from '../schemas/index.js';
import { bytes, printable } from '../terminal/format.js';
import { Progress } from '../terminal/progress.js';
import { DocumentCommand, imageArgument } from './base.js';
import { keyFlags } from './keys.js';
import { collectComposition } from './composition.js';
import { collectEnvironment } from './env.js';
import { collectFds } from './fds.js';
import { collectShow } from './show.js';
import { addJava, collectThreads } from './threads.js';
import { validationDocument } from './validate.js';

type Document = Static<typeof report>;

export default class Report extends DocumentCommand {
  static override summary = 'Make a page about an image: memory map, composition, findings.';
  static override description = [
    'One HTML file that loads nothing: it can be sent, opened on a telephone and printed. All stored memory is read, to find zeros and copies and to',
    'estimate what LZ4 would save. The page is readable by its owner only, as images are.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> report /tmp/image -o image.html',
    '<%= config.bin %> report core.1234 --with-environment > core.html',
    '<%= config.bin %> report /tmp/image --json',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    ...keyFlags,
    output: Flags.string({ char: 'o', description: 'File for the page; - for stdout.', helpValue: 'FILE', default: '-' }),
    'with-environment': Flags.boolean({ description: 'Include the environment, which often holds secrets.' }),
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Report);
    const { output, json = false } = flags;
    const document = await this.withImage(args.image, flags, (image) => {
      if (output === '-' && !json && process.stdout.isTTY) throw new Failure('a page is not for a terminal; name a file for it with -o');
      return collectReport(image, flags['with-environment'] ?? false);
    });
    if (output !== '-' || !json) {
      const { renderReport } = await import('../report/page.js');
      const page = renderReport(document, this.config.version);
      if (output === '-') this.print([page.trimEnd()]);
      else await ImageWriter.write(output, (writer) => writer.write(0n, Buffer.from(page)));
      if (output !== '-' && !json) this.print([`${printable(output)}  ${bytes(Buffer.byteLength(page))}`]);
    }
    if (json) this.present(document, json, () => []);
    return document;
  }
}

async function collectReport(image: Image, withEnvironment: boolean): Promise<Document> {
  const validate = await validation(image);
  const show = await collectShow(image);
  const warnings = [...image.warnings];
  // What one part cannot show must not keep the others from being shown.
  const part = async <T>(collect: () => Promise<T> | T): Promise<T | null> => {
    try {
      return await collect();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      warnings.push(error.message);
      return null;
    }
  };
  const { composition, advice } = await collectComposition(image, show.java);
  warnings.push(...(show.java?.problems ?? []));
  return {
    image: image.source.name,
    warnings,
    show,
    validate,
    composition,
    advice,
    timeline: timeline(image, composition),
    threads: await part(async () => {
      const threads = await collectThreads(image, false);
      await addJava(image, threads, null);
      return threads;
    }),
    fds: image.ours ? await part(() => collectFds(image)) : null,
    env: withEnvironment ? await part(() => collectEnvironment(image)) : null,
  };
}

function timeline(image: Image, composition: Document['composition']): Document['timeline'] {
  const loads = timelineOf(image);
  if (loads.length === 0) return null;
  const areas = new Map(composition.areas.map((area) => [area.start, area]));
  return {
    runs: loads.reduce((most, { runs }) => Math.max(most, runs), 0),
    content: byteCountOf(image.anchor?.content_size ?? 0n),
    loads: loads.map(({ askedNs, runs, content, stored, address, vma }) => {
      const area = vma ? areas.get(hex(vma.start)) : undefined;
      return {
        ms: Number(askedNs) / 1e6,
        runs,
        content,
        stored,
        address: address === null ? null : hex(address),
        category: area?.category ?? null,
        label: area?.label ?? null,
      };
    }),
  };
}

async function validation(image: Image): Promise<Document['validate']> {
  const checked: Checked = { segments: 0, notes: 0, records: 0, chunks: 0, content: 0n };
  const findings: Finding[] = [];
  const progress = new Progress('hashing');
  try {
    for await (const finding of validateImage(image, checked, (done, total) => progress.update(Number(done), Number(total))))
      findings.push(finding);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    findings.push(findingOf(error));
  } finally {
    progress.end();
  }
  return validationDocument(image.source.name, checked, findings);
}
