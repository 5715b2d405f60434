import type { CommandClass } from './base.js';
import Auxv from './auxv.js';
import Checkpoint from './checkpoint.js';
import Compress from './compress.js';
import Completion from './completion.js';
import Decode from './decode.js';
import Decompress from './decompress.js';
import Decrypt from './decrypt.js';
import Diff from './diff.js';
import Doctor from './doctor.js';
import Encode from './encode.js';
import Encrypt from './encrypt.js';
import Engines from './engines.js';
import Env from './env.js';
import Explore from './explore.js';
import Fds from './fds.js';
import Gdb from './gdb.js';
import GdbScript from './gdb-script.js';
import Help from './help.js';
import Jdk from './jdk.js';
import List from './list.js';
import Man from './man.js';
import Maps from './maps.js';
import Mem from './mem.js';
import Notes from './notes.js';
import Optimize from './optimize.js';
import Ps from './ps.js';
import Pull from './pull.js';
import Push from './push.js';
import Redact from './redact.js';
import Report from './report.js';
import Restore from './restore.js';
import Run from './run.js';
import Schema from './schema.js';
import Show from './show.js';
import Signals from './signals.js';
import Threads from './threads.js';
import Validate from './validate.js';

/** Every command by name: oclif's explicit strategy reads this (package.json, oclif.commands). */
export const COMMANDS: Record<string, CommandClass> = {
  run: Run,
  checkpoint: Checkpoint,
  restore: Restore,
  ps: Ps,
  optimize: Optimize,
  engines: Engines,
  doctor: Doctor,
  show: Show,
  threads: Threads,
  maps: Maps,
  fds: Fds,
  env: Env,
  signals: Signals,
  notes: Notes,
  auxv: Auxv,
  mem: Mem,
  diff: Diff,
  decode: Decode,
  encode: Encode,
  explore: Explore,
  redact: Redact,
  report: Report,
  compress: Compress,
  decompress: Decompress,
  encrypt: Encrypt,
  decrypt: Decrypt,
  validate: Validate,
  'gdb-script': GdbScript,
  gdb: Gdb,
  jdk: Jdk,
  push: Push,
  pull: Pull,
  list: List,
  schema: Schema,
  completion: Completion,
  man: Man,
  help: Help,
};
