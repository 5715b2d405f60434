/*
 * Policy files under AddressSanitizer and UndefinedBehaviorSanitizer. Without an argument: reads commands from standard input and answers each
 * with one line, for test/policies.test.ts. With a number: that many damaged and random files are read and asked, and a line says so.
 *   glob PATTERN TEXT, regex PATTERN TEXT
 *   rules FILE, then subjects until an empty line: file|pipe|socket|caller|other NUMBER PATH [FAMILY LISTENING LOCAL REMOTE], the
 *   addresses as hexadecimal digits of a struct sockaddr
 */
#include <stdio.h>
#include <string.h>

#include "../../native/src/image/policies.h"
#include "random.h"

/* stdlib.h and the kernel's headers define the same types. */
void *malloc(size_t size);
void *realloc(void *memory, size_t size);
void free(void *memory);
unsigned long strtoul(const char *text, char **end, int base);

static struct arena arena;

static size_t make_address(const char *digits, uint8_t *ret) {
  size_t size = 0;
  for (unsigned byte; sscanf(digits + 2 * size, "%2x", &byte) == 1; size++) ret[size] = (uint8_t)byte;
  return size;
}

static void answer(const struct policies *policies, char *line) {
  uint8_t local[150], remote[150];
  char kind[16], path[1000], from[300] = "", to[300] = "", rule[1000];
  unsigned family = 0, listening = 0;
  struct policy_subject subject = {.path = path, .local = local, .remote = remote};
  sscanf(line, "%15s %u %999s %u %u %299s %299s", kind, &subject.number, path, &family, &listening, from, to);
  subject.callers = strcmp(kind, "caller") == 0;
  subject.mode = strcmp(kind, "pipe") == 0 ? 0010000 : strcmp(kind, "socket") == 0 ? 0140000 : strcmp(kind, "file") == 0 ? 0100000 : 0;
  subject.family = family;
  subject.listening = listening != 0;
  subject.local_size = make_address(from, local);
  subject.remote_size = make_address(to, remote);
  const struct policy_rule *found = policies_find(policies, &subject);
  policy_write(rule, sizeof rule, &subject, WARP_POLICY_IGNORE);
  printf("%s%s line %u | %s\n", found == NULL ? "none" : policy_action_name(found->action), found != NULL && found->quiet ? " quietly" : "", found == NULL ? 0 : found->line, rule);
}

static int converse(void) {
  char line[4096], pattern[2000], text[2000];
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, "glob %1999s %1999s", pattern, text) == 2 || sscanf(line, "regex %1999s %1999s", pattern, text) == 2) {
      const char *problem = NULL;
      const struct pattern *compiled = line[0] == 'g' ? pattern_glob(&arena, pattern, &problem) : pattern_regex(&arena, pattern, &problem);
      puts(compiled == NULL ? problem : pattern_matches(compiled, text) ? "yes" : "no");
    } else if (sscanf(line, "rules %1999s", text) == 1) {
      struct policies policies;
      struct failure failure = {.text = ""};
      size_t size = 0;
      policies_init(&policies, &arena);
      const char *content = policies_read(&arena, text, &size, &failure);
      const bool good = content != NULL && policies_parse(&policies, content, size, "rules", &failure) == 0;
      puts(good ? "good" : failure.text);
      while (fgets(line, sizeof line, stdin) != NULL && line[0] != '\n')
        if (good) answer(&policies, line);
    }
    fflush(stdout);
    arena_release(&arena);
  }
  return 0;
}

static const char sample[] =
    "# rules\ntype: file\npath: /var/log/{a,b}*/**/[a-z]?.log\naction: reopen\nwarn: false\n---\ntype: SOCKET\nfamily: ip\nlocalAddress: 127.0.0.1\nlocalPort: 80\nremoteAddress: 2001:db8::1\n"
    "remotePort: *\nlistening: true\naction: close\n---\ntype: socket\nlocalPath: /run/*.sock\nremotePath: \"@x\"\naction: error\n---\ntype: filedescriptor\nregex: (anon_inode:\\[(a|b)+\\]|.*x?)*\naction: ignore\n"
    "---\ntype: filedescriptor\nvalue: 17\naction: close\n---\ntype: pipe\naction: ignore\n";

static int fuzz(unsigned long count) {
  static const char pieces[] = "type: file\n|---\n|action: close\n|path: |regex: |**|[|]|{|}|(|)|*|+|?|\\|,|:|::|/|#|\r\n|\n|1|255.|ffff:|warn: false\n|value: |type: socket\n|localAddress: |type: filedescriptor\n";
  unsigned long good = 0;
  for (unsigned long i = 0; i < count; i++) {
    size_t size = 0;
    /* To the byte, so that reading behind it is seen. */
    char *text = malloc(2048);
    if (next_random() % 2 == 0) {
      size = sizeof sample - 1;
      memcpy(text, sample, size);
      for (unsigned long k = next_random() % 4; k > 0; k--) text[next_random() % size] = (char)(next_random() % 4 == 0 ? next_random() : (unsigned char)sample[next_random() % size]);
      if (next_random() % 3 == 0) size = next_random() % size;
    } else {
      while (size < 400 && next_random() % 64 != 0) {
        const char *piece = pieces + next_random() % (sizeof pieces - 1);
        const size_t length = strcspn(piece, "|");
        memcpy(text + size, piece, length);
        size += length;
      }
    }
    text = realloc(text, size + (size == 0));
    struct policies policies;
    struct failure failure = {.text = ""};
    policies_init(&policies, &arena);
    const int result = policies_parse(&policies, text, size, "rules", &failure);
    if (result < 0 ? failure.text[0] == 0 || strchr(failure.text, '\n') != NULL : failure.text[0] != 0) return printf("%s\n", failure.text), 1;
    good += result == 0;
    char lines[][100] = {"file 4 /var/log/a1/b/c/x1.log", "pipe 5 pipe:[77]", "socket 17 socket:[78] 2 127.0.0.1:80 1.2.3.4:5", "socket 9 socket:[79] 1 /run/x.sock @x", "other 8 anon_inode:[abababab]"};
    for (size_t k = 0; result == 0 && k < sizeof lines / sizeof lines[0]; k++) {
      uint8_t address[128];
      struct policy_subject subject = {.number = (uint32_t)k, .path = strchr(lines[k] + 5, lines[k][5]), .family = 2, .local = address, .mode = k == 1 ? 0010000 : k == 2 ? 0140000 : 0100000};
      subject.local_size = k == 2 ? make_address("020000507f0000010000000000000000", address) : 0;
      policies_find(&policies, &subject);
    }
    free(text);
    arena_release(&arena);
  }
  printf("%lu files, %lu of them good\n", count, good);
  return good == 0;
}

int main(int argc, char **argv) { return argc > 1 ? fuzz(strtoul(argv[1], NULL, 10)) : converse(); }
