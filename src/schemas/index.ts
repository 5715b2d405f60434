import { categories } from '../elf/categories.js';
import { metadata } from './metadata.js';
import {
  anyOf,
  array,
  boolean,
  byteCount,
  hexadecimal,
  integer,
  map,
  nullable,
  number,
  object,
  oneOf,
  partial,
  string,
  type Schema,
} from './builder.js';

const warnings = array(string(), 'what is odd about the image, one line each');
const image = string('path of the core file');

const amounts = {
  mapped: byteCount('address space'),
  resident: nullable(byteCount('present in memory or swap at the capture')),
  stored: byteCount('content in this image'),
  zero: byteCount('known to be zeros without being stored'),
  from_file: byteCount('taken from the mapped file'),
  absent: byteCount('not in the image'),
  packed: byteCount('bytes that the stored content takes in the file'),
};

const java = object({
  version: nullable(string('of the virtual machine')),
  description: nullable(string('in its own words')),
  collector: nullable(oneOf('Serial', 'Parallel', 'G1', 'Z', 'Shenandoah', 'Epsilon')),
  command: nullable(string('class or jar, and arguments')),
  arguments: nullable(array(string('what the virtual machine took of the command line'))),
  flags: array(
    object({ name: string(), value: string(), origin: string('who set it: command line, ergonomic …') }),
    'not at their default',
  ),
  heap: nullable(
    object({
      maximum: byteCount(),
      committed: byteCount(),
      used: byteCount('with garbage that no collection has found yet'),
      stored: byteCount('in the image'),
      stored_free: byteCount('of that, in free parts'),
      spaces: array(
        object({ name: string('eden, old …'), regions: nullable(integer()), capacity: byteCount(), used: byteCount() }),
        'as far as the collector tells',
      ),
    }),
  ),
  code_cache: nullable(
    object({
      reserved: byteCount(),
      committed: byteCount(),
      used: byteCount(),
      methods: integer('compiled'),
      stored: byteCount(),
      parts: array(object({ name: string(), reserved: byteCount(), committed: byteCount(), used: byteCount(), methods: integer() })),
    }),
  ),
  metaspace: nullable(
    object({ committed: byteCount(), stored: byteCount(), used_at_last_collection: nullable(byteCount('from the performance counters')) }),
  ),
  classes: nullable(object({ loaded: integer('with array classes'), shared: integer('in the class data archive'), loaders: integer() })),
  archives: array(
    object({ path: string(), mapped: byteCount(), stored: byteCount('changed pages, which are in the image') }),
    'of class data',
  ),
  direct_buffers: nullable(
    object({ count: integer(), capacity: byteCount(), reserved: byteCount(), maximum: byteCount(), stored: byteCount() }),
  ),
  threads: object({ java: integer(), daemon: integer(), stacks_stored: byteCount() }),
  counters: nullable(
    object({
      collections: integer(),
      collection_time_ns: string('decimal'),
      compilations: integer(),
      compilation_time_ns: string('decimal'),
    }),
    'until the capture',
  ),
  composition: array(object({ part: string(), stored: byteCount() }), 'what the content of the image is, largest first'),
  advice: array(
    object({ part: string(), bytes: byteCount('of the image that are at stake'), problem: string(), mend: string() }),
    'what makes the image large, largest first',
  ),
  problems: array(string('what could not be read, and why')),
});

const content = {
  stored_zero: byteCount('of the stored content, pages that hold nothing but zeros'),
  stored_duplicate: byteCount('of the stored content, pages that are copies of others'),
  unread: byteCount('of the stored content, what could not be read'),
};

const compositionTotals = {
  duplicates_from: integer('1: all pages were compared; n: an estimate from one page in n'),
  total: object({ areas: integer(), ...amounts, ...content }),
  categories: array(
    object({
      category: oneOf(...categories),
      areas: integer(),
      ...amounts,
      ...content,
      read: byteCount('stored content and holes of the file between its pieces'),
      sampled: byteCount('what of it LZ4 was tried on'),
      lz4: byteCount('what LZ4 would make of all of it, an estimate where not all was tried'),
    }),
  ),
};

