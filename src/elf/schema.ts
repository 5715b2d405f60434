/**
 * The records of docs/image-format.md as one table. Field types are written as in that document; offsets follow from the order, because
 * records hold no implicit padding. test/format-agreement.test.ts compares this with the document and with native/include/warp_image.h.
 */
type Scalar = 'u16' | 'u32' | 'i32' | 'u64' | 'i64' | 'slice';
export type FieldType = Scalar | `${number} bytes` | `${number}×u32` | `${number}×u64` | `${number}×${number}×u64`;

export const NOTE_OWNER = 'warp-tool';
export const ANCHOR_OFFSET = 64;
export const ANCHOR_MAGIC = 'WARPTOOL';
export const FORMAT_MAJOR = 1;
export const FORMAT_MINOR = 1;
export const TABLE_HEADER_SIZE = 16;
/** An index that refers to nothing. */
export const NONE = 0xffffffff;
export const LARGEST_CHUNK = 1 << 20;
/** Bytes before the content. */
export const LARGEST_METADATA = 256 << 20;

export const anchorFields = {
  magic: '8 bytes',
  format_major: 'u16',
  format_minor: 'u16',
  flags: 'u32',
  metadata_size: 'u64',
  metadata_hash: 'u64',
  file_size: 'u64',
  content_size: 'u64',
  notes_offset: 'u64',
  notes_size: 'u64',
  reserved: '8×u64',
} as const;

