import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { gdbScript } from '../elf/gdb-script.js';
import type { Image } from '../elf/image.js';
import { Failure, systemErrorReason } from '../failure.js';
import { imageArgument, WarpCommand } from './base.js';
import { keyFlags } from './keys.js';
import { withLocalFile } from './local-file.js';

export default class Gdb extends WarpCommand {
  static override summary = 'Open GDB on an image, with the right files and thread names.';
  static override description = "Arguments after -- go to GDB. The exit status is GDB's.";
  static override examples = ['<%= config.bin %> gdb /tmp/image', '<%= config.bin %> gdb /tmp/image -- -batch -ex "thread apply all bt"'];
  static override args = { image: imageArgument };
  static override flags = keyFlags;

  async run(): Promise<void> {
    const passed = this.takeProgramArguments();
    const { args, flags } = await this.parse(Gdb);
    await this.withImage(args.image, flags, (image) =>
      withLocalFile(image, async (local) => {
        process.exitCode = await this.open(local, passed);
      }),
    );
  }

  private async open(image: Image, passed: string[]): Promise<number> {
    const directory = await mkdtemp(join(tmpdir(), 'warp-tool-gdb-'));
    try {
      const path = join(directory, 'image.gdb');
      await writeFile(path, await gdbScript(image));
      return await runGdb(['-q', '-x', path, ...passed]);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
}

function runGdb(argv: string[]): Promise<number> {
  // Ctrl-C is GDB's: it interrupts a command there and must not end this process before it.
  process.on('SIGINT', () => {});
  return new Promise((resolve, reject) => {
    const child = spawn('gdb', argv, { stdio: 'inherit' });
    child.on('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'ENOENT' ? 'gdb is not installed; install it (on Debian: apt install gdb)' : systemErrorReason(error);
      reject(new Failure(`cannot start gdb: ${reason}`, { cause: error }));
    });
    child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
}
