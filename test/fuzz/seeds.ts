/** The images that are mutated: built in code, so that every note and every odd layout is among them, and real ones. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encryptImage } from '../../src/elf/encrypt.js';
import { withImage, type Image } from '../../src/elf/image.js';
import { ImageWriter } from '../../src/elf/image-writer.js';
import { encodeNote } from '../../src/elf/notes.js';
import { compressImage } from '../../src/elf/pack.js';
import { rearranged } from '../../src/elf/rearrange.js';
import { NONE } from '../../src/elf/schema.js';
import {
  auxvNote,
  fileNote,
  foreignCore,
  PAGE,
  prpsinfoNote,
  prstatusNote,
  warpImage,
  type SegmentPlan,
  type Tables,
} from '../support/synthesise.js';

/** In memory, environment, names and data: no redacted image may hold it, whatever was done to the one that it came from. */
export const SECRET = 'PlantedSecret42';

export interface Seed {
  name: string;
  image: Buffer;
}

const STACK = 0x7fff_0000_0000n;
const HEAP = 0x5000_0000n;
const LIBRARY = 0x7f00_0000_0000n;
const secret = Buffer.from(SECRET);

function content(pages: number, fill: (page: Buffer, index: number) => void): Buffer {
  const all = Buffer.alloc(pages * PAGE);
  for (let index = 0; index < pages; index++) fill(all.subarray(index * PAGE, (index + 1) * PAGE), index);
  return all;
}

/** The initial stack as the kernel lays it out: argc, argv, envp, the auxiliary vector, and the strings behind them. */
function stackContent(auxv: [number, bigint][]): { bytes: Buffer; environment: [number, number]; argument: [number, number] } {
  const bytes = Buffer.alloc(2 * PAGE);
  const argument = Buffer.from(`program\0${SECRET}\0`);
  const environment = Buffer.from(`PATH=/bin\0TOKEN=${SECRET}\0EMPTY=\0`);
  const argumentAt = PAGE;
  const environmentAt = argumentAt + argument.length;
  argument.copy(bytes, argumentAt);
  environment.copy(bytes, environmentAt);
  const strings = (text: Buffer, at: number): bigint[] => {
    const starts: bigint[] = [];
    for (let place = 0; place < text.length; place = text.indexOf(0, place) + 1) starts.push(STACK + BigInt(at + place));
    return starts;
  };
  const words = [
    2n,
    ...strings(argument, argumentAt),
    0n,
    ...strings(environment, environmentAt),
    0n,
    ...auxv.flatMap(([type, value]) => [BigInt(type), value]),
    0n,
    0n,
  ];
  for (const [index, word] of words.entries()) bytes.writeBigUInt64LE(word, 256 + index * 8);
  return {
    bytes,
    environment: [environmentAt, environmentAt + environment.length],
    argument: [argumentAt, argumentAt + argument.length],
  };
}

const auxvEntries: [number, bigint][] = [
  [3, LIBRARY + 64n],
  [6, BigInt(PAGE)],
  [9, LIBRARY + 0x10n],
  [25, STACK + 0x1800n],
  [31, STACK + BigInt(PAGE)],
  [33, 0x7fff_f000_0000n],
];

function segments(stack: Buffer): SegmentPlan[] {
  return [
    { address: HEAP, size: BigInt(4 * PAGE), content: content(3, (page, index) => page.fill(`${SECRET} heap ${index} `)) },
    { address: HEAP + BigInt(3 * PAGE) + 0x10_0000n, size: BigInt(PAGE) },
    { address: LIBRARY, size: BigInt(PAGE), content: content(1, (page) => page.write('\x7fELF\x02\x01\x01', 'latin1')), flags: 5 },
    { address: STACK, size: BigInt(stack.length), content: stack },
  ];
}

function extendedState(): Buffer {
  const raw = Buffer.alloc(2696);
  raw.writeBigUInt64LE(0x2e7n, 464);
  raw.writeBigUInt64LE(0x2e7n, 512);
  return raw;
}

function threadNotes(tid: number): Buffer[] {
  return [
    prstatusNote(tid, { 16: LIBRARY + 0x20n, 19: STACK + 0x200n, 21: HEAP }),
    encodeNote('CORE', 2, Buffer.alloc(512, 1)),
    encodeNote('LINUX', 0x202, extendedState()),
  ];
}

function kernelNotes(): Buffer[] {
  const siginfo = Buffer.alloc(128);
  siginfo.writeInt32LE(11, 0);
  siginfo.writeInt32LE(1, 8);
  const [status, ...others] = threadNotes(100);
  return [
    status!,
    prpsinfoNote(100, 'program'),
    encodeNote('CORE', 0x53494749, siginfo),
    auxvNote(auxvEntries),
    fileNote([
      { start: LIBRARY, end: LIBRARY + BigInt(PAGE), offset: 0n, path: '/usr/lib/libtest.so.1' },
      { start: LIBRARY + 0x10000n, end: LIBRARY + 0x12000n, offset: 4096n, path: `/usr/lib/${SECRET}` },
    ]),
    ...others,
    ...threadNotes(101),
  ];
}

