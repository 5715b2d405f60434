/** Checkpoints to object storage. */
import { readFileSync } from 'node:fs';
import { Failure } from '../failure.js';
import { imageLocation, urlOf } from '../store/location.js';
import { checkWritable, pushStaged, withStage, type StagingOptions } from '../store/staging.js';
import { runCheckpoint, type CheckpointObserver, type CheckpointResult } from './client.js';

/** User and group that a process acts as: its engine writes the image. */
function ownerOf(pid: number): { uid: number; gid: number } | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const effective = (name: string): number => Number(new RegExp(`^${name}:\\s+\\d+\\s+(\\d+)`, 'm').exec(status)![1]);
    return { uid: effective('Uid'), gid: effective('Gid') };
  } catch {
    return undefined; // the engine's client says that it is not there
  }
}

export interface RemoteCheckpoint extends StagingOptions {
  observer: CheckpointObserver;
  pid: number;
  url: string;
  /** What warp-checkpoint is given besides the process and the place. */
  argv: string[];
  leaveRunning: boolean;
}

/**
 * Takes a checkpoint to an object store, and replaces the object that is there. The store is asked first whether it takes one. The process is held until
 * the object is there in full; where it cannot be written after all, the process goes on. An image is only left in its local place when it is
 * all that remains of its process, and the Failure tells where.
 */
export async function checkpointToStore({ pid, url, argv, leaveRunning, observer, ...rest }: RemoteCheckpoint): Promise<CheckpointResult> {
  await checkWritable(url);
  rest.signal.throwIfAborted();
  return withStage(async (directory, keep) => {
    let sending: Promise<void> | undefined;
    const send = ({ image }: CheckpointResult): Promise<void> => (sending ??= pushStaged(image, url, rest));
    const result = await runCheckpoint([String(pid), '--to', directory, ...argv], observer, leaveRunning ? undefined : send);
    await send(result).catch((error: Error) => {
      if (leaveRunning) throw error;
      keep();
      throw new Failure(
        `${error.message}; process ${pid} has ended and its image is ${result.image}: send that with \`warp-tool push ${directory} ${url}\``,
        { cause: error },
      );
    });
    return { ...result, image: urlOf(imageLocation(url)) };
  }, ownerOf(pid));
}
