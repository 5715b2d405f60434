/*
 * What passes between a restored process's engine (libwarp.so, part of the image) and the restorer, which may be of a later
 * version. docs/engine.md describes the protocol; the layout only grows, and `version` says how far.
 */
#ifndef WARP_CONTROL_H
#define WARP_CONTROL_H

#include "../base/base.h"

#define WARP_CONTROL_MAGIC "WARPCTRL"
#define WARP_CONTROL_VERSION 1u

/* Bytes for variables that a restore sets. */
#define WARP_ENVIRONMENT_ROOM 16384u

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
};

#endif
