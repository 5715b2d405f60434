/*
 * crlib, version 2: the interface through which a Java VM with CRaC (Coordinated Restore at Checkpoint) uses a checkpoint/restore
 * engine. Written from the interface's description; the names are those that the VM looks for.
 *
 * An engine is a library with one symbol, crlib_api. All functions are called from one thread at a time, but for checkpoint, in
 * which every other thread of the process is stopped. Strings are NUL-terminated and copied by whoever keeps them. Structures only ever grow
 * at their end: each extension tells its size.
 */
#ifndef CRLIB_H
#define CRLIB_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CRLIB_API_VERSION 2
#define CRLIB_API_FUNC "crlib_api"

/* One configuration: what was set, for one checkpoint or restore. */
typedef struct crlib_conf crlib_conf_t;

/* The first member of every extension. */
typedef struct crlib_extension {
  const char *name;
  size_t size; /* bytes of the whole extension */
} crlib_extension_t;

typedef struct crlib_api {
  /* NULL when there is no memory. */
  crlib_conf_t *(*create_conf)(void);
  /* NULL is allowed. */
  void (*destroy_conf)(crlib_conf_t *);
  /* 0: the process has been restored, or goes on after its checkpoint (keep_running). Else it goes on, and nothing was written. */
  int (*checkpoint)(crlib_conf_t *);
  /* Replaces the calling process by that of the image; returns only when it cannot: not 0. */
  int (*restore)(crlib_conf_t *);
  bool (*can_configure)(crlib_conf_t *, const char *key);
  /* False: no such key, or a value that makes no sense; a line on stderr says which. */
  bool (*configure)(crlib_conf_t *, const char *key, const char *value);
  /* NULL when there is no such extension, or only one of fewer bytes. */
  const crlib_extension_t *(*get_extension)(const char *name, size_t size);
} crlib_api_t;

/* NULL when the version is not CRLIB_API_VERSION, or the caller's structure is larger than the engine's. */
const crlib_api_t *crlib_api(int api_version, size_t api_size);

/* Bytes that the restoring process hands to the restored one. */
#define CRLIB_EXTENSION_RESTORE_DATA_NAME "restore data"
typedef struct crlib_restore_data {
  crlib_extension_t header;
  /* Replaces what was set before; size 0 clears it. False when it is too large. */
  bool (*set_restore_data)(crlib_conf_t *, const void *data, size_t size);
  /* Copies at most `size` bytes to `buffer`; returns how many there are, 0 for none. */
  size_t (*get_restore_data)(crlib_conf_t *, void *buffer, size_t size);
} crlib_restore_data_t;

/* Named bytes that stay with the image. */
#define CRLIB_EXTENSION_USER_DATA_NAME "user data"
typedef struct crlib_user_data_storage crlib_user_data_storage_t;
typedef struct crlib_user_data {
  crlib_extension_t header;
  /* For the next checkpoint. NULL or size 0 takes a name away. */
  bool (*set_user_data)(crlib_conf_t *, const char *name, const void *data, size_t size);
  /* What the image at image_location has; NULL when it cannot be read. */
  crlib_user_data_storage_t *(*load_user_data)(crlib_conf_t *);
  /* The bytes stay valid until the storage is destroyed. */
  bool (*lookup_user_data)(crlib_user_data_storage_t *, const char *name, const void **data, size_t *size);
  void (*destroy_user_data)(crlib_user_data_storage_t *);
} crlib_user_data_t;

/* How a bitmap of the image must compare with the one that is required; the shorter one is extended by zeros. */
typedef enum crlib_bitmap_comparison {
  CRLIB_BITMAP_EQUALS = 0,
  CRLIB_BITMAP_SUBSET = 1,   /* every bit of the image's is in the required one */
  CRLIB_BITMAP_SUPERSET = 2, /* the other way round */
} crlib_bitmap_comparison_t;

/* What an image says of itself, and what a restore demands of it. */
#define CRLIB_EXTENSION_IMAGE_CONSTRAINTS_NAME "image constraints"
typedef struct crlib_image_constraints {
  crlib_extension_t header;
  /* For the next checkpoint; a later call of the same name overwrites. */
  bool (*set_label)(crlib_conf_t *, const char *name, const char *value);
  bool (*set_bitmap)(crlib_conf_t *, const char *name, const unsigned char *value, size_t size);
  /* For the next restore. */
  bool (*require_label)(crlib_conf_t *, const char *name, const char *value);
  bool (*require_bitmap)(crlib_conf_t *, const char *name, const unsigned char *value, size_t size, crlib_bitmap_comparison_t comparison);
  /* After a restore that failed: whether this constraint did. */
  bool (*is_failed)(crlib_conf_t *, const char *name);
  /* The image's bitmap of a failed constraint: as get_restore_data. */
  size_t (*get_failed_bitmap)(crlib_conf_t *, const char *name, unsigned char *value, size_t size);
} crlib_image_constraints_t;

#define CRLIB_EXTENSION_IMAGE_SCORE_NAME "image score"
typedef struct crlib_image_score {
  crlib_extension_t header;
  /* For the next checkpoint; a later call of the same name overwrites. */
  bool (*set_score)(crlib_conf_t *, const char *metric, double value);
} crlib_image_score_t;

/* What can be configured. An array of these ends with one whose key is NULL. */
enum {
  CRLIB_CONF_OPTION_CHECKPOINT = 1,
  CRLIB_CONF_OPTION_RESTORE = 2,
  CRLIB_CONF_OPTION_DEPRECATED = 4,
  CRLIB_CONF_OPTION_OBSOLETE = 8,
};
typedef struct crlib_conf_option {
  const char *key;
  unsigned flags;
  const char *value_type;
  const char *default_value;
  const char *description;
} crlib_conf_option_t;

/* All strings and arrays live as long as the library; arrays end with NULL. */
#define CRLIB_EXTENSION_DESCRIPTION_NAME "description"
typedef struct crlib_description {
  crlib_extension_t header;
  const char *(*identity)(crlib_conf_t *);
  const char *(*description)(crlib_conf_t *);
  const char *(*configuration_doc)(crlib_conf_t *);
  const char *const *(*configurable_keys)(crlib_conf_t *);
  const crlib_extension_t *const *(*supported_extensions)(crlib_conf_t *);
  /* Since 2026. */
  const crlib_conf_option_t *(*configuration_options)(crlib_conf_t *);
} crlib_description_t;

#ifdef __cplusplus
}
#endif

#endif
