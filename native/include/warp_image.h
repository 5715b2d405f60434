/*
 * The image format as C structures. docs/image-format.md specifies every field; this header follows it, and the test
 * test/format-agreement.test.ts checks that both and src/elf/schema.ts give the same names, offsets and sizes.
 * All numbers are little-endian. Structures hold no implicit padding.
 */
#ifndef WARP_IMAGE_H
#define WARP_IMAGE_H

#include <stdint.h>

#define WARP_FORMAT_MAJOR 1
#define WARP_FORMAT_MINOR 1

#define WARP_NOTE_OWNER "warp-tool"
#define WARP_ANCHOR_OFFSET 64
#define WARP_ANCHOR_MAGIC "WARPTOOL"
/* Bytes before the content. */
#define WARP_LARGEST_METADATA (256ul << 20)

/* Program header types, in the range that the ELF specification leaves to operating systems (PT_LOOS..PT_HIOS). */
#define PT_WARP_ANCHOR 0x6a770001u
#define PT_WARP_CHUNKED 0x6a770002u

/* The anchor: 128 bytes at file offset 64. */
struct warp_anchor {
  char magic[8];
  uint16_t format_major;
  uint16_t format_minor;
  uint32_t flags;
  uint64_t metadata_size;
  uint64_t metadata_hash;
  uint64_t file_size;
  uint64_t content_size;
  uint64_t notes_offset;
  uint64_t notes_size;
  uint64_t reserved[8];
};

/* Part of a note's heap: `offset` bytes from the heap's start, `length` bytes. Strings have no terminating NUL. */
struct warp_slice {
  uint32_t offset;
  uint32_t length;
};

/* Every project note is one table: this header, `record_count` records of `record_size` bytes, then the heap. */
struct warp_table {
  uint32_t record_size;
  uint32_t record_count;
  uint64_t heap_size;
};

enum warp_note_type {
  WARP_NOTE_IMAGE = 0x57415201,
  WARP_NOTE_PROCESS = 0x57415202,
  WARP_NOTE_THREADS = 0x57415203,
  WARP_NOTE_VMAS = 0x57415204,
  WARP_NOTE_FILES = 0x57415205,
  WARP_NOTE_OBJECTS = 0x57415206,
  WARP_NOTE_EXTENTS = 0x57415207,
  WARP_NOTE_DESCRIPTORS = 0x57415208,
  WARP_NOTE_DESCRIPTIONS = 0x57415209,
  WARP_NOTE_PIPES = 0x5741520a,
  WARP_NOTE_SOCKETS = 0x5741520b,
  WARP_NOTE_EPOLL_WATCHES = 0x5741520c,
  WARP_NOTE_EVENTFDS = 0x5741520d,
  WARP_NOTE_TIMERFDS = 0x5741520e,
  WARP_NOTE_SIGNALFDS = 0x5741520f,
  WARP_NOTE_INOTIFY_WATCHES = 0x57415210,
  WARP_NOTE_LOCKS = 0x57415211,
  WARP_NOTE_SIGNAL_ACTIONS = 0x57415212,
  WARP_NOTE_PENDING_SIGNALS = 0x57415213,
  WARP_NOTE_TIMERS = 0x57415214,
  WARP_NOTE_TID_REFERENCES = 0x57415215,
  WARP_NOTE_GUARDS = 0x57415216,
  WARP_NOTE_CHUNKS = 0x57415217,
  WARP_NOTE_TAGS = 0x57415218,
  WARP_NOTE_ENCRYPTION = 0x57415219,
  WARP_NOTE_ACCESSES = 0x5741521a,
  WARP_NOTE_POLICIES = 0x5741521b,
};

#define WARP_NONE 0xffffffffu /* an index that refers to nothing */

#define WARP_IMAGE_SELF_CONTAINED 0x1u
#define WARP_IMAGE_LEFT_RUNNING 0x2u
#define WARP_IMAGE_COMPRESSED 0x4u
#define WARP_IMAGE_ENCRYPTED 0x8u
#define WARP_IMAGE_DELTA 0x10u
#define WARP_IMAGE_FOREIGN 0x20u /* the content space is a core file of another writer */
#define WARP_IMAGE_FIXED_CALLS 0x40u /* its code may release memory by system calls that cannot be redirected: do not map it */

