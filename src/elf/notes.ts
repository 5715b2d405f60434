import { ImageError } from '../failure.js';
import type { ByteSource } from './source.js';
import { LARGEST_METADATA } from './schema.js';
import { PT_NOTE, type Segment } from './segments.js';

/** One ELF note as it stands in the file. */
export interface Note {
  owner: string;
  type: number;
  /** File offset of the descriptor, bytes. */
  offset: bigint;
  descriptor: Buffer;
}

/** Of all notes together: more than a process with as many threads and areas as Linux allows has. Only damaged files ask for more. */
const MOST_BYTES = BigInt(LARGEST_METADATA);
const MOST_NOTES = 1 << 20;

/** All notes of all PT_NOTE segments, in file order. */
export async function readNotes(source: ByteSource, segments: readonly Segment[]): Promise<Note[]> {
  const notes: Note[] = [];
  let total = 0n;
  for (const segment of segments) {
    if (segment.type !== PT_NOTE) continue;
    total += segment.fileSize;
    if (total > MOST_BYTES) throw tooMany(source, segment, `${total} bytes of notes are more than ${MOST_BYTES}`);
    for (const note of (await notesOfSegment(source, segment))!.notes) notes.push(note);
    if (notes.length > MOST_NOTES) throw tooMany(source, segment, `there are more than ${MOST_NOTES} notes`);
  }
  return notes;
}

/** Content and notes of one segment; null when it is no PT_NOTE. */
export async function notesOfSegment(source: ByteSource, segment: Segment): Promise<{ content: Buffer; notes: Note[] } | null> {
  if (segment.type !== PT_NOTE) return null;
  const content = await source.read(segment.offset, Number(segment.fileSize));
  const notes: Note[] = [];
  for (const note of parseNotes(content, segment, source.name)) {
    notes.push(note);
    if (notes.length > MOST_NOTES) throw tooMany(source, segment, `there are more than ${MOST_NOTES} notes`);
  }
  return { content, notes };
}

function tooMany(source: ByteSource, segment: Segment, problem: string): ImageError {
  return new ImageError(source.name, segment.offset, problem, 'the segment table is damaged: copy the file again');
}

function* parseNotes(content: Buffer, segment: Segment, file: string): Generator<Note> {
  // p_align 8 is the gABI's layout with 8-byte steps, all else the 4-byte steps that everybody really writes.
  const align = segment.align === 8n ? 8 : 4;
  const up = (value: number): number => Math.ceil(value / align) * align;
  for (let at = 0; at + 12 <= content.length;) {
    const nameSize = content.readUInt32LE(at);
    const size = content.readUInt32LE(at + 4);
    const type = content.readUInt32LE(at + 8);
    const start = up(at + 12 + nameSize);
    if (start + size > content.length) {
      throw new ImageError(
        file,
        segment.offset + BigInt(at),
        `a note of type 0x${type.toString(16)} with ${size} bytes reaches behind its segment`,
        'the file is damaged: copy it again or take a new checkpoint',
      );
    }
    const owner = content.toString('latin1', at + 12, at + 12 + nameSize).replace(/\0+$/, '');
    yield { owner, type, offset: segment.offset + BigInt(start), descriptor: content.subarray(start, start + size) };
    at = up(start + size);
  }
}

/** The bytes of one note, for whoever writes images. */
export function encodeNote(owner: string, type: number, descriptor: Buffer, align: 4 | 8 = 4): Buffer {
  const up = (value: number): number => Math.ceil(value / align) * align;
  const nameSize = owner.length + 1;
  const start = up(12 + nameSize);
  const buffer = Buffer.alloc(up(start + descriptor.length));
  buffer.writeUInt32LE(nameSize, 0);
  buffer.writeUInt32LE(descriptor.length, 4);
  buffer.writeUInt32LE(type, 8);
  buffer.write(owner, 12, 'latin1');
  descriptor.copy(buffer, start);
  return buffer;
}
