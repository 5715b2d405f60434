/* libwarp.so's inner interfaces: the engine inside the program. docs/engine.md tells how the parts work together. */
#ifndef WARP_ENGINE_H
#define WARP_ENGINE_H

#include "../image/encryption.h"
#include "../image/simulated.h"
#include "../image/policies.h"
#include "../image/tables.h"
#include "control.h"

#define ENGINE_VERSION "0.1.0"

extern HIDDEN struct warp_control warp_control;

/* Where the engine lives: [start, end) of libwarp.so in memory. */
uint64_t engine_start(void);
uint64_t engine_end(void);

/* ---- what a checkpoint was asked for ---- */
struct request {
  char directory[4096];
  enum engine_kind engine;
  bool leave_running;
  bool self_contained;
  bool confirm; /* when the image is durable, the process is held until the client says that it may end */
  uint32_t lz4_level;  /* 0: not compressed */
  uint32_t chunk_kib;  /* content of a compressed chunk, at most COMPRESSED_CHUNK_SIZE; 0: by how much content there is */
  char *key_digits;    /* of the user's key, 2 * KEY_SIZE of them, wiped before anything is captured; NULL: not encrypted */
  uint64_t timeout_ms; /* for the threads to stop; the writing is not limited */
  uint64_t hooks_timeout_ms; /* for a Java application to get ready */
  char policies_file[4096]; /* rules of this checkpoint, which go before those of the program; empty: none */
  const char *policies;     /* what is in it, where the client has sent that */
  size_t policies_size;
  bool from_program; /* asked for by the program itself, which has made itself ready */
  int client; /* socket of whoever asked, or NOBODY */
};
#define NOBODY (-1)

/* ---- threads (threads.c) ---- */
/* SLOT_LEFT is the last that a thread writes to its slot. */
enum slot_state { SLOT_SIGNALLED = 0, SLOT_PARKED = 1, SLOT_GONE = 2, SLOT_ENDED_LEADER = 3, SLOT_LEFT = 4 };
enum slot_command { COMMAND_WAIT = 0, COMMAND_CALL = 1, COMMAND_RELEASE = 2 };

/* A thread of the program during a capture. */
struct slot {
  uint64_t resume_stack;
  uint32_t tid;
  uint32_t state;
  uint32_t command;
  uint32_t death_signal;
  struct ucontext *context;
  struct arch_blocked_call seen; /* what the thread was doing just before it was signalled */
  int64_t system_call;           /* that goes on after the capture, -1 for none */
  uint64_t fs_base;
  uint64_t gs_base;
  uint64_t clear_child_tid;
  uint64_t timer_slack_ns;
  char proc_state;
  /* A call on behalf of the helper, which has no access to the program's descriptor table. */
  long (*function)(void *);
  void *argument;
  void *stack_top;
  long result;
};

struct freeze {
  struct slot *slots; /* the leader's first */
  size_t count;
  size_t capacity;
};

/* The signal that stops threads: glibc calls it SIGSETXID, musl SIGCANCEL; neither lets a program block or take it. */
#define CAPTURE_SIGNAL 33u

/*
 * Stops every thread but the caller, or those that are `wanted` (not NULL) by what they are seen to do; fails after the request's time-out, with a line that
 * names the thread, or when the client has gone. On failure, too, freeze_release must follow.
 */
int freeze_threads(struct freeze *freeze, const struct request *request, bool (*wanted)(const struct slot *), struct failure *failure);
/*
 * Waits until every stopped thread is asleep in the kernel. Until then it still runs on its own stack, and the kernel writes the processor
 * that it comes back to into its rseq area (kernel/rseq.c), so memory is not read before. To be called again after freeze_call.
 */
