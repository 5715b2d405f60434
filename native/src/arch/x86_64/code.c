/*
 * System call instructions in a program's own code: found, judged, and redirected. Only as much of the instruction set is
 * understood as that takes: how long an instruction is, where a direct jump goes, and what the simplest ones write.
 */
#include "../../base/base.h"

#define CALL_SIZE 2u  /* syscall: 0f 05 */
#define JUMP_SIZE 5u  /* jmp rel32 */
#define LONGEST 15u   /* of an instruction */
/* Decoding that begins at any byte falls into step with the code after a few instructions. */
#define STREAMS 16u
#define LEAD_IN 128u
/* How far a jump that goes between an instruction sequence and its system call may come from. */
#define JUMP_RANGE 4096u
#define SHORT_JUMP_RANGE 144u
#define LOOK_BACK 63u /* bytes before the call */
#define REPLACED_LOOK_BACK 31u

enum map { MAP_ONE_BYTE, MAP_0F, MAP_0F38, MAP_0F3A };

struct instruction {
  uint32_t length;
  enum map map;
  uint8_t opcode;
  uint8_t modrm;
  uint8_t rex;
  bool vector;             /* VEX or EVEX */
  bool has_modrm;
  uint32_t rip_relative;   /* where the displacement is that counts from the instruction's end, 0 for none */
  bool jumps;              /* to `target`, always or sometimes; or calls that */
  int64_t target;          /* relative to the instruction's start */
};

/* One bit for each opcode of a row of 16, lowest first. */
static const uint16_t modrm_rows[16] = {0x0f0f, 0x0f0f, 0x0f0f, 0x0f0f, 0, 0, 0x0a08, 0, 0xfffb, 0, 0, 0, 0x00c3, 0xff0f, 0, 0xc0c0};
static const uint16_t immediate8_rows[16] = {0x1010, 0x1010, 0x1010, 0x1010, 0, 0, 0x0c00, 0xffff, 0x0009, 0, 0x0100, 0x00ff, 0x2043, 0, 0x08ff, 0};
static const uint16_t immediate32_rows[16] = {0x2020, 0x2020, 0x2020, 0x2020, 0, 0, 0x0300, 0, 0x0002, 0, 0x0200, 0xff00, 0x0080, 0, 0x0300, 0};
static const uint16_t invalid_rows[16] = {0x40c0, 0xc0c0, 0x8080, 0x8080, 0, 0, 0x0003, 0, 0x0004, 0x0400, 0, 0, 0x4000, 0x0070, 0x0400, 0};
static const uint16_t no_modrm_0f_rows[16] = {0x4be0, 0, 0, 0x00ff, 0, 0, 0, 0x0080, 0xffff, 0, 0x0707, 0, 0xff00, 0, 0, 0};
/* Those that write vector registers, flags or memory, and no general register: moves, arithmetic and logic. */
static const uint16_t vector_0f_rows[16] = {0, 0x00ff, 0xc300, 0, 0, 0xfffe, 0xffff, 0xb0ff, 0, 0, 0, 0, 0x0040, 0xff7f, 0xffff, 0x7fff};
static const uint16_t immediate8_0f_rows[16] = {0x8000, 0, 0, 0, 0, 0, 0, 0x000f, 0, 0, 0x1010, 0x0400, 0x0074, 0, 0, 0};

static bool in_rows(const uint16_t rows[16], uint8_t opcode) { return (rows[opcode >> 4] >> (opcode & 15) & 1) != 0; }

