import type { OpenOptions } from '../elf/image.js';
import type { X86Register } from '../elf/kernel-notes/prstatus.js';
import { parseAddress } from '../elf/selection.js';
import { findVma, vmaIndex } from '../elf/vmas.js';
import { Failure } from '../failure.js';
import { hex } from '../hex.js';
import { bytes, count, printable } from '../terminal/format.js';
import { HELP_TITLE, helpText, perform } from './bindings.js';
import { Comparison } from './comparison.js';
import { ROW_BYTES, WORD, wordAt } from './layout.js';
import type { Lazy } from './lazy.js';
import { lineText } from './line.js';
import { wordOf } from './pages.js';
import { TextRows, wrapLine, type Rows } from './rows.js';
import { Matches, scannerFor, search } from './search.js';
import { Side } from './side.js';
import {
  bodyHeight,
  initialState,
  reduce,
  tabOf,
  TABS,
  type Action,
  type Pane,
  type Place,
  type Prompt,
  type SearchMode,
  type SideName,
  type Sort,
  type State,
  type Tab,
} from './state.js';
import { matchRows } from './views/matches.js';
import { MemoryRows } from './views/memory.js';
import { threadPane, threadTitle } from './views/threads.js';
import { LongWork, type Work } from './work.js';

/** Columns that the overview with its bars needs. */
const WIDE = 105;

const LOADING = new TextRows('', [['loading …']]);

export interface ExplorerOptions extends OpenOptions {
  /** 0 where the terminal does not tell. */
  columns: number;
  rows: number;
}

/** What stands between the keys, the images and the screen: keys become actions on the state and work on the images. */
export class Explorer {
  state: State;
  /** Resolves when the user quits; rejects when something breaks that should not. */
  readonly ended: Promise<void>;
  private a!: Side;
  private b: Side | null = null;
  private comparison: Comparison | null = null;
  private found: { side: Side; matches: Matches } | null = null;
  private foundText = '';
  private readonly work = new LongWork(this);
  private readonly listeners = new Set<() => void>();
  private end!: { resolve: () => void; reject: (error: unknown) => void };
  private isEnded = false;
  private arrivalPending = false;
  private typedAhead: string[] = [];
  private shown: { state: State; rows: Rows } | null = null;

  private constructor(private readonly options: ExplorerOptions) {
    const { columns, rows } = options;
    this.state = initialState(columns || 80, rows || 24);
    this.ended = new Promise((resolve, reject) => (this.end = { resolve, reject }));
    this.ended.catch(() => {}); // whoever waits gets it
  }

  /** Opens the images. A Failure when one of them cannot be read. */
  static async open(image: string, other: string | undefined, options: ExplorerOptions): Promise<Explorer> {
    const explorer = new Explorer(options);
    explorer.a = await Side.open(image, explorer, options);
    try {
      if (other !== undefined) await explorer.compareWith(other);
    } catch (error) {
      await explorer.close();
      throw error;
    }
    const { image: opened, layout } = explorer.a;
    const start = opened.vmas()[0]?.start ?? 0n;
    const first = orReason(
      () => opened.threads()[0]?.status.registers.rsp ?? start,
      () => start,
    );
    // Memory opens where the first thread is.
    explorer.dispatch({ type: 'turn', to: { address: wordAt(layout.rowOf(first) === null ? start : first) } });
    for (const warning of opened.warnings) explorer.notify(printable(warning), 'bad');
    return explorer;
  }

  async close(): Promise<void> {
    this.isEnded = true;
    await this.work.close();
    await Promise.all([this.a.close(), this.b?.close()]);
  }

  // --- for the screen

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** The image that is shown. */
  get side(): Side {
    return this.state.place.side === 'b' && this.b ? this.b : this.a;
  }

  get otherSide(): Side | null {
    return this.side === this.a ? this.b : this.a;
  }

  get comparing(): boolean {
    return this.b !== null;
  }

  /** The matches of the last search in the image that is shown. */
  get matches(): Matches | null {
    return this.found?.side === this.side ? this.found.matches : null;
  }

  /** The lines of the current view: the same until the state changes. */
  rows(): Rows {
    if (this.shown?.state !== this.state) {
      const rows = orReason(
        () => this.rowsOfView(),
        (reason) => new TextRows('', [[reason]]),
      );
      this.shown = { state: this.state, rows };
    }
    return this.shown.rows;
  }