struct warp_image_record {
  uint8_t image_id[16];
  uint8_t parent_id[16];
  uint32_t generation;
  uint32_t flags;
  uint64_t realtime_ns;
  uint64_t monotonic_ns;
  uint64_t boottime_ns;
  uint32_t page_size;
  uint32_t machine;
  uint64_t xstate_features;
  uint32_t xstate_size;
  uint32_t reserved;
  struct warp_slice engine_version;
  struct warp_slice kernel_release;
  struct warp_slice kernel_version;
  struct warp_slice hostname;
  struct warp_slice cpu_model;
  struct warp_slice cpu_features;
  struct warp_slice boot_id;
  struct warp_slice executable;
  struct warp_slice command;
  struct warp_slice parent_location;
};

struct warp_process_record {
  uint32_t pid;
  uint32_t parent_pid;
  uint32_t process_group;
  uint32_t session;
  uint32_t uid[4];
  uint32_t gid[4];
  uint32_t umask;
  uint32_t personality;
  uint32_t dumpable;
  uint32_t no_new_privs;
  uint32_t thp_disable;
  uint32_t child_subreaper;
  int32_t oom_score_adj;
  int32_t tid_offset;
  uint64_t start_code;
  uint64_t end_code;
  uint64_t start_data;
  uint64_t end_data;
  uint64_t start_brk;
  uint64_t brk;
  uint64_t start_stack;
  uint64_t arg_start;
  uint64_t arg_end;
  uint64_t env_start;
  uint64_t env_end;
  uint64_t vdso_start;
  uint64_t vdso_size;
  uint64_t vvar_start;
  uint64_t control;
  uint64_t resume_entry;
  uint64_t helper_entry;
  uint64_t helper_stack;
  uint64_t rlimit[16][2];
  uint64_t itimer[3][2];
  struct warp_slice cwd;
  struct warp_slice root;
  struct warp_slice groups;
  uint32_t membarrier;
  uint32_t reserved;
};

#define WARP_THREAD_LEADER 0x1u
#define WARP_THREAD_EXITED 0x2u /* a leader that has ended with pthread_exit: a zombie until the process ends */

struct warp_thread_record {
  uint32_t tid;
  uint32_t flags;
  uint64_t fs_base;
  uint64_t gs_base;
  uint64_t robust_head;
  uint64_t robust_length;
  uint64_t rseq_address;
  uint32_t rseq_length;
  uint32_t rseq_signature;
  uint64_t altstack_address;
  uint64_t altstack_size;
  uint32_t altstack_flags;
  uint32_t death_signal;
  uint64_t signal_mask;
  uint64_t clear_child_tid;
  uint64_t context;
  uint64_t resume_stack;
  uint64_t timer_slack_ns;
  int32_t nice;
  uint32_t scheduling_policy;
  uint32_t scheduling_priority;
  uint32_t io_priority;
  int32_t system_call;
  uint32_t state;
  struct warp_slice name;
  struct warp_slice affinity;
};

enum warp_vma_kind {
  WARP_VMA_ANONYMOUS = 1,
  WARP_VMA_FILE = 2,
  WARP_VMA_OBJECT = 3,
  WARP_VMA_HEAP = 4,
  WARP_VMA_STACK = 5,
  WARP_VMA_VDSO = 6,
  WARP_VMA_VVAR = 7,
  WARP_VMA_ENGINE = 8,
};

#define WARP_PROT_READ 0x1u
#define WARP_PROT_WRITE 0x2u
#define WARP_PROT_EXEC 0x4u

#define WARP_VMA_SHARED 0x1u
#define WARP_VMA_GROWS_DOWN 0x2u
#define WARP_VMA_NO_RESERVE 0x4u
#define WARP_VMA_LOCKED 0x8u
#define WARP_VMA_LOCK_ON_FAULT 0x10u
#define WARP_VMA_HUGETLB 0x20u
#define WARP_VMA_DONT_DUMP 0x40u
#define WARP_VMA_DONT_FORK 0x80u
#define WARP_VMA_WIPE_ON_FORK 0x100u
#define WARP_VMA_MERGEABLE 0x200u
#define WARP_VMA_HUGE_PAGE 0x400u
#define WARP_VMA_NO_HUGE_PAGE 0x800u
#define WARP_VMA_RANDOM 0x1000u
#define WARP_VMA_SEQUENTIAL 0x2000u
#define WARP_VMA_SEALED 0x4000u
#define WARP_VMA_MAY_WRITE 0x8000u /* a shared file mapping whose file was opened for writing */

