/*
 * warp-restore's inner interfaces. The restorer is one process that turns into the program: it reads the image's metadata,
 * copies itself to a place that the image does not use, opens files and descriptors, replaces its own memory with the
 * image's, starts the threads, and leaves. docs/engine.md tells the order and why.
 */
#ifndef WARP_RESTORE_H
#define WARP_RESTORE_H

#include "../engine/control.h"
#include "../image/chunks.h"
#include "../image/simulated.h"
#include "../image/policies.h"
#include "../image/tables.h"
#include "../program/program.h"

/* The program's descriptor `number`, and all that share its open file, become the caller's `fd`. */
struct inherited_descriptor {
  uint32_t number;
  int fd;
};
#define MOST_INHERITED 64

enum concurrent { CONCURRENT_AUTO, CONCURRENT_ALWAYS, CONCURRENT_NEVER };

struct options {
  enum engine_kind engine;
  int32_t follow; /* a child that is already there, 0: none */
  char image[4200];
  int32_t image_fd; /* the image itself, where the caller has opened it, else -1 */
  char stats[4200];
  char policies[4200]; /* file of rules; empty for none */
  bool list_policies;  /* only says what they mean for the image */
  bool direct_map;
  uint32_t environment_size;
  char environment[WARP_ENVIRONMENT_ROOM];
  uint32_t arguments_size;
  char arguments[WARP_ARGUMENTS_ROOM];
  bool keep_pid;
  const char *key_file, *key_variable; /* at most one; read before memory is given up */
  struct inherited_descriptor inherited[MOST_INHERITED];
  uint32_t inherited_count;
  bool verify;
  enum concurrent concurrent;
  bool load_concurrency_given;
  uint32_t load_concurrency;
  uint32_t load_faults; /* enum warp_load_faults */
  uint32_t restore_data_size;
  uint8_t restore_data[WARP_RESTORE_DATA_ROOM]; /* for the program to ask for */
  uint32_t notify_signal; /* queued to the program before it goes on, 0: none */
  int32_t notify_value;
  char trace[4200];     /* where to record what is loaded when; empty for nowhere */
};

/* What opens an encrypted image. */
struct decryption {
  bool key_given;
  uint8_t key[KEY_SIZE]; /* the user's, until the image's is known */
  bool encrypted;
  uint8_t image_key[KEY_SIZE];
  struct image_cipher cipher;
  uint64_t file_size; /* of the encrypted file; the anchor is that of the image inside */
};

/* The image's metadata; of an encrypted image what was sealed, with a chunk index that says where the encrypted chunks are. */
struct image {
  char path[4300];
  int fd;
  struct file_status status;
  struct warp_anchor anchor;
  uint8_t *metadata;
  const Elf64_Phdr *segments;
  uint64_t segment_count;
  const uint8_t *auxv;
  size_t auxv_size;
  struct view image, process, threads, vmas, files, objects, extents, descriptors, descriptions, pipes, sockets, epoll_watches, eventfds, timerfds, signalfds, inotify_watches, locks, signal_actions,
      pending_signals, timers, tid_references, guards, chunks, accesses, policies;
};

/* What a restore does, one after the other. */
enum phase {
  PHASE_METADATA, /* read and checked */
  PHASE_PLACE,    /* found, and the restorer moved there */
  PHASE_CONTENT,  /* how it comes back is decided, its index read, a cold page cache asked to read */
  PHASE_FILES,
  PHASE_DESCRIPTORS,
  PHASE_CLEAR, /* the restorer's own memory is given up */
  PHASE_MAP,
  PHASE_DEFER, /* what can wait is found */
  PHASE_LOAD,
  PHASE_AREAS, /* protection, advice, names; the vDSO */
  PHASE_PROCESS,
  PHASE_THREADS,
  PHASES,
};

struct stats {
  bool timed; /* somebody wants to know the times */
  int fd;     /* of --stats, or -1 */
  uint64_t begin_ns;
  uint64_t end_us[PHASES]; /* microseconds since the restorer began */
  uint64_t direct_bytes, eager_bytes, object_bytes, read_bytes, deferred_bytes, prefetched_bytes;
  uint64_t direct_mappings, eager_reads, loaders;
};

/* How memory comes back, and why that way: a word for programs, a sentence for people. */
enum mode { MODE_DIRECT, MODE_CONCURRENT, MODE_EAGER };
struct choice {
  enum mode mode;
  const char *reason;
  const char *explanation;
  const char *faults; /* of MODE_CONCURRENT: how absent memory is noticed, as --load-faults names it; else NULL */
  const char *faults_reason;
  const char *faults_explanation;
};