/* Decodes what is at `code`; false where that is no instruction of 64-bit mode, or is cut off. */
static bool decode(const uint8_t *code, size_t available, struct instruction *ret) {
  size_t at = 0, immediate = 0;
  bool operand16 = false, address32 = false;
  const size_t end = available < LONGEST ? available : LONGEST;
  *ret = (struct instruction){.map = MAP_ONE_BYTE};
#define NEXT(variable)           \
  do {                           \
    if (at >= end) return false; \
    (variable) = code[at++];     \
  } while (0)
  uint8_t byte;
  NEXT(byte);
  while (byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 || (byte & 0xe7) == 0x26 || byte == 0x64 || byte == 0x65) {
    operand16 |= byte == 0x66;
    address32 |= byte == 0x67;
    NEXT(byte);
  }
  if ((byte & 0xf0) == 0x40) {
    ret->rex = byte;
    NEXT(byte);
  }
  if (byte == 0xc5 || byte == 0xc4 || byte == 0x62) {
    uint8_t map = 1, payload;
    ret->vector = true;
    if (byte != 0xc5) {
      NEXT(map);
      map &= byte == 0x62 ? 7 : 0x1f;
      if (byte == 0x62) NEXT(payload);
    }
    NEXT(payload);
    (void)payload;
    if (map == 0 || map > 3) return false;
    ret->map = (enum map)map;
    NEXT(byte);
  } else if (byte == 0x0f) {
    ret->map = MAP_0F;
    NEXT(byte);
    if (byte == 0x38 || byte == 0x3a) {
      ret->map = byte == 0x38 ? MAP_0F38 : MAP_0F3A;
      NEXT(byte);
    }
  }
  const uint8_t opcode = ret->opcode = byte;
  const bool near = ret->map == MAP_ONE_BYTE;
  if (near && in_rows(invalid_rows, opcode)) return false;
  ret->has_modrm = near ? in_rows(modrm_rows, opcode) : ret->map != MAP_0F || (ret->vector ? opcode != 0x77 : !in_rows(no_modrm_0f_rows, opcode));
  if (ret->has_modrm) {
    NEXT(ret->modrm);
    const uint8_t mod = ret->modrm >> 6, rm = ret->modrm & 7;
    uint8_t sib = 0;
    if (mod != 3 && rm == 4) NEXT(sib);
    if (mod == 0 && rm == 5) ret->rip_relative = (uint32_t)at;
    if (mod == 1) at += 1;
    if (mod == 2 || (mod == 0 && (rm == 5 || (rm == 4 && (sib & 7) == 5)))) at += 4;
  }
  const size_t operand = operand16 ? 2 : 4;
  if (near) {
    if (in_rows(immediate8_rows, opcode)) immediate = 1;
    if (in_rows(immediate32_rows, opcode)) immediate = (opcode & 0xfe) == 0xe8 ? 4 : operand;
    if ((opcode & 0xf8) == 0xb8 && (ret->rex & 8) != 0) immediate = 8;
    if ((opcode & 0xfe) == 0xf6 && (ret->modrm & 0x30) == 0) immediate = opcode == 0xf6 ? 1 : operand;
    if ((opcode & 0xfc) == 0xa0) immediate = address32 ? 4 : 8;
    if (opcode == 0xc2 || opcode == 0xca) immediate = 2;
    if (opcode == 0xc8) immediate = 3;
  } else if (ret->map == MAP_0F3A || (ret->map == MAP_0F && in_rows(immediate8_0f_rows, opcode) && !(ret->vector && opcode < 0x70))) {
    immediate = 1;
  } else if (ret->map == MAP_0F && !ret->vector && (opcode & 0xf0) == 0x80) {
    immediate = 4;
  }
  at += immediate;
  if (at > end) return false;
  ret->length = (uint32_t)at;
  if (near && ((opcode & 0xf0) == 0x70 || (opcode & 0xfc) == 0xe0 || opcode == 0xeb)) {
    ret->jumps = true;
    ret->target = (int64_t)at + (int8_t)code[at - 1];
  } else if ((near && (opcode & 0xfe) == 0xe8) || (ret->map == MAP_0F && !ret->vector && (opcode & 0xf0) == 0x80)) {
    int32_t distance;
    copy_bytes(&distance, code + at - 4, sizeof distance);
    ret->jumps = true;
    ret->target = (int64_t)at + distance;
  }
  return true;
#undef NEXT
}

size_t arch_instruction_length(const uint8_t *code, size_t available) {
  struct instruction instruction;
  return decode(code, available, &instruction) ? instruction.length : 0;
}

/* The high bit of each byte that is zero. */
static uint64_t zero_bytes(uint64_t word) { return ~(((word & 0x7f7f7f7f7f7f7f7ful) + 0x7f7f7f7f7f7f7f7ful) | word | 0x7f7f7f7f7f7f7f7ful); }

size_t arch_next_call(const uint8_t *code, size_t size, size_t from) {
  size_t at = from;
  for (uint64_t first, second; at + sizeof first < size; at += sizeof first) {
    __builtin_memcpy(&first, code + at, sizeof first);
    __builtin_memcpy(&second, code + at + 1, sizeof second);
    const uint64_t found = zero_bytes(first ^ 0x0f0f0f0f0f0f0f0ful) & zero_bytes(second ^ 0x0505050505050505ul);
    if (found != 0) return at + (size_t)__builtin_ctzl(found) / 8;
  }
  for (; at + CALL_SIZE <= size; at++)
    if (code[at] == 0x0f && code[at + 1] == 0x05) return at;
  return size;
}