  private rowsOfView(): Rows {
    const { side } = this;
    const { place, sort } = this.state;
    switch (place.view) {
      case 'overview':
        return this.loaded(side.overview, ({ wide, narrow }) => new TextRows('overview', this.state.columns < WIDE ? narrow : wide));
      case 'threads':
        return this.loaded(side.threads);
      case 'thread':
        return threadPane(side, place.thread, place.pane);
      case 'maps':
        return side.maps.rows(sort);
      case 'fds':
        return this.loaded(side.descriptors);
      case 'env':
        return this.loaded(side.environment);
      case 'signals':
        return this.loaded(side.signals);
      case 'memory':
        return this.memoryRows();
      case 'matches':
        return this.matches ? matchRows(this.matches, side) : new TextRows('matches', [['nothing was searched in this image; / searches']]);
      case 'diff':
        return this.differenceRows();
      case 'text':
        return new TextRows(
          place.text?.title ?? '',
          (place.text?.paragraphs ?? []).flatMap((line) => wrapLine(line, this.state.columns)),
        );
    }
  }

  /** What the title says before the summary of the rows. */
  title(): string {
    const { place } = this.state;
    return place.view === 'thread' ? threadTitle(this.side, place.thread) : '';
  }

  /** The current list is on its way. */
  private get loading(): boolean {
    return this.rows() === LOADING;
  }

  private loaded<T>(lazy: Lazy<T>, rows: (value: T) => Rows = (value) => value as Rows): Rows {
    const now = lazy.get();
    if (now.status === 'ready') return rows(now.value);
    return now.status === 'loading' ? LOADING : new TextRows('', [[printable(now.reason)]]);
  }

  private memoryRows(): Rows {
    const { side, state } = this;
    const { layout } = side;
    if (layout.count === 0) return new TextRows('memory', [['this image tells of no memory']]);
    const { top, address } = state.place;
    const other = this.otherSide;
    const ranges = [];
    for (let row = top; row < Math.min(layout.count, top + bodyHeight(state)); row++) {
      const start = layout.row(row).address;
      if (start !== null) ranges.push({ start, end: start + ROW_BYTES });
    }
    ranges.push({ start: address, end: address + WORD });
    const pointer = wordOf(side.pages.at(address), address);
    if (pointer !== null && findVma(side.image.vmas(), pointer)) ranges.push({ start: pointer, end: pointer + 1n });
    side.pages.want(ranges);
    other?.pages.want(ranges);
    return new MemoryRows({ side, other, address, matches: this.matches });
  }

  private differenceRows(): Rows {
    const { comparison } = this;
    if (!comparison) return new TextRows('diff', [['O opens another image to compare this one with']]);
    return this.loaded(comparison.metadata, (document) => comparison.rows(document, this.state.toggled));
  }

  // --- from outside

  /** A key by its name (keys.ts). */
  press(key: string): void {
    if (this.isEnded) return;
    if (key === 'ctrl-c') return this.quit();
    // What was typed ahead of a list that is still being loaded is for that list.
    const early = this.loading && !this.state.prompt && (key === 'enter' || key === '/');
    if (key === 'escape') this.typedAhead = [];
    else if (early || this.typedAhead.length > 0) return void this.typedAhead.push(key);
    if (this.state.notice) this.dispatch({ type: 'notice', notice: null });
    orReason(
      () => (this.state.prompt ? this.editPrompt(key) : perform(key, this)),
      (reason) => this.notify(reason, 'bad'),
    );
  }

  resize(columns: number, rows: number): void {
    this.dispatch({ type: 'resize', columns: columns || 80, rows: rows || 24 });
  }

