import { areaId, areaTitle, categoryNames, memoryMap, threadNames } from './memory-map.js';
import { describe as describeDescriptor, flagsText } from '../commands/fds.js';
import { frameText } from '../commands/locations.js';
import { nameOf } from '../commands/threads.js';
import { quoted } from '../commands/show.js';
import { count, duration } from '../terminal/format.js';
import { html, type Content, type Html } from './html.js';
import type { Report } from './page.js';
import { loadsByCategory, nameOfCategory, timelineCharts, timelineText, type CategoryLoads } from './timeline.js';
import { share, size } from './units.js';

/** A part of the page. */
export interface Section {
  id: string;
  title: string;
  /** In the list of sections; the title where it is short. */
  short?: string;
  body: Html;
}

type Area = Report['composition']['areas'][number];

/** Rows of a table at most: the page has to stay small enough for a telephone. */
const MOST_ROWS = 600;

interface Column<Row> {
  title: string;
  cell: (row: Row) => Content;
  /** A number to sort by. */
  value?: (row: Row) => number;
  /** A number that names rather than counts stays left. */
  names?: boolean;
  /** Left out where there is little room. */
  minor?: boolean;
  /** Heads its row. */
  heads?: boolean;
  class?: string;
}

interface TableOptions<Row> {
  caption: string;
  id?: (row: Row) => string;
  /** In the footer, under the columns. */
  total?: Content[];
  sortable?: boolean;
}

