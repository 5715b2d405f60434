import { Box, Transform } from 'ink';
import type { JSX } from 'react';
import { useSyncExternalStore } from 'react';
import { bytes, printable } from '../terminal/format.js';
import { cut, displayWidth } from '../terminal/width.js';
import { offered } from './bindings.js';
import type { Explorer } from './explorer.js';
import { fitLine, lineText, selected, type Line, type Painter, type Span } from './line.js';
import type { Rows } from './rows.js';
import { bodyHeight, FRAME_LINES, tabOf, TABS, type Prompt, type State } from './state.js';

const GAP = '  ';

/** One line of the screen. ink measures and keeps every text that it is given for ever: it gets a blank, and the line when it writes. */
export function Row({ line, width, painter }: { line: Line; width: number; painter: Painter }): JSX.Element {
  return <Transform transform={() => painter(fitLine(line, width))}> </Transform>;
}

/** The part of a list that is on the screen: only its rows are made. */
export function List(parts: {
  rows: Rows;
  top: number;
  cursor: number | null;
  height: number;
  width: number;
  painter: Painter;
}): JSX.Element[] {
  const { rows, top, cursor, height, width, painter } = parts;
  return Array.from({ length: height }, (_, line) => {
    const index = top + line;
    const row = index < rows.count ? rows.row(index, width) : [];
    return <Row key={line} line={index === cursor ? selected(row, width) : row} width={width} painter={painter} />;
  });
}

/** The whole screen. */
export function App({ explorer, painter }: { explorer: Explorer; painter: Painter }): JSX.Element {
  const state = useSyncExternalStore(explorer.subscribe, () => explorer.state);
  const { columns: width, place } = state;
  const rows = explorer.rows();
  const height = bodyHeight(state);
  const cursor = rows.scrolls || place.view === 'memory' ? null : Math.min(place.cursor, rows.count - 1);
  const top = Math.max(0, Math.min(place.top, rows.count - 1));
  const details = place.cursor < rows.count ? (rows.detail?.(place.cursor, width) ?? []) : [];
  const one = { width, painter };
  return (
    <Box flexDirection="column" width={width} height={height + FRAME_LINES}>
      <Row line={tabLine(explorer, width)} {...one} />
      <Row line={titleLine(explorer, rows, width)} {...one} />
      <Row line={rows.header(width)} {...one} />
      <List rows={rows} top={top} cursor={cursor} height={height} {...one} />
      <Row line={details[0] ?? []} {...one} />
      <Row line={messageLine(state, width) ?? details[1] ?? []} {...one} />
      <Row line={state.prompt ? promptKeys(state.prompt) : keyLine(explorer, width)} {...one} />
    </Box>
  );
}

function tabLine(explorer: Explorer, width: number): Line {
  const { place } = explorer.state;
  const current = tabOf(place.view);
  const spans = TABS.flatMap((tab, index): Span[] => {
    const text = `${index + 1} ${tab}`;
    return [tab === current ? [` ${text} `, { inverse: true, bold: true }] : ` ${text} `];
  });
  return ends(spans, width >= 100 ? [[cut(explorer.side.name, width - 78, 'end'), { dim: true }]] : [], width);
}

/** What is shown, how much of it, and of which image. */
function titleLine(explorer: Explorer, rows: Rows, width: number): Line {
  const { place } = explorer.state;
  const title = explorer.title();
  const left: Span[] = [...(title === '' ? [] : [[title, { bold: true }] as const, GAP]), rows.summary];
  const right: Span[] = [];
  if (explorer.comparing && place.view !== 'diff') right.push([`image ${place.side.toUpperCase()} `, { bold: true }]);
  if (rows.scrolls) right.push([scrollText(place.top, bodyHeight(explorer.state), rows.count), { dim: true }]);
  else if (rows.count > 0) right.push([`${Math.min(place.cursor + 1, rows.count)}/${rows.count}`, { dim: true }]);
  return ends(left, right, width);
}

function scrollText(top: number, height: number, count: number): string {
  if (count <= height) return 'all';
  if (top === 0) return 'top';
  return top + height >= count ? 'end' : `${Math.floor(((top + height) / count) * 100)}%`;
}

/** What is asked, under way, or to be told; null when there is nothing. */
function messageLine({ prompt, task, notice }: State, width: number): Line | null {
  if (prompt) return promptLine(prompt, width);
  if (notice) return [[notice.text, notice.tone === 'bad' ? { colour: 'red' } : { bold: true }]];
  if (!task) return null;
  if (task.total === 0) return [[task.label, { bold: true }]];
  const share = Math.min(1, task.done / task.total);
  const amount = task.unit === 'rows' ? `${task.done} of ${task.total} rows` : `${bytes(task.done)} of ${bytes(task.total)}`;
  const full = Math.round(share * 20);
  return [
    [`${task.label}  `, { bold: true }],
    ['█'.repeat(full), { colour: 'green' }],
    ['·'.repeat(20 - full), { dim: true }],
    ` ${Math.floor(share * 100)}%  ${amount}`,
    ['  esc stops', { dim: true }],
  ];
}

const QUESTIONS: Record<Prompt['kind'], string> = {
  address: 'go to address, register or +offset',
  search: 'search',
  find: 'find a row with',
  other: 'compare with image',
};

function promptLine({ kind, text, caret, mode }: Prompt, width: number): Line {
  const question = `${QUESTIONS[kind]}${kind === 'search' ? ` ${mode}` : ''}: `;
  const characters = [...printable(text)];
  // The end that is typed at stays on the screen.
  const room = Math.max(1, width - question.length - 1);
  const from = Math.max(0, caret - room + 1);
  const under = characters[caret] ?? ' ';
  return [
    [question, { bold: true }],
    characters.slice(from, caret).join(''),
    [under, { inverse: true }],
    characters.slice(caret + 1, from + room).join(''),
  ];
}

function promptKeys({ kind }: Prompt): Line {
  const keys: [string, string][] = [
    ['enter', 'go'],
    ...(kind === 'search' ? ([['tab', 'any case, UTF-16, bytes, pointers, expressions']] as [string, string][]) : []),
    ['esc', 'cancel'],
  ];
  return keys.flatMap(([key, what]): Span[] => [[key, { bold: true }], ` ${what}${GAP}`]);
}

/** The keys of the view. Where there is no room for all, help and quit stay. */
function keyLine(explorer: Explorer, width: number): Line {
  const keys = offered(explorer);
  const textOf = ({ shown, label }: (typeof keys)[number]): string => `${shown} ${label}`;
  const taken = (): number => keys.reduce((sum, key) => sum + displayWidth(textOf(key)) + GAP.length, -GAP.length);
  while (taken() > width && keys.length > 2) {
    const spare = keys.findLastIndex((key) => key.spare);
    keys.splice(spare >= 0 ? spare : -3, 1);
  }
  return keys.flatMap(({ shown, label }, index): Span[] => [index === 0 ? '' : GAP, [shown, { bold: true }], ` ${label}`]);
}

/** Text at both ends of a line; the left one is cut where they do not fit. */
function ends(left: Line, right: Line, width: number): Line {
  const end = lineText(right);
  if (end === '') return left;
  const room = Math.max(0, width - displayWidth(end) - GAP.length);
  const start = fitLine(left, room);
  return [...start, ' '.repeat(Math.max(0, room - displayWidth(lineText(start))) + GAP.length), ...right];
}
