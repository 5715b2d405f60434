import { Args } from '@oclif/core';
import { Failure } from '../failure.js';
import { fileSchemas, schemas } from '../schemas/index.js';
import { WarpCommand } from './base.js';

export default class Schema extends WarpCommand {
  static override summary = 'Print the JSON Schema of what a command prints or writes.';
  static override examples = [
    '<%= config.bin %> schema threads',
    '<%= config.bin %> schema restore-stats',
    '<%= config.bin %> schema > schemas.json',
  ];
  static override args = {
    command: Args.string({
      description: 'Name of the command, or checkpoint-stats or restore-stats; all of them without it.',
      ignoreStdin: true,
    }),
  };

  async run(): Promise<void> {
    const { args } = await this.parse(Schema);
    const $schema = 'https://json-schema.org/draft/2020-12/schema';
    const known = { ...schemas, ...fileSchemas };
    if (args.command === undefined) {
      const all = Object.fromEntries(Object.entries(known).map(([name, schema]) => [name, schema.json]));
      this.print([JSON.stringify({ $schema, $defs: all }, null, 2)]);
      return;
    }
    const schema = Object.hasOwn(known, args.command) ? known[args.command] : undefined;
    if (!schema) throw new Failure(`${args.command} prints no JSON document; these do: ${Object.keys(known).join(', ')}`);
    this.print([
      JSON.stringify(
        {
          $schema,
          title: `warp-tool ${Object.hasOwn(fileSchemas, args.command) ? args.command.replace('-', ' --') : `${args.command} --json`}`,
          ...schema.json,
        },
        null,
        2,
      ),
    ]);
  }
}
