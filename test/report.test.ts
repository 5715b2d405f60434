/** The report: its parts, that nothing in an image can get out of them, and the page in a real browser. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { html } from '../src/report/html.js';
import { COLUMNS, layOut, type Layout, type MapArea } from '../src/report/layout.js';
import type { Report } from '../src/report/page.js';
import { schemas } from '../src/schemas/index.js';
import { loadsByCategory, ticksTo } from '../src/report/timeline.js';
import { chromiumPath, hasChromium, startBrowser } from './support/browser.mjs';
import { endTarget, gcore, imageDirectory, removeDirectory, scratchDirectory, startTarget, warpTool } from './support/cores.js';
import { openPage, overflow } from './support/pages.js';
import { auxvNote, PAGE, prpsinfoNote, prstatusNote, warpImage, type SegmentPlan } from './support/synthesise.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

const NONE = 0xffffffff;
const SECRET = 'hunter2-in-the-environment';
/** Ends a text, an attribute, a comment, a style sheet and a script, and then tries to run. */
const HOSTILE = `--></style></script></title>"'><script>document.title='owned'</script><img src=x onerror="document.title='owned'"><b onmouseover=alert(1)>`;

/** An area of which the image has the beginning. */
function partly(address: bigint, size: bigint, content: Buffer, flags = 6): SegmentPlan[] {
  const stored = BigInt(content.length);
  return [
    { address, size: stored, content, flags },
    { address: address + stored, size: size - stored, flags },
  ];
}

let image: string;
let hostile: string;

beforeAll(async () => {
  const content = Buffer.alloc(40 * PAGE);
  for (let index = 0; index < 40; index++) content.fill(`page ${index % 30} `, index * PAGE, (index + 1) * PAGE);
  const stack = 0x7ff0_0000_0000n;
  const build = (text: (plain: string) => Buffer): Promise<Buffer> =>
    warpImage({
      segments: [
        ...partly(0x400000n, 0x3000n, Buffer.alloc(PAGE, 'code'), 5),
        ...partly(0x10000000n, BigInt(content.length) + (1n << 30n), content),
        ...partly(0x7f00_0000_0000n, 0x21000n, Buffer.alloc(2 * PAGE, 'object')),
        ...partly(stack, 0x21000n, Buffer.from(`TOKEN=${SECRET}\0${text('NAME').toString()}=1\0`.padEnd(PAGE, '\0'))),
      ],
      kernelNotes: [prstatusNote(100, { 19: stack + 0x800n }), prstatusNote(101), prpsinfoNote(100, 'synthetic'), auxvNote([[6, 4096n]])],
      tables: {
        image: [
          {
            machine: 62,
            page_size: PAGE,
            realtime_ns: 1_700_000_000_000_000_000n,
            engine_version: text('0.1.0'),
            kernel_release: text('6.1'),
            hostname: text('host'),
            cpu_model: text('processor'),
            executable: text('/bin/synthetic'),
            command: Buffer.concat([text('synthetic'), Buffer.from('\0'), text('argument'), Buffer.from('\0')]),
            xstate_features: 7n,
          },
        ],
        process: [{ pid: 100, uid: [1000, 1000, 1000, 1000], cwd: text('/tmp'), env_start: stack, env_end: stack + 0x400n }],
        threads: [
          { tid: 100, flags: 1, system_call: 232, state: 83, name: text('main') },
          ...Array.from({ length: 14 }, (_, index) => ({ tid: 101 + index, system_call: 202, state: 83, name: text(`worker-${index}`) })),
        ].slice(0, 2),
        files: [{ path: text('/usr/bin/program'), size: 12_288n, build_id: Buffer.alloc(20, 0xab) }],
        objects: [{ kind: 1, size: 0x21000n, name: text('memory') }],
        vmas: [
          {
            start: 0x400000n,
            end: 0x403000n,
            kind: 2,
            protection: 5,
            file: 0,
            object: NONE,
            resident: 4096n,
            stored: 4096n,
            name: text('/usr/bin/program'),
          },
          {
            start: 0x10000000n,
            end: 0x10000000n + BigInt(content.length) + (1n << 30n),
            kind: 1,
            protection: 3,
            file: NONE,
            object: NONE,
            resident: BigInt(content.length),
            stored: BigInt(content.length),
            name: text(''),
          },
          {
            start: 0x7f00_0000_0000n,
            end: 0x7f00_0002_1000n,
            kind: 3,
            protection: 3,
            flags: 1,
            file: NONE,
            object: 0,
            resident: 8192n,
            stored: 8192n,
            name: text('memfd:cache'),
          },
          {
            start: stack,
            end: stack + 0x21000n,
            kind: 5,
            protection: 3,
            file: NONE,
            object: NONE,
            resident: 4096n,
            stored: 4096n,
            name: text('[stack]'),
          },
        ],
        descriptors: Array.from({ length: 15 }, (_, number) => ({ number, description: number < 3 ? 0 : 1 })),
        descriptions: [
          { kind: 14, detail: 0 },
          { kind: 1, detail: NONE, offset: 17n, size: 99n, path: text('/var/log/file') },
        ],
        tags: [{ kind: 1, name: text('label'), value: text('value') }],
      },
    });
  image = imageDirectory(directory, 'plain', await build((plain) => Buffer.from(plain)));
  const name = 'hostile <script>document.title=1<';
  hostile = imageDirectory(directory, name, await build((plain) => Buffer.from(`${plain}${HOSTILE}\u202egnp.x\x1b[31m`)));
});

