import { readFileSync } from 'node:fs';
import { engineProcesses } from '../engine/processes.js';
import { ps } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { columns } from '../terminal/columns.js';
import { bytes, printable } from '../terminal/format.js';
import { DocumentCommand } from './base.js';

type Document = Static<typeof ps>;

export default class Ps extends DocumentCommand {
  static override summary = 'List processes that can be checkpointed now.';
  static override description = 'Processes of this user that `run` started; as root those of all users.';
  static override examples = ['<%= config.bin %> ps', '<%= config.bin %> ps --json'];

  async run(): Promise<Document> {
    const { flags } = await this.parse(Ps);
    const users = userNames();
    const document = { processes: engineProcesses().map(({ uid, ...rest }) => ({ ...rest, user: users.get(uid) ?? String(uid) })) };
    this.present(document, flags.json ?? false, ({ processes }) =>
      columns(
        processes,
        [
          { title: 'pid', align: 'right', cell: (row) => String(row.pid), style: (text) => this.style.bold(text) },
          { title: 'user', cell: (row) => row.user },
          { title: 'threads', align: 'right', cell: (row) => String(row.threads) },
          { title: 'resident', align: 'right', cell: (row) => bytes(row.resident) },
          { title: 'name', cell: (row) => printable(row.name), style: (text) => this.style.cyan(text) },
          { title: 'command', cell: (row) => printable(row.command.join(' ')) },
        ],
        (text) => this.style.bold(text),
      ),
    );
    return document;
  }
}

function userNames(): Map<number, string> {
  try {
    const lines = readFileSync('/etc/passwd', 'utf8').split('\n');
    return new Map(lines.map((line) => line.split(':')).map(([name, , uid]) => [Number(uid), name!]));
  } catch {
    return new Map(); // a container without /etc/passwd: numbers serve
  }
}
