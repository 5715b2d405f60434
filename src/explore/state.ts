import type { Line } from './line.js';

/** Views in the order of their keys 1 to 8. */
export const TABS = ['overview', 'threads', 'maps', 'fds', 'env', 'signals', 'memory', 'diff'] as const;
export type Tab = (typeof TABS)[number];
/** Views that others lead to: one thread, what a search found, a text to read. */
export type View = Tab | 'thread' | 'matches' | 'text';

export type SideName = 'a' | 'b';
export type Sort = 'address' | 'size' | 'resident' | 'stored';
export type Pane = 'registers' | 'stack' | 'vectors';
export const SEARCH_MODES = ['text', 'text, any case', 'UTF-16 text', 'bytes', 'pointers to', 'regular expression'] as const;
export type SearchMode = (typeof SEARCH_MODES)[number];

export interface Text {
  title: string;
  paragraphs: readonly Line[];
}

/** What is looked at: enough to come back to it. */
export interface Place {
  view: View;
  side: SideName;
  /** Row numbers: the one with the cursor, and the first on the screen. */
  cursor: number;
  top: number;
  /** The word under the cursor in memory; a multiple of 8. */
  address: bigint;
  /** Of the view `thread`: index in the list of threads. */
  thread: number;
  pane: Pane;
  text: Text | null;
}

export interface Prompt {
  kind: 'address' | 'search' | 'find' | 'other';
  text: string;
  /** Where the next character goes, in characters. */
  caret: number;
  mode: SearchMode;
}

/** Work under way. `total` 0: how much is not known. */
export interface Task {
  label: string;
  done: number;
  total: number;
  unit: 'bytes' | 'rows';
}

export interface Notice {
  text: string;
  tone: 'plain' | 'bad';
}

export interface State {
  columns: number;
  rows: number;
  place: Place;
  /** Where each of the other tabs was left. */
  left: Partial<Record<Tab, Place>>;
  back: readonly Place[];
  forward: readonly Place[];
  sort: Sort;
  /** Rows of the diff that are opened, or closed where that is not how they begin. */
  toggled: ReadonlySet<string>;
  prompt: Prompt | null;
  searchMode: SearchMode;
  task: Task | null;
  notice: Notice | null;
  /** Counts what arrived from the image. */
  arrivals: number;
}

export type Action =
  | { type: 'resize'; columns: number; rows: number }
  | { type: 'tab'; tab: Tab }
  /** With a way back. Without `top` the cursor comes to stand in the upper part of the screen. */
  | { type: 'go'; to: Partial<Place> & { view: View } }
  | { type: 'back' }
  | { type: 'forward' }
  /** `shift`: by how many rows the whole screen moves. */
  | { type: 'cursor'; cursor: number; count: number; shift?: number; address?: bigint }
  | { type: 'scroll'; by: number; count: number }
  /** The same view of something else. */
  | { type: 'turn'; to: Partial<Place> }
  | { type: 'sort'; sort: Sort }
  | { type: 'toggle'; key: string }
  | { type: 'prompt'; prompt: Pick<Prompt, 'kind'> & Partial<Prompt> }
  | { type: 'edit'; key: string }
  | { type: 'close prompt' }
  | { type: 'task'; task: Task | null }
  | { type: 'notice'; notice: Notice | null }
  | { type: 'arrival' };

/** Lines that are not the list: tabs, title, column titles; two of detail, keys. */
export const FRAME_LINES = 6;
const MOST_BACK = 1000;

export function initialState(columns: number, rows: number): State {
  return {
    columns,
    rows,
    place: freshPlace('overview'),
    left: {},
    back: [],
    forward: [],
    sort: 'address',
    toggled: new Set(),
    prompt: null,
    searchMode: 'text',
    task: null,
    notice: null,
    arrivals: 0,
  };
}

export function freshPlace(view: View, side: SideName = 'a'): Place {
  return { view, side, cursor: 0, top: 0, address: 0n, thread: 0, pane: 'registers', text: null };
}

/** Rows of the list on the screen. */
export function bodyHeight({ rows }: Pick<State, 'rows'>): number {
  return Math.max(1, rows - FRAME_LINES);
}

export function isTab(view: View): view is Tab {
  return (TABS as readonly string[]).includes(view);
}

/** The tab that a view belongs to. */
export function tabOf(view: View): Tab | null {
  if (view === 'thread') return 'threads';
  if (view === 'matches') return 'memory';
  return isTab(view) ? view : null;
}