function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  { caption, id, total, sortable = true }: TableOptions<Row>,
): Html {
  const classes = (column: Column<Row>): Html => {
    const names = [column.value && !column.names && 'number', column.minor && 'minor', column.class].filter(Boolean).join(' ');
    return names === '' ? html`` : html` class="${names}"`;
  };
  const cell = (row: Row, column: Column<Row>): Html => {
    const value = sortable && column.value ? html` data-value="${column.value(row)}"` : html``;
    const content = column.cell(row);
    return column.heads
      ? html`<th scope="row" ${classes(column)}${value}>${content}</th>`
      : html`<td${classes(column)}${value}>${content}</td>`;
  };
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table${sortable && html` class="sortable"`}>
<caption>${caption}</caption>
<thead><tr>${columns.map((column) => html`<th scope="col" ${classes(column)}>${column.title}</th>`)}</tr></thead>
<tbody>
${rows.map((row) => html`<tr${id && html` id="${id(row)}"`}>${columns.map((column) => cell(row, column))}</tr>\n`)}</tbody>
${
  total &&
  html`<tfoot>
    <tr>
      ${total.map((content, index) => html`${index === 0 ? html`<th scope="row" ${classes(columns[index]!)}>${content}</th>` : html`<td${classes(columns[index]!)}>${content}</td>`}`)}
    </tr>
  </tfoot>`
}</table></div>`;
}

/** What was left out of a table. */
function rest(all: number, shown: number, noun: string, command: string): Html | null {
  return all > shown ? html`<p class="note">${all - shown} more ${noun}: <code>warp-tool ${command}</code> lists all.</p>` : null;
}

function bar(part: number, whole: number, classes: string): Html {
  const width = whole > 0 ? Math.round((part / whole) * 1000) / 10 : 0;
  return html`<svg class="bar" width="100%" height="6" aria-hidden="true">
    <rect class="track" width="100%" height="6" rx="3" />
    <rect class="${classes}" width="${width}%" height="6" rx="3" />
  </svg>`;
}

const swatch = (category: string): Html =>
  html`<svg class="key" width="12" height="12" aria-hidden="true"><rect class="c-${category} s" width="12" height="12" rx="2" /></svg>`;
const bytesOf = (value: number | string | null): Content =>
  value === null ? '?' : Number(value) === 0 ? html`<span class="none">–</span>` : size(value);
const description = (entries: readonly (readonly [string, Content])[]): Html =>
  html`<dl class="facts">
    ${entries
      .filter(([, content]) => content !== null && content !== '')
      .map(
        ([name, content]) =>
          html`<div>
            <dt>${name}</dt>
            <dd>${content}</dd>
          </div>`,
      )}
  </dl>`;

export function header(report: Report): Html {
  const { show } = report;
  const { process, host } = show;
  const kind = show.format === null ? 'ELF core file of another writer' : `warp-tool image, format ${show.format}`;
  const captured =
    show.captured_at === null
      ? null
      : html`<time datetime="${show.captured_at}">${show.captured_at.slice(0, 19).replace('T', ' ')} UTC</time>`;
  const fate = show.captured_at === null ? '' : show.flags.includes('left-running') ? ', the process went on' : '';
  const number = (value: Content, label: string): Html => html`<li><b>${value}</b> <span>${label}</span></li>`;
  return html`<header>
    <p class="eyebrow">${kind}</p>
    <h1>${process.name ?? 'Process'}${process.pid !== null && html` <span>pid ${process.pid}</span>`}</h1>
    ${process.command && html`<p class="command"><code>${process.command.map((one) => quoted(one)).join(' ')}</code></p>`}
    ${show.signal && html`<p class="died">Died of ${show.signal.name}${show.signal.address !== null && ` at ${show.signal.address}`}, thread ${show.signal.thread}</p>`}
    <ul class="numbers">
      ${number(size(show.size), 'image file')}${number(size(show.memory!.stored), 'of memory stored')}${show.memory!.resident !== null && number(size(show.memory!.resident), 'was resident')}${number(size(show.memory!.mapped), 'mapped')}${number(show.threads!.count, show.threads!.count === 1 ? 'thread' : 'threads')}${show.descriptors && number(show.descriptors.count, 'descriptors')}
    </ul>
    ${description([
      ['Captured', captured && html`${captured}${fate}`],
      ['Host', host && `${host.hostname}, Linux ${host.kernel_release}`],
      ['Processor', host?.cpu_model ?? null],
      ['Executable', process.executable && html`<code>${process.executable}</code>`],
      ['Directory', process.cwd && html`<code>${process.cwd}</code>`],
      ['Identity', process.uid === null ? null : `uid ${process.uid}, gid ${process.gid}`],
      ['Engine', show.engine],
      [
        'Image',
        show.id &&
          html`<code>${show.id}</code>, generation
            ${show.generation}${show.flags.filter((flag) => flag !== 'left-running').map((flag) => `, ${flag}`)}`,
      ],
      ['Parent', show.parent_id && html`<code>${show.parent_id}</code> ${show.parent_location}`],
      ['File', html`<code>${report.image}</code>`],
      ...show.labels
        .slice(0, 12)
        .map((label) => [`${label.kind.slice(0, 1).toUpperCase()}${label.kind.slice(1)}`, `${label.name} = ${label.value}`] as const),
    ])}
  </header>`;
}

export function findings({ validate, warnings, advice, show }: Report): Section {
  const { checked } = validate;
  const scope = [
    count(checked.segments, 'segment'),
    count(checked.notes, 'note'),
    ...(show.format === null
      ? []
      : [count(checked.records, 'record'), `${count(checked.chunks, 'chunk')} (${size(checked.content)} hashed)`]),
  ].join(', ');
  const shown = validate.findings.slice(0, 100);
  const verdict = validate.valid
    ? html`<p class="verdict good">
        <b>Valid.</b>
        ${show.format === null ? 'What a core file has to fulfil was checked' : 'Structure, notes and the hash of every chunk were checked'}:
        ${scope}.
      </p>`
    : html`<p class="verdict bad"><b>${count(validate.findings.length, 'fault')}.</b> Checked: ${scope}.</p>
        ${table(
          shown,
          [
            { title: 'Check', cell: (row) => row.check, heads: true },
            {
              title: 'Place',
              cell: (row) => [row.offset && `offset ${row.offset} `, row.address && `address ${row.address}`],
              class: 'mono',
            },
            { title: 'Problem', cell: (row) => row.problem },
            { title: 'What to do', cell: (row) => row.mend },
          ],
          { caption: 'Faults of the image', sortable: false },
        )}${rest(validate.findings.length, shown.length, 'faults', 'validate')}`;
  return {
    id: 'findings',
    title: 'Findings',
    body: html`${verdict}
    ${
      warnings.length > 0 &&
      html`<ul class="warnings">
        ${warnings.map((warning) => html`<li>${warning}</li>`)}
      </ul>`
    }
    ${
      advice.length > 0 &&
      html`<h3>Why it is this large, and what to do</h3>
        <ul class="advice">
          ${advice.map(
            (one) =>
              html`<li>
                <p class="amount"><b>${size(one.bytes)}</b>${one.saves && html` <span>could be saved</span>`}</p>
                <div>
                  <p>${one.observation}</p>
                  <p class="mend">${coded(one.mend)}</p>
                </div>
              </li>`,
          )}
        </ul>`
    }`,
  };
}

/** Text with code between backticks. */
function coded(text: string): Content {
  return text.split('`').map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : part));
}

