import { exportedSymbols } from '../dynamic-symbols.js';
import { Unreadable, type CachedMemory } from './memory.js';

/** Entries of one table at most: HotSpot has about 3000 of the largest kind. */
const MOST_ENTRIES = 20_000;

interface Field {
  typeString: string;
  /** From the object's start; null for static fields. */
  offset: number | null;
  /** Of a static field. */
  address: bigint;
}

interface Type {
  superclass: string | null;
  size: number;
}

/** This virtual machine does not have a thing by this name: another version than those that are known. */
export class NotExported extends Unreadable {
  constructor(what: string) {
    super(`this JVM does not export ${what}`);
  }
}

/**
 * What HotSpot tells debuggers about itself (src/hotspot/share/runtime/vmStructs.hpp): layout of its C++ types, addresses of static fields, and
 * constants, in tables that libjvm.so exports and that describe their own layout.
 */
export class VmStructs {
  private readonly fields = new Map<string, Map<string, Field>>();
  private readonly types = new Map<string, Type>();
  private readonly constants = new Map<string, bigint>();

  private constructor(readonly memory: CachedMemory) {}

  /** Reads the tables of the libjvm.so whose first byte is mapped at `start`. */
  static async read(memory: CachedMemory, start: bigint): Promise<VmStructs> {
    const names = Object.values(TABLES).flatMap(({ table, layout }) => [table, ...Object.values(layout)]);
    const symbols = await exportedSymbols(memory.space, start, names);
    const structs = new VmStructs(memory);
    const rows = async function* <K extends keyof typeof TABLES>(kind: K): AsyncGenerator<Row<K>> {
      const { table, layout } = TABLES[kind];
      const value = async (name: string): Promise<bigint> => {
        const address = symbols.get(name);
        if (address === undefined) throw new NotExported(name);
        return memory.u64(address);
      };
      const at = await value(table);
      const { stride: strideName, ...columns } = layout;
      const stride = Number(await value(strideName));
      const offsets: [string, number][] = [];
      for (const [column, name] of Object.entries(columns)) offsets.push([column, Number(await value(name))]);
      if (stride < 8 || stride > 256 || offsets.some(([, offset]) => offset < 0 || offset + 8 > stride)) {
        throw new Unreadable(`${table} does not describe its own layout`);
      }
      for (let index = 0; index < MOST_ENTRIES; index++) {
        const raw = await memory.bytes(at + BigInt(index * stride), stride);
        const row = Object.fromEntries(offsets.map(([column, offset]) => [column, raw.readBigUInt64LE(offset)]));
        if (row['name'] === 0n) return;
        yield row as Row<K>;
      }
      throw new Unreadable(`${table} has no end`);
    };
    const text = async (pointer: bigint): Promise<string> => (pointer === 0n ? '' : memory.text(pointer, 512));
    for await (const row of rows('types')) {
      const superclass = await text(row.superclass);
      structs.types.set(await text(row.name), { superclass: superclass || null, size: Number(row.size & 0x7fffffffn) });
    }
    for await (const row of rows('structs')) {
      const type = await text(row.name);
      let known = structs.fields.get(type);
      if (!known) structs.fields.set(type, (known = new Map()));
      const isStatic = (row.isStatic & 0xffffffffn) !== 0n;
      known.set(await text(row.field), {
        typeString: await text(row.type),
        offset: isStatic ? null : Number(row.offset & 0x7fffffffn),
        address: row.address,
      });
    }
    for await (const row of rows('ints')) structs.constants.set(await text(row.name), BigInt.asIntN(32, row.value));
    for await (const row of rows('longs')) structs.constants.set(await text(row.name), BigInt.asIntN(64, row.value));
    return structs;
  }

  private find(type: string, field: string): Field | undefined {
    // Superclasses of a damaged table may form a ring.
    let name: string | null = type;
    for (let depth = 0; name !== null && depth < 32; depth++) {
      const found = this.fields.get(name)?.get(field);
      if (found) return found;
      name = this.types.get(name)?.superclass ?? null;
    }
    return undefined;
  }

