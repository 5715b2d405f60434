export interface Variant {
  name: string;
  compiler: string | undefined;
  flags: string[];
}
export const buildDirectory: string;
export const variants: Variant[];
export const programs: string[];
export function buildLauncher(): string;
export function build(program: string, variant: Variant): string;
