import { engineStates } from '../engine/host.js';
import { engines } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { columns } from '../terminal/columns.js';
import { DocumentCommand } from './base.js';

type Document = Static<typeof engines>;

export default class Engines extends DocumentCommand {
  static override summary = 'List the engines: which this host can use, and why not.';
  static override examples = ['<%= config.bin %> engines', '<%= config.bin %> engines --json'];

  async run(): Promise<Document> {
    const { flags } = await this.parse(Engines);
    const document = { engines: engineStates() };
    this.present(document, flags.json ?? false, (result) =>
      columns(
        result.engines,
        [
          { title: 'engine', cell: (row) => row.name, style: (text) => this.style.bold(text) },
          {
            title: 'usable',
            cell: (row) => (row.usable ? 'yes' : 'no'),
            style: (text, row) => (row.usable ? this.style.green(text) : this.style.red(text)),
          },
          { title: 'what it does', cell: (row) => `${row.description}${row.reason ? `; ${row.reason}` : ''}` },
        ],
        (text) => this.style.bold(text),
      ),
    );
    return document;
  }
}
