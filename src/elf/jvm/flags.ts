import { Unreadable } from './memory.js';
import type { VmStructs } from './vm-structs.js';

/** HotSpot has about 1500 flags. */
const MOST_FLAGS = 5000;

export interface Flag {
  name: string;
  /** As `jcmd VM.flags` prints it. */
  value: string;
  /** Who set it: `command line`, `ergonomic`, `environment` … */
  origin: string;
}

/** Order of JVMFlag::TYPE_…; versions before 16 have the names themselves. */
const TYPES = ['bool', 'int', 'uint', 'intx', 'uintx', 'uint64_t', 'size_t', 'double', 'ccstr', 'ccstrlist'];
/** Order of JVMFlagOrigin, by the words of `jcmd VM.flags`. */
const ORIGINS = ['default', 'command line', 'environment', 'config file', 'management', 'ergonomic', 'attach', 'internal', 'jimage'];

interface Entry {
  address: bigint;
  type: string;
  origin: number;
}

/** The virtual machine's flags (-XX:…) with their values at the capture. */
export class Flags {
  private constructor(
    private readonly structs: VmStructs,
    private readonly entries: Map<string, Entry>,
  ) {}

  static async read(structs: VmStructs): Promise<Flags> {
    const { memory } = structs;
    const table = await structs.static('JVMFlag', 'flags');
    const count = Number(await structs.static('JVMFlag', 'numFlags'));
    const size = structs.size('JVMFlag');
    if (count > MOST_FLAGS || size > 256) throw new Unreadable(`the table of flags has ${count} entries of ${size} bytes`);
    const raw = await memory.bytes(table, count * size);
    const at = { name: '_name', address: '_addr', type: '_type', flags: '_flags' };
    const offsets = Object.fromEntries(Object.entries(at).map(([key, field]) => [key, structs.offset('JVMFlag', field)]));
    const typesAreNames = structs.typeOf('JVMFlag', '_type').includes('*');
    const mask = structs.constant('JVMFlag::VALUE_ORIGIN_MASK', 15);
    const entries = new Map<string, Entry>();
    for (let entry = 0; entry + size <= raw.length; entry += size) {
      const name = raw.readBigUInt64LE(entry + offsets['name']!);
      if (name === 0n) continue;
      const type = entry + offsets['type']!;
      entries.set(await memory.text(name, 256), {
        address: raw.readBigUInt64LE(entry + offsets['address']!),
        type: typesAreNames ? await memory.text(raw.readBigUInt64LE(type), 32) : (TYPES[raw.readInt32LE(type)] ?? '?'),
        origin: raw.readInt32LE(entry + offsets['flags']!) & mask,
      });
    }
    return new Flags(structs, entries);
  }

  /** The value as text; null for a flag that this version does not have. */
  async value(name: string): Promise<string | null> {
    const entry = this.entries.get(name);
    return entry ? this.read(entry) : null;
  }

  async isOn(name: string): Promise<boolean> {
    return (await this.value(name)) === 'true';
  }

  /** Flags that somebody set: the command line, the JVM's own sizing … */
  async set(): Promise<Flag[]> {
    const flags: Flag[] = [];
    for (const [name, entry] of this.entries) {
      if (entry.origin === 0) continue;
      flags.push({ name, value: await this.read(entry), origin: ORIGINS[entry.origin] ?? String(entry.origin) });
    }
    return flags.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  private async read({ address, type }: Entry): Promise<string> {
    const { memory } = this.structs;
    switch (type) {
      case 'bool':
        return (await memory.u8(address)) === 0 ? 'false' : 'true';
      case 'int':
        return String(await memory.i32(address));
      case 'uint':
        return String(await memory.u32(address));
      case 'intx':
        return String(BigInt.asIntN(64, await memory.u64(address)));
      case 'uintx':
      case 'uint64_t':
      case 'size_t':
        return String(await memory.u64(address));
      case 'double':
        return (await memory.bytes(address, 8)).readDoubleLE().toFixed(6);
      case 'ccstr':
      case 'ccstrlist': {
        const text = await memory.u64(address);
        return text === 0n ? '' : memory.text(text);
      }
      default:
        throw new Unreadable(`a flag is of the unknown type ${type}`);
    }
  }
}
