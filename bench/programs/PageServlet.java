import jakarta.servlet.annotation.WebServlet;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.time.Instant;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

/** The servlet of a small web application on Tomcat: as Server.java, pages that are rendered once and kept. */
@WebServlet("/*")
public final class PageServlet extends HttpServlet {
  private final String startedAt = Instant.now().toString();
  private final Map<Integer, String> pages = new ConcurrentHashMap<>();
  private final AtomicLong answers = new AtomicLong();

  private static String render(int number) {
    int value = number + 1;
    StringBuilder text = new StringBuilder(32800);
    while (text.length() < 32768) {
      value = value * 1664525 + 1013904223;
      text.append(Long.toString(Integer.toUnsignedLong(value), 36));
    }
    return text.toString();
  }

  @Override
  protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
    int number = Integer.parseInt(request.getPathInfo().substring(1));
    boolean kept = pages.containsKey(number);
    String page = pages.computeIfAbsent(number, PageServlet::render);
    response.setContentType("application/json");
    response.getWriter().printf("{\"answers\":%d,\"pages\":%d,\"kept\":%b,\"startedAt\":\"%s\",\"length\":%d,\"end\":\"%s\"}", answers.incrementAndGet(), pages.size(), kept, startedAt, page.length(),
        page.substring(page.length() - 8));
  }
}
