const ASCII = /^[\x20-\x7e]*$/;
const INVISIBLE = /^[\p{Mn}\p{Me}\p{Cf}]$/u;
/** East Asian wide and fullwidth characters, and what terminals show as an emoji. */
const WIDE = /^[\p{Emoji_Presentation}\p{sc=Han}\p{sc=Hangul}\p{sc=Hiragana}\p{sc=Katakana}\u3000-\u303e\uff01-\uff60\uffe0-\uffe6]$/u;

/** Columns that a text without control characters takes on a terminal. */
export function displayWidth(text: string): number {
  if (ASCII.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += characterWidth(character);
  return width;
}

function characterWidth(character: string): number {
  if (character < '\u0300') return 1;
  return INVISIBLE.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
}

/** The beginning (or, with `keep` end, the end) of a text that fits into `width` columns, with an ellipsis where something was cut off. */
export function cut(text: string, width: number, keep: 'start' | 'end' = 'start'): string {
  if (displayWidth(text) <= width) return text;
  if (width <= 0) return '';
  const characters = [...text];
  if (keep === 'end') characters.reverse();
  const kept: string[] = [];
  let used = 1;
  for (const character of characters) {
    used += characterWidth(character);
    if (used > width) break;
    kept.push(character);
  }
  return keep === 'start' ? `${kept.join('')}…` : `…${kept.toReversed().join('')}`;
}

/** A text in exactly `width` columns: filled with spaces, or cut. */
export function fit(text: string, width: number, align: 'left' | 'right' = 'left', keep: 'start' | 'end' = 'start'): string {
  const shown = cut(text, width, keep);
  const fill = ' '.repeat(Math.max(0, width - displayWidth(shown)));
  return align === 'left' ? shown + fill : fill + shown;
}