export const composition = object({
  ...compositionTotals,
  cell: integer('bytes of address space that a cell of an area stands for'),
  areas: array(
    object({
      start: hexadecimal(),
      end: hexadecimal(),
      protection: string('as in maps'),
      kind: string('as in maps'),
      category: oneOf(...categories),
      label: string(),
      flags: array(string()),
      offset: hexadecimal('in the mapped file or object'),
      ...amounts,
      ...content,
      cells: string(
        'runs of cells from the start: s stored, d stored and a copy of another page, n stored and nothing but zeros, z zeros not stored, f in the mapped file, a absent; then how many',
      ),
    }),
  ),
});

export const advice = array(
  object({
    topic: string(),
    bytes: byteCount('what this is about'),
    saves: boolean('whether these bytes could be saved'),
    observation: string(),
    mend: string(),
  }),
  'why the image is as large as it is',
);

const optimisationFields = {
  runs: integer('training restores'),
  hot_chunks: integer('chunks that any of them needed'),
  hot_content: byteCount('in these chunks'),
  hot_stored: byteCount('that these chunks take in the file'),
  last_needed_ms: number('when the last of them was first waited for, since the restore began: the median of the runs'),
};

/** What `optimize` has made of an image. */
export const optimisation = object(optimisationFields);

export const optimize = object({
  image,
  ended_by: array(oneOf('condition', 'program ended', 'timeout'), 'why each run was over'),
  ...optimisationFields,
});

const policy = {
  type: string('file, pipe, socket, filedescriptor'),
  action: string('error, ignore, close, reopen'),
  warn: boolean(),
  rule: string('its lines'),
  file: string('where it came from'),
  line: integer(),
};

export const show = object({
  image,
  size: byteCount(),
  warnings,
  format: nullable(string('version of the image format; null for a core file of another writer')),
  id: nullable(string('UUID')),
  parent_id: nullable(string('UUID of the image that this one is a delta of')),
  parent_location: nullable(string()),
  generation: nullable(integer('0 for a process that was started, n+1 when it was restored from generation n')),
  flags: array(string('self-contained, left-running, compressed, encrypted, delta')),
  captured_at: nullable(string('RFC 3339, UTC, nanoseconds')),
  engine: nullable(string('name and version')),
  process: object({
    pid: nullable(integer()),
    parent_pid: nullable(integer()),
    process_group: nullable(integer()),
    session: nullable(integer()),
    name: nullable(string()),
    command: nullable(array(string())),
    executable: nullable(string()),
    cwd: nullable(string()),
    root: nullable(string()),
    uid: nullable(integer()),
    gid: nullable(integer()),
  }),
  labels: array(
    object({ kind: string('label, score, bitmap …'), name: string(), value: string() }),
    'what the program or its starter attached',
  ),
  signal: nullable(
    object({ number: integer(), name: string(), code: integer(), address: nullable(hexadecimal()), thread: integer('tid that it hit') }),
  ),
  host: nullable(
    object({ hostname: string(), kernel_release: string(), kernel_version: string(), cpu_model: string(), boot_id: string() }),
  ),
  threads: nullable(
    object({
      count: integer(),
      names: array(object({ name: nullable(string()), count: integer() })),
      system_calls: array(object({ name: nullable(string('null: in user code')), count: integer() })),
    }),
  ),
  memory: nullable(object({ ...amounts, areas: integer(), by_kind: array(object({ kind: string(), areas: integer(), ...amounts })) })),
  content: nullable(
    object({
      size: byteCount('length of the content space'),
      chunks: integer(),
      packed: byteCount('bytes that the chunks take in the file'),
      codecs: array(string('plain, lz4, zstd')),
      encrypted: boolean(),
      in_parent: integer('chunks whose content is in the parent'),
      optimisation: nullable(optimisation, 'what `optimize` has made of it'),
    }),
  ),
  descriptors: nullable(object({ count: integer(), by_kind: array(object({ kind: string(), count: integer() })) })),
  policies: array(object({ ...policy, descriptors: array(integer()) }), 'rules of the checkpoint, and the descriptors under each'),
  files: array(
    object({ path: string(), size: nullable(byteCount()), build_id: nullable(string()), deleted: nullable(boolean()) }),
    'files that memory areas map',
  ),
  needs: nullable(
    object({
      machine: string(),
      page_size: integer('bytes'),
      xstate_features: array(string('register sets that the threads use')),
      xstate_size: integer('bytes'),
      cpu_features: array(string('what the CPU of the capture had')),
      files: integer('files that must be there unchanged'),
    }),
  ),
  java: nullable(java, 'of a Java virtual machine'),
  composition: nullable(object({ ...compositionTotals, advice }), 'with --composition, which reads all stored memory'),
});

