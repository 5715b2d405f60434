import type { Work } from '../engine/chunk-work.js';
import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import { ChunkIndex } from './chunk-index.js';
import { composeMetadata, padded, type MetadataPlan } from './compose-metadata.js';
import { chunkError, readStored } from './content.js';
import { CIPHER_AES_256_GCM, DERIVATION_HKDF_SHA256, ImageCipher, openData, TAG_SIZE } from './encryption.js';
import type { Image } from './image.js';
import { ImageWriter } from './image-writer.js';
import { chunkTable, checkMetadata, pieces, randomId, refuseFlags, type Repacked } from './pack.js';
import {
  CHUNK_ENCRYPTED,
  FORMAT_MINOR,
  HARMLESS_TEXTS,
  IMAGE_DELTA,
  IMAGE_ENCRYPTED,
  IMAGE_FOREIGN,
  layoutOf,
  projectNotes,
} from './schema.js';
import { encodeTable, recordWith } from './table.js';
import { xxh64 } from './xxh64.js';

/** Content of one chunk of what was not in chunks before. */
const CHUNK_SIZE = 256 << 10;
/** Chunks that are read, encrypted and written at once. */
const AT_ONCE = 4;
const GAP_WINDOW = 1 << 20;

/** Writes an encrypted image of a plain or compressed one, or of a core file of another writer. `key`: 32 bytes. */
export async function encryptImage(image: Image, path: string, key: Buffer, work: Work): Promise<Repacked> {
  return ImageWriter.write(path, (writer) => writeEncrypted(image, writer, key, work));
}

/** The same into a file that is being written. */
export async function writeEncrypted(image: Image, writer: ImageWriter, key: Buffer, { progress, signal }: Work): Promise<Repacked> {
  const file = image.outermost;
  const { source, ours } = file;
  refuseFlags(image, IMAGE_ENCRYPTED, 'is encrypted already');
  refuseFlags(image, IMAGE_DELTA, 'is a delta of a parent, which this version does not encrypt');
  if (ours) await checkMetadata(file);
  const below = ours ? file.chunks : null;
  const metadata = ours ? await source.read(0n, file.metadataSize) : Buffer.alloc(0);
  const index = below ? new ChunkIndex(Buffer.from(below.records)) : ChunkIndex.planned(pieces(0, Number(source.size), CHUNK_SIZE));
  const order = Array.from({ length: index.length }, (_, chunk) => chunk);
  if (below) {
    checkOrder(file);
    order.sort((a, b) => below.fileOffset(a) - below.fileOffset(b) || a - b);
    await checkGaps(file, order);
  }
  const imageId = file.single('image')?.image_id ?? randomId();
  const salt = ImageCipher.newSalt();
  const cipher = new ImageCipher(key, salt, imageId);
  const plan: MetadataPlan = {
    machine: file.header.machine,
    formatMinor: ours ? file.anchor!.format_minor : FORMAT_MINOR,
    flags: (ours ? file.anchor!.flags : IMAGE_FOREIGN) | IMAGE_ENCRYPTED,
    segments: [],
    foreignNotes: [],
    notes: [],
    contentSize: ours ? file.anchor!.content_size : source.size,
    fileSize: 0n,
    leastSize: 0n,
  };
  const stored = { fileOffset: 0, size: 0, contentHash: 0n, storedHash: 0n };
  for (const chunk of order) index.setStored(chunk, { ...stored, flags: (below ? below.flags(chunk) : 0) | CHUNK_ENCRYPTED });
  const imageNote = padded(openImageNote(file, plan.flags, imageId));
  const sealed = cipher.seal(metadata, openData(imageNote, plan.contentSize, index));
  const notes = (): MetadataPlan['notes'] => [
    { type: projectNotes.image.type, descriptor: imageNote },
    {
      type: projectNotes.encryption.type,
      descriptor: encodeTable(projectNotes.encryption.fields, [
        { cipher: CIPHER_AES_256_GCM, derivation: DERIVATION_HKDF_SHA256, salt, sealed },
      ]),
    },
    { type: projectNotes.chunks.type, descriptor: chunkTable(index) },
  ];
  let end = (await composeMetadata({ ...plan, notes: notes() })).length;
  const places = new Map<number, number>();
  for (const chunk of order) {
    places.set(chunk, end);
    end += (below ? below.storedSize(chunk) : index.contentSize(chunk)) + TAG_SIZE;
  }
  const total = index.contentBytes();
  let done = 0;
  const encryptOne = async (chunk: number): Promise<void> => {
    signal?.throwIfAborted();
    const plain = below
      ? await readStored(source, below, chunk)
      : await source.read(BigInt(index.contentOffset(chunk)), index.contentSize(chunk));
    if (!Buffer.isBuffer(plain)) throw chunkError(source.name, file.chunks, chunk, file.addressOfChunk(chunk), plain.problem, plain.mend);
    const bytes = cipher.encryptChunk(index, chunk, plain);
    const fileOffset = places.get(chunk)!;
    const storedHash = await xxh64(bytes);
    index.setStored(chunk, { fileOffset, size: bytes.length, contentHash: 0n, storedHash, flags: index.flags(chunk) });
    await writer.write(BigInt(fileOffset), bytes);
    done += index.contentSize(chunk);
    progress(done, total);
  };
  let next = 0;
  const worker = async (): Promise<void> => {
    try {
      while (next < order.length) await encryptOne(order[next++]!);
    } finally {
      next = order.length; // one that fails ends the others
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: AT_ONCE }, worker));
  for (const one of ended) if (one.status === 'rejected') throw one.reason;
  await writer.truncate(BigInt(end));
  await writer.write(0n, await composeMetadata({ ...plan, notes: notes(), fileSize: BigInt(end) }));
  return { size: BigInt(end), chunks: index.length };
}

