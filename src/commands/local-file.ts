import type { Image } from '../elf/image.js';
import { isPlainFile, withLocalCopy } from '../elf/local-copy.js';
import { interruptible } from '../interruption.js';
import { Progress } from '../terminal/progress.js';

/** Gives `work` the image in a plain local file, for debuggers. Where it has to be copied, shows how far that is. */
export async function withLocalFile<T>(image: Image, work: (local: Image) => Promise<T>): Promise<T> {
  if (isPlainFile(image)) return work(image);
  const remote = image.file.path === undefined;
  const bar = new Progress(remote ? 'fetching' : 'unpacking');
  return interruptible((signal) => {
    // What is being read fails then.
    if (remote) signal.addEventListener('abort', () => void image.close());
    const update = (done: number, total: number): void => {
      signal.throwIfAborted();
      if (done < total) bar.update(done, total);
      else bar.end();
    };
    return withLocalCopy(image, work, update, signal);
  }).finally(() => bar.end());
}
