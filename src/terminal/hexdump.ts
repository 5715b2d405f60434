const ROW = 16;

export interface HexdumpOptions {
  /** Print each row of a repetition instead of one line that counts them. */
  allRows: boolean;
  dim: (text: string) => string;
}

/**
 * Rows of 16 bytes: address, bytes, printable ASCII. Rows are aligned to 16; three or more equal ones after the first become one line that says how
 * many there are and where they end.
 */
export function* hexdump(address: bigint, bytes: Buffer, { allRows, dim }: HexdumpOptions): Generator<string> {
  const lead = Number(address & BigInt(ROW - 1));
  const rowAddress = (row: number): bigint => address - BigInt(lead) + BigInt(row * ROW);
  const slice = (row: number): Buffer => bytes.subarray(Math.max(0, row * ROW - lead), row * ROW - lead + ROW);
  const rows = Math.ceil((lead + bytes.length) / ROW);
  for (let row = 0; row < rows; row++) {
    yield line(rowAddress(row), slice(row), row === 0 ? lead : 0, dim);
    if (allRows || slice(row).length < ROW) continue;
    let same = row + 1;
    while (same < rows && slice(same).equals(slice(row))) same++;
    const repeated = same - row - 1;
    if (repeated < 3) continue;
    yield dim(
      `${' '.repeat(addressText(address).length)}  ${repeated} more rows like this, up to 0x${(rowAddress(same) - 1n).toString(16)}`,
    );
    row = same - 1;
  }
}

function line(address: bigint, bytes: Buffer, lead: number, dim: (text: string) => string): string {
  let digits = '';
  let text = '';
  for (let column = 0; column < ROW; column++) {
    const byte = column < lead ? undefined : bytes[column - lead];
    digits += `${column === 8 ? '  ' : ' '}${byte === undefined ? '  ' : byte.toString(16).padStart(2, '0')}`;
    text += byte === undefined ? ' ' : byte >= 0x20 && byte <= 0x7e ? String.fromCodePoint(byte) : '.';
  }
  return `${addressText(address)} ${digits}  ${dim('|')}${text}${dim('|')}`;
}

function addressText(address: bigint): string {
  return `0x${address.toString(16).padStart(12, '0')}`;
}
