import type { Image } from '../elf/image.js';
import { withLocalCopy } from '../elf/local-copy.js';
import { Progress } from '../terminal/progress.js';

/** Gives `work` the image in a local file, for debuggers; shows how far the copying is where it has to be copied. */
export async function withLocalFile<T>(image: Image, work: (local: Image) => Promise<T>): Promise<T> {
  const bar = new Progress('fetching');
  const update = (done: number, total: number): void => {
    if (done < total) bar.update(done, total);
    else bar.end();
  };
  return withLocalCopy(image, update, work).finally(() => bar.end());
}
