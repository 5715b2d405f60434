import { resolve } from 'node:path';
import { Args } from '@oclif/core';
import { installIntoJdk, removeFromJdk } from '../engine/jdk.js';
import type { jdk } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { printable } from '../terminal/format.js';
import { DocumentCommand } from './base.js';

type Document = Static<typeof jdk>;

export default class Jdk extends DocumentCommand {
  static override summary = 'Put the engine into a JDK with CRaC, or take it out.';
  static override description = [
    'install copies libwarp.so and warp-restore into JAVA_HOME/lib, where -XX:CRaCEngine=warp finds them; uninstall removes just these.',
    'A stock JDK needs none of it: `warp-tool run` does.',
  ].join(' ');
  static override examples = ['<%= config.bin %> jdk install /opt/zulu-crac', '<%= config.bin %> jdk uninstall "$JAVA_HOME"'];
  static override args = {
    action: Args.string({ description: 'install or uninstall.', required: true, options: ['install', 'uninstall'], ignoreStdin: true }),
    home: Args.string({ name: 'JAVA_HOME', description: 'Directory of the JDK.', required: true, ignoreStdin: true }),
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Jdk);
    const home = resolve(args.home);
    const installing = args.action === 'install';
    const document = { action: args.action, ...(installing ? installIntoJdk(home) : removeFromJdk(home)) };
    this.present(document, flags.json ?? false, ({ files }) => [
      ...files.map((file) => `${installing ? 'installed' : 'removed'}  ${printable(file)}`),
      ...(installing ? ['use it with -XX:CRaCEngine=warp'] : []),
    ]);
    if (installing && !document.crac)
      this.warnUser(
        `${printable(home)} does not look like a JDK with CRaC, which alone asks for an engine; for a stock JDK use \`warp-tool run\``,
      );
    return document;
  }
}
