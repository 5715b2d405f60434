import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { Flags } from '@oclif/core';
import { become, checkPreloadable, engineEnvironment, findProgram, nativeFile } from '../engine/native.js';
import { Failure } from '../failure.js';
import { genericProcessor, GENERIC_JAVA_OPTIONS } from '../engine/processor.js';
import { bytes, printable } from '../terminal/format.js';
import { WarpCommand } from './base.js';
import { keyFlags, keyOf, nativeKeyArguments } from './keys.js';
import { nativeImageArguments } from './local-file.js';
import { checkPolicies, logLevelFlag, policiesFlag, refuseUrl } from './engine-flags.js';

export default class Run extends WarpCommand {
  static override summary = 'Start a program ready to be checkpointed.';
  static override description =
    "No privilege, no change to the program. warp-tool becomes it: same pid, same standard streams, and the program's own exit status.";
  static override usage =
    'run [--image DIR] [--checkpoint-when CONDITION] [--or-restore IMAGE] [--cpu-features generic] [--no-gc] [--policies FILE] [--encryption-key-file F | --encryption-key-env VAR] [--log-level LEVEL] [--log-file FILE] -- PROGRAM [ARGUMENT…]';
  static override examples = [
    '<%= config.bin %> run -- node server.js',
    '<%= config.bin %> run --log-level debug --log-file /tmp/engine.log -- python3 app.py',
    '<%= config.bin %> run --image /img --checkpoint-when port:8080 -- java -jar a.jar',
    '<%= config.bin %> run --cpu-features generic -- java -jar app.jar',
    '<%= config.bin %> run --or-restore /srv/image -- java -jar app.jar',
  ];
  static override flags = {
    image: Flags.string({ description: 'Image directory for checkpoints that the program itself asks for.', helpValue: 'DIR' }),
    'checkpoint-when': Flags.string({
      description:
        'Take a checkpoint to --image as soon as this holds: port:N accepts connections, port:N/PATH answers over HTTP, idle:S uses no processor for S seconds, or a shell command succeeds. The status is then 137.',
      helpValue: 'CONDITION',
      dependsOn: ['image'],
    }),
    'checkpoint-timeout': Flags.integer({
      description: 'Seconds within which that must hold; the program is ended otherwise.',
      default: 300,
      min: 1,
      helpValue: 'S',
    }),
    compression: Flags.string({ description: 'As of checkpoint; for --checkpoint-when.', options: ['none', 'lz4'], default: 'none' }),
    'or-restore': Flags.string({
      description: 'Restore this image instead, when it is there and can be restored here; say why not otherwise, and start the program.',
      helpValue: 'IMAGE',
    }),
    'java-agent': Flags.boolean({
      description:
        'Add the agent that tells resources of org.crac about checkpoints; done anyway for java, and for scripts and shells that start it. With this flag also for other programs that contain a Java virtual machine.',
      allowNo: true,
    }),
    'cpu-features': Flags.string({
      description:
        'generic: nothing but what every x86-64-v2 processor has is used by libc, OpenSSL and Java, so that images can move. Programs that ask the processor themselves are not limited.',
      options: ['native', 'generic'],
      default: 'native',
    }),
    'no-gc': Flags.boolean({
      description:
        'Do not have Node.js and Java collect garbage before a checkpoint: less of a pause, a larger image, a slower first answer.',
    }),
    'log-level': logLevelFlag,
    'log-file': Flags.string({ description: 'Where the engine writes its log; stderr by default.', helpValue: 'FILE' }),
    policies: policiesFlag,
    'encryption-key-file': {
      ...keyFlags['encryption-key-file'],
      description:
        'Encrypt images of --checkpoint-when, and those that the program asks for itself, with the key in this file, which is read at each checkpoint; and open that of --or-restore.',
    },
    'encryption-key-env': {
      ...keyFlags['encryption-key-env'],
      description: 'Likewise with the key in a variable, which the program does not get: for --checkpoint-when and --or-restore.',
    },
  };