export function composition(report: Report): Section {
  const { categories, total, duplicates_from: from } = report.composition;
  const stored = Number(total.stored);
  const rows = categories.toSorted((a, b) => Number(b.stored) - Number(a.stored) || Number(b.mapped) - Number(a.mapped));
  let x = 0;
  const segments = rows
    .filter((row) => Number(row.stored) > 0)
    .map((row) => {
      const width = (Number(row.stored) / stored) * 100;
      const segment = html`<rect class="c-${row.category} s" x="${x.toFixed(2)}%" width="${width.toFixed(2)}%" height="26"
        ><title>${categoryNames[row.category]}: ${size(row.stored)}, ${share(Number(row.stored), stored)}</title></rect
      >`;
      const label = width > 14 ? html`<text x="${(x + width / 2).toFixed(2)}%" y="17.5">${share(Number(row.stored), stored)}</text>` : null;
      x += width;
      return { segment, label };
    });
  const summary = rows
    .filter((row) => Number(row.stored) > 0)
    .map((row) => `${categoryNames[row.category]} ${share(Number(row.stored), stored)}`)
    .join(', ');
  const sum = (key: 'read' | 'sampled' | 'lz4'): number => categories.reduce((all, row) => all + Number(row[key]), 0);
  const zeros = Number(total.stored_zero);
  const duplicates = Number(total.stored_duplicate);
  const [read, sampled, lz4] = [sum('read'), sum('sampled'), sum('lz4')];
  const packed = categories.some((row) => row.packed !== row.stored);
  const left = packed
    ? { bytes: Number(total.packed), words: 'is what they take in the file' }
    : { bytes: lz4, words: 'would be left with LZ4' };
  const known = (key: 'from_file' | 'absent' | 'resident' | 'stored_zero' | 'stored_duplicate' | 'zero'): boolean =>
    categories.some((row) => row.category !== 'kernel' && row[key] !== null && Number(row[key]) > 0);
  type Row = (typeof rows)[number];
  const amount = (title: string, key: Parameters<typeof known>[0], minor = true): Column<Row>[] =>
    known(key) ? [{ title, cell: (row) => bytesOf(row[key]), value: (row) => Number(row[key] ?? 0), minor }] : [];
  const columns: Column<Row>[] = [
    {
      title: 'Memory',
      cell: (row) => html`<span class="keyed">${swatch(row.category)}<span>${categoryNames[row.category]}</span></span>`,
      heads: true,
    },
    { title: 'Areas', cell: (row) => row.areas, value: (row) => row.areas, minor: true },
    { title: 'Stored', cell: (row) => bytesOf(row.stored), value: (row) => Number(row.stored) },
    {
      title: 'Share',
      cell: (row) => (Number(row.stored) === 0 ? bytesOf(0) : share(Number(row.stored), stored)),
      value: (row) => Number(row.stored),
    },
    packed
      ? { title: 'In the file', cell: (row) => bytesOf(row.packed), value: (row) => Number(row.packed) }
      : { title: 'With LZ4', cell: (row) => bytesOf(row.lz4), value: (row) => Number(row.lz4) },
    ...amount('Zeros', 'stored_zero'),
    ...amount('Copies', 'stored_duplicate'),
    ...amount('Resident', 'resident'),
    ...amount('Not stored', 'zero'),
    ...amount('In files', 'from_file'),
    ...amount('Absent', 'absent'),
    { title: 'Mapped', cell: (row) => bytesOf(row.mapped), value: (row) => Number(row.mapped), minor: true },
  ];
  const totals: Record<string, Content> = {
    Memory: 'All',
    Areas: total.areas,
    Stored: size(total.stored),
    Share: '100 %',
    'With LZ4': size(lz4),
    'In the file': size(total.packed),
    Zeros: bytesOf(total.stored_zero),
    Copies: bytesOf(total.stored_duplicate),
    Resident: bytesOf(total.resident),
    'Not stored': bytesOf(total.zero),
    'In files': bytesOf(total.from_file),
    Absent: bytesOf(total.absent),
    Mapped: size(total.mapped),
  };
  const how =
    packed || read === 0
      ? ''
      : sampled < read
        ? `LZ4 was tried on ${size(sampled)} of ${size(read)}, spread evenly.`
        : 'LZ4 was tried on all of it.';
  const estimate = from > 1 ? ` Copies are an estimate from one page in ${from}.` : '';
  return {
    id: 'composition',
    title: 'Composition',
    body: html`${
        stored > 0 &&
        html`<svg class="whole" width="100%" height="26" role="img" aria-label="Stored content by purpose: ${summary}">
            ${segments.map(({ segment }) => segment)}${segments.map(({ label }) => label)}
          </svg>
          <ul class="meters">
            <li><b>${share(zeros, stored)}</b> <span>pages of zeros, ${size(zeros)}</span>${bar(zeros, stored, 'meter')}</li>
            <li>
              <b>${share(duplicates, stored)}</b> <span>copies of other pages, ${size(duplicates)}</span>${bar(duplicates, stored, 'meter')}
            </li>
            ${
              (packed || sampled > 0) &&
              html`<li>
                <b>${share(left.bytes, stored)}</b> <span>${left.words}, ${size(left.bytes)}</span>${bar(left.bytes, stored, 'meter')}
              </li>`
            }
          </ul>`
      }
      ${table(rows, columns, { caption: 'Memory by purpose', total: columns.map(({ title }) => totals[title]), sortable: false })}
      <p class="note">
        ${stored > 0 && `${how}${estimate} `}Zeros and copies count among the stored pages. Not stored: known to be zeros, because it was
        never touched or was found empty.${Number(total.unread) > 0 && ` ${size(total.unread)} of the stored content could not be read.`}
      </p>`,
  };
}

