import type { Image } from '../elf/image.js';
import { decodeSiginfo } from '../elf/kernel-notes/siginfo.js';
import { Modules } from '../elf/modules.js';
import { signalName, signalNames } from '../elf/signals.js';
import { signals } from '../schemas/index.js';
import type { Static } from '../schemas/builder.js';
import { columns } from '../terminal/columns.js';
import { hex } from '../hex.js';
import { ImageCommand, imageArgument } from './base.js';
import { frameOf, frameText } from './locations.js';

type Document = Static<typeof signals>;

/** SA_ flags of x86-64 (asm/signal.h). */
const ACTION_FLAGS: [bigint, string][] = [
  [0x1n, 'SA_NOCLDSTOP'],
  [0x2n, 'SA_NOCLDWAIT'],
  [0x4n, 'SA_SIGINFO'],
  [0x800n, 'SA_EXPOSE_TAGBITS'],
  [0x04000000n, 'SA_RESTORER'],
  [0x08000000n, 'SA_ONSTACK'],
  [0x10000000n, 'SA_RESTART'],
  [0x40000000n, 'SA_NODEFER'],
  [0x80000000n, 'SA_RESETHAND'],
];

export default class Signals extends ImageCommand {
  static override summary = 'Show signal handlers and queued signals.';
  static override description = [
    'Only dispositions that are not the default. Core files of the kernel and of gcore do not hold them; `threads` shows the masks of',
    'these.',
  ].join(' ');
  static override examples = ['<%= config.bin %> signals /tmp/image', '<%= config.bin %> signals /tmp/image --json'];
  static override args = { image: imageArgument };

  async run(): Promise<Document> {
    const { args, flags } = await this.parse(Signals);
    return this.inspect(args.image, flags, collectSignals, (document) => this.render(document));
  }

  private *render({ actions, pending }: Document): Generator<string> {
    const bold = (text: string): string => this.style.bold(text);
    yield* columns(
      actions,
      [
        { title: 'signal', align: 'right', cell: (action) => String(action.signal) },
        { title: 'name', cell: (action) => action.name, style: (text) => this.style.cyan(text) },
        { title: 'action', cell: (action) => (action.handler ? frameText(action.handler) : action.disposition) },
        { title: 'flags', cell: (action) => action.flags.map((flag) => flag.replace(/^SA_/, '')).join(' ') || '-' },
        { title: 'blocks', cell: (action) => (action.mask.length > 30 ? `${action.mask.length} signals` : action.mask.join(' ') || '-') },
      ],
      bold,
    );
    if (pending.length === 0) return;
    yield '';
    yield* columns(
      pending,
      [
        { title: 'queued', cell: (one) => one.name, style: (text) => this.style.yellow(text) },
        { title: 'for', cell: (one) => (one.tid === null ? 'the process' : `thread ${one.tid}`) },
        { title: 'code', align: 'right', cell: (one) => String(one.code) },
        { title: 'value', cell: (one) => one.value ?? '' },
      ],
      bold,
    );
  }
}

export async function collectSignals(image: Image): Promise<Document> {
  image.requireOurs('signal dispositions', 'see `warp-tool threads` for the masks');
  const modules = new Modules(image);
  const actions: Document['actions'] = [];
  for (const { number, handler, flags, mask } of image.table('signal_actions')) {
    const known = ACTION_FLAGS.filter(([bit]) => (flags & bit) !== 0n);
    const rest = known.reduce((left, [bit]) => left & ~bit, flags);
    actions.push({
      signal: number,
      name: signalName(number),
      disposition: handler === 0n ? 'default' : handler === 1n ? 'ignore' : 'handler',
      handler: handler > 1n ? frameOf(await modules.locate(handler)) : null,
      flags: [...known.map(([, name]) => name), ...(rest === 0n ? [] : [hex(rest)])],
      mask: signalNames(mask),
    });
  }
  const pending = [...image.table('pending_signals')].map(({ tid, siginfo }) => {
    const { signal, code, value } = decodeSiginfo(siginfo);
    return { signal, name: signalName(signal), code, tid: tid === 0 ? null : tid, value: value === null ? null : hex(value) };
  });
  return { image: image.source.name, warnings: image.warnings, actions, pending };
}
