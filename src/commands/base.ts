import { Args, Command, Flags, type Config } from '@oclif/core';
import type { ChalkInstance } from 'chalk';
import { withImage, type Image, type OpenOptions } from '../elf/image.js';
import { registerStores } from '../store/register.js';
import { printable } from '../terminal/format.js';
import { styleFor } from '../terminal/style.js';
import { keyFlags, keyOf, type KeyFlags } from './keys.js';

type Constructor = new (argv: string[], config: Config) => WarpCommand;
export type CommandClass = Command.Class & Constructor & Pick<typeof WarpCommand, 'needsEverything' | 'start'>;

registerStores();

/** What all commands share: flags, colours, output. Errors are thrown as Failure and become one line in main.ts. */
export abstract class WarpCommand extends Command {
  /** The command asks for oclif's whole configuration, or for packages that are ES modules only: quick.ts leaves it to main.ts. */
  static needsEverything = false;

  static override baseFlags = {
    'no-color': Flags.boolean({ description: 'No colours, also on a terminal.', helpGroup: 'GLOBAL' }),
    debug: Flags.boolean({ description: 'Show stack traces with errors.', helpGroup: 'GLOBAL' }),
  };

  /** Like oclif's `run`, with a configuration that is used as it is. */
  static async start(this: Constructor, argv: string[], config: Config): Promise<void> {
    // oxlint-disable-next-line no-underscore-dangle
    await new this(argv, config)._run();
  }

  /** Nothing: oclif's own looks for deprecated commands, which there are none of. */
  protected override async init(): Promise<void> {}

  private get noColor(): boolean {
    const end = this.argv.indexOf('--');
    return (end < 0 ? this.argv : this.argv.slice(0, end)).includes('--no-color');
  }

  /** Colours for stdout. */
  protected get style(): ChalkInstance {
    return styleFor(process.stdout, this.noColor);
  }

  /** Colours for stderr. */
  protected get errorStyle(): ChalkInstance {
    return styleFor(process.stderr, this.noColor);
  }

  protected print(lines: Iterable<string>): void {
    // One write for many lines: a system call for each of 70,000 areas would be most of the time.
    let pending = '';
    for (const line of lines) {
      pending += `${line}\n`;
      if (pending.length > 65_536) {
        process.stdout.write(pending);
        pending = '';
      }
    }
    process.stdout.write(pending);
  }

  /** What stands behind `--`, which is not parsed. */
  protected takeProgramArguments(): string[] {
    const end = this.argv.indexOf('--');
    return end < 0 ? [] : this.argv.splice(end).slice(1);
  }

  protected warnUser(message: string): void {
    process.stderr.write(`${this.errorStyle.yellow('warp-tool: warning:')} ${printable(message)}\n`);
  }

  /** A line on stderr that is no result. */
  protected tellUser(message: string): void {
    process.stderr.write(`warp-tool: ${message}\n`);
  }

  /** The key that the flags name; a warning when others can read its file. */
  protected key(flags: KeyFlags): Promise<Buffer | undefined> {
    return keyOf(flags, (message) => this.warnUser(message));
  }

  /** What it takes to open an image that may be encrypted. */
  protected async openOptions(flags: KeyFlags): Promise<OpenOptions> {
    return { key: await this.key(flags) };
  }

  /** Opens an image, with the key that the flags name, for the time of `work`. */
  protected async withImage<T>(argument: string, flags: KeyFlags, work: (image: Image) => Promise<T> | T): Promise<T> {
    return withImage(argument, work, await this.openOptions(flags));
  }

  /** The error as it was: main.ts reports it. */
  protected override async catch(error: Error): Promise<never> {
    throw error;
  }
}

export const jsonFlag = Flags.boolean({
  description: 'Print one JSON document; see `warp-tool schema` for its shape.',
  helpGroup: 'GLOBAL',
});

/** A command whose result is a document: printed as JSON with --json, else as text for people. */
export abstract class DocumentCommand extends WarpCommand {
  static override baseFlags = { ...WarpCommand.baseFlags, json: jsonFlag };

  protected present<T>(document: T, json: boolean, text: (document: T) => Iterable<string>): void {
    if (json) this.print([JSON.stringify(document, null, 2)]);
    else this.print(text(document));
  }
}

export const imageArgument = Args.string({
  name: 'image',
  description: 'Directory with core.img, a core file (of warp-tool, the kernel or gcore), or an s3:// or gs:// URL.',
  required: true,
  ignoreStdin: true,
});

/** A command that looks into one image. */
export abstract class ImageCommand extends DocumentCommand {
  static override baseFlags = { ...DocumentCommand.baseFlags, ...keyFlags };

  /** Presents what an image of CRIU's holds. */
  protected presentCriu<T>(view: { document: T; lines: (document: T, style: ChalkInstance) => Iterable<string> }, json = false): T {
    this.present(view.document, json, (document) => view.lines(document, this.style));
    return view.document;
  }

  /** Runs `collect` on the opened image and presents what it gives. */
  protected async inspect<T extends { warnings: string[] }>(
    argument: string,
    flags: KeyFlags & { json?: boolean },
    collect: (image: Image) => Promise<T> | T,
    text: (document: T) => Iterable<string>,
  ): Promise<T> {
    const json = flags.json ?? false;
    const document = await this.withImage(argument, flags, collect);
    if (!json) for (const warning of document.warnings) this.warnUser(`${printable(argument)}: ${warning}`);
    this.present(document, json, text);
    return document;
  }
}