int freeze_settle(const struct freeze *freeze, const struct request *request, struct failure *failure);
/* When all threads are stopped: a system call that goes on ends its state itself, but those of threads that have gone cannot. */
void freeze_forget_calls(const struct freeze *freeze);
/* Decides how interrupted system calls go on, in every stopped thread's signal frame. */
void freeze_continue_calls(struct freeze *freeze);
void freeze_release(struct freeze *freeze);
/* Runs `function(argument)` in a stopped thread that has the program's descriptor table. */
long freeze_call(struct slot *slot, long (*function)(void *), void *argument);
/* Ends the function that freeze_call runs, from within it: its result is -1. */
_Noreturn void freeze_call_failed(void);
struct slot *freeze_proxy(struct freeze *freeze);
/* The program's disposition of CAPTURE_SIGNAL, during a capture. */
const struct arch_sigaction *freeze_program_action(void);
/* In a restored process, when its threads have left: the state of the capture that it came from is over. */
void freeze_forget(struct freeze *freeze);
/* When the engine starts in a process, new or restored. */
void threads_begin(void);

/* Memory that belongs to the engine and is kept in images. */
void *engine_memory(size_t size);
void engine_memory_free(void *memory);
bool is_engine_memory(uint64_t start, uint64_t end);
uint64_t next_engine_memory(uint64_t from, uint64_t *end);

/* Where the restored helper thread starts. */
void engine_helper_restored(void *argument);
HIDDEN extern struct freeze engine_freeze;
HIDDEN extern uint8_t helper_stack[];
#define HELPER_STACK_SIZE (256 * KIB)

/* ---- the helper thread (engine.c) ---- */
extern HIDDEN uint32_t helper_tid;
/* The program was started so that it uses what every processor has (warp-tool run --cpu-features generic). */
extern HIDDEN bool generic_processor;
/* Garbage of Node.js and Java is collected before a capture (else warp-tool run --no-gc). */
extern HIDDEN bool collects_garbage;
/* Holds the key of images that the program asks for itself without naming one (WARP_ENCRYPTION_KEY_FILE); empty: they are not encrypted. */
extern HIDDEN char engine_key_file[4096];
/* Whether the client of `request` still waits; refuses other clients meanwhile. */
bool client_waits(const struct request *request);
/* Waits until the client says that the process may end; false when it says that the process must go on, or has gone. */
bool client_confirms(const struct request *request);
void client_send(const struct request *request, const char *text, ...) __attribute__((format(printf, 2, 3)));
/* Whether the client's user may give commands. */
bool client_allowed(int client);
/* Reads "key=value" lines up to an empty one; false when the client stops before. */
bool client_read(int client, char *text, size_t size);
void engine_start_helper(void);
/* Sets the variables that a restore gave (warp_control), where programs look for them. */
void engine_apply_environment(void);
/* Where the engine of this process listens; returns the address's size. */
struct sockaddr_un;
size_t engine_socket_address(struct sockaddr_un *ret);
/* Sends the lines that a thread working for the helper has logged. */
void engine_log_flush(void);

/* ---- policies (policies.c) ---- */
/* The rules of this file hold for all checkpoints of the program, behind those of files before. What is wrong with it is told then. */
void policies_remember(const char *path);

/* ---- the program's own requests (api.c) ---- */
/* Leaves the line that warp_error gives; returns WARP_FAILED. */
int engine_fail(const char *text, ...) __attribute__((format(printf, 1, 2)));
/*
 * As warp_checkpoint (warp.h), with an LZ4 level (0: not compressed), a key of KEY_SIZE bytes, which is wiped (NULL: that of engine_key_file), and a file of
 * policies (NULL or empty: none).
 */
int engine_ask(const char *directory, enum engine_kind engine, bool leave_running, bool self_contained, int lz4_level, uint8_t *key, const char *policies);

/* ---- a capture (checkpoint.c) ---- */
/* Labels, bitmaps, scores and user data that a JVM gives its image, or demands of one (crlib.c). */
struct engine_tag {
  struct engine_tag *next;
  uint32_t kind; /* enum warp_tag_kind */
  uint32_t comparison;
  char *name;
  uint8_t *value;
  size_t size;
  bool failed; /* of a demand: the image has `found` */
  uint8_t *found;
  size_t found_size;
};
/* Those of the checkpoint that is being asked for. */
extern HIDDEN const struct engine_tag *engine_tags;

/*
 * How much content one chunk of the index covers, at most. Compressed ones are what must be read and decompressed for any byte in them, and what is mapped of an
 * optimised image: the less, the sooner; but all of the index is read by every restore.
 */
#define PLAIN_CHUNK_SIZE MIB
#define COMPRESSED_CHUNK_SIZE (256 * KIB)
#define FINE_CHUNK_SIZE (64 * KIB)
#define MOST_FINE_CONTENT (1024 * MIB)

