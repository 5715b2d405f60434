import { Flags } from '@oclif/core';
import { become, nativeFile } from '../engine/native.js';
import { Failure } from '../failure.js';
import { imageArgument, WarpCommand } from './base.js';
import { engineFlag, logLevelFlag, notYetFlags, refuseUnsupported, refuseUrl } from './engine-flags.js';

const { concurrent, policies, 'encryption-key-file': keyFile, 'encryption-key-env': keyEnvironment } = notYetFlags;

export default class Restore extends WarpCommand {
  static override summary = 'Bring a process back from its image.';
  static override description = [
    "warp-tool becomes the process: standard streams are those of this command, and the exit status is the program's own, 128 + signal",
    'when it died of one.',
  ].join(' ');
  static override examples = [
    '<%= config.bin %> restore /tmp/image',
    '<%= config.bin %> restore /tmp/image --env PORT=8081 --stats /tmp/restore.json',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    'no-direct-map': Flags.boolean({ description: 'Read all memory at once rather than mapping the image.' }),
    'keep-pid': Flags.boolean({ description: 'Same process and thread ids as at the capture; needs user namespaces.' }),
    verify: Flags.boolean({
      description: 'Compare all content with its checksums; done anyway for images up to 16 MiB, compressed ones and with --no-direct-map.',
    }),
    env: Flags.string({ description: 'Environment variable for the restored process.', multiple: true, helpValue: 'NAME=VALUE' }),
    stats: Flags.string({ description: 'Write phases, microseconds and bytes as JSON to this file.', helpValue: 'FILE' }),
    'log-level': logLevelFlag,
    engine: engineFlag,
    concurrent,
    policies,
    'encryption-key-file': keyFile,
    'encryption-key-env': keyEnvironment,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Restore);
    refuseUnsupported(flags);
    refuseUrl(args.image);
    const argv = ['warp-restore', args.image];
    if (flags['no-direct-map']) argv.push('--no-direct-map');
    if (flags['keep-pid']) argv.push('--keep-pid');
    if (flags.verify) argv.push('--verify');
    for (const entry of flags.env ?? []) {
      if (!/^[^=]+=/.test(entry)) throw new Failure(`--env ${entry} is not NAME=VALUE`);
      argv.push('--env', entry);
    }
    if (flags.stats !== undefined) argv.push('--stats', flags.stats);
    if (flags['log-level']) argv.push('--log-level', flags['log-level']);
    become(nativeFile('warp-restore'), argv, process.env);
  }
}