export function virtualMachine({ show }: Report): Section | null {
  const machine = show.java;
  if (!machine || machine.version === null) return null;
  const { heap, code_cache: code, metaspace, classes, direct_buffers: direct, threads: own, counters } = machine;
  const seconds = (nanoseconds: string): string => duration(Number(nanoseconds) / 1e6);
  const stored = machine.composition.reduce((total, part) => total + Number(part.stored), 0);
  const most = Number(machine.composition[0]?.stored ?? 0);
  type Space = NonNullable<typeof heap>['spaces'][number];
  const spaces: Column<Space>[] = [
    { title: 'Space', cell: (row) => row.name, heads: true },
    ...(heap?.spaces.some((row) => row.regions !== null)
      ? [{ title: 'Regions', cell: (row: Space) => row.regions ?? '', value: (row: Space) => row.regions ?? 0 }]
      : []),
    { title: 'Used', cell: (row) => bytesOf(row.used), value: (row) => Number(row.used) },
    { title: 'Capacity', cell: (row) => bytesOf(row.capacity), value: (row) => Number(row.capacity) },
  ];
  return {
    id: 'java',
    title: 'Java virtual machine',
    short: 'Java',
    body: html`${description([
        ['Version', machine.version],
        [
          'Collector',
          machine.collector &&
            `${machine.collector}${counters ? `, ${count(counters.collections, 'collection')} in ${seconds(counters.collection_time_ns)}` : ''}`,
        ],
        ['Runs', machine.command && html`<code>${machine.command}</code>`],
        ['Arguments', machine.arguments && machine.arguments.length > 0 ? html`<code>${machine.arguments.join(' ')}</code>` : null],
        ['Heap', heap && `${size(heap.used)} used, ${size(heap.committed)} committed, ${size(heap.maximum)} at most`],
        [
          'Heap stored',
          heap && `${size(heap.stored)}${Number(heap.stored_free) > 0 ? `, of it ${size(heap.stored_free)} in free parts` : ''}`,
        ],
        [
          'Code cache',
          code &&
            `${size(code.used)} used, ${count(code.methods, 'method')}${counters ? `, ${seconds(counters.compilation_time_ns)} of compiling` : ''}`,
        ],
        ['Metaspace', metaspace && `${size(metaspace.committed)} committed, ${size(metaspace.stored)} stored`],
        [
          'Classes',
          classes &&
            `${count(classes.loaded, 'class', 'classes')} of ${count(classes.loaders, 'loader')}, ${classes.shared} from an archive`,
        ],
        ['Threads', own.java > 0 ? `${own.java} Java threads, ${own.daemon} of them daemons` : null],
        ['Direct', direct && direct.count > 0 ? `${size(direct.capacity)} in ${count(direct.count, 'buffer')}` : null],
      ])}
      <div class="columns">
        ${
          most > 0 &&
          table(
            machine.composition.slice(0, 12),
            [
              { title: 'Part', cell: ({ part }) => part, heads: true },
              { title: 'Stored', cell: (row) => size(row.stored), value: (row) => Number(row.stored) },
              { title: 'Share', cell: (row) => share(Number(row.stored), stored), value: (row) => Number(row.stored) },
              { title: '', cell: (row) => bar(Number(row.stored), most, 'meter'), class: 'bars' },
            ],
            { caption: 'What the stored content is', sortable: false },
          )
        }
        ${heap && heap.spaces.length > 0 && table(heap.spaces, spaces, { caption: 'Spaces of the heap', sortable: false })}
      </div>`,
  };
}

