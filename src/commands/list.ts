import { Args, Flags } from '@oclif/core';
import type { ListEntry } from '../store/list.js';
import { parseLocation } from '../store/location.js';
import { list } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { columns, type Column } from '../terminal/columns.js';
import { bytes, count, printable } from '../terminal/format.js';
import { Output } from '../terminal/output.js';
import { DocumentCommand } from './base.js';
import { storeFlags, storeOptions } from './store-flags.js';

type Document = Static<typeof list>;

export default class List extends DocumentCommand {
  static override summary = 'List images in object storage: size, time, what they hold.';
  static override description = [
    'Lists every object whose key starts with that of the URL. What `push` recorded is read with one small request for each object; images that came there',
    'otherwise are opened, which reads their first mebibyte.',
  ].join(' ');
  static override examples = ['<%= config.bin %> list s3://bucket/services/', '<%= config.bin %> list s3://bucket --quick --json'];
  static override args = {
    url: Args.string({ description: 's3:// or gs:// URL: a bucket, or the start of keys.', required: true, ignoreStdin: true }),
  };
  static override flags = {
    quick: Flags.boolean({ char: 'q', description: 'Keys, sizes and times only: one request for 1,000 objects, nothing is opened.' }),
    ...storeFlags,
  };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(List);
    const location = parseLocation(args.url);
    const options = storeOptions(flags);
    const { listObjects } = await import('../store/list.js');
    const document: Document = { url: args.url, objects: [] };
    const output = new Output();
    let total = 0;
    let problems = 0;
    for await (const page of listObjects(location, !flags.quick, flags.parallel, options)) {
      for (const entry of page) {
        total += entry.size;
        if (entry.problem !== null) problems++;
        document.objects.push({ ...entry, modified: entry.modified?.toISOString() ?? null });
      }
      if (flags.json) continue;
      for (const line of this.table(page, flags.quick ?? false)) await output.line(line);
      for (const { problem } of page) if (problem !== null) this.warnUser(printable(problem));
    }
    await output.flush();
    if (problems > 0) process.exitCode = 2;
    if (flags.json) this.print([JSON.stringify(document, null, 2)]);
    else process.stderr.write(`${this.errorStyle.dim(`${count(document.objects.length, 'object')}, ${bytes(total)}`)}\n`);
    return document;
  }

  private table(page: ListEntry[], quick: boolean): Iterable<string> {
    if (page.length === 0) return [];
    const { style } = this;
    const layout: Column<ListEntry>[] = [
      { title: 'SIZE', cell: ({ size }) => bytes(size), align: 'right' },
      { title: 'MODIFIED', cell: ({ modified }) => modified?.toISOString().slice(0, 19).replace('T', ' ') ?? '-' },
    ];
    if (!quick) {
      layout.push(
        { title: 'PROGRAM', cell: ({ image }) => printable(image?.program ?? '-'), style: (text) => style.bold(text) },
        { title: 'GEN', cell: ({ image }) => String(image?.generation ?? '-'), align: 'right' },
        { title: 'CAPTURED', cell: ({ image }) => printable(image?.captured_at?.slice(0, 19).replace('T', ' ') ?? '-') },
        { title: 'PACKED', cell: ({ image }) => printable(packing(image)) },
      );
    }
    layout.push({ title: 'KEY', cell: ({ key }) => printable(key) });
    return columns(page, layout, (text) => style.dim(text));
  }
}

function packing(image: ListEntry['image']): string {
  if (!image) return '-';
  if (image.format === null) return 'core';
  return `${image.compression ?? '-'}${image.encrypted ? ', encrypted' : ''}`;
}
