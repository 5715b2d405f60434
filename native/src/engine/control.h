/*
 * What passes between a restored process's engine (libwarp.so, part of the image) and the restorer, which may be of a later
 * version. docs/engine.md describes the protocol; the layout only grows, and `version` says how far.
 */
#ifndef WARP_CONTROL_H
#define WARP_CONTROL_H

#include "../../include/warp_image.h"
#include "../base/base.h"

#define WARP_CONTROL_MAGIC "WARPCTRL"
#define WARP_CONTROL_VERSION 5u

/* Bytes that a restoring process may hand to the restored one. */
#define WARP_RESTORE_DATA_ROOM 4096u

/* Bytes for variables that a restore sets. */
#define WARP_ENVIRONMENT_ROOM 16384u

/* Bytes for the arguments of a restore. */
#define WARP_ARGUMENTS_ROOM 16384u

/* A chunk that is loaded while the program runs. */
enum warp_load_state { WARP_LOAD_ABSENT = 0, WARP_LOAD_BUSY = 1, WARP_LOAD_PRESENT = 2 };
struct warp_load_chunk {
  uint32_t number;       /* in the image's index */
  uint32_t state;        /* a futex; enum warp_load_state */
  uint32_t first_piece;  /* of this chunk */
  uint32_t requested;    /* 1: somebody waits for it */
  uint32_t next_request; /* index + 1 of another requested chunk, 0 for none */
  uint64_t asked_ns;     /* CLOCK_MONOTONIC when somebody first waited for it, else 0 */
};

/* A stretch of memory whose content one chunk has; by ascending address. */
struct warp_load_piece {
  uint64_t address;
  uint64_t size;
  uint32_t chunk;
  uint32_t offset;     /* in the chunk's content */
  uint32_t protection; /* PROT_ bits of mmap(2) */
  uint32_t next;       /* another piece of the chunk, WARP_NONE for none */
};

/* How absent memory makes itself known. */
enum warp_load_faults { WARP_LOAD_FAULTS_AUTO = 0, WARP_LOAD_FAULTS_USERFAULTFD = 1, WARP_LOAD_FAULTS_USERFAULTFD_USER = 2, WARP_LOAD_FAULTS_SIGNALS = 3 };

/* Memory that the program wants huge pages for. */
struct warp_load_range {
  uint64_t start;
  uint64_t end;
};

/* What is still to be loaded when the threads go on; in the restorer's place, which stays until that is done. */
struct warp_loading {
  uint32_t faults;      /* enum warp_load_faults: what to use, and what is used */
  uint32_t concurrency; /* loader threads; 0: only what is asked for is loaded (training) */
  int32_t image_fd;     /* these four in the helper's descriptor table; -1 for none */
  int32_t memory_fd;    /* /proc/self/mem */
  int32_t trace_fd;     /* gets a struct warp_load_event for each chunk */
  int32_t error_fd;     /* gets the line that says why the process had to be ended */
  uint32_t chunk_count;
  uint32_t piece_count;
  const struct warp_chunk_record *records; /* the image's index */
  uint64_t record_count;
  struct warp_load_chunk *chunks; /* in the order in which they are loaded */
  struct warp_load_piece *pieces;
  uint64_t begin_ns;    /* CLOCK_MONOTONIC at the restorer's start */
  char path[4096];      /* of the image, for messages */
  uint64_t huge_count;  /* where pieces lie in memory that the program wants huge pages for */
  const struct warp_load_range *huge;
  /* Control version 4. Of an encrypted image: its own key, which the engine wipes here before the threads go on. */
  uint32_t encrypted;   /* 0 or 1 */
  uint8_t image_id[16];
  uint8_t image_key[32];
};

/* One chunk has been loaded. Times in nanoseconds since begin_ns. */
struct warp_load_event {
  uint64_t content_offset; /* which chunk */
  uint64_t asked_ns;       /* when a thread, or before them all the restorer, first waited for it; 0: none did */
  uint64_t present_ns;
};

/* Changed pages of a private file mapping that are mapped from the image: when the program gives them back, the file's come again. */
struct warp_overlay {
  uint64_t image_offset; /* in the image's file: what stands there is mapped once */
  uint64_t size;
  uint64_t file_offset;
  uint64_t device; /* of the file, as stat(2) has it */
  uint64_t inode;
  const char *path;
};

struct warp_control {
  char magic[8];
  uint32_t version;
  uint32_t size;

  /* Written by the restorer before it starts a thread. */
  uint32_t direct_mapped;     /* 1: memory is mapped directly from the image */
  uint32_t generation;        /* of the running process: the image's + 1 */
  uint32_t threads_expected;  /* threads that will come through resume_entry */
  uint32_t reserved;
  uint64_t image_device;      /* as /proc/PID/maps shows the image: where direct mappings come from */
  uint64_t image_inode;
  uint64_t bootstrap_address; /* the restorer's own memory, which the engine unmaps at the end */
  uint64_t bootstrap_size;
  uint32_t environment_size;  /* of `environment`: new or changed variables, NAME=VALUE with a NUL behind each */
  uint32_t reserved_2;
  char environment[WARP_ENVIRONMENT_ROOM];
  char executable[1024];      /* of the program, whose /proc/self/exe is the restorer now */

  /* The engine's own at a restore. */
  uint32_t threads_arrived;
  uint32_t release;

  /* Version 2. Written by the restorer; NULL when all memory is there. */
  struct warp_loading *loading;
  uint32_t restore_data_size; /* 0: none */
  uint32_t reserved_3;
  uint8_t restore_data[WARP_RESTORE_DATA_ROOM];

  /* Version 3. What stands behind -- at the restore, for programs that ask; a NUL behind each. */
  uint32_t arguments_size;
  uint32_t takes_arguments; /* 1: the program asks for them; the engine's own, until the capture */
  char arguments[WARP_ARGUMENTS_ROOM];

  /* Version 4. What --stats writes, to which the engine adds the end: when it lets the threads go on. */
  int32_t stats_fd; /* in the helper's descriptor table; -1 for none */
  uint32_t reserved_5;
  uint64_t stats_begin_ns; /* CLOCK_MONOTONIC at the restorer's start */
  uint64_t stats_us;       /* from then until the engine began */

  /* Version 5. By ascending image_offset; in the restorer's place, as are the paths. */
  const struct warp_overlay *overlays;
  uint64_t overlay_count;
};

#endif
