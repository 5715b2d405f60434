/*
 * Memory of a file that somebody shortens while it is mapped is gone: whoever touches it gets SIGBUS. The program may never do that, so a capture, which
 * reads all that was mapped from an earlier image, must not end it: the engine handles the signal meanwhile, and the checkpoint fails.
 */
#include "engine.h"

#define SIGBUS_ 7
#define SIGBUS_MASK (1ul << (SIGBUS_ - 1))

static struct capture *reading;

static _Noreturn void lose(uint64_t address) {
  uint64_t none = 0;
  __atomic_compare_exchange_n(&reading->lost_address, &none, address, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  const uint32_t tid = (uint32_t)sys(gettid);
  for (struct reader *reader = __atomic_load_n(&reading->readers, __ATOMIC_ACQUIRE); reader != NULL; reader = reader->next)
    if (reader->tid == tid) __builtin_longjmp(reader->frame, 1);
  capture_failed();
}

static void on_lost_memory(int number, struct siginfo *info, void *context) {
  (void)number;
  if (info->si_code > 0) lose((uint64_t)info->_sifields._sigfault._addr);
  /* Sent by somebody: it gets to the program when its threads go on. */
  if (reading->sent_signals == 0) copy_bytes(reading->sent_signal, info, sizeof reading->sent_signal);
  reading->sent_signals = 1;
  (void)context;
}

void reading_begin(struct capture *capture) {
  const struct arch_sigaction action = {
      .handler = (uint64_t)on_lost_memory,
      .flags = SA_SIGINFO | SA_NODEFER | ARCH_SA_RESTORER,
      .restorer = (uint64_t)arch_signal_return,
  };
  const uint64_t mask = SIGBUS_MASK;
  reading = capture;
  if (sys(rt_sigaction, SIGBUS_, &action, &capture->sigbus_action, sizeof action.mask) < 0) return;
  capture->guarded = true;
  sys(rt_sigprocmask, 1 /* SIG_UNBLOCK */, &mask, NULL, sizeof mask);
}

void reading_end(struct capture *capture) {
  const uint64_t mask = SIGBUS_MASK;
  if (!capture->guarded) return;
  sys(rt_sigprocmask, 0 /* SIG_BLOCK */, &mask, NULL, sizeof mask);
  sys(rt_sigaction, SIGBUS_, &capture->sigbus_action, NULL, sizeof mask);
  capture->guarded = false;
  if (capture->sent_signals == 0) return;
  struct warp_pending_signal_record *record = table_add(&capture->pending_signals);
  copy_bytes(record->siginfo, capture->sent_signal, sizeof capture->sent_signal);
}

void reading_add(struct capture *capture, struct reader *reader) {
  reader->tid = (uint32_t)sys(gettid);
  reader->next = __atomic_load_n(&capture->readers, __ATOMIC_ACQUIRE);
  while (!__atomic_compare_exchange_n(&capture->readers, &reader->next, reader, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) continue;
}

void reading_lost(uint64_t address) { lose(address); }

/* By the kernel's list of mappings: the capture's own may not be complete yet. */
void reading_explain(struct capture *capture) {
  const uint64_t address = capture->lost_address;
  struct arena scratch = {NULL};
  struct map_line line;
  size_t size;
  long error;
  if (address == 0) return;
  capture->failure->text[0] = 0;
  const char *at = read_whole_file(&scratch, "/proc/self/maps", &size, &error);
  while (at != NULL && (at = parse_map_line(at, &line)) != NULL)
    if (address >= line.start && address < line.end) break;
  if (at != NULL && line.inode != 0) {
    fail(capture->failure, "%.*s: the file has become shorter than what is mapped of it (memory at 0x%lx, offset 0x%lx): replace files that are in use by renaming new ones, and restore the program anew", (int)line.name_length,
         line.name, address, line.offset + (address - line.start));
  } else {
    fail(capture->failure, "memory at 0x%lx cannot be read: its file has become shorter, or the machine's memory is damaged: start the program anew", address);
  }
  arena_release(&scratch);
}
