/** The explorer's screens as ink renders them, on built images; how much work a key costs. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Chalk } from 'chalk';
import { cleanup, render } from 'ink-testing-library';
import { createElement } from 'react';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import type { Vma } from '../src/elf/vmas.js';
import { App, List } from '../src/explore/app.js';
import { offered } from '../src/explore/bindings.js';
import { Explorer } from '../src/explore/explorer.js';
import { painterFor } from '../src/explore/line.js';
import { Matches, scannerFor } from '../src/explore/search.js';
import { TABS, type View } from '../src/explore/state.js';
import { MapOrders } from '../src/explore/views/maps.js';
import { Failure } from '../src/failure.js';
import { displayWidth } from '../src/terminal/width.js';
import { imageDirectory, removeDirectory, scratchDirectory } from './support/cores.js';
import { foreignCore, PAGE, prstatusNote, warpImage } from './support/synthesise.js';

// A busy machine may take its time; only a fault takes that long.
vi.setConfig({ testTimeout: 240_000 });

const directory = scratchDirectory();
const open: Explorer[] = [];
const painter = painterFor(new Chalk({ level: 0 }));

afterEach(async () => {
  cleanup();
  await Promise.all(open.splice(0).map((explorer) => explorer.close()));
});
afterAll(() => removeDirectory(directory));

async function explore(
  image: string,
  other?: string,
  size = { columns: 80, rows: 24 },
): Promise<{ explorer: Explorer; screen: () => string }> {
  const explorer = await Explorer.open(image, other, size);
  open.push(explorer);
  const { lastFrame } = render(createElement(App, { explorer, painter }));
  // oxlint-disable-next-line no-control-regex
  return { explorer, screen: () => (lastFrame() ?? '').replaceAll(/\x1b\[[0-9;]*m/g, '') };
}

const press = (explorer: Explorer, ...keys: string[]): void => keys.forEach((key) => explorer.press(key));
const type = (explorer: Explorer, text: string): void => [...text].forEach((key) => explorer.press(key));
/** Waits for a screen; only a fault makes it wait in vain. */
const shows = (screen: () => string, wanted: RegExp): Promise<void> =>
  vi.waitFor(() => expect(screen()).toMatch(wanted), { timeout: 30_000 });

function word(value: bigint): Buffer {
  const raw = Buffer.alloc(8);
  raw.writeBigUInt64LE(value);
  return raw;
}

/** Two areas: the first points into the second, where a text is. */
async function linked(name: string, text = 'treasure'): Promise<string> {
  const first = Buffer.alloc(2 * PAGE);
  word(0x200000n + 0x1230n).copy(first, 0x40);
  const second = Buffer.alloc(4 * PAGE, 0x11);
  second.write(text, 0x1230);
  second.write(text, 0x3ff1);
  const image = await warpImage({
    segments: [
      { address: 0x100000n, size: BigInt(first.length), content: first },
      { address: 0x200000n, size: BigInt(second.length), content: second, flags: 4 },
      { address: 0x300000n, size: BigInt(PAGE) },
    ],
  });
  return imageDirectory(directory, name, image);
}

