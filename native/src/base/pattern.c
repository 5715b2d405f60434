#include "pattern.h"

enum operation { TAKE, SPLIT, JUMP, DONE };

/* Targets are relative, so that a stretch of instructions can be moved. */
struct instruction {
  enum operation operation;
  int32_t first;
  int32_t second;
  uint32_t characters[8]; /* TAKE: one bit for each */
};

#define MOST_INSTRUCTIONS (4 * PATTERN_LONGEST)
#define DEEPEST 32

struct compiler {
  struct list *instructions;
  const char *at;
  const char *problem;
  bool glob;
  int depth;
};

static struct instruction *emit(struct compiler *compiler, enum operation operation) {
  struct instruction *made = list_add(compiler->instructions);
  made->operation = operation;
  return made;
}

/* Makes room for one instruction before those from `place` on. */
static struct instruction *insert(struct compiler *compiler, size_t place, enum operation operation) {
  list_add(compiler->instructions);
  struct instruction *all = compiler->instructions->items;
  move_bytes(&all[place + 1], &all[place], (compiler->instructions->count - 1 - place) * sizeof *all);
  all[place] = (struct instruction){.operation = operation, .first = 1};
  return &all[place];
}

static void include(struct instruction *take, uint8_t first, uint8_t last) {
  for (unsigned c = first; c <= last; c++) take->characters[c / 32] |= 1u << c % 32;
}

static void invert(struct instruction *take) {
  for (int i = 0; i < 8; i++) take->characters[i] = ~take->characters[i];
}

static void exclude_slash(struct instruction *take) { take->characters['/' / 32] &= ~(1u << '/' % 32); }

static bool wrong(struct compiler *compiler, const char *problem) {
  compiler->problem = problem;
  return false;
}

static bool take_class(struct compiler *compiler) {
  struct instruction *take = emit(compiler, TAKE);
  const bool inverted = *compiler->at == '^' || (compiler->glob && *compiler->at == '!');
  if (inverted) compiler->at++;
  for (bool first = true; first || *compiler->at != ']'; first = false) {
    if (*compiler->at == '\\') compiler->at++;
    if (*compiler->at == 0) return wrong(compiler, "'[' has no ']'");
    const uint8_t from = (uint8_t)*compiler->at++;
    uint8_t to = from;
    if (compiler->at[0] == '-' && compiler->at[1] != ']' && compiler->at[1] != 0) to = (uint8_t)compiler->at[1], compiler->at += 2;
    if (to < from) return wrong(compiler, "a range in '[…]' ends before it begins");
    include(take, from, to);
  }
  compiler->at++;
  if (inverted) invert(take);
  if (compiler->glob) exclude_slash(take);
  return true;
}

static bool take_escaped(struct compiler *compiler) {
  const char c = *compiler->at;
  if (c == 0) return wrong(compiler, "nothing follows the last '\\'");
  compiler->at++;
  struct instruction *take = emit(compiler, TAKE);
  const bool set = !compiler->glob && (c == 'd' || c == 'w' || c == 's');
  if (!set && !compiler->glob && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))) return wrong(compiler, "of letters and digits only d, w and s can stand behind '\\'");
  if (!set) include(take, (uint8_t)c, (uint8_t)c);
  if (set && c == 's') include(take, '\t', '\r'), include(take, ' ', ' ');
  if (set && c != 's') include(take, '0', '9');
  if (set && c == 'w') include(take, 'a', 'z'), include(take, 'A', 'Z'), include(take, '_', '_');
  return true;
}

/* Repeats what stands from `place` on. */
static void repeat(struct compiler *compiler, size_t place, char how) {
  const int32_t size = (int32_t)(compiler->instructions->count - place);
  if (how == '+') {
    struct instruction *split = emit(compiler, SPLIT);
    split->first = -size, split->second = 1;
    return;
  }
  insert(compiler, place, SPLIT)->second = size + (how == '*' ? 2 : 1);
  if (how == '*') emit(compiler, JUMP)->first = -(size + 1);
}

static bool take_alternatives(struct compiler *compiler);

static bool take_group(struct compiler *compiler, char end) {
  if (compiler->depth == DEEPEST) return wrong(compiler, "groups stand in groups too deeply");
  compiler->depth++;
  if (!take_alternatives(compiler)) return false;
  compiler->depth--;
  if (*compiler->at != end) return wrong(compiler, compiler->glob ? "'{' has no '}'" : "'(' has no ')'");
  compiler->at++;
  return true;
}

static bool take_one_of_glob(struct compiler *compiler, char c) {
  switch (c) {
    case '*': {
      const size_t place = compiler->instructions->count;
      const bool deep = *compiler->at == '*';
      struct instruction *take = emit(compiler, TAKE);
      invert(take);
      if (!deep) exclude_slash(take);
      while (*compiler->at == '*') compiler->at++;
      repeat(compiler, place, '*');
      return true;
    }
    case '?': {
      struct instruction *take = emit(compiler, TAKE);
      invert(take);
      exclude_slash(take);
      return true;
    }
    case '{':
      return take_group(compiler, '}');
    default:
      include(emit(compiler, TAKE), (uint8_t)c, (uint8_t)c);
      return true;
  }
}

