import type { KernelNote } from './types.js';

/** Where a state component is in every NT_X86_XSTATE of this core file (struct x86_xfeat_component of Linux 6.12 and later). */
export interface XsaveComponent {
  /** Bit in XCR0. */
  feature: number;
  /** Bytes. */
  size: number;
  /** From the start of NT_X86_XSTATE, bytes. */
  offset: number;
}

export const xsaveLayout: KernelNote<XsaveComponent[]> = {
  name: 'NT_X86_XSAVE_LAYOUT',
  owner: 'LINUX',
  type: 0x205,
  minimumSize: 0,
  decode: (raw) => {
    const components: XsaveComponent[] = [];
    for (let at = 0; at + 16 <= raw.length; at += 16) {
      components.push({ feature: raw.readUInt32LE(at), size: raw.readUInt32LE(at + 4), offset: raw.readUInt32LE(at + 8) });
    }
    return components;
  },
};
