/*
 * Thread ids in memory. A restored thread has a new id, and some mutexes say by its id which thread holds them. Where these are is known, never guessed
 * by what memory looks like: robust mutexes are in lists that each thread has; musl links all that record an owner into such a list; and of glibc's
 * others (recursive, error-checking, priority-inheriting mutexes, write-locked rwlocks) an account is kept, by standing before the functions that lock
 * and unlock them. Mutexes that record no owner, which are most, cost no more than a look at their kind.
 *
 * Layouts: glibc, sysdeps/x86/nptl/bits/struct_mutex.h (lock, count, owner, users, kind, spins, list), struct_rwlock.h (readers, writers, two futex words,
 * two pads, the writer, shared, pads, flags), nptl/pthreadP.h (kinds); musl, src/internal/pthread_impl.h (type, lock, waiters, previous, next, count).
 */
#include <elf.h>
#include <linux/futex.h>

#include "engine.h"

#define PUBLIC __attribute__((visibility("default")))
#define FUTEX_TID 0x3fffffffu

/* ---- the C library's functions ---- */

enum function {
  MUTEX_LOCK, MUTEX_TRYLOCK, MUTEX_TIMEDLOCK, MUTEX_CLOCKLOCK, MUTEX_UNLOCK, MTX_LOCK, MTX_TRYLOCK, MTX_TIMEDLOCK, MTX_UNLOCK, RWLOCK_WRLOCK, RWLOCK_TRYWRLOCK, RWLOCK_TIMEDWRLOCK, RWLOCK_CLOCKWRLOCK, RWLOCK_UNLOCK, FUNCTION_COUNT
};
static const char *const names[FUNCTION_COUNT] = {
    [MUTEX_LOCK] = "pthread_mutex_lock", [MUTEX_TRYLOCK] = "pthread_mutex_trylock", [MUTEX_TIMEDLOCK] = "pthread_mutex_timedlock", [MUTEX_CLOCKLOCK] = "pthread_mutex_clocklock", [MUTEX_UNLOCK] = "pthread_mutex_unlock",
    [MTX_LOCK] = "mtx_lock", [MTX_TRYLOCK] = "mtx_trylock", [MTX_TIMEDLOCK] = "mtx_timedlock", [MTX_UNLOCK] = "mtx_unlock",
    [RWLOCK_WRLOCK] = "pthread_rwlock_wrlock", [RWLOCK_TRYWRLOCK] = "pthread_rwlock_trywrlock", [RWLOCK_TIMEDWRLOCK] = "pthread_rwlock_timedwrlock", [RWLOCK_CLOCKWRLOCK] = "pthread_rwlock_clockwrlock", [RWLOCK_UNLOCK] = "pthread_rwlock_unlock",
};

/* The beginning of struct dl_phdr_info (dl_iterate_phdr(3)). */
struct object {
  uint64_t address;
  const char *name;
  const Elf64_Phdr *segments;
  uint16_t segment_count;
};
extern __attribute__((weak)) int dl_iterate_phdr(int (*each)(struct object *, size_t, void *), void *context);

struct search {
  const char *name;
  bool passed; /* the engine itself, in the order in which libraries are searched */
  void *found;
};

/* System V ABI, "Hash Table"; and its GNU successor, whose chains end with a hash that has the lowest bit. */
static const Elf64_Sym *symbol_of(const struct object *object, const Elf64_Dyn *dynamic, const char *name) {
  uint64_t tables[3] = {0, 0, 0};
  const uint32_t *gnu = NULL, *plain = NULL;
  for (; dynamic->d_tag != DT_NULL; dynamic++) {
    /* Some loaders have made these addresses, some leave them relative to the object. */
    const uint64_t address = dynamic->d_un.d_ptr < object->address ? dynamic->d_un.d_ptr + object->address : dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_SYMTAB) tables[0] = address;
    if (dynamic->d_tag == DT_STRTAB) tables[1] = address;
    if (dynamic->d_tag == DT_GNU_HASH) gnu = (const uint32_t *)address;
    if (dynamic->d_tag == DT_HASH) plain = (const uint32_t *)address;
  }
  const Elf64_Sym *symbols = (const Elf64_Sym *)tables[0];
  const char *strings = (const char *)tables[1];
  if (symbols == NULL || strings == NULL) return NULL;
