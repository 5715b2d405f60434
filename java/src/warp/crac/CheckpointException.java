package warp.crac;

/** There is no checkpoint, and the process goes on. The reasons are the suppressed exceptions. */
public class CheckpointException extends Exception {
  private static final long serialVersionUID = 1;

  public CheckpointException() {}

  public CheckpointException(String message) {
    super(message);
  }

  /** As a suppressed exception: libraries that wrap this one keep nothing else of it. */
  static CheckpointException because(String reason) {
    CheckpointException exception = new CheckpointException();
    exception.addSuppressed(new IllegalStateException(reason));
    return exception;
  }
}
