import { hex } from '../../hex.js';
import { CodeCache, isMethod, type CodeBlob } from './code-cache.js';
import { CompiledMethod, type Scope } from './compiled-method.js';
import { reasonOf, Unreadable } from './memory.js';
import type { Method } from './metadata.js';
import type { JavaThread } from './threads.js';
import type { Vm } from './vm.js';

/** Words of interpreter frames from the frame pointer (frame_x86.hpp: fixed by the assembler of the interpreter since JDK 9). */
const SENDER_SP = -1n;
const METHOD = -3n;
const BYTECODE = -8n;
const WORD = 8n;
const FIRST = "at the thread's first Java method, which native code called";

export interface JavaFrame {
  /**
   * interpreted, compiled; inlined: compiled into the frame behind it; native: the wrapper of a native method; stub: other code of the virtual
   * machine; entry: native code called Java here; frozen: frames of a virtual thread that are in the heap, where it waited, stand here.
   */
  kind: 'interpreted' | 'compiled' | 'inlined' | 'native' | 'stub' | 'entry' | 'frozen';
  /** Null for an inlined method. */
  pc: bigint | null;
  /** Null for stubs and entries. */
  method: Method | null;
  /** Bytecode index; null where the place in the method is not known. */
  bci: number | null;
  line: number | null;
  /** Of a stub. */
  stub: string | null;
  compiler: 'C1' | 'C2' | null;
}

export interface JavaStack {
  frames: JavaFrame[];
  /** Where and why the frames end. */
  end: string;
  /** first: at the thread's first Java method; none: it has no Java frame; limit: there are more; lost: they could not be followed further. */
  ending: 'first' | 'none' | 'limit' | 'lost';
}

export interface Registers {
  rip: bigint;
  rsp: bigint;
  rbp: bigint;
  r13: bigint;
}

/** A frame as the hardware has it. */
interface Place {
  pc: bigint;
  sp: bigint;
  fp: bigint;
  /** Stack pointer of the frame's own code, below what an interpreted callee put there. */
  unextendedSp: bigint;
  /** The thread was in this frame's own instructions, not in a call that they made. */
  running: boolean;
}

/** Walks the Java frames of threads. */
export class FrameWalker {
  private constructor(
    private readonly vm: Vm,
    readonly code: CodeCache,
    private readonly callStubReturn: bigint,
  ) {}

  static async open(vm: Vm): Promise<FrameWalker> {
    return new FrameWalker(vm, await CodeCache.open(vm), await vm.structs.static('StubRoutines', '_call_stub_return_address'));
  }

  /**
   * The Java frames of a thread, innermost first, at most `most`. They begin at the thread's registers where it was in Java, and otherwise at the
   * last Java frame, which the virtual machine notes before it goes anywhere else.
   */
  async walk(thread: JavaThread, registers: Registers | null, most: number): Promise<JavaStack> {
    const starts = await this.starts(thread, registers);
    let best: JavaStack | undefined;
    for (const start of starts) {
      const stack = await this.follow(thread, start, most, registers);
      if (stack.ending !== 'lost') return stack;
      best ??= stack;
    }
    return best ?? { frames: [], end: 'it has no Java frame', ending: 'none' };
  }

  /** Where the walk may begin, the likeliest first. */
  private async starts(thread: JavaThread, registers: Registers | null): Promise<Place[]> {
    const { structs } = this.vm;
    if (registers && this.code.contains(registers.rip)) return this.startsInCode(registers);
    const anchor = thread.address + BigInt(structs.offset('JavaThread', '_anchor'));
    const noted = await this.anchored(anchor);
    if (noted) return [noted];
    return registers ? this.startsInNative(thread, registers) : [];
  }

