import { createHash } from 'node:crypto';
import type { Static } from '../schemas/builder.js';
import type { report } from '../schemas/index.js';
import { html, Html } from './html.js';
import { SCRIPT } from './script.js';
import {
  composition,
  descriptors,
  environment,
  findings,
  header,
  map,
  mappings,
  needs,
  threads,
  timeline,
  virtualMachine,
  type Section,
} from './sections.js';
import { STYLE } from './style.js';

export type Report = Static<typeof report>;

/** The sections in their order; null: the image has nothing to show there. */
const SECTIONS: readonly ((report: Report) => Section | null)[] = [
  findings,
  composition,
  virtualMachine,
  map,
  mappings,
  timeline,
  threads,
  descriptors,
  environment,
  needs,
];

const hashSource = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/**
 * The whole page, self-contained: nothing is fetched, and nothing but the one style sheet and the one script in it may take effect, whatever the
 * image's strings hold.
 */
export function renderReport(report: Report, version: string): string {
  const sections = SECTIONS.flatMap((section) => section(report) ?? []);
  const policy = [
    "default-src 'none'",
    `style-src ${hashSource(STYLE)}`,
    `script-src ${hashSource(SCRIPT)}`,
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  const { process } = report.show;
  const title = `${process.name ?? 'process'}${process.pid === null ? '' : ` (pid ${process.pid})`}: image report`;
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${policy}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="referrer" content="no-referrer" />
        <meta name="generator" content="warp-tool ${version}" />
        <title>${title}</title>
        <link rel="icon" href="data:," />
        ${new Html(`<style>${STYLE}</style>`)}
      </head>
      <body>
        <a class="skip" href="#main">Skip to the content</a>
        ${header(report)}
        <nav aria-label="Sections">
          <ul>
            ${sections.map(({ id, title: name, short }) => html`<li><a href="#${id}">${short ?? name}</a></li>`)}
          </ul>
        </nav>
        <main id="main">
          ${sections.map(
            ({ id, title: name, body }) =>
              html`<section id="${id}" aria-labelledby="${id}-title">
                <h2 id="${id}-title">${name}</h2>
                ${body}
              </section> `,
          )}
        </main>
        <footer>
          <p>
            Made by warp-tool ${version}. This page is one file and loads nothing. It names paths, arguments and addresses of the process:
            <code>warp-tool redact</code> makes an image whose report can be published.
          </p>
        </footer>
        ${new Html(`<script>${SCRIPT}</script>`)}
      </body>
    </html> `;
  return `${page.text.trim()}\n`;
}
