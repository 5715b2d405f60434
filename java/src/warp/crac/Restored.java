package warp.crac;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.File;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/**
 * What is different in a restored process, and what the class library remembers of the old one. No lambda and nothing else that takes long where it was
 * never used before: a restored process is waited for.
 */
final class Restored {
  private static final String[] STEPS = {"process id", "environment", "random numbers", "performance data"};

  private Restored() {}

  /** @return the thread that runs the new main method, null when none was given */
  static Thread apply() {
    for (int step = 0; step < STEPS.length; step++) {
      try {
        if (step == 0) renewProcessId();
        if (step == 1) renewEnvironment(strings(Engine.environment()));
        if (step == 2) RandomNumbers.renew();
        if (step == 3) for (String path : strings(Engine.performanceData())) new File(path).deleteOnExit();
      } catch (Exception | LinkageError problem) {
        // Another version of the class library: the process is as good without.
        System.err.println("warp-tool: the " + STEPS[step] + " of the restored process cannot be renewed: " + problem);
      }
    }
    List<String> arguments = strings(Engine.arguments());
    int used = 0;
    for (; used < arguments.size() && arguments.get(used).startsWith("-D"); used++) {
      String[] property = arguments.get(used).substring(2).split("=", 2);
      System.setProperty(property[0], property.length > 1 ? property[1] : "");
    }
    if (used == arguments.size()) return null;
    Thread main = new Thread(null, new NewMain(arguments.get(used), arguments.subList(used + 1, arguments.size())), "main", 0, false);
    main.setDaemon(false);
    main.setContextClassLoader(ClassLoader.getSystemClassLoader());
    return main;
  }

  private static List<String> strings(byte[] bytes) {
    return bytes.length == 0 ? List.of() : Arrays.asList(new String(bytes, 0, bytes.length - 1, UTF_8).split("\0", -1));
  }

  /** A field of the class library, whatever its access. */
  static Field field(Class<?> owner, String name) throws ReflectiveOperationException {
    open(owner);
    Field field = owner.getDeclaredField(name);
    field.setAccessible(true);
    return field;
  }

  private static Method method(Class<?> owner, String name, Class<?>... parameters) throws ReflectiveOperationException {
    open(owner);
    Method method = owner.getDeclaredMethod(name, parameters);
    method.setAccessible(true);
    return method;
  }

  private static void open(Class<?> owner) {
    Engine.open(owner.getModule(), (owner.getPackageName() + '\0').getBytes(UTF_8), Restored.class.getModule());
  }

  private static void renewProcessId() throws ReflectiveOperationException {
    Class<?> handles = Class.forName("java.lang.ProcessHandleImpl");
    Object current = field(handles, "current").get(null);
    long pid = (long) method(handles, "getCurrentPid0").invoke(null);
    field(handles, "pid").setLong(current, pid);
    field(handles, "startTime").setLong(current, (long) method(handles, "isAlive0", long.class).invoke(null, pid));
  }

  /** System.getenv and what child processes get are one map of the class library. */
  private static void renewEnvironment(List<String> variables) throws ReflectiveOperationException {
    if (variables.isEmpty()) return;
    Class<?> owner = Class.forName("java.lang.ProcessEnvironment");
    Class<?> view = Class.forName("java.lang.ProcessEnvironment$StringEnvironment");
    Object map = field(owner, "theEnvironment").get(null);
    Constructor<?> constructor = view.getDeclaredConstructor(Map.class);
    constructor.setAccessible(true);
    @SuppressWarnings("unchecked")
    Map<String, String> environment = (Map<String, String>) constructor.newInstance(map);
    for (String variable : variables) {
      int equals = variable.indexOf('=', 1);
      environment.put(variable.substring(0, equals), variable.substring(equals + 1));
    }
  }

  private static final class NewMain implements Runnable {
    private final String name;
    private final String[] arguments;

    NewMain(String name, List<String> arguments) {
      this.name = name;
      this.arguments = arguments.toArray(new String[0]);
    }

    @Override
    public void run() {
      try {
        Method main = Class.forName(name, true, ClassLoader.getSystemClassLoader()).getMethod("main", String[].class);
        main.setAccessible(true);
        main.invoke(null, (Object) arguments);
      } catch (InvocationTargetException thrown) {
        Thread.currentThread().getThreadGroup().uncaughtException(Thread.currentThread(), thrown.getCause());
      } catch (ReflectiveOperationException problem) {
        System.err.println("warp-tool: the new main class cannot be run: " + problem);
      }
    }
  }
}