export const projectNotes = {
  image: {
    type: 0x57415201,
    fields: {
      image_id: '16 bytes',
      parent_id: '16 bytes',
      generation: 'u32',
      flags: 'u32',
      realtime_ns: 'u64',
      monotonic_ns: 'u64',
      boottime_ns: 'u64',
      page_size: 'u32',
      machine: 'u32',
      xstate_features: 'u64',
      xstate_size: 'u32',
      reserved: 'u32',
      engine_version: 'slice',
      kernel_release: 'slice',
      kernel_version: 'slice',
      hostname: 'slice',
      cpu_model: 'slice',
      cpu_features: 'slice',
      boot_id: 'slice',
      executable: 'slice',
      command: 'slice',
      parent_location: 'slice',
    },
  },
  process: {
    type: 0x57415202,
    fields: {
      pid: 'u32',
      parent_pid: 'u32',
      process_group: 'u32',
      session: 'u32',
      uid: '4×u32',
      gid: '4×u32',
      umask: 'u32',
      personality: 'u32',
      dumpable: 'u32',
      no_new_privs: 'u32',
      thp_disable: 'u32',
      child_subreaper: 'u32',
      oom_score_adj: 'i32',
      tid_offset: 'i32',
      start_code: 'u64',
      end_code: 'u64',
      start_data: 'u64',
      end_data: 'u64',
      start_brk: 'u64',
      brk: 'u64',
      start_stack: 'u64',
      arg_start: 'u64',
      arg_end: 'u64',
      env_start: 'u64',
      env_end: 'u64',
      vdso_start: 'u64',
      vdso_size: 'u64',
      vvar_start: 'u64',
      control: 'u64',
      resume_entry: 'u64',
      helper_entry: 'u64',
      helper_stack: 'u64',
      rlimit: '16×2×u64',
      itimer: '3×2×u64',
      cwd: 'slice',
      root: 'slice',
      groups: 'slice',
      membarrier: 'u32',
      reserved: 'u32',
    },
  },
  threads: {
    type: 0x57415203,
    fields: {
      tid: 'u32',
      flags: 'u32',
      fs_base: 'u64',
      gs_base: 'u64',
      robust_head: 'u64',
      robust_length: 'u64',
      rseq_address: 'u64',
      rseq_length: 'u32',
      rseq_signature: 'u32',
      altstack_address: 'u64',
      altstack_size: 'u64',
      altstack_flags: 'u32',
      death_signal: 'u32',
      signal_mask: 'u64',
      clear_child_tid: 'u64',
      context: 'u64',
      resume_stack: 'u64',
      timer_slack_ns: 'u64',
      nice: 'i32',
      scheduling_policy: 'u32',
      scheduling_priority: 'u32',
      io_priority: 'u32',
      system_call: 'i32',
      state: 'u32',
      name: 'slice',
      affinity: 'slice',
    },
  },
  vmas: {
    type: 0x57415204,
    fields: {
      start: 'u64',
      end: 'u64',
      offset: 'u64',
      kind: 'u32',
      protection: 'u32',
      flags: 'u32',
      file: 'u32',
      object: 'u32',
      reserved: 'u32',
      resident: 'u64',
      stored: 'u64',
      name: 'slice',
    },
  },
  files: {
    type: 0x57415205,
    fields: {
      device: 'u64',
      inode: 'u64',
      size: 'u64',
      mtime_ns: 'i64',
      sample_hash: 'u64',
      mode: 'u32',
      flags: 'u32',
      path: 'slice',
      build_id: 'slice',
    },
  },
  objects: {
    type: 0x57415206,
    fields: {
      kind: 'u32',
      seals: 'u32',
      size: 'u64',
      mode: 'u32',
      memfd_flags: 'u32',
      name: 'slice',
    },
  },
  extents: {
    type: 0x57415207,
    fields: {
      object: 'u32',
      reserved: 'u32',
      object_offset: 'u64',
      length: 'u64',
      content_offset: 'u64',
    },
  },
  descriptors: {
    type: 0x57415208,
    fields: {
      number: 'u32',
      flags: 'u32',
      description: 'u32',
      policy: 'u32',
    },
  },
  descriptions: {
    type: 0x57415209,
    fields: {
      kind: 'u32',
      detail: 'u32',
      status_flags: 'u32',
      mode: 'u32',
      offset: 'i64',
      device: 'u64',
      inode: 'u64',
      size: 'u64',
      owner: 'i32',
      owner_signal: 'u32',
      path: 'slice',
      mtime_ns: 'i64',
      sample_hash: 'u64',
    },
  },
  pipes: {
    type: 0x5741520a,
    fields: {
      inode: 'u64',
      capacity: 'u32',
      flags: 'u32',
      path: 'slice',
      data: 'slice',
    },
  },
  sockets: {
    type: 0x5741520b,
    fields: {
      inode: 'u64',
      family: 'u32',
      type: 'u32',
      protocol: 'u32',
      state: 'u32',
      backlog: 'u32',
      peer: 'u32',
      flags: 'u32',
      mode: 'u32',
      local: 'slice',
      remote: 'slice',
      options: 'slice',
      data: 'slice',
    },
  },
  epoll_watches: {
    type: 0x5741520c,
    fields: {
      description: 'u32',
      fd: 'u32',
      events: 'u32',
      target: 'u32',
      data: 'u64',
    },
  },
  eventfds: {
    type: 0x5741520d,
    fields: {
      count: 'u64',
      semaphore: 'u32',
      reserved: 'u32',
    },
  },
  timerfds: {
    type: 0x5741520e,
    fields: {
      clock: 'u32',
      settime_flags: 'u32',
      ticks: 'u64',
      value_ns: 'u64',
      interval_ns: 'u64',
    },
  },
  signalfds: {
    type: 0x5741520f,
    fields: {
      mask: 'u64',
    },
  },
  inotify_watches: {
    type: 0x57415210,
    fields: {
      description: 'u32',
      watch: 'u32',
      mask: 'u32',
      reserved: 'u32',
      device: 'u64',
      inode: 'u64',
      path: 'slice',
    },
  },
  locks: {
    type: 0x57415211,
    fields: {
      fd: 'u32',
      kind: 'u32',
      exclusive: 'u32',
      reserved: 'u32',
      start: 'u64',
      end: 'u64',
    },
  },
  signal_actions: {
    type: 0x57415212,
    fields: {
      number: 'u32',
      reserved: 'u32',
      handler: 'u64',
      flags: 'u64',
      restorer: 'u64',
      mask: 'u64',
    },
  },
  pending_signals: {
    type: 0x57415213,
    fields: {
      tid: 'u32',
      reserved: 'u32',
      siginfo: '128 bytes',
    },
  },
  timers: {
    type: 0x57415214,
    fields: {
      id: 'i32',
      clock: 'u32',
      notify: 'u32',
      number: 'u32',
      tid: 'u32',
      overrun: 'u32',
      value: 'u64',
      value_ns: 'u64',
      interval_ns: 'u64',
    },
  },
  tid_references: {
    type: 0x57415215,
    fields: {
      address: 'u64',
      tid: 'u32',
      kind: 'u32',
    },
  },
  guards: {
    type: 0x57415216,
    fields: {
      start: 'u64',
      end: 'u64',
    },
  },
  chunks: {
    type: 0x57415217,
    fields: {
      content_offset: 'u64',
      file_offset: 'u64',
      content_size: 'u32',
      stored_size: 'u32',
      content_hash: 'u64',
      stored_hash: 'u64',
      flags: 'u32',
      reserved: 'u32',
    },
  },
  tags: {
    type: 0x57415218,
    fields: {
      kind: 'u32',
      reserved: 'u32',
      name: 'slice',
      value: 'slice',
    },
  },
  encryption: {
    type: 0x57415219,
    fields: {
      cipher: 'u32',
      derivation: 'u32',
      salt: '32 bytes',
      sealed: 'slice',
    },
  },
  accesses: {
    type: 0x5741521a,
    fields: {
      chunk: 'u32',
      runs: 'u32',
      median_ns: 'u64',
    },
  },
  policies: {
    type: 0x5741521b,
    fields: {
      type: 'u32',
      action: 'u32',
      flags: 'u32',
      line: 'u32',
      file: 'slice',
      text: 'slice',
    },
  },
} as const satisfies Record<string, { type: number; fields: Record<string, FieldType> }>;

