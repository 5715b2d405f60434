import { basename } from 'node:path';
import type { AddressSpace } from './address-space.js';
import type { Image } from './image.js';
import type { Jvm } from './jvm/jvm.js';
import type { Vma } from './vmas.js';

/** The area with the first byte of libjvm.so; undefined where the process was no Java virtual machine. */
export function libjvmOf(image: Image): Vma | undefined {
  return image.vmas().find(({ name, offset }) => offset === 0n && basename(name) === 'libjvm.so');
}

/**
 * The Java virtual machine of an image: null where the process was none, a line where the image does not tell enough of it. Its code is loaded only
 * when there is one.
 */
export async function openJvm(space: AddressSpace): Promise<Jvm | string | null> {
  const libjvm = libjvmOf(space.image);
  if (!libjvm) return null;
  const [{ Jvm }, { reasonOf }] = await Promise.all([import('./jvm/jvm.js'), import('./jvm/memory.js')]);
  try {
    return await Jvm.open(space, libjvm);
  } catch (error) {
    return `nothing can be told of the Java virtual machine: ${reasonOf(error)}`;
  }
}
