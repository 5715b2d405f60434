package warp.crac;

/** Something that takes part in a checkpoint: it lets go of what no image can hold, and takes it up again. */
public interface Resource {
  /** Before the process is captured. Whatever it throws makes the checkpoint fail, and the process goes on. */
  void beforeCheckpoint(Context<? extends Resource> context) throws Exception;

  /** In the restored process; also in the one that goes on, after a checkpoint that failed or left it running. */
  void afterRestore(Context<? extends Resource> context) throws Exception;
}
