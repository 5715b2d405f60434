package warp.crac;

/** The process was restored (or goes on), but not everything in it came back. The reasons are the suppressed exceptions. */
public class RestoreException extends Exception {
  private static final long serialVersionUID = 1;

  public RestoreException() {}

  public RestoreException(String message) {
    super(message);
  }
}
