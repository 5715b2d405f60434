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
#define LOOK_BACK 31u /* bytes before the call */

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
static uint32_t boundaries(const uint8_t *code, size_t size, size_t at) {
  uint8_t lengths[LEAD_IN + STREAMS]; /* of what begins so far before `at`; 0: not looked at */
  uint32_t common = ~0u;
  fill_bytes(lengths, 0, sizeof lengths);
  for (size_t stream = 0; stream < STREAMS; stream++) {
    const size_t lead = LEAD_IN + stream;
    size_t position = at > lead ? at - lead : 0;
    uint32_t seen = 0;
    while (position < at) {
      uint8_t *length = &lengths[at - position - 1];
      struct instruction instruction;
      if (*length == 0) *length = decode(code + position, size - position, &instruction) ? (uint8_t)instruction.length : 1;
      if (at - position <= LOOK_BACK) seen |= 1u << (at - position);
      position += *length;
    }
    common &= seen | (position == at);
  }
  return (common & 1) != 0 ? common : 0;
}

/* Where direct jumps go: bit k for at - k. */
static uint32_t jump_targets(const uint8_t *code, size_t size, size_t at, size_t range) {
  uint32_t targets = 0;
  const size_t end = at + range < size ? at + range : size;
  for (size_t position = at > range ? at - range : 0; position < end;) {
    struct instruction instruction;
    if (!decode(code + position, size - position, &instruction)) {
      position++;
      continue;
    }
    const int64_t back = (int64_t)at - ((int64_t)position + instruction.target);
    if (instruction.jumps && back >= 0 && back <= (int64_t)LOOK_BACK) targets |= 1u << back;
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

enum written { WRITES_OTHER, WRITES_NUMBER, WRITES_UNKNOWN };

/* What an instruction does to eax, where a system call's number is. */
static enum written writes_number(const struct instruction *instruction, const uint8_t *code, long *number) {
  const uint8_t opcode = instruction->opcode, low = (uint8_t)((opcode & 7) | (instruction->rex & 1) << 3);
  const uint8_t reg = (uint8_t)((instruction->modrm >> 3 & 7) | (instruction->rex & 4) << 1), rm = (uint8_t)((instruction->modrm & 7) | (instruction->rex & 1) << 3);
  const bool writes_rm = instruction->modrm >> 6 == 3 && rm == 0;
  int32_t value = 0;
  if (instruction->map == MAP_0F && !instruction->vector && ((opcode & 0xf6) == 0xb6 || opcode == 0x1f)) return opcode != 0x1f && reg == 0 ? WRITES_UNKNOWN : WRITES_OTHER;
  if (instruction->map != MAP_ONE_BYTE) return WRITES_UNKNOWN;
  const bool loads = ((opcode & 0xf8) == 0xb8 && low == 0 && (instruction->rex & 8) == 0) || (opcode == 0xc7 && writes_rm);
  const bool clears = (opcode == 0x31 || opcode == 0x33) && writes_rm && reg == rm;
  if ((loads && instruction->length > 4) || clears) {
    if (loads) copy_bytes(&value, code + instruction->length - sizeof value, sizeof value);
    *number = value;
    return WRITES_NUMBER;
  }
  if ((opcode & 0xc4) == 0 && (opcode & 3) == 1) return writes_rm && (opcode & 0xf8) != 0x38 ? WRITES_UNKNOWN : WRITES_OTHER;
  if ((opcode & 0xc4) == 0 && (opcode & 3) == 3) return reg == 0 && (opcode & 0xf8) != 0x38 ? WRITES_UNKNOWN : WRITES_OTHER;
  switch (opcode) {
    case 0x63:
    case 0x69:
    case 0x6b:
    case 0x8b:
    case 0x8d: return reg == 0 ? WRITES_UNKNOWN : WRITES_OTHER;
    case 0x81:
    case 0x83:
    case 0x89:
    case 0xc1:
    case 0xc7: return writes_rm ? WRITES_UNKNOWN : WRITES_OTHER;
    case 0x85:
    case 0x90: return WRITES_OTHER;
    default: break;
  }
  if ((opcode & 0xf8) == 0x50) return WRITES_OTHER;                                             /* push */
  if ((opcode & 0xf8) == 0x58 || (opcode & 0xf8) == 0xb8) return low == 0 ? WRITES_UNKNOWN : WRITES_OTHER; /* pop, mov */
  return WRITES_UNKNOWN;
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
static bool is_among_code(const uint8_t *code, size_t size, size_t at, uint32_t begins) {
  struct instruction instruction;
  size_t position = at - (31 - (size_t)__builtin_clz(begins));
  for (size_t behind = 0; behind < COMMON_BEHIND && position < size; behind += position > at) {
    if (!decode(code + position, size - position, &instruction)) return position > at && size - position < LONGEST;
    if (!is_common(&instruction)) return false;
    position += instruction.length;
    if (position > at + CALL_SIZE && instruction.map == MAP_ONE_BYTE && (instruction.opcode == 0xc3 || instruction.opcode == 0xe9 || instruction.opcode == 0xeb)) break;
  }
  return true;
}

/* The number that is loaded before the call at `at`, with `targets` jumped to; -1 where that cannot be told. */
static long number_of_call(const uint8_t *code, size_t size, size_t at, uint32_t begins, uint32_t targets) {
  for (uint32_t k = 1; k <= LOOK_BACK; k++) {
    struct instruction instruction;
    long number = -1;
    if ((begins >> k & 1) == 0) continue;
    /* What is jumped to behind this instruction is reached without it. */
    if ((targets & ((1u << k) - 1)) != 0 || !decode(code + at - k, size - (at - k), &instruction) || instruction.jumps) return -1;
    const enum written written = writes_number(&instruction, code + at - k, &number);
    if (written != WRITES_OTHER) return written == WRITES_NUMBER ? number : -1;
  }
  return -1;
}

static bool matters(long number) { return number < 0 || number == __NR_madvise || number == __NR_mremap; }

/* How many bytes of whole instructions before `at` a jump can take the place of; 0 for too few. */
static uint32_t replaceable(const uint8_t *code, size_t size, size_t at, uint32_t begins, uint32_t targets) {
  for (uint32_t k = 1; k <= LOOK_BACK; k++) {
    struct instruction instruction;
    if ((begins >> k & 1) == 0) continue;
    if ((targets & ((1u << k) - 1)) != 0 || !decode(code + at - k, size - (at - k), &instruction) || !is_movable(&instruction)) return 0;
    if (k >= JUMP_SIZE) return k;
  }
  return 0;
}

enum arch_call_kind arch_examine_call(const uint8_t *code, size_t size, size_t at, struct arch_call_site *ret) {
  const uint32_t begins = boundaries(code, size, at);
  if (begins == 0 || !is_among_code(code, size, at, begins)) return ARCH_NO_CALL;
  /* Most calls are plainly something else: for those the short jumps will do. */
  if (!matters(number_of_call(code, size, at, begins, jump_targets(code, size, at, SHORT_JUMP_RANGE)))) return ARCH_OTHER_CALL;
  const uint32_t targets = jump_targets(code, size, at, JUMP_RANGE);
  ret->number = number_of_call(code, size, at, begins, targets);
  ret->length = replaceable(code, size, at, begins, targets);
  if (ret->length == 0) return ARCH_FIXED_CALL;
  copy_bytes(ret->original, code + at - ret->length, ret->length);
  return ARCH_REDIRECTABLE_CALL;
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
  uint8_t jump[LOOK_BACK];
  fill_bytes(jump, 0x90, sizeof jump);
  if (!put_jump(jump, start, (uint64_t)entry)) return false;
  copy_bytes((void *)start, jump, site->length);
  return true;
}

void arch_leave_redirected(struct ucontext *context, const struct arch_call_site *site, const uint8_t *entry) {
  const uint64_t into = context->uc_mcontext.rip - (site->call - site->length);
  if (into > 0 && into < site->length) context->uc_mcontext.rip = (uint64_t)entry + into;
}
