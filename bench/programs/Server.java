import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

/** Server PORT: the same as server.mjs, on the JDK's own HTTP server with four threads. */
public final class Server {
  static String render(int number) {
    int value = number + 1;
    StringBuilder text = new StringBuilder(32800);
    while (text.length() < 32768) {
      value = value * 1664525 + 1013904223;
      text.append(Long.toString(Integer.toUnsignedLong(value), 36));
    }
    return text.toString();
  }

  public static void main(String[] arguments) throws Exception {
    String startedAt = Instant.now().toString();
    Map<Integer, String> pages = new ConcurrentHashMap<>();
    AtomicLong answers = new AtomicLong();
    HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(arguments[0])), 50);
    server.setExecutor(Executors.newFixedThreadPool(4));
    server.createContext("/", exchange -> {
      int number = Integer.parseInt(exchange.getRequestURI().getPath().substring(1));
      boolean kept = pages.containsKey(number);
      String page = pages.computeIfAbsent(number, Server::render);
      byte[] state = String.format("{\"answers\":%d,\"pages\":%d,\"kept\":%b,\"startedAt\":\"%s\",\"length\":%d,\"end\":\"%s\"}", answers.incrementAndGet(),
          pages.size(), kept, startedAt, page.length(), page.substring(page.length() - 8)).getBytes(StandardCharsets.UTF_8);
      exchange.getResponseHeaders().set("content-type", "application/json");
      exchange.sendResponseHeaders(200, state.length);
      exchange.getResponseBody().write(state);
      exchange.close();
    });
    server.start();
    System.out.println("ready");
  }
}
