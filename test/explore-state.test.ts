/** What the explorer does without a terminal: keys, lines, the state, the rows of memory. */
import { Chalk } from 'chalk';
import { describe, expect, it } from 'vitest';
import type { Vma } from '../src/elf/vmas.js';
import { decodeKeys } from '../src/explore/keys.js';
import { MemoryLayout } from '../src/explore/layout.js';
import { fitLine, lineText, painterFor, selected, styledLine, type Line } from '../src/explore/line.js';
import { wrapLine } from '../src/explore/rows.js';
import { bodyHeight, initialState, reduce, type Action, type State } from '../src/explore/state.js';
import { cut, displayWidth, fit } from '../src/terminal/width.js';

describe('keys', () => {
  it.each([
    ['j', ['j']],
    ['jjk', ['j', 'j', 'k']],
    ['\x1b[A\x1b[B\x1bOC\x1b[D', ['up', 'down', 'right', 'left']],
    ['\x1b[H\x1b[F\x1b[1~\x1b[4~\x1bOH\x1bOF', ['home', 'end', 'home', 'end', 'home', 'end']],
    ['\x1b[5~\x1b[6~\x1b[3~', ['pageup', 'pagedown', 'delete']],
    ['\x1b[1;5A', ['up']],
    ['\r\n\t\x7f\b', ['enter', 'enter', 'tab', 'backspace', 'backspace']],
    ['\x1b[Z\x03\x1a', ['shift-tab', 'ctrl-c', 'ctrl-z']],
    ['0x7fff\r', ['0', 'x', '7', 'f', 'f', 'f', 'enter']],
    ['ä€😀', ['ä', '€', '😀']],
    ['\x1bq\x1bOM', ['escape', 'q', 'enter']],
    // What has no meaning is dropped, and what follows is not misread: function keys, a mouse report, the Linux console's F1.
    ['\x1b[15~a\x1b[<0;10;20Mb\x1b[[Ac', ['a', 'b', 'c']],
  ])('%j', (input, keys) => {
    expect(decodeKeys(input)).toEqual({ keys, rest: '' });
  });

  it('waits for the rest of a sequence that a slow line delivers in pieces', () => {
    for (const sequence of ['\x1b[5~', '\x1bOA', '\x1b[1;5B', '\x1b[[A']) {
      for (let split = 1; split < sequence.length; split++) {
        const { keys, rest } = decodeKeys(`x${sequence.slice(0, split)}`);
        expect({ keys, rest }).toEqual({ keys: ['x'], rest: sequence.slice(0, split) });
        expect(decodeKeys(rest + sequence.slice(split))).toEqual(decodeKeys(sequence));
      }
    }
  });
});

describe('lines', () => {
  it('knows how many columns a text takes', () => {
    expect(displayWidth('plain')).toBe(5);
    expect(displayWidth('größe')).toBe(5);
    expect(displayWidth('e\u0301')).toBe(1);
    expect(displayWidth('日本語')).toBe(6);
    expect(displayWidth('한글 カナ')).toBe(9);
    expect(displayWidth('😀')).toBe(2);
    expect(displayWidth('█·…─▸')).toBe(5);
  });

  it('cuts with an ellipsis at either end, never inside a wide character', () => {
    expect(cut('/usr/lib/libc.so.6', 10)).toBe('/usr/lib/…');
    expect(cut('/usr/lib/libc.so.6', 10, 'end')).toBe('…libc.so.6');
    expect(cut('日本語', 4)).toBe('日…');
    expect(fit('日本語', 4)).toBe('日… ');
    expect(fit('7', 3, 'right')).toBe('  7');
    for (let width = 0; width < 12; width++) expect(displayWidth(fit('ab日c本d語e', width))).toBe(width);
  });

  it('cuts lines of several pieces', () => {
    const line: Line = ['one ', ['two', { bold: true }], ' three'];
    expect(lineText(fitLine(line, 13))).toBe('one two three');
    expect(lineText(fitLine(line, 12))).toBe('one two thr…');
    expect(lineText(fitLine(line, 7))).toBe('one tw…');
    expect(lineText(fitLine(['one two', ''], 7))).toBe('one two');
    expect(lineText(fitLine(line, 4))).toBe('one…');
    for (let width = 0; width < 16; width++) expect(displayWidth(lineText(fitLine(line, width)))).toBe(Math.min(width, 13));
    expect(displayWidth(lineText(selected(line, 20)))).toBe(20);
  });

  it('wraps long texts at the width of the screen', () => {
    expect(wrapLine(['abc', ['defgh', { bold: true }]], 4).map(lineText)).toEqual(['abcd', 'efgh']);
    expect(wrapLine([], 4).map(lineText)).toEqual(['']);
  });

  it('paints with colours, and without them keeps what shows the cursor', () => {
    const line: Line = [
      ['x', { colour: 'red', inverse: true }],
      ['y', { colour: 'green' }],
    ];
    expect(painterFor(new Chalk({ level: 1 }))(line)).toContain('\x1b[31m');
    const plain = painterFor(new Chalk({ level: 0 }))(line);
    expect(plain).toBe('\x1b[7mx\x1b[27my');
  });

  it('reads back what chalk wrote', () => {
    const chalk = new Chalk({ level: 1 });
    const line = styledLine(`${chalk.bold('a')}b${chalk.cyan(`c${chalk.dim('d')}`)}e`);
    expect(lineText(line)).toBe('abcde');
    expect(painterFor(chalk)(line)).toBe(`${chalk.bold('a')}b${chalk.cyan('c')}${chalk.dim(chalk.cyan('d'))}e`);
  });
});

