/**
 * The command line as bin/run.js starts it: commands and nothing else, so that little has to be loaded. `main(argv, others)`: `others` runs main.ts,
 * which does the rest too. import() does not work in here: commands that need it say so (`needsEverything`).
 */
export { runCommandLine as main } from './cli.js';
