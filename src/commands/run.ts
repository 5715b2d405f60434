import { resolve } from 'node:path';
import { Flags } from '@oclif/core';
import { become, checkPreloadable, engineEnvironment, findProgram } from '../engine/native.js';
import { Failure } from '../failure.js';
import { WarpCommand } from './base.js';
import { logLevelFlag, notYetFlags, refuseUnsupported, refuseUrl } from './engine-flags.js';

export default class Run extends WarpCommand {
  static override summary = 'Start a program ready to be checkpointed.';
  static override description =
    "No privilege, no change to the program. warp-tool becomes it: same pid, same standard streams, and the program's own exit status.";
  static override usage = 'run [--image DIR] [--log-level LEVEL] [--log-file FILE] -- PROGRAM [ARGUMENT…]';
  static override examples = [
    '<%= config.bin %> run -- node server.js',
    '<%= config.bin %> run --log-level debug --log-file /tmp/engine.log -- python3 app.py',
  ];
  static override flags = {
    image: Flags.string({ description: 'Image directory for checkpoints that the program itself asks for.', helpValue: 'DIR' }),
    'log-level': logLevelFlag,
    'log-file': Flags.string({ description: 'Where the engine writes its log; stderr by default.', helpValue: 'FILE' }),
    policies: notYetFlags.policies,
  };

  async run(): Promise<void> {
    const end = this.argv.indexOf('--');
    const command = end < 0 ? [] : this.argv.slice(end + 1);
    if (end >= 0) this.argv = this.argv.slice(0, end);
    const { flags } = await this.parse(Run);
    refuseUnsupported(flags);
    if (command.length === 0) throw new Failure('no program given; write it behind --, as in `warp-tool run -- node server.js`');
    if (flags.image !== undefined) refuseUrl(flags.image, 'use a local directory');
    const path = findProgram(command[0]!);
    await checkPreloadable(path);
    const environment = engineEnvironment(process.env, {
      ...(flags.image !== undefined && { WARP_IMAGE: resolve(flags.image) }),
      ...(flags['log-level'] && { WARP_LOG_LEVEL: flags['log-level'] }),
      ...(flags['log-file'] !== undefined && { WARP_LOG_FILE: resolve(flags['log-file']) }),
    });
    become(path, command, environment);
  }
}