#define IS_WANTED(symbol) ((symbol)->st_shndx != SHN_UNDEF && strings_equal(strings + (symbol)->st_name, name))
  if (gnu != NULL) {
    uint32_t hash = 5381;
    for (const char *at = name; *at != 0; at++) hash = hash * 33 + (uint8_t)*at;
    const uint32_t bucket_count = gnu[0], first = gnu[1], *buckets = gnu + 4 + 2ul * gnu[2], *chain = buckets + bucket_count;
    uint32_t index = bucket_count == 0 ? 0 : buckets[hash % bucket_count];
    for (; index >= first && index != 0; index++) {
      if ((chain[index - first] | 1) == (hash | 1) && IS_WANTED(&symbols[index])) return &symbols[index];
      if ((chain[index - first] & 1) != 0) break;
    }
  } else if (plain != NULL) {
    for (uint32_t index = 1; index < plain[1]; index++)
      if (IS_WANTED(&symbols[index])) return &symbols[index];
  }
#undef IS_WANTED
  return NULL;
}

static int look_into(struct object *object, size_t size, void *context) {
  struct search *search = context;
  (void)size;
  if (object->address == engine_start()) {
    search->passed = true;
    return 0;
  }
  for (size_t i = 0; search->passed && i < object->segment_count; i++) {
    if (object->segments[i].p_type != PT_DYNAMIC) continue;
    const Elf64_Sym *symbol = symbol_of(object, (const Elf64_Dyn *)(object->address + object->segments[i].p_vaddr), search->name);
    if (symbol != NULL) search->found = (void *)(object->address + symbol->st_value);
  }
  return search->found != NULL;
}

/* The library's function; one that does nothing where there is none, as in programs of one thread with a C library that has threads apart. */
static int does_nothing(void) { return 0; }

static void *functions[FUNCTION_COUNT];

static __attribute__((noinline)) void *find_function(enum function which) {
  struct search search = {.name = names[which]};
  if (dl_iterate_phdr != NULL) dl_iterate_phdr(look_into, &search);
  void *found = search.found != NULL ? search.found : (void *)does_nothing;
  __atomic_store_n(&functions[which], found, __ATOMIC_RELEASE);
  return found;
}

/* ---- the account ---- */

/*
 * What is held or waited for: addresses, with how many threads do. An entry is made before the mutex is locked, and ends after it was unlocked, so that
 * there is one whenever it is held; whether it is, and by whom, the mutex tells.
 */
#define BUCKETS 512u
#define BUCKET_SIZE 8u
#define COUNT_MASK 0xffffu
#define RWLOCK 1u /* beside the address */
static uint64_t account[BUCKETS][BUCKET_SIZE];
static uint32_t not_in_account; /* entries that have found no place */

static uint64_t *bucket_of(uint64_t key) { return account[(key >> 3) * 0x9e3779b97f4a7c15ul >> 55]; }
_Static_assert(BUCKETS == 1u << (64 - 55), "bucket_of");

