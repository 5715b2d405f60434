package warp.crac;

import java.lang.ref.Reference;
import java.lang.ref.ReferenceQueue;
import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;

/** The global context: tells the youngest resource first before a checkpoint, and the oldest first afterwards. */
final class OrderedContext extends Context<Resource> {
  private final Set<Reference<?>> registered = new LinkedHashSet<>();
  private final ReferenceQueue<Resource> collected = new ReferenceQueue<>();

  /** What the checkpoint that is under way has told, in order of registration; held strongly until it is over. */
  private List<Resource> told = List.of();

  private static final class Entry extends WeakReference<Resource> {
    private final int hash;

    Entry(Resource resource, ReferenceQueue<Resource> queue) {
      super(resource, queue);
      hash = System.identityHashCode(resource);
    }

    @Override
    public int hashCode() {
      return hash;
    }

    @Override
    public boolean equals(Object other) {
      if (this == other) return true;
      Resource resource = get();
      return resource != null && other instanceof Entry && ((Entry) other).get() == resource;
    }
  }

  /** A resource that is registered already becomes the youngest. */
  @Override
  public synchronized void register(Resource resource) {
    for (Reference<?> gone; (gone = collected.poll()) != null; ) registered.remove(gone);
    Entry entry = new Entry(Objects.requireNonNull(resource), collected);
    registered.remove(entry);
    registered.add(entry);
  }

  private synchronized List<Resource> living() {
    List<Resource> living = new ArrayList<>(registered.size());
    for (Reference<?> entry : registered) {
      Resource resource = (Resource) entry.get();
      if (resource != null) living.add(resource);
    }
    return living;
  }

  /** Tells all of them, whatever some throw. */
  @Override
  public void beforeCheckpoint(Context<? extends Resource> context) throws CheckpointException {
    CheckpointException failure = new CheckpointException();
    told = living();
    for (int i = told.size() - 1; i >= 0; i--) {
      try {
        told.get(i).beforeCheckpoint(this);
      } catch (Throwable problem) {
        add(failure, problem);
      }
    }
    if (failure.getSuppressed().length > 0) throw failure;
  }

  @Override
  public void afterRestore(Context<? extends Resource> context) throws RestoreException {
    RestoreException failure = new RestoreException();
    List<Resource> resources = told;
    told = List.of();
    for (Resource resource : resources) {
      try {
        resource.afterRestore(this);
      } catch (Throwable problem) {
        add(failure, problem);
      }
    }
    if (failure.getSuppressed().length > 0) throw failure;
  }

  /** What a nested context throws (this package's, or a wrapping library's exception of that name) stands for its own reasons. */
  private static void add(Throwable failure, Throwable problem) {
    String name = problem.getClass().getSimpleName();
    boolean collection = name.equals("CheckpointException") || name.equals("RestoreException");
    if (!collection || problem.getSuppressed().length == 0) {
      failure.addSuppressed(problem);
    } else {
      for (Throwable reason : problem.getSuppressed()) add(failure, reason);
    }
  }
}