/* Where instructions begin before `at`: bit k for at - k. All streams agree on these. 0 when `at` is none itself. */
static uint64_t boundaries(const uint8_t *code, size_t size, size_t at) {
  uint8_t lengths[LEAD_IN + STREAMS]; /* of what begins so far before `at`; 0: not looked at */
  uint64_t common = ~0ul;
  fill_bytes(lengths, 0, sizeof lengths);
  for (size_t stream = 0; stream < STREAMS; stream++) {
    const size_t lead = LEAD_IN + stream;
    size_t position = at > lead ? at - lead : 0;
    uint64_t seen = 0;
    while (position < at) {
      uint8_t *length = &lengths[at - position - 1];
      struct instruction instruction;
      if (*length == 0) *length = decode(code + position, size - position, &instruction) ? (uint8_t)instruction.length : 1;
      if (at - position <= LOOK_BACK) seen |= 1ul << (at - position);
      position += *length;
    }
    common &= seen | (position == at);
  }
  return (common & 1) != 0 ? common : 0;
}

/* Where direct jumps go: bit k for at - k. */
static uint64_t jump_targets(const uint8_t *code, size_t size, size_t at, size_t range) {
  uint64_t targets = 0;
  const size_t end = at + range < size ? at + range : size;
  for (size_t position = at > range ? at - range : 0; position < end;) {
    struct instruction instruction;
    if (!decode(code + position, size - position, &instruction)) {
      position++;
      continue;
    }
    const int64_t back = (int64_t)at - ((int64_t)position + instruction.target);
    if (instruction.jumps && back >= 0 && back <= (int64_t)LOOK_BACK) targets |= 1ul << back;
    position += instruction.length;
  }
  return targets;
}

/* Whether an instruction does the same elsewhere, and goes on behind itself. */
static bool is_movable(const struct instruction *instruction) {
  if (instruction->jumps) return false;
  const uint8_t opcode = instruction->opcode;
  if (instruction->map == MAP_0F && !instruction->vector) return opcode != 0x05 && opcode != 0x0b && opcode != 0x34 && opcode != 0x07 && opcode != 0x35;
  if (instruction->map != MAP_ONE_BYTE) return true;
  if (opcode == 0xff && (instruction->modrm >> 3 & 7) >= 2 && (instruction->modrm >> 3 & 7) <= 5) return false;
  return opcode != 0xc2 && opcode != 0xc3 && opcode != 0xca && opcode != 0xcb && opcode != 0xcc && opcode != 0xcd && opcode != 0xcf && opcode != 0xf4 && opcode != 0xf1;
}

enum effect_kind { LEAVES, SETS_NUMBER, COPIES_REGISTER, COPIES_STACK, UNKNOWN_EFFECT };

/* What an instruction does to one register. */
struct effect {
  enum effect_kind kind;
  int32_t value; /* the number, the other register, or the distance from the stack pointer that it has before the instruction */
};

#define RAX 0u
#define RCX 1u
#define RSP 4u
#define R11 11u
#define REGISTERS 16u

