package warp.crac;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.concurrent.locks.ReentrantLock;

/** One checkpoint at a time, asked for from inside or outside. */
final class Checkpoints implements Runnable {
  static final OrderedContext CONTEXT = new OrderedContext();
  private static final ReentrantLock UNDER_WAY = new ReentrantLock();

  private static final boolean MANAGEMENT = ModuleLayer.boot().findModule("java.management").isPresent();

  private Checkpoints() {}

  /** Called by the engine before the application's main method. */
  static void start() {
    // A JDK with CRaC of its own has what libraries look for.
    if (Object.class.getModule().getPackages().contains("jdk.crac")) return;
    if (System.getProperty("org.crac.Core.Compat") == null) System.setProperty("org.crac.Core.Compat", Core.class.getPackageName());
    String policies = System.getProperty("jdk.crac.resource-policies", "");
    if (!policies.isEmpty()) Engine.policies(policies.getBytes(UTF_8));
    ThreadGroup group = Thread.currentThread().getThreadGroup();
    while (group.getParent() != null) group = group.getParent();
    Thread thread = new Thread(group, new Checkpoints(), "warp-tool", 0, false);
    thread.setDaemon(true);
    thread.setContextClassLoader(null);
    thread.start();
  }

  /** The agent's thread: serves checkpoints that are asked for from outside. */
  @Override
  public void run() {
    for (;;) {
      Engine.awaitRequest();
      UNDER_WAY.lock();
      try {
        CheckpointException refusal = before();
        int outcome = Engine.proceed(refusal == null ? new byte[0] : lines(refusal).getBytes(UTF_8));
        after(outcome);
      } catch (RestoreException failure) {
        for (Throwable problem : failure.getSuppressed()) print("after the checkpoint", problem);
      } catch (Throwable problem) {
        print("during the checkpoint", problem);
      } finally {
        UNDER_WAY.unlock();
      }
    }
  }

  static void fromInside() throws CheckpointException, RestoreException {
    String image = System.getProperty("warp.image", System.getenv("WARP_IMAGE"));
    if (image == null || image.isEmpty())
      throw CheckpointException.because("no directory is named for the image: run the program with warp-tool run --image DIR, or set the property warp.image");
    if (!UNDER_WAY.tryLock()) throw CheckpointException.because("another checkpoint is under way");
    try {
      CheckpointException refusal = before();
      int outcome = Engine.FAILED;
      if (refusal == null) {
        int compression = "lz4".equals(System.getProperty("warp.compression")) ? 1 : 0;
        byte[] engine = System.getProperty("warp.engine", "").getBytes(UTF_8);
        outcome = Engine.checkpoint(image.getBytes(UTF_8), engine, Boolean.getBoolean("warp.keep-running"), compression);
        if (outcome == Engine.FAILED) refusal = CheckpointException.because(new String(Engine.error(), UTF_8));
      }
      try {
        after(outcome);
      } catch (RestoreException failure) {
        if (refusal == null) throw failure;
        for (Throwable problem : failure.getSuppressed()) refusal.addSuppressed(problem);
      }
      if (refusal != null) throw refusal;
    } finally {
      UNDER_WAY.unlock();
    }
  }

  /** Null when everybody is ready. */
  private static CheckpointException before() {
    try {
      CONTEXT.beforeCheckpoint(null);
    } catch (CheckpointException refusal) {
      return refusal;
    }
    // What is dead need not be stored.
    if (!"false".equals(System.getProperty("warp.gc"))) Engine.collectGarbage(!"false".equals(System.getProperty("warp.release-heap")));
    RandomNumbers.find();
    return null;
  }

  private static void after(int outcome) throws RestoreException {
    Thread newMain = outcome == Engine.RESTORED ? Restored.apply() : null;
    RandomNumbers.forget();
    try {
      CONTEXT.afterRestore(null);
    } finally {
      if (newMain != null) newMain.start();
      if (outcome == Engine.RESTORED && MANAGEMENT) Management.register();
    }
  }

  static long restoreTime() {
    return Engine.restoreTime();
  }

  /** One line for each reason: what was thrown, and by whom. */
  private static String lines(CheckpointException refusal) {
    StringBuilder lines = new StringBuilder();
    for (Throwable problem : refusal.getSuppressed()) {
      String place = "";
      for (StackTraceElement frame : problem.getStackTrace()) {
        if (!frame.getMethodName().equals("beforeCheckpoint") || frame.getClassName().startsWith("org.crac.")) continue;
        place = " (" + frame.getClassName() + ".beforeCheckpoint, " + frame.getFileName() + ":" + frame.getLineNumber() + ")";
        break;
      }
      lines.append((problem + place).replaceAll("\\s*[\\r\\n\\u0000]+\\s*", " ")).append('\n');
    }
    return lines.toString();
  }

  static void print(String when, Throwable problem) {
    System.err.println("warp-tool: " + when + ": " + problem);
    problem.printStackTrace();
  }
}
