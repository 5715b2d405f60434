import type { AddressSpace } from '../address-space.js';
import type { Label } from '../labels.js';
import type { Vma } from '../vmas.js';
import { loadedClasses, type LoadedClasses } from './classes.js';
import { CodeCache, type CodeHeapUse } from './code-cache.js';
import { BITS, CLEANER, directBufferPlaces, directBuffers, type DirectBuffers } from './direct-buffers.js';
import { FrameWalker, type JavaStack, type Registers } from './frames.js';
import { javaHeap, type JavaHeap } from './heap.js';
import { reasonOf } from './memory.js';
import { labelsOfJvm } from './regions.js';
import { javaThreads, type JavaThread } from './threads.js';
import { Vm } from './vm.js';

/** A HotSpot virtual machine in an image. What one part of it cannot tell is null and has a line in `problems`; the other parts go on. */
export class Jvm {
  /** What could not be read, and why: one line each. */
  readonly problems: string[] = [];
  private cachedWalker: Promise<FrameWalker | null> | undefined;
  private cachedHeap: Promise<JavaHeap | null> | undefined;
  private cachedCode: Promise<CodeHeapUse[] | null> | undefined;
  private cachedClasses: Promise<LoadedClasses | null> | undefined;
  private cachedThreads: Promise<JavaThread[]> | undefined;
  private cachedPlaces: Promise<Map<bigint, JavaThread>> | undefined;

  private constructor(readonly vm: Vm) {}

  /** `libjvm`: the area with the first byte of libjvm.so. Throws Unreadable where nothing at all can be known. */
  static async open(space: AddressSpace, libjvm: Vma): Promise<Jvm> {
    return new Jvm(await Vm.open(space, libjvm));
  }

  /** Java threads in the order of a thread dump. */
  threads(): Promise<JavaThread[]> {
    return (this.cachedThreads ??= this.readThreads());
  }

  private async readThreads(): Promise<JavaThread[]> {
    const threads = await this.attempt('the Java threads', () => javaThreads(this.vm, (problem) => this.problems.push(problem)));
    const unnamed = threads?.find(({ problem }) => problem !== null);
    if (unnamed) this.problems.push(`the name of a Java thread (tid ${unnamed.tid}) could not be read: ${unnamed.problem}`);
    return threads ?? [];
  }

  /** The Java thread that the kernel's thread with this FS base is; undefined for the virtual machine's own threads. */
  async threadAt(fsBase: bigint): Promise<JavaThread | undefined> {
    this.cachedPlaces ??= this.threads().then((threads) => new Map(threads.map((thread) => [thread.pthread, thread])));
    return fsBase === 0n ? undefined : (await this.cachedPlaces).get(fsBase);
  }

  /** The Java frames of a thread, at most `most`; null where the virtual machine does not tell enough. `registers`: as the thread had them. */
  async stack(thread: JavaThread, registers: Registers, most: number): Promise<JavaStack | null> {
    this.cachedWalker ??= this.attempt('Java frames', () => FrameWalker.open(this.vm));
    const walker = await this.cachedWalker;
    return walker && this.attempt(`the Java frames of thread ${thread.tid}`, () => walker.walk(thread, registers, most));
  }

  /** The heap by the collector's own division. */
  heap(): Promise<JavaHeap | null> {
    return (this.cachedHeap ??= this.attempt('the Java heap', () => javaHeap(this.vm)));
  }

  codeCache(): Promise<CodeHeapUse[] | null> {
    return (this.cachedCode ??= this.attempt('the code cache', async () => (await CodeCache.open(this.vm)).use()));
  }

  classes(): Promise<LoadedClasses | null> {
    return (this.cachedClasses ??= this.attempt('the classes', () => loadedClasses(this.vm, [BITS, CLEANER])));
  }

  /** Memory that java.nio gave out; null also where no direct buffer was ever asked for. */
  async directBuffers(): Promise<DirectBuffers | null> {
    const bits = (await this.classes())?.found.get(BITS);
    return bits === undefined ? null : this.attempt('direct buffers', () => directBuffers(this.vm, bits));
  }

  /** What is where, ascending. */
  async labels(): Promise<Label[]> {
    const cleaner = (await this.classes())?.found.get(CLEANER);
    const places =
      cleaner === undefined ? null : await this.attempt('the list of direct buffers', () => directBufferPlaces(this.vm, cleaner));
    const known = {
      directBuffers: places ?? [],
      heap: await this.heap(),
      codeCache: await this.codeCache(),
      classes: await this.classes(),
      threads: await this.threads(),
    };
    return (await this.attempt("what the JVM's memory is for", () => labelsOfJvm(this.vm, known))) ?? [];
  }

  /** What `read` gives, or null and a line in `problems` where it meets something that cannot be read. */
  async attempt<T>(what: string, read: () => Promise<T>): Promise<T | null> {
    try {
      return await read();
    } catch (error) {
      this.problems.push(`${what} could not be read: ${reasonOf(error)}`);
      return null;
    }
  }
}
