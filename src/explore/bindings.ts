import type { Explorer } from './explorer.js';
import type { Line, Span } from './line.js';
import { nextOf, TABS, type Sort, type Text, type View } from './state.js';

/** What one key does, or keys for several directions. */
interface Binding {
  /** Names of keys.ts, the alternatives of each direction together. */
  keys: readonly (readonly string[])[];
  /** How the keys are written for people. */
  shown: string;
  /** What the status line says; without it they are in the help only. */
  label?: string;
  /** May leave the status line where there is little room. */
  spare?: boolean;
  help: string;
  when?: (explorer: Explorer) => boolean;
  /** `which`: number of the direction. */
  run: (explorer: Explorer, which: number) => void;
}

const SORTS: readonly Sort[] = ['address', 'size', 'resident', 'stored'];
const comparing = (explorer: Explorer): boolean => explorer.comparing;
const hasMatches = (explorer: Explorer): boolean => explorer.matches !== null && explorer.matches.count > 0;
const backOrOn = (which: number): -1 | 1 => (which === 0 ? -1 : 1);

function enter(label: string, help: string): Binding {
  return { keys: [['enter']], shown: 'enter', label, help, run: (it) => it.enter() };
}

const address: Binding = {
  keys: [['g', ':']],
  shown: 'g',
  label: 'go to',
  help: 'go to an address, register (rsp) or offset (+0x40)',
  run: (it) => it.ask('address'),
};

const search: Binding = {
  keys: [['/']],
  shown: '/',
  label: 'find',
  help: 'search memory: text, bytes, pointers, expressions',
  run: (it) => it.ask('search'),
};

const find: readonly Binding[] = [
  { keys: [['/']], shown: '/', label: 'find', help: 'find a row by its text', run: (it) => it.ask('find') },
  { keys: [['N'], ['n']], shown: 'n N', help: 'the next and the previous such row', run: (it, which) => it.findNext(backOrOn(which)) },
];

const stackHelp = 'the stack, unwound by gdb or eu-stack';

/** Keys of single views. */
const VIEW_KEYS: Record<View, readonly Binding[]> = {
  overview: [address, ...find],
  threads: [
    enter('registers', 'the registers of the thread'),
    { keys: [['s']], shown: 's', label: 'stack', help: stackHelp, run: (it) => it.openThread(it.state.place.cursor, 'stack') },
    address,
    ...find,
  ],
  thread: [
    enter('memory', 'memory where the register or frame points'),
    { keys: [['r']], shown: 'r', label: 'registers', help: 'integer registers', run: (it) => it.turnPane('registers') },
    { keys: [['s']], shown: 's', label: 'stack', help: stackHelp, run: (it) => it.turnPane('stack') },
    { keys: [['v']], shown: 'v', label: 'vectors', help: 'x87, SSE, AVX and AVX-512 registers', run: (it) => it.turnPane('vectors') },
    {
      keys: [['left'], ['right']],
      shown: '←→',
      label: 'thread',
      help: 'the previous and the next thread',
      run: (it, which) => it.turnThread(backOrOn(which)),
    },
    { ...address, spare: true },
    ...find.map((binding) => ({ ...binding, spare: true })),
  ],
  maps: [
    enter('memory', 'memory of the area'),
    { keys: [['s']], shown: 's', label: 'sort', help: `order by ${SORTS.join(', ')}`, run: (it) => it.sort(nextOf(SORTS, it.state.sort)) },
    address,
    ...find,
  ],
  fds: [enter('all of it', 'the descriptor in full'), address, ...find],
  env: [enter('all of it', 'the value in full'), address, ...find],
  signals: [enter('handler', 'memory of the handler'), address, ...find],
  memory: [
    enter('follow', 'go where the word under the cursor points'),
    address,
    search,
    {
      keys: [['N'], ['n']],
      shown: 'n N',
      label: 'next',
      help: 'the next and the previous match',
      when: hasMatches,
      run: (it, which) => it.goToMatch(backOrOn(which)),
    },
    {
      keys: [['l']],
      shown: 'l',
      label: 'list',
      spare: true,
      help: 'all matches as a list',
      when: hasMatches,
      run: (it) => it.dispatch({ type: 'go', to: { view: 'matches' } }),
    },
    {
      keys: [['r']],
      shown: 'r',
      label: 'references',
      spare: true,
      help: 'search for pointers to the word under the cursor',
      run: (it) => it.searchReferences(),
    },
    {
      keys: [['['], [']']],
      shown: '] [',
      label: 'change',
      help: 'the next and the previous word that differs',
      when: comparing,
      run: (it, which) => it.goToDifference(backOrOn(which)),
    },
    {
      keys: [['left'], ['right']],
      shown: '←→',
      help: 'the previous and the next word',
      run: (it, which) => it.moveWord(backOrOn(which)),
    },
    { keys: [['{'], ['}']], shown: '} {', help: 'the next and the previous area', run: (it, which) => it.moveArea(backOrOn(which)) },
  ],
  matches: [enter('memory', 'memory at the match'), address, search],
  diff: [
    enter('open', 'open or close a row; memory at a range of pages'),
    { keys: [['m']], shown: 'm', label: 'memory', help: 'compare memory page by page', when: comparing, run: (it) => it.compareMemory() },
    address,
    ...find,
  ],
  text: find,
};