function page(...argv: string[]): string {
  const { status, stdout, stderr } = warpTool('report', ...argv);
  expect([status, stderr]).toEqual([0, '']);
  return stdout;
}

describe('markup', () => {
  it('takes texts for texts, wherever they stand', () => {
    expect(html`<a title="${`"'`}">${'<&>'}${html`<b>${1}</b>`}${[html`<i></i>`, 'x']}${null}${false}${undefined}</a>`.text).toBe(
      '<a title="&quot;&#39;">&lt;&amp;&gt;<b>1</b><i></i>x</a>',
    );
  });

  it('shows what cannot be seen', () => {
    expect(html`${'a\x1b[31m\n\u202eb\u200b'}`.text).toBe('a\\x1b[31m\\n\\u{202e}b\\u{200b}');
  });
});

describe('the layout of the map', () => {
  const area = (start: bigint, pages: number, cells: string, given: Partial<MapArea> = {}): MapArea => ({
    start,
    end: start + BigInt(pages) * BigInt(PAGE),
    category: 'anonymous',
    cells,
    region: `${start}`,
    ...given,
  });
  const drawn = ({ blocks }: Layout): number => blocks.reduce((rows, block) => rows + block.rows.length, 0);

  it('is to scale, with breaks where nothing is stored', () => {
    const { row, blocks } = layOut([area(0x10000n, 16 + 1024 + 8, 's16z1024s8'), area(0x1000000n, 4, 's4')], PAGE);
    expect(row).toBe(64 << 10);
    expect(blocks).toHaveLength(1);
    const [block] = blocks;
    expect(block!.rows[0]).toBe(0x10000n);
    expect(block!.breaks.map(({ category, state, bytes }) => ({ category, state, bytes }))).toEqual([
      { category: 'anonymous', state: 'z', bytes: 1024 * PAGE },
      { category: null, state: '-', bytes: 0x1000000 - 0x10000 - 1048 * PAGE },
    ]);
    const stored = block!.stripes.filter(({ state }) => state === 's').reduce((columns, { from, to }) => columns + to - from, 0);
    // 28 stored pages of 16 in a row; a stripe may gain or lose half a column at each end.
    expect(Math.abs(stored - (28 / 16) * COLUMNS)).toBeLessThanOrEqual(4);
  });

  it('gives each region its places, from row to row', () => {
    const { blocks } = layOut([area(0x10000n, 40, 's40'), area(0x10000n + 40n * 4096n, 8, 's8')], PAGE);
    expect(blocks[0]!.rows).toEqual([0x10000n, 0x20000n, 0x30000n]);
    expect(blocks[0]!.extents.map(({ row, from, to, first }) => [row, Math.round(from), Math.round(to), first])).toEqual([
      [0, 0, 1000, 0],
      [1, 0, 1000, 0],
      [2, 0, 500, 0],
      [2, 500, 1000, 1],
    ]);
  });

  it('begins a block behind a very long gap, but not a hundred of them', () => {
    const places = (gap: bigint, count: number): MapArea[] =>
      Array.from({ length: count }, (_, index) => area(BigInt(index + 1) * gap, 64, 's64'));
    expect(layOut(places(1n << 40n, 4), PAGE).blocks.map(({ start }) => start)).toEqual([1n, 2n, 3n, 4n].map((at) => at << 40n));
    expect(layOut(places(1n << 40n, 100), PAGE).blocks).toHaveLength(1);
    expect(layOut([...places(1n << 38n, 100), area(0x7fff_0000_0000n, 4, 's4')], PAGE).blocks).toHaveLength(2);
  });

  it('stays small, however many areas there are and however large they are', () => {
    const many = Array.from({ length: 70_000 }, (_, index) => area(BigInt(index + 16) * 8192n, 1, 's1'));
    const layout = layOut(many, 65_536);
    expect(drawn(layout)).toBeLessThanOrEqual(60);
    expect(layout.blocks[0]!.stripes.length).toBeLessThanOrEqual(60 * COLUMNS);
    const stacks = Array.from({ length: 20_000 }, (_, index) => area(BigInt(index + 1) << 24n, 4096, 'z2048s1z2047'));
    expect(drawn(layOut(stacks, PAGE))).toBeLessThanOrEqual(80);
    const huge = layOut([area(0n, 2 ** 34, `s${2 ** 34}`)], PAGE);
    expect(drawn(huge)).toBeLessThanOrEqual(28);
  });

  it('of nothing is nothing', () => expect(layOut([], PAGE).blocks).toEqual([]));
});

describe('the page-load timeline', () => {
  it('has round times', () => {
    expect(ticksTo(267)).toEqual([0, 100, 200, 300]);
    expect(ticksTo(100)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(ticksTo(3.2)).toEqual([0, 1, 2, 3, 4]);
    expect(ticksTo(0)).toHaveLength(2);
    for (const last of [0.01, 1, 7, 99, 12_345]) {
      const ticks = ticksTo(last);
      expect(ticks.length).toBeLessThanOrEqual(7);
      expect(ticks.at(-1)).toBeGreaterThanOrEqual(last);
    }
  });

  it('is shown when the image has one, in the order of time and by purpose', async () => {
    const content = Array.from({ length: 3 }, (_, index) => Buffer.alloc(4 * PAGE, index + 1));
    const millisecond = 1_000_000n;
    const optimised = await warpImage({
      segments: [
        { address: 0x400000n, size: 0x4000n, content: content[0]!, flags: 5 },
        { address: 0x10000000n, size: 0x4000n, content: content[1]! },
        { address: 0x20000000n, size: 0x4000n, content: content[2]!, flags: 7 },
      ],
      tables: {
        accesses: [
          { chunk: 2, runs: 3, median_ns: 40n * millisecond },
          { chunk: 0, runs: 3, median_ns: 250n * millisecond },
          { chunk: 1, runs: 1, median_ns: 5n * millisecond },
          { chunk: 77, runs: 1, median_ns: 5n * millisecond },
        ],
      },
    });
    const path = imageDirectory(directory, 'optimised', optimised);
    const { timeline } = JSON.parse(page(path, '--json')) as Report;
    expect(timeline).toMatchObject({
      runs: 3,
      loads: [
        { ms: 5, runs: 1, content: 4 * PAGE, address: '0x10000000', category: 'anonymous' },
        { ms: 40, runs: 3, address: '0x20000000', category: 'generated' },
        { ms: 250, runs: 3, address: '0x400000', category: 'generated' },
      ],
    });
    expect(loadsByCategory(timeline!.loads)).toEqual([
      { category: 'generated', chunks: 2, content: 8 * PAGE, first: 40, last: 250 },
      { category: 'anonymous', chunks: 1, content: 4 * PAGE, first: 5, last: 5 },
    ]);
    const text = page(path);
    expect(text).toContain('In 3 training restores the program needed 3 chunks, 48.0 KiB of');
    expect(text).toContain('half of that within 40 ms, the last after 250 ms.');
    expect(text.match(/<circle /g)).toHaveLength(3);
    expect(page(image)).not.toContain('Page-load');
  });
});

describe('warp-tool report', () => {
  it('prints the page, or writes it for its owner only, in place of an older one', () => {
    const text = page(image);
    expect(text).toMatch(/^<!doctype html>\n/);
    const file = join(directory, 'new', 'report.html');
    mkdirSync(join(directory, 'new'));
    writeFileSync(file, 'old');
    expect(page(image, '-o', file)).toMatch(/^\S*report\.html {2}[\d.]+ KiB\n$/);
    expect(readFileSync(file, 'utf8')).toBe(text);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(join(directory, 'new'))).toEqual(['report.html']);
  });

  it('prints the document that the page is drawn from, as its schema has it', async () => {
    const check = new Ajv2020({ strict: false }).compile(schemas['report']!.json);
    const target = await startTarget(directory);
    const core = gcore(target, directory);
    await endTarget(target);
    for (const one of [image, hostile, ...(typeof core === 'string' ? [core] : [])]) {
      check(JSON.parse(page(one, '--json', '--with-environment')));
      expect(check.errors).toBeNull();
    }
    const file = join(directory, 'both.html');
    const document = JSON.parse(page(image, '--json', '-o', file)) as Report;
    expect(existsSync(file)).toBe(true);
    expect(document.composition.total).toMatchObject({ areas: 4, stored: 44 * PAGE, stored_duplicate: 10 * PAGE, stored_zero: 0 });
    expect(document.composition.areas.map(({ category }) => category)).toEqual(['code', 'anonymous', 'shared', 'stack']);
  });

  it('and `show --composition` tell the same', () => {
    const { composition, advice } = JSON.parse(page(image, '--json')) as Report;
    const { cell: _, areas: __, ...summary } = composition;
    const document = JSON.parse(warpTool('show', image, '--composition', '--json').stdout) as Report['show'];
    expect(document.composition).toEqual({ ...summary, advice });
    expect((JSON.parse(warpTool('show', image, '--json').stdout) as Report['show']).composition).toBeNull();
    const { stdout, stderr } = warpTool('show', image, '--composition');
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^composition +areas +stored +copies +with lz4$/m);
    expect(stdout).toMatch(/^anonymous +1 +160 KiB +40\.0 KiB +/m);
    expect(stdout).toMatch(/^all +4 +176 KiB +40\.0 KiB +/m);
  });

  it('has the environment only when it is asked for', () => {
    for (const text of [page(image), page(image, '--json')]) expect(text).not.toContain(SECRET);
    for (const text of [page(image, '--with-environment'), page(image, '--with-environment', '--json')]) expect(text).toContain(SECRET);
  });

  it('replaces no device, follows what fails with one line and leaves nothing behind', () => {
    const pipe = join(directory, 'null');
    symlinkSync('/dev/null', pipe);
    const before = readdirSync(directory).toSorted();
    for (const [output, reason] of [
      [pipe, /null: it is there and no regular file; choose another place/],
      [directory, /it is there and no regular file/],
      [join(image, 'core.img', 'x'), /cannot write .*\/core\.img\/x: /],
    ] as const) {
      const { status, stdout, stderr } = warpTool('report', image, '-o', output);
      expect([status, stdout]).toEqual([2, '']);
      expect(stderr).toMatch(reason);
      expect(stderr.split('\n')).toHaveLength(2);
    }
    expect(statSync('/dev/null').isCharacterDevice()).toBe(true);
    expect(readdirSync(directory).toSorted()).toEqual(before);
  });

  it('shows faults of the image beside what can be shown', () => {
    const content = readFileSync(join(image, 'core.img'));
    content[content.length - 2 * PAGE + 5]! ^= 0xff;
    const text = page(imageDirectory(directory, 'damaged', content));
    expect(text).toContain('<b>1 fault.</b>');
    expect(text).toContain('the content is damaged');
    expect(text).toContain('id="map"');
    const cut = page(imageDirectory(directory, 'cut', content.subarray(0, -3 * PAGE)));
    expect(cut).toMatch(/12\.0 KiB of the stored content could not be read/);
  });

  it('is small for 10,000 areas', async () => {
    const segments = Array.from({ length: 10_000 }, (_, index) => ({ address: BigInt(index + 16) * 8192n, size: 4096n }));
    const text = page(imageDirectory(directory, 'many', await warpImage({ segments })));
    expect(text.length).toBeLessThan(1 << 20);
    expect(text).toContain('9400 more areas');
  });

  it('lets nothing of an image become markup', () => {
    const text = page(hostile, '--with-environment');
    expect(text).toContain('&lt;script&gt;document.title=&#39;owned&#39;');
    expect(text.match(/<script>/g)).toHaveLength(1);
    expect(text.match(/<style>/g)).toHaveLength(1);
    expect(text).not.toMatch(/<img|<b [^>]*onmouseover|\u202e/);
    expect(text).not.toContain('\x1b');
  });
});

describe.skipIf(!hasChromium())(`the page in a browser (where ${chromiumPath} is; on Debian: apt-get install chromium)`, () => {
  let browser: Browser;
  let plain: string;

  beforeAll(async () => {
    browser = await startBrowser();
    plain = join(directory, 'plain.html');
    page(image, '--with-environment', '-o', plain);
  });
  afterAll(async () => browser.close());

  const open = <T>(file: string, options: BrowserContextOptions, look: (opened: Page) => Promise<T>): Promise<T> =>
    openPage(browser, file, options, look);

  const SECTIONS = [
    'Findings',
    'Composition',
    'Memory map',
    'Largest mappings',
    'Threads',
    'Descriptors',
    'Environment',
    'What it needs of a host',
  ];
  it('has all sections, with and without JavaScript', async () => {
    for (const javaScriptEnabled of [true, false]) {
      await open(plain, { javaScriptEnabled }, async (opened) => {
        expect(await opened.locator('h2').allTextContents()).toEqual(SECTIONS);
        expect(await opened.locator('main > section').count()).toBe(SECTIONS.length);
        for (const section of await opened.locator('main > section').all())
          expect((await section.boundingBox())!.height).toBeGreaterThan(40);
        expect(await opened.locator('#map .ribbons').count()).toBe(3);
        const map = await opened.locator('#map .ribbons > svg').nth(0).boundingBox();
        expect(map!.width).toBeGreaterThan(400);
      });
    }
  });

  it('is no wider than a telephone, where tables keep what matters', async () => {
    for (const file of [plain, join(directory, 'hostile.html')]) {
      if (file !== plain) page(hostile, '--with-environment', '-o', file);
      for (const width of [320, 375, 700, 1024, 1600]) {
        await open(file, { viewport: { width, height: 800 } }, async (opened) => {
          for (const details of await opened.locator('details').all()) await details.locator('summary').click();
          expect(await overflow(opened), `${file} at ${width}`).toBe(0);
        });
      }
    }
  });

  it('runs nothing that an image holds', async () => {
    const file = join(directory, 'hostile.html');
    page(hostile, '--with-environment', '-o', file);
    await open(file, {}, async (opened) => {
      expect(await opened.title()).toMatch(/^main--></);
      expect(await opened.locator('h2').allTextContents()).toEqual(SECTIONS);
      expect(await opened.locator('script').count()).toBe(1);
      expect(await opened.locator('img, iframe, object, embed, form').count()).toBe(0);
      await opened.locator('#map .hit').first().hover();
      await opened.locator('#threads thead button').first().click();
      expect(await opened.title()).toMatch(/^main--></);
      expect(await opened.locator('#threads tbody tr').first().textContent()).toContain('<script>');
    });
  });

  it('is kept from running anything else by its policy', async () => {
    const file = join(directory, 'injected.html');
    const injected = readFileSync(plain, 'utf8').replace(
      '<main',
      `<script>document.title='owned'</script><p style="color:red" onclick="1">x</p><img src="http://127.0.0.1:9/x"><main`,
    );
    writeFileSync(file, injected);
    const context = await browser.newContext();
    const opened = await context.newPage();
    const refused: string[] = [];
    opened.on('console', (message) => refused.push(message.text()));
    await opened.goto(pathToFileURL(file).href);
    await opened.waitForFunction('document.images[0].complete');
    expect(await opened.title()).not.toBe('owned');
    for (const what of [/inline script/, /inline style/, /127\.0\.0\.1:9/])
      expect(
        refused.some((text) => what.test(text)),
        String(what),
      ).toBe(true);
    await context.close();
  });

  it('has text that can be read in light and dark, and is light on paper', async () => {
    const contrast = `(() => {
      const parse = (text) => text.match(/[\\d.]+/g).map(Number);
      const luminance = ([r, g, b]) => [r, g, b].map((value) => { const c = value / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; })
        .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
      const background = (element) => { for (let at = element; at; at = at.parentElement) { const c = parse(getComputedStyle(at).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const found = [];
      while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.getClientRects().length || ['SCRIPT', 'STYLE', 'TITLE'].includes(element.tagName.toUpperCase())) continue;
        const inside = element.closest('svg');
        // Numbers in the bar stand on a colour; breaks are texts that the table has too.
        if (inside && !element.classList.contains('caption')) continue;
        const style = getComputedStyle(element);
        const [a, b] = [luminance(parse(inside ? style.fill : style.color)), luminance(background(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push(element.tagName + ' ' + element.textContent.slice(0, 40) + ' ' + ratio.toFixed(2));
      }
      return { found, paper: getComputedStyle(document.body).backgroundColor };
    })()`;
    const papers: string[] = [];
    for (const colorScheme of ['light', 'dark'] as const) {
      await open(plain, { colorScheme }, async (opened) => {
        const { found, paper } = (await opened.evaluate(contrast)) as { found: string[]; paper: string };
        expect(found, colorScheme).toEqual([]);
        papers.push(paper);
        await opened.emulateMedia({ media: 'print' });
        expect(await opened.evaluate('getComputedStyle(document.body).backgroundColor')).toBe('rgb(255, 255, 255)');
        expect(await opened.locator('nav').isVisible()).toBe(false);
        expect((await opened.pdf({ format: 'A4' })).subarray(0, 5).toString()).toBe('%PDF-');
      });
    }
    expect(papers).toEqual(['rgb(255, 255, 255)', 'rgb(20, 22, 26)']);
  });

  it('is made for readers of screens', async () => {
    await open(plain, {}, async (opened) => {
      const problems = await opened.evaluate(`(() => {
        const found = [];
        if (document.querySelectorAll('h1').length !== 1) found.push('h1');
        let level = 0;
        for (const heading of document.querySelectorAll('h1, h2, h3')) { const own = Number(heading.tagName[1]); if (own > level + 1) found.push(heading.textContent); level = own; }
        for (const table of document.querySelectorAll('table')) {
          if (!table.caption) found.push('caption');
          if (table.querySelector('th:not([scope])')) found.push('scope of ' + table.caption.textContent);
          for (const row of table.tBodies[0].rows) if (row.cells.length !== table.tHead.rows[0].cells.length) found.push('cells of ' + table.caption.textContent);
        }
        for (const svg of document.querySelectorAll('svg')) if (!svg.closest('[aria-hidden=true]') && !svg.closest('[aria-label]')) found.push('svg without words');
        for (const link of document.querySelectorAll('a[href^="#"]')) if (!document.getElementById(link.getAttribute('href').slice(1))) found.push('link to nowhere ' + link.getAttribute('href'));
        const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
        if (new Set(ids).size !== ids.length) found.push('ids twice');
        return found;
      })()`);
      expect(problems).toEqual([]);
      expect(await opened.locator('#composition [role=img]').getAttribute('aria-label')).toMatch(
        /^Stored content by purpose: Anonymous memory 9\d %, /,
      );
    });
  });

  it('is used with the keyboard: tables sort and filter, the map tells and leads to the rows', async () => {
    await open(plain, {}, async (opened) => {
      const tids = (): Promise<string[]> => opened.locator('#descriptors tbody th').allTextContents();
      const first = await tids();
      expect(first).toEqual(Array.from({ length: 15 }, (_, index) => String(index)));
      await opened.locator('#descriptors thead button').first().focus();
      await opened.keyboard.press('Enter');
      await opened.keyboard.press('Enter');
      expect(await tids()).toEqual(first.toReversed());
      expect(await opened.locator('#descriptors thead th').first().getAttribute('aria-sort')).toBe('descending');
      await opened.getByLabel('Filter: 15 descriptors').fill('STDIN');
      expect(await opened.locator('#descriptors tbody tr:visible').count()).toBe(3);

      const link = opened.locator('#map a').first();
      await link.focus();
      expect(await opened.locator('.tip').textContent()).toMatch(/program\n.*\n.*–.*\n.* mapped, .* stored$/s);
      expect(await opened.locator('#mappings details').getAttribute('open')).toBeNull();
      await opened.keyboard.press('Enter');
      await opened.locator('#mappings details[open]').waitFor();
      expect(await opened.locator('tr:target').textContent()).toContain('/usr/bin/program');
      await opened.keyboard.press('Escape');
      expect(await opened.locator('.tip').isVisible()).toBe(false);
    });
  });
});
