/** What CRIU leaves behind, built here, whole and damaged: every view gives a document of its schema, or one line. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { Chalk } from 'chalk';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { criuFdsView, criuMapsView, criuShowView, criuThreadsView } from '../src/commands/criu-views.js';
import { Failure } from '../src/failure.js';
import { schemas } from '../src/schemas/index.js';
import { Random } from './fuzz/random.js';
import { criuImage, encoded, type Fields, imageFile, varint } from './support/criu.js';

const directory = mkdtempSync(join(tmpdir(), 'warp-tool-test-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const ajv = new Ajv2020({ strict: false });
const views = { show: criuShowView, threads: criuThreadsView, maps: criuMapsView, fds: criuFdsView };
const valid = Object.fromEntries(Object.keys(views).map((name) => [name, ajv.compile(schemas[name as keyof typeof schemas] as object)]));
const style = new Chalk({ level: 0 });

beforeEach(() => {
  for (const [name, bytes] of Object.entries(criuImage)) writeFileSync(join(directory, name), bytes);
});

interface Looked {
  document: { processes: Record<string, unknown>[] };
  text: string;
}

function look(name: keyof typeof views): Looked {
  const { document, lines } = views[name](directory) as { document: Looked['document']; lines: (...args: unknown[]) => Iterable<string> };
  const problem = valid[name]!(JSON.parse(JSON.stringify(document))) ? undefined : ajv.errorsText(valid[name]!.errors);
  if (problem !== undefined) throw new Error(`the document of ${name} is not of its schema: ${problem}`);
  expect(JSON.stringify(document)).not.toMatch(/"(?:mapped|stored|in_parent)":"?-/);
  return { document, text: [...lines(document, style)].join('\n') };
}

describe('an image of CRIU', () => {
  it('is shown with what it holds', () => {
    expect(look('show').document.processes).toMatchObject([{ pid: 100, command: ['program', '--flag', ''], threads: 2, cwd: '/srv' }]);
    expect(look('threads').text).toMatch(/101 +worker +0x401234 .* \/usr\/bin\/program/);
    expect(look('maps').text).toMatch(/3 areas: 56.0 KiB mapped, 24.0 KiB in the image/);
    expect(look('fds').text).toMatch(/pipe:\[77\][^]*127\.0\.0\.1:8080[^]*@name/);
  });

  const withArea = (...vma: Fields): Buffer => imageFile([[14, encoded(vma)]]);
  const pagemap = (...entries: Fields[]): Buffer => imageFile([[1, 1]], ...entries);
  it.each<[string, string, Buffer, RegExp]>([
    [
      'an area that ends before it begins',
      'mm-100.img',
      withArea([1, 0x2000n], [2, 0x1000n]),
      /memory area 0x2000-0x1000 ends before it begins/,
    ],
    ['pages out of order', 'pagemap-100.img', pagemap([[1, 0x9000], [2, 1]], [[1, 0x1000], [2, 1]]), /pages at 0x1000 stand behind those up to 0xa000/], // prettier-ignore
    ['2^64 pages', 'pagemap-100.img', pagemap([[1, 0x1000], [5, (1n << 64n) - 1n]]), /18446744073709551615 pages at 0x1000/], // prettier-ignore
  ])('%s is named', (_what, name, bytes, message) => {
    writeFileSync(join(directory, name), bytes);
    for (const view of ['show', 'threads', 'maps', 'fds'] as const) expect(() => look(view)).toThrow(message);
  });

  it('that lacks the pages of its arguments shows none', () => {
    writeFileSync(join(directory, 'pages-1.img'), criuImage['pages-1.img']!.subarray(0, 4096));
    expect(look('show').document.processes).toMatchObject([{ command: null }]);
  });

  const names = Object.keys(criuImage);
  const extremes = [0n, 1n, 127n, 128n, 0x7fff_ffffn, 0xffff_ffffn, 1n << 32n, (1n << 53n) + 1n, 1n << 63n, (1n << 64n) - 1n];

  function damaged(bytes: Buffer, random: Random): Buffer {
    const at = random.below(bytes.length + 1);
    const [before, behind] = [bytes.subarray(0, at), bytes.subarray(at)];
    switch (random.below(6)) {
      case 0: // a bit
        return Buffer.concat([before, Buffer.from([(behind[0] ?? 0) ^ (1 << random.below(8))]), behind.subarray(1)]);
      case 1: // a number or a length, of any size
        return Buffer.concat([before, varint(random.pick(extremes)), behind.subarray(random.below(3))]);
      case 2: // a number without an end
        return Buffer.concat([before, Buffer.alloc(1 + random.below(12), 0xff), behind.subarray(random.below(12))]);
      case 3: // 32 bits: lengths of entries
        return Buffer.concat([before, random.bytes(4), behind.subarray(4)]);
      case 4: // many of the same
        return Buffer.concat([before, ...Array.from({ length: random.below(2000) }, () => behind.subarray(0, 1 + (at % 40))), behind]);
      default:
        return Buffer.concat([before.subarray(0, random.below(at + 1)), behind]);
    }
  }

  it('damaged in 500 ways gives a document of the schema or one line', () => {
    let refused = 0;
    for (let number = 0; number < 500; number++) {
      const random = new Random(number);
      const name = random.pick(names);
      let bytes = criuImage[name]!;
      for (let times = 1 + random.below(3); times > 0; times--) bytes = damaged(bytes, random);
      writeFileSync(join(directory, name), bytes);
      for (const view of ['show', 'threads', 'maps', 'fds'] as const) {
        try {
          expect(look(view).text).not.toContain('undefined');
        } catch (error) {
          if (!(error instanceof Failure)) throw new Error(`damage ${number} of ${name}, ${view}: ${String(error)}`, { cause: error });
          expect(error.message).toMatch(/^[^\n]+; [^\n]+$/);
          refused++;
        }
      }
      writeFileSync(join(directory, name), criuImage[name]!);
    }
    // Some damage is to be noticed, and some is to content that may be anything.
    expect(refused).toBeGreaterThan(250);
    expect(refused).toBeLessThan(1900);
  });
});
