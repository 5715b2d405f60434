package warp.crac;

import java.util.List;
import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.MBeanServerFactory;
import javax.management.ObjectName;

/** The bean, in the server that a process has when it is restored. One without a server is not given one: that takes long. */
final class Management implements CRaCMXBean {
  private Management() {}

  static void register() {
    try {
      List<MBeanServer> servers = MBeanServerFactory.findMBeanServer(null);
      ObjectName name = new ObjectName("jdk.management:type=CRaC");
      for (MBeanServer server : servers) if (!server.isRegistered(name)) server.registerMBean(new Management(), name);
    } catch (JMException | LinkageError problem) {
      System.err.println("warp-tool: no management bean tells of the restore: " + problem);
    }
  }

  @Override
  public long getUptimeSinceRestore() {
    return Core.getUptimeSinceRestore();
  }

  @Override
  public long getRestoreTime() {
    return Core.getRestoreTime();
  }
}
