import { Unreadable } from './memory.js';
import { Unsigned5 } from './unsigned5.js';
import type { VmStructs } from './vm-structs.js';

/** Supertypes and fields of one class at most. */
const MOST_FIELDS = 65_536;
const DEEPEST_CLASS = 256;
const LONGEST_TABLE = 1n << 22n;

const ACC_STATIC = 0x8;
const ACC_NATIVE = 0x100;
/** ConstMethod::_has_linenumber_table. */
const HAS_LINES = 1;

export interface Field {
  /** In the object, or in the class's mirror for a static field. */
  offset: number;
  isStatic: boolean;
  signature: string;
}

export interface Method {
  /** `java.util.List`. */
  className: string;
  name: string;
  /** As in the class file: `(Ljava/lang/String;)V`. */
  signature: string;
  isNative: boolean;
  /** `List.java`; null without debug information. */
  file: string | null;
  /** Where the bytecodes are: [start, end). */
  code: { start: bigint; end: bigint };
  /** Line of a bytecode; null without debug information. */
  line: (bci: number) => Promise<number | null>;
}

/** Symbols, classes and methods as HotSpot holds them in metaspace and the class data archive. */
export class Metadata {
  private readonly symbols = new Map<bigint, string>();
  private readonly fieldTables = new Map<bigint, Map<string, Field>>();
  private readonly methods = new Map<bigint, Method>();

  constructor(
    private readonly structs: VmStructs,
    private readonly version: number,
  ) {}

  /** The text of a Symbol*. */
  async symbol(address: bigint): Promise<string> {
    let text = this.symbols.get(address);
    if (text === undefined) {
      const { structs } = this;
      const length = await structs.memory.u16(address + BigInt(structs.offset('Symbol', '_length')));
      const body = address + BigInt(structs.offset('Symbol', structs.has('Symbol', '_body') ? '_body' : '_body[0]'));
      text = (await structs.memory.bytes(body, length)).toString();
      this.symbols.set(address, text);
    }
    return text;
  }

  /** `java.lang.Thread`. Hidden classes have the address of their class behind a slash, as in stack traces. */
  async className(klass: bigint): Promise<string> {
    const name = await this.symbol(await this.structs.pointer('Klass', klass, '_name'));
    return name.replaceAll('/', '.').replace(/\+(?=0x[0-9a-f]+$)/, '/');
  }

  /** A field of a class or of one of its superclasses; null when there is none of that name. */
  async field(klass: bigint, name: string): Promise<Field | null> {
    let at = klass;
    for (let depth = 0; at !== 0n && depth < DEEPEST_CLASS; depth++) {
      const found = (await this.fieldsOf(at)).get(name);
      if (found) return found;
      at = await this.structs.pointer('Klass', at, '_super');
    }
    return null;
  }

  private async fieldsOf(klass: bigint): Promise<Map<string, Field>> {
    let fields = this.fieldTables.get(klass);
    if (!fields) {
      const compressed = this.structs.has('InstanceKlass', '_fieldinfo_stream');
      fields = compressed ? await this.compressedFields(klass) : await this.plainFields(klass);
      this.fieldTables.set(klass, fields);
    }
    return fields;
  }

  /** Until JDK 20: six 16-bit numbers for each field. */
  private async plainFields(klass: bigint): Promise<Map<string, Field>> {
    const { structs } = this;
    const { memory } = structs;
    const slots = structs.constant('FieldInfo::field_slots', 6);
    const count = await memory.u16(klass + BigInt(structs.offset('InstanceKlass', '_java_fields_count')));
    const array = await structs.pointer('InstanceKlass', klass, '_fields');
    const raw = await memory.bytes(array + BigInt(structs.offset('Array<u2>', '_data')), count * slots * 2);
    const pool = await structs.pointer('InstanceKlass', klass, '_constants');
    const fields = new Map<string, Field>();
    for (let index = 0; index < count; index++) {
      const slot = (name: string, fallback: number): number =>
        raw.readUInt16LE((index * slots + structs.constant(`FieldInfo::${name}`, fallback)) * 2);
      const packed = slot('low_packed_offset', 4) | (slot('high_packed_offset', 5) << 16);
      fields.set(await this.poolSymbol(pool, slot('name_index_offset', 1)), {
        offset: packed >>> structs.constant('FIELDINFO_TAG_SIZE', 2),
        isStatic: (slot('access_flags_offset', 0) & ACC_STATIC) !== 0,
        signature: await this.poolSymbol(pool, slot('signature_index_offset', 2)),
      });
    }
    return fields;
  }