/** The areas that have a row in the table of all areas: those that hold most, by ascending address. */
export function listedAreas(report: Report): Area[] {
  const { areas } = report.composition;
  if (areas.length <= MOST_ROWS) return areas;
  const weight = (area: Area): number => Number(area.stored) * 4 + Number(area.resident ?? 0) + Number(area.mapped) / (1 << 20);
  const kept = new Set(areas.toSorted((a, b) => weight(b) - weight(a)).slice(0, MOST_ROWS));
  return areas.filter((area) => kept.has(area));
}

export function map(report: Report): Section {
  return { id: 'map', title: 'Memory map', body: memoryMap(report, new Set(listedAreas(report))) };
}

export function mappings(report: Report): Section {
  const { areas, total } = report.composition;
  const largest = areas.toSorted((a, b) => Number(b.stored) - Number(a.stored) || Number(b.mapped) - Number(a.mapped)).slice(0, 12);
  const most = Number(largest[0]?.stored ?? 0);
  const listed = listedAreas(report);
  const names = threadNames(report);
  const what: Column<Area> = {
    title: 'What',
    cell: (area) => html`<span class="keyed">${swatch(area.category)}<span>${areaTitle(area, names)}</span></span>`,
    heads: true,
    class: 'path',
  };
  const range: Column<Area> = {
    title: 'Address',
    cell: (area) => `${area.start.slice(2).padStart(12, '0')}–${area.end.slice(2).padStart(12, '0')}`,
    class: 'mono',
    minor: true,
  };
  const protection: Column<Area> = { title: 'Protection', cell: (area) => area.protection, class: 'mono', minor: true };
  const amount = (title: string, key: 'mapped' | 'stored' | 'resident' | 'stored_duplicate' | 'from_file', minor = true): Column<Area>[] =>
    areas.some((area) => area[key] !== null && Number(area[key]) > 0)
      ? [{ title, cell: (area) => bytesOf(area[key]), value: (area) => Number(area[key] ?? 0), minor }]
      : [];
  return {
    id: 'mappings',
    title: 'Largest mappings',
    short: 'Mappings',
    body: html`${table(
        largest,
        [
          what,
          range,
          protection,
          ...amount('Stored', 'stored', false),
          { title: '', cell: (area) => bar(Number(area.stored), most, `c-${area.category} s`), class: 'bars', minor: true },
          { title: 'Share', cell: (area) => share(Number(area.stored), Number(total.stored)), value: (area) => Number(area.stored) },
          ...amount('Mapped', 'mapped'),
        ],
        { caption: 'The areas that hold most', sortable: false },
      )}
      <details>
        <summary>All ${count(areas.length, 'area')}</summary>
        ${table(
          listed,
          [
            range,
            what,
            { title: 'Kind', cell: (area) => categoryNames[area.category], minor: true },
            protection,
            ...amount('Mapped', 'mapped'),
            ...amount('Resident', 'resident'),
            ...amount('Stored', 'stored', false),
            ...amount('Copies', 'stored_duplicate'),
            ...amount('In file', 'from_file'),
          ],
          { caption: 'Memory areas by address', id: areaId },
        )}${rest(areas.length, listed.length, 'areas', 'maps')}
      </details>`,
  };
}