static struct effect effect_on(const struct instruction *instruction, const uint8_t *code, unsigned wanted) {
  const uint8_t opcode = instruction->opcode, low = (uint8_t)((opcode & 7) | (instruction->rex & 1) << 3);
  const uint8_t reg = (uint8_t)((instruction->modrm >> 3 & 7) | (instruction->rex & 4) << 1), rm = (uint8_t)((instruction->modrm & 7) | (instruction->rex & 1) << 3);
  const uint8_t mod = instruction->modrm >> 6, operation = reg & 7;
  const bool writes_rm = mod == 3 && rm == wanted, plain = code[instruction->rex != 0 ? 1 : 0] == opcode;
  const struct effect leaves = {LEAVES, 0}, unknown = {UNKNOWN_EFFECT, 0};
  int32_t value = 0;
  if (instruction->map == MAP_0F && !instruction->vector && ((opcode & 0xf6) == 0xb6 || (opcode & 0xfe) == 0x1e)) return opcode > 0x1f && reg == wanted ? unknown : leaves;
  if (instruction->map == MAP_0F && in_rows(vector_0f_rows, opcode)) return leaves;
  if (instruction->map != MAP_ONE_BYTE || instruction->vector) return unknown;
  const bool loads = ((opcode & 0xf8) == 0xb8 && low == wanted && (instruction->rex & 8) == 0) || (opcode == 0xc7 && writes_rm);
  const bool clears = (opcode == 0x31 || opcode == 0x33) && writes_rm && reg == rm;
  if ((loads && instruction->length > 4) || clears) {
    if (loads) copy_bytes(&value, code + instruction->length - sizeof value, sizeof value);
    return (struct effect){SETS_NUMBER, value};
  }
  if (plain && mod == 3 && opcode == 0x89 && rm == wanted) return (struct effect){COPIES_REGISTER, reg};
  if (plain && mod == 3 && opcode == 0x8b && reg == wanted) return (struct effect){COPIES_REGISTER, rm};
  if (plain && mod != 3 && opcode == 0x8b && reg == wanted && rm == RSP && code[instruction->rex != 0 ? 3 : 2] == 0x24) {
    if (mod == 1) value = (int8_t)code[instruction->length - 1];
    if (mod == 2) copy_bytes(&value, code + instruction->length - sizeof value, sizeof value);
    return (struct effect){COPIES_STACK, value};
  }
  if ((opcode & 0xc4) == 0 && (opcode & 3) == 1) return writes_rm && (opcode & 0xf8) != 0x38 ? unknown : leaves;
  if ((opcode & 0xc4) == 0 && (opcode & 3) == 3) return reg == wanted && (opcode & 0xf8) != 0x38 ? unknown : leaves;
  switch (opcode) {
    case 0x63:
    case 0x69:
    case 0x6b:
    case 0x8b:
    case 0x8d: return reg == wanted ? unknown : leaves;
    case 0x81:
    case 0x83:
    case 0x89:
    case 0xc1:
    case 0xc7: return writes_rm ? unknown : leaves;
    case 0x68: /* push */
    case 0x6a:
    case 0x84: /* test */
    case 0x85:
    case 0xa8:
    case 0xa9:
    case 0x90: return leaves;
    case 0x80: return operation == 7 ? leaves : unknown; /* cmp */
    case 0xf6:
    case 0xf7: return operation < 2 ? leaves : unknown; /* test */
    case 0xff: return operation == 6 ? leaves : unknown; /* push */
    default: break;
  }
  if ((opcode & 0xf8) == 0x50) return leaves;                                                               /* push */
  if ((opcode & 0xf8) == 0x58 || (opcode & 0xf8) == 0xb8) return low == wanted ? unknown : leaves; /* pop, mov */
  return unknown;
}

/* Opcodes that compilers and people use around system calls, as rows; and what is common behind 0f. Tables of data between functions have others. */
static const uint16_t common_rows[16] = {0x3a2a, 0x2a2a, 0x3a2a, 0x3a2a, 0, 0xffff, 0x0f08, 0xffff, 0x2fbb, 0x0301, 0x0b20, 0xff01, 0x12ca, 0x000a, 0x0b00, 0xc0c0};
static const uint16_t common_0f_rows[16] = {0x0820, 0xc0cf, 0x0300, 0, 0xffff, 0, 0xd000, 0xc000, 0xffff, 0xffff, 0x8004, 0xf4c3, 0xff03, 0x0040, 0, 0x8000};
#define COMMON_BEHIND 8

static bool is_common(const struct instruction *instruction) {
  if (instruction->vector || instruction->map > MAP_0F) return false;
  return in_rows(instruction->map == MAP_0F ? common_0f_rows : common_rows, instruction->opcode);
}

/* Whether what is around `at` is code: from the first boundary that is certain to some instructions behind, or to where those end. */
static bool is_among_code(const uint8_t *code, size_t size, size_t at, uint64_t begins) {
  struct instruction instruction;
  size_t position = at - (31 - (size_t)__builtin_clz((uint32_t)begins));
  for (size_t behind = 0; behind < COMMON_BEHIND && position < size; behind += position > at) {
    if (!decode(code + position, size - position, &instruction)) return position > at && size - position < LONGEST;
    if (!is_common(&instruction)) return false;
    position += instruction.length;
    if (position > at + CALL_SIZE && instruction.map == MAP_ONE_BYTE && (instruction.opcode == 0xc3 || instruction.opcode == 0xe9 || instruction.opcode == 0xeb)) break;
  }
  return true;
}

/* The number that is loaded before the call at `at`, with `targets` jumped to; -1 where that cannot be told. */
static long number_of_call(const uint8_t *code, size_t size, size_t at, uint64_t begins, uint64_t targets) {
  for (uint32_t k = 1; k <= LOOK_BACK; k++) {
    struct instruction instruction;
    if ((begins >> k & 1) == 0) continue;
    /* What is jumped to behind this instruction is reached without it. */
    if ((targets & ((1ul << k) - 1)) != 0 || !decode(code + at - k, size - (at - k), &instruction) || instruction.jumps) return -1;
    const struct effect effect = effect_on(&instruction, code + at - k, RAX);
    if (effect.kind != LEAVES) return effect.kind == SETS_NUMBER ? effect.value : -1;
  }
  return -1;
}