static bool take_one_of_regex(struct compiler *compiler, char c) {
  if (c == '*' || c == '+' || c == '?') return wrong(compiler, "nothing stands before '*', '+' or '?'");
  if (c == '{' || c == '}') return wrong(compiler, "'{' and '}' are not known here: repeat by hand, or write '\\{'");
  if (c == '^' || c == '$') return true; /* all of the text is matched anyway */
  if (c == '(') {
    if (starts_with(compiler->at, "?:")) compiler->at += 2;
    return take_group(compiler, ')');
  }
  struct instruction *take = emit(compiler, TAKE);
  if (c == '.') invert(take);
  else include(take, (uint8_t)c, (uint8_t)c);
  return true;
}

static bool take_sequence(struct compiler *compiler) {
  const char separator = compiler->glob ? ',' : '|', end = compiler->glob ? '}' : ')';
  for (;;) {
    const char c = *compiler->at;
    const bool inside = compiler->depth > 0;
    if (c == 0 || (c == separator && (inside || !compiler->glob)) || (c == end && inside)) return true;
    if (c == end && !compiler->glob) return wrong(compiler, "')' has no '('");
    compiler->at++;
    const size_t place = compiler->instructions->count;
    const bool good = c == '[' ? take_class(compiler) : c == '\\' ? take_escaped(compiler) : compiler->glob ? take_one_of_glob(compiler, c) : take_one_of_regex(compiler, c);
    if (!good) return false;
    for (; !compiler->glob && (*compiler->at == '*' || *compiler->at == '+' || *compiler->at == '?'); compiler->at++) repeat(compiler, place, *compiler->at);
    if (compiler->instructions->count > MOST_INSTRUCTIONS - 8) return wrong(compiler, "it is too long");
  }
}

static bool take_alternatives(struct compiler *compiler) {
  const char separator = compiler->glob ? ',' : '|';
  size_t start = compiler->instructions->count;
  struct list exits; /* of size_t: jumps to behind the last alternative */
  list_init(&exits, compiler->instructions->arena, sizeof(size_t));
  for (;;) {
    if (!take_sequence(compiler)) return false;
    if (*compiler->at != separator) break;
    compiler->at++;
    const int32_t size = (int32_t)(compiler->instructions->count - start);
    insert(compiler, start, SPLIT)->second = size + 2;
    *(size_t *)list_add(&exits) = compiler->instructions->count;
    emit(compiler, JUMP);
    start = compiler->instructions->count;
  }
  for (size_t i = 0; i < exits.count; i++) {
    const size_t place = *list_at(&exits, size_t, i);
    list_at(compiler->instructions, struct instruction, place)->first = (int32_t)(compiler->instructions->count - place);
  }
  return true;
}

static const struct pattern *compile(struct arena *arena, const char *text, bool glob, const char **problem) {
  struct pattern *pattern = arena_allocate(arena, sizeof *pattern);
  list_init(&pattern->instructions, arena, sizeof(struct instruction));
  struct compiler compiler = {.instructions = &pattern->instructions, .at = text, .glob = glob};
  const bool good = string_length(text) > PATTERN_LONGEST ? wrong(&compiler, "it is too long") : take_alternatives(&compiler);
  emit(&compiler, DONE);
  if (good && pattern->instructions.count <= MOST_INSTRUCTIONS) return pattern;
  *problem = good ? "it is too long" : compiler.problem;
  return NULL;
}

const struct pattern *pattern_glob(struct arena *arena, const char *text, const char **problem) { return compile(arena, text, true, problem); }
const struct pattern *pattern_regex(struct arena *arena, const char *text, const char **problem) { return compile(arena, text, false, problem); }

/* Where the automaton may stand. */
struct places {
  size_t count;
  uint16_t items[MOST_INSTRUCTIONS];
  bool known[MOST_INSTRUCTIONS];
};

static void add_place(struct places *places, size_t place) {
  if (places->known[place]) return;
  places->known[place] = true;
  places->items[places->count++] = (uint16_t)place;
}

/* Adds where splits and jumps lead: each place becomes known once, so the list, which grows meanwhile, is gone through once. */
static void follow(const struct pattern *pattern, struct places *places) {
  for (size_t i = 0; i < places->count; i++) {
    const size_t place = places->items[i];
    const struct instruction *instruction = list_at(&pattern->instructions, struct instruction, place);
    if (instruction->operation == TAKE || instruction->operation == DONE) continue;
    add_place(places, (size_t)((int64_t)place + instruction->first));
    if (instruction->operation == SPLIT) add_place(places, (size_t)((int64_t)place + instruction->second));
  }
}

bool pattern_matches(const struct pattern *pattern, const char *text) {
  struct places two[2], *now = &two[0], *next = &two[1];
  fill_bytes(two, 0, sizeof two);
  add_place(now, 0);
  follow(pattern, now);
  for (const uint8_t *at = (const uint8_t *)text; *at != 0 && now->count > 0; at++) {
    for (size_t i = 0; i < now->count; i++) {
      const struct instruction *instruction = list_at(&pattern->instructions, struct instruction, now->items[i]);
      if (instruction->operation == TAKE && (instruction->characters[*at / 32] >> *at % 32 & 1) != 0) add_place(next, (size_t)now->items[i] + 1);
    }
    follow(pattern, next);
    for (size_t i = 0; i < now->count; i++) now->known[now->items[i]] = false;
    now->count = 0;
    struct places *swapped = now;
    now = next, next = swapped;
  }
  return now->known[pattern->instructions.count - 1];
}
