import { createHash } from 'node:crypto';
import { access } from 'node:fs/promises';
import { Image } from '../elf/image.js';
import { ImageWriter, outputPath } from '../elf/image-writer.js';
import { FileSource } from '../elf/source.js';
import { Failure } from '../failure.js';
import { firstDamage } from './damage.js';
import { inOrder } from './in-order.js';
import { imageLocation } from './location.js';
import { CONTENT_HASH } from './metadata.js';
import { ObjectStore } from './object-store.js';
import type { TransferOptions } from './push.js';
import { RemoteSource } from './remote-source.js';

export interface Pulled {
  url: string;
  path: string;
  /** Bytes. */
  size: bigint;
  etag: string;
  sha256: string;
  /** What the content was compared with: the hash that `push` recorded, the image's own checksums, or nothing but its length. */
  verified: 'sha256' | 'checksums' | 'size';
}

/** Bytes of one request. */
const PIECE = 8 << 20;

/** Downloads an image into `directory`/core.img, which is there in full, verified and durable, or not at all. */
export async function pull(url: string, directory: string, options: TransferOptions): Promise<Pulled> {
  const location = imageLocation(url);
  const store = await ObjectStore.connect(location, options);
  try {
    const source = await RemoteSource.open(store, location.key);
    // Before a byte is written: is it an image at all?
    await (await Image.from(source)).close();
    return await pullObject(store, location.key, source, await outputPath(directory, true), options);
  } finally {
    store.close();
  }
}

async function pullObject(
  store: ObjectStore,
  key: string,
  { name: url, size, etag, metadata }: RemoteSource,
  path: string,
  { force, parallel, signal, progress }: TransferOptions,
): Promise<Pulled> {
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  if (exists && !force) throw new Failure(`${path} is there already; choose another directory, or replace it with --force`);
  const hash = createHash('sha256');
  let sha256 = '';
  let verified: Pulled['verified'] = 'size';
  await ImageWriter.write(path, async (writer) => {
    await writer.truncate(size);
    const buffers: Buffer[] = [];
    const pieces = inOrder(Number((size + BigInt(PIECE) - 1n) / BigInt(PIECE)), parallel, signal, async (index, abort) => {
      const offset = BigInt(index) * BigInt(PIECE);
      const buffer = buffers.pop() ?? Buffer.allocUnsafeSlow(PIECE);
      const left = size - offset;
      const content = left < BigInt(PIECE) ? buffer.subarray(0, Number(left)) : buffer;
      await store.readInto(key, etag, offset, [content], abort);
      return { offset, content, buffer };
    });
    for await (const { offset, content, buffer } of pieces) {
      hash.update(content);
      await writer.writeSparse(offset, content);
      buffers.push(buffer);
      progress('receiving', Number(offset) + content.length, Number(size));
    }
    sha256 = hash.digest('hex');
    verified = await verify(url, writer.path, sha256, metadata[CONTENT_HASH], progress);
    signal.throwIfAborted();
  });
  return { url, path, size, etag, sha256, verified };
}

async function verify(
  url: string,
  file: string,
  sha256: string,
  recorded: string | undefined,
  progress: TransferOptions['progress'],
): Promise<Pulled['verified']> {
  if (recorded !== undefined) {
    if (sha256 === recorded) return 'sha256';
    throw new Failure(`${url} is damaged: its SHA-256 is ${sha256}, push recorded ${recorded}; push the image again`);
  }
  const image = await Image.from(await FileSource.open(file));
  try {
    const damage = await firstDamage(image, (done, total) => progress('checking', Number(done), Number(total)));
    if (damage) throw new Failure(`${url} is damaged: ${damage.problem}; push the image again`);
    return image.ours ? 'checksums' : 'size';
  } finally {
    await image.close();
  }
}
