import { reasonOf } from './memory.js';
import type { Blocker, JavaThread } from './threads.js';
import type { Vm } from './vm.js';

/** In the place of an owner: the lock is on the stack of locks of a thread that does not know yet that another one waits for it. */
const ANONYMOUS = 1n;
/** A thread's stack of locks is shorter. */
const MOST_LOCKS = 64;

/** Finds out which thread holds what another one waits for, and notes its name with the latter. */
export async function nameHolders(vm: Vm, threads: readonly JavaThread[]): Promise<void> {
  for (const { blocker } of threads) {
    if (!blocker || blocker.how === 'waiting') continue;
    try {
      const holder =
        blocker.monitor === null ? await ownerOfSynchronizer(vm, threads, blocker) : await ownerOfMonitor(vm, threads, blocker);
      blocker.heldBy = holder?.name ?? null;
    } catch (error) {
      reasonOf(error); // a holder that cannot be found is unknown
    }
  }
}

/** Of a java.util.concurrent lock. */
async function ownerOfSynchronizer(vm: Vm, threads: readonly JavaThread[], { address }: Blocker): Promise<JavaThread | undefined> {
  const owner = await vm.objects.object(address, 'exclusiveOwnerThread');
  return owner === 0n ? undefined : threads.find(({ object }) => object === owner);
}

/** Of an object's monitor. */
async function ownerOfMonitor(vm: Vm, threads: readonly JavaThread[], { monitor, address }: Blocker): Promise<JavaThread | undefined> {
  const { structs } = vm;
  const owner = await structs.pointer('ObjectMonitor', monitor!, '_owner');
  if (owner === 0n) return undefined;
  if (owner === ANONYMOUS && structs.has('JavaThread', '_lock_stack')) {
    for (const thread of threads) if (await hasLocked(vm, thread, address)) return thread;
    return undefined;
  }
  // JDK 24 and later have the thread's number there; others the JavaThread, or the place on its stack where it noted the lock.
  if (structs.typeOf('ObjectMonitor', '_owner').startsWith('int')) return threads.find(({ id }) => id === owner);
  return threads.find((thread) => thread.address === owner || (owner >= thread.stack.start && owner < thread.stack.end));
}

async function hasLocked({ structs }: Vm, thread: JavaThread, object: bigint): Promise<boolean> {
  const at = BigInt(structs.offset('JavaThread', '_lock_stack'));
  const base = at + BigInt(structs.offset('LockStack', '_base[0]'));
  // The top is counted from the thread.
  const top = BigInt(await structs.memory.u32(thread.address + at + BigInt(structs.offset('LockStack', '_top'))));
  const count = Math.min(Number(top > base ? top - base : 0n) / 8, MOST_LOCKS);
  const locks = await structs.memory.bytes(thread.address + base, Math.floor(count) * 8);
  for (let lock = 0; lock < locks.length; lock += 8) if (locks.readBigUInt64LE(lock) === object) return true;
  return false;
}
