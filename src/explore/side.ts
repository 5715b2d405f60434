import { Chalk } from 'chalk';
import { collectFds } from '../commands/fds.js';
import { collectEnvironment } from '../commands/env.js';
import { labelText } from '../commands/maps.js';
import { collectShow, ShowText } from '../commands/show.js';
import { collectSignals } from '../commands/signals.js';
import type { withLocalFile } from '../commands/local-file.js';
import { collectAll } from '../commands/threads.js';
import { AddressSpace, areaName, type Range } from '../elf/address-space.js';
import { Image, type OpenOptions } from '../elf/image.js';
import { labelsIn, labelsOf } from '../elf/labels.js';
import { withLocalCopy } from '../elf/local-copy.js';
import { findVma, type Vma } from '../elf/vmas.js';
import { printable } from '../terminal/format.js';
import { targetOf, targetText } from '../commands/areas.js';
import { Lazy } from './lazy.js';
import { styledLine, type Line } from './line.js';
import { MemoryLayout } from './layout.js';
import { Pages } from './pages.js';
import { descriptorRows } from './views/descriptors.js';
import { environmentRows } from './views/environment.js';
import { MapOrders } from './views/maps.js';
import { signalRows } from './views/signals.js';
import { threadRows } from './views/threads.js';

const MOST_DESCRIBED = 10_000;

/** Without the progress bar that other commands show. */
const quietly: typeof withLocalFile = (image, work) => withLocalCopy(image, work);

/** Whom a side tells. */
export interface Owner {
  arrived: () => void;
  crashed: (error: unknown) => void;
}

/** One opened image, with everything that views show of it; loaded when a view first asks for it. */
export class Side {
  readonly space: AddressSpace;
  readonly pages: Pages;
  readonly layout: MemoryLayout;
  readonly maps: MapOrders;
  readonly overview;
  readonly threads;
  readonly descriptors;
  readonly environment;
  readonly signals;
  readonly labels;
  /** Threads with their frames. */
  readonly stacks;
  private readonly described = new Map<bigint, string>();
  private readonly areaTexts = new Map<Vma, string>();
  private readonly ending = new AbortController();

  private constructor(
    readonly image: Image,
    private readonly owner: Owner,
  ) {
    const lazy = <T>(load: () => Promise<T> | T): Lazy<T> => new Lazy(async () => load(), owner.arrived, owner.crashed);
    this.space = new AddressSpace(image);
    this.pages = new Pages(this.space, owner.arrived, owner.crashed);
    this.layout = new MemoryLayout(image.vmas());
    this.maps = new MapOrders(image.vmas(), (vma) => this.areaText(vma));
    this.labels = lazy(async () => {
      const labels = await labelsOf(this.space);
      this.described.clear();
      return labels;
    });
    this.overview = lazy(async () => {
      const document = await collectShow(image);
      const lines = (bars: boolean): Line[] => Array.from(new ShowText(new Chalk({ level: 1 }), bars).lines(document), styledLine);
      return { wide: lines(true), narrow: lines(false) };
    });
    this.threads = lazy(async () => threadRows((await collectAll(image, {})).threads));
    this.descriptors = lazy(() => descriptorRows(collectFds(image).descriptors));
    this.environment = lazy(async () => environmentRows((await collectEnvironment(image)).environment));
    this.signals = lazy(async () => signalRows(await collectSignals(image)));
    this.stacks = lazy(() => collectAll(image, { stack: true, signal: this.ending.signal, withFile: quietly }));
  }

  static async open(argument: string, owner: Owner, options: OpenOptions): Promise<Side> {
    const image = await Image.open(argument, options);
    try {
      return new Side(image, owner);
    } catch (error) {
      await image.close();
      throw error;
    }
  }

  /** Path of the image. */
  get name(): string {
    return printable(this.image.source.name);
  }

  /** Where an address is: an area at once, a symbol when the files have been read. Null when nothing is mapped there. */
  describe(address: bigint): string | null {
    const known = this.described.get(address);
    if (known !== undefined) return known;
    const vma = findVma(this.image.vmas(), address);
    if (!vma) return null;
    const target = targetOf({ vma, offset: address - vma.start, symbol: null, symbolOffset: null });
    const label = this.labelOf({ start: address, end: address + 1n }, null);
    const text = targetText(label === null ? target : { ...target, area: { ...target.area, name: label } });
    if (this.described.size >= MOST_DESCRIBED) this.described.clear();
    this.described.set(address, text);
    if (vma.kind === 'file' || vma.kind === 'vdso') void this.findSymbol(address);
    return text;
  }

  /** What an area is, in a word, a path, or what knows the program says of it. */
  areaText(vma: Vma): string {
    const plain = printable(areaName(vma));
    if (vma.name !== '' || this.labels.get().status !== 'ready') return plain;
    const known = this.areaTexts.get(vma);
    if (known !== undefined) return known;
    const text = this.labelOf(vma, vma.stackOf !== null ? plain : null) ?? plain;
    this.areaTexts.set(vma, text);
    return text;
  }

  private labelOf(range: Range, stack: string | null): string | null {
    const labels = this.labels.get();
    const found = labels.status === 'ready' ? labelsIn(labels.value, range) : [];
    return found.length > 0 ? labelText(found, stack) : null;
  }

  private async findSymbol(address: bigint): Promise<void> {
    try {
      const target = await this.space.describe(address);
      if (!target || target.symbol === null) return;
      this.described.set(address, targetText(targetOf(target)));
      this.owner.arrived();
    } catch (error) {
      this.owner.crashed(error);
    }
  }

  async close(): Promise<void> {
    this.ending.abort();
    await this.pages.close();
    await this.space.close();
    await this.image.close();
  }
}
