import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import { AddressSpace } from './address-space.js';
import { environmentBlock } from './environment.js';
import type { Image } from './image.js';
import { ImageWriter } from './image-writer.js';
import { max, min } from './memory.js';
import {
  assembleMetadata,
  bytesFromJson,
  encodeNoteSegment,
  environmentJson,
  layOutMetadata,
  metadataHash,
  numberOf,
  placeMetadata,
  recordsOf,
  sealMetadata,
  type MetadataJson,
  type Placed,
} from './metadata.js';
import { bytesScanner, scanMemory } from './scan.js';
import { ANCHOR_OFFSET, anchorFields, CHUNK_CODEC_MASK, CHUNK_ENCRYPTED, CHUNK_IN_PARENT, layoutOf } from './schema.js';
import { xxh64 } from './xxh64.js';

/** Writes the image that `document` describes; content comes from `image`, which it was decoded from. `progress` is told bytes of content. */
export async function encodeImage(
  document: MetadataJson,
  image: Image,
  path: string,
  progress: (done: number, total: number) => void = () => {},
): Promise<void> {
  if (document.format !== 'warp-tool metadata 1')
    throw new Failure(`this is no document of \`warp-tool decode\`: its format is ${JSON.stringify(document.format)}`);
  const hash = hex(await metadataHash(image));
  if (document.source?.hash !== hash) {
    throw new Failure(
      `${image.source.name} is not the image that the document was decoded from (its metadata has the hash ${hash}, not ${document.source?.hash}); name the right one with --image`,
    );
  }
  const { source } = image;
  const patches = await environmentPatches(document, image);
  if (image.ours) await rehash(document, image, patches);
  let moved = resize(document, image);
  const contentStart = image.anchor && image.ours ? BigInt(image.metadataSize) : 0n;
  const total = Number(source.size - contentStart);
  let metadata: Placed[];
  if (image.ours) {
    let bytes = assembleMetadata(document);
    const original = await source.read(0n, Number(contentStart));
    if (!bytes.equals(original)) {
      if (image.sealed)
        throw new Failure(`${source.name}: what is encrypted cannot be edited; give the key of the image to \`decode\` and \`encode\``);
      if (await leaveOutPlainMetadata(document, image)) {
        moved += resize(document, image);
        bytes = assembleMetadata(document);
      }
      await sealMetadata(bytes);
    }
    metadata = [{ offset: 0n, bytes }];
  } else {
    metadata = placeMetadata(document);
  }
  await ImageWriter.write(path, async (writer) => {
    await writer.truncate(source.size + moved);
    await writer.copy(source, contentStart, source.size, moved, (done) => progress(done, total));
    for (const { offset, bytes } of patches) await writer.write(offset + moved, bytes);
    for (const { offset, bytes } of metadata) await writer.write(offset, bytes);
  });
}

/** Makes room where notes have another size than before. Returns by how many bytes content moves. */
function resize(document: MetadataJson, image: Image): bigint {
  const { name } = image.source;
  const resized = document.notes.some((part) => {
    const recorded = numberOf(document.segments[part.segment]?.['file_size'], `segments[${part.segment}].file_size`);
    return BigInt(encodeNoteSegment(document, part).length) !== recorded;
  });
  if (!resized) return 0n;
  if (!image.ours) throw new Failure(`${name}: notes of a core file of another writer cannot change their size; keep the lengths`);
  if (document.residue.length > 0)
    throw new Failure(`${name}: notes cannot change their size: bytes of unknown meaning stand between them (residue)`);
  return layOutMetadata(document, BigInt(image.single('image')!.page_size));
}

/**
 * A compressed image can hold the metadata of its plain form: that would bring back what was before the edits. Returns whether anything was left out.
 */
async function leaveOutPlainMetadata(document: MetadataJson, image: Image): Promise<boolean> {
  if (image.foreignInside || image.packing === null || image.packing.find(0) < 0) return false;
  const { places } = layoutOf(anchorFields);
  const { offset } = places.find(({ name }) => name === 'metadata_size')!;
  const size = (await image.content.read(BigInt(ANCHOR_OFFSET + offset), 8)).readBigUInt64LE();
  const records = recordsOf(document, 'chunks');
  const kept = records.filter((record) => numberOf(record['content_offset'], 'content_offset') >= size);
  // They are the first ones.
  for (const access of recordsOf(document, 'accesses')) access['chunk'] = Number(access['chunk']) - (records.length - kept.length);
  records.splice(0, records.length, ...kept);
  return true;
}

/**
 * What has to change in memory for the document's environment. An entry keeps its place when it is not longer than before; a longer one moves into
 * room that others leave in the block, and pointers to it are corrected.
 */
