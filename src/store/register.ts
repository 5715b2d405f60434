import { registerScheme, type ByteSource } from '../elf/source.js';

// Loaded when it is needed: no other command starts slower for it.
const open = async (url: string): Promise<ByteSource> => (await import('./remote-source.js')).openRemote(url);

/** Lets every command take URLs of object stores as images. */
export function registerStores(): void {
  registerScheme('s3', open);
  registerScheme('gs', open);
}
