import { checkHost } from '../engine/host.js';
import { tryEngine } from '../engine/trial.js';
import { doctor } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { DocumentCommand } from './base.js';

type Document = Static<typeof doctor>;

export default class Doctor extends DocumentCommand {
  static override summary = 'Tell what this host allows, and how to mend what it does not.';
  static override description = [
    'Each check names its consequence and its mend; a real checkpoint and restore of a small process comes last. Exits with 0 when',
    'processes can be checkpointed and restored here, 1 when not.',
  ].join(' ');
  static override examples = ['<%= config.bin %> doctor', '<%= config.bin %> doctor --json'];

  async run(): Promise<Document> {
    const { flags } = await this.parse(Doctor);
    const checks = checkHost();
    // What is known to be missing would only fail once more.
    if (checks.every((check) => check.status !== 'unable')) checks.push(await tryEngine());
    const document: Document = { able: checks.every((check) => check.status !== 'unable'), checks };
    if (!document.able) process.exitCode = 1;
    this.present(document, flags.json ?? false, (result) => this.render(result));
    return document;
  }

  private *render({ able, checks }: Document): Generator<string> {
    const { style } = this;
    const width = Math.max(...checks.map((check) => check.name.length));
    const marks = { ok: style.green('ok     '), limited: style.yellow('limited'), unable: style.red('unable ') };
    for (const check of checks) {
      yield `${marks[check.status]}  ${check.name.padEnd(width)}  ${check.found}`;
      const indent = ' '.repeat(width + 11);
      if (check.consequence) yield `${indent}${check.consequence}`;
      if (check.mend) yield `${indent}${style.dim('mend:')} ${check.mend}`;
    }
    yield able
      ? style.green('Processes can be checkpointed and restored here.')
      : style.red('Processes cannot be checkpointed and restored here.');
  }
}
