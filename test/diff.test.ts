/** `diff` on images of one process before and after known changes, on foreign cores, and page by page on built images. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AddressSpace } from '../src/elf/address-space.js';
import { Image } from '../src/elf/image.js';
import { diffMemory, type MemoryDifference } from '../src/elf/memory-diff.js';
import { BufferSource } from '../src/elf/source.js';
import { schemas } from '../src/schemas/index.js';
import { compile, gcore, imageDirectory, removeDirectory, scratchDirectory, startTarget, endTarget, warpTool } from './support/cores.js';
import { Conversation } from './support/engine.js';
import { foreignCore, PAGE, prstatusNote, warpImage, type SegmentPlan } from './support/synthesise.js';

const directory = scratchDirectory();
let program: Conversation;

/** Does at each line one thing that an image shows, and answers `done`. */
const PROGRAM = String.raw`
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void *sleeper(void *unused) { (void)unused; pthread_setname_np(pthread_self(), "late-thread"); for (;;) pause(); }

int main(int argc, char **argv) {
  char line[100];
  char *memory = mmap((void *)0x510000000000, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  memset(memory, 1, 16 * 4096);
  int file = open(argv[1], O_RDWR | O_CREAT, 0600);
  (void)argc;
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (!strcmp(line, "change\n")) {
      memory[3 * 4096 + 7] = 2;                 /* one byte of a stored page */
      memory[4 * 4096] = 2;                     /* and of the next */
      memory[40 * 4096 + 5] = 2;                /* of a page that was zeros */
      memset(memory + 10 * 4096, 0, 4096);      /* a page becomes zeros */
      if (write(file, "12345", 5) != 5) return 1;
      dup2(file, 77);
      signal(SIGUSR2, SIG_IGN);
      umask(0137);
      mmap((void *)0x520000000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      if (chdir("/") != 0) return 1;
      pthread_t thread;
      pthread_create(&thread, NULL, sleeper, NULL);
      usleep(20000);
    }
    puts("done");
    fflush(stdout);
  }
}
`;

interface Document {
  different: boolean;
  warnings: string[];
  summary: { section: string; added: number; removed: number; changed: number }[];
  changes: { section: string; key: string; kind: string; fields: { field: string; a: string | null; b: string | null }[] }[];
  memory: {
    pages: number;
    only_a: number;
    only_b: number;
    areas: {
      area: { start: string };
      pages: number;
      ranges: { start: string; end: string }[];
      rows: { address: string; a: string; b: string }[] | null;
      more_rows: boolean | null;
    }[];
  } | null;
}

const check = new Ajv2020({ strict: false }).compile(schemas['diff']!.json);

function diff(a: string, b: string, ...flags: string[]): Document {
  const { stdout, status, stderr } = warpTool('diff', a, b, ...flags, '--json');
  expect(stderr).toBe('');
  const document = JSON.parse(stdout) as Document;
  check(document);
  expect(check.errors).toBeNull();
  expect(status).toBe(document.different ? 1 : 0);
  return document;
}

let before: string;
let after: string;
let next: string;

beforeAll(async () => {
  const executable = compile(directory, 'program', PROGRAM);
  program = Conversation.start(directory, ['run', '--', executable, join(directory, 'file')], { WARP_TEST: 'one' });
  await program.line();
  before = program.checkpoint(directory, 'before', '--leave-running');
  await program.ask('change');
  after = program.checkpoint(directory, 'after');
  await program.ended;
  const restored = Conversation.start(directory, ['restore', before]);
  await restored.ask('nothing');
  next = restored.checkpoint(directory, 'next');
  await restored.ended;
});

afterAll(() => removeDirectory(directory));

