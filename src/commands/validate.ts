import { Image } from '../elf/image.js';
import { resolveImage } from '../elf/source.js';
import { findingOf, validateImage, type Checked, type Finding } from '../elf/validate.js';
import { ImageError } from '../failure.js';
import { validate } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { hex } from '../hex.js';
import { bytes, count, printable } from '../terminal/format.js';
import { Progress } from '../terminal/progress.js';
import { DocumentCommand, imageArgument } from './base.js';

type Document = Static<typeof validate>;

const SHOWN = 40;

export default class Validate extends DocumentCommand {
  static override summary = 'Check an image: structure, consistency of all notes, and the hash of every chunk.';
  static override description = 'Exits with 0 when nothing is wrong, 1 when there are faults, 2 when the file cannot be opened.';
  static override args = { image: imageArgument };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Validate);
    const path = await resolveImage(args.image);
    const checked: Checked = { segments: 0, notes: 0, records: 0, chunks: 0, content: 0n };
    const findings: Finding[] = [];
    const progress = new Progress('hashing');
    try {
      const image = await Image.open(args.image);
      try {
        for await (const finding of validateImage(image, checked, (done, total) => progress.update(Number(done), Number(total))))
          findings.push(finding);
      } finally {
        await image.close();
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      findings.push(findingOf(error));
    } finally {
      progress.end();
    }
    const document: Document = {
      image: path,
      valid: findings.length === 0,
      checked: { ...checked, content: byteCountOf(checked.content) },
      findings: findings.map((finding) => ({
        ...finding,
        offset: finding.offset === null ? null : hex(finding.offset),
        address: finding.address === null ? null : hex(finding.address),
      })),
    };
    if (!document.valid) process.exitCode = 1;
    this.present(document, flags.json ?? false, (result) => this.render(result));
    return document;
  }

  private *render({ image, findings, checked }: Document): Generator<string> {
    const { style } = this;
    for (const finding of findings.slice(0, SHOWN)) {
      const places = [finding.offset && `offset ${finding.offset}`, finding.address && `address ${finding.address}`]
        .filter(Boolean)
        .join(', ');
      yield `${style.red(finding.check)}${places === '' ? '' : ` ${style.dim(places)}`}: ${printable(finding.problem)}; ${finding.mend}`;
    }
    if (findings.length > SHOWN) yield style.dim(`and ${findings.length - SHOWN} more; see --json`);
    const scope = [
      count(checked.segments, 'segment'),
      count(checked.notes, 'note'),
      count(checked.records, 'record'),
      `${count(checked.chunks, 'chunk')} (${bytes(checked.content)} hashed)`,
    ].join(', ');
    const verdict = findings.length === 0 ? style.green('valid') : style.red(count(findings.length, 'fault'));
    yield `${printable(image)}: ${verdict}  ${style.dim(scope)}`;
  }
}
