import { writeSync } from 'node:fs';
import { displayWidth } from '../terminal/width.js';
import { decodeKeys } from './keys.js';

/** Alternate screen, no cursor, no automatic wrap: a line that is too long must not push the others down. */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
/** Terminals that know it show what is between at once; others ignore it. */
const BEGIN_UPDATE = '\x1b[?2026h';
const END_UPDATE = '\x1b[?2026l';
/** Frames that come within this many milliseconds are painted as one. */
const FRAME = 10;
/** How long the rest of an escape sequence may take over a slow line, in milliseconds. */
const ESCAPE_WAIT = 50;

export interface TerminalEvents {
  key: (name: string) => void;
  resized: (columns: number, rows: number) => void;
  /** The process was told to end, or the terminal has gone. */
  ending: (signal: NodeJS.Signals) => void;
  crashed: (error: unknown) => void;
}

const ENDING_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/**
 * The terminal of this process as a full screen. Only lines that changed are written. However the process ends (but for SIGKILL), the terminal
 * is left as it was.
 */
export class FullScreen {
  private entered = false;
  private painted: string[] = [];
  private frame: string[] = [];
  private painting: NodeJS.Timeout | null = null;
  private pending = '';
  private escape: NodeJS.Timeout | null = null;
  private readonly cleanUp: (() => void)[] = [];

  constructor(
    private readonly stdin: typeof process.stdin,
    private readonly stdout: typeof process.stdout,
    private readonly events: TerminalEvents,
  ) {}

  open(): void {
    const { events, stdin, stdout } = this;
    this.listen(process, 'exit', () => this.leave());
    for (const signal of ENDING_SIGNALS) this.listen(process, signal, () => events.ending(signal));
    this.listen(process, 'SIGTSTP', () => this.suspend());
    this.listen(process, 'SIGCONT', () => this.resume());
    for (const event of ['uncaughtException', 'unhandledRejection']) this.listen(process, event, events.crashed);
    this.listen(stdout, 'resize', () => {
      events.resized(stdout.columns, stdout.rows);
      this.repaint();
    });
    this.listen(stdin, 'data', (text: string) => this.read(text));
    // A terminal that has gone gives no more input.
    this.listen(stdin, 'end', () => events.ending('SIGHUP'));
    this.listen(stdin, 'error', () => events.ending('SIGHUP'));
    stdin.setEncoding('utf8');
    this.enter();
    stdin.resume();
  }

  close(): void {
    this.leave();
    this.stdin.pause();
    for (const undo of this.cleanUp.splice(0)) undo();
  }

  /** What the screen is to show. */
  show(frame: string): void {
    this.frame = frame.split('\n');
    this.painting ??= setTimeout(() => this.paint(), FRAME);
  }

  private listen(emitter: NodeJS.EventEmitter, event: string, listener: (...values: never[]) => void): void {
    emitter.on(event, listener as () => void);
    this.cleanUp.push(() => emitter.off(event, listener as () => void));
  }

  private enter(): void {
    if (this.entered) return;
    this.entered = true;
    this.stdin.setRawMode(true);
    this.write(ENTER);
    this.repaint();
  }

  private leave(): void {
    if (!this.entered) return;
    this.entered = false;
    if (this.painting) clearTimeout(this.painting);
    if (this.escape) clearTimeout(this.escape);
    this.painting = null;
    this.escape = null;
    this.write(LEAVE);
    try {
      this.stdin.setRawMode(false);
    } catch {
      // The terminal has gone: there is nothing to restore.
    }
  }

  /** Ctrl-Z: the shell gets the terminal until it brings this job to the foreground again. */
  private suspend(): void {
    this.leave();
    const own = process.listeners('SIGTSTP');
    process.removeAllListeners('SIGTSTP');
    // The whole job stops here. Without a shell that controls jobs the signal does nothing, and this goes on at once.
    process.kill(0, 'SIGTSTP');
    for (const listener of own) process.on('SIGTSTP', listener);
    this.resume();
  }

  private resume(): void {
    this.leave();
    this.enter();
    // The window may have changed meanwhile: Node.js looks at it when this signal comes.
    process.kill(process.pid, 'SIGWINCH');
  }

  private repaint(): void {
    this.painted = [];
    if (this.entered) this.write('\x1b[H\x1b[2J');
    this.painting ??= setTimeout(() => this.paint(), FRAME);
  }

  private paint(): void {
    this.painting = null;
    if (!this.entered) return;
    const { columns, rows } = this.stdout;
    let output = '';
    for (let row = 0; row < (rows || this.frame.length); row++) {
      const line = this.frame[row] ?? '';
      if (line === (this.painted[row] ?? '')) continue;
      // Erasing behind a line that fills the row would take its last character.
      const erase = displayWidth(withoutStyles(line)) < (columns || 80) ? '\x1b[K' : '';
      output += `\x1b[${row + 1};1H${line}${erase}`;
    }
    this.painted = this.frame;
    if (output !== '') this.write(`${BEGIN_UPDATE}${output}${END_UPDATE}`);
  }

  private read(text: string): void {
    if (this.escape) clearTimeout(this.escape);
    this.escape = null;
    const { keys, rest } = decodeKeys(this.pending + text);
    this.pending = rest;
    for (const key of keys) this.press(key);
    if (rest !== '') {
      this.escape = setTimeout(() => {
        this.pending = '';
        this.press('escape');
      }, ESCAPE_WAIT);
    }
  }

  private press(key: string): void {
    if (key === 'ctrl-z') this.suspend();
    else if (key === 'ctrl-l') this.repaint();
    else this.events.key(key);
  }

  /** At once, whatever the event loop does: this also runs while the process ends. */
  private write(text: string): void {
    const bytes = Buffer.from(text);
    for (let done = 0; done < bytes.length;) {
      try {
        done += writeSync(this.stdout.fd, bytes, done);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
        else return this.events.ending('SIGHUP'); // the terminal has gone
      }
    }
  }
}

function withoutStyles(line: string): string {
  // oxlint-disable-next-line no-control-regex
  return line.replaceAll(/\x1b\[[0-9;]*m/g, '');
}