const frame = object({
  pc: hexadecimal(),
  module: nullable(string('path of the mapped file')),
  module_offset: nullable(hexadecimal('of the address in the file')),
  symbol: nullable(string()),
  symbol_offset: nullable(integer('bytes')),
});

const javaThread = object({
  name: nullable(string('of the java.lang.Thread, in full')),
  id: nullable(string("Java's own number of the thread, decimal")),
  daemon: nullable(boolean()),
  priority: nullable(integer()),
  state: nullable(string('as in a thread dump: RUNNABLE, WAITING (parking) …')),
  vm_state: string('in Java, in native, in VM, blocked …'),
  virtual_thread: nullable(string('that it carries')),
  waits_for: nullable(
    object({
      how: oneOf('parking', 'waiting', 'locking'),
      address: hexadecimal(),
      class: string(),
      held_by: nullable(string('name of the Java thread that holds it')),
    }),
  ),
  frames_end: nullable(string('with --stack: where and why the Java frames end')),
});

const javaFrame = object({
  kind: oneOf('interpreted', 'compiled', 'inlined', 'native', 'stub', 'entry', 'frozen'),
  class: nullable(string('null for stubs and entries')),
  method: nullable(string()),
  signature: nullable(string('as in the class file')),
  bytecode_index: nullable(integer()),
  compiler: nullable(oneOf('C1', 'C2')),
});

export const threads = object({
  image,
  warnings,
  stacks: nullable(
    object({
      tool: nullable(string('gdb or eu-stack: what unwound the stacks')),
      problem: nullable(string('what is missing or went wrong')),
    }),
  ),
  java: nullable(object({ problems: array(string('what could not be read of the Java virtual machine, and why')) })),
  threads: array(
    object({
      tid: integer(),
      name: nullable(string()),
      java: nullable(javaThread),
      leader: boolean(),
      state: nullable(string('letter as in /proc/PID/stat')),
      system_call: nullable(string('the call that the thread was in')),
      location: frame,
      stack_pointer: hexadecimal(),
      signal: nullable(string('the signal that hit this thread')),
      signal_mask: array(string('blocked signals')),
      pending_signals: array(string()),
      fs_base: hexadecimal(),
      gs_base: hexadecimal(),
      nice: nullable(integer()),
      scheduling_policy: nullable(string()),
      registers: nullable(
        object({
          general: map(hexadecimal()),
          mxcsr: nullable(hexadecimal()),
          control_word: nullable(hexadecimal()),
          status_word: nullable(hexadecimal()),
          tag_word: nullable(hexadecimal()),
          xcr0: nullable(array(string())),
          in_use: nullable(array(string('components that are not in their initial state'))),
          vectors: map(string('hexadecimal, most significant byte first')),
          st: map(string('80 bits, hexadecimal, most significant byte first')),
          opmask: map(hexadecimal()),
          pkru: nullable(hexadecimal()),
        }),
      ),
      frames: nullable(
        array(
          object({
            pc: nullable(hexadecimal('null: a function that the compiler put into its caller')),
            function: nullable(string()),
            module: nullable(string('path of the mapped file')),
            module_offset: nullable(hexadecimal('of the address in the file')),
            file: nullable(string('source file')),
            line: nullable(integer()),
            generated: boolean('code that a virtual machine made: Java, JavaScript …'),
            java: nullable(javaFrame),
          }),
          'with --stack, innermost first, at most 256',
        ),
      ),
    }),
  ),
});