/* Memory that is not all zeros: whole pages. */
struct piece {
  uint64_t start;
  uint64_t end;
};

enum run_source {
  SOURCE_MEMORY,         /* read in place: nothing changes it while the threads are stopped */
  SOURCE_MEMORY_COPY,    /* copied first: the engine itself or another process may change it */
  SOURCE_PROCESS_MEMORY, /* through /proc/self/mem: not readable by the program itself */
  SOURCE_OBJECT,         /* read from object_source.fd, or a mapping of it */
};

/* A stretch of the image's content: pieces and the zeros between them. */
struct run {
  uint64_t address; /* of an object's run: the offset in the object */
  uint64_t size;
  uint64_t content_offset;
  uint32_t source;
  uint32_t object; /* WARP_NONE for memory */
  uint32_t first_piece;
  uint32_t piece_count;
  uint8_t *snapshot; /* a copy, laid out as the run, that stands for the source; or NULL */
};

/* A program header of type PT_LOAD. */
struct segment {
  uint64_t address;
  uint64_t size;
  uint64_t content_offset;
  uint32_t stored;
  uint32_t protection;
};

struct object_source { /* beside each record of the objects table */
  uint64_t device;
  uint64_t inode;
  int fd;                  /* the helper's own, -1: only mapped */
  struct list mappings;    /* of struct object_mapping */
};
struct object_mapping {
  uint64_t start;
  uint64_t end;
  uint64_t offset;
};

/* How the image is encrypted; secret. In the capture's arena: no image has it. */
struct sealing {
  uint8_t salt[SALT_SIZE];
  struct image_cipher cipher;
};

/* A thread that reads the program's memory, and goes on at `frame` (__builtin_setjmp) when that is gone. */
struct reader {
  struct reader *next;
  uint32_t tid;
  void *frame[5];
};

struct capture {
  struct request *request;
  struct failure *failure;
  struct arena arena;
  struct freeze *freeze;
  int image_fd;
  int process_memory; /* /proc/self/mem */
  int pagemap;
  long dumpable;      /* PR_GET_DUMPABLE of the program */
  size_t fixed_calls; /* places that may release memory and cannot be redirected */

  struct table image, process, threads, vmas, files, objects, extents, descriptors, descriptions, pipes, sockets, epoll_watches, eventfds, timerfds, signalfds, inotify_watches, locks, signal_actions,
      pending_signals, timers, tid_references, guards, chunks, tags, policies;
  struct sealing *sealing;        /* NULL: the image is not encrypted */
  struct table encrypted_chunks;  /* by chunk: what the open chunk index says */
  uint64_t sealed_end;            /* size of the file that the image would be without encryption */
  struct policies rules;
  struct list object_sources;
  struct list pieces;
  struct list runs;
  struct list segments;
  uint64_t metadata_size;
  uint64_t content_end;
  uint64_t chunk_size; /* content of each chunk but the last */
  uint64_t file_end;       /* of what is stored: content_end unless compressed */
  uint64_t repeated_bytes; /* content that is stored with other chunks of the same content */

  struct buffer kernel_notes;

  bool guarded; /* reading_begin has been called */
  bool sent_signals; /* SIGBUS has been sent meanwhile: sent_signal is its siginfo_t */
  uint8_t sent_signal[128];
  struct arch_sigaction sigbus_action; /* the program's */
  uint64_t lost_address; /* of memory that is gone; 0: none */
  struct reader *readers;

  uint64_t started_ns, stopping_ns, frozen_ns, collected_ns, scanned_ns;
  uint64_t released_ns; /* when the program went on before the image was written, else 0 */
  uint64_t bytes_written;
};

/* Takes one checkpoint. On success without leave_running it does not return: the process ends. */
int checkpoint(struct request *request, struct failure *failure);

/* ---- a checkpoint without an image (simulate.c) ---- */
/* Takes one, by the request's engine. A pause ends when somebody asks for it on `listener`, or by RESTORE_SIGNAL. */
int simulate(struct request *request, int listener, struct failure *failure);

/* Ends a step of the capture, from within it, in the helper: the step fails. */
_Noreturn void capture_failed(void);