  hasType(type: string): boolean {
    return this.types.has(type);
  }

  has(type: string, field: string): boolean {
    return this.find(type, field) !== undefined;
  }

  /** Of a field from the start of an object, in bytes. */
  offset(type: string, field: string): number {
    const found = this.find(type, field);
    if (!found || found.offset === null) throw new NotExported(`${type}::${field}`);
    return found.offset;
  }

  /** The C++ type of a field as text. */
  typeOf(type: string, field: string): string {
    const found = this.find(type, field);
    if (!found) throw new NotExported(`${type}::${field}`);
    return found.typeString;
  }

  /** Of a static field. */
  address(type: string, field: string): bigint {
    const found = this.find(type, field);
    if (!found || found.offset !== null) throw new NotExported(`the static field ${type}::${field}`);
    return found.address;
  }

  /** Bytes. */
  size(type: string): number {
    const found = this.types.get(type);
    if (!found) throw new NotExported(`the type ${type}`);
    return found.size;
  }

  hasConstant(name: string): boolean {
    return this.constants.has(name);
  }

  /** An integer constant or enumerator; `fallback` where this version does not export it. */
  constant(name: string, fallback?: number): number {
    const value = this.constants.get(name);
    if (value !== undefined) return Number(value);
    if (fallback === undefined) throw new NotExported(`the constant ${name}`);
    return fallback;
  }

  /** All constants whose name begins so: name without that beginning, and value. */
  constantsOf(prefix: string): [string, number][] {
    return [...this.constants]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, value]) => [name.slice(prefix.length), Number(value)]);
  }

  /** A static field that is a pointer or a 64-bit number. */
  async static(type: string, field: string): Promise<bigint> {
    return this.memory.u64(this.address(type, field));
  }

  /** A pointer in an object. */
  async pointer(type: string, object: bigint, field: string): Promise<bigint> {
    return this.memory.u64(object + BigInt(this.offset(type, field)));
  }

  /** A 32-bit signed number in an object. */
  async int(type: string, object: bigint, field: string): Promise<number> {
    return this.memory.i32(object + BigInt(this.offset(type, field)));
  }
}

const TABLES = {
  structs: {
    table: 'gHotSpotVMStructs',
    layout: {
      stride: 'gHotSpotVMStructEntryArrayStride',
      name: 'gHotSpotVMStructEntryTypeNameOffset',
      field: 'gHotSpotVMStructEntryFieldNameOffset',
      type: 'gHotSpotVMStructEntryTypeStringOffset',
      isStatic: 'gHotSpotVMStructEntryIsStaticOffset',
      offset: 'gHotSpotVMStructEntryOffsetOffset',
      address: 'gHotSpotVMStructEntryAddressOffset',
    },
  },
  types: {
    table: 'gHotSpotVMTypes',
    layout: {
      stride: 'gHotSpotVMTypeEntryArrayStride',
      name: 'gHotSpotVMTypeEntryTypeNameOffset',
      superclass: 'gHotSpotVMTypeEntrySuperclassNameOffset',
      size: 'gHotSpotVMTypeEntrySizeOffset',
    },
  },
  ints: {
    table: 'gHotSpotVMIntConstants',
    layout: {
      stride: 'gHotSpotVMIntConstantEntryArrayStride',
      name: 'gHotSpotVMIntConstantEntryNameOffset',
      value: 'gHotSpotVMIntConstantEntryValueOffset',
    },
  },
  longs: {
    table: 'gHotSpotVMLongConstants',
    layout: {
      stride: 'gHotSpotVMLongConstantEntryArrayStride',
      name: 'gHotSpotVMLongConstantEntryNameOffset',
      value: 'gHotSpotVMLongConstantEntryValueOffset',
    },
  },
} as const;

type Row<K extends keyof typeof TABLES> = Record<Exclude<keyof (typeof TABLES)[K]['layout'], 'stride'>, bigint>;