const memoryFrom = oneOf('image', 'zero', 'file', 'absent');

export const maps = object({
  image,
  warnings,
  total: object({ areas: integer(), ...amounts }),
  maps: array(
    object({
      start: hexadecimal(),
      end: hexadecimal(),
      protection: string('as in /proc/PID/maps; the fourth letter is missing where sharing is not known'),
      kind: string(),
      flags: array(string()),
      offset: hexadecimal('in the mapped file or object'),
      name: string('path of the file, [heap], name of the memory file; empty for nameless memory'),
      build_id: nullable(string()),
      stack_of: nullable(integer('tid of a thread whose stack pointer is here')),
      labels: array(
        object({
          part: string('Java heap, code cache …'),
          detail: string('eden …; empty where there is no more to say'),
          bytes: byteCount('of the area'),
        }),
        'what the program uses it for, as far as its own tables tell (Java virtual machines), most bytes first',
      ),
      ...amounts,
      ranges: nullable(
        array(
          object({ start: hexadecimal(), end: hexadecimal(), from: memoryFrom }),
          'with --ranges: where the bytes come from, by address',
        ),
      ),
    }),
  ),
});

const decimal = (description: string): Schema<string> => string(`${description}, decimal`);

/** What only descriptors of one kind have. */
export const descriptorDetail = partial({
  size: byteCount('file, directory, object'),
  inode: decimal('file, directory: inode number'),
  stream: string('caller: stdin, stdout or stderr'),
  unread: integer('pipe, fifo, socket: bytes not yet read'),
  capacity: integer('pipe, fifo: bytes'),
  no_reader: boolean('pipe, fifo: nobody had it open for reading'),
  no_writer: boolean('pipe, fifo: nobody had it open for writing'),
  packets: boolean('pipe, fifo: packet mode (O_DIRECT)'),
  ends: array(integer(), 'pipe, fifo: descriptors of the other end'),
  family: string('socket'),
  type: string('socket'),
  protocol: integer('socket'),
  state: string('socket: unconnected, listening, pair, connected, bound'),
  local: string('socket: address; empty for none'),
  remote: string('socket: address; empty for none'),
  backlog: integer('socket'),
  peer: array(integer(), 'socket: descriptors of the other end of a pair'),
  shutdown: array(string(), 'socket: read, write'),
  options: map(string('socket: SO_…, TCP_… that are kept; integers in decimal, others as hexadecimal bytes')),
  count: decimal('eventfd'),
  semaphore: boolean('eventfd'),
  clock: string('timerfd'),
  left_ns: decimal('timerfd: 0 when disarmed'),
  interval_ns: decimal('timerfd'),
  ticks: decimal('timerfd: expirations not yet read'),
  signals: array(string(), 'signalfd'),
  watches: array(
    partial({
      fd: integer('epoll'),
      events: array(string(), 'epoll: EPOLL…'),
      data: hexadecimal('epoll'),
      watch: integer('inotify: watch descriptor'),
      mask: hexadecimal('inotify'),
      path: string('inotify'),
    }),
    'epoll, inotify',
  ),
  object: string('object: memfd, shared-anonymous, deleted-file'),
  name: string('object'),
  seals: integer('object: F_SEAL_ bits'),
  locks: array(
    object({
      kind: string('posix, flock, ofd'),
      exclusive: boolean(),
      start: byteCount(),
      end: nullable(byteCount('last byte; null: to the end')),
    }),
  ),
});

