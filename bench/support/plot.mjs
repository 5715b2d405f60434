/** Bars as a picture that a README can show: SVG that reads on light and on dark ground. */
import { writeFileSync } from 'node:fs';

const ROW = 26;
const LABEL = 330;
const BARS = 440;
const WIDTH = LABEL + BARS + 90;

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/**
 * Writes bars from zero to an SVG file. `groups`: title and bars, each a label, a value and whether it is one of those that the picture is about; the
 * longest bar of each group has the full width.
 */
export function plotBars(path, groups, show) {
  const parts = [];
  let y = 0;
  for (const { title, bars } of groups) {
    const longest = Math.max(...bars.map(({ value }) => value));
    parts.push(`<text class="title" x="0" y="${y + 20}">${escaped(title)}</text>`);
    y += 32;
    for (const { label, value, ours } of bars) {
      const width = Math.max(2, (value / longest) * BARS).toFixed(1);
      parts.push(
        `<text class="label" x="${LABEL - 10}" y="${y + 17}">${escaped(label)}</text>`,
        `<rect class="${ours ? 'ours' : 'other'}" x="${LABEL}" y="${y + 4}" width="${width}" height="${ROW - 8}" rx="2"/>`,
        `<text x="${(LABEL + Number(width) + 8).toFixed(1)}" y="${y + 17}">${escaped(show(value))}</text>`,
      );
      y += ROW;
    }
    y += 18;
  }
  writeFileSync(
    path,
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" role="img">
<style>
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600 }
.label { text-anchor: end }
.ours { fill: #1f883d }
.other { fill: #8c959f }
@media (prefers-color-scheme: dark) { text { fill: #9198a1 } .ours { fill: #2ea043 } .other { fill: #656c76 } }
</style>
${parts.join('\n')}
</svg>
`,
  );
}
