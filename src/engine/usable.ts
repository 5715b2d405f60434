/** Whether an image can be restored on this host now: for starting a program the usual way when it cannot. */
import { Image } from '../elf/image.js';
import { Failure } from '../failure.js';
import { checkRestorable } from './restorable.js';

/**
 * Null when nothing stands in the way of a restore, else one line that says what does. The content is not read: warp-restore checks it.
 *
 * @param key of an encrypted image
 * @param rules as checkRestorable takes them
 */
export async function whyNotRestorable(argument: string, key: Buffer | undefined, rules: readonly string[]): Promise<string | null> {
  let image: Image;
  try {
    image = await Image.open(argument, key === undefined ? {} : { key });
    if (image.sealed) {
      await image.close();
      return `${argument} is encrypted: give its key with --encryption-key-file or --encryption-key-env`;
    }
  } catch (error) {
    if (error instanceof Failure) return error.message;
    throw error;
  }
  try {
    for await (const { effect, problem, mend } of checkRestorable(image, rules))
      if (effect === 'fails') return `${argument} cannot be restored here: ${problem}; ${mend}`;
    return null;
  } catch (error) {
    if (error instanceof Failure) return error.message;
    throw error;
  } finally {
    await image.close();
  }
}
