import { codec } from '../engine/codec.js';
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
import { ANCHOR_OFFSET, anchorFields, CHUNK_CODEC_MASK, CHUNK_ENCRYPTED, CHUNK_IN_PARENT, CODEC_PLAIN, layoutOf } from './schema.js';
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
  const edits = await applyPatches(document, image, await environmentPatches(document, image));
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
    await writer.truncate(max(source.size, edits.end) + moved);
    await writer.copy(source, contentStart, source.size, moved, (done) => progress(done, total));
    for (const { offset, bytes } of edits.writes) await writer.write(offset + moved, bytes);
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

/** Where in the content space the bytes at an address are, to write others in their place. */
function storedPlaces(image: Image, address: bigint, bytes: Buffer): Placed[] {
  const placed: Placed[] = [];
  for (let done = 0; done < bytes.length;) {
    const at = address + BigInt(done);
    const segment = image.memory.segmentAt(at);
    const end = segment && segment.address + image.memory.storedSize(segment);
    if (!segment || !end || at >= end || image.memory.sourceOf(segment) !== image.content) {
      throw new Failure(
        `${image.source.name}: the memory at ${hex(at)} is not stored in the image, so it cannot be edited; the file that it is mapped from has it`,
      );
    }
    const size = Number(min(BigInt(bytes.length - done), end - at));
    placed.push({ offset: segment.offset + (at - segment.address), bytes: bytes.subarray(done, done + size) });
    done += size;
  }
  return placed;
}

/**
 * Corrects the records of the chunks that patches, in the content space, change. Returns what that writes to the file and where the last of it ends:
 * a packed chunk goes to the end of the file, because it may have grown, and nothing of it stays where it was.
 */
async function applyPatches(document: MetadataJson, image: Image, patches: readonly Placed[]): Promise<{ writes: Placed[]; end: bigint }> {
  const writes: Placed[] = image.packing ? [] : [...patches];
  let end = image.source.size;
  if (patches.length === 0 || !image.ours) return { writes, end };
  const chunks = [...image.table('chunks')];
  const records = recordsOf(document, 'chunks');
  const pageSize = BigInt(image.single('image')!.page_size);
  for (const [index, chunk] of chunks.entries()) {
    const start = chunk.content_offset;
    const touching = patches.filter(
      ({ offset, bytes }) => offset < start + BigInt(chunk.content_size) && offset + BigInt(bytes.length) > start,
    );
    if (touching.length === 0) continue;
    if ((chunk.flags & (CHUNK_ENCRYPTED | CHUNK_IN_PARENT)) !== 0)
      throw new Failure(`${image.source.name}: memory of an encrypted or delta image cannot be edited; decrypt or decompress it first`);
    const content = Buffer.from(await image.content.read(start, chunk.content_size));
    for (const { offset, bytes } of touching) {
      const from = max(offset, start);
      bytes.subarray(Number(from - offset)).copy(content, Number(from - start));
    }
    const content_hash = hex(await xxh64(content));
    const record = records[index];
    if (!record) continue;
    if (!image.packing) {
      Object.assign(record, { content_hash, stored_hash: content_hash });
      continue;
    }
    const block = (chunk.flags & CHUNK_CODEC_MASK) === CODEC_PLAIN ? null : await codec().compress(content, 1);
    const stored = block ?? content;
    // What is plain may be mapped from the file.
    const at = block ? end : ((end + pageSize - 1n) / pageSize) * pageSize;
    const codecs = block ? chunk.flags & CHUNK_CODEC_MASK : CODEC_PLAIN;
    Object.assign(record, {
      file_offset: hex(at),
      stored_size: stored.length,
      content_hash,
      stored_hash: block ? hex(await xxh64(block)) : content_hash,
      flags: (chunk.flags & ~CHUNK_CODEC_MASK) | codecs,
    });
    if (!chunks.some((other) => other !== chunk && other.file_offset === chunk.file_offset))
      writes.push({ offset: chunk.file_offset, bytes: Buffer.alloc(chunk.stored_size) });
    writes.push({ offset: at, bytes: stored });
    end = at + BigInt(stored.length);
    document.anchor!['file_size'] = hex(end);
  }
  return { writes, end };
}
