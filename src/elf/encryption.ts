import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { Failure, ImageError } from '../failure.js';
import type { ChunkIndex } from './chunk-index.js';
import { chunkError, DAMAGED, PieceSource, readStored } from './content.js';
import { nameOf, names, type NoteRecord } from './schema.js';
import type { ByteSource } from './source.js';

/** Bytes of a key. */
export const KEY_SIZE = 32;
export const SALT_SIZE = 32;
/** Bytes that encryption adds. */
export const TAG_SIZE = 16;
export const CIPHER_AES_256_GCM = 1;
export const DERIVATION_HKDF_SHA256 = 1;

const KEY_INFO = 'warp-tool image encryption';
const ALGORITHM = 'aes-256-gcm';
/** The first 32 bits of a nonce. */
const FOR_CHUNK = 0;
const FOR_METADATA = 1;

/**
 * The key in the content of a file or a variable: 64 hexadecimal digits or base64 of 32 bytes, with white space around them; in a file also 32 bytes as
 * they are. `where`: what to call it in messages, which never show what it holds.
 */
export function parseKey(content: Buffer, where: string, raw: boolean): Buffer {
  if (raw && content.length === KEY_SIZE) return content;
  const text = content.toString('latin1').trim();
  if (/^[0-9a-f]{64}$/i.test(text)) return Buffer.from(text, 'hex');
  if (/^[A-Za-z0-9+/_-]{43}=?$/.test(text)) return Buffer.from(text, 'base64');
  const wanted = `${raw ? '32 bytes, ' : ''}64 hexadecimal digits or base64 of 32 bytes`;
  throw new Failure(`${where} holds no key: it has ${content.length} bytes, and needed are ${wanted} (\`openssl rand -hex 32\` makes one)`);
}

/** Encrypts and decrypts the parts of one image (docs/image-format.md, "Encryption"). */
export class ImageCipher {
  private readonly key: Buffer;

  constructor(
    userKey: Buffer,
    salt: Buffer,
    private readonly imageId: Buffer,
  ) {
    this.key = Buffer.from(hkdfSync('sha256', userKey, salt, KEY_INFO, KEY_SIZE));
  }

  static newSalt(): Buffer {
    return randomBytes(SALT_SIZE);
  }

  /** Ciphertext and tag of a chunk's stored bytes; `index` has its content offset, content size and flags. */
  encryptChunk(index: ChunkIndex, chunk: number, stored: Buffer): Buffer {
    return this.encrypt(nonce(FOR_CHUNK, index.contentOffset(chunk)), this.chunkData(index, chunk), stored);
  }

  /** Null when the tag does not fit: another key, or changed since. */
  decryptChunk(index: ChunkIndex, chunk: number, bytes: Buffer): Buffer | null {
    return this.decrypt(nonce(FOR_CHUNK, index.contentOffset(chunk)), this.chunkData(index, chunk), bytes);
  }

  /** `open`: what openData gives. */
  seal(metadata: Buffer, open: Buffer): Buffer {
    return this.encrypt(nonce(FOR_METADATA, 0), open, metadata);
  }

  /** Null when the tag does not fit: another key, or `sealed` or `open` changed since. */
  unseal(sealed: Buffer, open: Buffer): Buffer | null {
    return this.decrypt(nonce(FOR_METADATA, 0), open, sealed);
  }

  private chunkData(index: ChunkIndex, chunk: number): Buffer {
    const facts = Buffer.alloc(8);
    facts.writeUInt32LE(index.contentSize(chunk), 0);
    facts.writeUInt32LE(index.flags(chunk), 4);
    return Buffer.concat([this.imageId, facts]);
  }

  private encrypt(iv: Buffer, additional: Buffer, bytes: Buffer): Buffer {
    const cipher = createCipheriv(ALGORITHM, this.key, iv, { authTagLength: TAG_SIZE }).setAAD(additional);
    return Buffer.concat([cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
  }

  private decrypt(iv: Buffer, additional: Buffer, bytes: Buffer): Buffer | null {
    if (bytes.length < TAG_SIZE) return null;
    const decipher = createDecipheriv(ALGORITHM, this.key, iv, { authTagLength: TAG_SIZE }).setAAD(additional);
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG_SIZE));
    const plain = decipher.update(bytes.subarray(0, bytes.length - TAG_SIZE));
    try {
      decipher.final();
      return plain;
    } catch {
      return null;
    }
  }
}

/**
 * What an encrypted image shows and the tag of its sealed metadata proves. `imageNote`: the payload of the note `image`; `index` has the content
 * offset, content size and flags of all chunks.
 */