function socketAddress(port: number): Buffer {
  const raw = Buffer.alloc(16);
  raw.writeUInt16LE(2, 0);
  raw.writeUInt16BE(port, 2);
  raw.set([127, 0, 0, 1], 4);
  return raw;
}

/** Length-prefixed and padded to 8, as unread messages are kept. */
function message(text: Buffer): Buffer {
  const raw = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8);
  raw.writeUInt32LE(text.length, 0);
  text.copy(raw, 8);
  return raw;
}

function option(): Buffer {
  const raw = Buffer.alloc(24);
  raw.writeInt32LE(1, 0);
  raw.writeInt32LE(9, 4);
  raw.writeUInt32LE(4, 8);
  return raw;
}

/** At least one record in every note. */
function tables(stack: ReturnType<typeof stackContent>): Tables {
  const at = ([from, to]: [number, number]): [bigint, bigint] => [STACK + BigInt(from), STACK + BigInt(to)];
  const [envStart, envEnd] = at(stack.environment);
  const [argStart, argEnd] = at(stack.argument);
  const area = { file: NONE, object: NONE, protection: 3 };
  const text = (value: string): Buffer => Buffer.from(value);
  return {
    image: [
      {
        image_id: Buffer.alloc(16, 7),
        generation: 3,
        realtime_ns: 1_700_000_000_123_456_789n,
        machine: 62,
        page_size: PAGE,
        xstate_features: 0x2e7n,
        xstate_size: 2696,
        engine_version: text('0.1.0'),
        kernel_release: text('6.18.0'),
        kernel_version: text('#1 SMP'),
        hostname: secret,
        cpu_model: text('Some CPU'),
        cpu_features: Buffer.alloc(32, 0xff),
        boot_id: text('3b5a2f1c-0000-4000-8000-000000000000\n'),
        executable: text('/usr/bin/program'),
        command: text(`program\0${SECRET}\0`),
      },
    ],
    process: [
      {
        pid: 100,
        uid: [1000, 1000, 1000, 1000],
        arg_start: argStart,
        arg_end: argEnd,
        env_start: envStart,
        env_end: envEnd,
        start_code: LIBRARY,
        start_stack: STACK + 0x100n,
        cwd: text(`/home/${SECRET}`),
        root: text('/'),
        groups: Buffer.alloc(8, 1),
      },
    ],
    threads: [
      {
        tid: 100,
        flags: 1,
        fs_base: HEAP,
        signal_mask: 0xffn,
        system_call: 202,
        state: 83,
        name: text('main'),
        affinity: Buffer.alloc(8, 3),
      },
      { tid: 101, fs_base: HEAP + 64n, system_call: -1, state: 82, name: secret, nice: -5, scheduling_policy: 2 },
    ],
    vmas: [
      {
        ...area,
        start: HEAP,
        end: HEAP + BigInt(4 * PAGE),
        kind: 4,
        name: text('[heap]'),
        resident: BigInt(3 * PAGE),
        stored: BigInt(3 * PAGE),
      },
      { ...area, start: HEAP + BigInt(3 * PAGE) + 0x10_0000n, end: HEAP + BigInt(4 * PAGE) + 0x10_0000n, kind: 3, object: 0, flags: 1 },
      {
        ...area,
        start: LIBRARY,
        end: LIBRARY + BigInt(PAGE),
        kind: 2,
        file: 0,
        protection: 5,
        name: text('/usr/lib/libtest.so.1'),
        resident: BigInt(PAGE),
        stored: BigInt(PAGE),
      },
      { ...area, start: STACK, end: STACK + BigInt(2 * PAGE), kind: 5, flags: 2, name: text('[stack]'), resident: 8192n, stored: 8192n },
    ],
    files: [
      { size: 4096n, path: text('/usr/lib/libtest.so.1'), build_id: Buffer.alloc(20, 0xab), mode: 0o100755 },
      { size: 99n, path: secret, mtime_ns: -1n, flags: 1 },
    ],
    objects: [{ kind: 1, size: 4096n, name: secret, seals: 3 }],
    extents: [{ object: 0, object_offset: 0n, length: 4096n, content_offset: 0x10000n }],
    descriptors: Array.from({ length: 14 }, (_, index) => ({ number: index, flags: index & 1, description: index, policy: index & 1 })),
    descriptions: Array.from({ length: 14 }, (_, index) => ({
      kind: index + 1,
      detail: 0,
      status_flags: 0o102002,
      offset: 17n,
      size: 4096n,
      path: text(`/tmp/${SECRET}-${index}`),
    })),
    pipes: [{ inode: 5n, capacity: 65536, flags: 4, path: text('pipe:[5]'), data: message(secret) }],
    sockets: [
      {
        family: 2,
        type: 1,
        state: 4,
        peer: 1,
        local: socketAddress(80),
        remote: socketAddress(81),
        options: option(),
        data: message(secret),
      },
      { family: 1, type: 1, state: 2, peer: NONE, local: Buffer.concat([Buffer.from([1, 0, 0]), secret]) },
      { family: 10, type: 2, state: 5, peer: NONE, local: Buffer.concat([Buffer.from([10, 0]), Buffer.alloc(26, 9)]) },
    ],
    epoll_watches: [{ description: 8, fd: 3, events: 5, target: 2, data: 0x1234n }],
    eventfds: [{ count: 3n, semaphore: 1 }],
    timerfds: [{ clock: 1, value_ns: 5n, interval_ns: 7n }],
    signalfds: [{ mask: 0x101n }],
    inotify_watches: [{ description: 11, watch: 1, mask: 0xfff, path: secret }],
    locks: [{ fd: 0, kind: 1, exclusive: 1, start: 0n, end: 0xffff_ffff_ffff_ffffn }],
    signal_actions: [{ number: 10, handler: LIBRARY + 8n, flags: 0x14000004n, mask: 1n }],
    pending_signals: [
      { tid: 100, siginfo: Buffer.concat([Buffer.from([10, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]), Buffer.alloc(116, 1)]) },
    ],
    timers: [{ id: 1, clock: 1, notify: 4, number: 14, tid: 100, value: 0x5ec7e7n, value_ns: 9n }],
    tid_references: [{ address: HEAP, tid: 100, kind: 1 }],
    policies: [
      { type: 1, action: 4, line: 3, file: text(`/etc/${SECRET}`), text: text(`type: file; path: /tmp/${SECRET}*; action: reopen`) },
    ],
    guards: [{ start: HEAP + 4096n, end: HEAP + 8192n }],
    tags: [
      { kind: 1, name: text('label'), value: secret },
      { kind: 3, name: text('score'), value: text('1.5') },
    ],
  };
}

