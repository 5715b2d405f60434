package warp.crac;

/** Where applications, and the org.crac library through its property org.crac.Core.Compat, find checkpoint and restore. */
public final class Core {
  private Core() {}

  /** The context that checkpoints are announced to. */
  public static Context<Resource> getGlobalContext() {
    return Checkpoints.CONTEXT;
  }

  /**
   * Takes a checkpoint of this process and returns in the restored one, or in this one when it is left running. The image's directory is the system
   * property warp.image, or that of {@code warp-tool run --image}. With warp.keep-running=true the process goes on afterwards;
   * warp.compression=lz4 compresses the image.
   *
   * @throws CheckpointException when there is no checkpoint; the process goes on
   * @throws RestoreException when a resource failed in the process that goes on
   */
  public static void checkpointRestore() throws CheckpointException, RestoreException {
    Checkpoints.fromInside();
  }

  /** Milliseconds since the epoch when this process was last restored; -1 when it was not. */
  public static long getRestoreTime() {
    return Checkpoints.restoreTime();
  }

  /** Milliseconds since this process was last restored; -1 when it was not. */
  public static long getUptimeSinceRestore() {
    long time = getRestoreTime();
    return time < 0 ? -1 : Math.max(0, System.currentTimeMillis() - time);
  }
}
