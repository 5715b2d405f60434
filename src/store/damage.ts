import type { Image } from '../elf/image.js';
import { validateImage, type Finding } from '../elf/validate.js';

/** Rules of `validate` that only bytes lost or changed on their way break; the others judge the writer. */
const DAMAGE = new Set(['segment-in-file', 'anchor', 'metadata-hash', 'note', 'kernel-note', 'chunk-index', 'chunk-content']);

/** The first sign that content of an image was lost or changed; null when all checksums fit. `progress` is told bytes. */
export async function firstDamage(image: Image, progress: (done: bigint, total: bigint) => void): Promise<Finding | null> {
  const checked = { segments: 0, notes: 0, records: 0, chunks: 0, content: 0n };
  for await (const finding of validateImage(image, checked, progress)) if (DAMAGE.has(finding.check)) return finding;
  return null;
}
