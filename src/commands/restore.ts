import { Flags } from '@oclif/core';
import { become, nativeFile } from '../engine/native.js';
import { Failure } from '../failure.js';
import { imageArgument, WarpCommand } from './base.js';
import { engineFlag, givenFlags, logLevelFlag, policiesFlag, refuseOthers, refuseUnsupported, refuseUrl } from './engine-flags.js';
import { keyFlags, nativeKeyArguments } from './keys.js';
import { nativeImageArguments } from './local-file.js';

export default class Restore extends WarpCommand {
  static override summary = 'Bring a process back from its image.';
  static override description = [
    "warp-tool becomes the process: standard streams are those of this command, and the exit status is the program's own, 128 + signal",
    'when it died of one. What stands behind -- is for programs that ask for it: a Java program gets -DNAME=VALUE as system properties, and then',
    'a class whose main method is run, and its arguments (docs/java.md). With --engine pauseengine the paused process goes on where it is,',
    'and this command ends with 0.',
  ].join(' ');
  static override usage = 'restore IMAGE [FLAGS] [-- ARGUMENT…]';
  static override examples = [
    '<%= config.bin %> restore /tmp/image',
    '<%= config.bin %> restore /tmp/image --env PORT=8081 --stats /tmp/restore.json',
    '<%= config.bin %> restore /tmp/image --encryption-key-file /run/keys/image',
    '<%= config.bin %> restore /tmp/paused --engine pauseengine',
    '<%= config.bin %> restore /tmp/image -- -Dapp.mode=live com.example.Main --verbose',
  ];
  static override args = { image: imageArgument };
  static override flags = {
    concurrent: Flags.boolean({
      description:
        'Let the program run at once and load its memory meanwhile; done anyway for compressed images. See also --no-concurrent.',
      allowNo: true,
    }),
    'load-concurrency': Flags.integer({
      description: 'Threads that load memory while the program runs; 0 loads only what it waits for. [default: one for each processor]',
      min: 0,
      max: 64,
      helpValue: 'N',
    }),
    'load-faults': Flags.string({
      description: 'How memory that is not loaded yet is noticed; auto takes the first that this host allows.',
      options: ['auto', 'userfaultfd', 'userfaultfd-user', 'signals'],
    }),
    'load-trace': Flags.string({ description: 'Record which chunk was loaded when in this file.', helpValue: 'FILE' }),
    'no-direct-map': Flags.boolean({ description: 'Read all memory at once rather than mapping the image.' }),
    'keep-pid': Flags.boolean({ description: 'Same process and thread ids as at the capture; needs user namespaces.' }),
    verify: Flags.boolean({
      description: 'Compare all content with its checksums; done anyway for images up to 16 MiB, compressed ones and with --no-direct-map.',
    }),
    env: Flags.string({ description: 'Environment variable for the restored process.', multiple: true, helpValue: 'NAME=VALUE' }),
    'inherit-fd': Flags.string({
      description: "Put this command's descriptor FD in the place of the program's descriptor N (see `fds`).",
      multiple: true,
      helpValue: 'N=FD',
    }),
    policies: policiesFlag,
    stats: Flags.string({ description: 'Write phases, microseconds and bytes as JSON to this file.', helpValue: 'FILE' }),
    'log-level': logLevelFlag,
    engine: engineFlag,
    ...keyFlags,
  };

  async run(): Promise<void> {
    const programArguments = this.takeProgramArguments();
    const { args, flags, raw } = await this.parse(Restore);
    refuseUnsupported(flags);
    if (flags.engine !== 'warp') refuseUrl(args.image, `--engine ${flags.engine} has no images there`);
    if (flags.engine === 'criu') {
      refuseOthers('criu', [...givenFlags(raw), ...(programArguments.length > 0 ? [''] : [])], ['keep-pid', 'log-level']);
      const { criuRestore } = await import('../criu/engine.js');
      criuRestore(args.image, flags['log-level']);
    }
    const argv = ['warp-restore', '--engine', flags.engine];
    if (flags.engine === 'simengine' || flags.engine === 'pauseengine') refuseOthers(flags.engine, givenFlags(raw), ['env', 'log-level']);
    if (flags.concurrent !== undefined) argv.push(flags.concurrent ? '--concurrent' : '--no-concurrent');
    for (const name of ['load-concurrency', 'load-faults', 'load-trace'] as const)
      if (flags[name] !== undefined) argv.push(`--${name}`, String(flags[name]));
    if (flags['no-direct-map']) argv.push('--no-direct-map');
    if (flags['keep-pid']) argv.push('--keep-pid');
    if (flags.verify) argv.push('--verify');
    for (const entry of flags.env ?? []) {
      if (!/^[^=]+=/.test(entry)) throw new Failure(`--env ${entry} is not NAME=VALUE`);
      argv.push('--env', entry);
    }
    for (const pair of flags['inherit-fd'] ?? []) argv.push('--inherit-fd', pair);
    if (flags.policies !== undefined) argv.push('--policies', flags.policies);
    if (flags.stats !== undefined) argv.push('--stats', flags.stats);
    argv.push(...(await nativeKeyArguments(flags, (message) => this.warnUser(message))));
    if (flags['log-level']) argv.push('--log-level', flags['log-level']);
    argv.push(...(await nativeImageArguments(args.image)));
    if (programArguments.length > 0) argv.push('--', ...programArguments);
    become(nativeFile('warp-restore'), argv, process.env);
  }
}