export function openData(imageNote: Buffer, contentSize: bigint, index: ChunkIndex): Buffer {
  const facts = Buffer.alloc(8 + 16 * index.length);
  facts.writeBigUInt64LE(contentSize, 0);
  for (let chunk = 0, at = 8; chunk < index.length; chunk++, at += 16) {
    facts.writeBigUInt64LE(BigInt(index.contentOffset(chunk)), at);
    facts.writeUInt32LE(index.contentSize(chunk), at + 8);
    facts.writeUInt32LE(index.flags(chunk), at + 12);
  }
  return Buffer.concat([imageNote, facts]);
}

function nonce(purpose: number, contentOffset: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32LE(purpose, 0);
  bytes.writeBigUInt64LE(BigInt(contentOffset), 4);
  return bytes;
}

/** The cipher of an image by its notes. */
export function cipherOf(record: NoteRecord<'encryption'>, imageId: Buffer, userKey: Buffer, file: string): ImageCipher {
  if (record.cipher !== CIPHER_AES_256_GCM || record.derivation !== DERIVATION_HKDF_SHA256) {
    const problem = `it is encrypted with ${nameOf(names.cipher, record.cipher)}, key derivation ${record.derivation}, which this version does not know`;
    throw new ImageError(file, undefined, problem, 'use the version of warp-tool that wrote the image, or a newer one');
  }
  return new ImageCipher(userKey, record.salt, imageId);
}

/** Where the stored bytes of the chunks of an encrypted image were before it was encrypted. */
export interface DecryptedLayout {
  /** All metadata; empty when chunks hold all of the file. */
  metadata: Buffer;
  /** The index in that metadata; null when chunks hold all of the file. */
  chunks: ChunkIndex | null;
  /** Bytes of the file. */
  size: bigint;
}

/** The file that an encrypted image was before. */
export class DecryptedSource extends PieceSource {
  readonly name: string;
  readonly size: bigint;
  /** Pieces by their place, and the chunk that each is; -1: the metadata. */
  private readonly starts: Float64Array;
  private readonly pieceChunks: Int32Array;

  constructor(
    private readonly source: ByteSource,
    private readonly index: ChunkIndex,
    private readonly cipher: ImageCipher,
    private readonly layout: DecryptedLayout,
    /** The first address of a chunk's memory, for messages. */
    private readonly addressOf: (chunk: number) => bigint | null,
  ) {
    super();
    this.name = source.name;
    this.size = layout.size;
    const order: number[] = layout.metadata.length > 0 ? [-1] : [];
    for (let chunk = 0; chunk < index.length; chunk++) if (!index.isInParent(chunk)) order.push(chunk);
    const sorted = Int32Array.from(order).sort((a, b) => this.placeOf(a) - this.placeOf(b) || a - b);
    // Equal chunks were stored once.
    this.pieceChunks = sorted.filter((chunk, at) => at === 0 || this.placeOf(chunk) !== this.placeOf(sorted[at - 1]!));
    this.starts = Float64Array.from(this.pieceChunks, (chunk) => this.placeOf(chunk));
  }

  async close(): Promise<void> {
    await this.source.close();
  }

  private placeOf(chunk: number): number {
    if (chunk < 0) return 0;
    return this.layout.chunks ? this.layout.chunks.fileOffset(chunk) : this.index.contentOffset(chunk);
  }

  protected find(offset: number): number {
    let low = 0;
    let high = this.starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.starts[middle]! <= offset) low = middle + 1;
      else high = middle;
    }
    const piece = low - 1;
    return piece >= 0 && offset < this.starts[piece]! + this.lengthOf(piece) ? piece : ~low;
  }

  protected startOf(piece: number): number {
    return this.starts[piece]!;
  }

  protected lengthOf(piece: number): number {
    const chunk = this.pieceChunks[piece]!;
    return chunk < 0 ? this.layout.metadata.length : Math.max(0, this.index.storedSize(chunk) - TAG_SIZE);
  }

  protected fillGap(_offset: number, _end: number, buffer: Buffer): void {
    buffer.fill(0);
  }

  protected async fetch(piece: number): Promise<Buffer> {
    const chunk = this.pieceChunks[piece]!;
    if (chunk < 0) return this.layout.metadata;
    const fail = (problem: string, mend?: string): never => {
      throw chunkError(this.name, this.index, chunk, this.addressOf(chunk), problem, mend);
    };
    const stored = await readStored(this.source, this.index, chunk);
    if (!Buffer.isBuffer(stored)) return fail(stored.problem, stored.mend);
    const plain = this.cipher.decryptChunk(this.index, chunk, stored);
    return plain ?? fail('has a wrong authentication tag: it was changed on purpose, together with its hash', DAMAGED);
  }
}
