import type { CodeBlob } from './code-cache.js';
import { Unreadable } from './memory.js';
import { Unsigned5 } from './unsigned5.js';
import type { Vm } from './vm.js';

/** Methods that were compiled into one another at one place, at most. */
const DEEPEST_INLINING = 256;
const LARGEST_DEBUG_INFORMATION = 8 << 20;

/** One Java method at a place in compiled code. */
export interface Scope {
  /** Method*. */
  method: bigint;
  bci: number;
}

/** Where a compiled method (HotSpot's nmethod) keeps what debuggers need. */
interface Parts {
  method: bigint;
  /** Descriptions of places: [start, end). */
  places: { start: bigint; end: bigint };
  scopes: bigint;
  metadata: { start: bigint; end: bigint };
  /** Return addresses that are changed to these belong to frames that wait to be interpreted. */
  deoptimizers: bigint[];
  /** From the frame's stack pointer: where the true return address of such a frame is. */
  originalPc: bigint;
}

/** What is known of the code that was compiled from one Java method. */
export class CompiledMethod {
  private constructor(
    private readonly vm: Vm,
    private readonly blob: CodeBlob,
    private readonly parts: Parts,
  ) {}

  static async open(vm: Vm, blob: CodeBlob): Promise<CompiledMethod> {
    const { structs } = vm;
    const { address } = blob;
    const int = (field: string): Promise<number> => structs.int('nmethod', address, field);
    const at = async (base: bigint, field: string): Promise<bigint> => base + BigInt(await int(field));
    const owner = structs.has('CompiledMethod', '_method') ? 'CompiledMethod' : 'nmethod';
    const pointer = (field: string): Promise<bigint> => structs.pointer(owner, address, field);
    // The places of the parts have moved with the versions: absolute, from the header, and since JDK 23 in memory of their own.
    const separate = structs.has('nmethod', '_immutable_data');
    const immutable = separate ? await structs.pointer('nmethod', address, '_immutable_data') : address;
    const mutable = structs.has('CodeBlob', '_mutable_data') ? await structs.pointer('CodeBlob', address, '_mutable_data') : null;
    const scopes = separate ? await at(immutable, '_scopes_data_offset') : await pointer('_scopes_data_begin');
    const metadata =
      mutable === null
        ? {
            start: await metadataStart(vm, address),
            end: separate ? address + BigInt(await structs.int('CodeBlob', address, '_size')) : scopes,
          }
        : {
            start: mutable + BigInt(await structs.int('CodeBlob', address, '_relocation_size')),
            end: mutable + BigInt(await structs.int('CodeBlob', address, '_mutable_data_size')),
          };
    const deoptimizers = structs.has('nmethod', '_deopt_handler_offset')
      ? [await at(address, '_deopt_handler_offset')]
      : [await pointer('_deopt_handler_begin'), await pointer('_deopt_mh_handler_begin')];
    return new CompiledMethod(vm, blob, {
      method: await pointer('_method'),
      places: {
        start: await at(immutable, '_scopes_pcs_offset'),
        end: await at(immutable, separate ? '_immutable_data_size' : '_dependencies_offset'),
      },
      scopes,
      metadata,
      deoptimizers,
      originalPc: BigInt(await int('_orig_pc_offset')),
    });
  }

  /** Method*. */
  get method(): bigint {
    return this.parts.method;
  }

  /** Which compiler made it. */
  async compiler(): Promise<'C1' | 'C2' | null> {
    const { structs } = this.vm;
    const at = this.blob.address + BigInt(structs.offset('nmethod', '_comp_level'));
    const level = structs.typeOf('nmethod', '_comp_level') === 'int' ? await structs.memory.i32(at) : await structs.memory.u8(at);
    return level >= 1 && level <= 3 ? 'C1' : level === 4 ? 'C2' : null;
  }

  /** The return address as it was before the frame was marked for the interpreter. */
  async truePc(pc: bigint, stackPointer: bigint): Promise<bigint> {
    const { deoptimizers, originalPc } = this.parts;
    return deoptimizers.includes(pc) ? this.vm.structs.memory.u64(stackPointer + originalPc) : pc;
  }

  /** The Java methods at a return address, the innermost first; null where the compiler left no description of exactly this place. */
  async scopesAt(pc: bigint): Promise<Scope[] | null> {
    const { structs } = this.vm;
    const { start, end } = this.parts.places;
    if (end < start || end - start > LARGEST_DEBUG_INFORMATION)
      throw new Unreadable('the debug information of a compiled method is damaged');
    const size = structs.size('PcDesc');
    const raw = await structs.memory.bytes(start, Number(end - start));
    const wanted = Number(pc - this.blob.start);
    const [place, decode] = [structs.offset('PcDesc', '_pc_offset'), structs.offset('PcDesc', '_scope_decode_offset')];
    for (let at = 0; at + size <= raw.length; at += size) {
      if (raw.readInt32LE(at + place) !== wanted) continue;
      const offset = raw.readInt32LE(at + decode);
      return offset > 0 ? this.decode(offset) : null;
    }
    return null;
  }

  private async decode(first: number): Promise<Scope[]> {
    const { structs, version } = this.vm;
    const { memory } = structs;
    const { scopes: data, metadata } = this.parts;
    const scopes: Scope[] = [];
    for (let offset = first; offset > 0 && scopes.length < DEEPEST_INLINING;) {
      // Three numbers of at most five bytes.
      const stream = new Unsigned5(await memory.bytes(data + BigInt(offset), 15), version);
      const caller = stream.unsigned();
      const index = stream.unsigned();
      const bci = stream.unsigned() + structs.constant('InvocationEntryBci', -1);
      const entry = metadata.start + BigInt(index - 1) * 8n;
      if (index === 0 || entry >= metadata.end) throw new Unreadable('the debug information of a compiled method is damaged');
      scopes.push({ method: await memory.u64(entry), bci });
      offset = caller;
    }
    return scopes;
  }
}

async function metadataStart(vm: Vm, address: bigint): Promise<bigint> {
  const { structs } = vm;
  if (structs.typeOf('nmethod', '_metadata_offset') === 'int')
    return address + BigInt(await structs.int('nmethod', address, '_metadata_offset'));
  const data = address + BigInt(await structs.int('CodeBlob', address, '_data_offset'));
  return data + BigInt(await structs.memory.u16(address + BigInt(structs.offset('nmethod', '_metadata_offset'))));
}