static bool matters(long number) { return number < 0 || number == __NR_madvise || number == __NR_mremap; }

/* How many bytes of whole instructions before `at` a jump can take the place of; 0 for too few. */
static uint32_t replaceable(const uint8_t *code, size_t size, size_t at, uint64_t begins, uint64_t targets) {
  for (uint32_t k = 1; k <= REPLACED_LOOK_BACK; k++) {
    struct instruction instruction;
    if ((begins >> k & 1) == 0) continue;
    if ((targets & ((1ul << k) - 1)) != 0 || !decode(code + at - k, size - (at - k), &instruction) || !is_movable(&instruction)) return 0;
    if (k >= JUMP_SIZE) return k;
  }
  return 0;
}

enum arch_call_kind arch_examine_call(const uint8_t *code, size_t size, size_t at, struct arch_call_site *ret) {
  const uint64_t begins = boundaries(code, size, at);
  if (begins == 0 || !is_among_code(code, size, at, begins)) return ARCH_NO_CALL;
  /* Most calls are plainly something else: for those the short jumps will do. */
  if (!matters(number_of_call(code, size, at, begins, jump_targets(code, size, at, SHORT_JUMP_RANGE)))) return ARCH_OTHER_CALL;
  const uint64_t targets = jump_targets(code, size, at, JUMP_RANGE);
  ret->number = number_of_call(code, size, at, begins, targets);
  ret->length = replaceable(code, size, at, begins, targets);
  if (ret->length == 0) return ARCH_FIXED_CALL;
  copy_bytes(ret->original, code + at - ret->length, ret->length);
  return ARCH_REDIRECTABLE_CALL;
}

/* Whether the instructions from `from` on lead to `at` and keep the number in rax. */
static bool leads_to(const uint8_t *code, size_t size, size_t from, size_t at) {
  while (from < at) {
    struct instruction instruction;
    if (!decode(code + from, size - from, &instruction) || !is_movable(&instruction) || effect_on(&instruction, code + from, RAX).kind != LEAVES) return false;
    from += instruction.length;
  }
  return from == at;
}

bool arch_is_plain_call(const uint8_t *code, size_t size, size_t at) {
  for (size_t k = 1; k <= LOOK_BACK && k <= at; k++) {
    const size_t from = at - k;
    struct instruction instruction;
    if (!decode(code + from, size - from, &instruction) || instruction.jumps || instruction.length < JUMP_SIZE) continue;
    const struct effect effect = effect_on(&instruction, code + from, RAX);
    if (effect.kind == SETS_NUMBER && effect.value >= 0 && matters(effect.value) && leads_to(code, size, from + instruction.length, at)) return true;
  }
  return false;
}

/* ---- redirecting ---- */

extern HIDDEN const char arch_redirected_entry[]; /* patch.S */

static bool put_jump(uint8_t *code, uint64_t from, uint64_t to) {
  const int64_t distance = (int64_t)(to - (from + JUMP_SIZE));
  const int32_t jump = (int32_t)distance;
  code[0] = 0xe9;
  copy_bytes(code + 1, &jump, sizeof jump);
  return distance == jump;
}

/* The instructions that the jump replaces, where they stand now: displacements from the instruction pointer grow by the distance moved. */
static bool move_code(uint8_t *to, uint64_t new_address, const struct arch_call_site *site, uint64_t old_address) {
  copy_bytes(to, site->original, site->length);
  for (uint32_t at = 0; at < site->length;) {
    struct instruction instruction;
    if (!decode(site->original + at, site->length - at, &instruction)) return false;
    if (instruction.rip_relative != 0) {
      int32_t displacement;
      copy_bytes(&displacement, to + at + instruction.rip_relative, sizeof displacement);
      const int64_t moved = displacement + (int64_t)(old_address - new_address);
      displacement = (int32_t)moved;
      if (moved != displacement) return false;
      copy_bytes(to + at + instruction.rip_relative, &displacement, sizeof displacement);
    }
    at += instruction.length;
  }
  return true;
}

