/** elfy 1.0.0 has no typings: what segments.ts uses of it. */
declare module 'elfy' {
  export interface ParsedProgram {
    /** undefined for a type that elfy does not know. */
    type: string | undefined;
    flags: Record<string, boolean>;
  }
  export interface ParsedElf {
    class: string;
    endian: string;
    type: string | undefined;
    machine: string | undefined;
    body: { programs: ParsedProgram[] };
  }
  export function parse(buffer: Buffer): ParsedElf;
}