  quit(): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.end.resolve();
  }

  /** Something that is no answer but a fault: everything ends. */
  crashed = (error: unknown): void => {
    if (this.isEnded) return;
    this.isEnded = true;
    this.end.reject(error);
  };

  /** Something came from an image. Many things come at once: they are shown together. */
  arrived = (): void => {
    if (this.arrivalPending || this.isEnded) return;
    this.arrivalPending = true;
    setImmediate(() => {
      this.arrivalPending = false;
      this.dispatch({ type: 'arrival' });
      if (this.loading) return;
      for (const key of this.typedAhead.splice(0)) this.press(key);
    });
  };

  // --- what keys do

  dispatch = (action: Action): void => {
    const next = reduce(this.state, action);
    if (next === this.state) return;
    this.state = next;
    for (const listener of this.listeners) listener();
  };

  notify(text: string, tone: 'plain' | 'bad' = 'plain'): void {
    this.dispatch({ type: 'notice', notice: { text, tone } });
  }

  show(tab: Tab): void {
    this.dispatch({ type: 'tab', tab });
    if (tab === 'memory') this.lookAt(this.state.place.address);
  }

  turnTab(step: -1 | 1): void {
    const tab = tabOf(this.state.place.view);
    this.show(TABS[((tab === null ? 0 : TABS.indexOf(tab)) + step + TABS.length) % TABS.length]!);
  }

  help(): void {
    if (this.state.place.text?.title === HELP_TITLE) return this.back();
    this.dispatch({ type: 'go', to: { view: 'text', text: helpText(this) } });
  }

  /** Moves the cursor (or the text) by rows. */
  move(by: number): void {
    const { place } = this.state;
    const rows = this.rows();
    if (place.view === 'memory') return this.lookAt(this.side.layout.moveRows(place.address, by));
    if (rows.scrolls) return this.dispatch({ type: 'scroll', by, count: rows.count });
    this.dispatch({ type: 'cursor', cursor: place.cursor + by, count: rows.count });
  }

  /** Moves by screens. */
  page(by: number): void {
    const shift = by * Math.max(1, bodyHeight(this.state) - 1);
    const { place } = this.state;
    const rows = this.rows();
    if (rows.scrolls) return this.dispatch({ type: 'scroll', by: shift, count: rows.count });
    if (place.view === 'memory') return this.lookAt(this.side.layout.moveRows(place.address, shift), shift);
    this.dispatch({ type: 'cursor', cursor: place.cursor + shift, count: rows.count, shift });
  }

  /** To the first row (-1) or the last (1). */
  extreme(direction: -1 | 1): void {
    this.move(direction * Number.MAX_SAFE_INTEGER);
  }

  moveWord(step: -1 | 1): void {
    this.lookAt(this.side.layout.moveWord(this.state.place.address, step));
  }

  moveArea(step: -1 | 1): void {
    this.lookAt(this.side.layout.moveArea(this.state.place.address, step));
  }

  /** Moves the cursor in memory to a mapped address, without a way back. */
  private lookAt(address: bigint, shift = 0): void {
    const { layout } = this.side;
    const { place } = this.state;
    const row = layout.rowOf(address);
    if (row === null) return;
    const height = bodyHeight(this.state);
    // Far away the cursor comes to stand in the upper part of the screen.
    const far = Math.abs(row - place.cursor) > 2 * height;
    const moved = far ? row - Math.floor(height / 3) - place.top : shift;
    this.dispatch({ type: 'cursor', cursor: row, count: layout.count, shift: moved, address: wordAt(address) });
  }

  /** Shows memory at `address`, with a way back; says so when nothing is mapped there. */
  goTo(address: bigint): boolean {
    const row = this.side.layout.rowOf(address);
    if (row === null) {
      this.notify(this.unmapped(address), 'bad');
      return false;
    }
    this.dispatch({ type: 'go', to: { view: 'memory', address: wordAt(address), cursor: row } });
    return true;
  }

  private unmapped(address: bigint): string {
    const vmas = this.side.image.vmas();
    const next = vmas[vmaIndex(vmas, address)];
    return `${hex(address)} is not mapped${next ? `; the next area starts at ${hex(next.start)}` : ''}`;
  }

  enter(): void {
    const { cursor } = this.state.place;
    const rows = this.rows();
    const target = cursor < rows.count ? (rows.target?.(cursor) ?? null) : null;
    switch (target?.to) {
      case 'address':
        this.goTo(target.address);
        break;
      case 'thread':
        this.openThread(target.index, 'registers');
        break;
      case 'text':
        this.dispatch({ type: 'go', to: { view: 'text', text: target.text } });
        break;
      case 'toggle':
        this.dispatch({ type: 'toggle', key: target.key });
        break;
    }
  }

  openThread(index: number, pane: Pane): void {
    if (index < this.side.image.threads().length) this.dispatch({ type: 'go', to: { view: 'thread', thread: index, pane } });
  }

  turnThread(step: -1 | 1): void {
    const threads = this.side.image.threads().length;
    this.dispatch({ type: 'turn', to: { thread: (this.state.place.thread + step + threads) % threads } });
  }

  turnPane(pane: Pane): void {
    this.dispatch({ type: 'turn', to: { pane, cursor: 0, top: 0 } });
  }

  sort(by: Sort): void {
    this.dispatch({ type: 'sort', sort: by });
  }

  back(): void {
    if (this.state.back.length > 0) return this.dispatch({ type: 'back' });
    this.notify('this is where you began');
  }

  /** Escape: ends what is under way, else leaves what was opened. */
  escape(): void {
    if (this.work.running) return this.work.stop();
    if (['thread', 'matches', 'text'].includes(this.state.place.view)) this.back();
  }

  /** The same view of the other image. */
  turnSide(): void {
    if (!this.b) return this.notify(ONE_IMAGE);
    const { place } = this.state;
    const side: SideName = place.side === 'a' ? 'b' : 'a';
    const to: Partial<Place> = place.view === 'memory' ? {} : { cursor: 0, top: 0 };
    if (place.view === 'thread' && place.thread >= this.otherSide!.image.threads().length)
      return this.notify('the other image has no such thread');
    this.dispatch({ type: 'turn', to: { ...to, side } });
    if (place.view !== 'memory') return;
    const { address } = place;
    const vmas = this.side.image.vmas();
    if (findVma(vmas, address)) return this.lookAt(address);
    this.notify(`${hex(address)} is not mapped in this image`, 'bad');
    const near = vmas[vmaIndex(vmas, address)] ?? vmas.at(-1);
    if (near) this.lookAt(near.start);
  }

  // --- prompts

  ask(kind: Prompt['kind']): void {
    this.dispatch({ type: 'prompt', prompt: { kind } });
  }

  private editPrompt(key: string): void {
    const prompt = this.state.prompt!;
    if (key === 'escape') return this.dispatch({ type: 'close prompt' });
    if (key !== 'enter') return this.dispatch({ type: 'edit', key });
    this.dispatch({ type: 'close prompt' });
    const text = prompt.text;
    if (text === '') return;
    if (prompt.kind === 'address') this.goTo(this.addressOf(text.trim()));
    else if (prompt.kind === 'search') this.search(text, prompt.mode);
    else if (prompt.kind === 'find') this.find(text);
    else this.openOther(text.trim());
  }

  /** An address, a register of the thread that was looked at last, or an offset from the cursor (+0x100, -64). */
  private addressOf(text: string): bigint {
    const { place } = this.state;
    const name = text.replace(/^[$%]/, '').toLowerCase();
    const registers = this.side.image.threads()[place.thread]?.status.registers;
    if (registers && Object.hasOwn(registers, name)) return registers[name as X86Register];
    const offset = /^([+-])(0x[0-9a-f]+|[0-9]+)$/i.exec(text);
    if (offset) return place.address + (offset[1] === '-' ? -1n : 1n) * BigInt(offset[2]!);
    return parseAddress(text);
  }

  // --- work that takes a while

  /** Searches memory from behind the cursor; goes to the first match as soon as it is known, if the user still waits for it. */
  search(pattern: string, mode: SearchMode): void {
    const scanner = scannerFor(pattern, mode);
    const { side } = this;
    const { address, view } = this.state.place;
    const from = address + 1n;
    const matches = new Matches(pattern, mode, from);
    this.found = { side, matches };
    let isFirst = true;
    const first = (): void => {
      if (!isFirst || matches.count === 0) return;
      isFirst = false;
      const { place } = this.state;
      if (place.view === view && place.address === address) this.goToMatch(1, from);
      else this.notify(`${printable(pattern)} was found; n in memory goes there`);
    };
    this.work.start(`searching ${mode} ${printable(pattern)}`, async (patience, progress) => {
      const report = (done: number, total: number): void => {
        first();
        progress(done, total);
      };
      await search(side.image, scanner, matches, { from, patience, progress: report });
      first();
      if (matches.count === 0) this.notify(`${mode} ${printable(pattern)} is not in this memory${absenceText(matches)}`, 'bad');
      else if (matches.state === 'full') this.notify(`more than ${matches.count} matches: only these are kept`);
      else if (matches.absent > 0n) this.notify(`${count(matches.count, 'match', 'matches')}${absenceText(matches)}`);
    });
  }

  /** Searches for pointers to the word under the cursor. */
  searchReferences(): void {
    this.search(hex(this.state.place.address), 'pointers to');
  }

  /** To the next (1) or previous (-1) match, round the end of memory. */
  goToMatch(step: -1 | 1, from?: bigint): void {
    const { matches } = this;
    if (!matches || matches.count === 0)
      return this.notify(matches?.state === 'running' ? 'nothing found yet' : 'nothing was searched, or nothing found; / searches');
    const { address } = this.state.place;
    const index = step > 0 ? matches.indexFrom(from ?? address + WORD) : matches.indexFrom(from ?? address) - 1;
    const match = matches.at((index + matches.count) % matches.count);
    this.goTo(match.address);
  }

  /** Finds a row of the current list by its text, downwards from the cursor and round. */
  find(text: string): void {
    this.foundText = text;
    this.findNext(1);
  }

  findNext(step: -1 | 1): void {
    if (this.foundText === '') return this.notify('/ finds a row by its text');
    const wanted = this.foundText.toLowerCase();
    const rows = this.rows();
    const { view, cursor } = this.state.place;
    const width = 400; // hardly anything is cut off
    const look: Work = async (patience, progress) => {
      for (let away = 1; away <= rows.count; away++) {
        const index = (((cursor + step * away) % rows.count) + rows.count) % rows.count;
        if (lineText(rows.row(index, width)).toLowerCase().includes(wanted)) {
          if (this.state.place.view !== view) return;
          if (rows.scrolls) this.dispatch({ type: 'scroll', by: index - this.state.place.top, count: rows.count });
          else this.dispatch({ type: 'cursor', cursor: index, count: rows.count });
          return;
        }
        if (away % 256 === 0) {
          progress(away, rows.count);
          await patience.turn();
        }
      }
      this.notify(`no row has ${printable(this.foundText)}`, 'bad');
    };
    this.work.start(`finding ${printable(this.foundText)}`, look, 'rows');
  }

  // --- two images

  private openOther(argument: string): void {
    this.work.start(`opening ${printable(argument)}`, async () => {
      await this.compareWith(argument);
      this.show('diff');
    });
  }

  private async compareWith(argument: string): Promise<void> {
    const other = await Side.open(argument, this, this.options);
    const before = this.b;
    if (this.state.place.side === 'b') this.dispatch({ type: 'turn', to: { side: 'a' } });
    this.b = other;
    this.comparison = new Comparison(this.a, other, this);
    await before?.close();
  }

  /** Compares memory page by page. */
  compareMemory(): void {
    const { comparison } = this;
    if (!comparison) return this.notify(ONE_IMAGE);
    this.work.start('comparing memory', async (...parameters) => {
      await comparison.compareMemory(...parameters);
      this.arrived();
    });
  }

  /** To the next (1) or previous (-1) word that differs between the images; needs compareMemory. */
  goToDifference(step: -1 | 1): void {
    const { comparison } = this;
    if (!comparison?.memory) return this.notify(comparison ? 'compare memory first: 8, then m' : ONE_IMAGE);
    const from = this.state.place.address;
    this.work.start('looking for a difference', async (patience) => {
      const found = await comparison.nextDifference(from, step, patience);
      if (found !== null) this.goTo(found);
      else this.notify(`no difference ${step > 0 ? 'behind' : 'before'} ${hex(from)}`);
    });
  }
}

const ONE_IMAGE = 'there is only one image; O opens another to compare it with';

/** What `work` gives, or what `otherwise` makes of the reason why it cannot: a damaged image is looked at as far as it goes. */
function orReason<T>(work: () => T, otherwise: (reason: string) => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof Failure) return otherwise(printable(error.message));
    throw error;
  }
}

function absenceText({ absent, reason }: Matches): string {
  return absent > 0n ? `; ${bytes(absent)} could not be searched: ${printable(reason ?? '')}` : '';
}
