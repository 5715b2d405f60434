/** `0x` and lower-case hexadecimal digits. */
export function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}
