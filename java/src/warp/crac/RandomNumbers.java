package warp.crac;

import java.lang.reflect.Field;
import java.security.SecureRandom;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Processes that are restored from one image must not agree in their random numbers. Renewed are all SecureRandom objects, and the generators that the
 * class library shares between its users and seeds by itself. A java.util.Random that the application made is its own: nobody can tell whether it chose
 * the seed.
 */
final class RandomNumbers {
  private static Object[] secure = {};

  private RandomNumbers() {}

  /** Before the capture: afterwards a search would bring all of the heap into memory. */
  static void find() {
    secure = Engine.instances(SecureRandom.class);
  }

  static void forget() {
    secure = new Object[0];
  }

  static void renew() throws ReflectiveOperationException {
    renewSecure();
    setCounter("java.util.Random", "seedUniquifier");
    setCounter("java.util.concurrent.ThreadLocalRandom", "seeder");
    setCounter("java.util.SplittableRandom", "defaultGen");
    setSeed("java.lang.Math$RandomNumberGeneratorHolder", "randomNumberGenerator");
    setSeed("java.util.Collections", "r");
    renewThreads();
  }

  private static void renewSecure() throws ReflectiveOperationException {
    if (secure.length == 0) return;
    // Bytes that were read from the kernel ahead of need.
    for (String variant : new String[] {"", "$Blocking", "$NonBlocking"}) {
      Object shared = value("sun.security.provider.NativePRNG" + variant, "INSTANCE");
      if (shared != null) Restored.field(shared.getClass(), "buffered").setInt(shared, 0);
    }
    for (Object generator : secure) {
      byte[] seed = new byte[32];
      for (int i = 0; i < seed.length; i++) seed[i] = (byte) Engine.random();
      // Adds to the state, and replaces nothing.
      ((SecureRandom) generator).setSeed(seed);
    }
  }

  private static void setCounter(String owner, String name) throws ReflectiveOperationException {
    Object counter = value(owner, name);
    if (counter instanceof AtomicLong) ((AtomicLong) counter).set(Engine.random());
  }

  private static void setSeed(String owner, String name) throws ReflectiveOperationException {
    Object generator = value(owner, name);
    if (generator instanceof Random) ((Random) generator).setSeed(Engine.random());
  }

  /** What ThreadLocalRandom goes on from, in each platform thread. */
  private static void renewThreads() throws ReflectiveOperationException {
    Field seed = Restored.field(Thread.class, "threadLocalRandomSeed");
    ThreadGroup group = Thread.currentThread().getThreadGroup();
    while (group.getParent() != null) group = group.getParent();
    Thread[] threads = new Thread[group.activeCount() + 64];
    int count = group.enumerate(threads);
    for (int i = 0; i < count; i++) seed.setLong(threads[i], Engine.random());
  }

  /** Null where this version of the class library has no such class or field, or what the field holds. */
  private static Object value(String owner, String name) throws ReflectiveOperationException {
    try {
      return Restored.field(Class.forName(owner), name).get(null);
    } catch (ClassNotFoundException | NoSuchFieldException absent) {
      return null;
    }
  }
}