export const fds = object({
  image,
  warnings,
  descriptors: array(
    object({
      fd: integer(),
      kind: string(),
      close_on_exec: boolean(),
      access: oneOf('read', 'write', 'read-write', 'path'),
      status_flags: array(string('O_…')),
      offset: nullable(byteCount()),
      path: string('as /proc/PID/fd shows it'),
      description: integer('descriptors with the same number share one open file description'),
      shared_with: array(integer('other descriptors of the same description')),
      policy: nullable(object(policy), 'the rule of the checkpoint that it is under (docs/policies.md)'),
      detail: descriptorDetail,
    }),
  ),
});

/** Images of CRIU: the same of each process of the tree. */
const criuHead = { image, engine: oneOf('criu'), dumped_at: string('RFC 3339, UTC') };
const criuProcess = { pid: integer(), name: string() };
const criuAmounts = {
  mapped: byteCount(),
  stored: byteCount('in this image'),
  in_parent: byteCount('in the image that this one goes on from'),
};
const criuTotal = { areas: integer(), ...criuAmounts };
export const criuShow = object({
  ...criuHead,
  size: byteCount('of all files'),
  processes: array(
    object({
      ...criuProcess,
      parent_pid: integer(),
      process_group: integer(),
      session: integer(),
      state: string('alive, stopped, zombie …'),
      command: nullable(array(string())),
      executable: string(),
      cwd: string(),
      uid: integer(),
      gid: integer(),
      threads: integer(),
      descriptors: object({ count: integer(), by_kind: array(object({ kind: string(), count: integer() })) }),
      memory: object({ total: object(criuTotal), by_kind: array(object({ kind: string(), ...criuTotal })) }),
    }),
  ),
});
export const criuThreads = object({
  ...criuHead,
  processes: array(
    object({
      ...criuProcess,
      threads: array(
        object({
          tid: integer(),
          name: string(),
          pc: nullable(hexadecimal('null: not of x86-64')),
          module: nullable(string('file that the pc is in')),
          stack_pointer: nullable(hexadecimal()),
          signal_mask: array(string('blocked signals')),
        }),
      ),
    }),
  ),
});
export const criuMaps = object({
  ...criuHead,
  processes: array(
    object({
      ...criuProcess,
      total: object(criuTotal),
      maps: array(
        object({
          start: hexadecimal(),
          end: hexadecimal(),
          protection: string('as in /proc/PID/maps'),
          kind: oneOf('file', 'heap', 'stack', 'vdso', 'shared', 'anonymous'),
          offset: hexadecimal('in the mapped file'),
          name: string(),
          ...criuAmounts,
        }),
      ),
    }),
  ),
});
export const criuFds = object({
  ...criuHead,
  processes: array(object({ ...criuProcess, descriptors: array(object({ fd: integer(), kind: string(), path: string() })) })),
});

export const validate = object({
  image,
  valid: boolean(),
  checked: object({ segments: integer(), notes: integer(), records: integer(), chunks: integer(), content: byteCount() }),
  unchecked: nullable(string('what could not be checked, and why')),
  findings: array(
    object({
      check: string('which rule'),
      problem: string(),
      offset: nullable(hexadecimal('in the file')),
      address: nullable(hexadecimal('of the process')),
      mend: string(),
    }),
  ),
  host: nullable(
    object({
      restorable: boolean(),
      obstacles: array(
        object({
          check: string(),
          effect: oneOf('fails', 'differs'),
          problem: string(),
          mend: string(),
        }),
      ),
    }),
  ),
});

export const env = object({ image, warnings, environment: array(object({ name: string(), value: string() })) });

export const auxv = object({
  image,
  warnings,
  auxv: array(object({ type: integer(), name: string(), value: hexadecimal(), text: nullable(string()) })),
});

export const signals = object({
  image,
  warnings,
  actions: array(
    object({
      signal: integer(),
      name: string(),
      disposition: oneOf('default', 'ignore', 'handler'),
      handler: nullable(frame),
      flags: array(string('SA_…')),
      mask: array(string()),
    }),
    'dispositions that are not the default',
  ),
  pending: array(
    object({
      signal: integer(),
      name: string(),
      code: integer(),
      tid: nullable(integer('null: sent to the process')),
      value: nullable(hexadecimal()),
    }),
  ),
});

