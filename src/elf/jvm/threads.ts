import { nameHolders } from './lock-holders.js';
import { reasonOf, Unreadable } from './memory.js';
import type { Vm } from './vm.js';

/** Java threads at most: a damaged list must end. */
const MOST_THREADS = 1 << 20;
/** With more entries of nonsense than these the whole list is. */
const MOST_UNREADABLE = 4;

/** JVM TI's states as java.lang.Thread.threadStatus holds them, in the words of a thread dump. */
const STATES: Record<number, string> = {
  0: 'NEW',
  2: 'TERMINATED',
  5: 'RUNNABLE',
  225: 'TIMED_WAITING (sleeping)',
  401: 'WAITING (on object monitor)',
  417: 'TIMED_WAITING (on object monitor)',
  657: 'WAITING (parking)',
  673: 'TIMED_WAITING (parking)',
  1025: 'BLOCKED (on object monitor)',
};

/** An object that a thread waits for. */
export interface Blocker {
  how: 'parking' | 'waiting' | 'locking';
  address: bigint;
  className: string;
  /** ObjectMonitor* of the object; null for what a thread is parked for. */
  monitor: bigint | null;
  /** Name of the Java thread that holds it; null where none does, or where that is not known. */
  heldBy: string | null;
}

export interface JavaThread {
  /** Of HotSpot's JavaThread: the `tid` of a thread dump. */
  address: bigint;
  /** Of its java.lang.Thread; 0 where it could not be read. */
  object: bigint;
  /** Id of the kernel's thread: the `nid` of a thread dump. As the process knew it: after a restore the kernel's may be another. */
  tid: number;
  /** Of the pthread: FS base of the kernel's thread. */
  pthread: bigint;
  name: string | null;
  /** Java's own number of the thread: `#1`. */
  id: bigint | null;
  daemon: boolean | null;
  priority: number | null;
  state: string | null;
  /** What it does for the virtual machine: in Java, in native, in VM, blocked. */
  vmState: string;
  /** Where it has its stack: [start, end). */
  stack: { start: bigint; end: bigint };
  /** The virtual thread that runs on it. */
  virtual: string | null;
  blocker: Blocker | null;
  /** Why name and state are not known; null when they are. */
  problem: string | null;
}

/** All Java threads: those that a thread dump lists, in its order. One that cannot be read is left out and told to `problem`. */
export async function javaThreads(vm: Vm, problem: (text: string) => void): Promise<JavaThread[]> {
  const { structs } = vm;
  const { memory } = structs;
  const list = await structs.static('ThreadsSMRSupport', '_java_thread_list');
  const length = await memory.u32(list + BigInt(structs.offset('ThreadsList', '_length')));
  if (length > MOST_THREADS) throw new Unreadable(`the list of Java threads has ${length} entries`);
  const entries = await memory.bytes(await structs.pointer('ThreadsList', list, '_threads'), length * 8);
  const threads: JavaThread[] = [];
  let unreadable = 0;
  for (let index = 0; index < length; index++) {
    try {
      const thread = await readThread(vm, entries.readBigUInt64LE(index * 8));
      threads.push(thread);
    } catch (error) {
      if (unreadable++ > MOST_UNREADABLE) throw error;
      problem(`a Java thread could not be read: ${reasonOf(error)}`);
    }
  }
  await nameHolders(vm, threads);
  return threads;
}

async function readThread(vm: Vm, address: bigint): Promise<JavaThread> {
  const { structs } = vm;
  const osThread = await structs.pointer('JavaThread', address, '_osthread');
  const stackEnd = await structs.pointer('JavaThread', address, '_stack_base');
  const thread: JavaThread = {
    address,
    object: 0n,
    tid: osThread === 0n ? 0 : await structs.int('OSThread', osThread, '_thread_id'),
    pthread: osThread === 0n ? 0n : await structs.pointer('OSThread', osThread, '_pthread_id'),
    name: null,
    id: null,
    daemon: null,
    priority: null,
    state: null,
    vmState: vmStates(vm)[await structs.int('JavaThread', address, '_thread_state')] ?? 'unknown',
    stack: { start: stackEnd - (await structs.pointer('JavaThread', address, '_stack_size')), end: stackEnd },
    virtual: null,
    blocker: null,
    problem: null,
  };
  try {
    await describe(vm, thread);
  } catch (error) {
    thread.problem = reasonOf(error);
  }
  return thread;
}

const statesOf = new WeakMap<Vm, string[]>();

function vmStates(vm: Vm): string[] {
  let states = statesOf.get(vm);
  if (!states) {
    states = [];
    for (const [name, value] of vm.structs.constantsOf('_thread_')) states[value] = name.replaceAll('_', ' ').replace(/^in vm/, 'in VM');
    statesOf.set(vm, states);
  }
  return states;
}

/** What the thread's java.lang.Thread object tells. */
async function describe(vm: Vm, thread: JavaThread): Promise<void> {
  const { structs, objects } = vm;
  const { memory } = structs;
  const field = thread.address + BigInt(structs.offset('JavaThread', '_threadObj'));
  const isHandle = structs.typeOf('JavaThread', '_threadObj') === 'OopHandle';
  const object = isHandle ? await objects.resolve(await memory.u64(field)) : await objects.resolve(field);
  if (object === 0n) throw new Unreadable('it has no java.lang.Thread yet');
  // The object knows its JavaThread: whatever else stands at a stale reference does not.
  if ((await objects.number(object, 'eetop')) !== thread.address) throw new Unreadable('its java.lang.Thread has moved');
  thread.object = object;
  thread.name = await objects.string(await objects.object(object, 'name'));
  thread.id = await objects.number(object, 'tid');
  // Since JDK 19 these are in an object of their own, which virtual threads do without.
  const holder = (await objects.object(object, 'holder')) || object;
  const daemon = await objects.number(holder, 'daemon');
  thread.daemon = daemon === null ? null : daemon !== 0n;
  thread.priority = Number((await objects.number(holder, 'priority')) ?? 0n) || null;
  const state = await objects.number(holder, 'threadStatus');
  thread.state = state === null ? null : (STATES[Number(state)] ?? `state ${state}`);
  thread.blocker = await blockerOf(vm, thread);
  if (structs.has('JavaThread', '_vthread')) {
    const virtual = await objects.resolve(await structs.pointer('JavaThread', thread.address, '_vthread'));
    if (virtual !== 0n && virtual !== object) {
      const name = await objects.string(await objects.object(virtual, 'name'));
      thread.virtual = `#${await objects.number(virtual, 'tid')}${name ? ` "${name}"` : ''}`;
    }
  }
}

async function blockerOf(vm: Vm, { address: thread, object }: JavaThread): Promise<Blocker | null> {
  const { structs, objects } = vm;
  const monitors = [
    ['_current_pending_monitor', 'locking'],
    ['_current_waiting_monitor', 'waiting'],
  ] as const;
  for (const [field, how] of monitors) {
    const monitor = await structs.pointer('JavaThread', thread, field);
    if (monitor === 0n) continue;
    const place = monitor + BigInt(structs.offset('ObjectMonitor', '_object'));
    // Since JDK 16 a weak handle, before that the reference itself.
    const address = await objects.resolve(vm.version >= 16 ? await structs.memory.u64(place) : place);
    return address === 0n ? null : { how, address, monitor, className: await objects.className(address), heldBy: null };
  }
  const parked = await objects.object(object, 'parkBlocker');
  return parked === 0n
    ? null
    : { how: 'parking', address: parked, monitor: null, className: await objects.className(parked), heldBy: null };
}
