import { Flags } from '@oclif/core';
import { Image } from '../elf/image.js';
import { checkRestorable, type Obstacle } from '../engine/restorable.js';
import { findingOf, validateImage, type Checked, type Finding } from '../elf/validate.js';
import { ImageError } from '../failure.js';
import { validate } from '../schemas/index.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import { hex } from '../hex.js';
import { bytes, count, printable } from '../terminal/format.js';
import { Progress } from '../terminal/progress.js';
import { DocumentCommand, imageArgument } from './base.js';
import { policiesFlag } from './engine-flags.js';
import { keyFlags, nativeKeyArguments } from './keys.js';

type Document = Static<typeof validate>;

const SHOWN = 40;

export default class Validate extends DocumentCommand {
  static override summary = 'Check an image for faults, and whether it restores here.';
  static override description = [
    'Structure, consistency of all notes, and the hash of every chunk; each fault with its place and its mend. Exits with 0 when nothing',
    'is wrong, 1 when there are faults (with --host also: when it cannot be restored here), 2 when the file cannot be opened.',
  ].join(' ');
  static override examples = ['<%= config.bin %> validate /tmp/image', '<%= config.bin %> validate /tmp/image --host'];
  static override args = { image: imageArgument };
  static override flags = {
    ...keyFlags,
    host: Flags.boolean({
      description: 'Also check whether the image can be restored here: processor, kernel, files, directories, ports.',
    }),
    policies: { ...policiesFlag, dependsOn: ['host'] },
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Validate);
    let path: string;
    const unchecked: string[] = [];
    const checked: Checked = { segments: 0, notes: 0, records: 0, chunks: 0, content: 0n };
    const findings: Finding[] = [];
    const obstacles: Obstacle[] = [];
    const progress = new Progress('hashing');
    try {
      const image = await Image.open(args.image, await this.openOptions(flags));
      unchecked.push(...image.newer);
      if (image.sealed) unchecked.push('what is encrypted: give --encryption-key-file or --encryption-key-env');
      path = image.source.name;
      try {
        for await (const finding of validateImage(image, checked, (done, total) => progress.update(Number(done), Number(total))))
          findings.push(finding);
        progress.end();
        if (flags.host) {
          const faults = findings.filter(({ check }) => check !== 'area-resident').length;
          if (faults > 0) obstacles.push(faultyImage(faults));
          const keyArguments = await nativeKeyArguments(flags, () => {});
          const rules = flags.policies === undefined ? [] : ['--policies', flags.policies, ...keyArguments];
          for await (const obstacle of checkRestorable(image, rules)) obstacles.push(obstacle);
        }
      } finally {
        await image.close();
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      path = error.file;
      findings.push(findingOf(error));
      if (flags.host) obstacles.push(faultyImage(findings.length));
    } finally {
      progress.end();
    }
    const document: Document = {
      ...validationDocument(path, checked, findings),
      unchecked: unchecked.length > 0 ? unchecked.join('; ') : null,
      host: flags.host ? { restorable: !obstacles.some(({ effect }) => effect === 'fails'), obstacles } : null,
    };
    if (!document.valid || document.host?.restorable === false) process.exitCode = 1;
    this.present(document, flags.json ?? false, (result) => this.render(result));
    return document;
  }

  private *render({ image, findings, checked, unchecked, host }: Document): Generator<string> {
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
    if (unchecked !== null) yield style.yellow(`not checked: ${unchecked}`);
    if (!host) return;
    for (const { check, effect, problem, mend } of host.obstacles) {
      yield `${effect === 'fails' ? style.red(check) : style.yellow(check)}: ${printable(problem)}; ${printable(mend)}`;
    }
    yield `on this host: ${host.restorable ? style.green('can be restored') : style.red('cannot be restored')}`;
  }
}

export function validationDocument(path: string, checked: Checked, findings: readonly Finding[]): Document {
  return {
    image: path,
    valid: findings.length === 0,
    checked: { ...checked, content: byteCountOf(checked.content) },
    unchecked: null,
    findings: findings.map((finding) => ({
      ...finding,
      offset: finding.offset === null ? null : hex(finding.offset),
      address: finding.address === null ? null : hex(finding.address),
    })),
    host: null,
  };
}

function faultyImage(faults: number): Obstacle {
  return { check: 'image', effect: 'fails', problem: `it has ${count(faults, 'fault')}`, mend: 'copy it again, or take a new checkpoint' };
}
