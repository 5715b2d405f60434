import { lstat, mkdtemp, readdir, rm, stat, utimes } from 'node:fs/promises';
import { availableParallelism, homedir, tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import type { Work } from '../engine/chunk-work.js';
import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import { Image } from './image.js';
import { ImageWriter, makeDirectory } from './image-writer.js';
import { metadataHash } from './metadata.js';
import { writePlain } from './pack.js';
import { FileSource } from './source.js';

/** How long a copy that nobody uses stays, milliseconds. */
const LIFETIME = 7 * 24 * 3600 * 1000;

/** Whether other programs can read the image where it is: in a local file, and plain. */
export function isPlainFile({ source, content }: Image): boolean {
  return source.path !== undefined && content === source;
}

/** A plain copy of an image in a local file. */
export interface LocalCopy {
  path: string;
  /** Removes the copy where it must not stay. */
  release(): Promise<void>;
}

/**
 * Makes a plain copy of an image. Of a compressed local one it stays, in a directory of the user's cache that nobody else can enter: it is used again
 * for the same image, and goes when it has not been used for a week. All others go with `release`.
 */
export async function localCopy(image: Image, work: Work): Promise<LocalCopy> {
  const stays = image.file instanceof FileSource && !image.encrypted;
  const directory = stays ? await cacheDirectory() : await mkdtemp(join(tmpdir(), 'warp-tool-image-'));
  const release = async (): Promise<void> => {
    if (!stays) await rm(directory, { recursive: true, force: true });
  };
  try {
    const path = join(directory, stays ? await cacheName(image) : 'core.img');
    const now = new Date();
    // A file is there in full or not at all.
    const found = await utimes(path, now, now).then(
      () => true,
      () => false,
    );
    if (!found) {
      if (stays) await removeUnused(directory);
      await ImageWriter.write(path, (writer) => writePlain(image, writer, path, work));
    }
    return { path, release };
  } catch (error) {
    await release();
    throw error;
  }
}

/** Gives `work` the image in a plain local file: a copy where it is none, of which `progress` is told bytes. */
export async function withLocalCopy<T>(
  image: Image,
  work: (local: Image) => Promise<T>,
  progress: (done: number, total: number) => void = () => {},
  signal?: AbortSignal,
): Promise<T> {
  if (isPlainFile(image)) return work(image);
  const copy = await localCopy(image, { threads: availableParallelism(), progress, signal });
  try {
    const local = await Image.open(copy.path);
    try {
      return await work(local);
    } finally {
      await local.close();
    }
  } finally {
    await copy.release();
  }
}

async function cacheName({ outermost }: Image): Promise<string> {
  const id = outermost.single('image')?.image_id.toString('hex') ?? 'core';
  return `${id}-${hex(await metadataHash(outermost)).slice(2)}.core`;
}

/** A directory of this user's that nobody else can enter. */
async function cacheDirectory(): Promise<string> {
  const named = process.env['XDG_CACHE_HOME'];
  const base = named && isAbsolute(named) ? named : join(homedir(), '.cache');
  const wanted = [join(base, 'warp-tool'), join(tmpdir(), `warp-tool-${process.getuid!()}`)];
  for (const path of wanted) {
    await makeDirectory(path, 0o700).catch(() => {});
    // Of the temporary directory others could have taken the name first.
    const status = await lstat(path).catch(() => null);
    if (status?.isDirectory() && status.uid === process.getuid!() && (status.mode & 0o077) === 0) return path;
  }
  throw new Failure(
    `there is no place for a plain copy of the image: neither ${wanted.join(' nor ')} is a directory that only this user can enter; set XDG_CACHE_HOME`,
  );
}

async function removeUnused(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const status = await stat(path).catch(() => null);
    if (status && Date.now() - status.mtimeMs > LIFETIME) await rm(path, { recursive: true, force: true });
  }
}