bool arch_redirect_call(const struct arch_call_site *site, uint8_t *entry) {
  static const uint8_t test[] = {
      0x8d, 0x48, 0x100 - __NR_madvise, /* lea -madvise(%rax), %ecx: the call would give up rcx, but not the flags */
      0xe3, 10,                         /* jrcxz to handle */
      0x8d, 0x48, 0x100 - __NR_mremap,  /* lea -mremap(%rax), %ecx */
      0xe3, 5,                          /* jrcxz to handle */
  };
  static const uint8_t handle[] = {
      0x48, 0x8d, 0x64, 0x24, 0x80,                   /* lea -128(%rsp), %rsp: the red zone */
      0xff, 0x15, 13, 0, 0, 0,                        /* call *arch_redirected_entry, below */
      0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0,          /* lea 128(%rsp), %rsp */
  };
  const uint64_t start = site->call - site->length, function = (uint64_t)arch_redirected_entry;
  uint8_t *at = entry;
  if (!move_code(at, (uint64_t)at, site, start)) return false;
  at += site->length;
  copy_bytes(at, test, sizeof test);
  at += sizeof test;
  if (!put_jump(at, (uint64_t)at, site->call)) return false;
  at += JUMP_SIZE;
  copy_bytes(at, handle, sizeof handle);
  at += sizeof handle;
  if (!put_jump(at, (uint64_t)at, site->call + CALL_SIZE)) return false;
  at += JUMP_SIZE;
  copy_bytes(at, &function, sizeof function);
  uint8_t jump[REPLACED_LOOK_BACK];
  fill_bytes(jump, 0x90, sizeof jump);
  if (!put_jump(jump, start, (uint64_t)entry)) return false;
  copy_bytes((void *)start, jump, site->length);
  return true;
}

void arch_leave_redirected(struct ucontext *context, const struct arch_call_site *site, const uint8_t *entry) {
  const uint64_t into = context->uc_mcontext.rip - (site->call - site->length);
  if (into > 0 && into < site->length) context->uc_mcontext.rip = (uint64_t)entry + into;
}

/* ---- the number of a call that was interrupted ---- */

#define HIGHEST_NUMBER 1023
#define CALL_RELATIVE_SIZE 5u /* call rel32: e8 */
#define CALL_SLOT_SIZE 6u     /* call *rel32(%rip): ff 15 */
#define LONGEST_WRAPPER 256u  /* bytes of a function up to its system call */
#define LONGEST_FRAME 32u     /* words */

/* Code around a place, as far as it can be read. */
struct window {
  size_t size;
  size_t at; /* index of the place */
  uint8_t code[2 * ARCH_CODE_AROUND];
};

static bool read_window(arch_reader read, uint64_t address, struct window *ret) {
  const uint64_t page = address & ~(ARCH_PAGE_SIZE - 1);
  const uint64_t ranges[][2] = {{address - ARCH_CODE_AROUND, address + ARCH_CODE_AROUND}, {page, address + ARCH_CODE_AROUND}, {address - ARCH_CODE_AROUND, page + ARCH_PAGE_SIZE}, {page, page + ARCH_PAGE_SIZE}};
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    ret->size = ranges[i][1] - ranges[i][0];
    ret->at = address - ranges[i][0];
    if (read(ranges[i][0], ret->code, ret->size)) return true;
  }
  return false;
}

/* Where a register's content at a place comes from: the last instruction before it that writes it, with what those behind that leave alone. */
struct source {
  struct effect effect;
  int64_t stack;    /* how much the stack pointer has changed since */
  uint32_t written; /* registers that have been written since: bit k for register k */
};

/* What an instruction adds to the stack pointer; false when that cannot be told. */
static bool stack_change(const struct instruction *instruction, const uint8_t *code, int64_t *ret) {
  const uint8_t opcode = instruction->opcode, operation = instruction->modrm >> 3 & 7;
  const bool one_byte = instruction->map == MAP_ONE_BYTE && !instruction->vector;
  *ret = 0;
  if (one_byte && ((opcode & 0xf8) == 0x50 || opcode == 0x68 || opcode == 0x6a || (opcode == 0xff && operation == 6))) {
    *ret = -8;
  } else if (one_byte && (opcode & 0xf8) == 0x58) {
    *ret = 8;
  } else if (one_byte && (opcode == 0x81 || opcode == 0x83) && instruction->modrm >> 6 == 3 && (instruction->modrm & 7) == RSP && (instruction->rex & 1) == 0) {
    int32_t value = (int8_t)code[instruction->length - 1];
    if (opcode == 0x81) copy_bytes(&value, code + instruction->length - sizeof value, sizeof value);
    *ret = operation == 5 ? -(int64_t)value : value;
    return operation == 5 || operation == 0;
  } else {
    return effect_on(instruction, code, RSP).kind == LEAVES;
  }
  return true;
}