/** Writes the image that an encrypted one was; `image` was opened with its key. */
export async function decryptImage(image: Image, path: string, { progress, signal }: Work): Promise<Repacked> {
  const { outermost } = image;
  if (!outermost.encryptedItself) throw new Failure(`${outermost.source.name} is not encrypted`);
  let decrypted = image;
  while (decrypted.container !== null && decrypted.container !== outermost) decrypted = decrypted.container;
  const { source } = decrypted;
  return ImageWriter.write(path, async (writer) => {
    await writer.copyAll(source, (done, total) => {
      signal?.throwIfAborted();
      progress(done, total);
    });
    return { size: source.size, chunks: outermost.chunks.length };
  });
}

/** The note `image` as everybody may read it. */
function openImageNote(file: Image, flags: number, imageId: Buffer): Buffer {
  const { fields } = projectNotes.image;
  const record = file.single('image') ?? recordWith(fields, { machine: file.header.machine, page_size: 4096 });
  const open = { ...record, flags, image_id: imageId };
  for (const { name, type } of layoutOf(fields).places)
    if (type === 'slice' && !HARMLESS_TEXTS.image!.includes(name)) open[name as 'command'] = Buffer.alloc(0);
  return encodeTable(fields, [open]);
}

/** The content offset of a chunk is its nonce: no two may have the same. */
function checkOrder({ source, chunks }: Image): void {
  for (let chunk = 1; chunk < chunks.length; chunk++) {
    if (chunks.contentOffset(chunk) <= chunks.contentOffset(chunk - 1))
      throw new Failure(`${source.name}: chunk ${chunk} of the chunk index is not behind the one before it; see \`warp-tool validate\``);
  }
}

/** What stands in the file outside of metadata and chunks would be lost: nothing but zeros may. */
async function checkGaps({ source, chunks, metadataSize }: Image, order: readonly number[]): Promise<void> {
  let at = metadataSize;
  const check = async (end: number): Promise<void> => {
    for (; at < end; at += GAP_WINDOW) {
      const bytes = await source.read(BigInt(at), Math.min(GAP_WINDOW, end - at));
      if (bytes.some((byte) => byte !== 0))
        throw new Failure(`${source.name}: at offset ${hex(at)} is something that no chunk holds; see \`warp-tool validate\``);
    }
  };
  for (const chunk of order) {
    await check(chunks.fileOffset(chunk));
    at = Math.max(at, chunks.fileOffset(chunk) + chunks.storedSize(chunk));
  }
  await check(Number(source.size));
}
