import { Unreadable } from './memory.js';
import type { Vm } from './vm.js';

const MOST_HEAPS = 16;
/** Blocks of one code heap at most. */
const MOST_BLOCKS = 4_000_000;
/** A byte of the segment map for a segment that no block has. */
const UNUSED = 0xff;

interface CodeHeap {
  /** [start, committed end). */
  start: bigint;
  end: bigint;
  reservedEnd: bigint;
  segmentMap: bigint;
  log2SegmentSize: number;
}

/** Generated code: a compiled method, a stub, the interpreter. */
export interface CodeBlob {
  address: bigint;
  /** `nmethod`, `native nmethod`, or the name of a stub. */
  name: string;
  /** Its instructions: [start, end). */
  start: bigint;
  end: bigint;
  /** Of its frames with return address, bytes; 0 where it is not fixed. */
  frameSize: bigint;
  /** From `start`: up to here the frame is not set up yet. */
  frameComplete: number;
}

/** A part of the code cache as `jcmd Compiler.codecache` shows it. Sizes are bytes. */
export interface CodeHeapUse {
  name: string;
  start: bigint;
  end: bigint;
  reservedEnd: bigint;
  used: bigint;
  /** Compiled methods. */
  methods: number;
  blobs: number;
}

/** Where the code is that a virtual machine generated. */
export class CodeCache {
  private constructor(
    private readonly vm: Vm,
    private readonly heaps: readonly CodeHeap[],
    /** Of the interpreter: [start, end). */
    private readonly interpreter: { start: bigint; end: bigint },
    private readonly headerSize: bigint,
  ) {}

  static async open(vm: Vm): Promise<CodeCache> {
    const { structs } = vm;
    const { memory } = structs;
    const array = await structs.static('CodeCache', '_heaps');
    const owner = ['GrowableArrayBase', 'GenericGrowableArray'].find((type) => structs.has(type, '_len')) ?? 'GrowableArrayBase';
    const count = await structs.int(owner, array, '_len');
    if (count < 0 || count > MOST_HEAPS) throw new Unreadable(`the code cache has ${count} parts`);
    const entries = await memory.bytes(await structs.pointer('GrowableArray<int>', array, '_data'), count * 8);
    const heaps: CodeHeap[] = [];
    for (let index = 0; index < count; index++) {
      const heap = entries.readBigUInt64LE(index * 8);
      const space = heap + BigInt(structs.offset('CodeHeap', '_memory'));
      heaps.push({
        start: await structs.pointer('VirtualSpace', space, '_low'),
        end: await structs.pointer('VirtualSpace', space, '_high'),
        reservedEnd: await structs.pointer('VirtualSpace', space, '_high_boundary'),
        segmentMap: await structs.pointer('VirtualSpace', heap + BigInt(structs.offset('CodeHeap', '_segmap')), '_low'),
        log2SegmentSize: (await structs.int('CodeHeap', heap, '_log2_segment_size')) & 31,
      });
    }
    const queue = await structs.static('AbstractInterpreter', '_code');
    const start = await structs.pointer('StubQueue', queue, '_stub_buffer');
    const end = start + BigInt(await structs.int('StubQueue', queue, '_buffer_limit'));
    return new CodeCache(vm, heaps, { start, end }, BigInt(structs.size('HeapBlock')));
  }

  isInterpreter(pc: bigint): boolean {
    return pc >= this.interpreter.start && pc < this.interpreter.end;
  }

  contains(pc: bigint): boolean {
    return this.heaps.some(({ start, end }) => pc >= start && pc < end);
  }

  /** The blob that covers `pc`; null where there is none. */
  async blobAt(pc: bigint): Promise<CodeBlob | null> {
    const heap = this.heaps.find(({ start, end }) => pc >= start && pc < end);
    if (!heap) return null;
    const { memory } = this.vm.structs;
    let segment = (pc - heap.start) >> BigInt(heap.log2SegmentSize);
    // Each byte says how far back at least the block begins: 0 for its first segment.
    for (;;) {
      const back = await memory.u8(heap.segmentMap + segment);
      if (back === UNUSED || BigInt(back) > segment) return null;
      if (back === 0) break;
      segment -= BigInt(back);
    }
    const block = heap.start + (segment << BigInt(heap.log2SegmentSize));
    const { used } = await this.header(block);
    return used ? this.blob(block + this.headerSize) : null;
  }

