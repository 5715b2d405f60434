import type { Note } from '../notes.js';
import { ImageError } from '../../failure.js';
import { auxv } from './auxv.js';
import { file } from './file.js';
import { fpregset } from './fpregset.js';
import { prpsinfo } from './prpsinfo.js';
import { prstatus } from './prstatus.js';
import { siginfo } from './siginfo.js';
import type { KernelNote } from './types.js';
import { xsaveLayout } from './xsave-layout.js';
import { xstate } from './xstate.js';

/** Every kernel note that can be decoded. */
export const kernelNotes = { prstatus, prpsinfo, siginfo, auxv, file, fpregset, xstate, xsaveLayout } as const;

export type KernelNoteKey = keyof typeof kernelNotes;
export type KernelNoteValue<K extends KernelNoteKey> = (typeof kernelNotes)[K] extends KernelNote<infer T> ? T : never;

/** Notes that are known by name only, by owner and type (elf.h). */
const OTHER_NAMES: Record<string, string> = {
  'CORE:4': 'NT_TASKSTRUCT',
  'LINUX:513': 'NT_386_IOPERM',
  'LINUX:512': 'NT_386_TLS',
  'LINUX:516': 'NT_X86_SHSTK',
  'LINUX:1189489535': 'NT_PRXFPREG',
  'GDB:4278190080': 'NT_GDB_TDESC',
  'GNU:3': 'NT_GNU_BUILD_ID',
  'GNU:5': 'NT_GNU_PROPERTY_TYPE_0',
};

export function kernelNoteKey(note: Note): KernelNoteKey | undefined {
  for (const [key, decoder] of Object.entries(kernelNotes)) {
    if (decoder.type === note.type && decoder.owner === note.owner) return key as KernelNoteKey;
  }
  return undefined;
}

/** Standard name of a note that is not the project's, or undefined. */
export function kernelNoteName(note: Note): string | undefined {
  const key = kernelNoteKey(note);
  return key ? kernelNotes[key].name : OTHER_NAMES[`${note.owner}:${note.type}`];
}

export function decodeKernelNote<K extends KernelNoteKey>(key: K, note: Note, fileName: string): KernelNoteValue<K> {
  const decoder = kernelNotes[key];
  if (note.descriptor.length < decoder.minimumSize) {
    throw new ImageError(
      fileName,
      note.offset,
      `${decoder.name} has ${note.descriptor.length} bytes, at least ${decoder.minimumSize} are needed`,
      'the notes are damaged, or of a machine other than x86-64',
    );
  }
  return decoder.decode(note.descriptor) as KernelNoteValue<K>;
}
