/**
 * The library: one model of an image, whoever wrote it (warp-tool, the kernel, gcore) and however it is stored (plain, compressed, on an object
 * store). docs/library.md shows how its parts go together. Addresses, offsets and everything else that can pass 2^53 are bigint; sizes are bytes;
 * numbers in images are little-endian. What fails in a way that a caller can understand is a Failure: one line with the file, the place, the reason
 * and the mend; for damaged images its subclass ImageError.
 */
import { registerStores } from './store/register.js';

registerStores();

export { Failure, ImageError } from './failure.js';

// Opening an image, and where its bytes come from.
export { Image, withImage, type Anchor, type OpenOptions, type Thread } from './elf/image.js';
export { parseKey } from './elf/encryption.js';
export { BufferSource, FileSource, openSource, registerScheme, resolveImage, type ByteSource } from './elf/source.js';

// Header, segments and notes.
export { PT_LOAD, PT_NOTE, PT_WARP_ANCHOR, PT_WARP_CHUNKED, type ElfHeader, type Segment } from './elf/segments.js';
export type { Note } from './elf/notes.js';
export {
  decodeKernelNote,
  kernelNoteKey,
  kernelNoteName,
  kernelNotes,
  type KernelNoteKey,
  type KernelNoteValue,
} from './elf/kernel-notes/index.js';
export type { AuxvEntry } from './elf/kernel-notes/auxv.js';
export type { MappedFile } from './elf/kernel-notes/file.js';
export type { Fpregset } from './elf/kernel-notes/fpregset.js';
export type { Prpsinfo } from './elf/kernel-notes/prpsinfo.js';
export type { Prstatus, X86Register } from './elf/kernel-notes/prstatus.js';
export type { Siginfo } from './elf/kernel-notes/siginfo.js';
export { xstateFeatureNames, type Xstate } from './elf/kernel-notes/xstate.js';
export {
  bitNames,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  nameOf,
  names,
  NOTE_OWNER,
  projectNotes,
  type NoteName,
  type NoteRecord,
} from './elf/schema.js';
export type { Table } from './elf/table.js';

// What a process was: areas, descriptors, strings.
export { findVma, protectionText, type Vma } from './elf/vmas.js';
export { categories, categoryOf, type Category } from './elf/categories.js';
export { descriptorsOf, type Descriptor, type DescriptorDetail } from './elf/descriptors.js';
export { argumentsOf, environmentOf } from './elf/environment.js';
export { signalName, signalNames } from './elf/signals.js';
export { systemCallName } from './elf/system-calls.js';
export { timestamp, uuid } from './elf/identity.js';

// Memory: reading, symbols, searching.
export { AddressSpace, areaName, readRun, type PointerTarget, type Range, type Run } from './elf/address-space.js';
export { Modules, type FileState, type Location } from './elf/modules.js';
export { parseAddress, parseRange, selector, type Selection } from './elf/selection.js';
export {
  bytesScanner,
  pointerScanner,
  regexScanner,
  scanMemory,
  stringsScanner,
  textScanner,
  type Encoding,
  type Match,
  type Scanner,
  type ScanProgress,
} from './elf/scan.js';

// Stacks, as gdb or eu-stack unwind them, and what a Java virtual machine's own tables tell.
export { stacksOf, type StackFrame, type Stacks } from './elf/stacks.js';
export { withLocalCopy } from './elf/local-copy.js';
export { openJvm } from './elf/java.js';
export type { Jvm } from './elf/jvm/jvm.js';

// All metadata as JSON, and an image of it again.
export { decodeMetadata, describedImage, type MetadataJson, type NoteJson, type RecordJson } from './elf/metadata.js';
export { encodeImage } from './elf/encode.js';

// Judging images: comparison, faults, composition.
export { diffMemory, differingRows, type AreaDifference, type MemoryDifference, type RowDifference } from './elf/memory-diff.js';
export { compareItems, type Change, type FieldChange, type Items } from './elf/changes.js';
export { validateImage, type Checked, type Finding } from './elf/validate.js';
export { compositionOf, type AreaComposition, type CategoryComposition, type Composition } from './elf/composition.js';
export { adviceOf, type Advice } from './elf/advice.js';

// Writing images anew.
export { compressImage, decompressImage, type CompressOptions, type Repacked } from './elf/pack.js';
export { keepable, redactImage, type Keepable, type Removed } from './elf/redact.js';