export const notes = object({
  image,
  warnings,
  notes: array(
    object({
      owner: string(),
      type: hexadecimal(),
      name: nullable(string()),
      offset: hexadecimal('of the descriptor in the file'),
      size: byteCount('of the descriptor'),
      records: nullable(integer('in a note of this project')),
    }),
  ),
});

const area = object({
  start: hexadecimal(),
  end: hexadecimal(),
  kind: string(),
  name: string('as in maps'),
  protection: string(),
});

export const target = object({
  area,
  offset: hexadecimal("from the area's start"),
  symbol: nullable(string()),
  symbol_offset: nullable(integer('bytes')),
});

export const mem = object({
  image,
  warnings,
  dump: nullable(
    array(
      object({
        start: hexadecimal(),
        end: hexadecimal(),
        from: memoryFrom,
        area: nullable(area),
        symbol: nullable(string('that the first byte belongs to')),
        symbol_offset: nullable(integer('bytes')),
        bytes: nullable(string('hexadecimal, in the order of addresses; null: absent')),
        reason: nullable(string('why the bytes are absent')),
      }),
    ),
  ),
  values: nullable(
    array(
      object({
        address: hexadecimal(),
        type: string(),
        value: string('numbers in decimal, pointers in hexadecimal, text as it is'),
        target: nullable(target),
      }),
    ),
  ),
  search: nullable(
    object({
      complete: boolean('false: stopped at --limit'),
      searched: byteCount(),
      absent: byteCount('selected, but not to be had'),
      reason: nullable(string('why, for the first of them')),
      matches: array(
        object({
          address: hexadecimal(),
          length: integer('bytes'),
          at: target,
          bytes: nullable(string('hexadecimal; null for strings')),
          text: nullable(string('of strings')),
          context: nullable(object({ start: hexadecimal(), bytes: string('hexadecimal') })),
        }),
      ),
    }),
  ),
  extract: nullable(object({ file: string(), start: hexadecimal(), end: hexadecimal(), bytes: byteCount() })),
});

const imageIdentity = object({
  image,
  id: nullable(string('UUID')),
  generation: nullable(integer()),
  captured_at: nullable(string('RFC 3339, UTC, nanoseconds')),
});

export const diff = object({
  a: imageIdentity,
  b: imageIdentity,
  warnings,
  different: boolean(),
  summary: array(object({ section: string(), added: integer(), removed: integer(), changed: integer() })),
  changes: array(
    object({
      section: string(),
      key: string('which thread, area, descriptor …'),
      kind: oneOf('added', 'removed', 'changed'),
      fields: array(object({ field: string(), a: nullable(string()), b: nullable(string()) })),
    }),
  ),
  memory: nullable(
    object({
      compared: byteCount('mapped in both'),
      pages: integer('of 4096 bytes, with at least one different byte'),
      only_a: byteCount('mapped in A only'),
      only_b: byteCount('mapped in B only'),
      unknown: byteCount('mapped in both, but one of them cannot show it'),
      areas: array(
        object({
          area,
          compared: byteCount(),
          pages: integer(),
          unknown: byteCount(),
          ranges: array(object({ start: hexadecimal(), end: hexadecimal() }), 'of different pages'),
          rows: nullable(
            array(
              object({ address: hexadecimal(), a: string('hexadecimal'), b: string('hexadecimal') }),
              'with --bytes: 16 bytes each, different',
            ),
          ),
          more_rows: nullable(boolean('with --bytes: there are more than are listed')),
        }),
        'with different pages or unknown bytes',
      ),
    }),
  ),
});

export const redact = object({
  image: string('path of the new image'),
  kept: array(string()),
  removed: array(object({ what: string(), count: integer(), bytes: nullable(byteCount()) })),
});