  private async header(block: bigint): Promise<{ segments: number; used: boolean }> {
    const { structs } = this.vm;
    const raw = await structs.memory.bytes(block, Number(this.headerSize));
    const length = structs.offset('HeapBlock::Header', '_length');
    const wide = structs.typeOf('HeapBlock::Header', '_length') === 'size_t';
    return {
      segments: wide ? Number(raw.readBigUInt64LE(length) & 0xffffffffn) : raw.readUInt32LE(length),
      used: raw[structs.offset('HeapBlock::Header', '_used')] !== 0,
    };
  }

  private async blob(address: bigint): Promise<CodeBlob> {
    const { structs } = this.vm;
    const { memory } = structs;
    const int = (field: string): Promise<number> => structs.int('CodeBlob', address, field);
    const offsets = structs.has('CodeBlob', '_code_offset');
    const complete = address + BigInt(structs.offset('CodeBlob', '_frame_complete_offset'));
    const name = await structs.pointer('CodeBlob', address, '_name');
    return {
      address,
      name: name === 0n ? '' : await memory.text(name, 256),
      start: offsets ? address + BigInt(await int('_code_offset')) : await structs.pointer('CodeBlob', address, '_code_begin'),
      end: offsets ? address + BigInt(await int('_data_offset')) : await structs.pointer('CodeBlob', address, '_code_end'),
      frameSize: BigInt(Math.max(0, await int('_frame_size'))) * 8n,
      frameComplete:
        structs.typeOf('CodeBlob', '_frame_complete_offset') === 'int16_t' ? await memory.i16(complete) : await memory.i32(complete),
    };
  }

  /** How much of each part is used. Looks at the header of every block. */
  async use(): Promise<CodeHeapUse[]> {
    const { memory } = this.vm.structs;
    const uses: CodeHeapUse[] = [];
    for (const heap of this.heaps) {
      const { start, end, reservedEnd, segmentMap, log2SegmentSize } = heap;
      const use: CodeHeapUse = { name: await this.nameOf(heap), start, end, reservedEnd, used: 0n, methods: 0, blobs: 0 };
      const segments = (end - start) >> BigInt(log2SegmentSize);
      for (let segment = 0n, blocks = 0; segment < segments && blocks < MOST_BLOCKS; blocks++) {
        if ((await memory.u8(segmentMap + segment)) === UNUSED) break;
        const block = start + (segment << BigInt(log2SegmentSize));
        const header = await this.header(block);
        if (header.segments === 0) break;
        segment += BigInt(header.segments);
        if (!header.used) continue;
        use.used += BigInt(header.segments) << BigInt(log2SegmentSize);
        use.blobs++;
        if (isMethod(await this.blob(block + this.headerSize))) use.methods++;
      }
      uses.push(use);
    }
    return uses;
  }

  /** The virtual machine does not export its names: the interpreter and the sizes that the flags gave tell. */
  private async nameOf({ start, reservedEnd }: CodeHeap): Promise<string> {
    if (this.heaps.length === 1) return 'CodeCache';
    if (this.interpreter.start >= start && this.interpreter.start < reservedEnd) return 'non-nmethods';
    // Without the first compiler there is one other part.
    if ((await this.vm.flags.value('ProfiledCodeHeapSize')) === '0') return 'non-profiled nmethods';
    const others = this.heaps.filter((heap) => !(this.interpreter.start >= heap.start && this.interpreter.start < heap.reservedEnd));
    // Profiled code is below the rest.
    return others.every((heap) => start <= heap.start) ? 'profiled nmethods' : 'non-profiled nmethods';
  }
}

/** Compiled from a Java method, or the wrapper of a native one. */
export function isMethod({ name }: CodeBlob): boolean {
  return name === 'nmethod' || name === 'native nmethod';
}
