import type { Image } from '../elf/image.js';
import { withLocalCopy } from '../elf/local-copy.js';
import { interruptible } from '../interruption.js';
import { Progress } from '../terminal/progress.js';

/** Gives `work` the image in a local file, for debuggers. Where it has to be copied, shows how far that is; no copy stays behind. */
export async function withLocalFile<T>(image: Image, work: (local: Image) => Promise<T>): Promise<T> {
  if (image.source.path !== undefined) return work(image);
  const bar = new Progress('fetching');
  return interruptible((signal) => {
    // What is being read fails then.
    signal.addEventListener('abort', () => void image.close());
    const update = (done: number, total: number): void => {
      if (done < total) bar.update(done, total);
      else bar.end();
    };
    return withLocalCopy(image, update, work);
  }).finally(() => bar.end());
}