static bool find_source(const struct window *window, unsigned wanted, struct source *ret) {
  const uint64_t begins = boundaries(window->code, window->size, window->at), targets = jump_targets(window->code, window->size, window->at, JUMP_RANGE);
  *ret = (struct source){{UNKNOWN_EFFECT, 0}, 0, 0};
  if (begins == 0) return false;
  for (uint32_t k = 1; k <= LOOK_BACK; k++) {
    const uint8_t *code = window->code + window->at - k;
    struct instruction instruction;
    int64_t change;
    if ((begins >> k & 1) == 0) continue;
    if ((targets & ((1ul << k) - 1)) != 0 || !decode(code, k, &instruction) || instruction.jumps) return false;
    ret->effect = effect_on(&instruction, code, wanted);
    if (ret->effect.kind != LEAVES) return ret->effect.kind != UNKNOWN_EFFECT;
    if (!stack_change(&instruction, code, &change)) return false;
    ret->stack += change;
    for (unsigned r = 0; r < REGISTERS; r++)
      if (effect_on(&instruction, code, r).kind != LEAVES) ret->written |= 1u << r;
  }
  return false;
}

static bool read_word(arch_reader read, uint64_t address, uint64_t *ret) { return read(address, ret, sizeof *ret); }

/* How a function that was entered at `start` comes to the system call: what each register has then, by what they had at the start. */
struct way {
  int origin[REGISTERS]; /* -1: something else */
  int64_t stack;         /* what the stack pointer has changed by */
};

static bool follow(arch_reader read, uint64_t start, uint64_t call, struct way *ret) {
  uint8_t code[LONGEST_WRAPPER + LONGEST];
  const size_t end = call - start;
  *ret = (struct way){.stack = 0};
  for (unsigned r = 0; r < REGISTERS; r++) ret->origin[r] = (int)r;
  if (call < start || end > LONGEST_WRAPPER || !read(start, code, end + CALL_SIZE)) return false;
  size_t at = 0;
  while (at < end) {
    struct instruction instruction;
    int64_t change;
    int next[REGISTERS];
    if (!decode(code + at, end - at, &instruction)) return false;
    const bool near = instruction.map == MAP_ONE_BYTE;
    const int64_t target = (int64_t)at + instruction.target;
    if (instruction.jumps) {
      /* On this way it was not taken: it leads past the system call, or out of the function. */
      const bool conditional = near ? (instruction.opcode & 0xf0) == 0x70 : instruction.map == MAP_0F;
      if (!conditional || (target >= 0 && target <= (int64_t)end)) return false;
    } else {
      if (!stack_change(&instruction, code + at, &change)) return false;
      ret->stack += change;
      for (unsigned r = 0; r < REGISTERS; r++) {
        const struct effect effect = effect_on(&instruction, code + at, r);
        next[r] = effect.kind == LEAVES ? ret->origin[r] : effect.kind == COPIES_REGISTER ? ret->origin[effect.value] : -1;
      }
      copy_bytes(ret->origin, next, sizeof next);
    }
    at += instruction.length;
  }
  return at == end;
}

/* The function that the call before `returns_to` calls, by way of a procedure linkage table as well; 0 when that cannot be told. */
static uint64_t called_function(arch_reader read, uint64_t returns_to, uint64_t *call) {
  static const uint8_t branch_target[4] = {0xf3, 0x0f, 0x1e, 0xfa}; /* endbr64 */
  uint8_t code[16];
  uint64_t target = 0;
  int32_t distance;
  if (!read(returns_to - CALL_SLOT_SIZE, code, CALL_SLOT_SIZE)) return 0;
  copy_bytes(&distance, code + CALL_SLOT_SIZE - sizeof distance, sizeof distance);
  if (code[1] == 0xe8) {
    *call = returns_to - CALL_RELATIVE_SIZE;
    target = returns_to + (uint64_t)(int64_t)distance;
  } else if (code[0] == 0xff && code[1] == 0x15) {
    *call = returns_to - CALL_SLOT_SIZE;
    if (!read_word(read, returns_to + (uint64_t)(int64_t)distance, &target)) return 0;
  }
  for (int hops = 0; target != 0 && hops < 3; hops++) {
    if (!read(target, code, sizeof code)) return 0;
    size_t at = compare_bytes(code, branch_target, sizeof branch_target) == 0 ? sizeof branch_target : 0;
    if (code[at] == 0xf2) at++; /* bnd */
    const bool slot = code[at] == 0xff && code[at + 1] == 0x25;
    if (!slot && code[at] != 0xe9) return target;
    copy_bytes(&distance, code + at + (slot ? 2 : 1), sizeof distance);
    target += at + (slot ? 6 : 5) + (uint64_t)(int64_t)distance;
    if (slot && !read_word(read, target, &target)) return 0;
  }
  return target;
}