/** Images of ours and of other writers, each a few kilobytes. */
export async function syntheticSeeds(): Promise<Seed[]> {
  const stack = stackContent(auxvEntries);
  const plan = { segments: segments(stack.bytes), tables: tables(stack), kernelNotes: kernelNotes() };
  const foreign = { segments: plan.segments, notes: plan.kernelNotes };
  const unknown = encodeNote('warp-tool', 0x574152ff, secret, 8);
  return [
    { name: 'ours', image: await warpImage(plan) },
    { name: 'newer minor', image: await warpImage({ ...plan, extraNotes: [unknown], anchor: { format_minor: 9 } }) },
    { name: 'newer major', image: await warpImage({ ...plan, anchor: { format_major: 2 } }) },
    { name: 'bare', image: await warpImage({ segments: [] }) },
    { name: 'foreign', image: foreignCore(foreign) },
    { name: 'foreign, PN_XNUM', image: foreignCore({ ...foreign, extendedCount: true }) },
    { name: 'foreign, no notes', image: foreignCore({ segments: plan.segments }) },
  ];
}

/** The first of `seeds` and the foreign one, compressed, encrypted, and both, and one that was optimised. `key`: 32 bytes. Works in `directory`. */
export async function packedSeeds(seeds: readonly Seed[], directory: string, key: Buffer): Promise<Seed[]> {
  const work = { threads: 1, progress: () => {} };
  const [plain, packed] = ['plain.img', 'packed.img'].map((name) => join(directory, name)) as [string, string];
  const result: Seed[] = [];
  const make = async (name: string, from: Buffer, how: (image: Image) => Promise<unknown>): Promise<Buffer> => {
    writeFileSync(plain, from);
    await withImage(plain, how);
    const image = readFileSync(packed);
    result.push({ name, image });
    return image;
  };
  for (const { name, image } of seeds.filter((seed) => seed.name === 'ours' || seed.name === 'foreign')) {
    const small = await make(`${name}, compressed`, image, (opened) =>
      compressImage(opened, packed, { ...work, level: 1, chunkSize: 4096 }),
    );
    if (name === 'ours') await make('optimised', small, (opened) => ImageWriter.write(packed, (writer) => optimise(opened, writer)));
    await make(`${name}, encrypted`, image, (opened) => encryptImage(opened, packed, key, work));
    await make(`${name}, compressed and encrypted`, small, (opened) => encryptImage(opened, packed, key, work));
  }
  return result;
}

/** As if two training runs had needed every other chunk, the last of them first. */
async function optimise(image: Image, writer: ImageWriter): Promise<void> {
  const needed = Array.from({ length: image.chunks.length >>> 1 }, (_, index) => 2 * index + 1).toReversed();
  const accesses = needed.map((chunk, index) => ({ chunk, runs: 2, median_ns: BigInt(1000 * index) }));
  await writer.copyAll(await rearranged(image, accesses, true), () => {});
}

/** More than 65,534 segments, in truth. */
export function manySegments(): Seed {
  const areas = Array.from({ length: 66_000 }, (_, index) => ({ address: BigInt(index + 1) << 16n, size: 4096n }));
  return { name: 'many segments', image: foreignCore({ segments: areas, notes: kernelNotes() }) };
}