describe('the state', () => {
  const after = (state: State, ...actions: Action[]): State => actions.reduce(reduce, state);
  const start = initialState(80, 24);
  const height = bodyHeight(start);
  const cursor = (to: number, count = 1000, shift?: number): Action => ({ type: 'cursor', cursor: to, count, shift });

  it('keeps the cursor inside the list and on the screen', () => {
    expect(after(start, cursor(-1)).place).toMatchObject({ cursor: 0, top: 0 });
    expect(after(start, cursor(height - 1)).place).toMatchObject({ cursor: height - 1, top: 0 });
    expect(after(start, cursor(height)).place).toMatchObject({ cursor: height, top: 1 });
    expect(after(start, cursor(5000)).place).toMatchObject({ cursor: 999, top: 1000 - height });
    expect(after(start, cursor(5000), cursor(998)).place).toMatchObject({ cursor: 998, top: 1000 - height });
    expect(after(start, cursor(5000), cursor(0)).place).toMatchObject({ cursor: 0, top: 0 });
    expect(after(start, cursor(500), cursor(500 + height - 1, 1000, height - 1)).place.top).toBe(500 - height + 1 + height - 1);
    expect(after(start, cursor(3, 2)).place).toMatchObject({ cursor: 1, top: 0 });
    expect(after(start, cursor(3, 0)).place).toMatchObject({ cursor: 0, top: 0 });
    // Nothing is drawn for a movement that leads nowhere.
    expect(after(start, cursor(0))).toBe(start);
  });

  it('scrolls texts within their length', () => {
    const scroll = (by: number, count = 100): Action => ({ type: 'scroll', by, count });
    expect(after(start, scroll(-1)).place.top).toBe(0);
    expect(after(start, scroll(1000)).place.top).toBe(100 - height);
    expect(after(start, scroll(1000, 3)).place.top).toBe(0);
  });

  it('remembers where each tab was left', () => {
    const maps = after(start, { type: 'tab', tab: 'maps' }, cursor(500));
    const back = after(maps, { type: 'tab', tab: 'env' }, cursor(7, 10), { type: 'tab', tab: 'maps' });
    expect(back.place).toEqual(maps.place);
    expect(after(back, { type: 'tab', tab: 'env' }).place).toMatchObject({ view: 'env', cursor: 7 });
  });

  it('goes, comes back and goes forward again', () => {
    const maps = after(start, { type: 'tab', tab: 'maps' }, cursor(500));
    const memory = after(maps, { type: 'go', to: { view: 'memory', address: 0x1000n, cursor: 300 } });
    expect(memory.place).toMatchObject({ view: 'memory', address: 0x1000n, cursor: 300, top: 300 - Math.floor(height / 3) });
    // What is on the screen already stays where it is.
    const near = after(memory, { type: 'go', to: { view: 'memory', address: 0x1010n, cursor: 301 } });
    expect(near.place.top).toBe(memory.place.top);
    const back = after(near, { type: 'back' }, { type: 'back' });
    expect(back.place).toEqual(maps.place);
    expect(after(back, { type: 'back' })).toBe(back);
    expect(after(back, { type: 'forward' }, { type: 'forward' }).place).toEqual(near.place);
    const other = after(back, { type: 'forward' }, { type: 'go', to: { view: 'text' } });
    expect(after(other, { type: 'forward' })).toBe(other);
  });

  it('keeps the cursor on a screen that becomes smaller', () => {
    const state = after(start, cursor(500), { type: 'resize', columns: 40, rows: 10 });
    expect(state.place.cursor).toBe(500);
    expect(state.place.top).toBe(500 - bodyHeight(state) + 1);
    expect(bodyHeight({ rows: 1 })).toBe(1);
  });

  it('edits the line of a prompt', () => {
    const type = (state: State, ...keys: string[]): State => after(state, ...keys.map((key): Action => ({ type: 'edit', key })));
    const asked = after(start, { type: 'prompt', prompt: { kind: 'search' } });
    expect(type(asked, 'a', 'b', 'left', 'x', 'end', '€').prompt).toMatchObject({ text: 'axb€', caret: 4 });
    expect(type(asked, 'a', 'b', 'backspace', 'backspace', 'backspace', 'c').prompt).toMatchObject({ text: 'c', caret: 1 });
    expect(type(asked, ...'one two', 'ctrl-w').prompt!.text).toBe('one ');
    expect(type(asked, ...'one two', 'home', 'delete', 'right', 'ctrl-k').prompt!.text).toBe('n');
    expect(type(asked, ...'abc', 'left', 'ctrl-u').prompt).toMatchObject({ text: 'c', caret: 0 });
    expect(type(asked, 'up', 'pagedown', 'ctrl-x').prompt!.text).toBe('');
    // The kind of a search is the same next time.
    const bytes = after(type(asked, 'tab', 'tab', 'tab'), { type: 'close prompt' }, { type: 'prompt', prompt: { kind: 'search' } });
    expect(bytes.prompt!.mode).toBe('bytes');
  });

  it('opens and closes rows', () => {
    const open = after(start, { type: 'toggle', key: 'a' });
    expect([...open.toggled]).toEqual(['a']);
    expect(after(open, { type: 'toggle', key: 'a' }).toggled.size).toBe(0);
    expect(start.toggled.size).toBe(0);
  });
});