export function reduce(state: State, action: Action): State {
  const { place } = state;
  const height = bodyHeight(state);
  switch (action.type) {
    case 'resize': {
      const { columns, rows } = action;
      const top = intoView(place.top, place.cursor, bodyHeight(action));
      return { ...state, columns, rows, place: { ...place, top } };
    }
    case 'tab': {
      if (place.view === action.tab) return state;
      const left = isTab(place.view) ? { ...state.left, [place.view]: place } : state.left;
      const next = left[action.tab] ?? { ...freshPlace(action.tab), address: place.address, thread: place.thread };
      return { ...state, left, place: { ...next, side: place.side, top: intoView(next.top, next.cursor, height) } };
    }
    case 'go': {
      const back = [...state.back, place].slice(-MOST_BACK);
      const next: Place = { ...freshPlace(action.to.view, place.side), address: place.address, thread: place.thread, ...action.to };
      const onScreen = action.to.view === place.view && next.cursor >= place.top && next.cursor < place.top + height;
      const top = action.to.top ?? (onScreen ? place.top : Math.max(0, next.cursor - Math.floor(height / 3)));
      return { ...state, back, forward: [], place: { ...next, top } };
    }
    case 'back': {
      const to = state.back.at(-1);
      if (!to) return state;
      return { ...state, back: state.back.slice(0, -1), forward: [...state.forward, place], place: restored(to, height) };
    }
    case 'forward': {
      const to = state.forward.at(-1);
      if (!to) return state;
      return { ...state, forward: state.forward.slice(0, -1), back: [...state.back, place], place: restored(to, height) };
    }
    case 'cursor': {
      const cursor = clamp(action.cursor, 0, action.count - 1);
      const shifted = clamp(place.top + (action.shift ?? 0), 0, action.count - height);
      return at(state, { ...place, cursor, top: intoView(shifted, cursor, height), address: action.address ?? place.address });
    }
    case 'scroll': {
      const top = clamp(place.top + action.by, 0, action.count - height);
      return at(state, { ...place, top, cursor: top });
    }
    case 'turn':
      return { ...state, place: { ...place, ...action.to } };
    case 'sort':
      return { ...state, sort: action.sort, place: { ...place, cursor: 0, top: 0 } };
    case 'toggle': {
      const toggled = new Set(state.toggled);
      if (!toggled.delete(action.key)) toggled.add(action.key);
      return { ...state, toggled };
    }
    case 'prompt': {
      const text = action.prompt.text ?? '';
      return { ...state, prompt: { mode: state.searchMode, caret: [...text].length, ...action.prompt, text } };
    }
    case 'edit':
      return state.prompt ? { ...state, prompt: edit(state.prompt, action.key) } : state;
    case 'close prompt':
      return state.prompt ? { ...state, prompt: null, searchMode: state.prompt.mode } : state;
    case 'task':
      return { ...state, task: action.task };
    case 'notice':
      return { ...state, notice: action.notice };
    case 'arrival':
      return { ...state, arrivals: state.arrivals + 1 };
  }
}

/** The same state where a movement leads nowhere: nothing is drawn then. */
function at(state: State, place: Place): State {
  const { cursor, top, address } = state.place;
  return place.cursor === cursor && place.top === top && place.address === address ? state : { ...state, place };
}

/** The screen may have another size than when this place was left. */
function restored(place: Place, height: number): Place {
  return { ...place, top: intoView(place.top, place.cursor, height) };
}

function intoView(top: number, cursor: number, height: number): number {
  return clamp(top, cursor - height + 1, cursor);
}

function clamp(value: number, least: number, most: number): number {
  return Math.max(0, least, Math.min(value, most));
}

/** Line editing with the keys of readline(3). */
function edit(prompt: Prompt, key: string): Prompt {
  const characters = [...prompt.text];
  const { caret } = prompt;
  const replaced = (from: number, to: number, ...put: string[]): Prompt => {
    const text = characters.toSpliced(from, to - from, ...put).join('');
    return { ...prompt, text, caret: from + put.length };
  };
  switch (key) {
    case 'left':
      return { ...prompt, caret: Math.max(0, caret - 1) };
    case 'right':
      return { ...prompt, caret: Math.min(characters.length, caret + 1) };
    case 'home':
    case 'ctrl-a':
      return { ...prompt, caret: 0 };
    case 'end':
    case 'ctrl-e':
      return { ...prompt, caret: characters.length };
    case 'backspace':
      return replaced(Math.max(0, caret - 1), caret);
    case 'delete':
      return replaced(caret, Math.min(characters.length, caret + 1));
    case 'ctrl-u':
      return replaced(0, caret);
    case 'ctrl-k':
      return replaced(caret, characters.length);
    case 'ctrl-w': {
      const word = /\S*\s*$/.exec(characters.slice(0, caret).join(''))![0];
      return replaced(caret - [...word].length, caret);
    }
    case 'tab':
      return prompt.kind === 'search' ? { ...prompt, mode: nextOf(SEARCH_MODES, prompt.mode) } : prompt;
    default:
      return [...key].length === 1 ? replaced(caret, caret, key) : prompt;
  }
}

/** The item behind `item`, and the first behind the last. */
export function nextOf<T>(list: readonly T[], item: T): T {
  return list[(list.indexOf(item) + 1) % list.length]!;
}
