/*
 * Resource policies: rules that say what becomes of descriptors at a checkpoint and a restore. docs/policies.md specifies the file; this is
 * the only code that reads it.
 */
#ifndef WARP_POLICIES_H
#define WARP_POLICIES_H

#include "../../include/warp_image.h"
#include "../base/pattern.h"

/* Larger files, and more rules, are refused. */
#define POLICIES_LARGEST (64 * KIB)
#define POLICIES_MOST_RULES 512

/* One end of a socket, as far as a rule says what it must be. */
struct policy_end {
  bool has_address;
  uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d; 0.0.0.0 as :: */
  uint16_t port;       /* 0: any */
  const struct pattern *path;
};

struct policy_rule {
  uint32_t type;   /* enum warp_policy_type */
  uint32_t action; /* enum warp_policy_action */
  bool quiet;      /* warn: false */
  uint32_t line;   /* of the file, where the rule begins */
  const char *file;
  const char *text; /* "key: value" lines */
  const struct pattern *pattern; /* path of a file, regex of a descriptor; NULL for any */
  uint32_t family;               /* AF_ of a socket; 0 for any, AF_IP for either of IP */
  bool listening_given, listening;
  struct policy_end local, remote;
  bool number_given;
  uint32_t number;
};
#define POLICY_FAMILY_IP 0xffffffffu

struct policies {
  struct arena *arena;
  struct list rules; /* struct policy_rule, in the order in which they are tried */
};
void policies_init(struct policies *policies, struct arena *arena);
/* Adds the rules of a file's text; fails with a line that names `name`, the line and what to write. */
int policies_parse(struct policies *policies, const char *text, size_t size, const char *name, struct failure *failure);
/* A file of rules, at most POLICIES_LARGEST bytes; NULL with the failure set. */
char *policies_read(struct arena *arena, const char *path, size_t *size, struct failure *failure);

/* What rules look at. */
struct policy_subject {
  uint32_t number;
  uint32_t mode;    /* st_mode */
  const char *path; /* what /proc/PID/fd shows */
  bool callers;     /* one of the caller's standard streams: only its number counts */
  /* Of sockets. */
  uint32_t family; /* 0: not known */
  bool listening;
  const uint8_t *local; /* struct sockaddr */
  size_t local_size;
  const uint8_t *remote;
  size_t remote_size;
};
/* The first rule that matches, NULL for none. */
const struct policy_rule *policies_find(const struct policies *policies, const struct policy_subject *subject);

const char *policy_action_name(uint32_t action);
/* A rule for exactly this descriptor, as its lines with `; ` between them: for messages. */
void policy_write(char *ret, size_t size, const struct policy_subject *subject, uint32_t action);

#endif
