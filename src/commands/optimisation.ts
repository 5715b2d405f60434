import { optimisationOf } from '../elf/accesses.js';
import type { Image } from '../elf/image.js';
import { byteCountOf, type Static } from '../schemas/builder.js';
import type { optimisation } from '../schemas/index.js';
import { bytes, count, duration } from '../terminal/format.js';

type Optimisation = Static<typeof optimisation>;

/** What training has made of an image; null for one that was not optimised. */
export function optimisationJson(image: Image): Optimisation | null {
  const found = optimisationOf(image);
  return (
    found && {
      runs: found.runs,
      hot_chunks: found.chunks,
      hot_content: byteCountOf(found.content),
      hot_stored: byteCountOf(found.stored),
      last_needed_ms: Number(found.lastNs) / 1e6,
    }
  );
}

/** The same for people, on one line. */
export function optimisationText({
  runs,
  hot_chunks: chunks,
  hot_content: content,
  hot_stored: stored,
  last_needed_ms: last,
}: Optimisation): string {
  return `${count(runs, 'run')} needed ${count(chunks, 'chunk')}, ${bytes(content)} (${bytes(stored)} in the file), the last after ${duration(last)}`;
}
