import { Chalk, type ChalkInstance } from 'chalk';
import { cut, displayWidth } from '../terminal/width.js';

export type Colour = 'red' | 'green' | 'yellow' | 'blue' | 'magenta' | 'cyan';

export interface Look {
  colour?: Colour;
  bold?: boolean;
  dim?: boolean;
  inverse?: boolean;
  underline?: boolean;
}

/** A piece of a line: printable text, and how it looks. */
export type Span = string | readonly [text: string, look: Look];
export type Line = readonly Span[];

export function lineText(line: Line): string {
  return line.map((span) => (typeof span === 'string' ? span : span[0])).join('');
}

/** The line in at most `width` columns, with an ellipsis where it was cut. */
export function fitLine(line: Line, width: number): Line {
  let left = width;
  const fitted: Span[] = [];
  for (const [index, span] of line.entries()) {
    const [text, look] = typeof span === 'string' ? [span, undefined] : span;
    const taken = displayWidth(text);
    const follows = (): boolean => lineText(line.slice(index + 1)) !== '';
    // The ellipsis needs a column, also when it is the next piece that does not fit.
    const shown = taken < left || (taken === left && !follows()) ? text : cut(`${text}${follows() ? ' ' : ''}`, left);
    fitted.push(look ? [shown, look] : shown);
    left -= taken;
    if (shown !== text || left <= 0) break;
  }
  return fitted;
}

/** The line filled with spaces up to `width` columns, all of it inverse: the row that the cursor is on. */
export function selected(line: Line, width: number): Line {
  const text = lineText(fitLine(line, width));
  return [[text + ' '.repeat(Math.max(0, width - displayWidth(text))), { inverse: true }]];
}

/** Makes terminal output of a line. */
export type Painter = (line: Line) => string;

/**
 * A painter in the colours of `style`. Without colours (NO_COLOR, --no-color) bold, dim and inverse stay: the cursor must be seen, and these
 * are no colours.
 */
export function painterFor(style: ChalkInstance): Painter {
  const attributes = new Chalk({ level: 1 });
  const paint = (text: string, { colour, bold, dim, inverse, underline }: Look): string => {
    let result = colour ? style[colour](text) : text;
    if (bold) result = attributes.bold(result);
    if (dim) result = attributes.dim(result);
    if (underline) result = attributes.underline(result);
    if (inverse) result = attributes.inverse(result);
    return result;
  };
  return (line) => line.map((span) => (typeof span === 'string' ? span : paint(span[0], span[1]))).join('');
}

const COLOURS: Record<string, Colour> = { 31: 'red', 32: 'green', 33: 'yellow', 34: 'blue', 35: 'magenta', 36: 'cyan' };

/** The line that a text with the escape sequences of chalk's basic styles is. */
export function styledLine(text: string): Line {
  const spans: Span[] = [];
  let look: Look = {};
  // oxlint-disable-next-line no-control-regex
  for (const [, plain, code] of text.matchAll(/([^\x1b]*)(?:\x1b\[(\d+)m|$)/g)) {
    if (plain !== '') spans.push([plain!, look]);
    if (code === '1') look = { ...look, bold: true };
    else if (code === '2') look = { ...look, dim: true };
    else if (code === '22') look = { ...look, bold: false, dim: false };
    else if (code !== undefined) look = { ...look, colour: COLOURS[code] };
  }
  return spans;
}
