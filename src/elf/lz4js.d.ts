/** The part of lz4js that is used: its frame functions and its compressor are not (they are wrong on real data). */
declare module 'lz4js' {
  const lz4: {
    /** Decodes a block into `target`; returns where it ended there. Never reports damage: the caller checks length and content. */
    decompressBlock(source: Uint8Array, target: Uint8Array, start: number, length: number, at: number): number;
  };
  export default lz4;
}
