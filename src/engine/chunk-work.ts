import { getSystemErrorName } from 'node:util';
import type { ChunkIndex } from '../elf/chunk-index.js';
import { Failure, systemErrorReason } from '../failure.js';
import { codec } from './codec.js';

/** What native code and this share while it works: u64 bytes of content done, u32 whether to end, u32, and a status for each chunk. */
const HEAD = 16;
const CANCELLED = 8;

/** A file that is open, and what to call it in messages. */
export interface OpenFile {
  name: string;
  fd: number;
}

export interface Work {
  threads: number;
  /** Ends the work: it fails then. */
  signal?: AbortSignal;
  /** Told bytes of content, of those that `index` has. */
  progress: (done: number, total: number) => void;
}

/** `enum chunk_status` in native/src/node/chunks.h. */
export const GOOD = 1;
const SKIPPED = 8;
const PROBLEMS: Record<number, string> = {
  2: 'has impossible sizes',
  3: "reaches behind the file's end",
  4: 'has another hash than its index says',
  5: 'is packed in a way that this version does not know',
  6: 'is no block of the size that its index says',
  7: 'does not decode to the content that its index tells of',
};

/** What was found of each chunk. */
export class Verdicts {
  constructor(private readonly status: Uint8Array) {}

  /** What is wrong with a chunk; null when nothing is, or when it was not reached or cannot be checked. */
  problem(chunk: number): string | null {
    return PROBLEMS[this.status[chunk]!] ?? null;
  }

  *bad(): Generator<number> {
    for (let chunk = 0; chunk < this.status.length; chunk++) if (this.status[chunk]! > GOOD && this.status[chunk] !== SKIPPED) yield chunk;
  }
}

/**
 * Compresses the content of `input` that `index` names into chunks at the end of `output`, and fills the rest of the index. `end`: where in the
 * output they begin; returns where they end. `level`: 1 (fast) to 9 (small).
 */
export async function packChunks(
  index: ChunkIndex,
  input: OpenFile,
  output: OpenFile,
  end: number,
  level: number,
  work: Work,
): Promise<number> {
  return withProgress(index, work, input, output, ({ records, state }) =>
    codec().pack(records, state, input.fd, output.fd, work.threads, end, level),
  );
}

/**
 * Checks every chunk of `input`. With an `output` it also writes their content there, `moved` bytes behind its content offset, and stops at the
 * first chunk that is bad.
 */
export async function unpackChunks(
  index: ChunkIndex,
  input: OpenFile,
  output: OpenFile | null,
  moved: number,
  work: Work,
): Promise<Verdicts> {
  return withProgress(index, work, input, output, async ({ records, state }) => {
    await codec().unpack(records, state, input.fd, output?.fd ?? -1, work.threads, moved, 0);
    return new Verdicts(state.subarray(HEAD));
  });
}

async function withProgress<T>(
  index: ChunkIndex,
  { progress, signal }: Work,
  input: OpenFile,
  output: OpenFile | null,
  run: (buffers: { records: Buffer; state: Buffer }) => Promise<T>,
): Promise<T> {
  const state = Buffer.alloc(HEAD + index.length);
  const total = index.contentBytes();
  const cancel = (): void => void state.writeUInt32LE(1, CANCELLED);
  signal?.throwIfAborted();
  signal?.addEventListener('abort', cancel);
  const timer = setInterval(() => progress(Number(state.readBigUInt64LE()), total), 50);
  try {
    return await run({ records: index.records, state });
  } catch (error) {
    signal?.throwIfAborted();
    const failure = error as { errno?: number; output?: number; chunk?: number };
    if (failure.errno === undefined) throw error;
    const code = getSystemErrorName(-failure.errno);
    const reason = code === 'ENODATA' ? 'the file became shorter while it was read' : systemErrorReason({ code });
    if (failure.output) throw new Failure(`cannot write ${output!.name}: ${reason}`, { cause: error });
    throw new Failure(`cannot read ${input.name}: chunk ${failure.chunk}: ${reason}`, { cause: error });
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', cancel);
  }
}