describe('rows of memory', () => {
  const area = (start: bigint, end: bigint): Vma => ({ start, end }) as Vma;

  it('gives every byte a row, and finds the row of every byte', () => {
    const layout = new MemoryLayout([area(0x1000n, 0x1040n), area(0x1040n, 0x1048n), area(0x2008n, 0x2031n)]);
    const rows = Array.from({ length: layout.count }, (_, index) => layout.row(index).address);
    expect(rows).toEqual([null, 0x1000n, 0x1010n, 0x1020n, 0x1030n, null, 0x1040n, null, 0x2000n, 0x2010n, 0x2020n, 0x2030n]);
    for (const [number, address] of rows.entries()) {
      if (address === null) continue;
      const { vma } = layout.row(number);
      for (let byte = address; byte < address + 16n; byte++) {
        if (byte >= vma.start && byte < vma.end) expect(layout.rowOf(byte)).toBe(number);
      }
    }
    expect([0xfffn, 0x1048n, 0x2000n, 0x2031n].map((address) => layout.rowOf(address))).toEqual([null, null, null, null]);
  });

  it('moves in the same column, over the titles', () => {
    const layout = new MemoryLayout([area(0x1000n, 0x1040n), area(0x5000n, 0x5020n)]);
    expect(layout.moveRows(0x1008n, 1)).toBe(0x1018n);
    expect(layout.moveRows(0x1038n, 1)).toBe(0x5008n);
    expect(layout.moveRows(0x5008n, -1)).toBe(0x1038n);
    expect(layout.moveRows(0x1008n, -1)).toBe(0x1008n);
    expect(layout.moveRows(0x5010n, 99)).toBe(0x5010n);
    expect(layout.moveRows(0x5018n, -Number.MAX_SAFE_INTEGER)).toBe(0x1008n);
    expect(layout.moveWord(0x1038n, 1)).toBe(0x5000n);
    expect(layout.moveWord(0x5000n, -1)).toBe(0x1038n);
    expect(layout.moveWord(0x1000n, -1)).toBe(0x1000n);
    expect(layout.moveArea(0x1010n, 1)).toBe(0x5000n);
    expect(layout.moveArea(0x5010n, -1)).toBe(0x5000n);
    expect(layout.moveArea(0x5000n, -1)).toBe(0x1000n);
  });

  it('takes the whole address space, empty areas and none', () => {
    const layout = new MemoryLayout([area(0n, 1n << 46n), area(1n << 46n, 1n << 46n), area(0xffffffffff600000n, 0xffffffffff601000n)]);
    expect(layout.count).toBe(3 + 2 ** 42 + 256);
    expect(layout.row(layout.count - 1).address).toBe(0xffffffffff600ff0n);
    expect(layout.rowOf(0xffffffffff600000n)).toBe(layout.count - 256);
    expect(layout.moveRows(0n, Number.MAX_SAFE_INTEGER)).toBe(0xffffffffff600ff0n);
    expect(layout.moveRows((1n << 46n) - 8n, 1)).toBe(0xffffffffff600008n);
    expect(new MemoryLayout([]).count).toBe(0);
    expect(new MemoryLayout([]).moveRows(0n, 1)).toBe(0n);
  });
});
