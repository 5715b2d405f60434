import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Image } from './image.js';
import { ImageWriter } from './image-writer.js';

/** Gives `work` a copy of the image in a local file, which exists for that time in the temporary directory; `progress` is told bytes. */
export async function withLocalCopy<T>(
  image: Image,
  progress: (done: number, total: number) => void,
  work: (local: Image) => Promise<T>,
): Promise<T> {
  const { source } = image;
  const directory = await mkdtemp(join(tmpdir(), 'warp-tool-image-'));
  try {
    const path = join(directory, 'core.img');
    await ImageWriter.write(path, async (writer) => {
      await writer.truncate(source.size);
      await writer.copy(source, 0n, source.size, 0n, (done) => progress(done, Number(source.size)));
    });
    const local = await Image.open(path);
    try {
      return await work(local);
    } finally {
      await local.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