export type NoteName = keyof typeof projectNotes;
export type Fields = Readonly<Record<string, FieldType>>;

/** What a field is in TypeScript: 64-bit numbers are bigint, slices and byte arrays are Buffers. */
export type FieldValue<T extends FieldType> = T extends 'u64' | 'i64'
  ? bigint
  : T extends 'u16' | 'u32' | 'i32'
    ? number
    : T extends `${number}×u32`
      ? number[]
      : T extends `${number}×${number}×u64`
        ? bigint[][]
        : T extends `${number}×u64`
          ? bigint[]
          : Buffer;

export type RecordOf<F extends Fields> = { -readonly [K in keyof F]: FieldValue<F[K]> };
export type NoteRecord<N extends NoteName> = RecordOf<(typeof projectNotes)[N]['fields']>;

/** Slices that say nothing of the process's data. All others are blanked by `redact`, and sealed in encrypted images. */
export const HARMLESS_TEXTS: Partial<Record<NoteName, readonly string[]>> = {
  image: ['engine_version', 'kernel_release', 'kernel_version', 'cpu_model', 'cpu_features'],
  process: ['groups'],
  threads: ['affinity'],
  files: ['build_id'],
};

const SCALAR_SIZES: Record<string, number> = { bytes: 1, u16: 2, u32: 4, i32: 4, u64: 8, i64: 8, slice: 8 };

export interface Shape {
  /** `bytes` for raw bytes. */
  scalar: string;
  dimensions: number[];
  /** Of the whole, bytes. */
  size: number;
}

const shapes = new Map<FieldType, Shape>();

export function shapeOf(type: FieldType): Shape {
  let shape = shapes.get(type);
  if (!shape) {
    const parts = type.split(/[× ]/);
    const scalar = parts.pop()!;
    const dimensions = parts.map(Number);
    shape = { scalar, dimensions, size: dimensions.reduce((product, dimension) => product * dimension, SCALAR_SIZES[scalar]!) };
    shapes.set(type, shape);
  }
  return shape;
}

export interface FieldPlace {
  name: string;
  type: FieldType;
  offset: number;
  size: number;
}

