package warp.crac;

/** What CRaC's own management bean tells, under the same name: {@code jdk.management:type=CRaC}. */
public interface CRaCMXBean {
  /** Milliseconds since the process was last restored. */
  long getUptimeSinceRestore();

  /** Milliseconds since the epoch when the process was last restored. */
  long getRestoreTime();
}