static void enter(uint64_t key) {
  uint64_t *bucket = bucket_of(key);
  for (;;) {
    uint64_t *place = NULL, seen = 0;
    for (size_t i = 0; i < BUCKET_SIZE && seen >> 16 != key; i++) {
      const uint64_t entry = __atomic_load_n(&bucket[i], __ATOMIC_ACQUIRE);
      if (entry >> 16 == key || (entry == 0 && place == NULL)) place = &bucket[i], seen = entry;
    }
    if (place == NULL) {
      __atomic_add_fetch(&not_in_account, 1, __ATOMIC_ACQ_REL);
      return;
    }
    if ((seen & COUNT_MASK) == COUNT_MASK) {
      sys(sched_yield);
      continue;
    }
    if (__atomic_compare_exchange_n(place, &seen, seen == 0 ? key << 16 | 1 : seen + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return;
  }
}

static void leave(uint64_t key) {
  uint64_t *bucket = bucket_of(key);
  for (size_t i = 0; i < BUCKET_SIZE; i++) {
    uint64_t seen = __atomic_load_n(&bucket[i], __ATOMIC_ACQUIRE);
    while (seen >> 16 == key)
      if (__atomic_compare_exchange_n(&bucket[i], &seen, (seen & COUNT_MASK) == 1 ? 0 : seen - 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return;
  }
  __atomic_sub_fetch(&not_in_account, 1, __ATOMIC_ACQ_REL);
}

enum mutex_word { WORD_LOCK, WORD_COUNT, WORD_OWNER, WORD_USERS, WORD_KIND, MUTEX_WORDS };
enum rwlock_word { WORD_READERS = 0, WORD_WRITER = 6, RWLOCK_WORDS };
#define KIND_RECURSIVE 1u
#define KIND_ROBUST 0x10u
#define KIND_INHERITS 0x20u

/* Mutexes that record their owner and are in no robust list. */
static inline bool is_of_accounted_kind(const uint32_t *mutex) {
  const uint32_t kind = __atomic_load_n(&mutex[WORD_KIND], __ATOMIC_RELAXED) & 0x33;
  return kind != 0 && kind != 3 && (kind & KIND_ROBUST) == 0;
}

/* A recursive mutex that its holder has locked before has an entry already. */
static bool is_held_deeper(const uint32_t *mutex) { return (mutex[WORD_KIND] & 3) == KIND_RECURSIVE && mutex[WORD_COUNT] > 1; }

/* Apart from what is rare, so that what is usual is a few instructions and a jump. */
#define PASS(which, name, is_usual, parameters, arguments)                     \
  static __attribute__((noinline)) int name##_accounted parameters;                  \
  PUBLIC int name parameters;                                                        \
  PUBLIC int name parameters {                                                       \
    __typeof__(name) *function = __atomic_load_n(&functions[which], __ATOMIC_ACQUIRE); \
    if (function == NULL) function = find_function(which);                           \
    return is_usual ? function arguments : name##_accounted arguments;               \
  }                                                                                  \
  static int name##_accounted parameters

#define LOCK(which, name, parameters, arguments)                                                                                                \
  PASS(which, name, !is_of_accounted_kind(mutex), parameters, arguments) {                             \
    if (!engine_on_glibc()) return ((__typeof__(name) *)functions[which])arguments;                                                             \
    enter((uint64_t)mutex);                                                                                                                     \
    const int result = ((__typeof__(name) *)functions[which])arguments;                                                                          \
    if (result != 0 || is_held_deeper(mutex)) leave((uint64_t)mutex);                                                                           \
    return result;                                                                                                                              \
  }

#define UNLOCK(which, name)                                                                                                                     \
  PASS(which, name, !is_of_accounted_kind(mutex), (uint32_t * mutex), (mutex)) { \
    const bool stays = !engine_on_glibc() || is_held_deeper(mutex);                                                                             \
    const int result = ((__typeof__(name) *)functions[which])(mutex);                                                                           \
    if (result == 0 && !stays) leave((uint64_t)mutex);                                                                                                    \
    return result;                                                                                                                              \
  }

#define WRITE_LOCK(which, name, parameters, arguments)                                                                                          \
  PASS(which, name, !engine_on_glibc(), parameters, arguments) {                                                             \
    enter((uint64_t)rwlock | RWLOCK);                                                                                                           \
    const int result = ((__typeof__(name) *)functions[which])arguments;                                                                          \
    if (result != 0) leave((uint64_t)rwlock | RWLOCK);                                                                                          \
    return result;                                                                                                                              \
  }

LOCK(MUTEX_LOCK, pthread_mutex_lock, (uint32_t * mutex), (mutex))
LOCK(MUTEX_TRYLOCK, pthread_mutex_trylock, (uint32_t * mutex), (mutex))
LOCK(MUTEX_TIMEDLOCK, pthread_mutex_timedlock, (uint32_t * mutex, const void *time), (mutex, time))
LOCK(MUTEX_CLOCKLOCK, pthread_mutex_clocklock, (uint32_t * mutex, int clock, const void *time), (mutex, clock, time))
LOCK(MTX_LOCK, mtx_lock, (uint32_t * mutex), (mutex))
LOCK(MTX_TRYLOCK, mtx_trylock, (uint32_t * mutex), (mutex))
LOCK(MTX_TIMEDLOCK, mtx_timedlock, (uint32_t * mutex, const void *time), (mutex, time))
UNLOCK(MUTEX_UNLOCK, pthread_mutex_unlock)
UNLOCK(MTX_UNLOCK, mtx_unlock)
WRITE_LOCK(RWLOCK_WRLOCK, pthread_rwlock_wrlock, (uint32_t * rwlock), (rwlock))
WRITE_LOCK(RWLOCK_TRYWRLOCK, pthread_rwlock_trywrlock, (uint32_t * rwlock), (rwlock))
WRITE_LOCK(RWLOCK_TIMEDWRLOCK, pthread_rwlock_timedwrlock, (uint32_t * rwlock, const void *time), (rwlock, time))
WRITE_LOCK(RWLOCK_CLOCKWRLOCK, pthread_rwlock_clockwrlock, (uint32_t * rwlock, int clock, const void *time), (rwlock, clock, time))

/* Who may unlock it holds it; and while there is a writer nobody else does. */
static bool has_writer(const uint32_t *rwlock) { return __atomic_load_n(&rwlock[WORD_WRITER], __ATOMIC_RELAXED) != 0; }

PASS(RWLOCK_UNLOCK, pthread_rwlock_unlock, !has_writer(rwlock), (uint32_t * rwlock), (rwlock)) {
  const int result = ((__typeof__(pthread_rwlock_unlock) *)functions[RWLOCK_UNLOCK])(rwlock);
  if (result == 0 && engine_on_glibc()) leave((uint64_t)rwlock | RWLOCK);
  return result;
}

/* ---- at a capture ---- */

static bool is_thread(const struct capture *capture, uint32_t tid) {
  for (size_t i = 0; i < capture->freeze->count; i++)
    if (capture->freeze->slots[i].tid == tid && capture->freeze->slots[i].state != SLOT_GONE) return true;
  return false;
}

static bool read_memory(const struct capture *capture, uint64_t address, void *to, size_t size) { return read_fully(capture->process_memory, to, size, address) == (long)size; }

static void add_reference(struct capture *capture, uint64_t address, uint32_t tid, uint32_t kind) {
  struct warp_tid_reference_record *reference = table_add(&capture->tid_references);
  *reference = (struct warp_tid_reference_record){address, tid, kind};
}

/* The words at `address`, if they are a mutex of glibc that is in no robust list and whose owner is a thread of the process. */
static void check_mutex(struct capture *capture, const uint32_t *words, uint64_t address) {
  const uint32_t kind = words[WORD_KIND], owner = words[WORD_OWNER];
  const bool inherits = (kind & KIND_INHERITS) != 0;
  if (!is_of_accounted_kind(words) || (kind & ~0x3f3u) != 0 || words[WORD_USERS] == 0 || !is_thread(capture, owner)) return;
  if (inherits ? (words[WORD_LOCK] & FUTEX_TID) != owner : words[WORD_LOCK] != 1 && words[WORD_LOCK] != 2) return;
  if ((kind & 3) == KIND_RECURSIVE ? words[WORD_COUNT] == 0 : words[WORD_COUNT] > 1) return;
  add_reference(capture, address + WORD_OWNER * sizeof *words, owner, WARP_TID_MUTEX);
  if (inherits) add_reference(capture, address + WORD_LOCK * sizeof *words, owner, WARP_TID_FUTEX);
}

static void check_rwlock(struct capture *capture, const uint32_t *words, uint64_t address) {
  if ((words[WORD_READERS] & 3) == 3 && is_thread(capture, words[WORD_WRITER])) add_reference(capture, address + WORD_WRITER * sizeof *words, words[WORD_WRITER], WARP_TID_MUTEX);
}

static int check_account(struct capture *capture) {
  const uint32_t lost = __atomic_load_n(&not_in_account, __ATOMIC_ACQUIRE);
  if (lost > 0) return fail(capture->failure, "%u mutexes too many that record their owner (recursive, error-checking, priority-inheriting, write-locked) are locked: the program must hold fewer at a checkpoint", lost);
  for (size_t i = 0; i < BUCKETS * BUCKET_SIZE; i++) {
    const uint64_t entry = __atomic_load_n(&account[i / BUCKET_SIZE][i % BUCKET_SIZE], __ATOMIC_ACQUIRE), key = entry >> 16, address = key & ~(uint64_t)RWLOCK;
    uint32_t words[RWLOCK_WORDS];
    /* A thread that ended with a mutex locked leaves its entry, and the memory may be gone. */
    if (entry == 0 || !read_memory(capture, address, words, sizeof words)) continue;
    if ((key & RWLOCK) != 0) {
      check_rwlock(capture, words, address);
    } else {
      check_mutex(capture, words, address);
    }
  }
  return 0;
}

/*
 * The C library's own (that of dlopen(3), for one) are locked without its public functions. They are static: what in its few pages of data looks like one
 * is one. `from` is where its data begins, which may go on in anonymous memory.
 */
static void check_library_data(struct capture *capture, uint64_t from, uint64_t end) {
  enum { MUTEX_PART = 10, RWLOCK_PART = 14 };
  uint32_t *page = arena_allocate(&capture->arena, PAGE_SIZE + RWLOCK_PART * sizeof *page);
  for (uint64_t at = from; at < end; at += PAGE_SIZE) {
    const size_t size = min_u64(end - at, PAGE_SIZE + RWLOCK_PART * sizeof *page);
    fill_bytes(page, 0, PAGE_SIZE + RWLOCK_PART * sizeof *page);
    if (!read_memory(capture, at, page, size)) continue;
    for (size_t i = 0; i < PAGE_SIZE / sizeof *page; i += 2) {
      const uint32_t *words = page + i;
      const uint64_t address = at + i * sizeof *page;
      /* In no list; and of a rwlock, the futex words, the pads and the flags. */
      if ((words[5] | words[6] | words[7] | words[8] | words[9]) == 0) check_mutex(capture, words, address);
      if (words[1] == 0 && words[2] <= 3 && (words[3] & ~2u) == 1 && (words[4] | words[5] | words[7] | words[8] | words[9] | words[10] | words[11] | words[13]) == 0 && words[12] <= 2) check_rwlock(capture, words, address);
    }
  }
}

static void check_library(struct capture *capture) {
  uint64_t data_end = 0;
  for (size_t i = 0; i < capture->vmas.records.count; i++) {
    const struct warp_vma_record *vma = table_at(&capture->vmas, struct warp_vma_record, i);
    bool belongs = vma->kind == WARP_VMA_ANONYMOUS && vma->start == data_end;
    if (vma->kind == WARP_VMA_FILE) {
      const struct warp_file_record *file = table_at(&capture->files, struct warp_file_record, vma->file);
      char path[4096];
      format(path, sizeof path, "%.*s", (int)file->path.length, capture->files.heap.bytes + file->path.offset);
      belongs = is_c_library(path);
    }
    data_end = 0;
    if (!belongs || (vma->protection & WARP_PROT_WRITE) == 0) continue;
    data_end = vma->end;
    check_library_data(capture, vma->start, vma->end);
  }
}

/* What a thread holds can be no more than this. */
#define LONGEST_LIST 2048u

/* The list that the kernel goes through when the thread ends (get_robust_list(2), include/uapi/linux/futex.h). */
static void check_robust_list(struct capture *capture, const struct slot *slot) {
  uint64_t head = 0, size = 0;
  struct robust_list_head list;
  if (sys(get_robust_list, slot->tid, &head, &size) < 0 || size != sizeof list || !read_memory(capture, head, &list, sizeof list)) return;
  uint64_t entry = (uint64_t)list.list.next;
  for (uint32_t i = 0; i < LONGEST_LIST; i++) {
    const bool pending = entry == head || entry == 0;
    if (pending) entry = (uint64_t)list.list_op_pending;
    entry &= ~1ul; /* of one that inherits priority */
    const uint64_t lock = entry + (uint64_t)list.futex_offset;
    uint32_t words[MUTEX_WORDS];
    uint64_t next;
    if (entry == 0 || !read_memory(capture, lock, words, sizeof words)) return;
    if ((words[WORD_LOCK] & FUTEX_TID) == slot->tid) add_reference(capture, lock, slot->tid, WARP_TID_FUTEX);
    if (engine_on_glibc() && words[WORD_OWNER] == slot->tid) add_reference(capture, lock + WORD_OWNER * sizeof *words, slot->tid, WARP_TID_MUTEX);
    if (pending || !read_memory(capture, entry, &next, sizeof next)) return;
    entry = next;
  }
}

/* musl's list, in the thread's own structure, of all that the thread holds and that record it: the kernel is told only of those that are shared. */
static void check_musl_list(struct capture *capture, const struct slot *slot) {
  enum { STRUCTURE_WORDS = 64, TYPE = 0, LOCK_WORD = 1, NEXT_OFFSET = 32 };
  uint64_t words[STRUCTURE_WORDS], back;
  if (!read_memory(capture, slot->fs_base, words, sizeof words)) return;
  for (size_t k = 0; k < STRUCTURE_WORDS; k++) {
    const uint64_t head = slot->fs_base + k * sizeof *words;
    uint64_t entry = words[k];
    /* Of the list, and of nothing else there: what comes before the first entry's link points back. */
    if (entry == head || entry % 8 != 0 || !read_memory(capture, entry - sizeof back, &back, sizeof back) || back != head) continue;
    for (uint32_t i = 0; entry != head && i < LONGEST_LIST; i++) {
      uint32_t mutex[2];
      const uint64_t address = entry - NEXT_OFFSET;
      if (!read_memory(capture, address, mutex, sizeof mutex)) break;
      if (mutex[TYPE] != 0 && (mutex[LOCK_WORD] & FUTEX_TID) == slot->tid) add_reference(capture, address + LOCK_WORD * sizeof *mutex, slot->tid, WARP_TID_MUTEX);
      if (!read_memory(capture, entry, &entry, sizeof entry)) break;
    }
  }
}

#define FUTEX_LOCK_PI2_ 13

/*
 * A thread that waits for a robust or priority-inheriting mutex of glibc has read its own id before, and will write it into the mutex when it gets it:
 * it is in a register or in the frame (nptl/pthread_mutex_lock.c).
 */
static void check_waiting(struct capture *capture, struct slot *slot) {
  if (slot->system_call != __NR_futex) return;
  const uint64_t futex = arch_context_argument(slot->context, 0), operation = arch_context_argument(slot->context, 1) & (uint64_t)FUTEX_CMD_MASK, value = arch_context_argument(slot->context, 2);
  uint32_t words[MUTEX_WORDS];
  const bool waits = operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET;
  const bool robust = waits && (value & FUTEX_WAITERS) != 0 && read_memory(capture, futex, words, sizeof words) && (words[WORD_KIND] & ~0x3f3u) == 0 && (words[WORD_KIND] & KIND_ROBUST) != 0;
  const bool inheriting = operation == FUTEX_LOCK_PI || operation == FUTEX_LOCK_PI2_ || operation == FUTEX_WAIT_REQUEUE_PI;
  if (!robust && !inheriting) return;
  size_t count;
  const uint64_t *registers = arch_context_registers(slot->context, &count);
  for (size_t k = 0; k < count; k++)
    if (registers[k] == slot->tid) add_reference(capture, (uint64_t)&registers[k], slot->tid, WARP_TID_CACHED);
  const uint32_t *frame = (const uint32_t *)arch_context_stack(slot->context);
  for (size_t k = 0; k < 64; k++)
    if (frame[k] == slot->tid) add_reference(capture, (uint64_t)&frame[k], slot->tid, WARP_TID_CACHED);
}

int capture_mutexes(struct capture *capture) {
  for (size_t i = 0; i < capture->freeze->count; i++) {
    struct slot *slot = &capture->freeze->slots[i];
    if (slot->state != SLOT_PARKED) continue;
    check_robust_list(capture, slot);
    if (engine_on_glibc()) {
      check_waiting(capture, slot);
    } else {
      check_musl_list(capture, slot);
    }
  }
  if (!engine_on_glibc()) return 0;
  check_library(capture);
  return check_account(capture);
}
