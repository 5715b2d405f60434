import type { Command } from '@oclif/core';
import Checkpoint from './checkpoint.js';
import Ps from './ps.js';
import Restore from './restore.js';
import Run from './run.js';
import Auxv from './auxv.js';
import Env from './env.js';
import Fds from './fds.js';
import GdbScript from './gdb-script.js';
import Gdb from './gdb.js';
import Help from './help.js';
import Maps from './maps.js';
import Notes from './notes.js';
import Schema from './schema.js';
import Show from './show.js';
import Signals from './signals.js';
import Threads from './threads.js';
import Validate from './validate.js';

/** Every command by name: oclif's explicit strategy reads this (package.json, oclif.commands). */
export const COMMANDS: Record<string, Command.Class> = {
  checkpoint: Checkpoint,
  ps: Ps,
  restore: Restore,
  run: Run,
  auxv: Auxv,
  env: Env,
  fds: Fds,
  gdb: Gdb,
  'gdb-script': GdbScript,
  help: Help,
  maps: Maps,
  notes: Notes,
  schema: Schema,
  show: Show,
  signals: Signals,
  threads: Threads,
  validate: Validate,
};
