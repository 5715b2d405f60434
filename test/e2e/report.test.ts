/** Reports of real programs, in a real browser. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Report } from '../../src/report/page.js';
import { chromiumPath, hasChromium, startBrowser } from '../support/browser.mjs';
import { openPage, overflow } from '../support/pages.js';
import { command, makeDirectory, node, projectFile } from './support/host.js';
import { compileJava, jdks, startInspected } from './support/jvm.js';
import { freePort } from './support/network.js';
import { checkpointAndEnd, killAll, start, warpTool } from './support/program.js';

afterEach(killAll);

/** The report of an image: the document and the page. */
async function reportOf(image: string): Promise<{ document: Report; file: string }> {
  const json = warpTool(['report', image, '--json']);
  expect((await json.ended).code, json.stderr).toBe(0);
  const page = warpTool(['report', image]);
  expect((await page.ended).code, page.stderr).toBe(0);
  const file = join(makeDirectory(), 'report.html');
  writeFileSync(file, page.stdout);
  return { document: JSON.parse(json.stdout) as Report, file };
}

describe.skipIf(!hasChromium())(`the report (where ${chromiumPath} is; on Debian: apt-get install chromium)`, () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(async () => browser.close());

  async function expectWhole(file: string, sections: string[]): Promise<void> {
    for (const width of [360, 1200]) {
      await openPage(browser, file, { viewport: { width, height: 800 } }, async (page) => {
        expect(await page.locator('h2').allTextContents()).toEqual(sections);
        expect(await overflow(page)).toBe(0);
        expect(await page.locator('.verdict.good').count()).toBe(1);
        for (const map of await page.locator('#map .ribbons > svg').all()) expect((await map.boundingBox())!.width).toBeGreaterThan(250);
      });
    }
  }

  it('of a Node.js service', async () => {
    const target = start(node(), [projectFile('test/e2e/fixtures/service.mjs'), makeDirectory(), String(await freePort())]);
    await target.output(/^tick 5$/m);
    const { document, file } = await reportOf(await checkpointAndEnd(target));
    const { total, categories } = document.composition;
    for (const key of ['stored', 'mapped', 'zero', 'from_file'] as const) {
      expect(categories.reduce((sum, row) => sum + Number(row[key]), 0)).toBe(Number(total[key]));
      expect(Number(total[key])).toBe(Number(document.show.memory![key]));
    }
    expect(document.advice.map(({ topic }) => topic)).toContain('compression');
    expect(document.env).toBeNull();
    await expectWhole(file, [
      'Findings',
      'Composition',
      'Memory map',
      'Largest mappings',
      'Threads',
      'Descriptors',
      'Environment',
      'What it needs of a host',
    ]);
  });

  it.skipIf(!command('javac') || jdks().length === 0)('of a JVM (where a JDK is installed)', async () => {
    const target = await startInspected(jdks()[0]!, compileJava('Inspected'), ['-XX:+UseSerialGC', '-Xmx128m']);
    const { document, file } = await reportOf(await checkpointAndEnd(target));
    const { areas } = document.composition;
    expect(areas.filter(({ label }) => label === 'Java heap').every(({ category }) => category === 'heap')).toBe(true);
    expect(areas.map(({ label }) => label)).toEqual(expect.arrayContaining(['Java heap', 'malloc arena', 'metaspace', 'code cache']));
    expect(document.warnings).toEqual([]);
    await expectWhole(file, [
      'Findings',
      'Composition',
      'Java virtual machine',
      'Memory map',
      'Largest mappings',
      'Threads',
      'Descriptors',
      'Environment',
      'What it needs of a host',
    ]);
    await openPage(browser, file, {}, async (page) => {
      expect(await page.locator('#threads tbody').textContent()).toContain('Reference Handler');
      expect(await page.locator('#map .caption', { hasText: 'Java heap' }).count()).toBeGreaterThan(0);
    });
  });
});