static uint64_t register_of(const struct ucontext *context, unsigned number) {
  const struct sigcontext *m = &context->uc_mcontext;
  const uint64_t registers[REGISTERS] = {m->rax, m->rcx, m->rdx, m->rbx, m->rsp, m->rbp, m->rsi, m->rdi, m->r8, m->r9, m->r10, m->r11, m->r12, m->r13, m->r14, m->r15};
  return registers[number];
}

static long as_number(uint64_t value) { return value <= HIGHEST_NUMBER ? (long)value : -1; }

/* The number, when the function with the system call at `call` was given it in a register by its caller, to which `returns_to` belongs. */
static long number_from_caller(const struct ucontext *context, arch_reader read, uint64_t call, uint64_t stack, uint64_t returns_to) {
  uint64_t calls_at = 0, value;
  struct window window;
  struct source source;
  struct way way;
  const uint64_t start = called_function(read, returns_to, &calls_at);
  if (start == 0 || !follow(read, start, call, &way) || way.stack != (int64_t)(context->uc_mcontext.rsp - stack)) return -1;
  if (way.origin[RAX] < 0 || !read_window(read, calls_at, &window) || !find_source(&window, (unsigned)way.origin[RAX], &source)) return -1;
  if (source.effect.kind == SETS_NUMBER) return as_number((uint32_t)source.effect.value);
  if (source.effect.kind == COPIES_REGISTER) {
    const unsigned holds = (unsigned)source.effect.value;
    return (source.written >> holds & 1) == 0 && way.origin[holds] == (int)holds && holds != RCX && holds != R11 ? as_number(register_of(context, holds)) : -1;
  }
  /* Above the return address, where the caller has its own. */
  const uint64_t slot = stack + sizeof(uint64_t) - (uint64_t)source.stack + (uint64_t)(int64_t)source.effect.value;
  return read_word(read, slot, &value) ? as_number(value) : -1;
}

/*
 * The number of the call that `context` is right behind, -1 unless that is certain. The kernel leaves it nowhere: it is what the instructions before the
 * call have loaded, from a constant, a register or the stack, or, in a function that makes any call (syscall(3), the cancellation points of musl and of
 * glibc from 2.41 on), what its caller has passed on.
 */
static long number_of_interrupted_call(const struct ucontext *context, arch_reader read) {
  const uint64_t call = context->uc_mcontext.rip - CALL_SIZE, stack = context->uc_mcontext.rsp;
  struct window window;
  struct source source;
  uint64_t value;
  if (read_window(read, call, &window) && find_source(&window, RAX, &source)) {
    const unsigned holds = (unsigned)source.effect.value;
    if (source.effect.kind == SETS_NUMBER) return as_number((uint32_t)source.effect.value);
    if (source.effect.kind == COPIES_STACK) return read_word(read, stack - (uint64_t)source.stack + (uint64_t)(int64_t)source.effect.value, &value) ? as_number(value) : -1;
    if ((source.written >> holds & 1) == 0 && holds != RCX && holds != R11) return as_number(register_of(context, holds));
  }
  for (uint64_t word = 0; word < LONGEST_FRAME; word++) {
    const uint64_t at = stack + word * sizeof(uint64_t);
    if (!read_word(read, at, &value)) return -1;
    const long number = number_from_caller(context, read, call, at, value);
    if (number >= 0) return number;
  }
  return -1;
}

bool arch_interrupted_call(const struct ucontext *context, const struct arch_blocked_call *seen, arch_reader read, long *number) {
  static const uint8_t syscall_instruction[CALL_SIZE] = {0x0f, 0x05};
  const struct sigcontext *m = &context->uc_mcontext;
  if (m->rax != (uint64_t)-EINTR || compare_bytes((const void *)(m->rip - CALL_SIZE), syscall_instruction, CALL_SIZE) != 0) return false;
  const bool is_seen = seen->number >= 0 && seen->instruction == m->rip && seen->stack == m->rsp && seen->argument[0] == m->rdi && seen->argument[1] == m->rsi;
  *number = is_seen ? seen->number : number_of_interrupted_call(context, read);
  return *number >= 0;
}