struct warp_vma_record {
  uint64_t start;
  uint64_t end;
  uint64_t offset;
  uint32_t kind;
  uint32_t protection;
  uint32_t flags;
  uint32_t file;
  uint32_t object;
  uint32_t reserved;
  uint64_t resident;
  uint64_t stored;
  struct warp_slice name;
};

#define WARP_FILE_DELETED 0x1u

struct warp_file_record {
  uint64_t device;
  uint64_t inode;
  uint64_t size;
  int64_t mtime_ns;
  uint64_t sample_hash;
  uint32_t mode;
  uint32_t flags;
  struct warp_slice path;
  struct warp_slice build_id;
};

enum warp_object_kind {
  WARP_OBJECT_MEMFD = 1,
  WARP_OBJECT_SHARED_ANONYMOUS = 2,
  WARP_OBJECT_DELETED_FILE = 3,
};

struct warp_object_record {
  uint32_t kind;
  uint32_t seals;
  uint64_t size;
  uint32_t mode;
  uint32_t memfd_flags;
  struct warp_slice name;
};

struct warp_extent_record {
  uint32_t object;
  uint32_t reserved;
  uint64_t object_offset;
  uint64_t length;
  uint64_t content_offset;
};

struct warp_descriptor_record {
  uint32_t number;
  uint32_t flags; /* FD_CLOEXEC = 1 */
  uint32_t description;
  uint32_t policy; /* number of a record of policies, from 1; 0: none */
};

enum warp_description_kind {
  WARP_DESCRIPTION_FILE = 1,
  WARP_DESCRIPTION_DIRECTORY = 2,
  WARP_DESCRIPTION_DEVICE = 3,
  WARP_DESCRIPTION_TTY = 4,
  WARP_DESCRIPTION_PIPE = 5,
  WARP_DESCRIPTION_FIFO = 6,
  WARP_DESCRIPTION_SOCKET = 7,
  WARP_DESCRIPTION_EVENTFD = 8,
  WARP_DESCRIPTION_EPOLL = 9,
  WARP_DESCRIPTION_TIMERFD = 10,
  WARP_DESCRIPTION_SIGNALFD = 11,
  WARP_DESCRIPTION_INOTIFY = 12,
  WARP_DESCRIPTION_OBJECT = 13,
  WARP_DESCRIPTION_CALLER = 14,
  WARP_DESCRIPTION_NOT_KEPT = 15, /* a policy allowed that */
};

struct warp_description_record {
  uint32_t kind;
  uint32_t detail;
  uint32_t status_flags;
  uint32_t mode;
  int64_t offset;
  uint64_t device;
  uint64_t inode;
  uint64_t size;
  int32_t owner;
  uint32_t owner_signal;
  struct warp_slice path;
  int64_t mtime_ns;
  uint64_t sample_hash;
};

#define WARP_PIPE_NO_READER 0x1u
#define WARP_PIPE_NO_WRITER 0x2u
#define WARP_PIPE_PACKETS 0x4u

struct warp_pipe_record {
  uint64_t inode;
  uint32_t capacity;
  uint32_t flags;
  struct warp_slice path;
  struct warp_slice data;
};

enum warp_socket_state {
  WARP_SOCKET_UNCONNECTED = 1,
  WARP_SOCKET_LISTENING = 2,
  WARP_SOCKET_PAIR = 3,
  WARP_SOCKET_CONNECTED = 4,
  WARP_SOCKET_BOUND = 5,
};

#define WARP_SOCKET_SHUTDOWN_READ 0x1u
#define WARP_SOCKET_SHUTDOWN_WRITE 0x2u

struct warp_socket_record {
  uint64_t inode;
  uint32_t family;
  uint32_t type;
  uint32_t protocol;
  uint32_t state;
  uint32_t backlog;
  uint32_t peer;
  uint32_t flags;
  uint32_t mode;
  struct warp_slice local;
  struct warp_slice remote;
  struct warp_slice options;
  struct warp_slice data;
};

