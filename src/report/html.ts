import { printable } from '../terminal/format.js';

/** Markup that is safe to print as it is. */
export class Html {
  constructor(readonly text: string) {}
}

export type Content = Html | string | number | null | undefined | false | readonly Content[];

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Characters that turn the direction of text around or cannot be seen: a name could show as another one. */
const INVISIBLE = /[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text, also from an image, for element content and quoted attributes. */
export function escaped(text: string): string {
  return printable(text)
    .replaceAll(INVISIBLE, (one) => `\\u{${one.charCodeAt(0).toString(16)}}`)
    .replaceAll(/[&<>"']/g, (one) => ESCAPES[one]!);
}

function render(content: Content): string {
  if (content === null || content === undefined || content === false) return '';
  if (content instanceof Html) return content.text;
  if (typeof content === 'string') return escaped(content);
  if (typeof content === 'number') return String(content);
  return content.map((one) => render(one)).join('');
}

const compacted = new WeakMap<TemplateStringsArray, readonly string[]>();

/** A template of markup: whatever is put in is escaped unless it is markup itself. Attributes must be quoted. Indentation is left out. */
export function html(markup: TemplateStringsArray, ...contents: Content[]): Html {
  let parts = compacted.get(markup);
  if (!parts) {
    parts = markup.map((part) => part.replaceAll(/\n\s+/g, '\n'));
    compacted.set(markup, parts);
  }
  return new Html(parts.reduce((text, part, index) => `${text}${render(contents[index - 1])}${part}`));
}
