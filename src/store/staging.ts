/** Local places for images on their way between a store and the engine, which knows local files only. */
import { openSync, truncateSync, writeFileSync } from 'node:fs';
import { chown, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Image } from '../elf/image.js';
import { Failure, systemErrorReason } from '../failure.js';
import { imageLocation } from './location.js';
import { ObjectStore } from './object-store.js';
import { pull, type Pulled } from './pull.js';
import { push, type TransferOptions } from './push.js';

/** What is told about the way, and what ends it. */
export type StagingOptions = Pick<TransferOptions, 'signal' | 'progress'>;

const PARALLEL = 8;

const transfer = (options: StagingOptions, force: boolean): TransferOptions => ({ ...options, force, parallel: PARALLEL });

/** A directory below the temporary one (TMPDIR) that only this user can enter; or, for what another user's program writes, that user. */
async function makeStage(owner?: { uid: number; gid: number }): Promise<string> {
  const place = join(tmpdir(), 'warp-tool-image-');
  try {
    const directory = await mkdtemp(place);
    if (owner && process.geteuid!() === 0) await chown(directory, owner.uid, owner.gid);
    return directory;
  } catch (error) {
    throw new Failure(`cannot make a directory ${place}… for the image: ${systemErrorReason(error)}; name another place in TMPDIR`, {
      cause: error,
    });
  }
}

/** Gives `work` a directory of that kind, which is there for that time only, unless it calls `keep`. */
export async function withStage<T>(
  work: (directory: string, keep: () => void) => Promise<T>,
  owner?: { uid: number; gid: number },
): Promise<T> {
  const directory = await makeStage(owner);
  let kept = false;
  try {
    return await work(directory, () => (kept = true));
  } finally {
    if (!kept) await rm(directory, { recursive: true, force: true });
  }
}

/** Gives `work` the image at `url` as a local file, which is there for that time only. */
export async function withPulled<T>(url: string, options: StagingOptions, work: (pulled: Pulled) => Promise<T>): Promise<T> {
  return withStage(async (directory) => work(await pull(url, directory, transfer(options, false))));
}

/** The image at `url` as a file without a name, readable by its descriptor: it is gone when that, and all that is mapped from it, is. */
export async function pulledDescriptor(url: string, options: StagingOptions): Promise<number> {
  return withPulled(url, options, async ({ path }) => openSync(path, 'r'));
}

/** The same with the metadata of an image only, and a hole behind it: for those who want to know of it what they would do. */
export async function metadataDescriptor({ outermost, file }: Image): Promise<number> {
  return withStage(async (directory) => {
    const path = join(directory, 'core.img');
    writeFileSync(path, await file.read(0n, Number(outermost.anchor!.metadata_size)), { mode: 0o600 });
    truncateSync(path, Number(file.size));
    return openSync(path, 'r');
  });
}

/** Fails where no object can be written to `url`: before something is given up for it that cannot be had again. Nothing is left in the store. */
export async function checkWritable(url: string): Promise<void> {
  const location = imageLocation(url);
  const store = await ObjectStore.connect(location);
  try {
    // An upload that is begun needs the same permissions as an object, and no listing shows it.
    await store.abortUpload(location.key, await store.createUpload(location.key, {}));
  } finally {
    store.close();
  }
}

/** Makes the local image at `path` the object at `url`, also where there is one; with `replaces`, only where that has this ETag. */
export async function pushStaged(path: string, url: string, options: StagingOptions, replaces?: string): Promise<void> {
  await push(path, url, { ...transfer(options, true), replaces });
}