/** Keys of all views. */
const COMMON_KEYS: readonly Binding[] = [
  {
    keys: [['b', 'backspace']],
    shown: 'b',
    label: 'back',
    help: 'back to where you came from',
    when: (it) => it.state.back.length > 0,
    run: (it) => it.back(),
  },
  { keys: [['f']], shown: 'f', help: 'forward again', run: (it) => it.dispatch({ type: 'forward' }) },
  { keys: [['o']], shown: 'o', label: 'other', help: 'the same view of the other image', when: comparing, run: (it) => it.turnSide() },
  { keys: [['O']], shown: 'O', help: 'open another image to compare this one with', run: (it) => it.ask('other') },
  {
    keys: [
      ['up', 'k', 'ctrl-p'],
      ['down', 'j', 'ctrl-n'],
    ],
    shown: '↑↓ k j',
    help: 'one row',
    run: (it, which) => it.move(backOrOn(which)),
  },
  {
    keys: [
      ['pageup', 'u', 'ctrl-b', 'ctrl-u'],
      ['pagedown', ' ', 'ctrl-f', 'ctrl-d'],
    ],
    shown: 'page up, page down, u space',
    help: 'one screen',
    run: (it, which) => it.page(backOrOn(which)),
  },
  {
    keys: [
      ['home', '<'],
      ['end', '>', 'G'],
    ],
    shown: 'home end < >',
    help: 'the first and the last row',
    run: (it, which) => it.extreme(backOrOn(which)),
  },
  {
    keys: TABS.map((_, index) => [String(index + 1)]),
    shown: `1 … ${TABS.length}`,
    help: 'a view',
    run: (it, which) => it.show(TABS[which]!),
  },
  {
    keys: [['shift-tab'], ['tab']],
    shown: 'tab shift-tab',
    help: 'the next and the previous view',
    run: (it, which) => it.turnTab(backOrOn(which)),
  },
  { keys: [['escape']], shown: 'esc', help: 'stop what is under way; leave what was opened', run: (it) => it.escape() },
  { keys: [['?', 'h']], shown: '?', label: 'help', help: 'this help', run: (it) => it.help() },
  { keys: [['q']], shown: 'q', label: 'quit', help: 'quit; ctrl-z: suspend; ctrl-l: draw again', run: (it) => it.quit() },
];

function bindings(explorer: Explorer): Binding[] {
  return [...VIEW_KEYS[explorer.state.place.view], ...COMMON_KEYS].filter(({ when }) => !when || when(explorer));
}

/** Does what a key means in the current view; nothing for a key without meaning. */
export function perform(key: string, explorer: Explorer): void {
  for (const { keys, run } of bindings(explorer)) {
    const which = keys.findIndex((alternatives) => alternatives.includes(key));
    if (which >= 0) return run(explorer, which);
  }
}

/** What the status line offers in the current view; the last two are wanted most. */
export function offered(explorer: Explorer): Binding[] {
  return bindings(explorer).filter(({ label }) => label !== undefined);
}

export const HELP_TITLE = 'keys';

/** The keys of the current view, then those of all views, then what colours mean. */
export function helpText(explorer: Explorer): Text {
  const { view } = explorer.state.place;
  const line = ({ shown, help }: Binding): Line => [`  ${shown.padEnd(28)}`, help];
  const title = (text: string): Line => [[text, { bold: true }]];
  const red = (text: string): Span => [text, { colour: 'red' }];
  return {
    title: HELP_TITLE,
    paragraphs: [
      title(`in this view (${view})`),
      ...VIEW_KEYS[view].map(line),
      [],
      title('everywhere'),
      ...COMMON_KEYS.map(line),
      [],
      title('colours'),
      ['  protection  ', red('executable'), ', ', ['writable', { colour: 'yellow' }]],
      ['  memory  ', ['file', { colour: 'cyan' }], ', ', ['heap', { colour: 'green' }], ', ', ['stack', { colour: 'magenta' }]],
      ['  pointers  as memory, ', red('to code'), ', ', ['to anything else', { colour: 'blue' }]],
      ['  bytes  ', ['match', { colour: 'yellow', bold: true }], ', ', ['zero', { dim: true }], ', ·· not in the image'],
      ['  ', ['differs from the other image', { colour: 'red', bold: true, underline: true }]],
    ],
  };
}