async function environmentPatches(document: MetadataJson, image: Image): Promise<Placed[]> {
  if (document.environment === null) return [];
  const block = await environmentBlock(image);
  const wanted = document.environment.map((entry, index) => bytesFromJson(entry, `environment[${index}]`));
  if (!block) {
    if (JSON.stringify(await environmentJson(image)) === JSON.stringify(document.environment)) return [];
    throw new Failure(`${image.source.name}: the environment of a core file of another writer cannot be edited`);
  }
  const { start, end, bytes: original, entries } = block;
  if (wanted.length !== entries.length) {
    const what =
      wanted.length > entries.length
        ? 'has no room for more entries; give variables at restore with --env'
        : 'must keep its number of entries; empty one ("") to remove it';
    throw new Failure(`${image.source.name}: the environment of ${entries.length} entries ${what}`);
  }
  const bytes = Buffer.from(original);
  const longer: number[] = [];
  const free: { start: number; end: number }[] = [];
  for (const [index, { at, length }] of entries.entries()) {
    const entry = wanted[index]!;
    if (entry.includes(0)) throw new Failure(`environment[${index}] holds a NUL`);
    if (entry.equals(original.subarray(at, at + length))) continue;
    bytes.fill(0, at, at + length);
    if (entry.length <= length) {
      entry.copy(bytes, at);
      // One NUL ends the entry itself.
      if (length - entry.length > 1) free.push({ start: at + entry.length + 1, end: at + length + 1 });
    } else {
      longer.push(index);
      free.push({ start: at, end: at + length + 1 });
    }
  }
  const patches: Placed[] = [];
  for (const index of longer) {
    const entry = wanted[index]!;
    const gap = joined(free).find((one) => one.end - one.start > entry.length);
    if (!gap) {
      const name = entry.toString('utf8', 0, Math.max(0, entry.indexOf('=')));
      throw new Failure(
        `${image.source.name}: ${name} does not fit: the environment's block at ${hex(start)} has ${end - start} bytes, and all are in use; shorten it or others, or give it at restore with --env`,
      );
    }
    entry.copy(bytes, gap.start);
    free.splice(
      0,
      free.length,
      ...joined(free).map((one) => (one.start === gap.start ? { start: gap.start + entry.length + 1, end: one.end } : one)),
    );
    for (const patch of await pointerPatches(image, start + BigInt(entries[index]!.at), start + BigInt(gap.start))) patches.push(patch);
  }
  if (bytes.equals(original)) return patches;
  return [...storedPlaces(image, start, bytes), ...patches];
}

function joined(free: readonly { start: number; end: number }[]): { start: number; end: number }[] {
  const result: { start: number; end: number }[] = [];
  for (const { start, end } of free.toSorted((a, b) => a.start - b.start)) {
    const last = result.at(-1);
    if (last && last.end === start) last.end = end;
    else if (start < end) result.push({ start, end });
  }
  return result;
}

/** The initial list of pointers, and copies that the program has made of it. */
async function pointerPatches(image: Image, from: bigint, to: bigint): Promise<Placed[]> {
  const [old, now] = [from, to].map((address) => {
    const raw = Buffer.alloc(8);
    raw.writeBigUInt64LE(address);
    return raw;
  }) as [Buffer, Buffer];
  const space = new AddressSpace(image);
  const patches: Placed[] = [];
  try {
    const runs = space.runs(undefined, (vma) => vma.protection !== null && (vma.protection & 2) !== 0 && vma.stored > 0n);
    for await (const matches of scanMemory(runs, bytesScanner(old))) {
      for (const { address } of matches) if (address % 8n === 0n) patches.push(...storedPlaces(image, address, now));
    }
  } finally {
    await space.close();
  }
  return patches;
}

/** Where in the image the bytes at an address are, to write others in their place. */
function storedPlaces(image: Image, address: bigint, bytes: Buffer): Placed[] {
  const placed: Placed[] = [];
  for (let done = 0; done < bytes.length;) {
    const at = address + BigInt(done);
    const segment = image.memory.segmentAt(at);
    if (!segment || at >= segment.address + segment.fileSize) {
      const mend = image.packing ? 'decompress it first' : 'the file that it is mapped from has it';
      throw new Failure(
        `${image.source.name}: the memory at ${hex(at)} is not stored plainly in the image, so it cannot be edited; ${mend}`,
      );
    }
    const size = Number(min(BigInt(bytes.length - done), segment.address + segment.fileSize - at));
    placed.push({ offset: segment.offset + (at - segment.address), bytes: bytes.subarray(done, done + size) });
    done += size;
  }
  return placed;
}

/** Corrects the hashes of the chunks that patches change. */
async function rehash(document: MetadataJson, image: Image, patches: readonly Placed[]): Promise<void> {
  if (patches.length === 0) return;
  const chunks = [...image.table('chunks')];
  const records = recordsOf(document, 'chunks');
  for (const [index, chunk] of chunks.entries()) {
    const start = chunk.content_offset;
    const end = start + BigInt(chunk.content_size);
    const touching = patches.filter(({ offset, bytes }) => offset < end && offset + BigInt(bytes.length) > start);
    if (touching.length === 0) continue;
    if ((chunk.flags & (CHUNK_CODEC_MASK | CHUNK_ENCRYPTED | CHUNK_IN_PARENT)) !== 0) {
      throw new Failure(`${image.source.name}: memory of a compressed, encrypted or delta image cannot be edited; decompress it first`);
    }
    const content = Buffer.from(await image.source.read(chunk.file_offset, chunk.content_size));
    for (const { offset, bytes } of touching) {
      const from = max(offset, start);
      bytes.subarray(Number(from - offset)).copy(content, Number(from - start));
    }
    const hash = hex(await xxh64(content));
    const record = records[index];
    if (record) Object.assign(record, { content_hash: hash, stored_hash: hash });
  }
}