describe('diff of one process before and after changes', () => {
  it('lists what changed, by section', () => {
    const { changes, summary } = diff(before, after);
    const of = (section: string): Document['changes'] => changes.filter((change) => change.section === section);
    expect(of('descriptors')).toEqual([
      { section: 'descriptors', key: 'fd 3', kind: 'changed', fields: expect.arrayContaining([{ field: 'offset', a: '0', b: '5' }]) },
      expect.objectContaining({ key: 'fd 77', kind: 'added' }),
    ]);
    const ignored = { field: 'disposition', a: null, b: 'ignore' };
    // A first thread brings a handler of the C library, too.
    expect(of('signals')).toContainEqual({ section: 'signals', key: 'SIGUSR2', kind: 'added', fields: expect.arrayContaining([ignored]) });
    const process = of('process')[0]!.fields;
    expect(process).toContainEqual({ field: 'umask', a: expect.any(String), b: String(0o137) });
    expect(process).toContainEqual({ field: 'cwd', a: directory, b: '/' });
    expect(of('threads').filter(({ kind }) => kind !== 'changed')).toEqual([
      expect.objectContaining({ kind: 'added', key: expect.stringMatching(/^thread 0x[0-9a-f]+ late-thread$/) }),
    ]);
    expect(of('maps')).toContainEqual(expect.objectContaining({ key: '0x520000000000', kind: 'added' }));
    expect(of('environment')).toEqual([]);
    expect(summary.find(({ section }) => section === 'descriptors')).toEqual({ section: 'descriptors', added: 1, removed: 0, changed: 1 });
  });

  it('says which pages of which area differ', () => {
    const { memory } = diff(before, after, '--memory');
    const area = memory!.areas.find((one) => one.area.start === '0x510000000000')!;
    expect(area.pages).toBe(4);
    expect(area.ranges).toEqual([
      { start: '0x510000003000', end: '0x510000005000' },
      { start: '0x51000000a000', end: '0x51000000b000' },
      { start: '0x510000028000', end: '0x510000029000' },
    ]);
    expect(memory!.only_b).toBeGreaterThanOrEqual(4096);
    const text = warpTool('diff', before, after, '--memory').stdout;
    expect(text.split('\n').slice(0, 12).join('\n')).toMatch(/^memory +\d+ pages of .* differ/m);
    expect(text).toContain('0x510000003000-0x510000005000');
    expect(text).toMatch(/^ {6}cwd .* -> \/$/m);
  });

  it('shows the bytes that differ, as many as are asked for', () => {
    const area = (...flags: string[]): NonNullable<Document['memory']>['areas'][number] =>
      diff(before, after, '--bytes', ...flags).memory!.areas.find((one) => one.area.start === '0x510000000000')!;
    // The first two changes, then 16 of the 256 rows of the page that became zeros.
    const some = area();
    expect([some.rows!.length, some.more_rows]).toEqual([16, true]);
    expect(some.rows![0]).toEqual({ address: '0x510000003000', a: '01'.repeat(16), b: `${'01'.repeat(7)}02${'01'.repeat(8)}` });
    const all = area('--details');
    expect([all.rows!.length, all.more_rows]).toEqual([1 + 1 + 256 + 1, false]);
    expect(all.rows!.at(-1)).toEqual({ address: '0x510000028000', a: '00'.repeat(16), b: `${'00'.repeat(5)}02${'00'.repeat(10)}` });
    const text = warpTool('diff', before, after, '-b').stdout;
    expect(text).toContain(`      - 0x510000003000  ${'01 '.repeat(8)} ${'01 '.repeat(8)} |`);
    expect(text).toContain(`      + 0x510000003000  ${'01 '.repeat(7)}02  ${'01 '.repeat(8)} |`);
  });

  it('finds no difference between an image and itself', () => {
    expect(diff(after, after, '--memory')).toMatchObject({ different: false, changes: [], memory: { pages: 0, areas: [] } });
    expect(warpTool('diff', after, after, '-m').stdout).toContain('no difference');
  });

  it('knows threads again after a restore gave them new ids', () => {
    const threads = diff(before, next).changes.filter(({ section }) => section === 'threads');
    expect(threads.map(({ kind }) => kind)).toEqual(['changed']);
    expect(threads[0]!.fields.map(({ field }) => field)).toContain('tid');
  });

  it('tells a changed environment variable by name', async () => {
    const other = Conversation.start(directory, ['run', '--', join(directory, 'program'), join(directory, 'file')], {
      WARP_TEST: 'two',
      ADDED: 'x',
    });
    await other.line();
    const image = other.checkpoint(directory, 'other');
    await other.ended;
    const environment = diff(before, image).changes.filter(({ section }) => section === 'environment');
    expect(environment).toContainEqual({
      section: 'environment',
      key: 'WARP_TEST',
      kind: 'changed',
      fields: [{ field: 'value', a: 'one', b: 'two' }],
    });
    expect(environment).toContainEqual({
      section: 'environment',
      key: 'ADDED',
      kind: 'added',
      fields: [{ field: 'value', a: null, b: 'x' }],
    });
  });
});

