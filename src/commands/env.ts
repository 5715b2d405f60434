import { environmentOf } from '../elf/environment.js';
import type { Image } from '../elf/image.js';
import { env } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { printable } from '../terminal/format.js';
import { ImageCommand, imageArgument } from './base.js';

type Document = Static<typeof env>;

export default class Env extends ImageCommand {
  static override summary = 'Show the environment that the program was started with.';
  static override examples = ['<%= config.bin %> env /tmp/image', '<%= config.bin %> env core.1234 --json'];
  static override args = { image: imageArgument };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Env);
    return this.inspect(args.image, flags, collectEnvironment, (document) =>
      document.environment.map(({ name, value }) => `${this.style.cyan(printable(name))}=${printable(value)}`),
    );
  }
}

export async function collectEnvironment(image: Image): Promise<Document> {
  return {
    image: image.source.name,
    warnings: image.warnings,
    environment: (await environmentOf(image)).map((entry) => {
      const equals = entry.indexOf('=');
      return equals < 0 ? { name: entry, value: '' } : { name: entry.slice(0, equals), value: entry.slice(equals + 1) };
    }),
  };
}