  private async startsInCode({ rip: pc, rsp: sp, rbp: fp }: Registers): Promise<Place[]> {
    const { memory } = this.vm.structs;
    const here: Place = { pc, sp, fp, unextendedSp: sp, running: true };
    const word = (at: bigint): Promise<bigint> => memory.u64(at).catch(() => 0n);
    // Where the frame is not set up yet, or no longer: the return address is on top of the stack, or above the saved frame pointer.
    const called: Place = { pc: await word(sp), sp: sp + WORD, fp, unextendedSp: sp + WORD, running: false };
    const saved: Place = {
      pc: await word(sp + WORD),
      sp: sp + 2n * WORD,
      fp: await word(sp),
      unextendedSp: sp + 2n * WORD,
      running: false,
    };
    const framed: Place = {
      pc: await word(fp + WORD),
      sp: fp + 2n * WORD,
      fp: await word(fp),
      unextendedSp: fp + 2n * WORD,
      running: false,
    };
    const blob = await this.code.blobAt(pc);
    const early = blob !== null && isMethod(blob) && pc < blob.start + BigInt(Math.max(0, blob.frameComplete));
    const others = [called, saved, framed].filter((place) => this.code.contains(place.pc));
    return early ? [...others, here] : [here, ...others];
  }

  /** A leaf of the virtual machine that Java code called without a note: its own frame pointers lead back. */
  private async startsInNative(thread: JavaThread, registers: Registers): Promise<Place[]> {
    const { memory } = this.vm.structs;
    if (thread.vmState !== 'in Java') return [];
    let fp = registers.rbp;
    for (let depth = 0; depth < 64 && fp >= registers.rsp && fp < thread.stack.end; depth++) {
      const [next, pc] = [await memory.u64(fp), await memory.u64(fp + WORD)];
      const sp = fp + 2n * WORD;
      if (this.code.contains(pc)) return [{ pc, sp, fp: next, unextendedSp: sp, running: false }];
      if (next <= fp) break;
      fp = next;
    }
    return [];
  }

  /** The frame that a JavaFrameAnchor notes; null for none. */
  private async anchored(anchor: bigint): Promise<Place | null> {
    const { structs } = this.vm;
    const sp = await structs.pointer('JavaFrameAnchor', anchor, '_last_Java_sp');
    if (sp === 0n) return null;
    const pc = await structs.pointer('JavaFrameAnchor', anchor, '_last_Java_pc');
    const fp = await structs.pointer('JavaFrameAnchor', anchor, '_last_Java_fp');
    return { pc: pc === 0n ? await structs.memory.u64(sp - WORD) : pc, sp, fp, unextendedSp: sp, running: false };
  }

  private async follow(thread: JavaThread, start: Place, most: number, registers: Registers | null): Promise<JavaStack> {
    const frames: JavaFrame[] = [];
    const ended = (end: string, ending: JavaStack['ending'] = 'lost'): JavaStack => ({ frames, end, ending });
    let place = start;
    try {
      for (;;) {
        if (frames.length >= most) return ended(`after ${most} frames, the most that are shown`, 'limit');
        const { sp } = place;
        if (sp < thread.stack.start || sp > thread.stack.end) return ended(`the stack pointer ${hex(sp)} is outside of the thread's stack`);
        const next: Place | string = await this.step(thread, place, frames, registers);
        if (typeof next === 'string') return ended(next, 'first');
        if (next.sp <= sp) return ended(`the frame below ${hex(place.pc)} does not lie above it`);
        place = next;
      }
    } catch (error) {
      return ended(reasonOf(error));
    }
  }