struct warp_epoll_watch_record {
  uint32_t description;
  uint32_t fd;
  uint32_t events;
  uint32_t target;
  uint64_t data;
};

struct warp_eventfd_record {
  uint64_t count;
  uint32_t semaphore;
  uint32_t reserved;
};

struct warp_timerfd_record {
  uint32_t clock;
  uint32_t settime_flags;
  uint64_t ticks;
  uint64_t value_ns;
  uint64_t interval_ns;
};

struct warp_signalfd_record {
  uint64_t mask;
};

struct warp_inotify_watch_record {
  uint32_t description;
  uint32_t watch;
  uint32_t mask;
  uint32_t reserved;
  uint64_t device;
  uint64_t inode;
  struct warp_slice path;
};

enum warp_lock_kind {
  WARP_LOCK_POSIX = 1,
  WARP_LOCK_FLOCK = 2,
  WARP_LOCK_OFD = 3,
};

struct warp_lock_record {
  uint32_t fd;
  uint32_t kind;
  uint32_t exclusive;
  uint32_t reserved;
  uint64_t start;
  uint64_t end; /* last byte; 2^64-1 = to the end of the file */
};

struct warp_signal_action_record {
  uint32_t number;
  uint32_t reserved;
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  uint64_t mask;
};

struct warp_pending_signal_record {
  uint32_t tid;
  uint32_t reserved;
  uint8_t siginfo[128];
};

struct warp_timer_record {
  int32_t id;
  uint32_t clock;
  uint32_t notify;
  uint32_t number;
  uint32_t tid;
  uint32_t overrun;
  uint64_t value;
  uint64_t value_ns;
  uint64_t interval_ns;
};

enum warp_tid_reference_kind {
  WARP_TID_THREAD = 1,
  WARP_TID_MUTEX = 2,
  WARP_TID_FUTEX = 3,
  WARP_TID_CACHED = 4,
};

struct warp_tid_reference_record {
  uint64_t address;
  uint32_t tid;
  uint32_t kind;
};

struct warp_guard_record {
  uint64_t start;
  uint64_t end;
};

#define WARP_CHUNK_CODEC_MASK 0xffu
#define WARP_CHUNK_PLAIN 0u
#define WARP_CHUNK_LZ4 1u
#define WARP_CHUNK_ZSTD 2u
#define WARP_CHUNK_ENCRYPTED 0x100u
#define WARP_CHUNK_IN_PARENT 0x200u

struct warp_chunk_record {
  uint64_t content_offset;
  uint64_t file_offset;
  uint32_t content_size;
  uint32_t stored_size;
  uint64_t content_hash;
  uint64_t stored_hash;
  uint32_t flags;
  uint32_t reserved;
};

enum warp_tag_kind {
  WARP_TAG_LABEL = 1,
  WARP_TAG_BITMAP = 2,
  WARP_TAG_SCORE = 3,
  WARP_TAG_USER_DATA = 4,
  WARP_TAG_RESTORE_DATA = 5,
};

struct warp_tag_record {
  uint32_t kind;
  uint32_t reserved;
  struct warp_slice name;
  struct warp_slice value;
};

/* By order in the file: what training restores needed comes first. */
struct warp_access_record {
  uint32_t chunk;
  uint32_t runs;
  uint64_t median_ns;
};

enum warp_policy_type {
  WARP_POLICY_FILE = 1,
  WARP_POLICY_PIPE = 2,
  WARP_POLICY_SOCKET = 3,
  WARP_POLICY_DESCRIPTOR = 4,
};

enum warp_policy_action {
  WARP_POLICY_ERROR = 1,
  WARP_POLICY_IGNORE = 2,
  WARP_POLICY_CLOSE = 3,
  WARP_POLICY_REOPEN = 4,
};

#define WARP_POLICY_QUIET 0x1u /* warn: false */

struct warp_policy_record {
  uint32_t type;
  uint32_t action;
  uint32_t flags;
  uint32_t line;
  struct warp_slice file;
  struct warp_slice text;
};

#define WARP_CIPHER_AES_256_GCM 1u
#define WARP_DERIVATION_HKDF_SHA256 1u

struct warp_encryption_record {
  uint32_t cipher;
  uint32_t derivation;
  uint8_t salt[32];
  struct warp_slice sealed;
};

#endif
