const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** A number of bytes for people: three significant digits and a binary unit. `0` for zero. */
export function bytes(value: bigint | number | string): string {
  let amount = Number(value);
  if (amount === 0) return '0';
  let unit = 0;
  while (Math.abs(amount) >= 1000 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit++;
  }
  const digits = unit === 0 ? 0 : amount >= 100 ? 0 : amount >= 10 ? 1 : 2;
  return `${amount.toFixed(digits)} ${UNITS[unit]}`;
}

/** `1 thread`, `25 threads`. */
export function count(amount: number | bigint, noun: string, plural = `${noun}s`): string {
  return `${amount} ${amount === 1 || amount === 1n ? noun : plural}`;
}

/** A duration in milliseconds for people, in the largest fitting unit. */
export function duration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 1) return `${Math.round(milliseconds)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} minutes`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} hours`;
  return `${Math.round(seconds / 86_400)} days`;
}

/**
 * Text from an image, safe to print: control characters (which could drive the terminal) are shown as `\xNN`, those that change lines or the
 * direction of text as `\u{NNNN}`, bytes that are not UTF-8 as the replacement character.
 */
export function printable(text: Buffer | string): string {
  // oxlint-disable-next-line no-control-regex
  return text.toString().replaceAll(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (character) => {
    if (character === '\n') return '\\n';
    if (character === '\t') return '\\t';
    const digits = character.codePointAt(0)!.toString(16).padStart(2, '0');
    return digits.length > 2 ? `\\u{${digits}}` : `\\x${digits}`;
  });
}
