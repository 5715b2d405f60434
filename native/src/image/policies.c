#include "policies.h"

#include "../base/socket_constants.h"

static const char *const type_names[] = {"", "file", "pipe", "socket", "filedescriptor"};
static const char *const action_names[] = {"", "error", "ignore", "close", "reopen"};

const char *policy_action_name(uint32_t action) { return action < sizeof action_names / sizeof action_names[0] ? action_names[action] : "unknown"; }

void policies_init(struct policies *policies, struct arena *arena) {
  policies->arena = arena;
  list_init(&policies->rules, arena, sizeof(struct policy_rule));
}

char *policies_read(struct arena *arena, const char *path, size_t *size, struct failure *failure) {
  long fd = open_file(path, O_RDONLY | O_CLOEXEC, 0);
  char *text = arena_allocate(arena, POLICIES_LARGEST + 2);
  long n = fd;
  /* It may be a pipe. */
  for (*size = 0; fd >= 0 && *size <= POLICIES_LARGEST && (n = sys(read, fd, text + *size, POLICIES_LARGEST + 1 - *size)) != 0;) {
    if (n == -EINTR) continue;
    if (n < 0) break;
    *size += (size_t)n;
  }
  if (fd >= 0) sys(close, fd);
  if (n < 0) return fail(failure, "%s: the policies cannot be read: %s: name a file of rules (docs/policies.md)", path, error_text(n)), NULL;
  if (*size > POLICIES_LARGEST) return fail(failure, "%s: it has more than %lu bytes: name a file of rules (docs/policies.md)", path, POLICIES_LARGEST), NULL;
  return text;
}

/* ---- addresses ---- */

static bool parse_ipv4(const char *at, const char *end, uint8_t *ret) {
  for (int i = 0; i < 4; i++) {
    const char *start = at;
    const uint64_t part = parse_decimal(&at);
    if (at == start || at - start > 3 || part > 255 || (i < 3 && *at != '.')) return false;
    ret[i] = (uint8_t)part;
    if (i < 3) at++;
  }
  return at == end;
}

static bool parse_ipv6(const char *at, const char *end, uint8_t *ret) {
  int count = 0, gap = -1;
  fill_bytes(ret, 0, 16);
  if (starts_with(at, "::")) gap = 0, at += 2;
  while (at < end) {
    const char *start = at;
    if (count <= 12 && parse_ipv4(at, end, ret + count)) {
      count += 4;
      break;
    }
    const uint64_t part = parse_hex(&at);
    if (at == start || at - start > 4 || count == 16) return false;
    ret[count++] = (uint8_t)(part >> 8);
    ret[count++] = (uint8_t)part;
    if (at == end) break;
    if (*at++ != ':' || at == end) return false;
    if (*at != ':') continue;
    if (gap >= 0) return false;
    gap = count, at++;
  }
  if (gap < 0) return count == 16;
  if (count == 16) return false;
  move_bytes(ret + 16 - (count - gap), ret + gap, (size_t)(count - gap));
  fill_bytes(ret + gap, 0, (size_t)(16 - count));
  return true;
}

/* IPv4 addresses as IPv6 has them, and the unspecified one as that of IPv6: a server that listens everywhere may show either. */
static void map_ipv4(const uint8_t *address, uint8_t *ret) {
  fill_bytes(ret, 0, 16);
  if ((address[0] | address[1] | address[2] | address[3]) == 0) return;
  ret[10] = ret[11] = 0xff;
  copy_bytes(ret + 12, address, 4);
}

static bool parse_address(const char *text, uint8_t *ret) {
  const char *end = text + string_length(text);
  uint8_t ipv4[4];
  if (parse_ipv4(text, end, ipv4)) {
    map_ipv4(ipv4, ret);
    return true;
  }
  if (*text == '[' && end[-1] == ']') text++, end--;
  return parse_ipv6(text, end, ret);
}

static bool socket_address(const uint8_t *bytes, size_t size, uint8_t *ret, uint16_t *port) {
  uint16_t family;
  if (size < 8) return false;
  copy_bytes(&family, bytes, sizeof family);
  *port = (uint16_t)(bytes[2] << 8 | bytes[3]);
  if (family == AF_INET_) {
    map_ipv4(bytes + 4, ret);
  } else if (family == AF_INET6_ && size >= 24) {
    copy_bytes(ret, bytes + 8, 16);
  } else {
    return false;
  }
  return true;
}