/** Where each field of a record is, in bytes from the record's start. */
export function layoutOf(fields: Fields): { places: FieldPlace[]; size: number } {
  let size = 0;
  const places = Object.entries(fields).map(([name, type]) => {
    const place = { name, type, offset: size, size: shapeOf(type).size };
    size += place.size;
    return place;
  });
  return { places, size };
}

/** Values of `kind` fields, and bits of `flags` fields, in words. */
export const names = {
  imageFlags: { 1: 'self-contained', 2: 'left-running', 4: 'compressed', 8: 'encrypted', 16: 'delta', 32: 'foreign', 64: 'fixed-calls' },
  vmaKind: { 1: 'anonymous', 2: 'file', 3: 'object', 4: 'heap', 5: 'stack', 6: 'vdso', 7: 'vvar', 8: 'engine' },
  vmaFlags: {
    0x1: 'shared',
    0x2: 'grows-down',
    0x4: 'no-reserve',
    0x8: 'locked',
    0x10: 'lock-on-fault',
    0x20: 'hugetlb',
    0x40: 'dont-dump',
    0x80: 'dont-fork',
    0x100: 'wipe-on-fork',
    0x200: 'mergeable',
    0x400: 'huge-page',
    0x800: 'no-huge-page',
    0x1000: 'random',
    0x2000: 'sequential',
    0x4000: 'sealed',
    0x8000: 'may-write',
  },
  objectKind: { 1: 'memfd', 2: 'shared-anonymous', 3: 'deleted-file' },
  descriptionKind: {
    1: 'file',
    2: 'directory',
    3: 'device',
    4: 'tty',
    5: 'pipe',
    6: 'fifo',
    7: 'socket',
    8: 'eventfd',
    9: 'epoll',
    10: 'timerfd',
    11: 'signalfd',
    12: 'inotify',
    13: 'object',
    14: 'caller',
    15: 'not-kept',
  },
  socketState: { 1: 'unconnected', 2: 'listening', 3: 'pair', 4: 'connected', 5: 'bound' },
  policyType: { 1: 'file', 2: 'pipe', 3: 'socket', 4: 'filedescriptor' },
  policyAction: { 1: 'error', 2: 'ignore', 3: 'close', 4: 'reopen' },
  lockKind: { 1: 'posix', 2: 'flock', 3: 'ofd' },
  tidReferenceKind: { 1: 'thread', 2: 'mutex', 3: 'futex', 4: 'cached' },
  codec: { 0: 'plain', 1: 'lz4', 2: 'zstd' },
  cipher: { 1: 'AES-256-GCM' },
  tagKind: { 1: 'label', 2: 'bitmap', 3: 'score', 4: 'user-data', 5: 'restore-data' },
} as const satisfies Record<string, Record<number, string>>;

/** The name of `value`, or the number itself for a value that a later format brought. */
export function nameOf(table: Record<number, string>, value: number): string {
  return table[value] ?? `unknown-${value}`;
}

/** Names of the bits set in `value`; unknown bits as one hexadecimal number at the end. */
export function bitNames(table: Record<number, string>, value: number): string[] {
  const found: string[] = [];
  if (value === 0) return found; // most areas of an image with many
  let rest = value;
  for (const [bit, name] of Object.entries(table)) {
    if ((value & Number(bit)) === 0) continue;
    found.push(name);
    rest &= ~Number(bit);
  }
  if (rest !== 0) found.push(`0x${(rest >>> 0).toString(16)}`);
  return found;
}

/** Bits of `flags` in the anchor and in the note `image`. */
export const IMAGE_COMPRESSED = 4;
export const IMAGE_ENCRYPTED = 8;
export const IMAGE_DELTA = 16;
export const IMAGE_FOREIGN = 32;
export const IMAGE_KNOWN = 127;

export const CODEC_PLAIN = 0;
export const CODEC_LZ4 = 1;
export const CHUNK_CODEC_MASK = 0xff;
export const CHUNK_ENCRYPTED = 0x100;
export const CHUNK_IN_PARENT = 0x200;
export const CHUNK_KNOWN = CHUNK_CODEC_MASK | CHUNK_ENCRYPTED | CHUNK_IN_PARENT;
