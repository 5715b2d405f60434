package warp.crac;

/** A resource that has others registered with it, and decides in which order they are told. */
public abstract class Context<R extends Resource> implements Resource {
  protected Context() {}

  @Override
  public abstract void beforeCheckpoint(Context<? extends Resource> context) throws CheckpointException;

  @Override
  public abstract void afterRestore(Context<? extends Resource> context) throws RestoreException;

  /** Registers a resource. The global context holds it weakly: keep a reference for as long as it is to be told. */
  public abstract void register(R resource);
}
