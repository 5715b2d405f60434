/*
 * Filling memory while the program runs. Three ways make absent memory known, tried in this order: userfaultfd that also covers
 * the kernel's own accesses, userfaultfd for the program's accesses only, and memory without access rights whose SIGSEGV the
 * engine handles. System calls are held up in each of them until what they refer to is there (dispatch.c).
 *
 * Loader threads fill chunk after chunk in image order. What a thread waits for is loaded first, by the helper thread, or by the
 * thread that reads the userfaultfd. Content is checked against its hash before anybody sees it.
 */
#include <linux/ioctl.h>
#include <linux/mman.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>

#include "../image/chunks.h"
#include "loading.h"

#define WORKER_STACK_SIZE (64 * KIB)
#define MAXIMUM_WORKERS 64u
#define HUGE_PAGE (2 * MIB)
#define MADV_COLLAPSE_ 25 /* Linux 6.1 */
#define LOADER_NICE 10

#define PRIO_PROCESS_ 0 /* setpriority(2) */

struct worker {
  uint8_t *content;
  uint8_t *stored;
  uint8_t *stack;
  uint32_t running; /* cleared by the kernel when the thread has ended */
  struct worker *next;
};

static struct warp_loading *loading;
static struct worker *workers;
static struct worker *helper_worker;
static uint32_t absent_chunks;  /* a futex: 0 when all is there */
static uint32_t next_chunk;     /* that a loader takes */
static uint32_t requests;       /* index + 1 of the latest requested chunk: a list */
static uint32_t request_count;  /* a futex */
static struct image_cipher *cipher; /* of an encrypted image; in memory that is in no child, core dump or image */
static int fault_fd = -1;
static uint32_t stop_reading_faults;

static _Noreturn void die(const char *reason) {
  char line[1400];
  size_t n = format(line, sizeof line, "warp-restore: %s; the program cannot go on without it and is ended\n", reason);
  if (loading->error_fd >= 0) write_fully(loading->error_fd, line, n);
  log_error("%.*s", (int)(n - 1), line);
  for (;;) sys(exit_group, 2);
}

/* ---- filling ---- */

static _Noreturn void die_filling(const struct warp_load_piece *piece, long error) {
  char reason[200];
  format(reason, sizeof reason, "memory 0x%lx-0x%lx cannot be filled: %s: restore without --concurrent", piece->address, piece->address + piece->size, error_text(error));
  die(reason);
}

static void fill_by_userfaultfd(const struct warp_load_piece *piece, const uint8_t *content) {
  for (uint64_t done = 0; done < piece->size;) {
    struct uffdio_copy copy = {.dst = piece->address + done, .src = (uint64_t)content + done, .len = piece->size - done};
    long error = sys(ioctl, fault_fd, UFFDIO_COPY, &copy);
    if (error == 0) break;
    if (copy.copy > 0) done += (uint64_t)copy.copy;
    if (error == -EAGAIN) continue;
    die_filling(piece, error);
  }
  /* From here on pages that the program gives back read as zeros again. */
  struct uffdio_range range = {piece->address, piece->size};
  long error = sys(ioctl, fault_fd, UFFDIO_UNREGISTER, &range);
  if (error < 0) die_filling(piece, error);
}

static void fill_by_process_memory(const struct warp_load_piece *piece, const uint8_t *content) {
  long error = pwrite_fully(loading->memory_fd, content, piece->size, piece->address);
  if (error >= 0) error = sys(mprotect, piece->address, piece->size, piece->protection);
  if (error < 0) die_filling(piece, error);
}

static void report(const struct warp_load_chunk *chunk) {
  if (loading->trace_fd < 0) return;
  uint64_t asked_ns = __atomic_load_n(&chunk->asked_ns, __ATOMIC_ACQUIRE);
  const struct warp_load_event event = {loading->records[chunk->number].content_offset, asked_ns == 0 ? 0 : asked_ns - loading->begin_ns, clock_ns(CLOCK_MONOTONIC_) - loading->begin_ns};
  write_fully(loading->trace_fd, &event, sizeof event);
}

