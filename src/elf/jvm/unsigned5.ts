/**
 * HotSpot's compressed integers (src/hotspot/share/utilities/unsigned5.hpp): one to five bytes of six bits each, after a first range of one-byte values.
 * Since JDK 20 no byte of a number is zero, so that zero can end a stream.
 */
export class Unsigned5 {
  private readonly excluded: number;

  /** `version`: the JDK's feature release. */
  constructor(
    private readonly bytes: Buffer,
    version: number,
    public position = 0,
  ) {
    this.excluded = version >= 20 ? 1 : 0;
  }

  get atEnd(): boolean {
    return this.position >= this.bytes.length;
  }

  byte(): number {
    return this.bytes[this.position++] ?? 0;
  }

  unsigned(): number {
    const low = 256 - 64 - this.excluded;
    let sum = 0;
    for (let index = 0; index < 5; index++) {
      const value = this.byte() - this.excluded;
      // A zero where none can be: the stream's end.
      if (value < 0) return sum;
      sum = (sum + Math.imul(value, 1 << (6 * index))) >>> 0;
      if (value < low) break;
    }
    return sum;
  }

  signed(): number {
    const value = this.unsigned();
    return (value >>> 1) ^ -(value & 1);
  }
}
