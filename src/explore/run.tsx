import { EventEmitter } from 'node:events';
import type { ChalkInstance } from 'chalk';
import { render } from 'ink';
import { App } from './app.js';
import type { OpenOptions } from '../elf/image.js';
import { Explorer } from './explorer.js';
import { painterFor } from './line.js';
import { FullScreen } from './terminal.js';

/** Where ink writes its frames: each whole one goes to the screen, which finds out what changed. */
class Frames extends EventEmitter {
  constructor(
    private readonly explorer: Explorer,
    private readonly screen: FullScreen,
  ) {
    super();
  }

  get columns(): number {
    return this.explorer.state.columns;
  }

  get rows(): number {
    return this.explorer.state.rows;
  }

  write(frame: string): boolean {
    this.screen.show(frame);
    return true;
  }
}

/** Shows the explorer on this process's terminal until the user quits. Resolves to the signal that ended it, if one did. */
export async function explore(
  image: string,
  other: string | undefined,
  style: ChalkInstance,
  options: OpenOptions,
): Promise<NodeJS.Signals | null> {
  const { stdin, stdout } = process;
  const explorer = await Explorer.open(image, other, { columns: stdout.columns, rows: stdout.rows, ...options });
  let ending: NodeJS.Signals | null = null;
  const screen = new FullScreen(stdin, stdout, {
    key: (name) => explorer.press(name),
    resized: (columns, rows) => explorer.resize(columns, rows),
    ending: (signal) => {
      ending = signal;
      explorer.quit();
    },
    crashed: explorer.crashed,
  });
  let app: ReturnType<typeof render> | undefined;
  try {
    screen.open();
    const stream = new Frames(explorer, screen) as unknown as NodeJS.WriteStream;
    // In this mode ink writes whole frames and leaves the terminal alone.
    app = render(<App explorer={explorer} painter={painterFor(style)} />, {
      stdout: stream,
      debug: true,
      exitOnCtrlC: false,
      patchConsole: false,
    });
    app.waitUntilExit().catch(explorer.crashed);
    await explorer.ended;
  } finally {
    screen.close();
    app?.unmount();
    await explorer.close();
  }
  return ending;
}