export function timeline({ timeline: found }: Report): Section | null {
  if (!found) return null;
  type Row = CategoryLoads;
  const columns: Column<Row>[] = [
    {
      title: 'Memory',
      cell: (row) => html`<span class="keyed">${swatch(row.category ?? 'any')}<span>${nameOfCategory(row.category)}</span></span>`,
      heads: true,
    },
    { title: 'Chunks', cell: (row) => row.chunks, value: (row) => row.chunks },
    { title: 'Needed', cell: (row) => size(row.content), value: (row) => row.content },
    { title: 'First', cell: (row) => duration(row.first), value: (row) => row.first, minor: true },
    { title: 'Last', cell: (row) => duration(row.last), value: (row) => row.last },
  ];
  return {
    id: 'timeline',
    title: 'Page-load timeline',
    short: 'Timeline',
    body: html`<p>${timelineText(found)}</p>
      ${timelineCharts(found)} ${table(loadsByCategory(found.loads), columns, { caption: 'Needed by purpose', sortable: false })}
      <p class="note">
        Times are medians, since the restore began. Training restores load nothing but what is asked for, so they take longer than others. A
        chunk counts for the memory that it begins with.
      </p>`,
  };
}

export function threads({ threads: document, show }: Report): Section | null {
  if (!document || document.threads.length === 0) return null;
  const shown = document.threads.slice(0, MOST_ROWS);
  type Row = (typeof shown)[number];
  const calls = show.threads!.system_calls.slice(0, 12);
  const has = (test: (row: Row) => boolean): boolean => document.threads.some(test);
  const none = html`<span class="none">–</span>`;
  const named = has((row) => nameOf(row) !== '');
  const columns: Column<Row>[] = [
    { title: 'Thread', cell: (row) => row.tid, value: (row) => row.tid, names: true, class: 'mono', heads: !named },
    ...(named ? [{ title: 'Name', cell: nameOf, heads: true }] : []),
    ...(has((row) => row.java !== null) ? [{ title: 'Java', cell: (row: Row) => javaState(row) ?? none, minor: true }] : []),
    ...(has((row) => row.state !== null) ? [{ title: 'State', cell: (row: Row) => row.state, minor: true }] : []),
    ...(has((row) => row.system_call !== null)
      ? [{ title: 'System call', cell: (row: Row) => row.system_call ?? none, class: 'mono' }]
      : []),
    {
      title: 'Place in the code',
      cell: (row) => [frameText(row.location), row.signal && html` <b class="died">${row.signal}</b>`],
      class: 'mono',
      minor: true,
    },
  ];
  return {
    id: 'threads',
    title: 'Threads',
    body: html`${calls.length > 0 && html`<p>${calls.map(({ name, count: amount }, index) => html`${index > 0 && ', '}${amount} in ${name === null ? 'user code' : html`<code>${name}</code>`}`)}.</p>`}
    ${table(shown, columns, { caption: count(document.threads.length, 'thread') })}${rest(document.threads.length, shown.length, 'threads', 'threads')}`,
  };
}

function javaState({ java }: NonNullable<Report['threads']>['threads'][number]): string | null {
  if (!java) return null;
  const blocker = java.waits_for ? ` for ${java.waits_for.class}` : '';
  return `${(java.state ?? java.vm_state).toLowerCase()}${blocker}`;
}