/* How the image's content is stored, and how much of it is looked at. */
struct content {
  bool compressed;
  bool encrypted;
  bool check_all; /* all of it is compared with its hashes, wanted or not */
  bool indexed;   /* whole chunks are read, by this index */
  struct chunk_index index;
  bool *taken; /* by chunk: loaded by somebody */
};

/* A stretch of content and where in memory it goes. */
struct target {
  uint64_t offset; /* in content space */
  uint64_t size;
  uint64_t address;
};

/* A file as device and inode. */
struct file_identity {
  uint64_t device;
  uint64_t inode;
};

/* [vdso], and each [vvar…]: kernels have three at most. */
#define MOST_KERNEL_AREAS 8

/* What becomes of a descriptor, and who says so. */
struct treatment {
  uint32_t action; /* enum warp_policy_action, 0: nobody says anything */
  bool quiet;
};

struct restore {
  struct options options;
  struct arena arena;
  struct failure failure;
  struct decryption decryption;
  struct image image;
  struct content content;
  struct choice choice;
  bool concurrent;              /* part of the memory is loaded while the program runs */
  bool map_chunks;              /* then: what training runs needed is mapped where it is stored as it is in memory */
  struct warp_loading *loading; /* that part */
  bool map_changed_pages;       /* of files too: the engine in the image knows what that means */
  struct list overlays;         /* of struct warp_overlay: those */
  struct stats stats;
  /* The restorer's place while memory changes around it. */
  uint64_t bootstrap;
  uint64_t bootstrap_size;
  uint64_t vdso_place; /* where the kernel's own areas wait: the vDSO and its data */
  struct map_line kernel_areas[MOST_KERNEL_AREAS];
  size_t kernel_area_count;
  struct file_identity image_in_maps; /* as /proc/PID/maps names it */
  uint32_t lowest_own_descriptor;
  int image_fd;
  int standard[3]; /* the caller's streams, -1 where closed */
  struct policies policies;     /* of this restore: before those of the image */
  struct treatment *treatments; /* by descriptor */
  bool *replaced;               /* by description: something else is in its place */
  int *inherited;  /* by description: the caller's descriptor that takes its place, or -1 */
  int *file_fds;   /* by index of files */
  int *object_fds; /* by index of objects */
  uint32_t *new_tids; /* by index of threads */
  bool keep_ids;      /* threads get the ids of the image */
};

/* ---- main.c ---- */
/* Copies the program to where nothing of the image will come, and goes on there. */
_Noreturn void move_away(struct restore *restore);
/* When all content is read, or by others; and in processes that do not restore. */
void forget_keys(struct restore *restore);

/* ---- namespaces.c ---- */
/* For --keep-pid: goes on in new namespaces; the process that called stays outside and mirrors the program's end. */
int restore_in_namespace(struct restore *restore);
/* Passes signals on to a child, waits for its end and ends with its status, 128 + signal when it died of one. */
_Noreturn void follow_child(int32_t pid);
void drop_capabilities(void);

/* ---- image.c ---- */
/*
 * Opens and checks the image: header, anchor, sizes, hash, notes, and that no record refers to what is not there. Reads nothing but
 * metadata. With `open_fd` >= 0 that is the file, already open, and `path` only its name; `checked`, when not NULL, is its metadata, read and
 * hashed before. An encrypted image needs the key in `decryption`, which is wiped, and leaves the image's key there.
 */
int image_open(struct image *image, struct decryption *decryption, struct arena *arena, const char *path, int open_fd, uint8_t *checked, struct failure *failure);
/* The chunk index, which grows with the content, is read where it is needed only. */
int image_read_chunks(struct image *image, struct arena *arena, struct failure *failure);
/* Whether a segment describes memory, and how much of that the content space has. */
static inline bool segment_is_memory(const Elf64_Phdr *segment) { return segment->p_type == PT_LOAD || segment->p_type == PT_WARP_CHUNKED; }
static inline uint64_t segment_stored(const Elf64_Phdr *segment) { return segment->p_type == PT_WARP_CHUNKED ? segment->p_memsz : segment->p_filesz; }
/* The VMA that holds an address; NULL for none. */
const struct warp_vma_record *image_vma_at(const struct image *image, uint64_t address);
uint32_t image_new_tid(const struct restore *restore, uint32_t tid);

/* ---- stats.c ---- */
/* Opens the file of --stats. */
int open_stats(struct restore *restore);
void end_phase(struct restore *restore, enum phase phase);
/* To that file, but for its end: how long the engine takes is the engine's to say. */
void write_stats(struct restore *restore);

