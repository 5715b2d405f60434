/**
 * Names of keys: a character stands for itself, the others are words (`up`, `pagedown`, `enter`, `escape`, `ctrl-c` …). Several keys come in
 * one piece when they are pressed fast or pasted.
 */
export interface DecodedKeys {
  keys: string[];
  /** The beginning of a key whose rest has not arrived; also a lone escape, which may be either. */
  rest: string;
}

const FINAL: Record<string, string> = { A: 'up', B: 'down', C: 'right', D: 'left', F: 'end', H: 'home', Z: 'shift-tab' };
const TILDE: Record<string, string> = { 1: 'home', 3: 'delete', 4: 'end', 5: 'pageup', 6: 'pagedown', 7: 'home', 8: 'end' };
const CONTROL: Record<string, string> = { '\r': 'enter', '\n': 'enter', '\t': 'tab', '\x7f': 'backspace', '\b': 'backspace' };

/** Keys in what a terminal in raw mode sends (VT100, xterm, Linux console, rxvt). Sequences that mean nothing here are dropped. */
export function decodeKeys(input: string): DecodedKeys {
  const keys: string[] = [];
  let at = 0;
  while (at < input.length) {
    if (input[at] !== '\x1b') {
      const character = String.fromCodePoint(input.codePointAt(at)!);
      at += character.length;
      keys.push(CONTROL[character] ?? (character < ' ' ? `ctrl-${String.fromCharCode(character.charCodeAt(0) + 96)}` : character));
      continue;
    }
    // CSI: parameters and intermediates, then a final character; SS3: one character. `ESC [ [ A` is the Linux console's F1.
    // oxlint-disable-next-line no-control-regex
    const sequence = /^\x1b(?:\[(\[?[\x20-\x3f]*)([\x40-\x5a\x5c-\x7e])|O([\x40-\x7e]))/.exec(input.slice(at));
    if (sequence) {
      const [whole, parameters, final, single] = sequence;
      const key = single === 'M' ? 'enter' : final === '~' ? TILDE[parameters!.split(';')[0]!] : FINAL[(final ?? single)!];
      if (key !== undefined && !parameters?.startsWith('[')) keys.push(key);
      at += whole.length;
      continue;
    }
    // oxlint-disable-next-line no-control-regex
    if (/^\x1b(?:\[\[?[\x20-\x3f]*|O)?$/.test(input.slice(at))) return { keys, rest: input.slice(at) };
    keys.push('escape');
    at++;
  }
  return { keys, rest: '' };
}