  /** Adds what is at `place` to `frames`; the caller's place, or why there is none. */
  private async step(thread: JavaThread, place: Place, frames: JavaFrame[], registers: Registers | null): Promise<Place | string> {
    const { structs } = this.vm;
    const { pc, sp, fp } = place;
    if (pc === this.callStubReturn) {
      frames.push(other('entry', pc));
      const offset = BigInt(structs.constant('frame::entry_frame_call_wrapper_offset', -6));
      const wrapper = await structs.memory.u64(fp + offset * WORD);
      return (await this.anchored(wrapper + BigInt(structs.offset('JavaCallWrapper', '_anchor')))) ?? FIRST;
    }
    if (this.code.isInterpreter(pc)) {
      const bytecode = place.running ? registers!.r13 : null;
      frames.push(await this.interpreted(pc, fp, bytecode));
      return {
        pc: await structs.memory.u64(fp + WORD),
        sp: fp + 2n * WORD,
        fp: await structs.memory.u64(fp),
        unextendedSp: await structs.memory.u64(fp + SENDER_SP * WORD),
        running: false,
      };
    }
    const blob = await this.code.blobAt(pc);
    if (!blob) throw new Unreadable(`there is no code of the virtual machine at ${hex(pc)}`);
    const frozen = /continuation/i.test(blob.name);
    if (isMethod(blob)) await this.addCompiled(blob, place, frames);
    else if (frozen) frames.push(other('frozen', pc));
    else frames.push({ ...other('stub', pc), stub: blob.name });
    if (/upcall_stub/.test(blob.name) && structs.has('UpcallStub', '_frame_data_offset')) {
      const data = place.unextendedSp + BigInt(await structs.int('UpcallStub', blob.address, '_frame_data_offset'));
      const anchor = data + BigInt(structs.offset('UpcallStub::FrameData', 'jfa'));
      frames.push(other('entry', pc));
      return (await this.anchored(anchor)) ?? FIRST;
    }
    if (frozen) return this.carrier(thread);
    if (blob.frameSize === 0n) {
      // A stub that set up no frame of fixed size keeps the frame pointer.
      const sender = fp + 2n * WORD;
      return {
        pc: await structs.memory.u64(fp + WORD),
        sp: sender,
        fp: await structs.memory.u64(fp),
        unextendedSp: sender,
        running: false,
      };
    }
    const sender = place.unextendedSp + blob.frameSize;
    if (sender <= sp && place.unextendedSp === sp) throw new Unreadable(`the frame of ${blob.name} at ${hex(pc)} has no size`);
    return {
      pc: await structs.memory.u64(sender - WORD),
      sp: sender,
      fp: await structs.memory.u64(sender - 2n * WORD),
      unextendedSp: sender,
      running: false,
    };
  }

  /** Behind the frames of a virtual thread that are on the stack: its others are in the heap, below are those of the thread that carries it. */
  private async carrier(thread: JavaThread): Promise<Place | string> {
    const { structs } = this.vm;
    if (!structs.has('JavaThread', '_cont_entry') || !structs.has('ContinuationEntry', '_return_pc')) {
      return 'the other frames of the virtual thread are in the heap, where it sleeps';
    }
    const entry = await structs.pointer('JavaThread', thread.address, '_cont_entry');
    if (entry === 0n) throw new Unreadable('the virtual thread has no carrier');
    return {
      pc: await structs.static('ContinuationEntry', '_return_pc'),
      sp: entry,
      fp: entry + BigInt(structs.size('ContinuationEntry')),
      unextendedSp: entry,
      running: false,
    };
  }

  private async interpreted(pc: bigint, fp: bigint, running: bigint | null): Promise<JavaFrame> {
    const { structs, metadata } = this.vm;
    const method = await metadata.method(await structs.memory.u64(fp + METHOD * WORD));
    const { start, end } = method.code;
    const inside = (at: bigint): boolean => at >= start && at < end;
    let bytecode = await structs.memory.u64(fp + BYTECODE * WORD);
    // While the interpreter runs the method itself, a register has the place.
    if (running !== null && inside(running)) bytecode = running;
    if (method.isNative) return { ...other('native', pc), method };
    if (!inside(bytecode)) throw new Unreadable(`the interpreted frame at ${hex(fp)} is not complete`);
    const bci = Number(bytecode - start);
    return { ...other('interpreted', pc), method, bci, line: await method.line(bci) };
  }

  private async addCompiled(blob: CodeBlob, place: Place, frames: JavaFrame[]): Promise<void> {
    const { metadata } = this.vm;
    const compiled = await CompiledMethod.open(this.vm, blob);
    const compiler = await compiled.compiler();
    const pc = await compiled.truePc(place.pc, place.unextendedSp);
    const own = await metadata.method(compiled.method);
    if (own.isNative) {
      frames.push({ ...other('native', place.pc), method: own });
      return;
    }
    const scopes: Scope[] = (await compiled.scopesAt(pc)) ?? [];
    if (scopes.length === 0) {
      // Between the places that the compiler described: which methods it put in here is not known.
      frames.push({ ...other('compiled', place.pc), method: own, compiler });
      return;
    }
    for (const [index, { method: address, bci }] of scopes.entries()) {
      const method = await metadata.method(address);
      const last = index === scopes.length - 1;
      const kind = last ? 'compiled' : 'inlined';
      frames.push({ ...other(kind, last ? place.pc : null), method, bci, line: await method.line(bci), compiler });
    }
  }
}

function other(kind: JavaFrame['kind'], pc: bigint | null): JavaFrame {
  return { kind, pc, method: null, bci: null, line: null, stub: null, compiler: null };
}
