package warp.crac;

/** The engine in this process (libwarp.so), which defines these classes and registers these methods. Text is UTF-8. */
final class Engine {
  /** How a checkpoint ended, as seen by who goes on. */
  static final int FAILED = -1;

  static final int LEFT_RUNNING = 0;
  static final int RESTORED = 1;

  private Engine() {}

  /** Waits until somebody outside asks for a checkpoint. */
  static native void awaitRequest();

  /**
   * Says that the process can be captured or, with any problems (a line each), cannot; then waits.
   *
   * @return how it ended
   */
  static native int proceed(byte[] problems);

  /** Takes a checkpoint. An empty engine is the usual one; compression is a level of LZ4, 0 for none. */
  static native int checkpoint(byte[] directory, byte[] engine, boolean keepRunning, int compression);

  /** Names a file of policies for all checkpoints; what is wrong with it is told at the first. */
  static native void policies(byte[] file);

  /** Why {@link #checkpoint} failed. */
  static native byte[] error();

  /** What the last restore was given: variables (NAME=VALUE) or arguments, each with a NUL behind it. */
  static native byte[] environment();

  static native byte[] arguments();

  /** Milliseconds since the epoch at the last restore; -1 without one. */
  static native long restoreTime();

  /** The file of performance counters that a restore has made for jps and jcmd; empty when there is none. */
  static native byte[] performanceData();

  /** Opens a package (its name in UTF-8 with a NUL behind it) of one module to another, for deep reflection. */
  static native boolean open(Module module, byte[] name, Module to);

  /** The living objects of exactly this class. */
  static native Object[] instances(Class<?> type);

  /** Collects garbage; `release`: and gives the memory of the heap that no object lies in then back to the kernel. */
  static native void collectGarbage(boolean release);

  /** A random number of the kernel's. */
  static native long random();
}