export function descriptors({ fds, show }: Report): Section | null {
  if (!fds) {
    return show.format === null
      ? { id: 'descriptors', title: 'Descriptors', body: html`<p>Core files of other writers do not hold file descriptors.</p>` }
      : null;
  }
  const shown = fds.descriptors.slice(0, MOST_ROWS);
  type Row = (typeof shown)[number];
  const columns: Column<Row>[] = [
    { title: 'Descriptor', cell: (row) => row.fd, value: (row) => row.fd, names: true, class: 'mono', heads: true },
    { title: 'Kind', cell: (row) => row.kind },
    { title: 'Access', cell: (row) => row.access, minor: true },
    {
      title: 'Offset',
      cell: (row) => row.offset ?? html`<span class="none">–</span>`,
      value: (row) => Number(row.offset ?? -1),
      minor: true,
    },
    { title: 'Flags', cell: (row) => flagsText(row).replace(/^-$/, '–'), minor: true },
    { title: 'What', cell: (row) => describeDescriptor(row), class: 'path' },
  ];
  return {
    id: 'descriptors',
    title: 'Descriptors',
    body: html`${table(shown, columns, { caption: count(fds.descriptors.length, 'descriptor') })}${rest(fds.descriptors.length, shown.length, 'descriptors', 'fds')}`,
  };
}

export function environment({ env }: Report): Section {
  const rows = env?.environment;
  const columns: Column<NonNullable<typeof rows>[number]>[] = [
    { title: 'Name', cell: (row) => row.name, class: 'mono', heads: true },
    { title: 'Value', cell: (row) => row.value, class: 'mono path' },
  ];
  return {
    id: 'environment',
    title: 'Environment',
    body: rows
      ? table(rows, columns, { caption: count(rows.length, 'variable') })
      : html`<p>Left out, because it often holds passwords and keys: <code>warp-tool report --with-environment</code> includes it.</p>`,
  };
}

export function needs({ show, fds }: Report): Section {
  const { needs: demands, files, process } = show;
  const listening = (fds?.descriptors ?? []).flatMap(({ detail }) => (detail.state === 'listening' && detail.local ? [detail.local] : []));
  const opened = [
    ...new Set((fds?.descriptors ?? []).filter(({ kind }) => ['file', 'directory', 'fifo'].includes(kind)).map(({ path }) => path)),
  ];
  const list = (items: readonly string[]): Content =>
    items.slice(0, 20).map((item, index) => html`${index > 0 && ', '}<code>${item}</code>`);
  const shown = files.slice(0, 200);
  return {
    id: 'host',
    title: demands ? 'What it needs of a host' : 'Mapped files',
    short: demands ? 'Host' : 'Files',
    body: html`${
      demands &&
      description([
        ['Processor', `${demands.machine} with ${demands.xstate_features.join(', ')} (${size(demands.xstate_size)} of register state)`],
        ['Pages', size(demands.page_size)],
        ['User', process.uid === null ? null : `uid ${process.uid}, gid ${process.gid}`],
        ['Directory', process.cwd && html`<code>${process.cwd}</code>`],
        ['Free addresses', listening.length > 0 ? list(listening) : null],
        ['Open files', opened.length > 0 ? html`${list(opened)}${opened.length > 20 && ` and ${opened.length - 20} more`}` : null],
      ])
    }
    ${
      shown.length > 0 &&
      table(
        shown,
        [
          { title: 'File', cell: (row) => [row.path, row.deleted && html` <b>deleted</b>`], class: 'path', heads: true },
          ...(files.some((row) => row.size !== null)
            ? [
                {
                  title: 'Size',
                  cell: (row: (typeof shown)[number]) => bytesOf(row.size),
                  value: (row: (typeof shown)[number]) => Number(row.size ?? 0),
                },
              ]
            : []),
          { title: 'Build-id', cell: (row) => row.build_id ?? html`<span class="none">–</span>`, class: 'mono', minor: true },
        ],
        { caption: demands ? `${count(files.length, 'mapped file')} that must be there unchanged` : count(files.length, 'mapped file') },
      )
    }${rest(files.length, shown.length, 'files', 'maps')}
    ${demands && html`<p class="note"><code>warp-tool validate --host</code> tells whether a host has all of this.</p>`}`,
  };
}
