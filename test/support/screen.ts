/** A program on a terminal: keys go in, and a model of the terminal tells what is on the screen. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import xterm from '@xterm/headless';
import { compile, root } from './cores.js';

/** How long a screen may stay other than expected, in milliseconds. Only a fault reaches it. */
const PATIENCE = 60_000;

let helper: string | undefined;

/** Compiles the program that makes terminals (pty.c), once for each test file. */
function pty(directory: string): string {
  mkdirSync(directory, { recursive: true });
  helper ??= compile(directory, 'pty', readFileSync(join(root, 'test/support/pty.c'), 'utf8'), ['-lutil']);
  return helper;
}

export class Screen {
  readonly terminal: xterm.Terminal;
  readonly child: ChildProcess;
  /** All that the program wrote, byte for byte. */
  output = '';
  /** The terminal's modes as the program left them (c_lflag of termios). */
  modes: number | null = null;
  readonly ended: Promise<number | null>;
  private changed = (): void => {};

  constructor(directory: string, argv: string[], options: { columns?: number; rows?: number; env?: Record<string, string> } = {}) {
    const { columns = 80, rows = 24, env = {} } = options;
    this.terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true, scrollback: 1000 });
    const { NO_COLOR: _, FORCE_COLOR: __, CI: ___, ...inherited } = process.env;
    this.child = spawn(pty(directory), [String(columns), String(rows), ...argv], {
      stdio: ['pipe', 'pipe', 'inherit', 'pipe'],
      env: { ...inherited, TERM: 'xterm-256color', LANG: 'C.UTF-8', ...env },
      cwd: directory,
    });
    this.child.stdin!.on('error', () => {});
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
      this.terminal.write(text, () => this.changed());
    });
    this.control.setEncoding('utf8').on('data', (text: string) => (this.modes = Number(/lflag (\d+)/.exec(text)?.[1] ?? this.modes)));
    this.ended = once(this.child, 'close').then(([code]) => {
      this.terminal.write('', () => this.changed());
      return code as number | null;
    });
  }

  private get control(): Duplex {
    return this.child.stdio[3] as Duplex;
  }

  /** Keys as the terminal sends them; names of keys.ts in angle brackets. */
  press(keys: string): void {
    const sequences: Record<string, string> = {
      up: '\x1b[A', down: '\x1b[B', right: '\x1b[C', left: '\x1b[D', home: '\x1b[H', end: '\x1b[F', pageup: '\x1b[5~', pagedown: '\x1b[6~',
      enter: '\r', escape: '\x1b', tab: '\t', backspace: '\x7f', 'ctrl-c': '\x03', 'ctrl-z': '\x1a', 'ctrl-l': '\x0c',
    }; // prettier-ignore
    this.child.stdin!.write(keys.replaceAll(/<([a-z-]+)>/g, (_, name: string) => sequences[name]!));
  }

  resize(columns: number, rows: number): void {
    this.terminal.resize(columns, rows);
    this.control.write(`resize ${columns} ${rows}\n`);
  }

  /** To the processes in the terminal's foreground. */
  signal(number: number): void {
    this.control.write(`signal ${number}\n`);
  }

  hangUp(): void {
    this.control.write('hangup\n');
  }

  /** The lines of the screen, without spaces at their ends. */
  lines(): string[] {
    const { active } = this.terminal.buffer;
    return Array.from(
      { length: this.terminal.rows },
      (_, row) =>
        active
          .getLine(active.viewportY + row)
          ?.translateToString()
          .trimEnd() ?? '',
    );
  }

  get text(): string {
    return this.lines().join('\n');
  }

  /** What is shown in inverse: the selected row, the word under the cursor, the current tab. */
  inverse(): string[] {
    const { active } = this.terminal.buffer;
    const found: string[] = [];
    for (let row = 0; row < this.terminal.rows; row++) {
      const line = active.getLine(active.viewportY + row);
      let text = '';
      for (let column = 0; column < this.terminal.cols; column++) {
        const cell = line?.getCell(column);
        if (cell?.isInverse()) text += cell.getChars() || ' ';
      }
      if (text !== '') found.push(text.trim());
    }
    return found;
  }

  get alternate(): boolean {
    return this.terminal.buffer.active.type === 'alternate';
  }

  /** Whether the cursor was last shown or hidden. */
  get cursorShown(): boolean {
    return this.output.lastIndexOf('\x1b[?25h') >= this.output.lastIndexOf('\x1b[?25l');
  }

  /** Waits until the screen is as wanted. */
  async until(wanted: RegExp | (() => boolean)): Promise<void> {
    const holds = (): boolean => (typeof wanted === 'function' ? wanted() : wanted.test(this.text));
    const deadline = Date.now() + PATIENCE;
    while (!holds()) {
      if (this.child.exitCode !== null)
        throw new Error(`the program ended (${this.child.exitCode}) before ${String(wanted)}:\n${this.text}`);
      if (Date.now() > deadline) throw new Error(`the screen never showed ${String(wanted)}:\n${this.text}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Presses keys and waits for what they bring. */
  async type(keys: string, wanted: RegExp | (() => boolean)): Promise<void> {
    this.press(keys);
    await this.until(wanted);
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
  }
}
