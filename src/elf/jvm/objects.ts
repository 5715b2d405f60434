import { Unreadable } from './memory.js';
import type { Metadata } from './metadata.js';
import type { VmStructs } from './vm-structs.js';
import { zAddresses, type ZVariant } from './zgc.js';

const LONGEST_STRING = 65_536;

/** How an object begins, and how references in it are written. */
interface Layout {
  /** Of compressed references; null when references are full pointers. */
  references: { base: bigint; shift: bigint } | null;
  /** Of compressed class pointers; null when they are full pointers. `markShift`: in the mark word from this bit on (compact headers). */
  classes: { base: bigint; shift: bigint; markShift: number | null } | null;
  /** Where an array has its length, and a byte array its first byte. */
  arrayLength: number;
  byteArrayBase: number;
  /** What a full reference means: the address itself but for ZGC. */
  address: (reference: bigint) => Promise<bigint>;
}

export interface LayoutFlags {
  compressedReferences: boolean;
  compressedClasses: boolean;
  compactHeaders: boolean;
  /** Null for other collectors. */
  z: ZVariant | null;
}

/** Java objects, by address. */
export class Objects {
  private constructor(
    private readonly structs: VmStructs,
    private readonly metadata: Metadata,
    private readonly layout: Layout,
  ) {}

  static async open(structs: VmStructs, metadata: Metadata, version: number, flags: LayoutFlags): Promise<Objects> {
    const encoding = async (...owners: [type: string, prefix: string][]): Promise<{ base: bigint; shift: bigint }> => {
      const [type, prefix] = owners.find(([owner, before]) => structs.has(owner, `${before}_base`)) ?? owners[0]!;
      return {
        base: await structs.static(type, `${prefix}_base`),
        shift: BigInt((await structs.memory.u32(structs.address(type, `${prefix}_shift`))) & 31),
      };
    };
    const { compressedReferences, compressedClasses, compactHeaders, z } = flags;
    const references = compressedReferences
      ? await encoding(['CompressedOops', ''], ['CompressedOops', '_narrow_oop.'], ['Universe', '_narrow_oop.'])
      : null;
    const classes =
      compressedClasses || compactHeaders
        ? {
            ...(await encoding(
              ['CompressedKlassPointers', ''],
              ['CompressedKlassPointers', '_narrow_klass.'],
              ['Universe', '_narrow_klass.'],
            )),
            markShift: compactHeaders ? structs.constant('markWord::klass_shift') : null,
          }
        : null;
    const arrayLength = compactHeaders ? 8 : compressedClasses ? 12 : 16;
    // Until JDK 22 elements began at a multiple of eight.
    const byteArrayBase = version >= 23 ? arrayLength + 4 : (arrayLength + 4 + 7) & -8;
    const address = z ? await zAddresses(structs, z) : async (reference: bigint) => reference;
    return new Objects(structs, metadata, { references, classes, arrayLength, byteArrayBase, address });
  }

  /** The object that an OopHandle field points to: 0 for none. */
  async resolve(handle: bigint): Promise<bigint> {
    return handle === 0n ? 0n : this.layout.address(await this.structs.memory.u64(handle));
  }

  /** The Klass* of an object. */
  async klass(object: bigint): Promise<bigint> {
    const { memory } = this.structs;
    const { classes } = this.layout;
    if (!classes) return memory.u64(object + 8n);
    const { base, shift, markShift } = classes;
    const compressed = markShift === null ? BigInt(await memory.u32(object + 8n)) : (await memory.u64(object)) >> BigInt(markShift);
    if (compressed === 0n) throw new Unreadable(`there is no object at 0x${object.toString(16)}`);
    return base + (compressed << shift);
  }

  async className(object: bigint): Promise<string> {
    return this.metadata.className(await this.klass(object));
  }

  /** A reference at an address in the heap. */
  private async reference(at: bigint): Promise<bigint> {
    const { memory } = this.structs;
    const { references, address } = this.layout;
    if (!references) return address(await memory.u64(at));
    const compressed = BigInt(await memory.u32(at));
    return compressed === 0n ? 0n : references.base + (compressed << references.shift);
  }

  /** The place of a field of an object; null when its class has none of that name. */
  private async place(object: bigint, name: string): Promise<bigint | null> {
    const field = await this.metadata.field(await this.klass(object), name);
    return field === null || field.isStatic ? null : object + BigInt(field.offset);
  }

  /** The object that a field refers to; 0 for null, and for a class without that field. */
  async object(holder: bigint, name: string): Promise<bigint> {
    const place = await this.place(holder, name);
    return place === null ? 0n : this.reference(place);
  }

  /** A field of a primitive type; null for a class without that field. */
  async number(holder: bigint, name: string): Promise<bigint | null> {
    const field = await this.metadata.field(await this.klass(holder), name);
    if (field === null || field.isStatic) return null;
    return this.primitive(holder + BigInt(field.offset), field.signature);
  }

  private async primitive(at: bigint, signature: string): Promise<bigint> {
    const { memory } = this.structs;
    switch (signature) {
      case 'Z':
      case 'B':
        return BigInt.asIntN(8, BigInt(await memory.u8(at)));
      case 'S':
        return BigInt.asIntN(16, BigInt(await memory.u16(at)));
      case 'C':
        return BigInt(await memory.u16(at));
      case 'I':
        return BigInt(await memory.i32(at));
      case 'J':
        return BigInt.asIntN(64, await memory.u64(at));
      default:
        throw new Unreadable(`a field of type ${signature} is no integer`);
    }
  }

  /** A static field of a class: a number, or the object that it refers to; null for a class without that field. */
  async static(klass: bigint, name: string): Promise<bigint | null> {
    const field = await this.metadata.field(klass, name);
    if (!field?.isStatic) return null;
    const mirror = await this.resolve(await this.structs.pointer('Klass', klass, '_java_mirror'));
    if (mirror === 0n) return null;
    const at = mirror + BigInt(field.offset);
    return /^[L[]/.test(field.signature) ? this.reference(at) : this.primitive(at, field.signature);
  }

  /** The text of a java.lang.String; null for null. */
  async string(object: bigint): Promise<string | null> {
    if (object === 0n) return null;
    const className = await this.className(object);
    if (className !== 'java.lang.String') throw new Unreadable(`there is a ${className} where a string should be`);
    const value = await this.object(object, 'value');
    const coder = await this.number(object, 'coder');
    const { memory } = this.structs;
    const length = await memory.i32(value + BigInt(this.layout.arrayLength));
    if (length < 0 || length > LONGEST_STRING) throw new Unreadable(`a string has ${length} bytes`);
    const bytes = await memory.bytes(value + BigInt(this.layout.byteArrayBase), length);
    return bytes.toString(coder === 0n ? 'latin1' : 'utf16le');
  }
}
