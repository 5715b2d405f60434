/** The page's style sheet. Colours are roles; the dark ones hold on screens only, so that print is always light. */
export const STYLE = `
:root {
  --paper: #fff; --ink: #1b1e24; --muted: #5a6270; --line: #e2e5ea; --soft: #f5f6f8; --link: #1f5fbf; --good: #1c7c45; --bad: #bf2c2c;
  --heap: #2e6bd6; --anonymous: #128a8a; --generated: #b33389; --stack: #d9730d; --shared: #2c9147; --file: #9183dd; --code: #5b45b0;
  --engine: #8b6a3e; --kernel: #717884; --reserved: #b9bfc9; --any: #59616e;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --ink: #e6e8ec; --muted: #9ba4b2; --line: #2c3138; --soft: #1c1f24; --link: #84b3ff; --good: #5cc98a; --bad: #ff8a80;
    --heap: #5a92f2; --anonymous: #2fb0ab; --generated: #dc62b6; --stack: #f0983a; --shared: #53bb70; --file: #ada1f2; --code: #7d69dd;
    --engine: #b9955d; --kernel: #929aa7; --reserved: #4a515c; --any: #98a1af;
  }
}
* { box-sizing: border-box; }
html { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 40px 32px 64px; max-width: 1120px; background: var(--paper); color: var(--ink); }
code, td.mono, tbody th.mono, .gutter { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .86em; }
a { color: var(--link); text-underline-offset: 2px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 8px; top: 8px; background: var(--paper); padding: 4px 10px; z-index: 3; }
p { margin: 0 0 12px; max-width: 78ch; }
.eyebrow { margin: 0; color: var(--muted); font-size: .87rem; }
h1 { margin: 2px 0 6px; font-size: 2.1rem; line-height: 1.15; font-weight: 650; letter-spacing: -.015em; overflow-wrap: anywhere; }
h1 span { color: var(--muted); font-weight: 400; font-size: .55em; letter-spacing: 0; white-space: nowrap; }
h2 { margin: 0 0 14px; font-size: 1.27rem; font-weight: 650; letter-spacing: -.01em; }
h3 { margin: 24px 0 10px; font-size: 1rem; font-weight: 600; }
.command { max-width: none; overflow-wrap: anywhere; color: var(--muted); }
.command code { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden; }
.died { color: var(--bad); font-weight: 600; }
.numbers, .meters, .legend, .advice, nav ul { list-style: none; margin: 0; padding: 0; }
.numbers { display: flex; flex-wrap: wrap; gap: 14px 40px; margin: 22px 0 24px; }
.numbers li { display: flex; flex-direction: column; }
.numbers b { font-size: 1.45rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.numbers span, .meters span { color: var(--muted); font-size: .87rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 4px 48px; margin: 0 0 8px; font-size: .93rem; }
.facts div { display: grid; grid-template-columns: 104px minmax(0, 1fr); gap: 12px; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
nav { position: sticky; top: 0; z-index: 2; margin: 28px 0 0; background: var(--paper); border-bottom: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: 0 22px; }
nav a { display: block; padding: 9px 0; color: var(--muted); text-decoration: none; font-size: .93rem; }
nav a:hover { color: var(--ink); }
main > section { padding: 34px 0 4px; scroll-margin-top: 24px; }
.verdict { padding-left: 14px; border-left: 3px solid; max-width: none; }
.verdict b { font-weight: 650; }
.good { border-color: var(--good); } .good b { color: var(--good); }
.bad { border-color: var(--bad); } .bad b { color: var(--bad); }
.warnings { margin: 0 0 12px; padding-left: 18px; }
.advice li { display: grid; grid-template-columns: 104px 1fr; gap: 12px; padding: 9px 0; border-top: 1px solid var(--line); }
.advice b { font-weight: 600; font-variant-numeric: tabular-nums; }
.advice p { margin: 0; max-width: 96ch; } .amount span { display: block; color: var(--good); font-size: .8rem; } .mend, .note, .scale { color: var(--muted); }
.note { margin-top: 10px; font-size: .9rem; }
.whole { display: block; border-radius: 4px; overflow: hidden; margin-bottom: 16px; }
.whole rect { stroke: var(--paper); stroke-width: 1; }
.whole text { fill: var(--paper); text-anchor: middle; font-size: 12px; font-weight: 600; pointer-events: none; }
.meters { display: grid; grid-template-columns: repeat(3, 1fr); gap: 16px 40px; margin-bottom: 22px; }
.meters b { font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.bar { display: block; margin-top: 6px; } .track { fill: var(--line); } .meter { fill: var(--muted); }
.scroll { overflow-x: auto; } .columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 8px 48px; align-items: start; margin-top: 18px; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: .87rem; padding: 0 0 6px; }
th, td { padding: 5px 16px 5px 0; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-size: .83rem; white-space: nowrap; border-bottom-color: var(--muted); }
thead button { all: unset; cursor: pointer; } thead button:hover { color: var(--ink); } thead button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
[aria-sort=ascending] button::after { content: " \\2191"; } [aria-sort=descending] button::after { content: " \\2193"; }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
.number { text-align: right; white-space: nowrap; }
.mono { white-space: nowrap; } .path { overflow-wrap: anywhere; white-space: normal; min-width: 12ch; }
.bars { width: 22%; min-width: 80px; } .none { color: var(--muted); }
tr:target > * { background: var(--soft); } tr[id] { scroll-margin-top: 80px; }
input[type=search] { font: inherit; font-size: .9rem; width: min(260px, 100%); margin: 4px 0 10px; padding: 4px 10px; color: inherit; background: var(--soft); border: 1px solid var(--line); border-radius: 4px; }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--link); padding: 4px 0; } details[open] > summary { margin-bottom: 8px; }
.keyed { display: inline-grid; grid-template-columns: 18px auto; align-items: baseline; } .keyed .key { margin: 0; }
.key { vertical-align: -1px; margin-right: 6px; flex: none; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 20px; margin-bottom: 6px; font-size: .87rem; color: var(--muted); }
.legend .key { margin-right: 4px; }
.defs { position: absolute; }
.map { margin-top: 18px; }
.block h3 { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 8px; font-weight: 400; font-size: .9rem; }
.block h3 span { color: var(--muted); }
.block h3 code { font-size: .9em; }
.void { display: flex; align-items: center; gap: 14px; margin: 0 0 12px; max-width: none; color: var(--muted); font-size: .84rem; }
.void::before, .void::after { content: ""; flex: 1; border-top: 1px dashed var(--line); }
.ribbons { display: grid; grid-template-columns: 108px minmax(0, 1fr); }
.gutter span { display: block; height: 31px; line-height: 15px; color: var(--muted); font-size: .8em; }
.ribbons svg { display: block; overflow: hidden; }
.c-heap { fill: var(--heap); } .c-anonymous { fill: var(--anonymous); } .c-generated { fill: var(--generated); } .c-stack { fill: var(--stack); } .c-shared { fill: var(--shared); } .c-file { fill: var(--file); } .c-code { fill: var(--code); } .c-engine { fill: var(--engine); } .c-kernel { fill: var(--kernel); } .c-reserved { fill: var(--reserved); } .c-any { fill: var(--any); }
.z { fill-opacity: .16; } .n { fill-opacity: .35; } .f { fill-opacity: .42; } .a { fill-opacity: .08; }
.hatch { fill: var(--paper); fill-opacity: .55; }
.edge { stroke: var(--paper); stroke-width: 1; vector-effect: non-scaling-stroke; fill: none; }
.break { fill: var(--ink); font-size: 9.5px; text-anchor: middle; opacity: .8; }
.caption { fill: var(--muted); font-size: 10.5px; }
.hit { fill: transparent; cursor: default; } a .hit { cursor: pointer; } .hit:hover { stroke: var(--ink); stroke-width: 1.5; }
.map a:focus-visible { outline: none; } .map a:focus-visible .hit { stroke: var(--link); stroke-width: 2.5; } .map a:hover .caption { fill: var(--ink); }
.tip { position: absolute; z-index: 4; max-width: min(420px, 92vw); padding: 7px 10px; background: var(--ink); color: var(--paper); border-radius: 4px; font-size: .82rem; line-height: 1.4; white-space: pre-line; overflow-wrap: anywhere; pointer-events: none; font-variant-numeric: tabular-nums; }
figure { margin: 16px 0 18px; } figcaption { color: var(--muted); font-size: .87rem; margin-bottom: 6px; } figure svg { display: block; overflow: visible; }
.grid { stroke: var(--line); } .base { stroke: var(--muted); } .curve { fill: var(--any); fill-opacity: .22; stroke: var(--any); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.tick { fill: var(--muted); font-size: 11px; } .tick.middle { text-anchor: middle; } .tick.end { text-anchor: end; }
footer { margin-top: 48px; padding-top: 14px; border-top: 1px solid var(--line); color: var(--muted); font-size: .87rem; }
@media screen and (max-width: 720px) {
  body { padding: 20px 16px 40px; }
  h1 { font-size: 1.6rem; }
  .numbers { gap: 12px 28px; } .numbers b { font-size: 1.2rem; }
  .facts { grid-template-columns: 1fr; }
  nav { position: static; } nav ul { gap: 0 18px; } nav a { padding: 5px 0; }
  .meters { grid-template-columns: 1fr; }
  .minor, .ribbons svg.narrow, .break { display: none; }
  .ribbons { grid-template-columns: minmax(0, 1fr); } .gutter { display: none; }
  .advice li { grid-template-columns: 76px 1fr; }
  th, td { padding-right: 10px; }
}
@media print {
  html { font-size: 10.5px; } body { padding: 0; max-width: none; }
  nav, .skip, input[type=search], details:not([open]) { display: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3, caption { break-after: avoid; } tr, li, .facts div { break-inside: avoid; }
  tfoot { display: table-row-group; } .break { font-size: 7px; } .caption { font-size: 8px; }
  .scroll { overflow: visible; } a { color: inherit; text-decoration: none; }
  main > section { padding-top: 22px; }
}
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
`;
