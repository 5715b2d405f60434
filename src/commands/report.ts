import { Flags } from '@oclif/core';
import { AddressSpace } from '../elf/address-space.js';
import { withImage, type Image } from '../elf/image.js';
import { ImageWriter } from '../elf/image-writer.js';
import { protectionText } from '../elf/vmas.js';
import { findingOf, validateImage, type Checked, type Finding } from '../elf/validate.js';
import { codec } from '../engine/codec.js';
import { Failure, ImageError } from '../failure.js';
import { hex } from '../hex.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import type { report } from '../schemas/index.js';
import { bytes, printable } from '../terminal/format.js';
import { Progress } from '../terminal/progress.js';
import { DocumentCommand, imageArgument } from './base.js';
import { collectEnvironment } from './env.js';
import { collectFds } from './fds.js';
import { amountsOf } from './maps.js';
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
    output: Flags.string({ char: 'o', description: 'File for the page; - for stdout.', helpValue: 'FILE', default: '-' }),
    'with-environment': Flags.boolean({ description: 'Include the environment, which often holds secrets.' }),
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Report);
    const { output, json = false } = flags;
    const document = await withImage(args.image, (image) => {
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
  const [composition, advice] = await compose(image, show.java);
  warnings.push(...(show.java?.problems ?? []));
  return {
    image: image.source.name,
    warnings,
    show,
    validate,
    composition,
    advice,
    threads: await part(async () => {
      const threads = await collectThreads(image, false);
      await addJava(image, threads, null);
      return threads;
    }),
    fds: image.ours ? await part(() => collectFds(image)) : null,
    env: withEnvironment ? await part(() => collectEnvironment(image)) : null,
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

async function compose(image: Image, java: Document['show']['java']): Promise<[Document['composition'], Document['advice']]> {
  const { compositionOf } = await import('../elf/composition.js');
  const { adviceOf, packedEstimate, RUNTIME_TOPICS } = await import('../elf/advice.js');
  const space = new AddressSpace(image);
  const progress = new Progress('reading');
  try {
    const composition = await compositionOf(
      space,
      (block) => codec().compress(block, 1),
      (done, total) => progress.update(done, total),
    );
    const content = (one: { zero: number; duplicate: number; unread: number }) => ({
      stored_zero: one.zero,
      stored_duplicate: one.duplicate,
      unread: one.unread,
    });
    const total = { zero: 0, duplicate: 0, unread: 0 };
    for (const { zero, duplicate, unread } of composition.categories) {
      total.zero += zero;
      total.duplicate += duplicate;
      total.unread += unread;
    }
    const vmas = composition.areas.map(({ vma }) => vma);
    const document: Document['composition'] = {
      cell: composition.cell,
      duplicates_from: composition.duplicatesFrom,
      total: { areas: vmas.length, ...amountsOf(vmas), ...content(total) },
      categories: composition.categories.map((one) => ({
        category: one.category,
        areas: one.areas.length,
        ...amountsOf(one.areas),
        ...content(one),
        read: one.read,
        sampled: one.sampled,
        lz4: packedEstimate(one),
      })),
      areas: composition.areas.map((area) => ({
        start: hex(area.vma.start),
        end: hex(area.vma.end),
        protection: protectionText(area.vma),
        kind: area.vma.kind,
        category: area.category,
        label: area.label,
        flags: area.vma.flags,
        offset: hex(area.vma.offset),
        ...amountsOf([area.vma]),
        ...content(area),
        cells: area.cells,
      })),
    };
    const general = adviceOf(image, composition, java?.heap ? RUNTIME_TOPICS : undefined);
    const advice = [
      ...general.map((one) => ({ ...one, bytes: byteCountOf(BigInt(one.bytes)) })),
      ...(java?.advice ?? []).map(({ part, bytes: amount, problem, mend }) => ({
        topic: part,
        bytes: amount,
        saves: false,
        observation: sentence(problem),
        mend: sentence(mend),
      })),
    ];
    return [document, advice.toSorted((a, b) => Number(b.saves) - Number(a.saves) || Number(b.bytes) - Number(a.bytes))];
  } finally {
    progress.end();
    await space.close();
  }
}

function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
}