it('diff works on foreign cores, and says what only one of two images holds', async (context) => {
  const target = await startTarget(directory);
  const one = gcore(target, directory);
  const copy = join(directory, 'one.core');
  if (typeof one !== 'string') return context.skip(one.skip);
  writeFileSync(copy, readFileSync(one));
  const other = gcore(target, directory) as string;
  await endTarget(target);
  expect(diff(copy, copy, '--memory')).toMatchObject({ different: false });
  // Stopping the threads for a core changes registers of sleeping system calls, and nothing else.
  expect(diff(copy, other).changes.filter(({ section }) => section !== 'threads')).toEqual([]);
  const { stderr, stdout } = warpTool('diff', copy, before, '--json');
  expect(stderr).toBe('');
  expect((JSON.parse(stdout) as Document).warnings.join('\n')).toMatch(/descriptors not compared: .*does not hold file descriptors/);
});

// Of files, native code compares the bytes; of other sources, JavaScript does.
describe.each(['in memory', 'in files'])('comparing memory %s', (where) => {
  let files = 0;
  const open = async (plan: SegmentPlan[]): Promise<Image> => {
    const content = await warpImage({ segments: plan });
    if (where === 'in memory') return Image.from(new BufferSource('test.img', content));
    const path = join(directory, `compared-${files++}.img`);
    writeFileSync(path, content);
    return Image.open(path);
  };

  async function compare(a: Image, b: Image): Promise<MemoryDifference> {
    const [left, right] = [new AddressSpace(a), new AddressSpace(b)];
    const result = await diffMemory(left, right, () => {});
    await Promise.all([left.close(), right.close()]);
    return result;
  }

  it('agrees with a comparison of every byte, whatever the areas and their order in the file', async () => {
    let state = 1;
    const random = (limit: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 16) % limit;
    };
    for (let round = 0; round < 20; round++) {
      const pages = 64;
      const contents = [0, 1].map(() => Array.from({ length: pages }, () => (random(3) === 0 ? null : random(4))));
      const images = await Promise.all(
        contents.map((content) => {
          const segments = content.flatMap((fill, page): SegmentPlan[] => {
            if (fill === null) return [];
            const address = BigInt(0x10000 + page * PAGE);
            return [{ address, size: BigInt(PAGE), content: fill === 0 ? undefined : Buffer.alloc(PAGE, fill) }];
          });
          return open(segments);
        }),
      );
      const { areas, onlyA, onlyB } = await compare(images[0]!, images[1]!);
      const [a, b] = contents as [(number | null)[], (number | null)[]];
      const both = [...a.keys()].filter((page) => a[page] !== null && b[page] !== null);
      const expected = both.filter((page) => a[page] !== b[page]).map((page) => BigInt(0x10000 + page * PAGE));
      const found = areas.flatMap(({ ranges }) =>
        ranges.flatMap(({ start, end }) => Array.from({ length: Number(end - start) / PAGE }, (_, index) => start + BigInt(index * PAGE))),
      );
      expect(found).toEqual(expected);
      expect(onlyA).toBe(BigInt(PAGE * [...a.keys()].filter((page) => a[page] !== null && b[page] === null).length));
      expect(onlyB).toBe(BigInt(PAGE * [...a.keys()].filter((page) => a[page] === null && b[page] !== null).length));
    }
  });

  it('finds one changed byte on either side of a window', async () => {
    const size = (4 << 20) * 2 + 3 * PAGE;
    const content = Buffer.alloc(size, 9);
    const a = await open([{ address: 0x100000n, size: BigInt(size), content }]);
    for (const place of [0, (4 << 20) - 1, 4 << 20, size - 1]) {
      const changed = Buffer.from(content);
      changed[place] = 8;
      const b = await open([{ address: 0x100000n, size: BigInt(size), content: changed }]);
      const start = 0x100000n + BigInt(place - (place % PAGE));
      expect((await compare(a, b)).areas.flatMap(({ ranges }) => ranges)).toEqual([{ start, end: start + BigInt(PAGE) }]);
    }
  });

  it('says how much could not be compared', async () => {
    const notes = [prstatusNote(1)];
    const stored = foreignCore({ segments: [{ address: 0x10000n, size: 8192n, content: Buffer.alloc(2 * PAGE, 1) }], notes });
    const left = foreignCore({ segments: [{ address: 0x10000n, size: 8192n, content: Buffer.alloc(PAGE, 1) }], notes });
    const [a, b] = await Promise.all([stored, left].map((content) => Image.from(new BufferSource('test.core', content))));
    expect((await compare(a!, b!)).areas).toMatchObject([{ compared: 4096n, pages: 0, unknown: 4096n }]);
    const image = imageDirectory(directory, 'left-out', left);
    writeFileSync(join(directory, 'stored.core'), stored);
    expect(warpTool('diff', join(directory, 'stored.core'), join(image, 'core.img'), '--memory').stdout).toMatch(
      /4\.00 KiB could not be compared/,
    );
  });
});
