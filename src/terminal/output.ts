/** Writes long output in large pieces, and waits for a slow reader instead of keeping everything in memory. */
export class Output {
  private pending = '';

  constructor(private readonly stream: NodeJS.WriteStream = process.stdout) {}

  async line(text: string): Promise<void> {
    this.pending += `${text}\n`;
    if (this.pending.length > 65_536) await this.flush();
  }

  async flush(): Promise<void> {
    const text = this.pending;
    this.pending = '';
    if (!this.stream.write(text)) await new Promise((resolve) => this.stream.once('drain', resolve));
  }
}
