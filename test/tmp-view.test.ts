import { it } from 'vitest';
import { readFileSync, writeFileSync, readdirSync } from 'node:fs';
import { Screen } from './support/screen.js';
const C = ['#000000','#cd3131','#0dbc79','#e5e510','#4a90f0','#bc3fbc','#11a8cd','#e5e5e5','#666','#f14c4c','#23d18b','#f5f543','#3b8eea','#d670d6','#29b8db','#fff'];
function html(s: Screen): string {
  const b = s.terminal.buffer.active; let out = '';
  for (let r = 0; r < s.terminal.rows; r++) { const l = b.getLine(b.viewportY + r)!; for (let c = 0; c < s.terminal.cols; c++) { const x = l.getCell(c)!; const ch = (x.getChars() || ' ').replace('&', '&amp;').replace('<', '&lt;'); if (x.getWidth() === 0) continue;
    let fg = x.isFgDefault() ? '#ddd' : C[x.getFgColor() % 16]; let bg = '#1e1e1e'; if (x.isInverse()) [fg, bg] = [bg, fg];
    out += `<span style="color:${fg};background:${bg};${x.isBold() ? 'font-weight:bold;' : ''}${x.isDim() ? 'opacity:.5;' : ''}${x.isUnderline() ? 'text-decoration:underline;' : ''}">${ch}</span>`; } out += '\n'; }
  return out;
}
it('views', async () => {
  const { argv, steps, columns, rows, env } = JSON.parse(readFileSync('/tmp/xp/steps.json', 'utf8'));
  const s = new Screen('/tmp/xp', ['node', '/tmp/wt/explore/bin/run.js', 'explore', ...argv], { columns, rows, env });
  let page = '<meta charset=utf-8><body style="background:#333;margin:8px"><style>pre{font:14px/17px DejaVu Sans Mono,monospace;background:#1e1e1e;display:inline-block;margin:6px;vertical-align:top}</style>';
  try {
    for (const [keys, wait] of steps) {
      if (keys.startsWith('resize')) { const [, c, r] = keys.split(' ').map(Number); s.resize(c, r); } else if (keys) s.press(keys);
      await s.until(new RegExp(wait, 'm'));
      await new Promise((r) => setTimeout(r, 600));
      process.stdout.write(`==== ${keys}\n` + s.lines().map((l) => l + '|').join('\n') + '\n');
      page += `<pre>${html(s)}</pre>`;
    }
    writeFileSync('/tmp/xp/page.html', page);
    s.press('q');
    console.log('exit', await s.ended, 'alt', s.alternate, 'cursor', s.cursorShown, 'lflag', s.modes?.toString(8), 'bytes', s.output.length);
  } finally { await s.kill(); }
}, 110_000);