  /** Since JDK 21: a stream of compressed numbers. */
  private async compressedFields(klass: bigint): Promise<Map<string, Field>> {
    const { structs } = this;
    const { memory } = structs;
    const array = await structs.pointer('InstanceKlass', klass, '_fieldinfo_stream');
    const length = await memory.i32(array);
    if (length < 0 || length > MOST_FIELDS * 32) throw new Unreadable(`the fields of a class take ${length} bytes`);
    const data = array + BigInt(structs.offset('Array<u1>', '_data'));
    const stream = new Unsigned5(await memory.bytes(data, length), this.version);
    const pool = await structs.pointer('InstanceKlass', klass, '_constants');
    const bit = (name: string, fallback: number): number => 1 << structs.constant(`FieldInfo::FieldFlags::_ff_${name}`, fallback);
    const optional = [bit('initialized', 0), bit('generic', 2), bit('contended', 4)];
    const javaFields = stream.unsigned();
    stream.unsigned(); // fields that the virtual machine added come behind
    const fields = new Map<string, Field>();
    for (let index = 0; index < javaFields && !stream.atEnd; index++) {
      const [name, signature, offset, access, flags] = [
        stream.unsigned(),
        stream.unsigned(),
        stream.unsigned(),
        stream.unsigned(),
        stream.unsigned(),
      ];
      for (const one of optional) if (flags & one) stream.unsigned();
      fields.set(await this.poolSymbol(pool, name), {
        offset,
        isStatic: (access & ACC_STATIC) !== 0,
        signature: await this.poolSymbol(pool, signature),
      });
    }
    return fields;
  }

  /** A symbol in a constant pool. */
  private async poolSymbol(pool: bigint, index: number): Promise<string> {
    const { structs } = this;
    if (index >= (await structs.int('ConstantPool', pool, '_length')))
      throw new Unreadable('an index is behind the end of a constant pool');
    return this.symbol(await structs.memory.u64(pool + BigInt(structs.size('ConstantPool') + index * 8)));
  }

  async method(address: bigint): Promise<Method> {
    let method = this.methods.get(address);
    if (!method) {
      method = await this.readMethod(address);
      this.methods.set(address, method);
    }
    return method;
  }

  private async readMethod(address: bigint): Promise<Method> {
    const { structs } = this;
    const { memory } = structs;
    const constMethod = await structs.pointer('Method', address, '_constMethod');
    const u16 = (field: string): Promise<number> => memory.u16(constMethod + BigInt(structs.offset('ConstMethod', field)));
    const pool = await structs.pointer('ConstMethod', constMethod, '_constants');
    const holder = await structs.pointer('ConstantPool', pool, '_pool_holder');
    const size = await u16('_code_size');
    const start = constMethod + BigInt(structs.size('ConstMethod'));
    const access = await memory.u16(address + BigInt(structs.offset('Method', '_access_flags')));
    const file = structs.has('ConstantPool', '_source_file_name_index')
      ? await memory.u16(pool + BigInt(structs.offset('ConstantPool', '_source_file_name_index')))
      : await memory.u16(holder + BigInt(structs.offset('InstanceKlass', '_source_file_name_index')));
    const flags = await u16(structs.has('ConstMethod', '_flags._flags') ? '_flags._flags' : '_flags');
    const end = start + BigInt(size);
    const tableEnd = constMethod + BigInt(await structs.int('ConstMethod', constMethod, '_constMethod_size')) * 8n;
    return {
      className: await this.className(holder),
      name: await this.poolSymbol(pool, await u16('_name_index')),
      signature: await this.poolSymbol(pool, await u16('_signature_index')),
      isNative: (access & ACC_NATIVE) !== 0,
      file: file === 0 ? null : await this.poolSymbol(pool, file),
      code: { start, end },
      // The compressed table of lines follows the bytecodes.
      line: async (bci) => ((flags & HAS_LINES) === 0 || bci < 0 ? null : this.lineOf(end, tableEnd, bci)),
    };
  }

  /** The line of a bytecode in a compressed table at [start, end): pairs of steps, one byte where both are small. */
  private async lineOf(start: bigint, end: bigint, bci: number): Promise<number | null> {
    if (end < start || end - start > LONGEST_TABLE) throw new Unreadable('a method is longer than any can be');
    const stream = new Unsigned5(await this.structs.memory.bytes(start, Number(end - start)), this.version);
    let [at, line, bestAt] = [0, 0, -1];
    let best: number | null = null;
    while (!stream.atEnd) {
      const next = stream.byte();
      if (next === 0) break;
      if (next === 0xff) {
        at += stream.signed();
        line += stream.signed();
      } else {
        at += next >> 3;
        line += next & 7;
      }
      if (at <= bci && at >= bestAt) [bestAt, best] = [at, line];
    }
    return best;
  }
}