/* ---- memory that others can take away (reading.c) ---- */
/* While the threads stand still, and their dispositions have been taken: SIGBUS is the engine's. */
void reading_begin(struct capture *capture);
void reading_end(struct capture *capture);
/* The calling thread is another than the helper, or wants to go on elsewhere; `reader` stays as long as the capture's readers. */
void reading_add(struct capture *capture, struct reader *reader);
/* A read by system call has found memory gone. */
_Noreturn void reading_lost(uint64_t address);
/* When the capture has failed for that reason: says so in its failure. */
void reading_explain(struct capture *capture);

/* ---- parts of a capture ---- */
/* Reads the rules that apply: fails with a line that names file and line. */
int capture_policies(struct capture *capture);
int capture_process(struct capture *capture);
void capture_threads(struct capture *capture);
void capture_image(struct capture *capture);
void capture_kernel_notes(struct capture *capture);
/* Lays out and writes the whole file to image_fd. */
int capture_write_image(struct capture *capture);
int capture_signals(struct capture *capture);
/* Puts dequeued signals back. */
void requeue_signals(struct capture *capture);
int capture_descriptors(struct capture *capture);
/* Lists the memory areas with what backs them; refuses what cannot be kept. */
int capture_memory_areas(struct capture *capture);
/* Finds where memory has ids of threads: mutexes that record their owner. Behind capture_memory_areas; fails when there are too many. */
int capture_mutexes(struct capture *capture);
/* Finds what is to be stored: fills pieces, runs, segments, extents and chunks. Content offsets count from 0. */
int capture_scan_memory(struct capture *capture);
/* Address of an object's page in some mapping of it, 0 when none maps it. */
uint64_t capture_object_address(const struct object_source *source, uint64_t offset);
/* Lets a fork take along the areas that the program keeps out of its children, or clears there; and back. */
void capture_include_in_fork(const struct capture *capture, bool include);
/* Copies what a forked child would see change: shared memory. False when that is too much to be copied. */
bool capture_prepare_fork(struct capture *capture);
/* The bytes of a run from `address` on: in place, or in `copy`. A negated errno when they cannot be read. */
long capture_read(const struct capture *capture, const struct run *run, uint64_t address, uint64_t size, uint8_t *copy, const uint8_t **ret);
/* Moves all content offsets to where the content will begin in the file. */
void capture_place_content(struct capture *capture, uint64_t metadata_size);
/* Writes all runs to image_fd, from file_end on; completes chunks and file_end. */
int capture_write_memory(struct capture *capture);
/* The object record for a device and inode: found, or added with the given kind. */
uint32_t capture_object(struct capture *capture, uint64_t device, uint64_t inode, uint32_t kind, const char *name);

bool engine_on_glibc(void);

/* ---- reading ahead (prefetch.c) ---- */
/* In a restored process that runs: has the kernel read what is mapped from the image and not cached, until `wanted_elsewhere` says so. */
void prefetch_mapped(bool (*wanted_elsewhere)(void));

/* ---- released memory (release.c) ---- */
/*
 * Before a capture, while the program runs: finds where its code makes madvise(2) and mremap(2), or what may be these, by its own instructions.
 * Returns at how many places those cannot be redirected.
 */
size_t release_find_calls(struct arena *arena);
/* Whether a path is that of the C library, its loader or its threads. */
bool is_c_library(const char *path);
/* Copies memory of the program, with code as it was before calls in it were redirected; false when not all of it can be read. */
bool release_read_code(uint64_t address, void *to, size_t size);
/* madvise(2) with what the program means by it, also for memory that is mapped from the image; returns 0 or a negated errno. */
HIDDEN long engine_madvise(uint64_t address, uint64_t size, int advice);
/* In a restored process, before its threads go on: keeps what the restorer says of changed pages of files that are mapped from the image. */
void release_take_overlays(void);
/* What the content at an offset of the image is mapped over: NULL for nothing. *end: up to where in the image that holds. */
const struct warp_overlay *release_overlay(uint64_t image_offset, uint64_t *end);
/* In a restored process with direct mappings, while its threads wait: redirects those calls. */
void release_redirect(const struct freeze *freeze);

#endif
