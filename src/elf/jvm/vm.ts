import type { AddressSpace } from '../address-space.js';
import type { Vma } from '../vmas.js';
import { Flags } from './flags.js';
import { CachedMemory } from './memory.js';
import { Metadata } from './metadata.js';
import { Objects } from './objects.js';
import { VmStructs } from './vm-structs.js';
import { zVariant } from './zgc.js';

/** What everything else about a HotSpot virtual machine is read with. */
export class Vm {
  private constructor(
    readonly space: AddressSpace,
    readonly structs: VmStructs,
    /** Feature release: 17, 21 … */
    readonly version: number,
    readonly flags: Flags,
    readonly metadata: Metadata,
    readonly objects: Objects,
  ) {}

  /** `libjvm`: where the first byte of libjvm.so is mapped. Throws Unreadable where the memory does not tell enough. */
  static async open(space: AddressSpace, libjvm: Vma): Promise<Vm> {
    const structs = await VmStructs.read(new CachedMemory(space), libjvm.start);
    const version = await structs.memory.i32(structs.address('Abstract_VM_Version', '_vm_major_version'));
    const flags = await Flags.read(structs);
    const metadata = new Metadata(structs, version);
    const objects = await Objects.open(structs, metadata, version, {
      compressedReferences: await flags.isOn('UseCompressedOops'),
      compressedClasses: await flags.isOn('UseCompressedClassPointers'),
      compactHeaders: await flags.isOn('UseCompactObjectHeaders'),
      z: (await flags.isOn('UseZGC')) ? await zVariant(version, flags) : null,
    });
    return new Vm(space, structs, version, flags, metadata, objects);
  }
}