/** The documents of other commands under their names; null where the image does not have what they show. */
export const report = object({
  image,
  warnings,
  show,
  validate,
  composition,
  advice,
  timeline: nullable(
    object({
      runs: integer('training restores'),
      content: byteCount('all that the image holds'),
      loads: array(
        object({
          ms: number('when it was first waited for, since the restore began: the median of the runs'),
          runs: integer('that asked for it'),
          content: integer('bytes'),
          stored: integer('bytes in the file'),
          address: nullable(hexadecimal('of its first byte; null where no memory area has it')),
          category: nullable(oneOf(...categories)),
          label: nullable(string('of the area')),
        }),
        'chunks that were asked for, in the order of time',
      ),
    }),
    'of an image that `optimize` has arranged',
  ),
  threads: nullable(threads),
  fds: nullable(fds),
  env: nullable(env),
});

export const repack = object({
  image: string('path of the new image'),
  size: byteCount('of the new image'),
  before: byteCount('size of the image that it was made of'),
  chunks: integer(),
});

export const ps = object({
  processes: array(
    object({
      pid: integer(),
      command: array(string()),
      name: string(),
      threads: integer("without the engine's own"),
      resident: byteCount(),
      user: string(),
    }),
  ),
});

export const jdk = object({
  action: string('install or uninstall'),
  home: string('of the JDK'),
  crac: boolean('whether the JDK knows CRaC'),
  files: array(string('put there, or removed')),
});

export const engines = object({
  engines: array(object({ name: string(), usable: boolean(), description: string(), reason: nullable(string('why it cannot be used')) })),
});

export const doctor = object({
  able: boolean('whether processes can be checkpointed and restored here'),
  checks: array(
    object({
      name: string(),
      status: oneOf('ok', 'limited', 'unable'),
      found: string(),
      consequence: nullable(string()),
      mend: nullable(string()),
    }),
  ),
});

export const checkpoint = object({ image, bytes: byteCount(), generation: integer() });

const imageFacts = {
  program: nullable(string('name of the executable')),
  format: nullable(string('version of the image format; this and the rest is null for a core file of another writer')),
  id: nullable(string('UUID')),
  generation: nullable(integer()),
  captured_at: nullable(string('RFC 3339, UTC, nanoseconds')),
  compression: nullable(string('none, or codecs joined by +')),
  encrypted: nullable(boolean()),
  metadata_size: nullable(integer('bytes at the start of the image that hold everything but memory')),
};

export const push = object({
  url: string('where the image is now'),
  size: byteCount(),
  parts: integer('requests that carried content'),
  sha256: string('of the whole image'),
  etag: string(),
  version: nullable(string('id of the version, in a bucket that has versions')),
  ...imageFacts,
});

export const pull = object({
  image,
  url: string(),
  size: byteCount(),
  etag: string(),
  sha256: string('of the whole image'),
  verified: oneOf('sha256', 'checksums', 'size'),
});

export const list = object({
  url: string(),
  objects: array(
    object({
      key: string(),
      url: string(),
      size: byteCount(),
      modified: nullable(string('RFC 3339')),
      image: nullable(object(imageFacts)),
      problem: nullable(string('why the object could not be looked at')),
    }),
  ),
});

const microseconds = (description?: string): Schema<number> => integer(`microseconds${description ? `: ${description}` : ''}`);

const checkpointStats = object({
  freeze_us: microseconds('stopping the threads'),
  collect_us: microseconds('what there is: threads, memory areas, descriptors'),
  scan_us: microseconds('which memory is to be stored'),
  write_us: microseconds(),
  sync_us: microseconds('until the image was durable'),
  total_us: microseconds(),
  paused_us: microseconds('that the threads stood still'),
  bytes_written: byteCount(),
  image_bytes: byteCount('size of the image'),
  content_bytes: byteCount('memory that was stored'),
  stored_bytes: byteCount('what it takes in the image'),
  repeated_bytes: byteCount('stored with equal content'),
  compression: oneOf('none', 'lz4'),
  encryption: oneOf('none', 'aes-256-gcm'),
  ratio: number('content_bytes by stored_bytes'),
  threads: integer(),
  memory_areas: integer(),
  segments: integer(),
});

