import type { Image } from '../elf/image.js';
import { auxv } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { columns } from '../terminal/columns.js';
import { hex } from '../hex.js';
import { printable } from '../terminal/format.js';
import { ImageCommand, imageArgument } from './base.js';

type Document = Static<typeof auxv>;

const STRINGS = new Set(['AT_PLATFORM', 'AT_BASE_PLATFORM', 'AT_EXECFN']);

export default class Auxv extends ImageCommand {
  static override summary = 'Show the auxiliary vector that the kernel gave the program.';
  static override examples = ['<%= config.bin %> auxv /tmp/image', '<%= config.bin %> auxv core.1234 --json'];
  static override args = { image: imageArgument };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Auxv);
    return this.inspect(args.image, flags, collectAuxv, (document) =>
      columns(
        document.auxv,
        [
          { title: 'name', cell: (entry) => entry.name, style: (text) => this.style.cyan(text) },
          { title: 'value', align: 'right', cell: (entry) => entry.value },
          { title: '', cell: (entry) => (entry.text === null ? meaning(entry) : printable(entry.text)) },
        ],
        (text) => this.style.bold(text),
      ),
    );
  }
}

function meaning({ name, value }: Document['auxv'][number]): string {
  return /^AT_(PAGESZ|PHENT|PHNUM|CLKTCK|UID|EUID|GID|EGID|SECURE|MINSIGSTKSZ|RSEQ_.*)$/.test(name) ? String(Number(value)) : '';
}

async function collectAuxv(image: Image): Promise<Document> {
  const entries: Document['auxv'] = [];
  for (const { type, name, value } of image.auxv()) {
    const text = STRINGS.has(name) ? await image.memory.readString(value).catch(() => null) : null;
    entries.push({ type, name, value: hex(value), text });
  }
  return { image: image.source.name, warnings: image.warnings, auxv: entries };
}