describe('views', () => {
  it('every one fills the screen and no more, and names its keys', async () => {
    const image = await linked('linked');
    for (const size of [
      { columns: 80, rows: 24 },
      { columns: 40, rows: 8 },
      { columns: 200, rows: 50 },
    ]) {
      const { explorer, screen } = await explore(image, image, size);
      const views = new Set<View>();
      for (const [index] of TABS.entries()) {
        press(explorer, String(index + 1));
        await vi.waitFor(() => expect(screen()).not.toMatch(/loading …|·· ··/), { timeout: 30_000 });
        views.add(explorer.state.place.view);
        const lines = screen().split('\n');
        expect(lines).toHaveLength(size.rows);
        for (const line of lines) expect(displayWidth(line), line).toBeLessThanOrEqual(size.columns);
        expect(lines.at(-1)).toMatch(/\? help {2}q quit$/);
        for (const { shown, label, spare } of offered(explorer)) {
          if (size.columns >= 200 || (size.columns >= 80 && !spare)) expect(lines.at(-1)).toContain(`${shown} ${label}`);
        }
      }
      expect([...views]).toEqual([...TABS]);
    }
  });

  it('follows a pointer and comes back', async () => {
    const { explorer, screen } = await explore(await linked('linked'));
    press(explorer, '7');
    type(explorer, 'g100040');
    press(explorer, 'enter');
    await shows(screen, /0x201230 -> anonymous r--p 0x200000\+0x1230 {2}"treasure"/);
    press(explorer, 'enter');
    await shows(screen, /^000000201230 74 72 65 61 73 75 72 65 {2}11.*treasure\.\.\.\.\.\.\.\.$/m);
    expect(explorer.state.place).toMatchObject({ view: 'memory', address: 0x201230n });
    press(explorer, 'enter');
    await shows(screen, /0x6572757361657274 is not mapped/);
    press(explorer, 'b');
    expect(explorer.state.place.address).toBe(0x100040n);
    press(explorer, 'f');
    expect(explorer.state.place.address).toBe(0x201230n);
    // Whoever points here?
    press(explorer, 'r');
    await shows(screen, /match 1 of 1\b/);
    expect(explorer.state.place.address).toBe(0x100040n);
  });

  it('searches text, bytes and expressions, in both directions and round the end', async () => {
    const { explorer, screen } = await explore(await linked('linked'));
    press(explorer, '7');
    type(explorer, 'g200000');
    press(explorer, 'enter', '/');
    type(explorer, 'treasure');
    press(explorer, 'enter');
    await shows(screen, /match 1 of 2(?! so far)/);
    expect(explorer.state.place.address).toBe(0x201230n);
    press(explorer, 'n');
    await shows(screen, /match 2 of 2/);
    expect(explorer.state.place.address).toBe(0x203ff0n);
    press(explorer, 'n');
    await shows(screen, /match 1 of 2/);
    press(explorer, 'N');
    await shows(screen, /match 2 of 2/);
    press(explorer, 'l');
    await shows(screen, /^0x203ff1 +treasure/m);
    press(explorer, 'down', 'up', 'up', 'enter');
    expect(explorer.state.place).toMatchObject({ view: 'memory', address: 0x201230n });

    press(explorer, '/', 'tab', 'tab', 'tab');
    await shows(screen, /^search bytes: /m);
    type(explorer, '30 12 20 00');
    press(explorer, 'enter');
    await shows(screen, /0x100040 .*match 1 of 1\b/);
    press(explorer, '/', 'tab', 'tab');
    type(explorer, 'tr[aeiou]+s');
    press(explorer, 'enter');
    await shows(screen, /match 1 of 2(?! so far)/);
    press(explorer, '/');
    type(explorer, '(');
    press(explorer, 'enter');
    await shows(screen, /Unterminated group/);
    press(explorer, '/', 'tab', 'tab', 'tab', 'tab');
    type(explorer, 'xyz');
    press(explorer, 'enter');
    await shows(screen, /xyz is not made of pairs of hexadecimal digits/);
  });

  it('stops a search', async () => {
    const core = join(directory, 'large.core');
    // Zeros that a search for zeros has to go through.
    writeFileSync(
      core,
      foreignCore({ segments: [{ address: 0x10000n, size: 64n << 20n, content: Buffer.alloc(64 << 20, 1) }], notes: [prstatusNote(1)] }),
    );
    const { explorer, screen } = await explore(core);
    press(explorer, '7', '/');
    type(explorer, 'nowhere');
    press(explorer, 'enter');
    expect(explorer.state.task).not.toBeNull();
    press(explorer, 'escape');
    await shows(screen, /searching text nowhere: stopped/);
    expect(explorer.state.task).toBeNull();
  });

  it('gives up on an expression that takes for ever', async () => {
    const scanner = scannerFor('(a+)+$', 'regular expression', 100);
    const memory = Buffer.from(`${'a'.repeat(40)}!`);
    expect(() => scanner.scan(memory, 0, memory.length, true, () => {}, 0n)).toThrow(/takes too long on this memory/);
  });

  it('finds rows by their text, and says where an address is not', async () => {
    const { explorer, screen } = await explore(await linked('linked'));
    press(explorer, '3', '/');
    type(explorer, '300000');
    press(explorer, 'enter');
    await vi.waitFor(() => expect(explorer.state.place.cursor).toBe(2));
    type(explorer, 'g999999');
    press(explorer, 'enter');
    await shows(screen, /0x999999 is not mapped/);
    type(explorer, 'gnonsense');
    press(explorer, 'enter');
    await shows(screen, /nonsense is not an address/);
    type(explorer, 'g250000');
    press(explorer, 'enter');
    await shows(screen, /0x250000 is not mapped; the next area starts at 0x300000/);
  });

  it('shows what differs between two images', async () => {
    const { explorer, screen } = await explore(await linked('linked'), await linked('changed', 'trEasure'));
    press(explorer, '8');
    await shows(screen, /memory {2}m compares it page by page/);
    press(explorer, 'm');
    await shows(screen, /memory {2}2 pages of \S+ KiB differ/);
    press(explorer, 'end', 'enter');
    await shows(screen, /0x201000-0x202000 {2}1 page$/m);
    press(explorer, 'down', 'enter');
    expect(explorer.state.place).toMatchObject({ view: 'memory', address: 0x201000n });
    press(explorer, ']');
    await shows(screen, /other image 0x6572757361457274/);
    expect(explorer.state.place.address).toBe(0x201230n);
    press(explorer, ']');
    await vi.waitFor(() => expect(explorer.state.place.address).toBe(0x203ff0n));
    press(explorer, '[', 'o');
    await shows(screen, /image B/);
    await vi.waitFor(() => expect(explorer.state.place).toMatchObject({ side: 'b', address: 0x201230n }));
    await shows(screen, /trEasure/);
  });

  it('opens a second image on demand, and says when it cannot', async () => {
    const { explorer, screen } = await explore(await linked('linked'));
    press(explorer, '8');
    await shows(screen, /O opens another image/);
    press(explorer, 'O');
    type(explorer, join(directory, 'missing'));
    press(explorer, 'enter');
    await shows(screen, /cannot open .*: no such file or directory/);
    press(explorer, 'O');
    type(explorer, await linked('changed', 'trEasure'));
    press(explorer, 'enter');
    await shows(screen, /^\+\+\+ .*changed/m);
    expect(explorer.comparing).toBe(true);
  });

  it('says what a core file of another writer does not hold', async () => {
    const core = join(directory, 'foreign.core');
    writeFileSync(
      core,
      foreignCore({ segments: [{ address: 0x10000n, size: 8192n, content: Buffer.alloc(PAGE, 1) }], notes: [prstatusNote(1)] }),
    );
    const { explorer, screen } = await explore(core);
    press(explorer, '4');
    await shows(screen, /does not hold file descriptors|a core file of another writer/);
    press(explorer, '7', 'end');
    await shows(screen, /·· ··/);
    await shows(screen, /the image's writer left it out/);
    expect(explorer.state.place.address).toBe(0x11ff0n);
  });

  it('prints nothing of an image as it is that could drive the terminal', async () => {
    const image = await warpImage({
      segments: [{ address: 0x10000n, size: BigInt(PAGE), content: Buffer.from(`\x1b[2J\x9b31m${'\0'.repeat(PAGE - 8)}`, 'latin1') }],
      tables: { threads: [{ tid: 100, flags: 1, system_call: -1, name: Buffer.from('a\x1b[31mb\r\n') }] },
    });
    const { explorer, screen } = await explore(imageDirectory(directory, 'control', image));
    for (const key of ['1', '2', 'enter', '3', '7']) {
      press(explorer, key);
      await vi.waitFor(() => expect(screen()).not.toMatch(/loading …/), { timeout: 30_000 });
      // oxlint-disable-next-line no-control-regex
      expect(screen()).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
    }
  });
});

it('shows damaged images as far as they go, and never breaks', async () => {
  const image = readFileSync(join(await linked('linked'), 'core.img'));
  const path = join(directory, 'damaged.img');
  let state = 1;
  const random = (limit: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % limit;
  };
  let opened = 0;
  for (let round = 0; round < 20; round++) {
    const damaged = Buffer.from(image);
    // Among the notes most of all; sometimes the file ends early.
    for (let change = 0; change < 1 + random(8); change++) damaged[64 + random(3 * PAGE)] = [0, 0xff, 0x80, random(256)][random(4)]!;
    writeFileSync(path, random(10) === 0 ? damaged.subarray(0, random(damaged.length)) : damaged);
    let explorer: Explorer;
    try {
      explorer = await Explorer.open(path, undefined, { columns: 80, rows: 12 });
    } catch (error) {
      expect(error).toBeInstanceOf(Failure);
      continue;
    }
    opened++;
    let fault: unknown = null;
    explorer.ended.catch((error: unknown) => (fault = error));
    const { unmount, lastFrame } = render(createElement(App, { explorer, painter }));
    for (const key of '1 2 enter v right r 3 s end enter ] r 4 enter 5 enter 6 enter 7 end home pagedown n ? 8 escape'.split(' ')) {
      explorer.press(key);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await vi.waitFor(() => expect(explorer.state.task).toBeNull(), { timeout: 30_000 });
    expect(lastFrame()!.split('\n')).toHaveLength(12);
    unmount();
    await explorer.close();
    expect(fault).toBeNull();
  }
  expect(opened).toBeGreaterThan(5);
});

describe('a million rows', () => {
  const million = 1_000_000;
  const nothing = { shared: false, name: '', stackOf: null, zero: 0n, fromFile: 0n, absent: 0n, flags: [] };
  const vmas = Array.from({ length: million }, (_, index) => {
    const start = BigInt(index) * 0x2000n;
    const [stored, resident] = [BigInt(index % 7), BigInt(index)];
    return { ...nothing, start, end: start + 0x1000n, kind: 'anonymous', protection: 3, stored, packed: stored, resident };
  }) as unknown as Vma[];

  it.each(['address', 'resident', 'stored'] as const)('makes only the rows that are on the screen (by %s)', (sort) => {
    const rows = new MapOrders(vmas, ({ kind }) => kind).rows(sort);
    const row = vi.spyOn(rows, 'row');
    const { lastFrame, rerender } = render(createElement(List, { rows, top: 0, cursor: 0, height: 18, width: 80, painter }));
    for (const top of [0, 1, 17, 499_999, million - 18]) {
      row.mockClear();
      rerender(createElement(List, { rows, top, cursor: top, height: 18, width: 80, painter }));
      expect(row).toHaveBeenCalledTimes(18);
      expect(row.mock.calls.map(([index]) => index)).toEqual(Array.from({ length: 18 }, (_, line) => top + line));
    }
    expect(lastFrame()!.split('\n')).toHaveLength(18);
  });

  it('reads only the memory that is on the screen, wherever in a tebibyte a key leads', async () => {
    const core = join(directory, 'tebibyte.core');
    const segments = [
      { address: 0x10000n, size: 1n << 40n, content: Buffer.alloc(PAGE, 1) },
      { address: 1n << 46n, size: 1n << 30n, content: Buffer.alloc(PAGE, 2) },
    ];
    writeFileSync(core, foreignCore({ segments, notes: [prstatusNote(1)] }));
    const { explorer, screen } = await explore(core);
    const { layout, pages, image } = explorer.side;
    expect(layout.count).toBe(2 ** 36 + 2 ** 26 + 2);
    const row = vi.spyOn(layout, 'row');
    const wanted = vi.spyOn(pages, 'want');
    const read = vi.spyOn(image.source, 'readInto');
    await shows(screen, /^memory +areas/m);
    press(explorer, '7');
    await shows(screen, /^000000010000 01 01/m);
    await vi.waitFor(() => expect(explorer.side.labels.get().status).toBe('ready'));
    for (const key of ['pagedown', 'end', 'pageup', 'up', 'home', 'down', '}', '{', 'right', 'pagedown', 'end', 'home']) {
      for (const spy of [row, wanted, read]) spy.mockClear();
      const frame = screen();
      press(explorer, key);
      await vi.waitFor(() => expect(screen()).not.toBe(frame), { timeout: 30_000 });
      // Rows to look where the cursor goes, rows that pages are asked for, and rows that are shown, for at most two frames.
      expect(row.mock.calls.length, key).toBeLessThanOrEqual(6 * 18);
      for (const [ranges] of wanted.mock.calls) expect(ranges.length, key).toBeLessThanOrEqual(18 + 2);
      expect(read.mock.calls.length, key).toBeLessThanOrEqual(3);
    }
  });
});

it('keeps the matches of a search in order while it runs, and no more than it can', () => {
  const matches = new Matches('x', 'text', 100n);
  const add = (address: bigint): boolean => matches.add({ address, length: 4, bytes: Buffer.alloc(4) });
  for (const address of [100n, 102n, 200n, 10n, 98n]) expect(add(address)).toBe(true);
  expect(Array.from({ length: matches.count }, (_, index) => matches.at(index).address)).toEqual([10n, 98n, 100n, 102n, 200n]);
  expect([0n, 10n, 11n, 150n, 201n].map((address) => matches.indexFrom(address))).toEqual([0, 0, 1, 4, 5]);
  expect([9n, 10n, 13n, 14n, 101n, 104n, 106n].map((address) => matches.covering(address)?.address)).toEqual([
    undefined, 10n, 10n, undefined, 100n, 102n, undefined,
  ]); // prettier-ignore
  let added = matches.count;
  while (add(BigInt(1000 + added))) added++;
  expect(added).toBe(100_000);
});
