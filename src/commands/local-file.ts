import { schemeOf } from '../elf/source.js';
import type { Image } from '../elf/image.js';
import { isPlainFile, withLocalCopy } from '../elf/local-copy.js';
import { interruptible } from '../interruption.js';
import type { StagingOptions } from '../store/staging.js';
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

/** The arguments by which warp-restore gets an image: of one in object storage the descriptor of a local copy without a name. */
export async function nativeImageArguments(argument: string): Promise<string[]> {
  if (schemeOf(argument) === null) return [argument];
  const { pulledDescriptor } = await import('../store/staging.js');
  const fd = await transferring((options) => pulledDescriptor(argument, options));
  return [argument, '--image-fd', String(fd)];
}

/** Does `work` with a bar on stderr for what it transfers, and lets it clean up when it is interrupted. */
export async function transferring<T>(work: (options: StagingOptions) => Promise<T>): Promise<T> {
  const bar = new Progress('');
  const progress: StagingOptions['progress'] = (step, done, total) => {
    bar.label = step;
    bar.update(done, total);
  };
  return interruptible((signal) => work({ signal, progress })).finally(() => bar.end());
}