/* Loads a chunk unless somebody else does or did. */
static void load(struct worker *worker, uint32_t index) {
  struct warp_load_chunk *chunk = &loading->chunks[index];
  uint32_t absent = WARP_LOAD_ABSENT;
  if (!__atomic_compare_exchange_n(&chunk->state, &absent, WARP_LOAD_BUSY, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return;
  const struct chunk_index chunks = {.path = loading->path, .fd = loading->image_fd, .records = loading->records, .count = loading->record_count, .cipher = cipher};
  struct failure failure = {.text = ""};
  if (chunk_read(&chunks, chunk->number, worker->content, worker->stored, loading->pieces[chunk->first_piece].address, &failure) < 0) die(failure.text);
  if (cipher != NULL) wipe_stack();
  for (uint32_t i = chunk->first_piece; i != WARP_NONE; i = loading->pieces[i].next) {
    const struct warp_load_piece *piece = &loading->pieces[i];
    if (fault_fd >= 0) {
      fill_by_userfaultfd(piece, worker->content + piece->offset);
    } else {
      fill_by_process_memory(piece, worker->content + piece->offset);
    }
  }
  report(chunk);
  __atomic_store_n(&chunk->state, WARP_LOAD_PRESENT, __ATOMIC_RELEASE);
  futex_wake(&chunk->state, 0x7fffffff);
  if (__atomic_sub_fetch(&absent_chunks, 1, __ATOMIC_ACQ_REL) == 0) {
    futex_wake(&absent_chunks, 0x7fffffff);
    __atomic_add_fetch(&request_count, 1, __ATOMIC_RELEASE);
    futex_wake(&request_count, 1);
  }
}

/* ---- who waits ---- */

/* Index of the first piece that ends behind `address`; the count when there is none. */
static uint32_t first_piece_behind(const struct warp_loading *current, uint64_t address) {
  uint32_t low = 0, high = current->piece_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (current->pieces[middle].address + current->pieces[middle].size <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

uint32_t loading_piece_at(uint64_t address) {
  const struct warp_loading *current = loading;
  if (current == NULL) return WARP_NONE;
  uint32_t piece = first_piece_behind(current, address);
  return piece < current->piece_count && current->pieces[piece].address <= address ? piece : WARP_NONE;
}

bool loading_piece_present(uint32_t piece) { return __atomic_load_n(&loading->chunks[loading->pieces[piece].chunk].state, __ATOMIC_ACQUIRE) == WARP_LOAD_PRESENT; }

static void note_asked(struct warp_load_chunk *chunk) {
  uint64_t never = 0;
  __atomic_compare_exchange_n(&chunk->asked_ns, &never, clock_ns(CLOCK_MONOTONIC_), false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static void request(uint32_t index) {
  struct warp_load_chunk *chunk = &loading->chunks[index];
  if (__atomic_exchange_n(&chunk->requested, 1, __ATOMIC_ACQ_REL) != 0) return;
  uint32_t head = __atomic_load_n(&requests, __ATOMIC_ACQUIRE);
  do chunk->next_request = head;
  while (!__atomic_compare_exchange_n(&requests, &head, index + 1, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  __atomic_add_fetch(&request_count, 1, __ATOMIC_RELEASE);
  futex_wake(&request_count, 1);
}

static void ask(uint32_t index) {
  note_asked(&loading->chunks[index]);
  request(index);
}

static void wait_for(uint32_t index) {
  uint32_t *state = &loading->chunks[index].state, seen;
  while ((seen = __atomic_load_n(state, __ATOMIC_ACQUIRE)) != WARP_LOAD_PRESENT) {
    if (seen == WARP_LOAD_ABSENT) request(index);
    futex_wait(state, seen, NULL);
  }
}

void loading_ensure(uint64_t address, uint64_t size) {
  if (loading == NULL || size == 0 || __atomic_load_n(&absent_chunks, __ATOMIC_ACQUIRE) == 0) return;
  uint64_t end = address + size < address ? UINT64_MAX : address + size;
  uint32_t first = first_piece_behind(loading, address);
  if ((uint32_t)sys(gettid) == helper_tid) {
    for (uint32_t i = first; i < loading->piece_count && loading->pieces[i].address < end; i++) {
      load(helper_worker, loading->pieces[i].chunk);
      wait_for(loading->pieces[i].chunk);
    }
    return;
  }
  /* All are asked for before the first is waited for. */
  for (uint32_t i = first; i < loading->piece_count && loading->pieces[i].address < end; i++)
    if (!loading_piece_present(i)) ask(loading->pieces[i].chunk);
  for (uint32_t i = first; i < loading->piece_count && loading->pieces[i].address < end; i++) wait_for(loading->pieces[i].chunk);
}

void loading_ensure_all(void) {
  if (loading == NULL) return;
  /* Not what the program needs, and not to be recorded as that. */
  for (uint32_t i = 0; loading->concurrency == 0 && i < loading->chunk_count; i++) request(i);
  uint32_t left;
  while ((left = __atomic_load_n(&absent_chunks, __ATOMIC_ACQUIRE)) != 0) futex_wait(&absent_chunks, left, &(struct timespec64){0, 10000000});
}

/* ---- the loaders ---- */

static void end_thread(void) {
  for (;;) sys(exit, 0);
}

static void load_in_order(void *argument) {
  struct worker *worker = argument;
  sys(prctl, PR_SET_NAME, "warp-loader");
  /* The program goes first: what it waits for is loaded by others, and this thread ends with its work. */
  sys(setpriority, PRIO_PROCESS_, 0, LOADER_NICE);
  for (;;) {
    uint32_t index = __atomic_fetch_add(&next_chunk, 1, __ATOMIC_RELAXED);
    if (index >= loading->chunk_count) break;
    load(worker, index);
  }
  end_thread();
}

static void read_faults(void *argument) {
  struct worker *worker = argument;
  sys(prctl, PR_SET_NAME, "warp-loader");
  while (__atomic_load_n(&stop_reading_faults, __ATOMIC_ACQUIRE) == 0) {
    struct uffd_msg messages[16];
    struct pollfd polled = {.fd = fault_fd, .events = POLLIN};
    if (sys(poll, &polled, 1, 20) <= 0) continue;
    long n = sys(read, fault_fd, messages, sizeof messages);
    for (size_t i = 0; n > 0 && i < (size_t)n / sizeof messages[0]; i++) {
      if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
      uint64_t address = messages[i].arg.pagefault.address;
      uint32_t piece = loading_piece_at(address);
      if (piece == WARP_NONE) continue;
      note_asked(&loading->chunks[loading->pieces[piece].chunk]);
      load(worker, loading->pieces[piece].chunk);
    }
  }
  end_thread();
}

static struct worker *new_worker(void) {
  struct worker *worker = engine_memory(sizeof *worker);
  if (worker == NULL) return NULL;
  worker->content = engine_memory(CHUNK_LARGEST + CHUNK_ROOM);
  if (worker->content == NULL) return NULL;
  worker->stored = worker->content + CHUNK_LARGEST;
  worker->next = workers;
  workers = worker;
  return worker;
}

static bool start_worker(void (*function)(void *)) {
  struct worker *worker = new_worker();
  if (worker == NULL || (worker->stack = engine_memory(WORKER_STACK_SIZE)) == NULL) return false;
  worker->running = 1;
  uint64_t flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
  long tid = arch_clone(flags, worker->stack + WORKER_STACK_SIZE - 64, NULL, &worker->running, 0, function, worker);
  if (tid < 0) worker->running = 0;
  return tid >= 0;
}

/* ---- beginning ---- */

/* Neighbouring pieces of the same protection are one range: for few calls and few memory areas. */
static long for_each_range(long (*each)(uint64_t address, uint64_t size)) {
  for (uint32_t i = 0; i < loading->piece_count;) {
    uint64_t start = loading->pieces[i].address, end = start;
    while (i < loading->piece_count && loading->pieces[i].address == end) end += loading->pieces[i++].size;
    long error = each(start, end - start);
    if (error < 0) return error;
  }
  return 0;
}

static long register_range(uint64_t address, uint64_t size) {
  struct uffdio_register range = {.range = {address, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  const long error = sys(ioctl, fault_fd, UFFDIO_REGISTER, &range);
  /* A huge page for what the restorer has loaded may reach into this range: present, and zero. */
  return error < 0 ? error : sys(madvise, address, size, MADV_DONTNEED);
}

static long forbid_range(uint64_t address, uint64_t size) { return sys(mprotect, address, size, PROT_NONE); }

static bool open_userfaultfd(bool user_only) {
  long fd = sys(userfaultfd, O_CLOEXEC | O_NONBLOCK | (user_only ? UFFD_USER_MODE_ONLY : 0));
  if (fd < 0) return false;
  struct uffdio_api api = {.api = UFFD_API};
  fault_fd = (int)fd;
  if (sys(ioctl, fd, UFFDIO_API, &api) == 0 && for_each_range(register_range) == 0) return true;
  sys(close, fd);
  fault_fd = -1;
  return false;
}

static bool choose_faults(void) {
  uint32_t wanted = loading->faults;
  if ((wanted == WARP_LOAD_FAULTS_AUTO || wanted == WARP_LOAD_FAULTS_USERFAULTFD) && open_userfaultfd(false)) {
    loading->faults = WARP_LOAD_FAULTS_USERFAULTFD;
    return true;
  }
  if ((wanted == WARP_LOAD_FAULTS_AUTO || wanted == WARP_LOAD_FAULTS_USERFAULTFD_USER) && open_userfaultfd(true)) {
    loading->faults = WARP_LOAD_FAULTS_USERFAULTFD_USER;
    return true;
  }
  if (wanted != WARP_LOAD_FAULTS_AUTO && wanted != WARP_LOAD_FAULTS_SIGNALS) return false;
  loading->faults = WARP_LOAD_FAULTS_SIGNALS;
  return loading->memory_fd >= 0 && for_each_range(forbid_range) == 0;
}

static bool take_key(void) {
  const long address = map_anonymous(0, round_up(sizeof *cipher, PAGE_SIZE), PROT_READ | PROT_WRITE, 0);
  if (address < 0) return false;
  sys(madvise, address, sizeof *cipher, MADV_DONTFORK);
  sys(madvise, address, sizeof *cipher, MADV_DONTDUMP);
  cipher = (struct image_cipher *)address;
  image_cipher_begin(cipher, loading->image_key, loading->image_id);
  wipe(loading->image_key, sizeof loading->image_key);
  wipe_stack();
  return true;
}

static void forget_key(void) {
  if (cipher == NULL) return;
  wipe(cipher, sizeof *cipher);
  sys(munmap, cipher, round_up(sizeof *cipher, PAGE_SIZE));
  cipher = NULL;
}

bool loading_begin(void) {
  loading = warp_control.loading;
  if (loading == NULL) return false;
  absent_chunks = loading->chunk_count;
  next_chunk = requests = request_count = stop_reading_faults = 0;
  helper_worker = new_worker();
  if (helper_worker == NULL || (loading->encrypted != 0 && !take_key()) || !choose_faults()) {
    const char line[] = "warp-restore: memory cannot be guarded for loading while the program runs: restore without --concurrent\n";
    write_fully(loading->error_fd, line, sizeof line - 1);
    for (;;) sys(exit_group, 2);
  }
  log_debug("%u chunks in %u pieces are loaded while the program runs, by %u threads, %s", loading->chunk_count, loading->piece_count, loading->concurrency,
            loading->faults == WARP_LOAD_FAULTS_SIGNALS ? "with signals" : loading->faults == WARP_LOAD_FAULTS_USERFAULTFD ? "with userfaultfd" : "with userfaultfd for user mode");
  dispatch_begin(loading->faults == WARP_LOAD_FAULTS_SIGNALS);
  if (fault_fd >= 0) start_worker(read_faults);
  return true;
}

/* ---- serving and ending ---- */

static void serve_requests(void) {
  while (__atomic_load_n(&absent_chunks, __ATOMIC_ACQUIRE) != 0) {
    uint32_t seen = __atomic_load_n(&request_count, __ATOMIC_ACQUIRE);
    uint32_t next = __atomic_exchange_n(&requests, 0, __ATOMIC_ACQ_REL);
    if (next == 0) {
      if (__atomic_load_n(&absent_chunks, __ATOMIC_ACQUIRE) != 0) futex_wait(&request_count, seen, NULL);
      continue;
    }
    for (; next != 0; next = loading->chunks[next - 1].next_request) load(helper_worker, next - 1);
  }
}

static void join_workers(void) {
  __atomic_store_n(&stop_reading_faults, 1, __ATOMIC_RELEASE);
  while (workers != NULL) {
    struct worker *worker = workers;
    uint32_t running;
    while ((running = __atomic_load_n(&worker->running, __ATOMIC_ACQUIRE)) != 0) futex_wait(&worker->running, running, &(struct timespec64){0, 10000000});
    workers = worker->next;
    engine_memory_free(worker->content);
    if (worker->stack != NULL) engine_memory_free(worker->stack);
    engine_memory_free(worker);
  }
}

void loading_forked(uint32_t parent_tid) {
  if (loading == NULL) return;
  loading = NULL;
  warp_control.loading = NULL;
  cipher = NULL; /* not mapped here */
  dispatch_forked(parent_tid);
  sys(munmap, warp_control.bootstrap_address, warp_control.bootstrap_size);
}

/*
 * Memory comes back in small pages. Where the program has asked for huge ones it gets them now, not only when khugepaged has come by: that looks
 * at 16 MiB in ten seconds.
 */
static void give_huge_pages(const struct warp_load_range *ranges, uint64_t count) {
  char setting[64];
  if (count == 0 || read_small_file("/sys/kernel/mm/transparent_hugepage/enabled", setting, sizeof setting) <= 0 || find_string(setting, "[never]") != NULL) return;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t start = round_up(ranges[i].start, HUGE_PAGE), end = round_down(ranges[i].end, HUGE_PAGE);
    uint64_t done = 0;
    /* One by one: the program's page faults wait meanwhile. */
    for (uint64_t at = start; at < end; at += HUGE_PAGE) done += sys(madvise, at, HUGE_PAGE, MADV_COLLAPSE_) == 0 ? HUGE_PAGE : 0;
    log_debug("memory 0x%lx-0x%lx: %lu MiB in huge pages", ranges[i].start, ranges[i].end, done / MIB);
  }
}

void loading_run(void) {
  /* The program goes on before they begin: they would take the processor that lets it go. */
  for (uint32_t i = 0; i < loading->concurrency && i < MAXIMUM_WORKERS; i++) start_worker(load_in_order);
  serve_requests();
  uint64_t loaded_ns = clock_ns(CLOCK_MONOTONIC_);
  join_workers();
  forget_key();
  /* A thread that cannot be stopped now (it waits in vfork, say) only pays a little more for its system calls until then. */
  for (uint64_t pause_ns = 1000000; !dispatch_end(); pause_ns = min_u64(2 * pause_ns, 10000000000)) {
    const struct timespec64 pause = {(int64_t)(pause_ns / 1000000000), (int64_t)(pause_ns % 1000000000)};
    sys(nanosleep, &pause, NULL);
  }
  const int descriptors[] = {fault_fd, loading->image_fd, loading->memory_fd, loading->trace_fd, loading->error_fd};
  for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++)
    if (descriptors[i] >= 0) sys(close, descriptors[i]);
  fault_fd = -1;
  log_info("all memory loaded %lu ms after the restore began", (loaded_ns - loading->begin_ns) / 1000000);
  give_huge_pages(loading->huge, loading->huge_count);
  loading = NULL;
  warp_control.loading = NULL;
}
