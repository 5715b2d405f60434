import { Args, Flags } from '@oclif/core';
import { schemeOf } from '../elf/source.js';
import { runCheckpoint, type CheckpointResult } from '../engine/client.js';
import { Failure } from '../failure.js';
import type { StagingOptions } from '../store/staging.js';
import { bytes, printable } from '../terminal/format.js';
import { Progress } from '../terminal/progress.js';
import { DocumentCommand } from './base.js';
import { engineFlag, givenFlags, logLevelFlag, notYetFlags, policiesFlag, refuseOthers, refuseUnsupported } from './engine-flags.js';
import { keyFlags, nativeKeyArguments } from './keys.js';
import { transferring } from './local-file.js';

const OUTCOME: Record<string, string> = { simengine: 'no image; the process goes on', pauseengine: 'no image; the process is paused' };

/** Flags that mean something to an engine that keeps no image. */
const SIMULATED = { simengine: ['to', 'leave-running', 'timeout', 'log-level'], pauseengine: ['to', 'timeout', 'log-level'] };

const { parent } = notYetFlags;

export default class Checkpoint extends DocumentCommand {
  static override summary = 'Capture a process that `run` started into an image.';
  static override description =
    'Returns when the image is durable. The process then dies of SIGKILL (status 137), unless --leave-running is given. An image for object storage is written below the temporary directory (TMPDIR) first; the process is held until the store has it, and goes on where the store does not take it.';
  static override examples = [
    '<%= config.bin %> checkpoint 1234 --to /tmp/image',
    '<%= config.bin %> checkpoint 1234 --to /tmp/image --leave-running --timeout 30',
    '<%= config.bin %> checkpoint 1234 --to /tmp/image --compression lz4',
    '<%= config.bin %> checkpoint 1234 --to /tmp/image --encryption-key-env IMAGE_KEY',
    '<%= config.bin %> checkpoint 1234 --to s3://bucket/services/search/',
    '<%= config.bin %> checkpoint 1234 --to /tmp/paused --engine pauseengine',
  ];
  static override args = {
    pid: Args.string({ description: 'Process to capture; see `warp-tool ps`.', required: true, ignoreStdin: true }),
  };
  static override flags = {
    to: Flags.string({
      description: 'Directory for the image (core.img), made if it is not there, or an s3:// or gs:// URL. What is there is replaced.',
      required: true,
      helpValue: 'DIR|URL',
    }),
    'leave-running': Flags.boolean({ description: 'Let the process go on after the capture.' }),
    'self-contained': Flags.boolean({ description: 'Store unmodified pages of mapped files too.' }),
    compression: Flags.string({
      description: 'Compress the content on its way; lz4 restores by reading rather than mapping.',
      options: ['none', 'lz4'],
      default: 'none',
    }),
    'compression-level': Flags.integer({
      description: 'From 1, fast, to 9, small; for lz4. [default: 1]',
      min: 1,
      max: 9,
      helpValue: '1-9',
    }),
    'chunk-size': Flags.integer({
      description:
        'KiB that are compressed, and loaded, as one; for lz4. Smaller ones are there sooner, larger ones compress better. By default 64, and 256 where there is more than 1 GiB.',
      min: 4,
      max: 256,
      helpValue: 'KIB',
    }),
    timeout: Flags.string({ description: 'Give up after so many seconds; the process goes on unharmed.', helpValue: 'SECONDS' }),
    stats: Flags.string({ description: 'Write phases, microseconds and bytes as JSON to this file.', helpValue: 'FILE' }),
    policies: policiesFlag,
    'log-level': logLevelFlag,
    engine: engineFlag,
    ...keyFlags,
    parent,
  };

  async run(): Promise<CheckpointResult> {
    const { args, flags, raw } = await this.parse(Checkpoint);
    refuseUnsupported(flags);
    const remote = schemeOf(flags.to) !== null;
    if (remote && flags.engine !== 'warp')
      throw new Failure(`--engine ${flags.engine} does not write to ${flags.to}; give a local directory`);
    if (!/^[1-9][0-9]*$/.test(args.pid))
      throw new Failure(`${args.pid} is not a process id; see \`warp-tool ps\` for what can be checkpointed`);
    if (flags.timeout !== undefined && !(Number(flags.timeout) > 0))
      throw new Failure(`--timeout ${flags.timeout} is not a number of seconds above 0`);
    if (flags['compression-level'] !== undefined && flags.compression === 'none')
      throw new Failure('--compression-level has no meaning without --compression lz4; give both');
    if (flags.engine === 'criu') return this.dump(Number(args.pid), flags, givenFlags(raw));
    const argv = ['--engine', flags.engine];
    if (flags.engine === 'simengine' || flags.engine === 'pauseengine')
      refuseOthers(flags.engine, givenFlags(raw), SIMULATED[flags.engine]);
    argv.push('--compression', flags.compression);
    if (flags['compression-level'] !== undefined) argv.push('--compression-level', String(flags['compression-level']));
    if (flags['chunk-size'] !== undefined) argv.push('--chunk-size', String(flags['chunk-size']));
    if (flags['leave-running']) argv.push('--leave-running');
    if (flags['self-contained']) argv.push('--self-contained');
    if (flags.timeout !== undefined) argv.push('--timeout', flags.timeout);
    if (flags.stats !== undefined) argv.push('--stats', flags.stats);
    argv.push(...(await nativeKeyArguments(flags, (message) => this.warnUser(message))));
    if (flags.policies !== undefined) argv.push('--policies', flags.policies);
    if (flags['log-level']) argv.push('--log-level', flags['log-level']);

    const bar = new Progress(`checkpoint ${args.pid}`);
    const { errorStyle } = this;
    const observer = {
      log: (level: string, message: string): void => {
        bar.end();
        const coloured = level === 'error' ? errorStyle.red(level) : level === 'warn' ? errorStyle.yellow(level) : errorStyle.dim(level);
        process.stderr.write(`${coloured}: ${printable(message)}\n`);
      },
      progress: (done: number, total: number): void => bar.update(done, total),
    };
    const toStore = (staging: StagingOptions): Promise<CheckpointResult> =>
      import('../engine/remote.js').then(({ checkpointToStore }) => {
        const leaveRunning = flags['leave-running'] ?? false;
        return checkpointToStore({ pid: Number(args.pid), url: flags.to, argv, leaveRunning, observer, ...staging });
      });
    try {
      const result = await (remote ? transferring(toStore) : runCheckpoint([args.pid, '--to', flags.to, ...argv], observer));
      bar.end();
      this.present(result, flags.json ?? false, (document) => [
        `${printable(document.image)}  ${this.style.dim(OUTCOME[flags.engine] ?? `${bytes(document.bytes)}, generation ${document.generation}`)}`,
      ]);
      return result;
    } finally {
      bar.end();
    }
  }

  private async dump(
    pid: number,
    flags: { to: string; 'leave-running'?: boolean; timeout?: string; 'log-level'?: string; json?: boolean },
    given: string[],
  ): Promise<CheckpointResult> {
    refuseOthers('criu', given, ['to', 'leave-running', 'timeout', 'log-level']);
    const { criuDump } = await import('../criu/engine.js');
    const timeout = flags.timeout === undefined ? undefined : Number(flags.timeout);
    const result = criuDump(pid, flags.to, { leaveRunning: flags['leave-running'] ?? false, timeout, logLevel: flags['log-level'] });
    this.present(result, flags.json ?? false, (document) => [
      `${printable(document.image)}  ${this.style.dim(`${bytes(document.bytes)}, by CRIU`)}`,
    ]);
    return result;
  }
}