/* The name of a Unix socket, with `@` before one of the abstract namespace; empty when it has none. */
static void unix_name(const uint8_t *bytes, size_t size, char *ret, size_t capacity) {
  const bool abstract = size > 3 && bytes[2] == 0;
  ret[0] = 0;
  if (size > 2) format(ret, capacity, "%s%.*s", abstract ? "@" : "", (int)(size - 2 - abstract), (const char *)bytes + 2 + abstract);
}

/* ---- the file ---- */

struct parser {
  struct policies *policies;
  struct failure *failure;
  const char *name;
  uint32_t line;
  uint32_t given; /* bits of the keys of the rule */
  struct policy_rule rule;
  struct buffer text; /* of the rule */
};

static int complain(struct parser *parser, const char *text, ...) __attribute__((format(printf, 2, 3)));
static int complain(struct parser *parser, const char *text, ...) {
  char line[600];
  va_list arguments;
  va_start(arguments, text);
  format_list(line, sizeof line, text, arguments);
  va_end(arguments);
  return fail(parser->failure, "%s:%u: %s", parser->name, parser->line, line);
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

static bool same_word(const char *a, const char *b) {
  while (*a != 0 && lower(*a) == lower(*b)) a++, b++;
  return *a == *b;
}

/* The place of a word in a list, whatever its case; 0, which no word has, for none. */
static uint32_t find_word(const char *const *words, size_t count, const char *word) {
  for (uint32_t i = 1; i < count; i++)
    if (same_word(word, words[i])) return i;
  return 0;
}

static int take_type(struct parser *parser, const char *value) {
  parser->rule.type = find_word(type_names, sizeof type_names / sizeof type_names[0], value);
  return parser->rule.type != 0 ? 0 : complain(parser, "type %s is not known: write file, pipe, socket or filedescriptor", value);
}

static int take_action(struct parser *parser, const char *value) {
  parser->rule.action = find_word(action_names, sizeof action_names / sizeof action_names[0], value);
  return parser->rule.action != 0 ? 0 : complain(parser, "action %s is not known: write error, ignore, close or reopen", value);
}

static int take_switch(struct parser *parser, const char *key, const char *value, bool *ret) {
  *ret = same_word(value, "true");
  return *ret || same_word(value, "false") ? 0 : complain(parser, "%s: %s: write true or false", key, value);
}

static int take_warn(struct parser *parser, const char *value) {
  bool warn = true;
  int result = take_switch(parser, "warn", value, &warn);
  parser->rule.quiet = !warn;
  return result;
}

static int take_listening(struct parser *parser, const char *value) {
  parser->rule.listening_given = true;
  return take_switch(parser, "listening", value, &parser->rule.listening);
}

static int take_glob(struct parser *parser, const char *key, const char *value, const struct pattern **ret) {
  const char *problem = NULL;
  *ret = pattern_glob(parser->policies->arena, value, &problem);
  return *ret != NULL ? 0 : complain(parser, "%s: %s: %s; a '\\' before a character takes it as it is", key, value, problem);
}

static int take_path(struct parser *parser, const char *value) {
  if (find_character("/*?[{\\", value[0]) == NULL) return complain(parser, "path: %s: paths of open files begin with a slash: write /… or **/%s", value, value);
  return take_glob(parser, "path", value, &parser->rule.pattern);
}

static int take_regex(struct parser *parser, const char *value) {
  const char *problem = NULL;
  parser->rule.pattern = pattern_regex(parser->policies->arena, value, &problem);
  return parser->rule.pattern != NULL ? 0 : complain(parser, "regex: %s: %s", value, problem);
}

static int take_value(struct parser *parser, const char *value) {
  const char *at = value;
  const uint64_t number = parse_decimal(&at);
  if (at == value || *at != 0 || number > INT32_MAX) return complain(parser, "value: %s: write the number of a descriptor", value);
  parser->rule.number_given = true;
  parser->rule.number = (uint32_t)number;
  return 0;
}

static int take_family(struct parser *parser, const char *value) {
  static const char *const names[] = {"", "ipv4", "inet4", "ipv6", "inet6", "ip", "inet", "unix"};
  static const uint32_t families[] = {0, AF_INET_, AF_INET_, AF_INET6_, AF_INET6_, POLICY_FAMILY_IP, POLICY_FAMILY_IP, AF_UNIX_};
  parser->rule.family = families[find_word(names, sizeof names / sizeof names[0], value)];
  return parser->rule.family != 0 ? 0 : complain(parser, "family %s is not known: write ipv4, ipv6, ip or unix", value);
}

static int take_address(struct parser *parser, const char *key, const char *value, struct policy_end *end) {
  if (strings_equal(value, "*")) return 0;
  end->has_address = true;
  return parse_address(same_word(value, "localhost") ? "127.0.0.1" : value, end->address) ? 0 : complain(parser, "%s: %s: write an IP address as numbers, or *", key, value);
}

static int take_port(struct parser *parser, const char *key, const char *value, struct policy_end *end) {
  if (strings_equal(value, "*")) return 0;
  const char *at = value;
  const uint64_t port = parse_decimal(&at);
  if (at == value || *at != 0 || port == 0 || port > 65535) return complain(parser, "%s: %s: write a port, 1 to 65535, or *", key, value);
  end->port = (uint16_t)port;
  return 0;
}

static int take_local_address(struct parser *parser, const char *value) { return take_address(parser, "localAddress", value, &parser->rule.local); }
static int take_local_port(struct parser *parser, const char *value) { return take_port(parser, "localPort", value, &parser->rule.local); }
static int take_local_path(struct parser *parser, const char *value) { return take_glob(parser, "localPath", value, &parser->rule.local.path); }
static int take_remote_address(struct parser *parser, const char *value) { return take_address(parser, "remoteAddress", value, &parser->rule.remote); }
static int take_remote_port(struct parser *parser, const char *value) { return take_port(parser, "remotePort", value, &parser->rule.remote); }
static int take_remote_path(struct parser *parser, const char *value) { return take_glob(parser, "remotePath", value, &parser->rule.remote.path); }

static const struct {
  const char *name;
  uint32_t type; /* the one that has it, 0: all */
  int (*take)(struct parser *, const char *);
} keys[] = {
    {"type", 0, take_type},
    {"action", 0, take_action},
    {"warn", 0, take_warn},
    {"path", WARP_POLICY_FILE, take_path},
    {"family", WARP_POLICY_SOCKET, take_family},
    {"localAddress", WARP_POLICY_SOCKET, take_local_address},
    {"localPort", WARP_POLICY_SOCKET, take_local_port},
    {"localPath", WARP_POLICY_SOCKET, take_local_path},
    {"remoteAddress", WARP_POLICY_SOCKET, take_remote_address},
    {"remotePort", WARP_POLICY_SOCKET, take_remote_port},
    {"remotePath", WARP_POLICY_SOCKET, take_remote_path},
    {"listening", WARP_POLICY_SOCKET, take_listening},
    {"value", WARP_POLICY_DESCRIPTOR, take_value},
    {"regex", WARP_POLICY_DESCRIPTOR, take_regex},
};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

static bool is_given(const struct parser *parser, const char *key) {
  for (size_t i = 0; i < KEY_COUNT; i++)
    if (strings_equal(keys[i].name, key)) return (parser->given >> i & 1) != 0;
  return false;
}

static int check_rule(struct parser *parser) {
  const struct policy_rule *rule = &parser->rule;
  if (rule->type == 0) return complain(parser, "this rule has no type: write type: file, pipe, socket or filedescriptor");
  const char *type = type_names[rule->type];
  const bool reopens = rule->type == WARP_POLICY_FILE || rule->type == WARP_POLICY_SOCKET;
  if (rule->action == 0) return complain(parser, "this rule has no action: write action: error, ignore, close%s", reopens ? " or reopen" : "");
  if (rule->action == WARP_POLICY_REOPEN && !reopens) return complain(parser, "a %s cannot be opened again: write action: error, ignore or close", type);
  for (size_t i = 0; i < KEY_COUNT; i++)
    if ((parser->given >> i & 1) != 0 && keys[i].type != 0 && keys[i].type != rule->type) return complain(parser, "%s does not belong to type %s: leave it out, or write type: %s", keys[i].name, type, type_names[keys[i].type]);
  const bool has_paths = rule->local.path != NULL || rule->remote.path != NULL;
  const bool has_ip = is_given(parser, "localAddress") || is_given(parser, "localPort") || is_given(parser, "remoteAddress") || is_given(parser, "remotePort");
  const bool ip_family = rule->family != 0 && rule->family != AF_UNIX_;
  if (has_paths && (has_ip || ip_family)) return complain(parser, "no socket has both paths and IP addresses: write a rule for each");
  if (has_ip && rule->family == AF_UNIX_) return complain(parser, "sockets of family unix have no addresses and ports: write localPath or remotePath");
  if (rule->type == WARP_POLICY_DESCRIPTOR && rule->number_given == (rule->pattern != NULL)) return complain(parser, "a filedescriptor is named by its number or by a text: write one of value and regex");
  if (parser->policies->rules.count == POLICIES_MOST_RULES) return complain(parser, "there are more than %u rules: join some of them by patterns", POLICIES_MOST_RULES);
  return 0;
}

static int end_rule(struct parser *parser) {
  struct policy_rule *rule = &parser->rule;
  const uint32_t line = parser->line;
  if (parser->given == 0) return 0;
  /* What is wrong with all of it is told of where it begins. */
  parser->line = rule->line;
  if (check_rule(parser) < 0) return -1;
  parser->line = line;
  rule->file = parser->name;
  rule->text = arena_string(parser->policies->arena, (const char *)parser->text.bytes);
  *(struct policy_rule *)list_add(&parser->policies->rules) = *rule;
  fill_bytes(rule, 0, sizeof *rule);
  parser->given = 0;
  buffer_init(&parser->text, parser->policies->arena);
  return 0;
}

static void trim(char **start, char *end) {
  while (end > *start && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) end--;
  *end = 0;
  while (**start == ' ' || **start == '\t') (*start)++;
}

static int take_line(struct parser *parser, char *line, char *end) {
  trim(&line, end);
  if (line[0] == 0 || line[0] == '#') return 0;
  if (strings_equal(line, "---")) return end_rule(parser);
  char *colon = (char *)find_character(line, ':');
  if (colon == NULL) return complain(parser, "'%.*s' is no rule: write key: value, --- between rules, and # before comments", 60, line);
  char *value = colon + 1;
  trim(&value, value + string_length(value));
  trim(&line, colon);
  size_t size = string_length(value);
  if (size >= 2 && (value[0] == '"' || value[0] == '\'') && value[size - 1] == value[0]) value[size - 1] = 0, value++;
  for (size_t i = 0; i < KEY_COUNT; i++) {
    if (!strings_equal(keys[i].name, line)) continue;
    if (value[0] == 0) return complain(parser, "%s has no value: write it behind the colon, or leave the line out", line);
    if ((parser->given >> i & 1) != 0) return complain(parser, "%s is given twice in one rule: write --- between rules", line);
    if (parser->given == 0) parser->rule.line = parser->line;
    parser->given |= 1u << i;
    char text[1400];
    buffer_append(&parser->text, text, format(text, sizeof text, "%s%s: %s", parser->text.size > 0 ? "\n" : "", line, value));
    return keys[i].take(parser, value);
  }
  char known[300];
  size_t n = 0;
  known[0] = 0;
  for (size_t i = 0; i < KEY_COUNT; i++)
    if (parser->rule.type == 0 || keys[i].type == 0 || keys[i].type == parser->rule.type) n += format(known + n, sizeof known - n, "%s%s", n > 0 ? ", " : "", keys[i].name);
  return complain(parser, "there is no key %.*s: write one of %s", 60, line, known);
}

int policies_parse(struct policies *policies, const char *text, size_t size, const char *name, struct failure *failure) {
  struct parser parser = {.policies = policies, .failure = failure, .name = arena_string(policies->arena, name)};
  buffer_init(&parser.text, policies->arena);
  char *copy = arena_allocate(policies->arena, size + 1);
  copy_bytes(copy, text, size);
  for (char *line = copy, *end; line < copy + size; line = end + 1) {
    parser.line++;
    end = (char *)find_character(line, '\n');
    if (end == NULL) end = line + string_length(line);
    if (*end == 0 && end < copy + size) return complain(&parser, "there is a zero byte: it is no text file; name a file of rules (docs/policies.md)");
    if (end - line > 1200) return complain(&parser, "the line is longer than 1200 bytes: name a file of rules (docs/policies.md)");
    if (take_line(&parser, line, end) < 0) return -1;
  }
  return end_rule(&parser);
}

/* ---- what a rule applies to ---- */

static bool end_matches(const struct policy_end *end, bool is_unix, const uint8_t *bytes, size_t size) {
  if (end->path != NULL) {
    char name[200];
    unix_name(bytes, is_unix ? size : 0, name, sizeof name);
    return is_unix && pattern_matches(end->path, name);
  }
  if (!end->has_address && end->port == 0) return true;
  uint8_t address[16];
  uint16_t port;
  if (!socket_address(bytes, size, address, &port)) return false;
  return (end->port == 0 || end->port == port) && (!end->has_address || compare_bytes(end->address, address, sizeof address) == 0);
}

static bool socket_matches(const struct policy_rule *rule, const struct policy_subject *subject) {
  const bool is_ip = subject->family == AF_INET_ || subject->family == AF_INET6_, is_unix = subject->family == AF_UNIX_;
  if (rule->family == POLICY_FAMILY_IP ? !is_ip : rule->family != 0 && rule->family != subject->family) return false;
  if (rule->listening_given && rule->listening != subject->listening) return false;
  return end_matches(&rule->local, is_unix, subject->local, subject->local_size) && end_matches(&rule->remote, is_unix, subject->remote, subject->remote_size);
}

static uint32_t type_of(const struct policy_subject *subject) {
  if ((subject->mode & S_IFMT) == S_IFSOCK) return WARP_POLICY_SOCKET;
  if ((subject->mode & S_IFMT) == S_IFIFO && starts_with(subject->path, "pipe:")) return WARP_POLICY_PIPE;
  return subject->path[0] == '/' && !starts_with(subject->path, "/memfd:") ? WARP_POLICY_FILE : WARP_POLICY_DESCRIPTOR;
}

/* Without what the kernel puts behind the path of a file that has been removed. */
static const char *path_of(const struct policy_subject *subject, char *room, size_t size) {
  if (!ends_with(subject->path, " (deleted)")) return subject->path;
  format(room, size, "%.*s", (int)(string_length(subject->path) - 10), subject->path);
  return room;
}

static bool rule_matches(const struct policy_rule *rule, const struct policy_subject *subject) {
  char path[4200];
  if (rule->type == WARP_POLICY_DESCRIPTOR && rule->number_given) return rule->number == subject->number;
  if (subject->callers) return false;
  if (rule->type == WARP_POLICY_DESCRIPTOR) return pattern_matches(rule->pattern, subject->path);
  if (rule->type != type_of(subject)) return false;
  if (rule->type == WARP_POLICY_SOCKET) return socket_matches(rule, subject);
  return rule->pattern == NULL || pattern_matches(rule->pattern, path_of(subject, path, sizeof path));
}

const struct policy_rule *policies_find(const struct policies *policies, const struct policy_subject *subject) {
  for (size_t i = 0; i < policies->rules.count; i++) {
    const struct policy_rule *rule = list_at(&policies->rules, struct policy_rule, i);
    if (rule_matches(rule, subject)) return rule;
  }
  return NULL;
}

/* ---- writing one ---- */

/* Text with a backslash before what has a meaning in globs; false when it does not fit. */
static bool escape_glob(const char *text, char *ret, size_t size) {
  size_t n = 0;
  for (; *text != 0 && n + 2 < size; text++) {
    if (find_character("*?[{\\", *text) != NULL) ret[n++] = '\\';
    ret[n++] = *text;
  }
  ret[n] = 0;
  return *text == 0;
}

static bool write_file(char *ret, size_t size, const struct policy_subject *subject, const char *action) {
  char path[4200], escaped[300];
  if (type_of(subject) != WARP_POLICY_FILE || !escape_glob(path_of(subject, path, sizeof path), escaped, sizeof escaped)) return false;
  format(ret, size, "type: file; path: %s; action: %s", escaped, action);
  return true;
}

static bool write_socket(char *ret, size_t size, const struct policy_subject *subject, const char *action) {
  char name[200], escaped[300];
  uint8_t address[16];
  uint16_t port;
  if (type_of(subject) != WARP_POLICY_SOCKET) return false;
  const bool remote = subject->remote_size > 2;
  const uint8_t *bytes = remote ? subject->remote : subject->local;
  const size_t bytes_size = remote ? subject->remote_size : subject->local_size;
  const char *side = remote ? "remote" : "local";
  if (socket_address(bytes, bytes_size, address, &port) && port != 0) {
    format(ret, size, "type: socket; %sPort: %u; action: %s", side, port, action);
    return true;
  }
  if (subject->family != AF_UNIX_) return false;
  unix_name(bytes, bytes_size, name, sizeof name);
  if (name[0] == 0 || !escape_glob(name, escaped, sizeof escaped)) return false;
  format(ret, size, "type: socket; %sPath: %s; action: %s", side, escaped, action);
  return true;
}

void policy_write(char *ret, size_t size, const struct policy_subject *subject, uint32_t action) {
  const char *name = policy_action_name(action);
  if (!subject->callers && (write_file(ret, size, subject, name) || write_socket(ret, size, subject, name))) return;
  format(ret, size, "type: filedescriptor; value: %u; action: %s", subject->number, action == WARP_POLICY_REOPEN ? "ignore" : name);
}