const restoreStats = object({
  begin_ns: integer('CLOCK_MONOTONIC when the restorer began, nanoseconds; its exec came before'),
  metadata_us: microseconds('reading and checking the metadata'),
  place_us: microseconds('finding a place that the image does not use, and moving there'),
  content_us: microseconds('choosing how memory comes back, reading the chunk index, asking for what the page cache lacks'),
  files_us: microseconds('opening and comparing mapped files'),
  descriptors_us: microseconds('shared memory and descriptors'),
  clear_us: microseconds('giving up the restorer’s own memory'),
  map_us: microseconds('making the memory areas, and mapping what is mapped from the image'),
  defer_us: microseconds('finding what can be loaded while the program runs, and mapping what training needed'),
  load_us: microseconds('loading the rest'),
  areas_us: microseconds('protection, advice and names of memory areas; the vDSO'),
  process_us: microseconds('attributes of the process, timers, locks'),
  threads_us: microseconds('starting the threads'),
  memory_us: microseconds('clear_us to areas_us together'),
  cpu_us: microseconds('CPU time until then, all loaders together'),
  page_faults: integer('of the restorer'),
  system_calls: integer('of the restorer, but for starting threads'),
  direct_bytes: byteCount('mapped from the image'),
  direct_mappings: integer(),
  eager_bytes: byteCount('loaded before the program goes on'),
  eager_reads: integer(),
  read_bytes: byteCount('of the image, for that'),
  loaders: integer('threads that loaded'),
  compression: oneOf('none', 'lz4'),
  encryption: oneOf('none', 'aes-256-gcm'),
  object_bytes: byteCount('of shared memory'),
  memory_areas: integer(),
  threads: integer(),
  descriptors: integer(),
  deferred_bytes: byteCount('loaded while the program runs'),
  prefetched_bytes: byteCount('that the kernel was asked to read ahead, where the page cache does not have them'),
  mode: oneOf('direct', 'concurrent', 'eager'),
  reason: oneOf(
    'plain',
    'concurrent',
    'compressed',
    'no-direct-map',
    'fixed-calls',
    'not-mappable',
    'area-limit',
    'no-concurrent',
    'verify',
    'small',
    'no-dispatch',
    'nothing-to-map',
    'nothing-can-wait',
    'chunks-mapped',
  ),
  explanation: string('the reason in words'),
  faults: nullable(oneOf('userfaultfd', 'userfaultfd-user', 'signals'), 'of mode concurrent: how absent memory is noticed'),
  faults_reason: nullable(oneOf('load-faults', 'kernel-faults', 'user-faults', 'no-userfaultfd')),
  faults_explanation: nullable(string('the reason in words')),
  engine_us: nullable(
    microseconds(
      'the engine’s part: its command socket, redirecting system calls, guarding absent memory; null of images of older engines',
    ),
  ),
  total_us: microseconds('until the threads go on'),
});

/** Of files that commands write beside their output. */
export const fileSchemas: Record<string, Schema<unknown>> = { 'checkpoint-stats': checkpointStats, 'restore-stats': restoreStats };

/** Of every command with --json. */
export const schemas: Record<string, Schema<unknown>> = {
  show: anyOf(show, criuShow),
  threads: anyOf(threads, criuThreads),
  maps: anyOf(maps, criuMaps),
  fds: anyOf(fds, criuFds),
  validate,
  env,
  auxv,
  signals,
  notes,
  mem,
  diff,
  decode: metadata,
  redact,
  report,
  compress: repack,
  decompress: repack,
  encrypt: repack,
  decrypt: repack,
  ps,
  engines,
  jdk,
  doctor,
  checkpoint,
  optimize,
  push,
  pull,
  list,
};
