import { Chalk, type ChalkInstance } from 'chalk';

/**
 * Colours for one stream: only on a terminal, and not when NO_COLOR (https://no-color.org) is set or --no-color was given. FORCE_COLOR
 * overrides the terminal test, as in other Node.js programs.
 */
export function styleFor(stream: NodeJS.WriteStream, noColor: boolean): ChalkInstance {
  const { NO_COLOR, FORCE_COLOR, TERM, COLORTERM } = process.env;
  if (noColor || NO_COLOR) return new Chalk({ level: 0 });
  if (FORCE_COLOR !== undefined) return new Chalk({ level: FORCE_COLOR === '0' ? 0 : 2 });
  if (!stream.isTTY || TERM === 'dumb') return new Chalk({ level: 0 });
  if (COLORTERM === 'truecolor' || COLORTERM === '24bit') return new Chalk({ level: 3 });
  return new Chalk({ level: TERM?.includes('256') ? 2 : 1 });
}
