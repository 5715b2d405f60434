import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

/** The same product search on the JVM's own HTTP server. Nothing here knows about checkpoints. */
public final class Search {
  static final int PRODUCTS = 240_000;
  static final String[] COLOURS = {"amber", "black", "blue", "green", "grey", "ivory", "red", "silver", "white", "yellow"};
  static final String[] THINGS = {"bicycle", "camera", "chair", "clock", "coat", "desk", "guitar", "kettle", "lamp", "mirror", "piano", "telescope",
      "tent", "umbrella"};

  static Map<String, Set<Integer>> buildIndex() {
    Map<String, Set<Integer>> index = new HashMap<>();
    for (int id = 0; id < PRODUCTS; id++) {
      String name = COLOURS[id * 7 % COLOURS.length] + " " + THINGS[id * 11 % THINGS.length] + " model " + id * 2654435761L % 4096;
      for (String word : name.split(" ")) index.computeIfAbsent(word, key -> new HashSet<>()).add(id);
    }
    return index;
  }

  static int search(Map<String, Set<Integer>> index, String query) {
    List<Set<Integer>> sets = new ArrayList<>();
    for (String word : query.split(" ")) sets.add(index.getOrDefault(word, Set.of()));
    return (int) sets.get(0).stream().filter(id -> sets.stream().allMatch(set -> set.contains(id))).count();
  }

  public static void main(String[] arguments) throws Exception {
    String startedAt = Instant.now().toString();
    Map<String, Set<Integer>> index = buildIndex();
    Map<String, Integer> cache = new ConcurrentHashMap<>();
    AtomicLong answered = new AtomicLong();
    String address = arguments.length > 1 ? arguments[1] : "127.0.0.1";
    HttpServer server = HttpServer.create(new InetSocketAddress(address, Integer.parseInt(arguments[0])), 50);
    server.setExecutor(Executors.newFixedThreadPool(4, task -> {
      Thread thread = new Thread(task);
      thread.setDaemon(true);
      return thread;
    }));
    server.createContext("/", exchange -> {
      String query = URLDecoder.decode(exchange.getRequestURI().getRawQuery().substring(2), StandardCharsets.UTF_8);
      boolean cached = cache.containsKey(query);
      int matches = cache.computeIfAbsent(query, key -> search(index, key));
      byte[] answer = String.format(
          "{\"query\":\"%s\",\"matches\":%d,\"cached\":%b,\"answered\":%d,\"cacheEntries\":%d,\"startedAt\":\"%s\"}", query, matches, cached,
          answered.incrementAndGet(), cache.size(), startedAt).getBytes(StandardCharsets.UTF_8);
      exchange.getResponseHeaders().set("content-type", "application/json");
      exchange.sendResponseHeaders(200, answer.length);
      exchange.getResponseBody().write(answer);
      exchange.close();
    });
    server.start();
    System.out.println("listening on port " + server.getAddress().getPort());
  }
}
