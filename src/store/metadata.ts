import { basename } from 'node:path';
import { timestamp, uuid } from '../elf/identity.js';
import type { Image } from '../elf/image.js';
import { nameOf, names } from '../elf/schema.js';

/** What is told about an image without opening it: `push` stores this beside the object, `list` shows it. */
export interface ImageFacts {
  /** Name of the executable; null where the image does not tell. */
  program: string | null;
  /** Version of the image format; this and all that follows is null for a core file of another writer. */
  format: string | null;
  id: string | null;
  generation: number | null;
  /** RFC 3339, UTC. */
  captured_at: string | null;
  /** `none`, or how chunks are packed, joined by `+`. */
  compression: string | null;
  encrypted: boolean | null;
  /** Bytes at the start of the image that say everything but memory. */
  metadata_size: number | null;
}

export function factsOfImage(image: Image): ImageFacts {
  const program = image.sealed ? null : programOf(image);
  const { outermost } = image;
  const record = outermost.single('image');
  if (!record || !outermost.anchor) {
    return {
      program,
      format: null,
      id: null,
      generation: null,
      captured_at: null,
      compression: null,
      encrypted: null,
      metadata_size: null,
    };
  }
  const codecs = new Set<number>();
  const { chunks } = outermost;
  for (let chunk = 0; chunk < chunks.length; chunk++)
    if (!chunks.isInParent(chunk) && chunks.codec(chunk) !== 0) codecs.add(chunks.codec(chunk));
  return {
    program,
    format: `${outermost.anchor.format_major}.${outermost.anchor.format_minor}`,
    id: uuid(record.image_id),
    generation: record.generation,
    captured_at: timestamp(record.realtime_ns),
    compression: codecs.size === 0 ? 'none' : [...codecs].map((codec) => nameOf(names.codec, codec)).join('+'),
    encrypted: image.encrypted,
    metadata_size: Number(outermost.anchor.metadata_size),
  };
}

function programOf(image: Image): string | null {
  const executable = image.executable();
  return executable === null ? (image.kernelNote('prpsinfo')?.name ?? null) : basename(executable);
}

const PREFIX = 'warp-';
/** SHA-256 of the whole object, hexadecimal. */
export const CONTENT_HASH = `${PREFIX}sha256`;
/** Tells one push from another of the same image. */
export const PUSH_ID = `${PREFIX}push-id`;

/** Facts as metadata of an object: ASCII, and all names in lower case, as HTTP headers demand. */
export function encodeFacts(facts: ImageFacts): Record<string, string> {
  const entries = Object.entries(facts).filter(([, value]) => value !== null);
  return Object.fromEntries(entries.map(([name, value]) => [PREFIX + name.replaceAll('_', '-'), encodeURIComponent(String(value))]));
}

/** The other way; null for an object that `push` did not write. */
export function decodeFacts(metadata: Record<string, string>): ImageFacts | null {
  if (metadata[CONTENT_HASH] === undefined) return null;
  const text = (name: keyof ImageFacts): string | null => {
    const value = metadata[PREFIX + name.replaceAll('_', '-')];
    try {
      return value === undefined ? null : decodeURIComponent(value);
    } catch {
      return value!; // somebody else wrote it
    }
  };
  const number = (name: keyof ImageFacts): number | null => {
    const value = text(name);
    return value === null || !/^\d+$/.test(value) ? null : Number(value);
  };
  const encrypted = text('encrypted');
  return {
    program: text('program'),
    format: text('format'),
    id: text('id'),
    generation: number('generation'),
    captured_at: text('captured_at'),
    compression: text('compression'),
    encrypted: encrypted === null ? null : encrypted === 'true',
    metadata_size: number('metadata_size'),
  };
}