/* ---- host.c ---- */
/* Whether this host can run the image: processor features, kernel, page size. */
int check_host(struct restore *restore);
/* Opens every mapped file and compares its identity. */
int open_files(struct restore *restore);

/* ---- content.c ---- */
/* Threads that load content, at most; each has room for two chunks. */
#define MOST_LOADERS 16ul
/* Decides how content is loaded and what of it is checked; reads the chunk index where that needs it. */
int open_content(struct restore *restore);
/*
 * Fills memory, which is writable: each of `targets` (struct target) with its content; they are sorted. With `check_rest` the chunks that nobody
 * has loaded so far are compared with their hashes too.
 */
int load_content(struct restore *restore, struct list *targets, bool check_rest);

/* ---- loading.c ---- */
/* Decides how memory comes back: restore->choice, ->concurrent and ->options.direct_map. */
void choose_mode(struct restore *restore);
/* What has become of the choice, when memory is there: an image may have nothing to map, or nothing that can wait. */
void settle_mode(struct restore *restore);
/* Takes out of `targets`, which are in the order of addresses, what the program can do without for now, and lists it for the engine: restore->loading. */
int defer_content(struct restore *restore, struct list *targets);
/* Where that is asked for, records the chunks that had to be there before the program goes on: asked for by the restorer, when it came to memory. */
void trace_loaded(const struct restore *restore);

/* ---- prefetch.c ---- */
/* Where content is mapped and the page cache is cold: has the kernel read what is surely needed, without waiting for it. */
void prefetch(struct restore *restore);

/* ---- descriptors.c ---- */
/* Reads the rules of this restore, before descriptors are closed: the file may be one of those. */
int read_policies(struct restore *restore);
/* Prints a line `NUMBER ACTION` for each descriptor that a rule is about; fails where one says `error`. */
int print_treatments(struct restore *restore);
int restore_descriptors(struct restore *restore);
/* What a policy would be about: for matching, and for writing one. */
struct policy_subject descriptor_subject(const struct restore *restore, uint32_t number, const struct warp_description_record *description);
/* Fails with what is wrong with a descriptor and, unless it is under a policy that lets it fail, one with `action` that would help. */
int fail_descriptor(struct restore *restore, const struct policy_subject *subject, const struct treatment *treatment, uint32_t action, const char *text, ...) __attribute__((format(printf, 5, 6)));
/* After the memory is back: what acts on its own (timers), and locks. */
int restore_locks(struct restore *restore);
/* A descriptor that stays out of the program's numbers. */
/* Moves what --inherit-fd names out of the way of the program's descriptors, and closes all others but the image and the streams. */
void keep_callers_descriptors(struct restore *restore);
int move_descriptor(const struct restore *restore, int fd);

/* ---- sockets.c ---- */
/* The socket of a description, open; -1 with the failure set. Both ends of a pair are made at once. */
int restore_socket(struct restore *restore, const struct warp_description_record *description, uint32_t number, const struct treatment *treatment);
/* In place of a socket that cannot be made: one of its kind that nobody reaches; a negated errno. */
int substitute_socket(struct restore *restore, uint32_t index);
/* Closes what was made for ends of pairs that the program does not have. */
void close_unused_pairs(const struct restore *restore);

/* ---- memory.c ---- */
/* Makes the shared memory objects, with content. */
int create_objects(struct restore *restore);
/* Gives up the restorer's own memory but for its place. */
int clear_memory(struct restore *restore);
int restore_memory(struct restore *restore);
int restore_vdso(struct restore *restore);
/* Whether a segment of anonymous memory is mapped from the image rather than read. */
bool is_mapped_directly(const struct restore *restore, const Elf64_Phdr *segment);
/* Whether mapping what can be mapped might need more memory areas than a process may have. */
bool nears_area_limit(const struct restore *restore);
/* PROT_ bits of mmap(2) for WARP_PROT_ bits. */
/* Private memory without a file whose pages can come from anywhere. */
bool is_anonymous(const struct warp_vma_record *vma);
int kernel_protection(uint32_t protection);
/* Maps memory of an area from the image's file; false where the file system cannot, or is mounted noexec: reading does it too. */
bool map_from_image(struct restore *restore, const struct warp_vma_record *vma, uint64_t address, uint64_t size, uint64_t offset);

/* ---- process.c ---- */
int become_user(struct restore *restore);
int enter_directory(struct restore *restore);
int restore_process(struct restore *restore);
int restore_timers(struct restore *restore);
_Noreturn void restore_threads(struct restore *restore);

#endif
