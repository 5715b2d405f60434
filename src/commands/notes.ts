import { SEALED, type Image } from '../elf/image.js';
import { kernelNoteName } from '../elf/kernel-notes/index.js';
import { NOTE_OWNER, projectNotes, type NoteName } from '../elf/schema.js';
import { notes } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { columns } from '../terminal/columns.js';
import { hex } from '../hex.js';
import { bytes, printable } from '../terminal/format.js';
import { ImageCommand, imageArgument } from './base.js';

type Document = Static<typeof notes>;

export default class Notes extends ImageCommand {
  static override summary = 'Show the ELF notes: owner, type, size, number of records.';
  static override description = '`decode` shows what is in them.';
  static override examples = ['<%= config.bin %> notes /tmp/image', '<%= config.bin %> notes core.1234 --json'];
  static override args = { image: imageArgument };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Notes);
    return this.inspect(args.image, flags, collectNotes, (document) =>
      columns(
        document.notes,
        [
          { title: 'offset', align: 'right', cell: (note) => note.offset },
          { title: 'owner', cell: (note) => printable(note.owner) },
          { title: 'type', align: 'right', cell: (note) => note.type },
          { title: 'size', align: 'right', cell: (note) => bytes(note.size) },
          { title: 'records', align: 'right', cell: (note) => (note.records === null ? '' : String(note.records)) },
          { title: 'name', cell: (note) => note.name ?? 'unknown', style: (text) => this.style.cyan(text) },
        ],
        (text) => this.style.bold(text),
      ),
    );
  }
}

function collectNotes(image: Image): Document {
  const ours = new Map<number, NoteName>(Object.entries(projectNotes).map(([name, { type }]) => [type, name as NoteName]));
  return {
    image: image.source.name,
    warnings: image.sealed ? [...image.warnings, SEALED] : image.warnings,
    notes: image.notes.map((note) => {
      const own = note.owner === NOTE_OWNER ? ours.get(note.type) : undefined;
      return {
        owner: note.owner,
        type: hex(note.type),
        name: own ?? kernelNoteName(note) ?? null,
        offset: hex(note.offset),
        size: note.descriptor.length,
        records: own && image.ours ? image.table(own).length : null,
      };
    }),
  };
}