  async run(): Promise<void> {
    const command = this.takeProgramArguments();
    const { flags } = await this.parse(Run);
    if (command.length === 0) throw new Failure('no program given; write it behind --, as in `warp-tool run -- node server.js`');
    if (flags.image !== undefined) refuseUrl(flags.image, 'use a local directory');
    const variable = flags['encryption-key-env'];
    if (variable !== undefined && flags['checkpoint-when'] === undefined && flags['or-restore'] === undefined) {
      throw new Failure(
        `--encryption-key-env ${variable}: a program that checkpoints itself would have the key in its memory; put it into a file and give --encryption-key-file`,
      );
    }
    if (
      flags['encryption-key-file'] !== undefined &&
      statSync(flags['encryption-key-file'], { throwIfNoEntry: false })?.isFile() === false
    ) {
      throw new Failure(
        `${flags['encryption-key-file']}: the key is read for each checkpoint, and this is no regular file; put it into one, or use --encryption-key-env`,
      );
    }
    // Wrong keys are told now, not when the program is warm.
    const key = await keyOf(flags, (message) => flags['checkpoint-when'] ?? this.warnUser(message));
    const keyArguments = await nativeKeyArguments(flags, () => {});
    const keyFile = flags['encryption-key-file'] === undefined ? undefined : resolve(flags['encryption-key-file']);
    if (flags['or-restore'] !== undefined) {
      const { whyNotRestorable } = await import('../engine/usable.js');
      const policies = flags.policies === undefined ? [] : ['--policies', flags.policies];
      let reason = await whyNotRestorable(flags['or-restore'], key, policies.length > 0 ? [...policies, ...keyArguments] : []);
      const image =
        reason === null
          ? await nativeImageArguments(flags['or-restore']).catch((error: unknown) => {
              if (!(error instanceof Failure)) throw error;
              reason = error.message;
            })
          : undefined;
      if (image) become(nativeFile('warp-restore'), ['warp-restore', ...image, ...policies, ...keyArguments], process.env);
      process.stderr.write(`warp-tool: ${command[0]} is started: ${reason}\n`);
    }
    key?.fill(0);
    const { [variable ?? '']: _key, ...withoutKey } = process.env;
    if (flags.policies !== undefined) checkPolicies(flags.policies);
    if (flags['checkpoint-when'] !== undefined) {
      const { superviseUntilCheckpoint } = await import('../engine/supervised.js');
      const level = flags['log-level'];
      process.exitCode = await superviseUntilCheckpoint(
        {
          condition: flags['checkpoint-when'],
          timeout: flags['checkpoint-timeout'],
          environment: withoutKey,
          runArguments: [
            ...(level ? ['--log-level', level] : []),
            ...(flags.policies !== undefined ? ['--policies', flags.policies] : []),
            ...(flags['log-file'] !== undefined ? ['--log-file', flags['log-file']] : []),
            ...(flags['cpu-features'] === 'generic' ? ['--cpu-features', 'generic'] : []),
            ...(flags['no-gc'] ? ['--no-gc'] : []),
            ...(flags['java-agent'] === undefined ? [] : [flags['java-agent'] ? '--java-agent' : '--no-java-agent']),
            ...(keyFile === undefined ? [] : ['--encryption-key-file', keyFile]),
            '--image',
            flags.image!,
            '--',
            ...command,
          ],
          checkpointArguments: [
            '--to',
            flags.image!,
            '--compression',
            flags.compression,
            ...keyArguments,
            ...(level ? ['--log-level', level] : []),
          ],
          log: (severity, message) => process.stderr.write(`${severity}: ${printable(message)}\n`),
        },
        (result) => process.stderr.write(`warp-tool: ${printable(result.image)}: ${bytes(result.bytes)}, ready to restore\n`),
      );
      return;
    }
    const path = findProgram(command[0]!);
    await checkPreloadable(path);
    const generic = flags['cpu-features'] === 'generic';
    const environment = engineEnvironment(generic ? genericProcessor(withoutKey) : withoutKey, {
      ...(flags.image !== undefined && { WARP_IMAGE: resolve(flags.image) }),
      ...(flags.policies !== undefined && { WARP_POLICIES: resolve(flags.policies) }),
      ...(flags['no-gc'] && { WARP_GC: 'false' }),
      ...(keyFile !== undefined && { WARP_ENCRYPTION_KEY_FILE: keyFile }),
      ...(flags['log-level'] && { WARP_LOG_LEVEL: flags['log-level'] }),
      ...(flags['log-file'] !== undefined && { WARP_LOG_FILE: resolve(flags['log-file']) }),
    });
    const { withJava } = await import('../engine/java.js');
    const launch = withJava(path, command, environment, flags['java-agent'], generic ? GENERIC_JAVA_OPTIONS : []);
    if (launch.problem) this.warnUser(launch.problem);
    if (generic && !launch.java)
      this.warnUser(
        `${command[0]}: --cpu-features generic limits the C library, OpenSSL and Java; code that asks the processor itself (Node.js, Go, NumPy) is not limited, and the image does not tell`,
      );
    become(path, launch.command, launch.environment);
  }
}
