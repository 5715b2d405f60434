import { fileURLToPath } from 'node:url';
import { run, settings } from '@oclif/core';
import { runCommandLine } from './cli.js';
import { COMMANDS } from './commands/index.js';
import { WarpHelp } from './help.js';

// oclif finds both by name (package.json).
export { COMMANDS, WarpHelp };

/** The command line in full: what oclif makes of help, the version and names that do not exist is here too. */
export function main(argv: string[]): Promise<void> {
  // Left on, oclif looks for TypeScript sources beside the bundle and runs whatever stale output it finds.
  settings.enableAutoTranspile = false;
  // No plugins from the user's home: it may be somebody else's, and nothing may slow down the start.
  const options = { root: fileURLToPath(new URL('..', import.meta.url)), userPlugins: false, devPlugins: false };
  return runCommandLine(argv, () => run(argv, options));
}
