import { ANCHOR_OFFSET } from '../elf/schema.js';
import { Image } from '../elf/image.js';
import { Failure } from '../failure.js';
import { inOrder } from './in-order.js';
import { urlOf, type Location } from './location.js';
import { decodeFacts, factsOfImage, type ImageFacts } from './metadata.js';
import { ObjectStore, type ListedObject, type StoreOptions } from './object-store.js';
import { RemoteSource } from './remote-source.js';

export interface ListEntry extends ListedObject {
  url: string;
  /** Null for what is no image, or when nobody looked. */
  image: ImageFacts | null;
  /** Why an object could not be looked at. */
  problem: string | null;
}

/** Enough to tell an ELF core file by; what `push` recorded comes with the same answer. */
const PROBE = ANCHOR_OFFSET + 128;
const ELF = 0x7f454c46;
const ET_CORE = 4;

/** The objects whose key starts with that of `location`, page by page; with `inside`, what images are among them. */
export async function* listObjects(
  location: Location,
  inside: boolean,
  parallel: number,
  options: StoreOptions,
): AsyncGenerator<ListEntry[]> {
  const store = await ObjectStore.connect(location, options);
  try {
    for await (const page of store.list(location.key)) {
      const entries: ListEntry[] = [];
      const looked = inOrder(page.length, parallel, undefined, async (index) => {
        const object = page[index]!;
        const entry: ListEntry = { ...object, url: urlOf({ ...location, key: object.key }), image: null, problem: null };
        if (!inside || object.size < PROBE) return entry;
        try {
          return { ...entry, image: await look(store, object.key) };
        } catch (error) {
          // One object that cannot be read must not hide the others.
          if (error instanceof Failure) return { ...entry, problem: error.message };
          throw error;
        }
      });
      for await (const entry of looked) entries.push(entry);
      yield entries;
    }
  } finally {
    store.close();
  }
}

async function look(store: ObjectStore, key: string): Promise<ImageFacts | null> {
  const { facts, content } = await store.open(key, PROBE);
  const recorded = decodeFacts(facts.metadata);
  if (recorded) return recorded;
  if (content.length < PROBE || content.readUInt32BE(0) !== ELF || content.readUInt16LE(16) !== ET_CORE) return null;
  const image = await Image.from(await RemoteSource.open(store, key));
  try {
    return factsOfImage(image);
  } finally {
    await image.close();
  }
}
